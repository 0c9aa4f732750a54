use wellspring::Cx;
use wellspring_rpc::{Failure, rpc_service};

#[rpc_service]
trait Stock {
    async fn text(&self, item: &str) -> Result<u32, Failure>;
    async fn list(&self, items: &[u32]) -> Result<u32, Failure>;
    async fn number(&self, count: &u32) -> Result<u32, Failure>;
    async fn holds(&self, item: Option<&str>) -> Result<u32, Failure>;
    async fn opaque(&self, item: impl Into<String>) -> Result<u32, Failure>;
    async fn own(&self, other: Option<Self>) -> Result<u32, Failure>;
    async fn pattern(&self, (a, b): (u32, u32)) -> Result<u32, Failure>;
    async fn context(&self, cx: &Cx, item: String) -> Result<u32, Failure>;
    async fn caller_late(&self, item: String, caller: &Caller) -> Result<u32, Failure>;
    async fn caller_by_value(&self, caller: wellspring_rpc::Caller) -> Result<u32, Failure>;
    async fn nine(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8) -> Result<u32, Failure>;
}

fn main() {}
