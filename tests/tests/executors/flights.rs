//! How a flight is shared and how it ends.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use wellspring::{AsyncFunction, Cx, Engine, Fault};
use wellspring_tests::waking::block_on;

use crate::gate::{Gate, until};
use crate::runtime::Runtime;

fn gated(engine: &Engine, gate: &Gate) -> AsyncFunction<u32, u32> {
    let gate = gate.clone();
    engine
        .async_function("gated", move |_: Cx, n: u32| {
            let gate = gate.clone();
            async move {
                let _passing = gate.pass().await;
                n + 1
            }
        })
        .unwrap()
}

#[test]
fn tasks_and_threads_that_ask_for_one_key_share_one_flight() {
    for runtime in Runtime::all() {
        let (engine, gate) = (Engine::new(), Gate::new());
        let gated = gated(&engine, &gate);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (engine, gated) = (engine.clone(), gated.clone());
                runtime.spawn(async move { gated.get(&engine, &1).await })
            })
            .collect();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (engine, gated) = (engine.clone(), gated.clone());
                std::thread::spawn(move || gated.wait(&engine, &1))
            })
            .collect();
        until("all seven ask", || engine.stats().misses == 7);
        gate.open();
        assert!(tasks.into_iter().all(|task| task.join() == Ok(2)));
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == Ok(2)));
        assert_eq!(gate.arrived(), 1, "I22: one flight");
        engine.assert_consistent();
    }
}

#[test]
fn a_sync_function_is_computed_once_for_tasks_and_threads_together() {
    for runtime in Runtime::all() {
        let engine = Engine::new();
        let runs = Arc::new(AtomicU32::new(0));
        let release = Arc::new(std::sync::Barrier::new(2));
        let slow = {
            let (runs, release) = (runs.clone(), release.clone());
            engine
                .function("slow", move |_: &Cx, n: &u32| {
                    runs.fetch_add(1, SeqCst);
                    release.wait();
                    n + 1
                })
                .unwrap()
        };
        let user = {
            let slow = slow.clone();
            engine
                .async_function("user", move |cx: Cx, n: u32| {
                    let slow = slow.clone();
                    async move { slow.get(&cx, &n).unwrap() * 10 }
                })
                .unwrap()
        };
        let thread = {
            let (engine, slow) = (engine.clone(), slow.clone());
            std::thread::spawn(move || slow.get(&engine, &1))
        };
        until("the body runs", || runs.load(SeqCst) == 1);
        let task = {
            let (engine, user) = (engine.clone(), user.clone());
            runtime.spawn(async move { user.get(&engine, &1).await })
        };
        until("the task asks too", || engine.stats().misses == 3);
        release.wait();
        assert_eq!((thread.join().unwrap(), task.join()), (Ok(2), Ok(20)));
        assert_eq!(runs.load(SeqCst), 1, "I22");
        engine.assert_consistent();
    }
}

#[test]
fn a_panic_reaches_every_waiter_and_the_next_read_tries_again() {
    for runtime in Runtime::all() {
        let (engine, gate) = (Engine::new(), Gate::new());
        let tries = Arc::new(AtomicU32::new(0));
        let fragile = {
            let (gate, tries) = (gate.clone(), tries.clone());
            engine
                .async_function("fragile", move |_: Cx, n: u32| {
                    let (gate, tries) = (gate.clone(), tries.clone());
                    async move {
                        let _passing = gate.pass().await;
                        if tries.fetch_add(1, SeqCst) == 0 {
                            std::panic::resume_unwind(Box::new("not yet"));
                        }
                        n
                    }
                })
                .unwrap()
        };
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (engine, fragile) = (engine.clone(), fragile.clone());
                runtime.spawn(async move { fragile.get(&engine, &5).await })
            })
            .collect();
        until("all ask", || engine.stats().misses == 3);
        until("the body waits", || gate.arrived() == 1);
        gate.open();
        for task in tasks {
            // Whoever came just after the panic may have run the body again already.
            let got = task.join();
            assert!(got == Ok(5) || got == Err(Fault::Panicked { function: "fragile".into(), message: "not yet".into() }), "I27: {got:?}");
        }
        engine.assert_consistent();
        assert_eq!(block_on(fragile.get(&engine, &5)), Ok(5), "I27: no poison");
        engine.assert_consistent();
    }
}

#[test]
fn an_error_is_a_result_and_cached_until_it_is_invalidated() {
    for runtime in Runtime::all() {
        let engine = Engine::new();
        let tries = Arc::new(AtomicU32::new(0));
        let failing = {
            let tries = tries.clone();
            engine
                .async_function("failing", move |_: Cx, _: u32| {
                    let tries = tries.clone();
                    async move { Err::<u32, String>(format!("try {}", tries.fetch_add(1, SeqCst))) }
                })
                .unwrap()
        };
        for expected in ["try 0", "try 0"] {
            let (engine, failing) = (engine.clone(), failing.clone());
            assert_eq!(runtime.spawn(async move { failing.get(&engine, &1).await }).join(), Ok(Err(expected.to_string())));
        }
        failing.invalidate(&1);
        assert_eq!(block_on(failing.get(&engine, &1)), Ok(Err("try 1".to_string())));
        engine.assert_consistent();
    }
}

#[test]
fn a_cycle_across_tasks_is_a_fault_on_it_and_the_engine_goes_on() {
    for runtime in Runtime::all() {
        let (engine, gate) = (Engine::new(), Gate::new());
        let cell: Arc<OnceLock<AsyncFunction<u32, Result<u32, Fault>>>> = Arc::default();
        let closed = Arc::new(AtomicU32::new(1));
        let ring = {
            let (gate, cell, closed) = (gate.clone(), cell.clone(), closed.clone());
            engine
                .async_function("ring", move |cx: Cx, n: u32| {
                    let (gate, cell, closed) = (gate.clone(), cell.clone(), closed.clone());
                    async move {
                        // Both bodies run before either reads the other.
                        let _passing = gate.pass().await;
                        if closed.load(SeqCst) == 0 {
                            return Ok(n);
                        }
                        cell.get().unwrap().get(&cx, &(1 - n)).await?
                    }
                })
                .unwrap()
        };
        cell.set(ring.clone()).unwrap();
        let tasks: Vec<_> = (0..2)
            .map(|n| {
                let (engine, ring) = (engine.clone(), ring.clone());
                runtime.spawn(async move { ring.get(&engine, &n).await })
            })
            .collect();
        until("both bodies run", || gate.arrived() == 2);
        gate.open();
        let results: Vec<_> = tasks.into_iter().map(|task| task.join()).collect();
        for result in &results {
            // I28: every member ends with the fault, in bounded time; it names the functions on the cycle.
            let fault = result.clone().and_then(|inner| inner).unwrap_err();
            assert_eq!(fault, Fault::Cycle { functions: vec!["ring".into(), "ring".into(), "ring".into()] });
        }
        engine.assert_consistent();
        closed.store(0, SeqCst);
        assert_eq!(block_on(ring.get(&engine, &1)), Ok(Ok(1)), "I28: the engine is usable afterwards, and nothing of it was cached");
        engine.assert_consistent();
    }
}

#[test]
fn a_cycle_through_join_is_a_fault_too() {
    let engine = Engine::new();
    let cell: Arc<OnceLock<AsyncFunction<u32, Result<u32, Fault>>>> = Arc::default();
    let knot = {
        let cell = cell.clone();
        engine
            .async_function("knot", move |cx: Cx, n: u32| {
                let cell = cell.clone();
                async move {
                    let me = cell.get().unwrap();
                    let (left, right) = match n {
                        0 => futures_util::join!(me.get(&cx, &1), me.get(&cx, &2)),
                        1 => return Ok(1),
                        _ => futures_util::join!(me.get(&cx, &1), me.get(&cx, &0)),
                    };
                    Ok(left?? + right??)
                }
            })
            .unwrap()
    };
    cell.set(knot.clone()).unwrap();
    let result = block_on(knot.get(&engine, &0)).unwrap();
    assert!(matches!(result, Err(Fault::Cycle { .. })), "{result:?}");
    engine.assert_consistent();
    assert_eq!(block_on(knot.get(&engine, &1)), Ok(Ok(1)));
}

#[test]
fn waiting_where_it_would_block_is_a_fault() {
    let engine = Engine::new();
    let leaf = engine.async_function("leaf", |_: Cx, n: u32| async move { n }).unwrap();
    let sync = {
        let leaf = leaf.clone();
        engine.function("sync", move |cx: &Cx, n: &u32| leaf.wait(cx, n)).unwrap()
    };
    let polled = {
        let (leaf, inner) = (leaf.clone(), engine.async_function("inner", |_: Cx, n: u32| async move { n }).unwrap());
        let handle = engine.clone();
        engine
            .async_function("polled", move |_: Cx, n: u32| {
                let result = (leaf.wait(&handle, &n), inner.wait(&handle, &n));
                async move { result }
            })
            .unwrap()
    };
    assert_eq!(sync.get(&engine, &1), Ok(Err(Fault::WouldBlock)));
    // The first part of an async body runs when its future is made: inside the poll as well.
    assert_eq!(block_on(polled.get(&engine, &1)), Ok((Err(Fault::WouldBlock), Err(Fault::WouldBlock))));
    engine.assert_consistent();
}
