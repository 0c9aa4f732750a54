//! What `#[rpc_service]` makes of a trait, seen from a server's author and from a client.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use serde::{Deserialize, Serialize};
use support::PATIENCE;
use support::pipe::Wire;
use wellspring::{Computed, Cx, Engine, Fault, RegisterError, Source, compute};
use wellspring_rpc::wire::{ErrorInfo, Format, MethodId};
use wellspring_rpc::{CallError, CallOptions, Caller, Failure, Hub, MethodLimits, Remote, RpcStream, ServiceError, rpc_service};

/// What a server says when there is none of an item.
#[derive(Clone, Debug, PartialEq)]
struct SoldOut(String);

impl From<SoldOut> for Failure {
    fn from(SoldOut(item): SoldOut) -> Failure {
        Failure::typed(ErrorInfo::INVALID_OPERATION, format!("{item} is sold out"))
    }
}

impl From<Fault> for SoldOut {
    fn from(fault: Fault) -> SoldOut {
        SoldOut(fault.to_string())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    item: String,
    count: u32,
}

/// An alias is what it stands for.
type Pushed<V> = Result<Computed<V>, Fault>;
type Bought = Result<u32, SoldOut>;

/// What is in stock.
#[rpc_service(name = "IStock")]
trait Stock: Send + Sync + 'static {
    /// How many there are.
    #[compute]
    fn get(&self, item: String) -> Result<Computed<u32>, Fault>;

    /// What is to be paid, of an async function.
    #[compute]
    async fn price(&self, item: String, count: u32) -> Pushed<Bought>;

    #[compute]
    #[rpc(name = "Everything", token = false)]
    async fn total(&self) -> Pushed<u32>;

    /// Not everybody is told.
    #[compute]
    async fn secret(&self, word: String) -> Result<Computed<u32>, Failure>;

    /// Whether there is any: told when there is none any more, and not of each that goes.
    #[compute]
    #[rpc(verified)]
    fn any(&self, item: String) -> Result<Computed<bool>, Fault>;

    async fn set(&self, item: String, count: u32) -> Result<(), Failure>;

    async fn take(&self, item: String, count: u32) -> Bought;

    /// Lines by their items.
    async fn lines(&self, items: Vec<String>) -> Result<Vec<Line>, Failure>;

    #[rpc(name = "Sum")]
    async fn sum_2(&self, a: i64, b: i64) -> Result<i64, Failure> {
        Ok(a + b)
    }

    #[rpc(name = "Sum")]
    async fn sum_3(&self, a: i64, b: i64, c: i64) -> Result<i64, Failure> {
        let two = self.sum_2(a, b).await?;
        self.sum_2(two, c).await
    }

    async fn r#type(&self, by: String, this: String, service: String, r#self_: String) -> Result<String, Failure> {
        Ok(format!("{by} {this} {service} {self_}"))
    }

    #[rpc(no_wait)]
    fn ping(&self, text: String);

    #[rpc(no_wait)]
    async fn ping_slowly(&self, text: String);

    async fn rows(&self, count: u32) -> Result<RpcStream<u32>, Failure>;

    async fn add_up(&self, numbers: RpcStream<u32>) -> Result<u32, Failure>;

    /// With a header that is said by whoever calls.
    async fn hello(&self, caller: &Caller, name: String) -> Result<String, Failure>;

    /// There is one for each caller.
    #[compute]
    async fn own(&self, caller: &Caller) -> Pushed<u32>;

    #[rpc(limits = MethodLimits::new().timeout(Duration::from_millis(50)))]
    async fn slow(&self, pause: u64) -> Result<(), Failure>;

    #[cfg(any())]
    #[compute]
    async fn of_another_build(&self) -> NoType;

    #[cfg(any())]
    async fn of_another_build_too(&self) -> NoType;

    #[deprecated(note = "on purpose")]
    async fn old(&self) -> Result<(), Failure> {
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "as many as there can be")]
    async fn eight(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> Result<[u8; 8], Failure> {
        Ok([a, b, c, d, e, f, g, h])
    }
}

struct Prices {
    counts: Source<String, u32>,
    runs: Arc<AtomicUsize>,
}

#[compute]
impl Prices {
    async fn price(&self, cx: &Cx, item: String, count: u32) -> Result<u32, SoldOut> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        match self.counts.get(cx, &item)? {
            0 => Err(SoldOut(item)),
            _ => Ok(count * 10),
        }
    }

    #[compute(cut_off = eq)]
    fn any(&self, cx: &Cx, item: String) -> bool {
        self.counts.get(cx, &item).is_ok_and(|count| count > 0)
    }

    fn total(&self, cx: &Cx) -> u32 {
        ["apple", "pear"].iter().map(|item| self.counts.get(cx, *item).unwrap_or(0)).sum()
    }
}

struct Shop {
    engine: Engine,
    counts: Source<String, u32>,
    prices: PricesHandle,
    pings: Arc<Mutex<Vec<String>>>,
}

impl Stock for Shop {
    fn get(&self, item: String) -> Result<Computed<u32>, Fault> {
        self.counts.computed(&self.engine, &item)
    }

    async fn price(&self, item: String, count: u32) -> Pushed<Bought> {
        self.prices.functions().price.computed(&self.engine, &(item, count)).await
    }

    async fn total(&self) -> Pushed<u32> {
        // What is awaited before may be anything.
        tokio::task::yield_now().await;
        self.prices.functions().total.computed(&self.engine, &())
    }

    async fn secret(&self, word: String) -> Result<Computed<u32>, Failure> {
        match word.as_str() {
            "please" => Ok(self.counts.computed(&self.engine, "secret")?),
            _ => Err(Failure::new("say please")),
        }
    }

    fn any(&self, item: String) -> Result<Computed<bool>, Fault> {
        self.prices.functions().any.computed(&self.engine, &item)
    }

    async fn set(&self, item: String, count: u32) -> Result<(), Failure> {
        self.counts.set(&item, count);
        Ok(())
    }

    async fn take(&self, item: String, count: u32) -> Bought {
        let left = self.counts.get(&self.engine, &item)?.checked_sub(count).ok_or(SoldOut(item.clone()))?;
        self.counts.set(&item, left);
        Ok(left)
    }

    async fn lines(&self, items: Vec<String>) -> Result<Vec<Line>, Failure> {
        let line = |item: String| Line { count: self.counts.get(&self.engine, &item).unwrap_or(0), item };
        Ok(items.into_iter().map(line).collect())
    }

    fn ping(&self, text: String) {
        self.pings.lock().expect("no panic").push(text);
    }

    async fn ping_slowly(&self, text: String) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.ping(text);
    }

    async fn rows(&self, count: u32) -> Result<RpcStream<u32>, Failure> {
        Ok(RpcStream::new(stream::iter(0..count)))
    }

    async fn add_up(&self, mut numbers: RpcStream<u32>) -> Result<u32, Failure> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
        }
        Ok(sum)
    }

    async fn hello(&self, caller: &Caller, name: String) -> Result<String, Failure> {
        Ok(format!("{} says hello to {name}", caller.header("user").unwrap_or("nobody")))
    }

    async fn own(&self, caller: &Caller) -> Pushed<u32> {
        self.counts.computed(&self.engine, caller.header("user").unwrap_or("nobody"))
    }

    async fn slow(&self, pause: u64) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok(())
    }
}

/// A server, and a client of it with an engine of its own.
struct World {
    far: Engine,
    near: Engine,
    hub: Hub,
    remote: Remote,
    stock: StockClient,
    runs: Arc<AtomicUsize>,
    pings: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> World {
        let (far, near, runs, pings) = (Engine::new(), Engine::new(), Arc::<AtomicUsize>::default(), Arc::default());
        let counts = far.source("counts", |_: &String| 0_u32).expect("registered");
        let prices = far.service(Prices { counts: counts.clone(), runs: runs.clone() }).expect("registered");
        let shop = Arc::new(Shop { engine: far.clone(), counts, prices, pings: Arc::clone(&pings) });
        let hub = Hub::builder().service(shop.into_service()).expect("a service").build();
        let remote = Remote::builder(Wire::to(&hub)).connect();
        let stock = StockClient::new(&near, &remote).expect("registered");
        World { far, near, hub, remote, stock, runs, pings }
    }
}

fn failed(error: CallError) -> Failure {
    match error {
        CallError::Failed(failure) => failure,
        error => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_calls_what_a_server_implements() {
    let World { stock, .. } = World::new();
    stock.set("apple", 3).await.expect("set");
    let items = ["apple".to_owned(), "pear".to_owned()];
    let lines = stock.lines(&items).await.expect("lines");
    assert_eq!(lines, [Line { item: "apple".into(), count: 3 }, Line { item: "pear".into(), count: 0 }]);
    assert_eq!(stock.take("apple", 2).await, Ok(1));
    let failure = failed(stock.take("apple", 2).await.expect_err("sold out"));
    assert_eq!((failure.message(), failure.type_name()), ("apple is sold out", "System.InvalidOperationException"));
    assert_eq!(stock.eight(1, 2, 3, 4, 5, 6, 7, 8).await, Ok([1, 2, 3, 4, 5, 6, 7, 8]));
}

#[tokio::test(start_paused = true)]
async fn bodies_that_the_trait_has_run_and_methods_of_one_name_differ_by_what_they_take() {
    let World { stock, remote, .. } = World::new();
    assert_eq!((stock.sum_2(1, 2).await, stock.sum_3(1, 2, 3).await), (Ok(3), Ok(6)));
    let sum = |name: &str| MethodId::new(name).expect("short");
    assert_eq!(remote.call(&sum("IStock.Sum:3"), (4_i64, 5_i64)).await, Ok(9_i64));
    assert_eq!(remote.call(&sum("IStock.Sum:4"), (4_i64, 5_i64, 6_i64)).await, Ok(15_i64));
}

#[tokio::test(start_paused = true)]
async fn arguments_may_have_any_names() {
    let World { stock, remote, .. } = World::new();
    assert_eq!(stock.r#type("a", "b", "c", "d").await.as_deref(), Ok("a b c d"));
    let method = MethodId::new("IStock.Type:5").expect("short");
    assert_eq!(remote.call::<String>(&method, ("a", "b", "c", "d")).await.as_deref(), Ok("a b c d"));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_method_that_is_not_answered() {
    let World { stock, pings, remote, .. } = World::new();
    // There is a connection.
    stock.set("apple", 3).await.expect("set");
    stock.ping_slowly("one").expect("sent");
    stock.ping("two").expect("sent");
    assert_eq!(remote.open_calls(), 0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(*pings.lock().expect("no panic"), ["two", "one"]);
}

#[tokio::test(start_paused = true)]
async fn streams_go_both_ways() {
    let World { stock, .. } = World::new();
    let mut rows = stock.rows(200).await.expect("a stream");
    for expected in 0..200 {
        assert_eq!(rows.next().await, Some(Ok(expected)));
    }
    assert_eq!(rows.next().await, None);
    assert_eq!(stock.add_up(RpcStream::new(stream::iter(0..=100))).await, Ok(5050));
}

#[tokio::test(start_paused = true)]
async fn a_value_is_asked_for_once_and_again_when_it_is_stale_there() {
    let World { stock, near, far, runs, remote, .. } = World::new();
    stock.set("apple", 3).await.expect("set");
    for _ in 0..5 {
        assert_eq!(stock.price(&near, "apple", 2).await, Ok(20));
        assert_eq!(stock.get(&near, "apple").await, Ok(3));
        assert_eq!(stock.total(&near).await, Ok(3));
    }
    assert_eq!((runs.load(Ordering::SeqCst), remote.open_calls()), (1, 3));
    let key = ("apple".to_owned(), 2);
    let price = stock.functions().price.computed(&near, &key).await.expect("read");
    assert_eq!(price.value().as_result(), Ok(&20));
    stock.set("apple", 0).await.expect("set");
    tokio::time::timeout(PATIENCE, price.invalidated()).await.expect("it is pushed");
    // A failure is a value like others, and ends like others.
    for _ in 0..5 {
        assert_eq!(failed(stock.price(&near, "apple", 2).await.expect_err("sold out")).message(), "apple is sold out");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let price = stock.functions().price.computed(&near, &key).await.expect("read");
    stock.set("apple", 1).await.expect("set");
    tokio::time::timeout(PATIENCE, price.invalidated()).await.expect("it is pushed");
    assert_eq!((stock.price(&near, "apple", 2).await, stock.total(&near).await), (Ok(20), Ok(1)));
    near.assert_consistent();
    far.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn of_a_verified_method_callers_hear_when_its_value_has_changed_and_of_others_at_once() {
    let World { stock, near, .. } = World::new();
    stock.set("apple", 3).await.expect("set");
    let read = async || {
        let functions = stock.functions();
        let key = ("apple".to_owned(),);
        (functions.any.computed(&near, &key).await.expect("read"), functions.get.computed(&near, &key).await.expect("read"))
    };
    let (any, count) = read().await;
    stock.set("apple", 2).await.expect("set");
    tokio::time::timeout(PATIENCE, count.invalidated()).await.expect("it is pushed");
    // Time in which anything would have come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(any.is_consistent(), "there still are some");
    stock.set("apple", 0).await.expect("set");
    tokio::time::timeout(PATIENCE, any.invalidated()).await.expect("it is pushed");
    assert_eq!(stock.any(&near, "apple").await, Ok(false));
}

#[tokio::test(start_paused = true)]
async fn a_compute_method_can_refuse_a_call() {
    let World { stock, near, .. } = World::new();
    assert_eq!(stock.secret(&near, "please").await, Ok(0));
    assert_eq!(failed(stock.secret(&near, "now").await.expect_err("refused")).message(), "say please");
}

/// A function here that reads there.
struct Basket {
    stock: StockClient,
    runs: Arc<AtomicUsize>,
}

#[compute]
impl Basket {
    async fn all_there(&self, cx: &Cx, items: Vec<String>) -> Result<bool, CallError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        for item in items {
            if self.stock.get(cx, &item).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[tokio::test(start_paused = true)]
async fn functions_here_that_read_a_client_follow_the_server() {
    let World { stock, near, .. } = World::new();
    let runs = Arc::<AtomicUsize>::default();
    let basket = near.service(Basket { stock: stock.clone(), runs: runs.clone() }).expect("registered");
    let items = ["apple".to_owned(), "pear".to_owned()];
    stock.set("apple", 1).await.expect("set");
    for _ in 0..5 {
        assert_eq!(basket.all_there(&near, &items).await, Ok(false));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1, "cached here");
    let mut changes = basket.functions().all_there.computed(&near, &items[..].to_vec()).await.expect("read").changes();
    assert_eq!(*changes.next().await.expect("endless").expect("read").value(), Ok(false));
    stock.set("pear", 1).await.expect("set");
    let next = tokio::time::timeout(PATIENCE, changes.next()).await.expect("it follows");
    assert_eq!(*next.expect("endless").expect("read").value(), Ok(true));
    near.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn reads_and_calls_can_be_spawned() {
    let World { stock, near, .. } = World::new();
    let read = tokio::spawn(stock.get(&near, "apple"));
    let called = tokio::spawn(async move { stock.set("apple", 1).await });
    assert!(read.await.expect("no panic").is_ok());
    assert_eq!(called.await.expect("no panic"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_in_the_engine_here_is_said() {
    let elsewhere = Engine::new();
    let World { stock, .. } = World::new();
    assert_eq!(stock.get(&elsewhere, "apple").await, Err(CallError::Engine(Fault::ForeignEngine)));
}

#[tokio::test(start_paused = true)]
async fn a_second_client_in_an_engine_goes_by_another_name() {
    let World { stock, near, remote, .. } = World::new();
    let error = StockClient::new(&near, &remote).expect_err("the names are taken");
    assert_eq!(error, RegisterError::Duplicate { name: "IStock.Get:2".into() });
    let second = StockClient::named(&near, &remote, "second").expect("registered");
    stock.set("apple", 7).await.expect("set");
    assert_eq!((stock.get(&near, "apple").await, second.get(&near, "apple").await), (Ok(7), Ok(7)));
    assert_eq!(second.functions().total.name(), "second.Everything:0");
}

#[tokio::test(start_paused = true)]
async fn a_hub_has_a_service_once() {
    let World { far, .. } = World::new();
    let plain = || Arc::new(Fixed(far.clone())).into_service();
    let error = Hub::builder().service(plain()).expect("a service").service(plain()).expect_err("twice");
    assert_eq!(error, ServiceError::Twice("Plain.Answer:0".into()));
}

#[tokio::test(start_paused = true)]
#[expect(deprecated, reason = "clients see that it is")]
async fn what_the_trait_says_of_a_method_the_client_says_too() {
    let World { stock, .. } = World::new();
    assert_eq!(stock.old().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_client_that_is_gone() {
    let World { stock, near, remote, hub, .. } = World::new();
    assert_eq!(stock.get(&near, "apple").await, Ok(0));
    assert_eq!((remote.open_calls(), hub.open_calls()), (1, 1));
    drop((stock, near));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((remote.open_calls(), hub.open_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_method_can_ask_who_calls_which_is_not_sent() {
    let World { stock, remote, .. } = World::new();
    assert_eq!(stock.hello("bob").await.as_deref(), Ok("nobody says hello to bob"));
    let alice = stock.with(CallOptions::new().header("user", "alice"));
    assert_eq!(alice.hello("bob").await.as_deref(), Ok("alice says hello to bob"));
    let method = MethodId::new("IStock.Hello:2").expect("short");
    assert_eq!(remote.call::<String>(&method, ("carol",)).await.as_deref(), Ok("nobody says hello to carol"));
}

#[tokio::test(start_paused = true)]
async fn a_value_can_be_the_callers_own() {
    let World { stock, near, remote, .. } = World::new();
    let as_user = |user: &'static str| StockClient::named(&near, &remote.with(CallOptions::new().header("user", user)), user);
    let (alice, bob) = (as_user("alice").expect("registered"), as_user("bob").expect("registered"));
    assert_eq!((alice.own(&near).await, bob.own(&near).await), (Ok(0), Ok(0)));
    let read = |client: &StockClient| client.functions().own.computed(&near, &());
    let (of_alice, of_bob) = (read(&alice).await.expect("read"), read(&bob).await.expect("read"));
    stock.set("alice", 3).await.expect("set");
    tokio::time::timeout(PATIENCE, of_alice.invalidated()).await.expect("it is pushed");
    assert_eq!((alice.own(&near).await, bob.own(&near).await), (Ok(3), Ok(0)));
    assert!(of_bob.is_consistent(), "nothing was said to others");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_longer_than_its_method_may_fails() {
    let World { stock, .. } = World::new();
    assert_eq!(stock.slow(10).await, Ok(()));
    assert_eq!(failed(stock.slow(100).await.expect_err("late")).message(), "The call of 'IStock.Slow:2' takes too long.");
    let hasty = stock.with(CallOptions::new().timeout(Duration::from_millis(5)));
    assert_eq!(hasty.slow(10).await, Err(CallError::TimedOut(Duration::from_millis(5))));
}

/// By its own name, of methods that have no cancellation token unless they say so; and with values that only go one way.
#[rpc_service(only = server, token = false)]
trait Plain {
    async fn answer(&self) -> Result<OneWay, Failure>;

    #[rpc(token = true)]
    async fn get_answer(&self) -> Result<OneWay, Failure>;
}

/// The same, as its clients have it.
mod far_away {
    use super::{Deserialize, Failure, rpc_service};

    #[derive(Debug, PartialEq, Deserialize)]
    pub(super) struct OneWay(pub(super) u8);

    #[rpc_service(only = client, token = false)]
    pub(super) trait Plain {
        async fn answer(&self) -> Result<OneWay, Failure>;

        #[rpc(token = true)]
        async fn get_answer(&self) -> Result<OneWay, Failure>;

        async fn missing(&self) -> Result<OneWay, Failure>;
    }
}

#[derive(Serialize)]
struct OneWay(u8);

struct Fixed(#[allow(dead_code, reason = "a service has an engine")] Engine);

impl Plain for Fixed {
    async fn answer(&self) -> Result<OneWay, Failure> {
        Ok(OneWay(42))
    }

    async fn get_answer(&self) -> Result<OneWay, Failure> {
        self.answer().await
    }
}

#[tokio::test(start_paused = true)]
async fn each_half_can_be_had_alone_and_a_cancellation_token_counts_where_there_is_one() {
    let engine = Engine::new();
    let hub = Hub::builder().service(Arc::new(Fixed(engine.clone())).into_service()).expect("a service").build();
    // In which names are said in full.
    let remote = Remote::builder(Wire::to(&hub)).format(Format::Msgpack6).connect();
    let plain = far_away::PlainClient::new(&engine, &remote).expect("registered");
    assert_eq!((plain.answer().await, plain.get_answer().await), (Ok(far_away::OneWay(42)), Ok(far_away::OneWay(42))));
    for name in ["Plain.Answer:0", "Plain.GetAnswer:1"] {
        assert_eq!(remote.call::<u8>(&MethodId::new(name).expect("short"), ()).await, Ok(42), "{name}");
    }
    assert_eq!(failed(plain.missing().await.expect_err("missing")).message(), "Endpoint not found: 'Plain.Missing:0'.");
}

/// What is generated means the crate's own items, whatever is called like them where a trait stands.
#[allow(dead_code, reason = "it compiles")]
mod shadowed {
    struct Result;
    struct Ok;
    struct Arc;
    struct Future;
    struct Send;
    struct Engine;
    struct Remote;
    struct Service;

    #[wellspring_rpc::rpc_service]
    pub(super) trait Shadowed {
        #[compute]
        async fn value(&self, engine: u8, remote: u8, name: u8) -> ::core::result::Result<wellspring::Computed<u8>, wellspring::Fault>;

        async fn call(&self) -> ::core::result::Result<(), wellspring_rpc::Failure>;

        #[rpc(no_wait)]
        fn tell(&self);
    }
}

macro_rules! echo {
    ($name:ident, $get:ident, $item:ty, $implementation:ident) => {
        #[rpc_service]
        trait $name {
            async fn $get(&self, item: $item) -> Result<$item, Failure> {
                let _ = self;
                Ok(item)
            }
        }

        struct $implementation;

        impl $name for $implementation {}
    };
}

echo!(Echo, text, String, Echoes);

#[tokio::test(start_paused = true)]
async fn a_trait_may_come_out_of_a_macro() {
    let hub = Hub::builder().service(Arc::new(Echoes).into_service()).expect("a service").build();
    let remote = Remote::builder(Wire::to(&hub)).connect();
    let echo = EchoClient::new(&Engine::new(), &remote).expect("registered");
    assert_eq!(echo.text("hello".to_owned()).await.as_deref(), Ok("hello"));
}
