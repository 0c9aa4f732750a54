//! `ICounter`: values that are pushed when they change.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wellspring::{AsyncFunction, Cx, Engine, Fault, Function, Source};
use wellspring_rpc::{Failure, Service};

use super::demo::Runs;

/// The counters of an engine, and what is made of them.
#[derive(Clone)]
pub struct Counters {
    /// What they are. Setting one to what it is makes it stale all the same, as the page has it.
    pub values: Source<String, i64>,
    engine: Engine,
    get: Function<String, i64>,
    or_fail: Function<String, Result<i64, Zero>>,
    slow: AsyncFunction<(String, u64), i64>,
}

/// A counter is zero, and should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zero;

impl From<Zero> for Failure {
    fn from(_: Zero) -> Failure {
        Failure::new("counter is zero")
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").field("values", &self.values).finish_non_exhaustive()
    }
}

impl Counters {
    /// On an engine, once. `ICounter.Get` and `ICounter.Slow` are counted.
    ///
    /// # Panics
    /// If the engine has functions of their names.
    pub fn new(engine: &Engine, runs: &Arc<Runs>) -> Counters {
        let values = engine.define("counter").source(|_: &String| 0_i64).expect("a free name");
        let (counted, count) = (runs.clone(), values.clone());
        let get = engine.function("get", move |cx: &Cx, key: &String| {
            counted.get.fetch_add(1, Ordering::SeqCst);
            read(&count, cx, key)
        });
        let count = values.clone();
        let or_fail = engine.function("get_or_fail", move |cx: &Cx, key: &String| match read(&count, cx, key) {
            0 => Err(Zero),
            value => Ok(value),
        });
        let (counted, count) = (runs.clone(), values.clone());
        let slow = engine.async_function("slow", move |cx: Cx, (key, pause): (String, u64)| {
            let value = read(&count, &cx, &key);
            counted.slow_compute.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                value
            }
        });
        let (get, or_fail, slow) = (get.expect("a free name"), or_fail.expect("a free name"), slow.expect("a free name"));
        Counters { values, engine: engine.clone(), get, or_fail, slow }
    }

    /// The service.
    pub fn service(&self) -> Service {
        let (get, or_fail, slow, set) = (self.clone(), self.clone(), self.clone(), self.values.clone());
        Service::new("ICounter")
            .compute("Get:2", move |(key,): (String,)| ready(get.get.computed(&get.engine, &key)))
            .try_compute("GetOrFail:2", move |(key,): (String,)| ready(or_fail.or_fail.computed(&or_fail.engine, &key)))
            .compute("Slow:3", move |key: (String, u64)| slow.slow.computed(&slow.engine, &key))
            .method("Set:3", move |(key, value): (String, i64)| {
                let set = set.try_set(&key, value);
                ready(set.map(|_| ()).map_err(refused))
            })
    }
}

/// A source is always there to be read.
pub(super) fn read(values: &Source<String, i64>, cx: &Cx, key: &String) -> i64 {
    values.get(cx, key).expect("a source")
}

/// What a stranger sets may be too much.
pub(super) fn refused(fault: Fault) -> Failure {
    Failure::new(fault.to_string())
}
