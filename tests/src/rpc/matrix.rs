//! What the peer's matrix of reconnections calls: bodies that count, wait, and end what they have computed by themselves.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_rpc::{Failure, Service};

/// What was counted of each key.
#[derive(Clone, Debug, Default)]
struct Counts(Arc<Mutex<HashMap<i64, u32>>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, key: i64) {
        *self.lock().entry(key).or_default() += 1;
    }

    fn of(&self, key: i64) -> Result<u32, Failure> {
        Ok(self.lock().get(&key).copied().unwrap_or_default())
    }
}

/// Which key, how long it takes, and how long its value is good after that.
type Asked = (i64, u64, u64);

/// `IReconnectMatrixTester`
pub(super) fn computed(engine: &Engine) -> Service {
    let (computed, ended) = (Counts::default(), Counts::default());
    // The body has its function, as bodies have the functions that they read: both go with the engine.
    let own: Arc<OnceLock<AsyncFunction<Asked, i64>>> = Arc::default();
    let (mine, counted, ending) = (own.clone(), computed.clone(), ended.clone());
    let function = engine.async_function("matrix_compute", move |_: Cx, asked: Asked| {
        let (key, pause, good) = asked;
        counted.add(key);
        let (mine, ending) = (mine.clone(), ending.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause.saturating_add(good))).await;
            ending.add(key);
            if let Some(function) = mine.get() {
                function.invalidate(&asked);
            }
        });
        async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            key
        }
    });
    let function = function.expect("a free name");
    // It is set once.
    let _ = own.set(function.clone());
    let engine = engine.clone();
    Service::new("IReconnectMatrixTester")
        .compute("Compute:4", move |asked: Asked| function.computed(&engine, &asked))
        .method("GetComputeInvocationCount:2", move |(key,): (i64,)| ready(computed.of(key)))
        .method("GetInvalidationCount:2", move |(key,): (i64,)| ready(ended.of(key)))
}

/// `IReconnectMatrixRpcTester`
pub(super) fn plain() -> Service {
    let called = Counts::default();
    let counted = called.clone();
    Service::new("IReconnectMatrixRpcTester")
        .method("Rpc:3", move |(key, pause): (i64, u64)| {
            counted.add(key);
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, Failure>(key)
            }
        })
        .method("GetInvocationCount:2", move |(key,): (i64,)| ready(called.of(key)))
}
