//! What an async body depends on, and what not.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use wellspring::{Cx, Engine, Fault, GetFuture};
use wellspring_tests::waking::{Counting, block_on, poll_once};

use crate::gate::{Gate, until};
use crate::runtime::Runtime;

#[test]
fn both_sides_of_a_join_are_dependencies() {
    for runtime in Runtime::all() {
        let engine = Engine::new();
        let base = engine.source("base", |_: &u32| 1_u32).unwrap();
        let part = {
            let base = base.clone();
            engine
                .async_function("part", move |cx: Cx, n: u32| {
                    let base = base.clone();
                    async move {
                        wellspring_tests::waking::Breath::default().await;
                        base.get(&cx, &n).unwrap()
                    }
                })
                .unwrap()
        };
        let whole = {
            let part = part.clone();
            engine
                .async_function("whole", move |cx: Cx, _: ()| {
                    let part = part.clone();
                    async move {
                        let (a, b) = futures_util::join!(part.get(&cx, &1), part.get(&cx, &2));
                        let (c, d) = tokio::join!(part.get(&cx, &3), part.get(&cx, &4));
                        a.unwrap() + b.unwrap() + c.unwrap() + d.unwrap()
                    }
                })
                .unwrap()
        };
        for (key, expected) in [(1, 5), (2, 6), (3, 7), (4, 8)] {
            let before = block_on(whole.get(&engine, &())).unwrap();
            assert_eq!(before, expected - 1);
            base.set(&key, 2);
            assert!(whole.existing(&()).is_none(), "part {key} is a dependency");
            let (engine, whole) = (engine.clone(), whole.clone());
            assert_eq!(runtime.spawn(async move { whole.get(&engine, &()).await }).join(), Ok(expected));
        }
        engine.assert_consistent();
    }
}

#[test]
fn a_child_that_is_not_awaited_is_no_dependency() {
    let (engine, gate) = (Engine::new(), Gate::new());
    let base = engine.source("base", |_: &u32| 1_u32).unwrap();
    let slow = {
        let (gate, base) = (gate.clone(), base.clone());
        engine
            .async_function("slow", move |cx: Cx, n: u32| {
                let (gate, base) = (gate.clone(), base.clone());
                async move {
                    let _passing = gate.pass().await;
                    base.get(&cx, &n).unwrap()
                }
            })
            .unwrap()
    };
    let left: Arc<Mutex<Option<GetFuture<u32>>>> = Arc::default();
    let parent = {
        let (slow, left) = (slow.clone(), left.clone());
        engine
            .async_function("parent", move |cx: Cx, n: u32| {
                let (slow, left) = (slow.clone(), left.clone());
                async move {
                    let mut child = slow.get(&cx, &n);
                    let (_, waker) = Counting::pair();
                    assert!(poll_once(&mut child, &waker).is_pending());
                    *left.lock().unwrap() = Some(child);
                    7_u32
                }
            })
            .unwrap()
    };
    assert_eq!(block_on(parent.get(&engine, &1)), Ok(7));
    let child = left.lock().unwrap().take().unwrap();
    gate.open();
    // It ends after its parent: a fault, never a late edge.
    assert_eq!(block_on(child), Err(Fault::Escaped));
    let computed = parent.existing(&1).expect("the parent is cached");
    base.set(&1, 2);
    assert!(computed.is_consistent(), "the late child is not a dependency");
    engine.assert_consistent();
}

#[test]
fn a_context_that_outlives_its_computation_reads_nothing() {
    let engine = Engine::new();
    let base = engine.source("base", |_: &u32| 1_u32).unwrap();
    let escaped: Arc<Mutex<Vec<Cx>>> = Arc::default();
    let leaky = {
        let escaped = escaped.clone();
        engine
            .async_function("leaky", move |cx: Cx, n: u32| {
                escaped.lock().unwrap().extend([cx.clone(), cx.untracked_cx()]);
                async move { n }
            })
            .unwrap()
    };
    let sync = {
        let escaped = escaped.clone();
        engine
            .function("sync", move |cx: &Cx, n: &u32| {
                escaped.lock().unwrap().push(cx.clone());
                *n
            })
            .unwrap()
    };
    assert_eq!((block_on(leaky.get(&engine, &1)), sync.get(&engine, &1)), (Ok(1), Ok(1)));
    for cx in escaped.lock().unwrap().iter() {
        assert_eq!(base.get(cx, &1), Err(Fault::Escaped));
        assert_eq!(block_on(leaky.get(cx, &2)), Err(Fault::Escaped));
    }
    base.get(&engine, &1).unwrap();
    for cx in escaped.lock().unwrap().iter() {
        assert_eq!(base.get(cx, &1), Err(Fault::Escaped), "also when it would be a hit");
    }
    base.set(&1, 2);
    assert!(leaky.existing(&1).is_some());
    engine.assert_consistent();
}

#[test]
fn a_slow_function_above_a_busy_but_unchanged_source_is_still_cached() {
    for runtime in Runtime::all() {
        let (engine, gate) = (Engine::new(), Gate::new());
        let tick = engine.define("tick").cut_off_never().source(|_: &u32| 0_u32).unwrap();
        let coarse = {
            let tick = tick.clone();
            engine.define("coarse").cut_off_eq().function(move |cx: &Cx, n: &u32| tick.get(cx, n).unwrap() / 1_000_000).unwrap()
        };
        let runs = Arc::new(AtomicU32::new(0));
        let slow = {
            let (gate, coarse, runs) = (gate.clone(), coarse.clone(), runs.clone());
            engine
                .async_function("slow", move |cx: Cx, n: u32| {
                    let (gate, coarse, runs) = (gate.clone(), coarse.clone(), runs.clone());
                    async move {
                        runs.fetch_add(1, SeqCst);
                        let before = coarse.get(&cx, &n).unwrap();
                        let _passing = gate.pass().await;
                        before
                    }
                })
                .unwrap()
        };
        let task = {
            let (engine, slow) = (engine.clone(), slow.clone());
            runtime.spawn(async move { slow.get(&engine, &1).await })
        };
        until("the body has read", || gate.arrived() == 1);
        for round in 0..1000 {
            tick.set(&1, round);
            if round % 3 == 0 {
                // Others verify and recompute what the slow body has read.
                assert_eq!(coarse.get(&engine, &1), Ok(0));
            }
        }
        gate.open();
        assert_eq!(task.join(), Ok(0));
        for round in 0..100 {
            tick.set(&1, round);
            assert_eq!(block_on(slow.get(&engine, &1)), Ok(0));
        }
        assert_eq!(runs.load(SeqCst), 1, "protocol 6: the result was kept as maybe stale and verified, never recomputed");
        tick.set(&1, 2_000_000);
        assert_eq!(block_on(slow.get(&engine, &1)), Ok(2));
        engine.assert_consistent();
    }
}

#[test]
fn an_invalidation_that_falls_into_a_flight_is_not_lost() {
    for runtime in Runtime::all() {
        let (engine, gate) = (Engine::new(), Gate::new());
        let base = engine.source("base", |_: &u32| 1_u32).unwrap();
        let slow = {
            let (gate, base) = (gate.clone(), base.clone());
            engine
                .async_function("slow", move |cx: Cx, n: u32| {
                    let (gate, base) = (gate.clone(), base.clone());
                    async move {
                        let before = base.get(&cx, &n).unwrap();
                        let _passing = gate.pass().await;
                        before
                    }
                })
                .unwrap()
        };
        let early = {
            let (engine, slow) = (engine.clone(), slow.clone());
            runtime.spawn(async move { slow.get(&engine, &1).await })
        };
        until("the body has read", || gate.arrived() == 1);
        base.set(&1, 2);
        // I2, I7: who asks after `set` has returned never gets what was read before it, whichever flight he joins.
        let (_, waker) = Counting::pair();
        let mut late = slow.get(&engine, &1);
        assert!(poll_once(&mut late, &waker).is_pending());
        gate.open();
        assert_eq!(early.join(), Ok(1), "its caller began before the commit that doomed it");
        assert_eq!(block_on(late), Ok(2));
        assert_eq!(block_on(slow.get(&engine, &1)), Ok(2));
        engine.assert_consistent();
    }
}

#[test]
fn a_hit_is_ready_at_the_first_poll() {
    let engine = Engine::new();
    let f = engine.async_function("f", |_: Cx, n: u32| async move { n }).unwrap();
    block_on(f.get(&engine, &1)).unwrap();
    let (counter, waker) = Counting::pair();
    assert_eq!(poll_once(&mut f.get(&engine, &1), &waker), Poll::Ready(Ok(1)));
    assert_eq!(counter.count(), 0);
}
