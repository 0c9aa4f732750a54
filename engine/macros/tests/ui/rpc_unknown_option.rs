use wellspring_rpc::{Failure, rpc_service};

#[rpc_service(prefix = "IStock")]
trait Unknown {}

#[rpc_service(only = both)]
trait Half {}

#[rpc_service(name = "IStock", name = "IStock")]
trait Twice {}

#[rpc_service(name = "$sys")]
trait System {}

#[rpc_service(name = "")]
trait Empty {}

#[rpc_service]
trait Stock {
    #[rpc(nowait)]
    fn unknown(&self);
    #[rpc(name = "")]
    async fn empty(&self) -> Result<(), Failure>;
    #[rpc(name = "Get:2")]
    async fn full(&self) -> Result<(), Failure>;
    #[rpc(no_wait, no_wait)]
    fn twice(&self);
    #[rpc]
    async fn nothing(&self) -> Result<(), Failure>;
}

fn main() {}
