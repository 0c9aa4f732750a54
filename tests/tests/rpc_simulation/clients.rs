//! Clients, and what they have in the end.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::de::DeserializeOwned;
use wellspring::{AsyncFunction, Engine};
use wellspring_rpc::wire::{Format, MethodId};
use wellspring_rpc::{Hub, Remote, Remoted, RpcStream, ToArguments};

use crate::network::ToServer;
use crate::{CLIENTS, World, timings};

const KEYS: usize = 6;

/// Of virtual time: longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(120);

fn key(number: usize) -> String {
    format!("counter-{number}")
}

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

struct Client {
    name: &'static str,
    world: Arc<World>,
    remote: Remote,
    engine: Engine,
    counter: AsyncFunction<(String,), Remoted<i64>>,
}

impl Client {
    fn new(world: Arc<World>, name: &'static str, format: Format) -> Client {
        let hub = Hub::builder().timings(timings()).build();
        let (first, most) = (Duration::from_millis(50), Duration::from_millis(1_000));
        let remote = Remote::builder(ToServer).format(format).hub(&hub).backoff(first, most).connect();
        let engine = Engine::new();
        let counter = remote.function(&engine, "counter", &method("ICounter.Get:2")).expect("registered");
        Client { name, world, remote, engine, counter }
    }

    async fn in_time<T>(&self, what: &str, wait: impl Future<Output = T>) -> T {
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(value) => value,
            Err(_) => panic!("seed {}: {}: not within {PATIENCE:?}: {what}; {:?}", self.world.seed, self.name, self.remote),
        }
    }

    /// Asks until the answer is as it should be. Meanwhile values are read, for who has found out just now that its connection was dead, or led to
    /// a process that is gone: what was the server's value by chance may end then.
    async fn until<T: PartialEq + Debug>(&self, what: &str, expected: T, mut ask: impl FnMut() -> T) {
        let asking = async {
            while ask() != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
                for number in 0..KEYS {
                    let _ = self.counter.get(&self.engine, &(key(number),)).await;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, asking).await.is_err() {
            panic!("seed {}: {}: {what}: {:?} and not {expected:?}", self.world.seed, self.name, ask());
        }
    }

    async fn call<T: DeserializeOwned>(&self, name: &str, arguments: impl ToArguments) -> T {
        let answer = self.in_time(name, self.remote.call(&method(name), arguments)).await;
        answer.unwrap_or_else(|error| panic!("seed {}: {}: {name}: {error}", self.world.seed, self.name))
    }

    async fn read(&self, number: usize) {
        let _ = self.in_time("a value", self.counter.get(&self.engine, &(key(number),))).await.expect("a value or none");
    }

    /// What comes of a stream is its beginning, and its end is one unless the process is gone.
    async fn stream(&self, items: i64, advance: u32) {
        let mut stream: RpcStream<i64> = self.call("IDemo.Count:4", (items, advance / 2, advance)).await;
        let mut expected = 0;
        while let Some(item) = self.in_time("an item", stream.next()).await {
            let Ok(item) = item else { return };
            assert_eq!(item, expected * 10, "seed {}", self.world.seed);
            expected += 1;
        }
        assert_eq!(expected, items, "seed {}: a stream ends", self.world.seed);
    }

    async fn act(&self, random: &mut fastrand::Rng, writes: bool) {
        match random.u8(..10) {
            0..4 => self.read(random.usize(..KEYS)).await,
            4 => {
                // Given up in the middle.
                let _ = tokio::time::timeout(Duration::from_millis(random.u64(0..100)), self.read(random.usize(..KEYS))).await;
            }
            5 => {
                let answer: String = self.call("IDemo.Slow:3", ("x", random.u64(0..500))).await;
                assert_eq!(answer, "x", "seed {}", self.world.seed);
            }
            6 => self.stream(random.i64(0..400), random.u32(1..100)).await,
            7 => drop(self.engine.collect()),
            // What a client has asked for that is gone may be done at any time.
            _ if !writes => {}
            _ => self.call("ICounter.Set:3", (key(random.usize(..KEYS)), random.i64(0..1_000))).await,
        }
        self.world.acts.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
    }
}

/// A client that lives through it all.
pub(crate) async fn lives(world: Arc<World>, name: &'static str, format: Format) -> turmoil::Result {
    let client = Client::new(world.clone(), name, format);
    let mut random = fastrand::Rng::with_seed(world.seed ^ (format as u64) << 32);
    while !world.over.load(Ordering::SeqCst) {
        client.act(&mut random, true).await;
    }
    world.done.fetch_add(1, Ordering::SeqCst);
    client.until("clients that are done", CLIENTS.len(), || world.done.load(Ordering::SeqCst)).await;
    // Nobody writes any more, and the server is not started anew.
    client.until("a server", true, || world.services().is_some()).await;
    let server = world.services().ok_or("it is not started anew any more")?;
    for number in 0..KEYS {
        let truth = server.counters.values.get(&server.engine, &key(number))?;
        let read = client.in_time("a value", client.counter.computed(&client.engine, &(key(number),))).await?;
        client.in_time("a value that is the server's", read.when(move |value| value.as_ref() == Ok(&truth))).await?;
    }
    client.until("replicas", KEYS, || (client.engine.collect(), client.remote.open_calls()).1).await;
    client.until("streams here", 0, || client.remote.open_streams()).await;
    // The one that has crashed is forgotten.
    client.until("clients there", CLIENTS.len(), || server.hub.clients()).await;
    client.until("streams there", 0, || server.hub.open_streams()).await;
    client.until("subscriptions there", KEYS * CLIENTS.len(), || server.hub.open_calls()).await;
    client.engine.assert_consistent();
    // None is dropped before all have seen that.
    world.content.fetch_add(1, Ordering::SeqCst);
    client.until("clients that have seen it", CLIENTS.len(), || world.content.load(Ordering::SeqCst)).await;
    let Client { engine, counter, remote, .. } = client;
    drop((counter, engine));
    let over = async {
        while remote.open_calls() + server.hub.open_calls() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.map_err(|_| "calls are left of values that nobody has")?;
    Ok(())
}

/// A client that crashes in the middle of everything.
pub(crate) async fn goes_on_for_ever(world: Arc<World>) -> turmoil::Result {
    let client = Client::new(world.clone(), "mortal", Format::Json5);
    let mut random = fastrand::Rng::with_seed(world.seed);
    loop {
        client.act(&mut random, false).await;
    }
}
