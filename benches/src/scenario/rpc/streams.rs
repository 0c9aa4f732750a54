//! Many streams at once.

use std::time::Instant;

use wellspring_rpc::RpcStream;
use wellspring_rpc::wire::MethodId;

use super::server::{Kind, Other};
use super::{runtime, text};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

const STREAMS: u64 = 100;

/// A hundred bytes, as bytes.
pub(super) struct Item(pub(super) [u8; 100]);

impl serde::Serialize for Item {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Item {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Item;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a hundred bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Item, E> {
                bytes.try_into().map(Item).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

pub(super) fn rows(name: &str, plan: Plan) -> Vec<Row> {
    vec![measure(name, plan).unwrap_or_else(|why| Row::skipped(name, Unit::MILLIONS, "", &why))]
}

fn measure(name: &str, plan: Plan) -> Result<Row, String> {
    let items: u64 = if plan.quick { 5_000 } else { 50_000 };
    let runtime = runtime()?;
    let ours = Other::start(Kind::Wellspring)?;
    let remote = runtime.block_on(async { ours.remote() });
    let method = MethodId::new("Bench.Items:1").map_err(text)?;
    let mut figures = Vec::new();
    for _ in 0..if plan.quick { 3 } else { 7 } {
        let begun = Instant::now();
        let readers: Vec<_> = (0..STREAMS)
            .map(|_| {
                let (remote, method) = (remote.clone(), method.clone());
                runtime.spawn(async move {
                    let mut stream: RpcStream<Item> = remote.call(&method, (items,)).await.map_err(text)?;
                    let (mut count, mut sum) = (0, 0_u64);
                    while let Some(item) = stream.next().await {
                        (count, sum) = (count + 1, sum + u64::from(item.map_err(text)?.0[99]));
                    }
                    if (count, sum) == (items, items * 7) { Ok(()) } else { Err(format!("{count} items of {items}")) }
                })
            })
            .collect();
        runtime.block_on(async {
            for reader in readers {
                reader.await.map_err(text)??;
            }
            Ok::<_, String>(())
        })?;
        figures.push((STREAMS * items) as f64 / begun.elapsed().as_secs_f64() / 1e6);
    }
    Ok(Row::alone(name, 1, Unit::MILLIONS, &figures, "").bar(Bar::AtLeast(5.0)))
}
