//! The server, the way to it, and what happens to both.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use wellspring_rpc::transport::Connector;
use wellspring_rpc::wire::{Format, MethodId};
use wellspring_rpc::{Hub, Remote, Timings};
use wellspring_tests::rpc::{Options, Proxy, Server};

/// Longer than anything takes that is going to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long the server remembers a client that has gone: longer than anybody is kept from coming back.
const RETENTION: Duration = Duration::from_secs(6);

pub(crate) struct Storm {
    seed: u64,
    until: Instant,
    proxy: Proxy,
    server: tokio::sync::Mutex<Server>,
    /// Of the server's processes. Even while one lives, odd while one dies.
    epoch: AtomicU64,
    clients: AtomicU64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WELLSPRING_SEED={}", self.seed)
    }
}

impl Storm {
    pub(crate) async fn begin(seed: u64, time: Duration) -> Arc<Storm> {
        let server = start().await;
        let proxy = Proxy::to(server.options().port, seed).await.expect("a proxy");
        let (epoch, clients) = (AtomicU64::new(0), AtomicU64::new(0));
        let until = Instant::now() + time;
        Arc::new(Storm { seed, until, proxy, server: server.into(), epoch, clients, counts: Mutex::default() })
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// What one task's random choices follow from.
    pub(crate) fn random(&self, format: Format, what: &str, number: u64) -> fastrand::Rng {
        let name = what.bytes().fold(self.seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        fastrand::Rng::with_seed(name ^ (format as u64) << 40 ^ number << 32)
    }

    /// A client on the way through the storm.
    pub(crate) fn remote(&self, format: Format) -> Remote {
        self.clients.fetch_add(1, Ordering::SeqCst);
        connect(self.proxy.address(), format)
    }

    /// A client on a way of its own, when the storm is over.
    pub(crate) async fn inspector(&self) -> Remote {
        connect(self.server.lock().await.address(), Format::Msgpack6c)
    }

    /// Which process the server is. What began and ended in the same one was not disturbed by a kill.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(crate) fn has_lived_since(&self, epoch: u64) -> bool {
        epoch.is_multiple_of(2) && self.epoch() == epoch
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.lock().expect("no panic").entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.counts.lock().expect("no panic").clone();
        counts.insert("connections", self.proxy.connections());
        counts
    }

    /// What should come in time.
    pub(crate) async fn in_time<T>(&self, what: impl fmt::Display, wait: impl Future<Output = T>) -> T {
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(value) => value,
            Err(_) => panic!("{self}: not within {PATIENCE:?}: {what}"),
        }
    }

    /// Until the time is over, after which the way is as good as it was bad.
    pub(crate) async fn rage(&self) {
        let mut random = fastrand::Rng::with_seed(self.seed);
        // However short the storm is.
        self.kill().await;
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(random.u64(50..700))).await;
            match random.u8(..8) {
                0 => self.kill().await,
                1 => {
                    // Shorter than what is answered just before is kept for.
                    let server = self.server.lock().await;
                    server.stop();
                    tokio::time::sleep(Duration::from_millis(random.u64(10..250))).await;
                    server.go_on();
                    self.count("server stopped");
                }
                2..5 => {
                    self.proxy.cut();
                    self.count("all cut");
                }
                _ => {}
            }
        }
        self.proxy.calm();
    }

    async fn kill(&self) {
        let mut server = self.server.lock().await;
        self.epoch.fetch_add(1, Ordering::SeqCst);
        server.kill().await.expect("killed");
        *server = start().await;
        self.proxy.lead(server.options().port);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.count("server killed");
    }
}

async fn start() -> Server {
    let options = Options { keep_alive: Some(Duration::from_secs(2)), retention: Some(RETENTION), ..Options::default() };
    Server::start(env!("CARGO_BIN_EXE_conformance-server"), options).await.expect("a server")
}

fn connect(through: impl Connector, format: Format) -> Remote {
    let mut timings = Timings::default();
    // A connection that nobody answers on is given up before anybody is forgotten.
    (timings.handshake, timings.keep_alive, timings.silence) = (Duration::from_secs(2), Duration::from_secs(1), Duration::from_secs(5));
    let hub = Hub::builder().timings(timings).build();
    Remote::builder(through).format(format).hub(&hub).backoff(Duration::from_millis(10), Duration::from_millis(100)).connect()
}

pub(crate) fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}
