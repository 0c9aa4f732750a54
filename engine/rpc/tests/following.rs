//! Whoever follows a value of another process that cannot be had hears of it when it can be, and does not ask in a circle until then.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::near::{key, method, soon};
use support::recorded::Said;
use support::script::{Link, Links, Script};
use wellspring::{AsyncFunction, Capacity, Cx, Engine};
use wellspring_rpc::wire::{ErrorInfo, Head, System};
use wellspring_rpc::{By, CallError, CallOptions, Remote, Remoted, Route, Router, Routes, Single};

const SECOND: Duration = Duration::from_secs(1);

/// What a server does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    /// It gives up, as one does that shuts down.
    GivesUp,
    /// What it answers is not what is expected.
    Unreadable,
    /// The value is stale before it has come.
    Stale,
    /// It does not answer.
    Silent,
    /// It answers with that.
    Good(i64),
}

/// A server of one value, and how often it was asked.
#[derive(Clone)]
struct Server {
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn new(mut links: Links, mood: Mood) -> Server {
        let server = Server { mood: Arc::new(Mutex::new(mood)), asked: Arc::default() };
        let runs = server.clone();
        tokio::spawn(async move {
            let mut link = links.next().await;
            link.names = vec!["ICounter.Get:2".to_owned()];
            link.greet(7, 1).await;
            while let Some(said) = link.next().await {
                runs.hear(&link, &said);
            }
        });
        server
    }

    fn hear(&self, link: &Link, said: &Said) {
        if said.name != "ICounter.Get:2" {
            return;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let ok = Head::system(System::Ok, said.id);
        match *self.mood.lock().expect("no panic") {
            Mood::GivesUp => {
                link.say(&Head::system(System::Error, said.id), |out| out.value(&ErrorInfo::new(ErrorInfo::CANCELED, "stops")))
            }
            Mood::Unreadable => link.say(&ok, |out| out.value(&"no number")),
            Mood::Stale => link.say(&Head::system(System::Invalidate, said.id), |_| Ok(())),
            Mood::Silent => {}
            Mood::Good(value) => link.say(&ok, |out| out.value(&value)),
        }
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().expect("no panic") = mood;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

type Function<A> = AsyncFunction<A, Remoted<i64>>;

/// A function of this process that makes -1 of what cannot be had: one failure is like the other to who follows it.
fn made_of<A: wellspring::Key>(engine: &Engine, name: &str, of: &Function<A>) -> AsyncFunction<A, i64> {
    let of = of.clone();
    let made = engine.async_function(name, move |cx: Cx, key: A| {
        let of = of.clone();
        async move { of.get(&cx, &key).await.expect("read").as_result().copied().unwrap_or(-1) }
    });
    made.expect("registered")
}

/// How often something comes in ten seconds, at most a hundred times.
async fn in_ten_seconds<V: wellspring::Value>(changes: &mut wellspring::Changes<V>) -> usize {
    let mut count = 0;
    let few = async {
        while count < 100 {
            changes.next().await.expect("endless").expect("read");
            count += 1;
        }
    };
    assert!(tokio::time::timeout(10 * SECOND, few).await.is_err(), "it comes again and again");
    count
}

async fn becomes(changes: &mut wellspring::Changes<i64>, expected: i64) {
    let change = async { while *changes.next().await.expect("endless").expect("read").value() != expected {} };
    tokio::time::timeout(3 * SECOND, change).await.unwrap_or_else(|_| panic!("nobody hears that it is {expected}"));
}

async fn becomes_remote(changes: &mut wellspring::Changes<Remoted<i64>>, expected: i64) {
    let change = async { while changes.next().await.expect("endless").expect("read").value().as_result() != Ok(&expected) {} };
    tokio::time::timeout(3 * SECOND, change).await.unwrap_or_else(|_| panic!("nobody hears that it is {expected}"));
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_a_value_that_is_not_answered_hears_of_it_when_it_is() {
    for serves in [false, true] {
        for mood in [Mood::GivesUp, Mood::Unreadable, Mood::Stale, Mood::Silent] {
            let (script, links) = Script::new();
            let server = Server::new(links, mood);
            let remote = Remote::builder(script).options(CallOptions::new().timeout(SECOND)).connect();
            let engine = Engine::new();
            let define = remote.define("value", &method("ICounter.Get:2"));
            let value: Function<(String,)> = if serves { define.serve_stale() } else { define }.function(&engine).expect("registered");
            let made = made_of(&engine, "made", &value);
            let mut values = soon(value.computed(&engine, &key("a"))).await.expect("read").changes();
            let mut mades = soon(made.computed(&engine, &key("a"))).await.expect("read").changes();
            let (direct, indirect) = tokio::join!(in_ten_seconds(&mut values), in_ten_seconds(&mut mades));
            assert!((4..=12).contains(&direct), "{mood:?} {serves}: {direct} times");
            assert!((1..=12).contains(&indirect), "{mood:?} {serves}: {indirect} times");
            assert!(server.asked() <= 48, "{mood:?} {serves}: asked {} times", server.asked());
            server.becomes(Mood::Good(5));
            tokio::join!(becomes_remote(&mut values, 5), becomes(&mut mades, 5));
            engine.assert_consistent();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_a_failure_that_is_evicted_here_hears_of_the_value() {
    let (script, links) = Script::new();
    let server = Server::new(links, Mood::Unreadable);
    let remote = Remote::builder(script).connect();
    let engine = Engine::builder().capacity(Capacity::entries(16)).build();
    let value: Function<(String,)> = remote.function(&engine, "value", &method("ICounter.Get:2")).expect("registered");
    let made = made_of(&engine, "made", &value);
    let mut mades = soon(made.computed(&engine, &key("a"))).await.expect("read").changes();
    becomes(&mut mades, -1).await;
    for other in 0..40 {
        soon(value.get(&engine, &key(&other.to_string()))).await.expect("read");
    }
    engine.collect();
    server.becomes(Mood::Good(5));
    becomes(&mut mades, 5).await;
    engine.assert_consistent();
}

/// A router whose routes say so, and which fails soon; who is connected to is good.
fn router(route: impl Route<u8>) -> (Routes<u8>, Router<u8>) {
    let routes = Routes::of_server("here", route);
    let connect = |_: &str| {
        let (script, links) = Script::new();
        Server::new(links, Mood::Good(5));
        Remote::builder(script).connect()
    };
    let router = Router::builder(&routes, connect).retry(Duration::from_millis(1), Duration::from_millis(1), 2).build();
    (routes, router)
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_a_value_without_a_server_hears_of_it_as_soon_as_there_is_one() {
    for (failure, (routes, router)) in
        [(CallError::Here, router(Single::new("here"))), (CallError::Nowhere, router(By::new(["far"], |_: &u8| None)))]
    {
        let engine = Engine::new();
        let value: Function<(String,)> =
            router.function(&engine, "value", &method("ICounter.Get:2"), |_: &(String,)| 1).expect("registered");
        let made = made_of(&engine, "made", &value);
        let mut values = soon(value.computed(&engine, &key("a"))).await.expect("read").changes();
        let mut mades = soon(made.computed(&engine, &key("a"))).await.expect("read").changes();
        let (direct, indirect) = tokio::join!(in_ten_seconds(&mut values), in_ten_seconds(&mut mades));
        assert!((9..=12).contains(&direct) && (1..=12).contains(&indirect), "{failure}: {direct} and {indirect} times");
        let last = value.computed(&engine, &key("a")).await.expect("read");
        assert_eq!(last.value().as_result(), Err(&failure));
        routes.set(Single::new("far"));
        assert!(!last.is_consistent(), "{failure}: it is stale when the routes are set");
        tokio::join!(becomes_remote(&mut values, 5), becomes(&mut mades, 5));
        engine.assert_consistent();
    }
}
