//! What is sent when values are written that make no difference.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use wellspring_rpc::transport::{Close, Connector, FrameReader, FrameWriter, Incoming};
use wellspring_rpc::web::{WebAddress, WebReader, WebWriter};
use wellspring_rpc::wire::MethodId;
use wellspring_rpc::{Remote, Replica, Visitor};

use super::server::{Kind, Other, VALUES};
use super::{runtime, text};
use crate::{Plan, Row, Unit};

/// A way to a server, and how many bytes of frames have gone it, both ways.
#[derive(Clone, Debug)]
struct Counted {
    address: WebAddress,
    bytes: Arc<AtomicU64>,
}

struct CountedReader(WebReader, Arc<AtomicU64>);
struct CountedWriter(WebWriter, Arc<AtomicU64>);

impl Connector for Counted {
    type Reader = CountedReader;
    type Writer = CountedWriter;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(CountedReader, CountedWriter)> {
        let (reader, writer) = self.address.connect(visitor).await?;
        Ok((CountedReader(reader, self.bytes.clone()), CountedWriter(writer, self.bytes.clone())))
    }
}

impl FrameReader for CountedReader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        let frame = self.0.read().await?;
        if let Some(Incoming::Frame(bytes) | Incoming::Text(bytes) | Incoming::Binary(bytes)) = &frame {
            // Relaxed, here and below: it is read when everything is over.
            self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(frame)
    }
}

impl FrameWriter for CountedWriter {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        self.1.fetch_add(frames.iter().map(|frame| frame.len() as u64).sum(), Ordering::Relaxed);
        self.0.write(frames, text).await
    }

    async fn close(&mut self, close: Close<'_>) {
        self.0.close(close).await;
    }
}

pub(super) fn rows(name: &str, plan: Plan) -> Vec<Row> {
    vec![measure(name, plan).unwrap_or_else(|why| Row::skipped(name, Unit::BYTES, "notices at the first mark", &why))]
}

fn measure(name: &str, plan: Plan) -> Result<Row, String> {
    let rewrites = if plan.quick { 20 } else { 100 };
    let runtime = runtime()?;
    let other = Other::start(Kind::Wellspring)?;
    let of = |method: &'static str| runtime.block_on(bytes(&other, method, rewrites));
    let (verified, first_mark) = (of("VerifiedSign:1")?, of("Sign:1")?);
    Ok(Row::versus(name, 1, Unit::BYTES, &[verified], "notices at the first mark", &[first_mark])
        .note(format!("for each of {VALUES} subscriptions and each of {rewrites} writes, without the calls that write")))
}

/// Bytes of frames for each subscription and each write that leaves every value as it is.
async fn bytes(other: &Other, method: &str, rewrites: u64) -> Result<f64, String> {
    let name = |name: &str| MethodId::new(format!("Bench.{name}")).map_err(text);
    let (sign, set) = (name(method)?, name("Set:1")?);
    let writer = other.remote();
    let bytes = Arc::<AtomicU64>::default();
    let remote = Remote::builder(Counted { address: other.address(), bytes: bytes.clone() }).connect();
    let _: () = writer.call(&set, (1_u64,)).await.map_err(text)?;
    let ask = async |key: u32| remote.compute::<i64>(&sign, (key,)).await.map_err(text);
    let mut replicas: Vec<Replica<i64>> = Vec::new();
    for key in 0..VALUES {
        replicas.push(ask(key).await?);
    }
    let before = bytes.load(Ordering::Relaxed);
    for written in 0..rewrites {
        let _: () = writer.call(&set, (written + 2,)).await.map_err(text)?;
        // Whoever hears that a value may be stale asks again. What has not come is heard of at the next write.
        for (key, replica) in (0..VALUES).zip(&mut replicas) {
            if method == "Sign:1" {
                replica.stale().await;
            }
            if replica.is_stale() {
                *replica = ask(key).await?;
            }
        }
    }
    let sent = bytes.load(Ordering::Relaxed) - before;
    // They do hear of a change.
    let _: () = writer.call(&set, (0_u64,)).await.map_err(text)?;
    for replica in &replicas {
        replica.stale().await;
    }
    Ok(sent as f64 / f64::from(VALUES) / rewrites as f64)
}
