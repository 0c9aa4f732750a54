//! The peer's tests of states, delayers and sources, in our terms and on a clock moved by hand. The table is `PEER_TESTS.md`.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use wellspring::{Backoff, ComputedState, Cx, DefineState, ErrorKind, FixedDelay, NextTick, StateError, UpdateDelayer, UpdateLoop};
use wellspring_tests::stepping::{Gate, Stepping};
use wellspring_tests::waking::{Counting, block_on, poll_once};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// No wait at all, and after errors none to speak of.
fn at_once() -> FixedDelay {
    FixedDelay::without_floor(Duration::ZERO).backoff(Backoff::new(MS, MS))
}

#[derive(Debug)]
struct Failed(ErrorKind);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Failed {}

/// The peer's counting state: -1 at first, then how often it ran, but the third run fails.
fn counting(world: &Stepping, kind: ErrorKind, gate: &Gate) -> DefineState<i64, Failed> {
    let (runs, gate) = (Arc::new(AtomicU64::new(0)), gate.clone());
    world
        .engine
        .computed_state(move |_: Cx| {
            let (run, gate) = (runs.fetch_add(1, SeqCst) + 1, gate.clone());
            async move {
                gate.pass().await;
                if run == 3 { Err(Failed(kind)) } else { Ok(run as i64) }
            }
        })
        .initial(-1)
        .classify(|error: &Failed| error.0)
        .delayer(at_once())
}

fn start<E: 'static>(world: &Stepping, define: DefineState<i64, E>) -> ComputedState<i64> {
    let (state, updates) = define.build().expect("room for a state");
    world.tasks.add(updates);
    state
}

fn opened() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}

/// Invalidates it twice, so that it fails.
fn until_it_fails(world: &Stepping, state: &ComputedState<i64>) {
    world.tasks.run();
    for _ in 0..2 {
        state.invalidate();
        world.tasks.run();
    }
    assert!(state.snapshot().error().is_some());
}

fn basic(kind: ErrorKind, asynchronous: bool) {
    let world = Stepping::new();
    let gate = if asynchronous { Gate::new() } else { opened() };
    let state = start(&world, counting(&world, kind, &gate).error_delays(100 * MS, 30 * S));
    assert_eq!((state.value().expect("the initial value"), state.snapshot().is_initial()), (-1, true));
    world.tasks.run();
    assert_eq!(state.snapshot().is_consistent(), !asynchronous);
    gate.open();
    world.tasks.run();
    assert_eq!((state.value().expect("a value"), state.snapshot().is_consistent()), (1, true));
    state.invalidate();
    world.tasks.run();
    assert_eq!(state.value().expect("a value"), 2);
    state.invalidate();
    world.tasks.run();
    let failed = state.snapshot();
    let error = failed.error().expect("the third run's error");
    assert!(error.downcast_ref::<Failed>().is_some());
    assert!(failed.is_consistent(), "an error is a result like any other");
    assert_eq!((failed.last_good(), failed.update_count(), failed.error_count()), (Some(&2), 3, 1));
    world.advance(99 * MS);
    assert!(failed.is_consistent());
    world.advance(101 * MS);
    let transient = kind != ErrorKind::NonTransient;
    assert_eq!(failed.is_consistent(), !transient);
    assert_eq!(failed.retry_count(), u32::from(transient));
    let now = state.snapshot();
    assert_eq!(now.value().ok(), transient.then_some(&4));
    assert_eq!((now.error_count(), now.retry_count()), (1, 0));
    world.engine.assert_consistent();
}

#[test]
fn computed_state_basic() {
    for asynchronous in [false, true] {
        for kind in [ErrorKind::Transient, ErrorKind::RetryAfter(150 * MS), ErrorKind::NonTransient] {
            basic(kind, asynchronous);
        }
    }
}

#[test]
fn computed_state_non_transient_error_horizon() {
    let world = Stepping::new();
    let state = start(&world, counting(&world, ErrorKind::NonTransient, &opened()).error_delays(S, 500 * MS));
    until_it_fails(&world, &state);
    let failed = state.snapshot();
    world.advance(499 * MS);
    assert!(failed.is_consistent());
    world.advance(MS);
    assert!(!failed.is_consistent());
    assert_eq!(state.value().expect("the fourth run's"), 4);
    world.engine.assert_consistent();
}

#[test]
fn computed_state_throwing_transiency_resolver() {
    let world = Stepping::new();
    let define = counting(&world, ErrorKind::Terminal, &opened()).classify(|_| panic!("it cannot tell"));
    let state = start(&world, define.error_delays(500 * MS, Duration::MAX));
    until_it_fails(&world, &state);
    assert_eq!(state.snapshot().retry_count(), 1, "transient");
    world.advance(501 * MS);
    assert_eq!(state.value().expect("the fourth run's"), 4);
    world.engine.assert_consistent();
}

#[test]
fn computed_state_terminal_ignores_horizon() {
    let world = Stepping::new();
    let state = start(&world, counting(&world, ErrorKind::Terminal, &opened()).error_delays(S, 500 * MS));
    until_it_fails(&world, &state);
    let failed = state.snapshot();
    world.advance(2 * S);
    assert!(failed.is_consistent());
    world.engine.assert_consistent();
}

#[test]
fn computed_state_non_transient_honors_auto_invalidation() {
    let world = Stepping::new();
    let define = counting(&world, ErrorKind::NonTransient, &opened()).expire_after(500 * MS);
    let state = start(&world, define.error_delays(S, Duration::MAX));
    until_it_fails(&world, &state);
    let failed = state.snapshot();
    world.advance(499 * MS);
    assert!(failed.is_consistent());
    world.advance(MS);
    assert!(!failed.is_consistent());
    world.engine.assert_consistent();
}

#[test]
fn invalidated_event_fires_once_for_a_generation_that_was_born_invalidated() {
    let world = Stepping::new();
    let (source, gate) = (world.engine.mutable_state(1_i64).expect("room"), Gate::new());
    let define = {
        let (source, gate) = (source.clone(), gate.clone());
        world.engine.computed_state(move |cx: Cx| {
            let (source, gate) = (source.clone(), gate.clone());
            async move {
                let value = source.get(&cx)?;
                gate.pass().await;
                Ok::<_, StateError>(value)
            }
        })
    };
    let state = start(&world, define.delayer(FixedDelay::new(S)));
    world.tasks.run();
    source.set(2);
    gate.open();
    world.tasks.run();
    let born = state.snapshot();
    assert_eq!((born.value(), born.update_count(), born.is_consistent()), (Ok(&1), 1, false), "who waited still gets it");
    let ended = world.tasks.result(born.invalidated());
    world.tasks.run();
    assert_eq!(ended.lock().expect("unpoisoned").take(), Some(()));
    world.advance(5 * S);
    let next = state.snapshot();
    assert_eq!((next.value(), next.update_count(), next.is_consistent()), (Ok(&2), 2, true), "one end, one more update");
    world.engine.assert_consistent();
}

#[test]
fn invalidated_event_fires_exactly_once_when_who_hears_of_an_update_invalidates_it() {
    let world = Stepping::new();
    let state = start(&world, counting(&world, ErrorKind::Transient, &opened()).delayer(FixedDelay::new(100 * MS)));
    let ends = Arc::new(AtomicU64::new(0));
    world.tasks.add({
        let (state, ends, initial) = (state.clone(), ends.clone(), state.snapshot());
        async move {
            let first = state.changed(&initial).await.expect("a first update");
            state.invalidate();
            first.invalidated().await;
            ends.fetch_add(1, SeqCst);
        }
    });
    world.advance(5 * S);
    assert_eq!((ends.load(SeqCst), state.snapshot().update_count()), (1, 2));
    world.engine.assert_consistent();
}

#[test]
fn recompute_during_computation_ends_with_the_latest_value() {
    let world = Stepping::new();
    let (outside, gate) = (Arc::new(AtomicU64::new(1)), opened());
    let define = {
        let (outside, gate) = (outside.clone(), gate.clone());
        world.engine.computed_state(move |_: Cx| {
            let (value, gate) = (outside.load(SeqCst) as i64, gate.clone());
            async move {
                gate.pass().await;
                Ok::<_, StateError>(value)
            }
        })
    };
    let state = start(&world, define.delayer(FixedDelay::new(60 * S)));
    world.tasks.run();
    gate.close();
    let first = world.tasks.result(state.recompute());
    world.tasks.run();
    outside.store(2, SeqCst);
    let second = world.tasks.result(state.recompute());
    world.tasks.run();
    gate.open();
    world.tasks.run();
    let recomputed = second.lock().expect("unpoisoned").take().expect("no delay is waited for");
    assert_eq!((recomputed.value(), recomputed.is_consistent()), (Ok(&2), true));
    assert!(first.lock().expect("unpoisoned").is_some());
    assert_eq!(state.value().expect("a value"), 2);
    world.engine.assert_consistent();
}

#[test]
fn graceful_dispose_lets_an_update_end_and_retries_nothing() {
    let world = Stepping::new();
    let (started, gate) = (Arc::new(AtomicU64::new(0)), Gate::new());
    let define = {
        let (started, gate) = (started.clone(), gate.clone());
        world.engine.computed_state(move |_: Cx| {
            started.fetch_add(1, SeqCst);
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Ok::<_, StateError>(7_i64)
            }
        })
    };
    let state = start(&world, define.delayer(at_once()));
    world.tasks.run();
    let stopped = world.tasks.result(state.stop());
    world.advance(S);
    assert_eq!(started.load(SeqCst), 1);
    assert!(stopped.lock().expect("unpoisoned").is_none(), "the update is under way");
    gate.open();
    world.advance(S);
    assert_eq!((started.load(SeqCst), state.value().expect("its result")), (1, 7));
    assert!(stopped.lock().expect("unpoisoned").is_some());
    assert_eq!((world.tasks.left(), world.engine.stats().nodes), (0, 0));
    world.engine.assert_consistent();
}

#[test]
fn mutable_state_basic() {
    let world = Stepping::new();
    let (first, second) =
        (world.engine.mutable_state("A".to_owned()).expect("room"), world.engine.mutable_state("B".to_owned()).expect("room"));
    let (both, updates) = {
        let (first, second) = (first.clone(), second.clone());
        let both = world.engine.computed_state(move |cx: Cx| {
            let (first, second) = (first.clone(), second.clone());
            async move { Ok::<_, StateError>(first.get(&cx)? + &second.get(&cx)?) }
        });
        both.initial(String::new()).delayer(at_once()).build().expect("room")
    };
    world.tasks.add(updates);
    world.tasks.run();
    assert_eq!(both.value().expect("a value"), "AB");
    first.set("X".to_owned());
    world.tasks.run();
    assert_eq!(both.value().expect("a value"), "XB");
    second.set("Y".to_owned());
    world.tasks.run();
    assert_eq!(both.value().expect("a value"), "XY");
    first.set_error("no first");
    world.tasks.run();
    let failed = both.snapshot();
    assert_eq!(failed.error(), first.get(&world.engine).err().as_ref(), "the very same error");
    assert_eq!(failed.last_good().map(String::as_str), Some("XY"));
    first.set("Z".to_owned());
    world.advance(S);
    assert_eq!(both.value().expect("a value"), "ZY");
    world.engine.assert_consistent();
}

/// Sets a source from a thread while states follow it on another two; the clock runs as fast as it can.
#[test]
fn concurrency_of_sums_under_every_delayer() {
    const SETS: u64 = 2_000;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let world = Stepping::new();
    let source = world.engine.mutable_state(0_u64).expect("room");
    let doubled = {
        let source = source.clone();
        world.engine.function("doubled", move |cx: &Cx, (): &()| source.get(cx).map(|n| n * 2)).expect("a free name")
    };
    let delayers: [Arc<dyn UpdateDelayer>; 4] = [
        Arc::new(FixedDelay::without_floor(Duration::ZERO)),
        Arc::new(NextTick::new()),
        Arc::new(FixedDelay::new(Duration::ZERO)),
        Arc::new(FixedDelay::new(100 * MS)),
    ];
    let states: Vec<_> = (0..8)
        .map(|n| {
            let (source, doubled) = (source.clone(), doubled.clone());
            let define = world.engine.computed_state(move |cx: Cx| {
                let (source, doubled) = (source.clone(), doubled.clone());
                async move { Ok::<_, StateError>(source.get(&cx)? + doubled.get(&cx, &())??) }
            });
            let (state, updates) = define.delayer(delayers[n % delayers.len()].clone()).build().expect("room");
            tokio.spawn(updates);
            state
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let ticking = {
        let (clock, done) = (world.clock.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(SeqCst) {
                clock.advance(MS);
                std::thread::yield_now();
            }
        })
    };
    let setting = {
        let source = source.clone();
        std::thread::spawn(move || {
            for n in 1..=SETS {
                source.set(n);
                if n % 50 == 0 {
                    std::thread::yield_now();
                }
            }
        })
    };
    setting.join().expect("it does not panic");
    for state in &states {
        let last = block_on(state.when(|now| now.value() == Ok(&(SETS * 3)))).expect("it is not stopped");
        assert!(last.is_consistent() && last.error_count() == 0);
    }
    for state in states {
        block_on(state.stop());
    }
    done.store(true, SeqCst);
    ticking.join().expect("it does not panic");
    world.engine.assert_consistent();
}

#[test]
fn computed_source_basic() {
    let world = Stepping::new();
    let state = start(&world, counting(&world, ErrorKind::Transient, &opened()));
    let engine = &world.engine;
    assert_eq!((state.value().expect("the initial value"), state.snapshot().is_consistent()), (-1, false));
    assert_eq!(block_on(state.get(engine)), Ok(1));
    assert_eq!(block_on(state.get(engine)), Ok(1), "cached");
    world.tasks.run();
    assert_eq!(state.value(), Ok(1), "the loop takes what is there");
    state.invalidate();
    assert_eq!(block_on(state.get(engine)), Ok(2), "no delay for who asks");
    engine.assert_consistent();
}

#[test]
fn computed_source_options() {
    let world = Stepping::new();
    let state = start(&world, counting(&world, ErrorKind::Transient, &opened()).expire_after(200 * MS));
    let above_one = {
        let state = state.clone();
        world.tasks.result(async move { state.when(|now| now.value().is_ok_and(|&n| n > 1)).await.map(|now| now.update_count()) })
    };
    world.advance(199 * MS);
    assert_eq!(state.snapshot().update_count(), 1);
    world.advance(MS);
    assert_eq!(above_one.lock().expect("unpoisoned").take(), Some(Some(2)));
    world.engine.assert_consistent();
}

/// The peer's subscriber that throws: here what hears of an update is a waker.
#[test]
fn computed_source_throwing_updated_subscriber() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Panics>) {
            panic!("a subscriber that throws");
        }
    }
    let world = Stepping::new();
    let state = start(&world, counting(&world, ErrorKind::Transient, &opened()));
    let (mut throws, mut hears) = (state.changed(&state.snapshot()), state.changed(&state.snapshot()));
    let (heard, waker) = Counting::pair();
    assert!(poll_once(&mut throws, &Arc::new(Panics).into()).is_pending());
    assert!(poll_once(&mut hears, &waker).is_pending());
    world.tasks.run();
    assert_eq!((state.value(), heard.count()), (Ok(1), 1), "and under no lock: both looked at the state");
    world.engine.assert_consistent();
}

#[test]
fn computed_static() {
    let world = Stepping::new();
    let name = world.engine.mutable_state("before".to_owned()).expect("room");
    let seconds = {
        let timer = world.engine.timer();
        world.engine.define("seconds").expire_after(S).function(move |_: &Cx, (): &()| timer.now().as_secs()).expect("a free name")
    };
    let (state, updates): (ComputedState<(String, u64)>, UpdateLoop) = {
        let name = name.clone();
        let define = world.engine.computed_state(move |cx: Cx| {
            let (name, seconds) = (name.clone(), seconds.clone());
            async move { Ok::<_, StateError>((name.get(&cx)?, seconds.get(&cx, &())?)) }
        });
        define.delayer(at_once()).build().expect("room")
    };
    world.tasks.add(updates);
    let late = {
        let state = state.clone();
        world.tasks.result(async move { state.when(|now| now.value().is_ok_and(|(name, at)| name == "after" && *at >= 3)).await })
    };
    world.advance(2 * S);
    name.set("after".to_owned());
    world.advance(999 * MS);
    assert!(late.lock().expect("unpoisoned").is_none());
    world.advance(2 * MS);
    let late = late.lock().expect("unpoisoned").take().expect("the condition holds").expect("it is not stopped");
    assert_eq!(late.value(), Ok(&("after".to_owned(), 3)));
    world.engine.assert_consistent();
}

#[test]
fn server_time_model() {
    let world = Stepping::new();
    let time = {
        let timer = world.engine.timer();
        world.engine.define("time").expire_after(250 * MS).function(move |_: &Cx, (): &()| timer.now()).expect("a free name")
    };
    let define = world.engine.computed_state(move |cx: Cx| {
        let time = time.clone();
        async move { time.get(&cx, &()) }
    });
    let (state, updates) = define.build().expect("room");
    world.tasks.add(updates);
    for _ in 0..50 {
        world.advance(100 * MS);
        let lag = world.engine.timer().now() - state.value().expect("a value");
        assert!(lag <= 250 * MS + 33 * MS, "{lag:?}");
    }
    assert!(state.snapshot().update_count() >= 3);
    world.engine.assert_consistent();
}

#[test]
fn key_value_model_basic() {
    let world = Stepping::new();
    let store = world.engine.source("store", |_: &String| None::<u32>).expect("a free name");
    let define = {
        let store = store.clone();
        world.engine.computed_state(move |cx: Cx| {
            let store = store.clone();
            async move { store.get(&cx, "key") }
        })
    };
    let (state, updates) = define.delayer(FixedDelay::new(500 * MS)).build().expect("room");
    world.tasks.add(updates);
    world.tasks.run();
    let before = state.snapshot();
    assert_eq!((before.value(), before.update_count()), (Ok(&None), 1));
    store.set("key", Some(5));
    assert!(!before.is_consistent());
    world.advance(499 * MS);
    assert_eq!(state.snapshot().update_count(), 1);
    world.advance(MS);
    let after = state.snapshot();
    assert_eq!((after.value(), after.update_count()), (Ok(&Some(5)), 2));
    world.engine.assert_consistent();
}
