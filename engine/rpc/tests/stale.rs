//! Values of a server while there is no connection to it.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use support::PATIENCE;
use support::near::{Near, connected, key, method, set, soon};
use support::pipe::{Wire, WireReader, WireWriter};
use support::script::Script;
use support::services::World;
use wellspring::{AsyncFunction, Fault};
use wellspring_rpc::transport::{Close, Connector, FrameReader, FrameWriter, Incoming};
use wellspring_rpc::wire::{Head, System, limits};
use wellspring_rpc::{CallError, CallOptions, Connected, Freshness, NotSynchronized, Remote, RemoteDefine, Remoted, Visitor};

fn stale<K, V>(define: RemoteDefine<K, V>) -> RemoteDefine<K, V>
where
    K: wellspring::Key + wellspring_rpc::ToArguments,
    V: serde::de::DeserializeOwned + Send + Sync + 'static,
{
    define.serve_stale()
}

fn far(world: &World) -> Remote {
    Remote::builder(Wire::to(&world.hub)).connect()
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_a_reader_gets_the_last_value_at_once_and_the_graph_hears_of_the_true_one() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let (near, far) = (Near::to(wire.clone(), stale), far(&world));
    set(&far, "a", 1).await;
    assert_eq!(near.sum().await, 1);
    assert_eq!(near.get("a").await.freshness(), Freshness::Synchronized);
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    set(&far, "a", 5).await;
    near.counter.invalidate(&key("a"));
    let last = near.now("a").await;
    assert_eq!((*last).as_ref(), Ok(&1));
    assert_eq!((last.freshness(), near.remote.unconfirmed_values()), (Freshness::Unconfirmed, 1));
    assert_eq!((near.sum().await, near.sums()), (1, 1), "the same value is no other");
    let end = near.sum.computed(&near.engine, &("a".to_owned(), "b".to_owned())).await.expect("a sum");
    wire.set_down(false);
    soon(end.invalidated()).await;
    let now = near.get("a").await;
    assert_eq!(((*now).as_ref(), now.freshness()), (Ok(&5), Freshness::Synchronized));
    assert_eq!((last.freshness(), near.remote.unconfirmed_values()), (Freshness::Stale, 0));
    assert_eq!((near.sum().await, near.sums()), (5, 2));
    drop((last, end));
    near.calls_become(2).await;
    assert_eq!(world.hub.open_calls(), 2);
    near.engine.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_a_connection_if_nothing_else_is_said() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let near = Near::to(wire.clone(), |define| define);
    assert_eq!(*near.get("a").await, Ok(0));
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    near.counter.invalidate(&key("a"));
    assert!(tokio::time::timeout(Duration::from_secs(60), near.get("a")).await.is_err());
    wire.set_down(false);
    assert_eq!(*soon(near.get("a")).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_connection_breaks_gets_the_last_value_and_its_call_goes_on() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let (near, far) = (Near::to(wire.clone(), stale), far(&world));
    let slow: AsyncFunction<(String, u64), Remoted<i64>> =
        near.remote.define("slow", &method("ICounter.Slow:3")).serve_stale().function(&near.engine).expect("registered");
    let of = ("k".to_owned(), 100);
    let before = slow.computed(&near.engine, &of).await.expect("a value");
    set(&far, "k", 1).await;
    soon(before.invalidated()).await;
    let breaking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        wire.set_down(true);
    };
    let (got, ()) = tokio::join!(slow.get(&near.engine, &of), breaking);
    let got = got.expect("read");
    assert_eq!(((*got).as_ref(), got.freshness()), (Ok(&0), Freshness::Unconfirmed));
    tokio::time::sleep(Duration::from_secs(1)).await;
    wire.set_down(false);
    soon(got.when_synchronized()).await.expect("there is a connection");
    let now = slow.get(&near.engine, &of).await.expect("read");
    assert_eq!(((*now).as_ref(), now.is_synchronized()), (Ok(&1), true));
    assert_eq!(world.runs.slow_compute.load(Ordering::SeqCst), 2, "it is not asked again for what has come");
    drop((before, got));
    near.calls_become(1).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_still_true_is_not_sent_again_and_nothing_is_made_of_it_again() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let near = Near::to(wire.clone(), stale);
    near.sum().await;
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    near.counter.invalidate_all();
    near.sum().await;
    let (one, two) = (near.now("a").await, near.now("b").await);
    let results = wire.heard_of(System::Ok);
    wire.set_down(false);
    soon(one.when_synchronized()).await.expect("there is a connection");
    soon(two.when_synchronized()).await.expect("there is a connection");
    assert!(one.is_synchronized() && two.is_synchronized());
    // One is the list of calls that are not known.
    assert_eq!((wire.heard_of(System::Match), wire.heard_of(System::Ok) - results), (2, 1));
    assert_eq!((near.sum().await, near.sums()), (0, 1));
    near.calls_become(2).await;
    set(&near.remote, "a", 3).await;
    near.becomes(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_started_anew_need_not_send_what_is_the_same() {
    let (first, second) = (World::new(), World::new());
    let wire = Wire::to(&first.hub);
    let near = Near::to(wire.clone(), stale);
    let (one, other) = (far(&first), far(&second));
    for far in [&one, &other] {
        set(far, "a", 7).await;
    }
    set(&other, "b", 1).await;
    assert_eq!(near.sum().await, 7);
    let (a, b) = (near.get("a").await, near.get("b").await);
    wire.lead_to(&second.hub);
    wire.cut();
    near.becomes(8).await;
    assert_eq!((near.sums(), wire.heard_of(System::Match)), (2, 1));
    assert_eq!((a.freshness(), b.freshness()), (Freshness::Synchronized, Freshness::Stale), "the same value is the same");
    drop((a, b));
    near.calls_become(2).await;
    assert_eq!(second.hub.open_calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn values_that_are_given_once_more_are_all_known_to_be_true_in_the_end() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let near = Near::to(wire.clone(), stale);
    near.get("a").await;
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut given = Vec::new();
    for _ in 0..3 {
        near.counter.invalidate(&key("a"));
        given.push(near.now("a").await);
    }
    assert_eq!(near.remote.unconfirmed_values(), 1, "who looks into it last has taken over");
    let waiting = futures_util::future::join_all(given.iter().map(Remoted::when_synchronized));
    let (known, ()) = soon(async { tokio::join!(waiting, async { wire.set_down(false) }) }).await;
    assert_eq!(known, vec![Ok(()); 3]);
    assert!(given.iter().all(Remoted::is_synchronized));
    near.calls_become(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_served_without_a_connection() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let near = Near::to(wire.clone(), stale);
    let or_fail: AsyncFunction<(String,), Remoted<i64>> =
        near.remote.define("or_fail", &method("ICounter.GetOrFail:2")).serve_stale().function(&near.engine).expect("registered");
    assert!(or_fail.get(&near.engine, &key("k")).await.expect("read").is_err());
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    or_fail.invalidate(&key("k"));
    assert!(tokio::time::timeout(Duration::from_secs(60), or_fail.get(&near.engine, &key("k"))).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_value_says_that_there_is_no_connection_and_what_has_become_of_it() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let (near, far) = (Near::to(wire.clone(), |define| define), far(&world));
    let (kept, changed) = (near.get("kept").await, near.get("changed").await);
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    set(&far, "changed", 1).await;
    assert_eq!((kept.freshness(), changed.freshness()), (Freshness::Disconnected, Freshness::Disconnected));
    assert!(tokio::time::timeout(Duration::from_secs(60), kept.when_synchronized()).await.is_err());
    wire.set_down(false);
    soon(changed.when_synchronized()).await.expect("there is a connection");
    assert_eq!((kept.freshness(), changed.freshness()), (Freshness::Synchronized, Freshness::Stale));
    assert_eq!(*near.get("changed").await, Ok(1));
}

/// Whatever there is without a connection: values that are not stale, or values that are served though they may be.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_what_is_true_never_gets_what_was_changed_without_a_connection() {
    for serves in [false, true] {
        for pause in 0..40 {
            let world = World::new();
            let wire = Wire::to(&world.hub);
            let (near, far) = (Near::to(wire.clone(), |define| if serves { define.serve_stale() } else { define }), far(&world));
            near.sum().await;
            wire.set_down(true);
            tokio::time::sleep(Duration::from_millis(500)).await;
            set(&far, "a", 1).await;
            set(&far, "b", 2).await;
            if serves {
                near.counter.invalidate(&key("a"));
                assert_eq!(near.sum().await, 0);
            }
            let waited = near.remote.synchronized(Duration::from_secs(1), || near.sum()).await;
            assert_eq!(waited, Err(NotSynchronized::TimedOut));
            let reading = near.remote.synchronized(Duration::from_secs(60), || near.sum());
            let back = async {
                // At every moment of the way back.
                wire.set_down(false);
                for _ in 0..pause {
                    tokio::task::yield_now().await;
                }
            };
            let (_, read) = tokio::join!(back, reading);
            assert_eq!(read, Ok(3), "serves: {serves}, pause: {pause}");
            assert_eq!(near.remote.unconfirmed_values(), 0);
        }
    }
}

/// A way to a server that does not speak the format any more, or another.
#[derive(Debug)]
struct Moody {
    wire: Wire,
    refuses: Arc<AtomicBool>,
}

enum Reader {
    Wire(WireReader),
    Refused(bool),
}

impl FrameReader for Reader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        match self {
            Reader::Wire(reader) => reader.read().await,
            Reader::Refused(said) if *said => Ok(None),
            Reader::Refused(said) => {
                *said = true;
                Ok(Some(Incoming::Closed(Close::FORMAT)))
            }
        }
    }
}

struct Writer(Option<WireWriter>);

impl FrameWriter for Writer {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        match &mut self.0 {
            Some(writer) => writer.write(frames, text).await,
            None => Ok(()),
        }
    }

    async fn close(&mut self, _: Close<'_>) {}
}

impl Connector for Moody {
    type Reader = Reader;
    type Writer = Writer;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Reader, Writer)> {
        if self.refuses.load(Ordering::SeqCst) {
            return Ok((Reader::Refused(false), Writer(None)));
        }
        let (reader, writer) = self.wire.connect(visitor).await?;
        Ok((Reader::Wire(reader), Writer(Some(writer))))
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_server_that_will_never_be_connected_to() {
    let world = World::new();
    let (wire, refuses) = (Wire::to(&world.hub), Arc::<AtomicBool>::default());
    let near = Near::to(Moody { wire: wire.clone(), refuses: refuses.clone() }, stale);
    near.sum().await;
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    near.counter.invalidate(&key("a"));
    let before = near.now("a").await;
    refuses.store(true, Ordering::SeqCst);
    assert_eq!(soon(before.when_synchronized()).await, Err(CallError::Unreachable));
    assert_eq!((near.sum().await, before.freshness()), (0, Freshness::Unconfirmed));
    near.counter.invalidate(&key("a"));
    let after = near.now("a").await;
    assert_eq!(((*after).as_ref(), after.when_synchronized().await), (Ok(&0), Err(CallError::Unreachable)));
    assert_eq!(near.remote.when_synchronized().await, Err(CallError::Unreachable));
    let read = near.remote.synchronized(Duration::from_secs(60), || near.sum()).await;
    assert_eq!(read, Err(NotSynchronized::Unreachable(CallError::Unreachable)));
    assert_eq!(near.remote.unconfirmed_values(), 0);
    let none = near.now("never read").await;
    assert!(matches!(&*none, Err(CallError::Unreachable)), "{none:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_gives_up_what_it_is_asked_takes_no_value_from_a_reader() {
    let (script, mut links) = Script::new();
    let near = Near::to(script, stale);
    let mut link = links.next().await;
    link.names = vec!["ICounter.Get:2".to_owned()];
    link.greet(7, 1).await;
    let first = async {
        let call = link.call("ICounter.Get:2").await;
        link.say(&Head::system(System::Ok, call.id), |out| out.value(&5));
        call.id
    };
    let (before, id) = tokio::join!(near.counter.computed(&near.engine, &key("a")), first);
    link.say(&Head::system(System::Invalidate, id), |_| Ok(()));
    soon(before.expect("read").invalidated()).await;
    let (last, _) = tokio::join!(soon(near.counter.computed(&near.engine, &key("a"))), link.gives_up("ICounter.Get:2", 3));
    let last = last.expect("read");
    assert_eq!((last.value().as_result(), last.value().freshness()), (Ok(&5), Freshness::Unconfirmed));
    // Who looks into it goes on asking.
    link.gives_up("ICounter.Get:2", 6).await;
    assert_eq!(last.value().freshness(), Freshness::Unconfirmed);
    assert!(tokio::time::timeout(Duration::ZERO, last.invalidated()).await.is_err(), "it has not become another");
    let then = async {
        let call = link.call("ICounter.Get:2").await;
        link.say(&Head::system(System::Ok, call.id), |out| out.value(&6));
    };
    tokio::join!(soon(last.invalidated()), then);
    let now = near.now("a").await;
    assert_eq!(((*now).as_ref(), now.freshness()), (Ok(&6), Freshness::Synchronized));
}

#[tokio::test(start_paused = true)]
async fn the_times_that_a_call_may_take_end_no_value_that_is_looked_into() {
    let second = Duration::from_secs(1);
    let limits = [
        CallOptions::new().timeout(5 * second),
        CallOptions::new().connect_timeout(5 * second),
        CallOptions::new().connect_timeout(Duration::ZERO),
    ];
    for options in limits {
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let near = Near::to(wire.clone(), |define| define);
        let define = near.remote.with(options.clone()).define("limited", &method("ICounter.Get:2"));
        let limited: AsyncFunction<(String,), Remoted<i64>> = define.serve_stale().function(&near.engine).expect("registered");
        connected(&near.remote).await;
        limited.get(&near.engine, &key("a")).await.expect("read");
        wire.set_down(true);
        tokio::time::sleep(second).await;
        limited.invalidate(&key("a"));
        let last = limited.computed(&near.engine, &key("a")).await.expect("read");
        assert_eq!((last.value().as_result(), last.value().freshness()), (Ok(&0), Freshness::Unconfirmed), "{options:?}");
        assert!(tokio::time::timeout(600 * second, last.invalidated()).await.is_err(), "{options:?}");
        wire.set_down(false);
        soon(last.value().when_synchronized()).await.expect("there is a connection");
        assert!(last.value().is_synchronized(), "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_a_value_that_cannot_be_asked_for_does_not_ask_in_a_circle() {
    let world = World::new();
    for serves in [false, true] {
        let (wire, refuses) = (Wire::to(&world.hub), Arc::<AtomicBool>::default());
        wire.set_down(true);
        let near = Near::to(Moody { wire: wire.clone(), refuses: refuses.clone() }, |define| define);
        let define = near.remote.with(CallOptions::new().connect_timeout(Duration::ZERO)).define("now", &method("ICounter.Get:2"));
        let define = if serves { define.serve_stale() } else { define };
        let now: AsyncFunction<(String,), Remoted<i64>> = define.function(&near.engine).expect("registered");
        let mut changes = now.computed(&near.engine, &key("a")).await.expect("read").changes();
        let mut count = 0;
        let few = async {
            // What goes in a circle does not let the time go on.
            while count < 100 {
                let next = changes.next().await.expect("endless").expect("read");
                assert_eq!(next.value().as_result(), Err(&CallError::NotConnected(Duration::ZERO)));
                count += 1;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), few).await.is_err(), "it is asked again and again");
        assert!((10..=12).contains(&count), "{count} times");
        // As soon as there is a way.
        wire.set_down(false);
        connected(&near.remote).await;
        let next = tokio::time::timeout(Duration::from_millis(10), async {
            while changes.next().await.expect("endless").expect("read").value().as_result() != Ok(&0) {}
        });
        next.await.expect("it is asked for");
        refuses.store(true, Ordering::SeqCst);
        wire.cut();
        soon(near.remote.connected().wait_for(|state| *state == Connected::Never)).await.expect("it lives");
        let mut never = now.computed(&near.engine, &key("b")).await.expect("read").changes();
        let next = never.next().await.expect("endless").expect("read");
        assert_eq!(next.value().as_result(), Err(&CallError::Unreachable));
        assert!(tokio::time::timeout(Duration::from_secs(3_600), never.next()).await.is_err(), "there will be no other");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_drops_its_engine_in_the_middle_leaves_no_call() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let near = Near::to(wire.clone(), stale);
    near.sum().await;
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    near.counter.invalidate_all();
    near.sum().await;
    let Near { engine, remote, counter, sum, .. } = near;
    assert_eq!(remote.unconfirmed_values(), 2);
    drop((counter, sum, engine));
    soon(async {
        while remote.open_calls() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(remote.unconfirmed_values(), 0);
    wire.set_down(false);
    remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("called");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
}

/// A number that cannot be read if it is 13.
#[derive(Debug, PartialEq)]
struct Lucky(i64);

impl<'de> serde::Deserialize<'de> for Lucky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Lucky, D::Error> {
        let number = i64::deserialize(deserializer)?;
        assert_ne!(number, 13, "on purpose");
        Ok(Lucky(number))
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_panics_when_it_is_looked_into_panics_where_it_is_read() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let (near, far) = (Near::to(wire.clone(), |define| define), far(&world));
    let lucky: AsyncFunction<(String,), Remoted<Lucky>> =
        near.remote.define("lucky", &method("ICounter.Get:2")).serve_stale().function(&near.engine).expect("registered");
    lucky.get(&near.engine, &key("k")).await.expect("read");
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    set(&far, "k", 13).await;
    lucky.invalidate(&key("k"));
    let last = lucky.get(&near.engine, &key("k")).await.expect("read");
    assert_eq!(last.as_result(), Ok(&Lucky(0)));
    wire.set_down(false);
    soon(last.when_synchronized()).await.expect("there is a connection");
    let panicked = lucky.get(&near.engine, &key("k")).await;
    assert!(matches!(panicked, Err(Fault::Panicked { .. })), "{panicked:?}");
    set(&far, "k", 14).await;
    assert_eq!(lucky.get(&near.engine, &key("k")).await.expect("read").as_result(), Ok(&Lucky(14)));
    drop(last);
    near.calls_become(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_outlives_its_engine_is_looked_into_all_the_same() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let near = Near::to(wire.clone(), stale);
    near.get("a").await;
    wire.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    near.counter.invalidate(&key("a"));
    let last = near.now("a").await;
    let Near { engine, remote, counter, sum, .. } = near;
    drop((engine, counter, sum));
    wire.set_down(false);
    soon(remote.when_synchronized()).await.expect("there is a connection");
    soon(last.when_synchronized()).await.expect("there is a connection");
    assert_eq!((remote.open_calls(), last.freshness()), (1, Freshness::Synchronized));
    drop(last);
    assert_eq!(remote.open_calls(), 0);
}

#[test]
fn a_value_is_given_out_also_when_the_runtime_that_would_look_into_it_is_gone() {
    let gone = tokio::runtime::Runtime::new().expect("a runtime");
    let near = gone.block_on(async {
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let near = Near::to(wire.clone(), stale);
        near.get("a").await;
        wire.set_down(true);
        soon(near.remote.connected().wait_for(|state| *state != Connected::Yes)).await.expect("it lives");
        near
    });
    drop(gone);
    near.counter.invalidate(&key("a"));
    let (sender, receiver) = mpsc::channel();
    // A thread of its own, as nothing else can give up a deadlock.
    std::thread::spawn(move || {
        let here = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        here.block_on(async move {
            let last = near.get("a").await;
            let known = last.when_synchronized().await;
            let read = ((*last).clone(), last.freshness(), known, near.remote.unconfirmed_values());
            // A test that has given up does not hear it.
            let _ = sender.send(read);
        })
    });
    let read = receiver.recv_timeout(PATIENCE).expect("it is read");
    assert_eq!(read, (Ok(0), Freshness::Unconfirmed, Err(CallError::Unreachable), 0), "nobody will say");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_as_many_headers_as_it_may_have_is_made_without_the_hash_of_what_is_known() {
    let world = World::new();
    let near = Near::to(Wire::to(&world.hub), |define| define);
    let full = (0..limits::HEADERS).fold(CallOptions::new(), |options, number| options.header(format!("header{number}"), "x"));
    let get: AsyncFunction<(String,), Remoted<i64>> =
        near.remote.with(full).define("full", &method("ICounter.Get:2")).serve_stale().function(&near.engine).expect("registered");
    for value in 1..4 {
        let before = get.computed(&near.engine, &key("a")).await.expect("read");
        assert_eq!(before.value().as_result(), Ok(&(value - 1)));
        set(&near.remote, "a", value).await;
        soon(before.invalidated()).await;
    }
}

/// As the one below, by threads: readers, changes, cuts and invalidations at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_read_change_and_cut_end_with_the_servers_values() {
    for _ in 0..10 {
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let near = Arc::new(Near::to(wire.clone(), stale));
        let server = far(&world);
        let readers = (0..3).map(|_| {
            let near = near.clone();
            tokio::spawn(async move {
                for _ in 0..300 {
                    near.sum().await;
                    near.get("c").await;
                }
            })
        });
        let (cut, asked) = (wire.clone(), near.clone());
        let cuts = tokio::spawn(async move {
            for round in 0..40 {
                cut.set_down(round % 2 == 0);
                asked.counter.invalidate(&key(["a", "b", "c"][round % 3]));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            cut.set_down(false);
        });
        let changes = async {
            for round in 0..300 {
                set(&server, ["a", "b", "c"][round % 3], (round % 7) as i64).await;
            }
        };
        let (readers, cuts, ()) = tokio::join!(futures_util::future::join_all(readers), cuts, changes);
        assert!(readers.into_iter().all(|reader| reader.is_ok()) && cuts.is_ok());
        let expected = value(&server, "a").await + value(&server, "b").await;
        let read = near.remote.synchronized(PATIENCE, || near.sum()).await;
        if read != Ok(expected) {
            // The last change may be on its way.
            near.becomes(expected).await;
        }
        near.engine.assert_consistent();
        // The last ends may come after the last reads, and what was replaced waits to be collected.
        soon(async {
            while near.remote.open_calls() != 3 {
                near.sum().await;
                near.get("c").await;
                near.engine.collect();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(near.remote.unconfirmed_values(), 0);
    }
}

async fn value(far: &Remote, name: &str) -> i64 {
    far.call(&method("ICounter.Get:2"), (name,)).await.expect("a value")
}

/// Another server, and a client of it.
async fn restarted(before: &Remote, same: bool) -> (World, Remote) {
    let world = World::new();
    let server = far(&world);
    for name in ["a", "b"] {
        let kept = if same { value(before, name).await } else { 0 };
        set(&server, name, kept).await;
    }
    (world, server)
}

/// Cuts, restarts, changes, and whatever a user does to its graph, in any order.
#[tokio::test(start_paused = true)]
async fn whatever_happens_every_value_is_the_servers_in_the_end() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut server = far(&world);
        let wire = Wire::to(&world.hub);
        let near = Near::to(wire.clone(), stale);
        for round in 1..80 {
            let name = *random.choice(&["a", "b"]).expect("one");
            match random.u8(0..9) {
                0 => wire.cut(),
                1 => wire.set_down(random.bool()),
                // Started anew, with other values or the same.
                2 => {
                    (world, server) = restarted(&server, random.bool()).await;
                    wire.lead_to(&world.hub);
                    wire.cut();
                }
                3 | 4 => set(&server, name, round % 3).await,
                5 => _ = near.counter.invalidate(&key(name)),
                6 => tokio::time::sleep(Duration::from_millis(random.u64(0..150))).await,
                7 => {
                    // Given up in the middle, maybe.
                    let _ = tokio::time::timeout(Duration::from_millis(random.u64(0..3)), near.sum()).await;
                }
                _ => _ = near.engine.collect(),
            }
        }
        wire.set_down(false);
        wire.cut();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let read = near.remote.synchronized(Duration::from_secs(60), || near.sum()).await.expect("there is a connection");
        let mut expected = 0;
        for name in ["a", "b"] {
            expected += value(&server, name).await;
        }
        assert_eq!(read, expected, "seed {seed}");
        near.engine.assert_consistent();
        near.calls_become(2).await;
        assert_eq!(near.remote.unconfirmed_values(), 0, "seed {seed}");
        set(&server, "a", 100).await;
        set(&server, "b", 100).await;
        near.becomes(200).await;
    }
}
