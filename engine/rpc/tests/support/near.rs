//! A client with an engine of its own, in which values of a server are functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_rpc::transport::Connector;
use wellspring_rpc::wire::MethodId;
use wellspring_rpc::{Connected, Remote, RemoteDefine, Remoted};

use super::PATIENCE;
use super::pipe::Wire;

pub fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

pub fn key(key: &str) -> (String,) {
    (key.to_owned(),)
}

/// A client that comes again at once.
pub fn remote(wire: &Wire) -> Remote {
    Remote::builder(wire.clone()).backoff(Duration::from_millis(100), Duration::from_millis(100)).connect()
}

/// Waits until it has a connection.
pub async fn connected(remote: &Remote) {
    soon(remote.connected().wait_for(|state| *state == Connected::Yes)).await.expect("it lives");
}

/// The sum of two counters of the server is a function here.
pub struct Near {
    pub engine: Engine,
    pub remote: Remote,
    pub counter: AsyncFunction<(String,), Remoted<i64>>,
    pub sum: AsyncFunction<(String, String), i64>,
    pub sums: Arc<AtomicUsize>,
}

impl Near {
    pub fn to(wire: impl Connector, options: impl Fn(RemoteDefine<(String,), i64>) -> RemoteDefine<(String,), i64>) -> Near {
        Near::with(Engine::new(), wire, options)
    }

    pub fn with(
        engine: Engine,
        wire: impl Connector,
        options: impl Fn(RemoteDefine<(String,), i64>) -> RemoteDefine<(String,), i64>,
    ) -> Near {
        let remote = Remote::builder(wire).backoff(Duration::from_millis(100), Duration::from_millis(100)).connect();
        let counter = options(remote.define("counter", &method("ICounter.Get:2"))).function(&engine).expect("registered");
        let sums = Arc::<AtomicUsize>::default();
        let (read, counted) = (counter.clone(), sums.clone());
        let sum = engine.async_function("sum", move |cx: Cx, (one, two): (String, String)| {
            let (read, counted) = (read.clone(), counted.clone());
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                let (one, two) = (read.get(&cx, &(one,)).await, read.get(&cx, &(two,)).await);
                one.expect("read").as_ref().expect("a value") + two.expect("read").as_ref().expect("a value")
            }
        });
        Near { engine, remote, counter, sum: sum.expect("registered"), sums }
    }

    pub async fn get(&self, of: &str) -> Remoted<i64> {
        self.counter.get(&self.engine, &key(of)).await.expect("read")
    }

    /// What is there without any waiting.
    pub async fn now(&self, of: &str) -> Remoted<i64> {
        tokio::time::timeout(Duration::ZERO, self.get(of)).await.expect("it waits")
    }

    pub async fn sum(&self) -> i64 {
        self.sum.get(&self.engine, &("a".to_owned(), "b".to_owned())).await.expect("a sum")
    }

    pub async fn becomes(&self, expected: i64) {
        let changed = async {
            let mut sums = self.sum.computed(&self.engine, &("a".to_owned(), "b".to_owned())).await.expect("a sum").changes();
            while *sums.next().await.expect("endless").expect("a sum").value() != expected {}
        };
        tokio::time::timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("it never becomes {expected}"));
    }

    pub fn sums(&self) -> usize {
        self.sums.load(Ordering::SeqCst)
    }

    /// Waits until no call is open but so many: those of values that were replaced are when they are collected.
    pub async fn calls_become(&self, calls: usize) {
        let fewer = async {
            while self.remote.open_calls() != calls {
                self.engine.collect();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, fewer).await.unwrap_or_else(|_| panic!("{} calls are open", self.remote.open_calls()));
    }
}

pub async fn set(remote: &Remote, key: &str, value: i64) {
    remote.call::<()>(&method("ICounter.Set:3"), (key, value)).await.expect("set");
}

/// Waits for what is going to happen.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not happen")
}
