//! A server as a process, and the ways to it.

use std::cell::OnceCell;
use std::fmt::Display;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use wellspring_rpc::socket::{TcpAddress, TlsAddress, UnixAddress};
use wellspring_rpc::tls;
use wellspring_rpc::transport::Connector;
use wellspring_rpc::web::WebAddress;
use wellspring_rpc::wire::{Format, MethodId};
use wellspring_rpc::{CallError, Connected, Failure, Hub, Remote, Replica, Timings, ToArguments};
use wellspring_tests::rpc::{Cut, Options, Server};

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of whom a certificate is.
const HOST: &str = "localhost";

/// What carries frames. A new one needs a line in [`Site::start`], one in [`Site::remote_as`], and one in `all_conform`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    WebSocket,
    SecureWebSocket,
    Tcp,
    Tls,
    Unix,
}

/// A server of its own, and how it is spoken to.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) format: Format,
    transport: Transport,
    /// Where its files are.
    directory: TempDir,
    /// Whom its clients trust.
    roots: String,
    /// Who looks at the server without touching anything: a client that goes leaves answers behind, which are counted.
    inspector: OnceCell<Remote>,
}

/// Runs a check in every format, each against a server of its own.
pub(crate) async fn in_every_format<F: Future<Output = ()>>(transport: Transport, check: impl Fn(Site) -> F) {
    let only: Option<Format> = std::env::var("WELLSPRING_FORMAT").ok().map(|key| key.parse().expect("a format"));
    let formats = Format::ALL.into_iter().filter(|format| only.is_none_or(|only| only == *format));
    let runs = formats.map(async |format| {
        let run = async { check(Site::start(transport, format).await).await };
        AssertUnwindSafe(run).catch_unwind().await.err().map(|_| format.key())
    });
    let failed: Vec<_> = join_all(runs).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "in {failed:?}, over {transport:?}: what is said above");
}

impl Site {
    async fn start(transport: Transport, format: Format) -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        // So long a server waits to hear what a client that was cut off has forgotten, and a test that nothing is left.
        let mut options = Options { keep_alive: Some(Duration::from_secs(2)), ..Options::default() };
        let mut roots = String::new();
        match transport {
            Transport::WebSocket => {}
            Transport::Tcp => options.tcp = Some(0),
            Transport::Unix => options.unix = Some(file("socket")),
            Transport::Tls => options.tls = Some(0),
            Transport::SecureWebSocket => options.wss = Some(0),
        }
        if let Transport::Tls | Transport::SecureWebSocket = transport {
            let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
            roots = cert.pem();
            fs::write(file("chain"), &roots).expect("written");
            fs::write(file("key"), signing_key.serialize_pem()).expect("written");
            options.identity = Some((file("chain"), file("key")));
        }
        let server = Server::start(env!("CARGO_BIN_EXE_conformance-server"), options).await.expect("a server");
        Site { server, format, transport, directory, roots, inspector: OnceCell::new() }
    }

    /// A client, whose connection is left alone.
    pub(crate) fn remote(&self) -> Remote {
        self.remote_over(&Cut::new())
    }

    /// A client, whose connection can be cut.
    pub(crate) fn remote_over(&self, cut: &Cut) -> Remote {
        self.remote_as(cut, self.format, Timings::default())
    }

    /// A client of a format, and timings, of its own.
    pub(crate) fn remote_as(&self, cut: &Cut, format: Format, timings: Timings) -> Remote {
        let options = self.server.options();
        let trust = || tls::client(self.roots.as_bytes(), None).expect("a certificate");
        let host = |port: Option<u16>| format!("{HOST}:{}", port.expect("listened at"));
        match self.transport {
            Transport::WebSocket => connect(cut.over(self.server.address()), format, timings),
            Transport::Tcp => connect(cut.over(TcpAddress::new(host(options.tcp))), format, timings),
            Transport::Unix => connect(cut.over(UnixAddress::new(self.directory.path().join("socket"))), format, timings),
            Transport::Tls => connect(cut.over(TlsAddress::new(host(options.tls), trust()).expect("a host")), format, timings),
            Transport::SecureWebSocket => {
                let address = WebAddress::secure(format!("wss://{}/rpc/ws", host(options.wss)), trust());
                connect(cut.over(address.expect("an address")), format, timings)
            }
        }
    }

    /// Waits until the server has so many calls open, its clients' values among them.
    pub(crate) async fn has_open_calls(&self, count: usize) {
        self.has(count, "IInspection.OpenCalls:0").await;
    }

    /// Waits until the server has so many streams open.
    pub(crate) async fn has_open_streams(&self, count: usize) {
        self.has(count, "IInspection.OpenStreams:0").await;
    }

    /// Waits until so many calls of `IDemo.Ping` have run at the server, which nobody is told of.
    pub(crate) async fn has_heard_pings(&self, count: usize) {
        self.has(count, "IInspection.Pings:0").await;
    }

    async fn has(&self, count: usize, what: &str) {
        let inspector = self.inspector.get_or_init(|| self.remote());
        let mut last = None;
        let asking = async {
            while last != Some(count) {
                last = Some(call::<usize>(inspector, what, ()).await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, asking).await.is_err() {
            panic!("{what} is {last:?} and not {count}");
        }
    }
}

fn connect(through: impl Connector, format: Format, timings: Timings) -> Remote {
    let hub = Hub::builder().timings(timings).build();
    let backoff = (Duration::from_millis(20), Duration::from_millis(200));
    Remote::builder(through).format(format).hub(&hub).backoff(backoff.0, backoff.1).connect()
}

pub(crate) fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

/// What should come in time.
pub(crate) async fn in_time<T>(what: impl Display, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Asks until the answer is as it should be in the end.
pub(crate) async fn until<T: PartialEq>(what: impl Display, expected: T, mut ask: impl AsyncFnMut() -> T) {
    let asking = async {
        while ask().await != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(what, asking).await;
}

pub(crate) async fn try_call<T: DeserializeOwned>(remote: &Remote, name: &str, arguments: impl ToArguments) -> Result<T, CallError> {
    in_time(name, remote.call(&method(name), arguments)).await
}

pub(crate) async fn call<T: DeserializeOwned>(remote: &Remote, name: &str, arguments: impl ToArguments) -> T {
    try_call(remote, name, arguments).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The failure of a call.
pub(crate) async fn failure(remote: &Remote, name: &str, arguments: impl ToArguments) -> Failure {
    match try_call::<serde_json::Value>(remote, name, arguments).await {
        Err(CallError::Failed(failure)) => failure,
        other => panic!("{name} does not fail: {other:?}"),
    }
}

/// Begins a call, which goes on by itself.
pub(crate) fn begin<T, A>(remote: &Remote, name: &'static str, arguments: A) -> JoinHandle<T>
where
    T: DeserializeOwned + Send + 'static,
    A: ToArguments + Send + Sync + 'static,
{
    let remote = remote.clone();
    tokio::spawn(async move { call(&remote, name, arguments).await })
}

pub(crate) async fn value<T: DeserializeOwned>(remote: &Remote, name: &str, arguments: impl ToArguments) -> Replica<T> {
    let value = in_time(name, remote.compute(&method(name), arguments)).await;
    value.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// As [`begin`], of a value.
pub(crate) fn begin_value<T, A>(remote: &Remote, name: &'static str, arguments: A) -> JoinHandle<Replica<T>>
where
    T: DeserializeOwned + Send + 'static,
    A: ToArguments + Send + Sync + 'static,
{
    let remote = remote.clone();
    tokio::spawn(async move { value(&remote, name, arguments).await })
}

pub(crate) async fn joined<T>(what: &str, task: JoinHandle<T>) -> T {
    in_time(what, task).await.unwrap_or_else(|error| panic!("{what}: {error}"))
}

pub(crate) async fn get(remote: &Remote, key: &str) -> Replica<i64> {
    value(remote, "ICounter.Get:2", (key,)).await
}

pub(crate) async fn set(remote: &Remote, key: &str, value: i64) {
    call::<()>(remote, "ICounter.Set:3", (key, value)).await;
}

pub(crate) async fn ends<T>(replica: &Replica<T>) {
    in_time("the value is stale", replica.stale()).await;
    assert!(replica.is_stale());
}

pub(crate) async fn connected(remote: &Remote) {
    let mut state = remote.connected();
    in_time("a connection", state.wait_for(|state| *state == Connected::Yes)).await.expect("it lives");
}

pub(crate) async fn disconnected(remote: &Remote) {
    let mut state = remote.connected();
    in_time("the end of a connection", state.wait_for(|state| *state != Connected::Yes)).await.expect("it lives");
}
