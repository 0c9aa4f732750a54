//! Callbacks: on whose threads, how often, with what, and how they end.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use wellspring::{Cx, Engine, Fault, ManualClock, Source, Spawner, Watch, WatchError};
use wellspring_tests::waking::block_on;

use super::{halved, is_closed, next, random, watch, within};

#[test]
fn a_callback_gets_the_current_value_and_then_each_change_on_a_thread_of_the_engines() {
    let engine = Engine::new();
    let (source, half, runs) = halved(&engine);
    let (tell, told) = channel::<(u64, ThreadId)>();
    let call = move |news: Result<&u64, &Fault>| tell.send((*news.expect("a value"), thread::current().id())).expect("open");
    let watch = half.watch(&engine, &0, call).expect("this engine's");
    for value in 0..50 {
        source.set(&0, value * 2);
        let (seen, thread) = next(&told);
        assert_eq!(seen, value, "I34: one call a commit");
        assert_ne!(thread, thread::current().id(), "never the committing thread");
        // Recomputed and equal: no news. Settled here, so that the next commit cannot hide it.
        source.set(&0, value * 2 + 1);
        engine.assert_consistent();
    }
    assert_eq!(runs.load(SeqCst), 100, "the first read, and one for each set but the first, which was equal");
    watch.unwatch();
    assert!(is_closed(&told), "nothing more, and the callback is gone");
    engine.assert_consistent();
}

#[test]
fn a_new_watcher_is_told_what_was_set_before_it_came() {
    let engine = Engine::new();
    let (source, half, runs) = halved(&engine);
    let (_first, firsts) = watch(&engine, &half, 0);
    for round in 1..500 {
        source.set(&0, round * 2);
        let (_watch, told) = watch(&engine, &half, 0);
        assert_eq!(next(&told), Ok(round), "I2");
    }
    let watches: Vec<_> = (0..50).map(|_| watch(&engine, &half, 0)).collect();
    assert!(watches.iter().all(|(_, told)| next(told) == Ok(499)));
    engine.assert_consistent();
    let before = runs.load(SeqCst);
    source.set(&0, 2_000);
    assert!(watches.iter().all(|(_, told)| next(told) == Ok(1_000)));
    assert_eq!(runs.load(SeqCst), before + 1, "one read for all");
    assert!(firsts.into_iter().any(|news| news == Ok(1_000)));
    engine.assert_consistent();
}

/// Two writers that only add, callbacks and a stream that watch the sum.
#[test]
fn watchers_never_see_a_sum_go_back_and_end_at_the_last_one() {
    for seed in 1..=4_u64 {
        let engine = Engine::new();
        let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
        let sum = {
            let source = source.clone();
            let body = move |cx: &Cx, _: &u8| (0..8).map(|key| source.get(cx, &key).expect("a value")).sum::<u64>();
            engine.define("sum").cut_off_eq().function(body).expect("a free name")
        };
        let watches: Vec<_> = (0..3).map(|_| watch(&engine, &sum, 0)).collect();
        let mut changes = sum.changes(&0);
        let rounds = 2_000;
        let writers: Vec<_> = (0..2_u8)
            .map(|writer| {
                let source = source.clone();
                let mut seed = seed * 7 + u64::from(writer);
                thread::spawn(move || {
                    let mut mine = [0_u64; 4];
                    for _ in 0..rounds {
                        let at = random(&mut seed) as usize % 4;
                        mine[at] += 1 + random(&mut seed) % 3;
                        source.set(&(writer * 4 + at as u8), mine[at]);
                    }
                    mine.iter().sum::<u64>()
                })
            })
            .collect();
        let oracle: u64 = writers.into_iter().map(|writer| writer.join().expect("no panic")).sum();
        for (watch, told) in watches {
            let (mut last, mut calls) = (next(&told).expect("a value"), 1);
            while last != oracle {
                let news = next(&told).expect("a value");
                assert!(news > last, "I35: {news} after {last}");
                (last, calls) = (news, calls + 1);
            }
            assert!(calls <= 2 * rounds + 1, "I34: at most one for each commit");
            drop(watch);
            assert!(is_closed(&told), "I35: nothing after the last value");
        }
        within(async move {
            let mut last = 0;
            while last != oracle {
                let item = changes.next().await.expect("endless").expect("a value");
                assert!(*item.value() > last || last == 0, "I35");
                last = *item.value();
            }
        });
        engine.assert_consistent();
    }
}

#[test]
fn no_call_begins_with_what_changed_after_the_watch_was_ended() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let (_other, others) = watch(&engine, &half, 0);
    assert_eq!(next(&others), Ok(0));
    let mut seed = 0x1dea;
    for round in 0..3_000_u64 {
        let (seen, newest) = (Arc::new(AtomicU64::new(0)), round * 2 + 2);
        let call = {
            let seen = seen.clone();
            move |news: Result<&u64, &Fault>| {
                seen.fetch_max(*news.expect("a value"), SeqCst);
            }
        };
        let watch = half.watch(&engine, &0, call).expect("this engine's");
        // One change whose call races with the end, one that is later than it.
        source.set(&0, (newest - 1) * 2);
        for _ in 0..random(&mut seed) % 2_000 {
            std::hint::spin_loop();
        }
        watch.unwatch();
        source.set(&0, newest * 2);
        while next(&others) != Ok(newest) {}
        assert!(seen.load(SeqCst) < newest, "I36: called with {newest} after the watch was ended");
    }
    engine.assert_consistent();
}

#[test]
fn a_call_that_is_owed_when_its_watch_ends_does_not_begin() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let (entered, at_work) = channel();
    let (release, released) = channel::<()>();
    let call = move |news: Result<&u64, &Fault>| {
        entered.send(*news.expect("a value")).expect("open");
        let _ = released.recv();
    };
    let slow = half.watch(&engine, &0, call).expect("this engine's");
    assert_eq!(next(&at_work), 0);
    let (_other, told) = watch(&engine, &half, 0);
    source.set(&0, 2);
    while next(&told) != Ok(1) {}
    slow.unwatch();
    release.send(()).expect("under way until now");
    assert!(is_closed(&at_work), "I36");
    engine.assert_consistent();
}

#[test]
fn a_slow_callback_gets_the_newest_value_only_and_delays_no_other() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let (entered, at_work) = channel();
    let (release, released) = channel::<()>();
    let call = move |news: Result<&u64, &Fault>| {
        entered.send(*news.expect("a value")).expect("open");
        let _ = released.recv();
    };
    let slow = half.watch(&engine, &0, call).expect("this engine's");
    assert_eq!(next(&at_work), 0);
    let (_quick, told) = watch(&engine, &half, 0);
    for value in 1..=100 {
        source.set(&0, value * 2);
        while next(&told) != Ok(value) {}
    }
    release.send(()).expect("stuck until now");
    assert_eq!(next(&at_work), 100, "I37: latest only");
    drop(slow);
    drop(release);
    assert!(is_closed(&at_work));
    engine.assert_consistent();
}

thread_local! {
    /// Tells of its thread's end.
    static LEAVING: RefCell<Option<Leaving>> = const { RefCell::new(None) };
}

struct Leaving(Sender<ThreadId>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

fn tell_of_this_threads_end(to: &Sender<ThreadId>) {
    LEAVING.with(|leaving| *leaving.borrow_mut() = Some(Leaving(to.clone())));
}

#[test]
fn threads_come_for_callbacks_that_are_stuck_and_go_when_there_is_nothing_to_do() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let (entered, at_work) = channel();
    let (leave, left) = channel();
    let gate = Arc::new(std::sync::RwLock::new(()));
    let shut = gate.write().expect("unpoisoned");
    let stuck: Vec<_> = (0..12)
        .map(|_| {
            let (entered, leave, gate) = (entered.clone(), leave.clone(), gate.clone());
            let call = move |_: Result<&u64, &Fault>| {
                tell_of_this_threads_end(&leave);
                entered.send(thread::current().id()).expect("open");
                drop(gate.read());
            };
            half.watch(&engine, &0, call).expect("this engine's")
        })
        .collect();
    let threads: std::collections::HashSet<_> = (0..12).map(|_| next(&at_work)).collect();
    assert_eq!(threads.len(), 12, "a thread for each that is stuck");
    let others: Vec<_> = (0..100).map(|_| watch(&engine, &half, 0)).collect();
    source.set(&0, 6);
    for (_, told) in &others {
        while next(told) != Ok(3) {}
    }
    drop(shut);
    // The twelve are called once more, with 3; then at most two threads stay.
    let ends: Vec<_> = (0..10).map(|_| next(&left)).collect();
    assert!(ends.iter().all(|end| *end != thread::current().id()));
    drop((stuck, others));
    engine.assert_consistent();
}

#[test]
fn a_callback_that_panics_harms_nobody_and_is_called_again() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let (tell, calls) = channel();
    let call = move |news: Result<&u64, &Fault>| {
        tell.send(*news.expect("a value")).expect("open");
        std::panic::resume_unwind(Box::new("a callback fails"));
    };
    let _bad = half.watch(&engine, &0, call).expect("this engine's");
    let (_good, told) = watch(&engine, &half, 0);
    for value in 0..5 {
        source.set(&0, value * 2);
        while next(&told) != Ok(value) {}
        while next(&calls) != value {}
    }
    engine.assert_consistent();
}

#[test]
fn a_callback_may_end_its_own_watch_and_watch_and_commit_itself() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let place: Arc<Mutex<Option<Watch>>> = Arc::default();
    let (tell, told) = channel();
    let call = {
        let (place, source, engine, half) = (place.clone(), source.clone(), engine.clone(), half.clone());
        move |news: Result<&u64, &Fault>| {
            if *news.expect("a value") == 1 {
                drop(place.lock().expect("unpoisoned").take().expect("a watch"));
                let (tell, source) = (tell.clone(), source.clone());
                source.set(&0, 4);
                let again = move |news: Result<&u64, &Fault>| tell.send(*news.expect("a value")).expect("open");
                *place.lock().expect("unpoisoned") = Some(half.watch(&engine, &0, again).expect("this engine's"));
            }
        }
    };
    *place.lock().expect("unpoisoned") = Some(half.watch(&engine, &0, call).expect("this engine's"));
    source.set(&0, 2);
    assert_eq!(next(&told), 2, "the first was called with 1 and made room for the second");
    drop(place.lock().expect("unpoisoned").take());
    engine.assert_consistent();
}

#[test]
fn an_engine_may_be_dropped_inside_a_callback_and_its_threads_end() {
    let engine = Engine::new();
    let (source, half, _) = halved(&engine);
    let (leave, left) = channel();
    let (tell, told) = channel();
    let mut last = Some(engine.clone());
    let call = move |news: Result<&u64, &Fault>| {
        tell_of_this_threads_end(&leave);
        if news == Ok(&1) {
            drop(last.take());
            tell.send(thread::current().id()).expect("open");
        }
    };
    let watch = half.watch(&engine, &0, call).expect("this engine's");
    let thread = {
        drop(engine);
        source.set(&0, 2);
        next(&told)
    };
    while next(&left) != thread {}
    source.set(&0, 4);
    drop(watch);
    assert!(is_closed(&told), "no call after the engine's end, and the callback is gone");
}

#[test]
fn a_watch_of_a_removed_key_finds_its_new_node() {
    let engine = Engine::new();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let function = engine.function("function", move |_: &Cx, _: &u8| counter.fetch_add(1, SeqCst)).expect("a free name");
    let (_watch, told) = watch(&engine, &function, 1);
    assert_eq!(next(&told), Ok(0));
    for round in 0..20 {
        assert!(function.remove(&1));
        assert_eq!(next(&told), Ok(round * 2 + 1));
        function.invalidate(&1);
        assert_eq!(next(&told), Ok(round * 2 + 2), "and is armed there");
    }
    engine.assert_consistent();
}

#[test]
fn a_callback_is_told_of_a_fault_once_and_the_read_is_tried_again() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let runs = Arc::new(AtomicU64::new(0));
    let body = {
        let runs = runs.clone();
        move |_: &Cx, _: &u8| match runs.fetch_add(1, SeqCst) {
            1 | 2 => std::panic::resume_unwind(Box::new("told to fail".to_string())),
            run => run,
        }
    };
    let function = engine.function("function", body).expect("a free name");
    let (_watch, told) = watch(&engine, &function, 0);
    assert_eq!(next(&told), Ok(0));
    function.invalidate(&0);
    assert!(matches!(next(&told), Err(Fault::Panicked { .. })));
    clock.advance(Duration::from_secs(1));
    engine.assert_consistent();
    assert_eq!(runs.load(SeqCst), 3, "the same fault again");
    clock.advance(Duration::from_millis(1_415));
    assert_eq!(next(&told), Ok(3), "one fault, one call");
    engine.assert_consistent();
}

/// Each future on a thread of its own.
struct Threads;

impl Spawner for Threads {
    fn spawn(&self, future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
        thread::spawn(move || block_on(future));
    }
}

#[test]
fn an_asynchronous_value_is_watched_on_the_spawner_or_not_at_all() {
    let body = |source: Source<u8, u64>| {
        move |cx: Cx, key: u8| {
            let source = source.clone();
            async move { source.get(&cx, &key).expect("a value") + 1 }
        }
    };
    let engine = Engine::new();
    let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
    let plus = engine.async_function("plus", body(source)).expect("a free name");
    let refused = plus.watch(&engine, &0, |_| {});
    assert_eq!(refused.err(), Some(WatchError::NeedsSpawner { function: "plus".into() }));

    let engine = Engine::builder().spawner(Arc::new(Threads)).build();
    let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
    let plus = engine.async_function("plus", body(source.clone())).expect("a free name");
    let (tell, told) = channel();
    let call = move |news: Result<&u64, &Fault>| tell.send(*news.expect("a value")).expect("open");
    let watch = plus.watch(&engine, &0, call).expect("this engine's");
    for value in 0..200 {
        source.set(&0, value);
        while next(&told) != value + 1 {}
    }
    assert_eq!(plus.watch(&Engine::new(), &0, |_| {}).err(), Some(WatchError::ForeignEngine));
    drop(watch);
    assert!(is_closed(&told));
    engine.assert_consistent();
}

/// Found by a reader of the code: a value that no capacity keeps is over as soon as it is read, and its watcher read it again at once, for ever.
#[test]
fn a_watched_value_that_cannot_be_kept_is_told_and_asked_for_again_after_a_while() {
    let clock = std::sync::Arc::new(wellspring::ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = runs.clone();
    let text = engine
        .define("text")
        .capacity(wellspring::Capacity::weight(10))
        .weigh(|_: &u64, value: &String| value.len() as u32)
        .function(move |_: &wellspring::Cx, n: &u64| {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            "x".repeat(*n as usize)
        })
        .expect("a free name");
    let (tell, told) = std::sync::mpsc::channel();
    let watch =
        text.watch(&engine, &500, move |value| tell.send(value.expect("no fault").len()).expect("a listener")).expect("this engine");
    assert_eq!(told.recv(), Ok(500));
    // Waits until the notifier has nothing to read.
    engine.assert_consistent();
    let before = runs.load(std::sync::atomic::Ordering::SeqCst);
    assert!(before <= 20, "{before} runs for one value");
    clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(told.recv(), Ok(500), "nothing tells of its end, so it is told again");
    engine.assert_consistent();
    assert!(runs.load(std::sync::atomic::Ordering::SeqCst) <= 2 * before);
    drop(watch);
}
