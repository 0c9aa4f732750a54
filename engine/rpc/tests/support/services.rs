//! `IDemo` and `ICounter` of the recorded conversations, which are those of the conformance page and what else was recorded; and services that go wrong.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use wellspring::{Cx, Engine, Fault, Source};
use wellspring_rpc::wire::ErrorInfo;
use wellspring_rpc::{Failure, Hub, HubBuilder, RpcStream, Service};
use wellspring_tests::rpc::{Counters, Runs, demo};

pub struct World {
    pub engine: Engine,
    /// What `ICounter` counts.
    pub counters: Source<String, i64>,
    pub runs: Arc<Runs>,
    pub hub: Hub,
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
        let (engine, runs) = (Engine::new(), Arc::<Runs>::default());
        let counted = Counters::new(&engine, &runs);
        let (counter, counters) = (counted.service(), counted.values);
        let demo = demo(&runs)
            .method("Batches:2", |(count,): (u32,)| async move { Ok::<_, Failure>(RpcStream::new(stream::iter(0..=count))) })
            .method("Panic:1", |()| async {
                assert!(std::hint::black_box(false), "on purpose");
                done()
            })
            .method("PanicLater:1", |()| async {
                tokio::task::yield_now().await;
                assert!(std::hint::black_box(false), "on purpose");
                done()
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
