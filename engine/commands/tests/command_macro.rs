//! `#[command]`: handlers as methods.

use serde::{Deserialize, Serialize};
use wellspring::Engine;
use wellspring_commands::memory::{Memory, Write};
use wellspring_commands::{Command, Op, Server, command};

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ShopError(String);

type Answer<T> = Result<T, ShopError>;

#[derive(Clone, Serialize, Deserialize)]
struct SetPrice {
    product: u32,
    cents: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Swap(u32, u32);

struct Shop {
    currency: &'static str,
}

#[command]
impl Shop {
    /// Sets a price.
    async fn set_price(&self, SetPrice { product, cents }: SetPrice, op: &Op<Memory>) -> Answer<String> {
        op.write(move |rows: &mut Write<'_>| {
            rows.insert(product.to_string(), cents.to_string());
            Ok::<_, ShopError>(())
        });
        Ok(self.text(cents))
    }

    #[command(name = "exchange")]
    async fn swap(&self, Swap(first, second): Swap, op: &Op<Memory>) -> Result<(), ShopError> {
        for product in [first, second] {
            op.nest(SetPrice { product, cents: 1 }).await.map_err(|error| ShopError(error.to_string()))?;
        }
        Ok(())
    }

    fn text(&self, cents: i64) -> String {
        format!("{cents} {}", self.currency)
    }
}

#[tokio::test]
async fn methods_that_take_an_operation_are_handlers_of_their_commands() {
    assert_eq!((SetPrice::NAME, Swap::NAME), ("Shop.SetPrice", "exchange"));
    let database = Memory::new();
    let server = Server::builder(&Engine::new(), database.clone()).service(Shop { currency: "ct" }).start().await.expect("started");
    let done = server.call(SetPrice { product: 7, cents: 199 }).await.expect("done");
    assert_eq!(done.value, "199 ct");
    server.call(Swap(7, 8)).await.expect("done");
    assert_eq!(database.read(|rows| rows.values().cloned().collect::<Vec<_>>()), ["1", "1"]);
}
