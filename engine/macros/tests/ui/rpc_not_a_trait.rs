use wellspring_rpc::rpc_service;

#[rpc_service]
struct Stock;

#[rpc_service]
trait Generic<T> {
    async fn get(&self) -> Result<T, wellspring_rpc::Failure>;
}

#[rpc_service]
trait WithMore {
    type Item;
    const LIMIT: u32;
}

fn main() {}
