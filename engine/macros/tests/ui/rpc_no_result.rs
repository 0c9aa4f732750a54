use wellspring_rpc::rpc_service;

type Number = u32;

#[rpc_service(only = client)]
trait Stock {
    async fn number(&self) -> Number;
    #[compute]
    async fn value(&self) -> Number;
}

fn main() {}
