use std::sync::Arc;

use wellspring_rpc::{Failure, rpc_service};

#[rpc_service]
trait Stock {
    async fn none(item: String) -> Result<u32, Failure>;
    async fn exclusive(&mut self, item: String) -> Result<u32, Failure>;
    async fn owned(self) -> Result<u32, Failure>;
    async fn shared(self: Arc<Self>) -> Result<u32, Failure>;
}

fn main() {}
