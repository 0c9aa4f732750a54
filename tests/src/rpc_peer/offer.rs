//! What the peers offer: methods of every kind, whose bodies and sources are counted as long as they are there.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use wellspring::{Cx, Engine, Function, Source};
use wellspring_rpc::wire::Raw;
use wellspring_rpc::{Failure, Hub, RpcStream, Service};

/// Of what `I.Big` answers with.
pub(super) const BIG: usize = 100 << 10;

pub(super) const METHODS: [&str; 14] = [
    "I.Get:2",
    "I.GetOrFail:2",
    "I.Echo:2",
    "I.Slow:2",
    "I.Count:4",
    "I.Sum:2",
    "I.Drop:2",
    "I.Nested:1",
    "I.Big:1",
    "I.Ping:2",
    "I.Hang:1",
    "I.Later:2",
    "I.Fail:2",
    "I.Nothing:9",
];

/// A hub, and the engine that it is of.
pub(super) struct Offer {
    pub(super) hub: Hub,
    pub(super) engine: Engine,
    pub(super) values: Source<u8, i64>,
    /// How often `I.Big` was run.
    pub(super) big: Arc<AtomicUsize>,
    alive: Arc<()>,
    own: usize,
}

impl Offer {
    pub(super) fn new() -> Offer {
        let engine = Engine::new();
        let values = engine.define("value").source(|_: &u8| 0_i64).expect("a free name");
        let read = values.clone();
        let get: Function<u8, i64> =
            engine.function("get", move |cx: &Cx, key: &u8| read.get(cx, key).expect("a source")).expect("a free name");
        let read = values.clone();
        let or_fail = engine.function("or_fail", move |cx: &Cx, key: &u8| match read.get(cx, key).expect("a source") {
            0 => Err(Failure::new("zero")),
            value => Ok(value),
        });
        let or_fail = or_fail.expect("a free name");
        let read = values.clone();
        let later = engine.async_function("later", move |cx: Cx, (key, pause): (u8, u16)| {
            let value = read.get(&cx, &key).expect("a source");
            async move {
                tokio::time::sleep(Duration::from_millis(pause.into())).await;
                value
            }
        });
        let later = later.expect("a free name");
        let (alive, big) = (Arc::new(()), Arc::<AtomicUsize>::default());
        let counted = big.clone();
        let [of_get, of_fail, of_later] = std::array::from_fn(|_| engine.clone());
        let [of_slow, of_count, of_sum, of_hang, of_nested] = std::array::from_fn(|_| alive.clone());
        let service = Service::new("I")
            .compute("Get:2", move |(key,): (u8,)| ready(get.computed(&of_get, &key)))
            .try_compute("GetOrFail:2", move |(key,): (u8,)| ready(or_fail.computed(&of_fail, &key)))
            .compute("Later:2", move |(key, pause): (u8, u16)| {
                let (later, engine) = (later.clone(), of_later.clone());
                async move { later.computed(&engine, &(key, pause)).await }
            })
            .method("Echo:2", |(value,): (Raw,)| async move { Ok::<_, Failure>(value) })
            .method("Slow:2", move |(pause,): (u16,)| {
                let alive = of_slow.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(pause.into())).await;
                    drop(alive);
                    Ok::<_, Failure>(pause)
                }
            })
            .method("Count:4", move |(count, period, advance): (u16, u16, u16)| {
                let alive = of_count.clone();
                let items = stream::iter(0..i64::from(count)).map(move |number| (&alive, number).1);
                let stream = RpcStream::new(items).window(period.into(), advance.into());
                ready(Ok::<_, Failure>(if count % 2 == 0 { stream } else { stream.without_reconnection() }))
            })
            .method("Sum:2", move |(mut numbers,): (RpcStream<i64>,)| {
                let alive = of_sum.clone();
                async move {
                    let mut sum = 0_i64;
                    while let Some(number) = numbers.next().await {
                        sum = sum.wrapping_add(number?);
                    }
                    drop(alive);
                    Ok::<_, Failure>(sum)
                }
            })
            .method("Drop:2", |(numbers,): (Vec<RpcStream<Raw>>,)| async move {
                drop(numbers);
                Ok::<_, Failure>(())
            })
            .method("Nested:1", move |()| {
                let alive = of_nested.clone();
                let items = stream::iter(0..200_u32).map(move |number| {
                    let alive = alive.clone();
                    RpcStream::new(stream::iter(0..number).map(move |number| (&alive, number).1)).window(1, 2)
                });
                ready(Ok::<_, Failure>(RpcStream::new(items)))
            })
            .method("Big:1", move |()| {
                counted.fetch_add(1, Ordering::SeqCst);
                ready(Ok::<_, Failure>("x".repeat(BIG)))
            })
            .no_wait("Ping:2", |(_,): (Raw,)| async {})
            .method("Hang:1", move |()| {
                let alive = of_hang.clone();
                async move {
                    std::future::pending::<()>().await;
                    drop(alive);
                    Ok::<_, Failure>(())
                }
            })
            .method("Fail:2", |(text,): (String,)| async move { Err::<(), _>(Failure::new(text)) });
        let hub = Hub::builder().service(service).expect("a service").build();
        let own = Arc::strong_count(&alive);
        Offer { hub, engine, values, big, alive, own }
    }

    /// How many bodies and sources there are.
    pub(super) fn alive(&self) -> usize {
        Arc::strong_count(&self.alive) - self.own
    }
}
