//! Generations and their end, streams of changes, waits for a value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use wellspring::{Changes, Computed, Cx, Engine, Fault, ManualClock, Watch, WatchError};
use wellspring_tests::waking::{Counting, block_on, poll_once};

use super::{halved, next, random, within};

#[test]
fn what_watches_can_be_sent_where_its_work_is_done() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    sent::<Changes<String>>();
    shared::<Watch>();
    shared::<WatchError>();
    shared::<wellspring::Invalidated>();
    shared::<Computed<String>>();
}

#[test]
fn a_generation_ends_at_its_first_mark_and_is_consistent_again_once_verified() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let above = {
        let half = half.clone();
        engine.function("above", move |cx: &Cx, key: &u8| half.get(cx, key).expect("a value") + 10).expect("a free name")
    };
    let computed = above.computed(&engine, &0).expect("a value");
    let (count, waker) = Counting::pair();
    let mut end = computed.invalidated();
    assert!(poll_once(&mut end, &waker).is_pending());
    source.set(&0, 1);
    assert_eq!(count.count(), 1, "a maybe mark is a mark");
    assert!(poll_once(&mut end, &waker).is_ready() && !computed.is_consistent());
    assert_eq!(above.get(&engine, &0), Ok(10));
    assert!(computed.is_consistent(), "verified: the half is still 0");
    engine.assert_consistent();
}

#[test]
fn a_commit_on_a_node_that_is_marked_already_owes_nobody_a_second_notice() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let mut changes = half.changes(&0);
    let (count, waker) = Counting::pair();
    let poll = |changes: &mut Changes<u64>| match poll_once(&mut StreamExt::next(changes), &waker) {
        Poll::Ready(item) => Some(*item.expect("endless").expect("a value").value()),
        Poll::Pending => None,
    };
    assert_eq!((poll(&mut changes), poll(&mut changes)), (Some(0), None));
    for value in 1..=4 {
        source.set(&0, value);
    }
    assert_eq!(count.count(), 1);
    assert_eq!((poll(&mut changes), poll(&mut changes)), (Some(2), None), "what came in between is skipped");
    source.set(&0, 5);
    assert_eq!((count.count(), poll(&mut changes)), (2, None), "5 / 2 is no news, and was verified: armed again");
    source.set(&0, 6);
    assert_eq!((count.count(), poll(&mut changes)), (3, Some(3)));
    engine.assert_consistent();
}

#[test]
fn a_hundred_thousand_watchers_of_one_node_come_and_go_in_linear_time() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let computed = half.computed(&engine, &0).expect("a value");
    let (count, waker) = Counting::pair();
    let mut ends: Vec<_> = (0..100_000).map(|_| computed.invalidated()).collect();
    assert!(ends.iter_mut().all(|end| poll_once(end, &waker).is_pending()));
    // From the front and one by one: what a list that is searched is slowest at.
    let rest = ends.split_off(50_000);
    ends.into_iter().for_each(drop);
    source.set(&0, 2);
    assert_eq!(count.count(), 50_000);
    drop(rest);
    engine.assert_consistent();
}

/// Rounds of one commit beside one poll, at a distance that changes.
#[test]
fn a_commit_between_two_reads_of_a_stream_is_never_lost() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let (go, gone) = channel::<u64>();
    let writer = {
        let source = source.clone();
        thread::spawn(move || {
            let mut seed = 0x5eed;
            while let Ok(round) = gone.recv() {
                for _ in 0..random(&mut seed) % 400 {
                    std::hint::spin_loop();
                }
                source.set(&0, round * 2);
            }
        })
    };
    let mut changes = half.changes(&0);
    within(async move {
        assert_eq!(*changes.next().await.expect("endless").expect("a value").value(), 0);
        for round in 1..=20_000 {
            go.send(round).expect("the writer waits");
            let item = changes.next().await.expect("endless").expect("a value");
            assert_eq!(*item.value(), round, "one item for one change");
        }
    });
    writer.join().expect("no panic");
    engine.assert_consistent();
}

#[test]
fn a_stream_yields_a_fault_and_goes_on_after_a_wait_that_grows() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let (source, fails) = (engine.source("source", |_: &u8| 1_u64).expect("a free name"), Arc::new(AtomicU64::new(0)));
    let function = {
        let (source, fails) = (source.clone(), fails.clone());
        let body = move |cx: &Cx, key: &u8| {
            assert!(fails.load(SeqCst) == 0, "told to fail");
            source.get(cx, key).expect("a value")
        };
        engine.function("function", body).expect("a free name")
    };
    let mut changes = function.changes(&0);
    let (count, waker) = Counting::pair();
    let mut poll = || poll_once(&mut StreamExt::next(&mut changes), &waker).map(|item| item.expect("endless").map(|item| *item.value()));
    assert_eq!((poll(), poll()), (Poll::Ready(Ok(1)), Poll::Pending));
    fails.store(1, SeqCst);
    source.set(&0, 2);
    let is_fault = |item: Poll<Result<u64, Fault>>| matches!(item, Poll::Ready(Err(Fault::Panicked { .. })));
    assert!(is_fault(poll()) && poll().is_pending());
    clock.advance(Duration::from_millis(999));
    assert!(poll().is_pending());
    clock.advance(Duration::from_millis(1));
    assert!(count.count() == 2 && is_fault(poll()) && poll().is_pending());
    clock.advance(Duration::from_millis(1_414));
    assert!(poll().is_pending(), "longer by the square root of two");
    fails.store(0, SeqCst);
    clock.advance(Duration::from_millis(1));
    assert_eq!((poll(), poll()), (Poll::Ready(Ok(2)), Poll::Pending));
    // A success: the next wait is a second again.
    fails.store(1, SeqCst);
    function.invalidate(&0);
    assert!(is_fault(poll()) && poll().is_pending());
    fails.store(0, SeqCst);
    clock.advance(Duration::from_secs(1));
    assert_eq!(poll(), Poll::Ready(Ok(2)), "the value it had before the fault is news after it");
    engine.assert_consistent();
}

#[test]
fn a_stream_ends_with_its_engine() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let mut changes = half.changes(&0);
    assert!(matches!(block_on(changes.next()), Some(Ok(_))));
    drop(engine);
    source.set(&0, 8);
    assert_eq!(block_on(changes.next()).map(|item| item.map(|item| *item.value())), Some(Err(Fault::Gone)));
    assert!(block_on(changes.next()).is_none());
}

#[test]
fn a_wait_for_a_value_ends_when_it_has_come() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let first = half.computed(&engine, &0).expect("a value");
    assert_eq!(block_on(first.when(|_| true)).map(|found| *found.value()), Ok(0), "the current one counts");
    let (tell, told) = channel();
    let waiting = {
        let found = first.when(move |&value| {
            let _ = tell.send(value);
            value >= 3
        });
        thread::spawn(move || block_on(found))
    };
    for value in [0, 1, 2] {
        assert_eq!(next(&told), value);
        source.set(&0, (value + 1) * 2);
    }
    let found = waiting.join().expect("no panic").expect("a value");
    assert!(*found.value() == 3 && found.is_consistent());
    let failing = engine.function("failing", |_: &Cx, _: &u8| -> u64 { panic!("told to fail") }).expect("a free name");
    assert!(matches!(block_on(failing.changes(&0).next()), Some(Err(Fault::Panicked { .. }))));
    engine.assert_consistent();
}
