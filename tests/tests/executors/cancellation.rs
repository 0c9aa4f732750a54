//! Waiters that leave, by hand: who is woken, who takes over, what is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_tests::waking::{Counting, block_on, poll_once};

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
fn one_waiter_that_leaves_cancels_nobody_else() {
    let (engine, gate) = (Engine::new(), Gate::new());
    let gated = gated(&engine, &gate);
    let ((_, first), (woken, second)) = (Counting::pair(), Counting::pair());
    let (mut a, mut b) = (gated.get(&engine, &1), gated.get(&engine, &1));
    assert!(poll_once(&mut a, &first).is_pending() && poll_once(&mut b, &second).is_pending());
    drop(a);
    assert!(woken.count() > 0, "the one who is left is told to take over");
    assert_eq!(gate.over(), 0, "I26: the flight goes on");
    gate.open();
    assert_eq!(block_on(b), Ok(2));
    assert_eq!((gate.arrived(), gate.over()), (1, 1));
    engine.assert_consistent();
}

#[test]
fn a_waiter_takes_over_when_the_driver_stops_polling() {
    let (engine, gate) = (Engine::new(), Gate::new());
    let gated = gated(&engine, &gate);
    let ((_, first), (woken, second)) = (Counting::pair(), Counting::pair());
    let (mut a, mut b) = (gated.get(&engine, &1), gated.get(&engine, &1));
    assert!(poll_once(&mut a, &first).is_pending() && poll_once(&mut b, &second).is_pending());
    let before = woken.count();
    gate.open();
    assert!(woken.count() > before, "everybody who waits is woken, not only who polled last");
    // `a` is never polled again, and never dropped meanwhile.
    assert_eq!(block_on(b), Ok(2));
    assert_eq!(block_on(a), Ok(2));
    assert_eq!(gate.arrived(), 1);
    engine.assert_consistent();
}

#[test]
fn the_last_waiter_to_leave_drops_the_flight() {
    let (engine, gate) = (Engine::new(), Gate::new());
    let gated = gated(&engine, &gate);
    let (_, waker) = Counting::pair();
    let (mut a, mut b) = (gated.get(&engine, &1), gated.get(&engine, &1));
    assert!(poll_once(&mut a, &waker).is_pending() && poll_once(&mut b, &waker).is_pending());
    drop((a, b));
    assert_eq!(gate.over(), 1, "I26: the body's locals are dropped");
    engine.assert_consistent();
    gate.open();
    assert_eq!(block_on(gated.get(&engine, &1)), Ok(2));
    assert_eq!(gate.arrived(), 2, "it runs again from the start");
    engine.assert_consistent();
}

#[test]
fn a_read_that_is_never_polled_starts_nothing() {
    let (engine, gate) = (Engine::new(), Gate::new());
    let gated = gated(&engine, &gate);
    drop(gated.get(&engine, &1));
    assert_eq!(gate.arrived(), 0);
    engine.assert_consistent();
}

#[test]
fn cancelling_a_parent_cancels_the_child_only_it_waits_for() {
    let (engine, gate) = (Engine::new(), Gate::new());
    let gated = gated(&engine, &gate);
    let parent = {
        let gated = gated.clone();
        engine
            .async_function("parent", move |cx: Cx, n: u32| {
                let gated = gated.clone();
                async move { gated.get(&cx, &1).await.unwrap() + gated.get(&cx, &n).await.unwrap() }
            })
            .unwrap()
    };
    let (_, waker) = Counting::pair();
    let mut shared = gated.get(&engine, &1);
    let mut read = parent.get(&engine, &2);
    assert!(poll_once(&mut shared, &waker).is_pending() && poll_once(&mut read, &waker).is_pending());
    drop(read);
    assert_eq!(gate.over(), 0, "somebody else waits for the child");
    gate.open();
    assert_eq!(block_on(shared), Ok(2));
    let mut read = parent.get(&engine, &2);
    assert_eq!(block_on(&mut read), Ok(5));
    engine.assert_consistent();
}

#[test]
fn half_of_many_tasks_are_dropped_and_the_rest_get_their_value() {
    for runtime in Runtime::all() {
        let (engine, gate) = (Engine::new(), Gate::new());
        let gated = gated(&engine, &gate);
        let kept: Vec<_> = (0..16)
            .map(|n| {
                let (engine, gated) = (engine.clone(), gated.clone());
                runtime.spawn(async move {
                    let mut read = gated.get(&engine, &1);
                    if n % 2 == 0 {
                        let (_, waker) = Counting::pair();
                        let _ = poll_once(&mut read, &waker);
                        drop(read);
                        return Ok(2);
                    }
                    read.await
                })
            })
            .collect();
        until("all ask", || engine.stats().misses == 16);
        gate.open();
        assert!(kept.into_iter().all(|task| task.join() == Ok(2)));
        until("nothing is under way", || gate.over() == gate.arrived());
        engine.assert_consistent();
    }
}

#[test]
fn a_flight_whose_key_is_removed_ends_and_the_key_is_computed_anew() {
    let (engine, gate) = (Engine::new(), Gate::new());
    let gated = gated(&engine, &gate);
    let (_, waker) = Counting::pair();
    let mut read = gated.get(&engine, &1);
    assert!(poll_once(&mut read, &waker).is_pending());
    assert!(gated.remove(&1));
    gate.open();
    assert_eq!(block_on(read), Ok(2));
    assert_eq!(block_on(gated.get(&engine, &1)), Ok(2));
    engine.assert_consistent();
}

#[test]
fn a_panic_in_the_drop_of_a_cancelled_body_stops_there() {
    struct Bomb(Arc<AtomicU32>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0.fetch_add(1, SeqCst) == 0 {
                std::panic::resume_unwind(Box::new("dropped"));
            }
        }
    }
    let (engine, gate, drops) = (Engine::new(), Gate::new(), Arc::new(AtomicU32::new(0)));
    let f = {
        let (gate, drops) = (gate.clone(), drops.clone());
        engine
            .async_function("f", move |_: Cx, n: u32| {
                let (gate, bomb) = (gate.clone(), Bomb(drops.clone()));
                async move {
                    let _passing = gate.pass().await;
                    drop(bomb);
                    n
                }
            })
            .unwrap()
    };
    let (_, waker) = Counting::pair();
    let mut read = f.get(&engine, &1);
    assert!(poll_once(&mut read, &waker).is_pending());
    drop(read);
    assert_eq!(drops.load(SeqCst), 1);
    engine.assert_consistent();
    gate.open();
    assert_eq!(block_on(f.get(&engine, &1)), Ok(1));
    engine.assert_consistent();
}
