use wellspring_rpc::{Failure, rpc_service};

#[rpc_service(name = "IStock")]
trait Stock {
    async fn get(&self, item: String) -> Result<u32, Failure>;
    #[rpc(name = "Get")]
    async fn get_other(&self, item: u64) -> Result<u32, Failure>;
    async fn functions(&self) -> Result<u32, Failure>;
}

fn main() {}
