use wellspring_rpc::{Failure, rpc_service};

#[rpc_service]
trait Stock {
    fn not_async(&self) -> Result<u32, Failure>;
    async fn no_result(&self);
    async fn a_number(&self) -> u32;
    #[rpc(no_wait)]
    fn answers(&self) -> Result<(), Failure>;
    async fn generic<T>(&self, item: T) -> Result<u32, Failure>;
    async fn of_a_lifetime<'a>(&self, item: &'a str) -> Result<u32, Failure>;
    async fn bounded(&self) -> Result<u32, Failure>
    where
        Self: Sized;
    async unsafe fn dangerous(&self) -> Result<u32, Failure>;
    async fn borrowed(&self) -> Result<&str, Failure>;
    async fn opaque(&self) -> Result<impl Sized, Failure>;
    async fn own(&self) -> Result<Self, Failure>;
}

fn main() {}
