//! Several servers in one process, each of which answers for its own keys, over one database.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use wellspring::{Cx, Engine};
use wellspring_rpc::wire::MethodId;
use wellspring_rpc::{Failure, HashRing, Hub, Remote, Route, Router, RouterBuilder, Routes, RpcStream, Service};

use super::PATIENCE;
use super::pipe::Wire;

/// What a key was set to last, by number: a late repeat changes nothing.
pub type Database = Arc<Mutex<HashMap<String, u64>>>;

/// How often bodies have run.
#[derive(Debug, Default)]
pub struct Ran {
    pub begun: AtomicUsize,
    pub done: AtomicUsize,
    pub got: AtomicUsize,
}

impl Ran {
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }
}

pub struct Host {
    pub engine: Engine,
    pub routes: Routes<String>,
    pub hub: Hub,
    pub ran: Arc<Ran>,
}

pub struct Cluster {
    pub database: Database,
    pub hosts: BTreeMap<&'static str, Host>,
}

pub fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

async fn slow(ran: Arc<Ran>, here: &'static str, pause: u64) -> Result<String, Failure> {
    ran.begun.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    ran.done.fetch_add(1, Ordering::SeqCst);
    Ok(here.to_owned())
}

impl Host {
    fn new(here: &'static str, route: impl Route<String>, database: &Database) -> Host {
        let (engine, routes, ran) = (Engine::new(), Routes::of_server(here, route), Arc::<Ran>::default());
        let (rows, counted) = (database.clone(), ran.clone());
        let get = engine.function("get", move |_: &Cx, key: &String| {
            counted.got.fetch_add(1, Ordering::SeqCst);
            rows.lock().expect("no panic").get(key).copied().unwrap_or_default()
        });
        let get = get.expect("registered");
        let (asked, read, lost, changed, rows) = (engine.clone(), get.clone(), get.clone(), get, database.clone());
        let (throughout, entry, count) = (ran.clone(), ran.clone(), ran.clone());
        let service = Service::new("IData")
            .compute(
                "Get:2",
                routes
                    .owned(|(key,): &(String,)| key.clone())
                    .compute(move |(key,)| std::future::ready(read.computed(&asked, &key)), move |(key,)| _ = lost.invalidate(key)),
            )
            .method(
                "Set:3",
                routes.owned(|(key, _): &(String, u64)| key.clone()).entry(move |(key, value)| {
                    {
                        let mut rows = rows.lock().expect("no panic");
                        let row = rows.entry(key.clone()).or_default();
                        *row = value.max(*row);
                    }
                    changed.invalidate(&key);
                    async { Ok::<_, Failure>(()) }
                }),
            )
            .method(
                "Slow:3",
                routes.owned(|(key, _): &(String, u64)| key.clone()).throughout(move |(_, pause)| slow(throughout.clone(), here, pause)),
            )
            .method(
                "SlowEntry:3",
                routes.owned(|(key, _): &(String, u64)| key.clone()).entry(move |(_, pause)| slow(entry.clone(), here, pause)),
            )
            // Not guarded.
            .method("SlowAnywhere:2", move |(pause,): (u64,)| slow(count.clone(), here, pause))
            .method("Where:1", move |()| async move { Ok::<_, Failure>(here.to_owned()) })
            .method("Count:2", |(count,): (u64,)| async move { Ok::<_, Failure>(RpcStream::new(stream::iter(0..count)).window(1, 1)) });
        let hub = Hub::builder().service(service).expect("a service").build();
        Host { engine, routes, hub, ran }
    }
}

impl Cluster {
    /// Of these servers, with a ring of all of them.
    pub fn new(names: &[&'static str]) -> Cluster {
        let database = Database::default();
        let hosts = names.iter().map(|name| (*name, Host::new(name, HashRing::new(names.iter().copied()), &database)));
        Cluster { hosts: hosts.collect(), database }
    }

    /// Tells all servers.
    pub fn set(&self, names: &[&str]) {
        self.hosts.values().for_each(|host| host.routes.set(HashRing::new(names.iter().copied())));
    }

    /// A way to each server.
    pub fn wires(&self) -> HashMap<String, Wire> {
        self.hosts.iter().map(|(name, host)| ((*name).to_owned(), Wire::to(&host.hub))).collect()
    }

    pub fn value(&self, key: &str) -> u64 {
        self.database.lock().expect("no panic").get(key).copied().unwrap_or_default()
    }

    /// Waits until no server has a call that is not over.
    pub async fn is_over(&self) {
        self.is_over_within(PATIENCE).await;
    }

    pub async fn is_over_within(&self, patience: Duration) {
        let over = tokio::time::timeout(patience, async {
            while self.open_calls() > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        over.await.unwrap_or_else(|_| panic!("{} calls are not over", self.open_calls()));
    }

    pub fn open_calls(&self) -> usize {
        self.hosts.values().map(|host| host.hub.open_calls()).sum()
    }
}

pub fn remote(wire: &Wire) -> Remote {
    Remote::builder(wire.clone()).backoff(Duration::from_millis(100), Duration::from_millis(100)).connect()
}

pub fn router<K: Clone + Send + Sync + 'static>(routes: &Routes<K>, wires: &HashMap<String, Wire>) -> RouterBuilder<K> {
    let wires = wires.clone();
    Router::builder(routes, move |name| remote(&wires[name]))
}

/// A key that the ring of these has at a server.
pub fn key_of(names: &[&str], server: &str) -> String {
    let ring = HashRing::new(names.iter().copied());
    let of = |key: &String| Route::<String>::server(&ring, key).is_some_and(|name| *name == *server);
    (0..).map(|number: u32| format!("key {number}")).find(of).expect("there is one")
}
