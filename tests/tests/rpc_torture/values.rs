//! Values of the server in the graphs of clients.

use std::sync::Arc;
use std::time::Duration;

use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_rpc::wire::Format;
use wellspring_rpc::{Remote, Remoted};

use crate::storm::{Storm, method};

/// Counters of the server.
pub(crate) const KEYS: usize = 12;

pub(crate) fn key(number: usize) -> String {
    format!("counter-{number}")
}

/// A client's own engine, in which the server's counters are functions, and the sum of all is made of them.
#[derive(Clone)]
pub(crate) struct Near {
    pub(crate) engine: Engine,
    pub(crate) remote: Remote,
    pub(crate) counter: AsyncFunction<(String,), Remoted<i64>>,
    pub(crate) sum: AsyncFunction<(), Option<i64>>,
}

impl Near {
    pub(crate) fn over(remote: Remote) -> Near {
        let engine = Engine::new();
        let counter: AsyncFunction<(String,), Remoted<i64>> =
            remote.function(&engine, "counter", &method("ICounter.Get:2")).expect("registered");
        let read = counter.clone();
        let sum = engine.async_function("sum", move |cx: Cx, ()| {
            let counter = read.clone();
            async move {
                let mut sum = Some(0);
                for number in 0..KEYS {
                    let value = counter.get(&cx, &(key(number),)).await.expect("read");
                    // None while one is stale each time that it comes; it is asked for again.
                    sum = sum.zip(value.as_ref().ok()).map(|(sum, value)| sum + value);
                }
                sum
            }
        });
        Near { engine, remote, counter, sum: sum.expect("registered") }
    }

    async fn read(&self, number: usize) {
        let _ = self.counter.get(&self.engine, &(key(number),)).await.expect("a value or none");
    }
}

/// A client that lives through it all.
pub(crate) async fn reads_and_writes(storm: Arc<Storm>, near: Near, number: u64) {
    let mut random = storm.random(Format::Msgpack6, "values", number);
    let set = method("ICounter.Set:3");
    while !storm.is_over() {
        let one = random.usize(..KEYS);
        match random.u8(..10) {
            0..4 => storm.in_time("a value", near.read(one)).await,
            4 => drop(storm.in_time("a sum", near.sum.get(&near.engine, &())).await.expect("a sum or none")),
            5 => {
                // Given up in the middle.
                let _ = tokio::time::timeout(Duration::from_millis(random.u64(0..20)), near.read(one)).await;
            }
            6 => {
                // A value that no function has, held for a while or until it is stale.
                let limit = Duration::from_millis(random.u64(0..50));
                let held = async {
                    if let Ok(replica) = near.remote.compute::<i64>(&method("ICounter.Get:2"), (key(one),)).await {
                        replica.stale().await;
                    }
                };
                let _ = tokio::time::timeout(limit, held).await;
            }
            7 => drop(near.engine.collect()),
            _ => {
                let called = storm.in_time("a counter is set", near.remote.call::<()>(&set, (key(one), random.i64(0..1_000)))).await;
                called.unwrap_or_else(|error| panic!("{storm}: {error}"));
                storm.count("values set");
            }
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..8))).await;
    }
}

/// Clients that go in the middle of everything, one after the other.
pub(crate) async fn come_and_go(storm: Arc<Storm>, format: Format) {
    let mut random = storm.random(format, "come and go", 0);
    while !storm.is_over() {
        let near = Near::over(storm.remote(format));
        let limit = Duration::from_millis(random.u64(20..900));
        let life = async {
            // For ever, but for who ends it.
            loop {
                tokio::join!(near.read(random.usize(..KEYS)), near.sum.get(&near.engine, &())).1.expect("a sum or none");
                let stream = near.remote.call::<wellspring_rpc::RpcStream<i64>>(&method("IDemo.Count:4"), (1_000, 0, 0)).await;
                let mut stream = stream.expect("a stream");
                while stream.next().await.is_some_and(|item| item.is_ok()) {}
            }
        };
        let _ = tokio::time::timeout(limit, life).await;
        storm.count("clients that went");
    }
}
