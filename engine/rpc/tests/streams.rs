//! Streams between a client and a server of ours.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use support::PATIENCE;
use support::pipe::Wire;
use support::services::World;
use wellspring_rpc::wire::{Format, MethodId};
use wellspring_rpc::{CallError, Failure, Remote, RpcStream, Service};

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

fn remote(wire: &Wire, format: Format) -> Remote {
    Remote::builder(wire.clone()).format(format).backoff(Duration::from_millis(100), Duration::from_millis(100)).connect()
}

async fn count(remote: &Remote, count: i64, period: u32, advance: u32) -> RpcStream<i64> {
    remote.call(&method("IDemo.Count:4"), (count, period, advance)).await.expect("a stream")
}

async fn over(world: &World, remote: &Remote) {
    let over = async {
        while world.hub.open_streams() + remote.open_streams() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.expect("streams are left");
}

#[tokio::test(start_paused = true)]
async fn every_item_comes_in_order_whatever_the_window_is() {
    for format in Format::ALL {
        let world = World::new();
        let remote = remote(&Wire::to(&world.hub), format);
        for (period, advance) in [(0, 0), (1, 1), (1, 2), (2, 4), (30, 61), (500, 1000), (1000, 10)] {
            let items: Vec<_> = count(&remote, 300, period, advance).await.collect().await;
            let expected: Vec<Result<i64, Failure>> = (0..300).map(|number| Ok(number * 10)).collect();
            assert_eq!(items, expected, "{format} {period} {advance}");
        }
        over(&world, &remote).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_source_is_the_last_item() {
    let world = World::new();
    let remote = remote(&Wire::to(&world.hub), Format::Json5np);
    let stream: RpcStream<String> = remote.call(&method("IDemo.CountThenFail:2"), (2,)).await.expect("a stream");
    let items: Vec<_> = stream.collect().await;
    assert_eq!(items, [Ok("item-0".to_owned()), Ok("item-1".to_owned()), Err(Failure::new("source failed"))]);
    over(&world, &remote).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_up_in_an_argument() {
    for format in Format::ALL {
        let world = World::new();
        let remote = remote(&Wire::to(&world.hub), format);
        let numbers = RpcStream::new(stream::iter(1..=1000_i64));
        assert_eq!(remote.call(&method("ISum.Sum:2"), (numbers,)).await, Ok(500_500));
        let failing = RpcStream::try_new(stream::iter([Ok(1_i64), Err(Failure::new("no more"))]));
        assert_eq!(remote.call::<i64>(&method("ISum.Sum:2"), (failing,)).await, Err(CallError::Failed(Failure::new("no more"))));
        over(&world, &remote).await;
    }
}

/// What a source was asked for, beyond what was read.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_slows_the_source_and_one_that_leaves_ends_it() {
    let made = Arc::new(AtomicU64::new(0));
    let counted = made.clone();
    let endless = Service::new("IEndless").method("Numbers:1", move |()| {
        let counted = counted.clone();
        async move { Ok::<_, Failure>(RpcStream::new(stream::repeat_with(move || counted.fetch_add(1, Ordering::SeqCst)))) }
    });
    let world = World::with(|builder| builder.service(endless).expect("a service"));
    let remote = remote(&Wire::to(&world.hub), Format::Msgpack6c);
    let mut numbers: RpcStream<u64> = remote.call(&method("IEndless.Numbers:1"), ()).await.expect("a stream");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(made.load(Ordering::SeqCst), 0, "nobody reads");
    for expected in 0..200 {
        assert_eq!(numbers.next().await, Some(Ok(expected)));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(made.load(Ordering::SeqCst) <= expected + 1 + 30 + 61, "{} were made", made.load(Ordering::SeqCst));
    }
    drop(numbers);
    over(&world, &remote).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_through_cuts_both_ways() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let remote = remote(&wire, Format::Msgpack6);
        let mut down = count(&remote, 300, 5, 9).await;
        let up = RpcStream::new(stream::iter(1..=300_i64).then(|number| async move {
            tokio::time::sleep(Duration::from_millis(7)).await;
            number
        }));
        let (summing, sum) = (remote.clone(), method("ISum.Sum:2"));
        let summing = tokio::spawn(async move { summing.call::<i64>(&sum, (up.window(3, 7),)).await });
        for expected in 0..300 {
            let next = tokio::time::timeout(PATIENCE, down.next()).await.expect("it stands still");
            assert_eq!(next, Some(Ok(expected * 10)), "seed {seed}");
            match random.u8(0..12) {
                0 => wire.cut(),
                1 => tokio::time::sleep(Duration::from_millis(random.u64(0..200))).await,
                _ => {}
            }
        }
        assert_eq!(down.next().await, None);
        let sum = tokio::time::timeout(PATIENCE, summing).await.expect("it stands still").expect("no panic");
        assert_eq!(sum, Ok(45_150), "seed {seed}");
        drop(down);
        over(&world, &remote).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_made_not_to_reconnect_fails_at_the_cut() {
    let once = Service::new("IOnce")
        .method("Numbers:1", |()| async { Ok::<_, Failure>(RpcStream::new(stream::iter(0..1000_u64)).without_reconnection()) });
    let world = World::with(|builder| builder.service(once).expect("a service"));
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire, Format::Msgpack6c);
    let mut numbers: RpcStream<u64> = remote.call(&method("IOnce.Numbers:1"), ()).await.expect("a stream");
    assert_eq!(numbers.next().await, Some(Ok(0)));
    wire.cut();
    let rest: Vec<_> = tokio::time::timeout(PATIENCE, numbers.collect()).await.expect("it ends");
    assert!(rest.last().is_some_and(Result::is_err), "{rest:?}");
    over(&world, &remote).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_started_anew_has_none_of_the_streams() {
    let (first, second) = (World::new(), World::new());
    let wire = Wire::to(&first.hub);
    let remote = remote(&wire, Format::Msgpack6c);
    let mut numbers = count(&remote, 1_000, 0, 0).await;
    assert_eq!(numbers.next().await, Some(Ok(0)));
    wire.lead_to(&second.hub);
    wire.cut();
    let rest: Vec<_> = tokio::time::timeout(PATIENCE, numbers.collect()).await.expect("it ends");
    assert!(rest.last().is_some_and(Result::is_err), "{rest:?}");
}

/// That what the reader says is lost is found out by silence only: the other end would keep the stream for minutes.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_left_during_a_cut_or_just_before_is_gone_at_the_next_connection() {
    for format in Format::ALL {
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let remote = remote(&wire, format);
        let [mut before, mut during] = [count(&remote, 1_000, 1, 2).await, count(&remote, 1_000, 1, 2).await];
        assert_eq!((before.next().await, during.next().await), (Some(Ok(0)), Some(Ok(0))));
        assert_eq!(world.hub.open_streams(), 2);
        drop(before);
        // In the same breath: it is not on its way yet.
        wire.set_down(true);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.hub.open_streams(), 2);
        drop(during);
        wire.set_down(false);
        let began = tokio::time::Instant::now();
        over(&world, &remote).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{format}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_ever_reads_is_forgotten() {
    let world = World::new();
    let remote = remote(&Wire::to(&world.hub), Format::Msgpack6c);
    let unread = count(&remote, 10, 0, 0).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.hub.open_streams(), 1, "whoever has it says so with each sign of life");
    drop(unread);
    over(&world, &remote).await;
    assert!(serde_json::to_string(&RpcStream::new(stream::iter([1]))).is_err(), "a stream goes nowhere without a connection");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_streams_is_read_like_any_other() {
    let nested = Service::new("INested").method("Rows:1", |()| async {
        let row = |number: u64| RpcStream::new(stream::iter((0..number).map(move |item| number * 100 + item)));
        Ok::<_, Failure>(RpcStream::new(stream::iter((1..5).map(row))))
    });
    let world = World::with(|builder| builder.service(nested).expect("a service"));
    for format in Format::ALL {
        let remote = remote(&Wire::to(&world.hub), format);
        let mut rows: RpcStream<RpcStream<u64>> = remote.call(&method("INested.Rows:1"), ()).await.expect("a stream");
        let mut number = 0;
        while let Some(row) = rows.next().await {
            number += 1;
            let row: Vec<_> = row.expect("a row").collect().await;
            assert_eq!(row, (0..number).map(|item| Ok(number * 100 + item)).collect::<Vec<_>>());
        }
        assert_eq!(number, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_a_failure_of_its_stream() {
    let panics = Service::new("IPanics").method("Numbers:1", |()| async {
        Ok::<_, Failure>(RpcStream::new(stream::iter(0..10_u64).map(|number| {
            assert!(number < 3, "on purpose");
            number
        })))
    });
    let world = World::with(|builder| builder.service(panics).expect("a service"));
    let remote = remote(&Wire::to(&world.hub), Format::Json5);
    let numbers: RpcStream<u64> = remote.call(&method("IPanics.Numbers:1"), ()).await.expect("a stream");
    let items: Vec<_> = tokio::time::timeout(PATIENCE, numbers.collect()).await.expect("it stands still");
    assert_eq!(items[..3], [Ok(0), Ok(1), Ok(2)]);
    assert!(matches!(&items[3..], [Err(failure)] if !failure.message().contains("on purpose")), "{items:?}");
    over(&world, &remote).await;
}

#[tokio::test(start_paused = true)]
async fn items_of_a_megabyte_are_sent_as_there_is_room_for_them() {
    let large = Service::new("ILarge").method("Texts:1", |()| async {
        Ok::<_, Failure>(RpcStream::new(stream::iter(0..150_u8).map(|number| char::from(b'a' + number % 26).to_string().repeat(1_300_000))))
    });
    let world = World::with(|builder| builder.service(large).expect("a service"));
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire, Format::Msgpack6c);
    let mut texts: RpcStream<String> = remote.call(&method("ILarge.Texts:1"), ()).await.expect("a stream");
    for number in 0..150_u8 {
        let text = texts.next().await.expect("an item").expect("no failure");
        assert_eq!((text.len(), text.as_bytes()[0]), (1_300_000, b'a' + number % 26));
    }
    assert_eq!((texts.next().await, wire.connections()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_through_cuts_is_not_sent_more_than_it_can_take() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire, Format::Msgpack6c);
    let mut numbers = count(&remote, 1_000, 0, 0).await;
    assert_eq!(numbers.next().await, Some(Ok(0)));
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.cut();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rest: Vec<_> = tokio::time::timeout(PATIENCE, numbers.collect()).await.expect("it stands still");
    assert_eq!(rest, (1..1_000).map(|number| Ok(number * 10)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_former_process_does_no_harm_to_the_next() {
    let (first, second) = (World::new(), World::new());
    let wire = Wire::to(&first.hub);
    let remote = remote(&wire, Format::Msgpack6c);
    let (mut old, unread) = (count(&remote, 1_000, 0, 0).await, count(&remote, 10, 0, 0).await);
    assert_eq!(old.next().await, Some(Ok(0)));
    wire.lead_to(&second.hub);
    wire.cut();
    // By the same numbers.
    let (mut new, mut other) = (count(&remote, 200, 0, 0).await, count(&remote, 10, 0, 0).await);
    assert_eq!((new.next().await, other.next().await), (Some(Ok(0)), Some(Ok(0))));
    let rest: Vec<_> = unread.collect().await;
    assert!(matches!(rest.as_slice(), [Err(_)]), "{rest:?}");
    drop(old);
    let rest: Vec<_> = tokio::time::timeout(PATIENCE, new.collect()).await.expect("it stands still");
    assert_eq!(rest.len(), 199);
    let rest: Vec<_> = tokio::time::timeout(PATIENCE, other.collect()).await.expect("it stands still");
    assert_eq!(rest.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_a_call_that_waited_for_another_process_is_read_there() {
    let (first, second) = (World::new(), World::new());
    let wire = Wire::to(&first.hub);
    let remote = remote(&wire, Format::Msgpack6c);
    remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("connected");
    wire.set_down(true);
    wire.lead_to(&second.hub);
    let sum = method("ISum.Sum:2");
    let call = remote.call(&sum, (RpcStream::new(stream::iter(1..=10_i64)),));
    let back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.set_down(false);
    };
    assert_eq!(tokio::join!(call, back).0, Ok(55));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_message_can_carry_fails_also_without_a_connection() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    let remote = remote(&wire, Format::Msgpack6c);
    let call = remote.call::<()>(&method("IDemo.EchoAny:2"), ("x".repeat(17 << 20),)).await;
    assert!(matches!(call, Err(CallError::Unsendable(_))), "{call:?}");
    // A hundred megabytes of calls that wait are sent as there is room.
    let text = "x".repeat(1 << 20);
    let echo = method("IDemo.EchoAny:2");
    let calls = futures_util::future::join_all((0..100).map(|_| remote.call::<String>(&echo, (&text,))));
    let back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.set_down(false);
    };
    let (results, ()) = tokio::join!(calls, back);
    assert!(results.into_iter().all(|result| result.as_ref() == Ok(&text)));
    assert_eq!(wire.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_real_time_stream_gets_the_newest_and_none_out_of_order() {
    for is_cut in [false, true] {
        let (feed, mut ticks) = tokio::sync::mpsc::unbounded_channel::<i64>();
        let taken = Arc::<AtomicU64>::default();
        let counted = taken.clone();
        let items = stream::poll_fn(move |cx| {
            let tick = ticks.poll_recv(cx);
            counted.fetch_add(u64::from(matches!(tick, Poll::Ready(Some(_)))), Ordering::SeqCst);
            tick
        });
        let items = std::sync::Mutex::new(Some(items));
        let world = World::with(|hub| {
            let service = Service::new("ITicks").method("Ticks:1", move |()| {
                let items = items.lock().expect("whole").take();
                async move { Ok::<_, Failure>(RpcStream::new(items.expect("asked once")).window(1, 3).real_time()) }
            });
            hub.service(service).expect("a service")
        });
        let wire = Wire::to(&world.hub);
        let remote = remote(&wire, Format::Msgpack6c);
        let mut stream: RpcStream<i64> = remote.call(&method("ITicks.Ticks:1"), ()).await.expect("a stream");
        feed.send(0).expect("open");
        assert_eq!(stream.next().await, Some(Ok(0)));
        if is_cut {
            wire.set_down(true);
        }
        for tick in 1..=1_000 {
            feed.send(tick).expect("open");
        }
        let drained = async {
            while taken.load(Ordering::SeqCst) < 1_001 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, drained).await.expect("nobody slows the source");
        wire.set_down(false);
        drop(feed);
        let rest: Vec<i64> = stream.map(|item| item.expect("a number")).collect().await;
        assert_eq!(rest.last(), Some(&1_000), "{rest:?}");
        assert!(rest.len() < 20 && rest.is_sorted(), "{rest:?}");
        over(&world, &remote).await;
    }
}
