use serde::{Deserialize, Serialize};
use wellspring_commands::memory::Memory;
use wellspring_commands::{Op, command};

#[derive(Clone, Serialize, Deserialize)]
struct SetPrice;

struct Shop;

#[command]
impl Shop {
    async fn set_price(&self, _: SetPrice, _: u32, _: &Op<Memory>) -> Result<(), std::io::Error> {
        Ok(())
    }
}

fn main() {}
