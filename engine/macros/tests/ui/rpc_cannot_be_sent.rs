use serde::Deserialize;
use wellspring::{Computed, Fault};
use wellspring_rpc::rpc_service;

#[derive(Clone, Deserialize)]
struct Read;

#[rpc_service(only = server)]
trait Taken {
    #[compute]
    async fn value(&self) -> Result<Computed<Read>, Fault>;
}

fn main() {}
