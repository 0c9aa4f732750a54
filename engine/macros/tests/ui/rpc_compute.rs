use wellspring::{Computed, Fault};
use wellspring_rpc::{Failure, rpc_service};

#[rpc_service]
trait Stock {
    #[compute]
    async fn no_value(&self);
    #[compute]
    async fn a_number(&self) -> u32;
    #[compute]
    async fn of_no_function(&self, item: String) -> Result<u32, Failure>;
    async fn not_said(&self, item: String) -> Result<Computed<u32>, Fault>;
    #[compute]
    #[rpc(no_wait)]
    fn not_heard(&self) -> Result<Computed<u32>, Fault>;
    #[rpc(verified)]
    async fn not_tracked(&self) -> Result<u32, Failure>;
    #[rpc(no_wait, verified)]
    fn not_waited_for(&self);
    #[compute]
    #[rpc(verified, verified)]
    async fn twice(&self) -> Result<Computed<u32>, Fault>;
    #[compute(cut_off = eq)]
    async fn with_options(&self) -> Result<Computed<u32>, Fault>;
}

fn main() {}
