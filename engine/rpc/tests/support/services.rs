//! `IDemo` and `ICounter` of the recorded conversations.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream;
use wellspring::{Cx, Engine, Fault, Source};
use wellspring_rpc::wire::{ErrorInfo, Raw};
use wellspring_rpc::{Failure, Hub, HubBuilder, RpcStream, Service};

/// How often bodies have run.
#[derive(Debug, Default)]
pub struct Runs {
    pub slow: AtomicUsize,
    pub slow_compute: AtomicUsize,
    pub get: AtomicUsize,
}

pub struct World {
    pub engine: Engine,
    /// What `ICounter` counts.
    pub counters: Source<String, i64>,
    pub runs: Arc<Runs>,
    pub hub: Hub,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Zero;

impl From<Zero> for Failure {
    fn from(_: Zero) -> Failure {
        Failure::new("counter is zero")
    }
}

/// A value that has no way into any format.
#[derive(Clone, Debug, PartialEq)]
pub struct Unwritable(i64);

impl serde::Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("on purpose"))
    }
}

/// A value that panics when half of it is written.
pub struct Panics;

impl serde::Serialize for Panics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut list = serializer.serialize_seq(Some(2))?;
        list.serialize_element("half of it")?;
        panic!("on purpose");
    }
}

fn done() -> Result<(), Failure> {
    Ok(())
}

impl World {
    pub fn new() -> World {
        World::with(|builder| builder)
    }

    pub fn with(more: impl FnOnce(HubBuilder) -> HubBuilder) -> World {
        let (engine, runs) = (Engine::new(), Arc::new(Runs::default()));
        let counters = engine.source("counter", |_: &String| 0_i64).expect("registered");
        let (counted, count) = (runs.clone(), counters.clone());
        let get = engine.function("get", move |cx: &Cx, key: &String| {
            counted.get.fetch_add(1, Ordering::SeqCst);
            count.get(cx, key).unwrap_or(-1)
        });
        let get = get.expect("registered");
        let count = counters.clone();
        let or_fail = engine.function("get_or_fail", move |cx: &Cx, key: &String| match count.get(cx, key) {
            Ok(0) | Err(_) => Err(Zero),
            Ok(value) => Ok(value),
        });
        let or_fail = or_fail.expect("registered");
        let (counted, count) = (runs.clone(), counters.clone());
        let slow = engine.async_function("slow", move |cx: Cx, (key, pause): (String, u64)| {
            let value = count.get(&cx, &key);
            counted.slow_compute.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                value.unwrap_or(-1)
            }
        });
        let slow = slow.expect("registered");
        let asked = engine.clone();
        let (asked_or, asked_slow) = (engine.clone(), engine.clone());
        let set = counters.clone();
        let counter = Service::new("ICounter")
            .compute("Get:2", move |(key,): (String,)| std::future::ready(get.computed(&asked, &key)))
            .try_compute("GetOrFail:2", move |(key,): (String,)| std::future::ready(or_fail.computed(&asked_or, &key)))
            .compute("Slow:3", move |key: (String, u64)| {
                let (slow, engine) = (slow.clone(), asked_slow.clone());
                async move { slow.computed(&engine, &key).await }
            })
            .method("Set:3", move |(key, value): (String, i64)| {
                set.set(&key, value);
                async { done() }
            });
        let counted = runs.clone();
        let demo = Service::new("IDemo")
            .method("Add:3", |(a, b): (i64, i64)| async move { Ok::<_, Failure>(a + b) })
            .method("EchoAny:2", |(value,): (Raw,)| async move { Ok::<_, Failure>(value) })
            .method("Count:4", |(count, period, advance): (i64, u32, u32)| async move {
                let stream = RpcStream::new(stream::iter((0..count).map(|number| number * 10)));
                Ok::<_, Failure>(if period == 0 { stream } else { stream.window(period, advance) })
            })
            .method("CountThenFail:2", |(count,): (u32,)| async move {
                let items = (0..count).map(|number| Ok(format!("item-{number}")));
                Ok::<_, Failure>(RpcStream::try_new(stream::iter(items.chain([Err(Failure::new("source failed"))]))))
            })
            .method("Batches:2", |(count,): (u32,)| async move { Ok::<_, Failure>(RpcStream::new(stream::iter(0..=count))) })
            .method("Nothing:1", |()| async { done() })
            .method("Fail:2", |(text,): (String,)| async move { Err::<(), _>(Failure::new(text)) })
            .no_wait("Ping:2", |(_,): (String,)| async {})
            .method("Panic:1", |()| async {
                assert!(std::hint::black_box(false), "on purpose");
                done()
            })
            .method("PanicLater:1", |()| async {
                tokio::task::yield_now().await;
                assert!(std::hint::black_box(false), "on purpose");
                done()
            })
            .method("Slow:3", move |(text, pause): (String, u64)| {
                counted.slow.fetch_add(1, Ordering::SeqCst);
                async move {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    Ok::<_, Failure>(text)
                }
            });
        let sum = Service::new("ISum").method("Sum:2", |(mut numbers,): (RpcStream<i64>,)| async move {
            let mut sum = 0;
            while let Some(number) = numbers.next().await {
                sum += number?;
            }
            Ok::<_, Failure>(sum)
        });
        let broken = engine.function("broken", |_: &Cx, _: &()| -> u8 { panic!("on purpose") }).expect("registered");
        let asked = engine.clone();
        let count = counters.clone();
        let unwritable = engine.function("unwritable", move |cx: &Cx, key: &String| Unwritable(count.get(cx, key).unwrap_or(-1)));
        let (unwritable, asked_unwritable) = (unwritable.expect("registered"), engine.clone());
        let late = engine.async_function("late", |_: Cx, pause: u64| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            assert!(std::hint::black_box(false), "on purpose");
        });
        let (late, asked_late) = (late.expect("registered"), engine.clone());
        let odd = Service::new("IOdd")
            .compute("Unwritable:2", move |(key,): (String,)| std::future::ready(unwritable.computed(&asked_unwritable, &key)))
            .compute("Late:2", move |(pause,): (u64,)| {
                let (late, engine) = (late.clone(), asked_late.clone());
                async move { late.computed(&engine, &pause).await }
            })
            .method("Panics:1", |()| async { Ok::<_, Failure>(Panics) })
            .method("PanicsLater:1", |()| async {
                tokio::task::yield_now().await;
                Ok::<_, Failure>(Panics)
            })
            .no_wait("SlowPing:1", |()| async { tokio::time::sleep(Duration::from_millis(10)).await })
            .compute("Broken:1", move |()| std::future::ready(broken.computed(&asked, &())))
            .compute("Nobody:1", |()| async { Err::<wellspring::Computed<u8>, _>(Fault::Gone) });
        let builder = Hub::builder()
            .service(counter)
            .and_then(|builder| builder.service(demo))
            .and_then(|builder| builder.service(odd))
            .and_then(|builder| builder.service(sum));
        let hub = more(builder.expect("services")).build();
        World { engine, counters, runs, hub }
    }
}

/// The failure of a method that is not there.
pub fn is_missing(error: &ErrorInfo<'_>) -> bool {
    error.type_ref == ErrorInfo::RPC && error.message.starts_with("Endpoint not found: '")
}
