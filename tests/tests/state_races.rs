//! States used from many threads at once, their loops on two more.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::runtime::Runtime;
use wellspring::{ComputedState, Cx, Engine, FixedDelay, ManualClock, StateError};
use wellspring_tests::waking::block_on;

fn tokio() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime")
}

/// The clock stands still: nothing here waits for time.
fn engine() -> Engine {
    Engine::builder().clock(Arc::new(ManualClock::new())).build()
}

fn at_once() -> FixedDelay {
    FixedDelay::without_floor(Duration::ZERO)
}

#[test]
fn a_recompute_is_never_answered_with_what_was_read_before_it() {
    const CALLS: u64 = 500;
    let (engine, tokio) = (engine(), tokio());
    let outside = Arc::new(AtomicU64::new(0));
    let define = {
        let outside = outside.clone();
        engine.computed_state(move |_: Cx| {
            let value = outside.load(SeqCst);
            async move {
                tokio::task::yield_now().await;
                Ok::<_, StateError>(value)
            }
        })
    };
    let (state, updates) = define.delayer(at_once()).build().expect("room");
    let updates = tokio.spawn(updates);
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (state, outside) = (state.clone(), outside.clone());
            std::thread::spawn(move || {
                for _ in 0..CALLS {
                    let mine = outside.fetch_add(1, SeqCst) + 1;
                    let answer = block_on(state.recompute());
                    assert!(answer.value().is_ok_and(|&value| value >= mine), "{answer:?} for {mine}");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().expect("a caller");
    }
    assert_eq!(block_on(state.recompute()).value(), Ok(&(3 * CALLS)));
    block_on(state.stop());
    tokio.block_on(updates).expect("the loop's end");
    engine.assert_consistent();
}

#[test]
fn who_follows_a_state_ends_at_its_last_value_and_never_goes_back() {
    const SETS: u64 = 1_000;
    let (engine, tokio) = (engine(), tokio());
    let source = engine.mutable_state(0_u64).expect("room");
    let define = {
        let source = source.clone();
        engine.computed_state(move |cx: Cx| {
            let value = source.get(&cx);
            async move { value }
        })
    };
    let (state, updates) = define.delayer(at_once()).build().expect("room");
    let updates = tokio.spawn(updates);
    let followers: Vec<_> = (0..3)
        .map(|_| {
            let state = state.clone();
            std::thread::spawn(move || {
                let mut seen = state.snapshot();
                while seen.value() != Ok(&SETS) {
                    let next = block_on(state.changed(&seen)).expect("it is not stopped");
                    assert!(next.update_count() > seen.update_count() && next.last_good() >= seen.last_good(), "{next:?} after {seen:?}");
                    seen = next;
                }
            })
        })
        .collect();
    for n in 1..=SETS {
        source.set(n);
    }
    for follower in followers {
        follower.join().expect("a follower");
    }
    drop(state);
    tokio.block_on(updates).expect("the loop's end");
    engine.assert_consistent();
}

#[test]
fn states_made_read_stopped_and_dropped_at_any_moment_leave_nothing() {
    const STATES: u64 = 300;
    let (engine, tokio) = (engine(), tokio());
    let source = engine.mutable_state(1_u64).expect("room");
    let threads: Vec<_> = (0..3_u64)
        .map(|who| {
            let (engine, source, tokio) = (engine.clone(), source.clone(), tokio.handle().clone());
            std::thread::spawn(move || (0..STATES).map(|n| one_life(&engine, &source, &tokio, n + who)).collect::<Vec<_>>())
        })
        .collect();
    for thread in threads {
        for updates in thread.join().expect("no panic") {
            tokio.block_on(updates).expect("a loop's end");
        }
    }
    assert_eq!(engine.stats().nodes, 1, "the source's alone");
    engine.assert_consistent();
}

/// The life of one state; its loop.
fn one_life(
    engine: &Engine,
    source: &wellspring::MutableState<u64>,
    tokio: &tokio::runtime::Handle,
    n: u64,
) -> tokio::task::JoinHandle<()> {
    let define = {
        let source = source.clone();
        engine.computed_state(move |cx: Cx| {
            let source = source.clone();
            async move {
                tokio::task::yield_now().await;
                source.get(&cx)
            }
        })
    };
    // No grace: what is under way is dropped.
    let grace = Duration::from_secs(if n % 2 == 0 { 0 } else { 10 });
    let (state, updates): (ComputedState<u64>, _) = define.delayer(at_once()).grace(grace).build().expect("room");
    let updates = tokio.spawn(updates);
    let settles = |result: Result<u64, StateError>| result.is_ok() || result.is_err_and(|error| error.is_stopped());
    match n % 5 {
        0 => {}
        1 => assert!(settles(block_on(state.get(engine)))),
        2 => {
            let read = state.get(engine);
            drop(state);
            assert!(settles(block_on(read)));
        }
        3 => {
            source.set(n);
            drop(state.stop());
            assert!(settles(block_on(state.get(engine))));
        }
        _ => {
            updates.abort();
            assert!(settles(block_on(state.get(engine))));
            block_on(state.stop());
            return tokio.spawn(async {});
        }
    }
    updates
}
