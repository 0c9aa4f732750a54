//! Bugs that other engines shipped and fixed, each as a test of ours. The names are theirs; see prior-art §2 and §5i.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::time::Duration;

use wellspring::{AsyncFunction, Cx, Engine, Fault, Function, GetFuture};
use wellspring_tests::waking::{Counting, block_on, poll_once};

/// A sync function whose body stops at two barriers: after its first read, and before it ends.
struct Stoppable {
    read: Arc<Barrier>,
    go_on: Arc<Barrier>,
    stops: Arc<AtomicBool>,
}

impl Stoppable {
    fn new() -> Stoppable {
        Stoppable { read: Arc::new(Barrier::new(2)), go_on: Arc::new(Barrier::new(2)), stops: Arc::new(AtomicBool::new(true)) }
    }

    fn body(&self) -> impl Fn() + Send + Sync + 'static {
        let (read, go_on, stops) = (self.read.clone(), self.go_on.clone(), self.stops.clone());
        move || {
            if stops.swap(false, SeqCst) {
                read.wait();
                go_on.wait();
            }
        }
    }

    /// Runs `during` while the body stands between its read and its end.
    fn during(&self, during: impl FnOnce()) {
        self.read.wait();
        during();
        self.go_on.wait();
    }
}

/// turbo-tasks #84946: forward and backward edge were written under two locks and an invalidation fell in between.
#[test]
fn turbo_84946_an_invalidation_between_read_and_registration_is_not_lost() {
    let engine = Engine::new();
    let source = engine.source("source", |_: &u32| 1_u32).unwrap();
    let stop = Stoppable::new();
    let f = {
        let (source, pause) = (source.clone(), stop.body());
        engine
            .function("f", move |cx: &Cx, n: &u32| {
                let value = source.get(cx, n).unwrap();
                pause();
                value
            })
            .unwrap()
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| f.get(&engine, &1));
        stop.during(|| {
            source.set(&1, 2);
        });
        assert_eq!(reader.join().unwrap(), Ok(1), "its caller began before the commit");
    });
    assert!(f.existing(&1).is_none(), "the doomed result is not served");
    assert_eq!(f.get(&engine, &1), Ok(2));
    engine.assert_consistent();
}

/// turbo-tasks #86859: edges marked outdated while their task ran again lost an invalidation.
#[test]
fn turbo_86859_an_invalidation_through_an_old_edge_reaches_a_running_recomputation() {
    let engine = Engine::new();
    let (switch, left, right) = (
        engine.source("switch", |_: &()| true).unwrap(),
        engine.source("left", |_: &()| 1_u32).unwrap(),
        engine.source("right", |_: &()| 10_u32).unwrap(),
    );
    let stop = Stoppable::new();
    stop.stops.store(false, SeqCst);
    let f = {
        let (switch, left, right, pause) = (switch.clone(), left.clone(), right.clone(), stop.body());
        engine
            .function("f", move |cx: &Cx, (): &()| {
                let value = if switch.get(cx, &()).unwrap() { left.get(cx, &()).unwrap() } else { right.get(cx, &()).unwrap() };
                pause();
                // The old edge may become one of the new run's too, at the very end.
                value + left.get(cx, &()).unwrap()
            })
            .unwrap()
    };
    assert_eq!(f.get(&engine, &()), Ok(2));
    switch.set(&(), false);
    stop.stops.store(true, SeqCst);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| f.get(&engine, &()));
        stop.during(|| {
            left.set(&(), 2);
            right.set(&(), 20);
        });
        reader.join().unwrap().unwrap();
    });
    assert_eq!(f.get(&engine, &()), Ok(22));
    engine.assert_consistent();
}

/// turbo-tasks #84598: a value became visible before its dependants were marked, while one of them was running again.
#[test]
fn turbo_84598_a_dependant_that_runs_during_a_set_never_keeps_the_old_value() {
    let engine = Engine::new();
    let source = engine.source("source", |_: &()| 0_u64).unwrap();
    let double = {
        let source = source.clone();
        engine.function("double", move |cx: &Cx, (): &()| source.get(cx, &()).unwrap() * 2).unwrap()
    };
    let sum = {
        let (source, double) = (source.clone(), double.clone());
        engine.function("sum", move |cx: &Cx, (): &()| source.get(cx, &()).unwrap() + double.get(cx, &()).unwrap()).unwrap()
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while !stop.load(SeqCst) {
                    let value = sum.get(&engine, &()).unwrap();
                    assert!(value >= seen, "I3: {value} after {seen}");
                    seen = value;
                }
            });
        }
        for round in 1..=3_000 {
            source.set(&(), round);
            assert_eq!(sum.get(&engine, &()), Ok(round * 3), "I2: read your own write");
        }
        stop.store(true, SeqCst);
    });
    engine.assert_consistent();
}

/// turbo #6405: a task's dependencies were cleared outside its lock, which erased ones that had just been added.
#[test]
fn turbo_6405_an_invalidation_does_not_erase_the_edges_of_the_next_run() {
    let engine = Engine::new();
    let sources = engine.source("sources", |_: &u32| 0_u64).unwrap();
    let f = {
        let sources = sources.clone();
        engine.function("f", move |cx: &Cx, n: &u32| (0..=*n % 5).map(|i| sources.get(cx, &i).unwrap()).sum::<u64>()).unwrap()
    };
    std::thread::scope(|scope| {
        for thread in 0..2_u32 {
            let (engine, f, sources) = (&engine, &f, &sources);
            scope.spawn(move || {
                for round in 0..1_500_u32 {
                    if thread == 0 {
                        f.invalidate(&(round % 5));
                    } else {
                        sources.set(&(round % 5), u64::from(round));
                    }
                    f.get(engine, &(round * 3 % 5)).unwrap();
                }
            });
        }
    });
    engine.assert_consistent();
    for n in 0..5 {
        f.get(&engine, &n).unwrap();
    }
    for source in 0..5_u32 {
        sources.set(&source, 1_000_000);
        for n in 0..5 {
            assert_eq!(f.existing(&n).is_none(), n >= source, "source {source}, f({n})");
            f.get(&engine, &n).unwrap();
        }
    }
    engine.assert_consistent();
}

/// turbo-tasks #84376: an outdated edge was followed and its task ran twice.
#[test]
fn turbo_84376_an_outdated_edge_marks_and_runs_nothing() {
    let engine = Engine::new();
    let switch = engine.source("switch", |_: &()| true).unwrap();
    let (old, new) = (engine.source("old", |_: &()| 1_u32).unwrap(), engine.source("new", |_: &()| 2_u32).unwrap());
    let runs = Arc::new(AtomicU32::new(0));
    let f = {
        let (switch, old, new, runs) = (switch.clone(), old.clone(), new.clone(), runs.clone());
        engine
            .function("f", move |cx: &Cx, (): &()| {
                runs.fetch_add(1, SeqCst);
                if switch.get(cx, &()).unwrap() { old.get(cx, &()).unwrap() } else { new.get(cx, &()).unwrap() }
            })
            .unwrap()
    };
    f.get(&engine, &()).unwrap();
    switch.set(&(), false);
    f.get(&engine, &()).unwrap();
    let marked = engine.stats().marked;
    old.set(&(), 7);
    assert_eq!(engine.stats().marked, marked + 1, "only the source itself");
    assert!(f.existing(&()).is_some());
    f.get(&engine, &()).unwrap();
    assert_eq!(runs.load(SeqCst), 2, "I25: the untaken branch's source runs nothing");
    engine.assert_consistent();
}

/// turbo-tasks #75658: a task that depended on itself.
#[test]
fn turbo_75658_a_function_that_reads_its_own_key_gets_a_fault() {
    let engine = Engine::new();
    let cell: Arc<OnceLock<Function<u32, Result<u32, Fault>>>> = Arc::default();
    let me = {
        let cell = cell.clone();
        engine.function("me", move |cx: &Cx, n: &u32| cell.get().unwrap().get(cx, n).and_then(|inner| inner)).unwrap()
    };
    cell.set(me.clone()).unwrap();
    assert_eq!(me.get(&engine, &1), Ok(Err(Fault::Cycle { functions: vec!["me".into(), "me".into()] })));
    assert!(me.existing(&1).is_none());
    let cell: Arc<OnceLock<AsyncFunction<u32, Result<u32, Fault>>>> = Arc::default();
    let me = {
        let cell = cell.clone();
        engine
            .async_function("me too", move |cx: Cx, n: u32| {
                let cell = cell.clone();
                async move { cell.get().unwrap().get(&cx, &n).await.and_then(|inner| inner) }
            })
            .unwrap()
    };
    cell.set(me.clone()).unwrap();
    assert_eq!(block_on(me.get(&engine, &1)), Ok(Err(Fault::Cycle { functions: vec!["me too".into(), "me too".into()] })));
    engine.assert_consistent();
}

/// FusionCache #625: the entry was stamped after its factory had run, so an invalidation during the load was lost.
#[test]
fn fusion_cache_625_an_entry_invalidated_while_it_loads_is_not_fresh() {
    let engine = Engine::new();
    let stop = Stoppable::new();
    let outside = Arc::new(AtomicU32::new(1));
    let f = {
        let (outside, pause) = (outside.clone(), stop.body());
        engine
            .function("f", move |_: &Cx, _: &u32| {
                let value = outside.load(SeqCst);
                pause();
                value
            })
            .unwrap()
    };
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| f.get(&engine, &1));
        stop.during(|| {
            outside.store(2, SeqCst);
            f.invalidate(&1);
            // Not later either: who asks now must not be served by the load that is under way.
            assert_eq!(f.get(&engine, &1), Ok(2), "I7");
        });
        assert_eq!(loader.join().unwrap(), Ok(1));
    });
    assert_eq!(f.get(&engine, &1), Ok(2));
    engine.assert_consistent();
}

/// FusionCache #628: the same with the removal of a whole tag.
#[test]
fn fusion_cache_628_a_whole_function_invalidated_while_one_key_loads_leaves_nothing_fresh() {
    for everything in [false, true] {
        let engine = Engine::new();
        let stop = Stoppable::new();
        let outside = Arc::new(AtomicU32::new(1));
        let f = {
            let (outside, pause) = (outside.clone(), stop.body());
            engine
                .function("f", move |_: &Cx, _: &u32| {
                    let value = outside.load(SeqCst);
                    pause();
                    value
                })
                .unwrap()
        };
        std::thread::scope(|scope| {
            let loader = scope.spawn(|| f.get(&engine, &1));
            stop.during(|| {
                outside.store(2, SeqCst);
                if everything {
                    engine.invalidate_everything()
                } else {
                    f.invalidate_all()
                };
            });
            loader.join().unwrap().unwrap();
        });
        assert_eq!(f.get(&engine, &1), Ok(2));
        engine.assert_consistent();
    }
}

/// moka #43: an initialiser that panicked left the others waiting.
#[test]
fn moka_43_a_panicking_body_wakes_everybody_who_waits() {
    let engine = Engine::new();
    let stop = Stoppable::new();
    let f = {
        let (pause, first) = (stop.body(), AtomicBool::new(true));
        engine
            .function("f", move |_: &Cx, n: &u32| {
                let first = first.swap(false, SeqCst);
                pause();
                if first {
                    std::panic::resume_unwind(Box::new("boom"));
                }
                *n
            })
            .unwrap()
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| f.get(&engine, &1));
        stop.read.wait();
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| f.get(&engine, &1))).collect();
        while engine.stats().misses < 4 {
            std::thread::yield_now();
        }
        stop.go_on.wait();
        let fault = Fault::Panicked { function: "f".into(), message: "boom".into() };
        assert_eq!(first.join().unwrap(), Err(fault.clone()));
        for other in others {
            let got = other.join().unwrap();
            assert!(got == Ok(1) || got == Err(fault.clone()), "{got:?}");
        }
    });
    assert_eq!(f.get(&engine, &1), Ok(1));
    engine.assert_consistent();
}

/// moka #59: the future around an initialiser was dropped and the key stayed "being initialised" for ever.
#[test]
fn moka_59_a_read_dropped_half_way_leaves_the_key_free() {
    let engine = Engine::new();
    let first = Arc::new(AtomicBool::new(true));
    let f = engine
        .async_function("f", move |_: Cx, n: u32| {
            let first = first.swap(false, SeqCst);
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                n
            }
        })
        .unwrap();
    let (_, waker) = Counting::pair();
    let mut outer = Box::pin({
        let (engine, f) = (engine.clone(), f.clone());
        async move { f.get(&engine, &1).await }
    });
    assert!(poll_once(&mut outer, &waker).is_pending());
    drop(outer);
    engine.assert_consistent();
    assert_eq!(block_on(f.get(&engine, &1)), Ok(1));
    engine.assert_consistent();
}

/// TanStack Query #2946: the last observer left during the fetch and the query was never collected.
#[test]
fn tanstack_2946_what_was_being_computed_when_the_last_waiter_left_is_freed() {
    let engine = Engine::new();
    let held = Arc::new(());
    let f = {
        let held = held.clone();
        engine
            .async_function("f", move |_: Cx, n: u32| {
                let held = held.clone();
                async move {
                    std::future::pending::<()>().await;
                    drop(held);
                    n
                }
            })
            .unwrap()
    };
    let (_, waker) = Counting::pair();
    for key in 0..100 {
        let mut read = f.get(&engine, &key);
        assert!(poll_once(&mut read, &waker).is_pending());
    }
    assert_eq!(Arc::strong_count(&held), 2, "the bodies are gone");
    for key in 0..100 {
        assert!(f.remove(&key), "and so can be their keys");
    }
    assert!(f.is_empty());
    engine.collect();
    engine.assert_consistent();
}

/// TanStack Query #9454: collecting a query that another one was waiting for went on for ever.
#[test]
fn tanstack_9454_removing_a_key_that_another_waits_for_ends() {
    let engine = Engine::new();
    let gate: Arc<tokio::sync::Semaphore> = Arc::new(tokio::sync::Semaphore::new(0));
    let below = {
        let gate = gate.clone();
        engine
            .async_function("below", move |_: Cx, n: u32| {
                let gate = gate.clone();
                async move {
                    let _permit = gate.acquire().await;
                    n
                }
            })
            .unwrap()
    };
    let above = {
        let below = below.clone();
        engine
            .async_function("above", move |cx: Cx, n: u32| {
                let below = below.clone();
                async move { below.get(&cx, &n).await.unwrap() + 1 }
            })
            .unwrap()
    };
    let (_, waker) = Counting::pair();
    let mut read = above.get(&engine, &1);
    assert!(poll_once(&mut read, &waker).is_pending());
    for _ in 0..5 {
        below.remove(&1);
        engine.collect();
        assert!(poll_once(&mut read, &waker).is_pending());
    }
    gate.add_permits(1);
    assert_eq!(block_on(read), Ok(2));
    engine.assert_consistent();
}

/// leptos #2926: marking recursed, and a long chain overflowed the stack.
#[test]
fn leptos_2926_a_long_chain_is_marked_and_updated_on_a_small_stack() {
    let long = || {
        let engine = Engine::new();
        let base = engine.source("base", |_: &()| 0_u32).unwrap();
        let cell: Arc<OnceLock<Function<u32, u32>>> = Arc::default();
        let chain = {
            let (base, cell) = (base.clone(), cell.clone());
            let body = move |cx: &Cx, n: &u32| match n.checked_sub(1) {
                None => base.get(cx, &()).unwrap(),
                Some(below) => cell.get().unwrap().get(cx, &below).unwrap(),
            };
            engine.function("chain", body).unwrap()
        };
        cell.set(chain.clone()).unwrap();
        for n in 0..50_000 {
            chain.get(&engine, &n).unwrap();
        }
        base.set(&(), 1);
        assert_eq!(chain.get(&engine, &49_999), Ok(1));
        engine.invalidate_everything();
        for n in 0..50_000 {
            chain.get(&engine, &n).unwrap();
        }
        engine.assert_consistent();
    };
    std::thread::Builder::new().stack_size(128 * 1024).spawn(long).unwrap().join().unwrap();
}

/// leptos #3252: an update was missed when a dependency changed while its reader was being marked.
#[test]
fn leptos_3252_no_watcher_misses_the_change_after_its_last_read() {
    let engine = Engine::new();
    let source = engine.source("source", |_: &()| 0_u64).unwrap();
    let derived = {
        let source = source.clone();
        engine.define("derived").cut_off_eq().function(move |cx: &Cx, (): &()| source.get(cx, &()).unwrap() / 2).unwrap()
    };
    let last = 4_001;
    std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    block_on(async {
                        let mut computed = derived.computed(&engine, &()).unwrap();
                        // I34, I35: whoever waits for the end of each generation arrives at the last value, and never goes back.
                        while *computed.value() != last / 2 {
                            computed.invalidated().await;
                            let next = computed.update().await.unwrap();
                            assert!(next.value() >= computed.value(), "I35");
                            computed = next;
                        }
                    });
                })
            })
            .collect();
        for round in 1..=last {
            source.set(&(), round);
        }
        for watcher in watchers {
            watcher.join().unwrap();
        }
    });
    engine.assert_consistent();
}

/// alien-signals #123: a cycle looped for ever.
#[test]
fn alien_123_a_cycle_that_closes_later_ends_in_a_fault_and_opens_again() {
    let engine = Engine::new();
    let closed = engine.source("closed", |_: &()| false).unwrap();
    let mode = {
        let closed = closed.clone();
        engine.define("mode").cut_off_eq().function(move |cx: &Cx, (): &()| closed.get(cx, &()).unwrap()).unwrap()
    };
    let cell: Arc<OnceLock<Function<u32, Result<u32, Fault>>>> = Arc::default();
    let ring = {
        let (mode, cell) = (mode.clone(), cell.clone());
        let body = move |cx: &Cx, n: &u32| {
            if *n == 0 && !mode.get(cx, &()).unwrap() {
                return Ok(0);
            }
            cell.get().unwrap().get(cx, &((n + 2) % 3)).and_then(|below| below).map(|below| below + 1)
        };
        engine.function("ring", body).unwrap()
    };
    cell.set(ring.clone()).unwrap();
    assert_eq!(ring.get(&engine, &2), Ok(Ok(2)));
    for _ in 0..3 {
        closed.set(&(), true);
        for n in 0..3 {
            assert!(matches!(ring.get(&engine, &n), Ok(Err(Fault::Cycle { .. }))), "I28: every member, from wherever it is entered");
            engine.assert_consistent();
        }
        closed.set(&(), false);
        assert_eq!((ring.get(&engine, &2), ring.get(&engine, &1)), (Ok(Ok(2)), Ok(Ok(1))));
        engine.assert_consistent();
    }
}

/// salsa #882: threads that met in one cycle from several sides hung.
#[test]
fn salsa_882_threads_that_enter_a_cycle_from_every_side_all_come_back() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..200 {
            let engine = Engine::new();
            let cell: Arc<OnceLock<Function<u32, Result<u32, Fault>>>> = Arc::default();
            let ring = {
                let cell = cell.clone();
                let body = move |cx: &Cx, n: &u32| {
                    let me = cell.get().unwrap();
                    let next = me.get(cx, &((n + 1) % 4)).and_then(|below| below);
                    let skip = me.get(cx, &((n + 2) % 4)).and_then(|below| below);
                    next.and(skip)
                };
                engine.function("ring", body).unwrap()
            };
            cell.set(ring.clone()).unwrap();
            let start = Barrier::new(4);
            std::thread::scope(|scope| {
                for n in 0..4 {
                    let (engine, ring, start) = (&engine, &ring, &start);
                    scope.spawn(move || {
                        start.wait();
                        let result = ring.get(engine, &n).and_then(|inner| inner);
                        assert!(matches!(result, Err(Fault::Cycle { .. })), "I28: {result:?}");
                    });
                }
            });
            engine.assert_consistent();
        }
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("threads in a cycle hang, or one saw something else than a cycle");
}

/// Keeps a future alive beyond its task: the ways a read can be left lying around.
#[test]
fn a_read_that_is_forgotten_half_way_blocks_nobody() {
    let engine = Engine::new();
    let gate: Arc<tokio::sync::Semaphore> = Arc::new(tokio::sync::Semaphore::new(0));
    let f = {
        let gate = gate.clone();
        engine
            .async_function("f", move |_: Cx, n: u32| {
                let gate = gate.clone();
                async move {
                    let _permit = gate.acquire().await;
                    n
                }
            })
            .unwrap()
    };
    let forgotten: Mutex<Vec<GetFuture<u32>>> = Mutex::default();
    let (_, waker) = Counting::pair();
    let mut read = f.get(&engine, &1);
    assert!(poll_once(&mut read, &waker).is_pending());
    forgotten.lock().unwrap().push(read);
    gate.add_permits(1);
    assert_eq!(block_on(f.get(&engine, &1)), Ok(1));
    engine.assert_consistent();
}

/// Found by the shop's watchers: a generation that another reader had verified was handed back under its old epoch, whose end was past,
/// so that a loop over `invalidated` and `update` never slept.
#[test]
fn an_updated_generation_that_was_verified_meanwhile_can_be_waited_for() {
    let engine = Engine::new();
    let source = engine.source("source", |_: &u8| 1_u64).expect("a free name");
    let inner = source.clone();
    let parity =
        engine.define("parity").cut_off_eq().function(move |cx: &Cx, n: &u8| inner.get(cx, n).expect("a value") % 2).expect("a name");
    let inner = parity.clone();
    let above = engine.function("above", move |cx: &Cx, n: &u8| inner.get(cx, n).expect("a value") + 10).expect("a free name");
    let first = above.computed(&engine, &0).expect("a value");
    source.set(&0, 3);
    assert_eq!(above.get(&engine, &0), Ok(11), "verified by another reader");
    let again = first.update_sync().expect("a value");
    let (woken, waker) = wellspring_tests::waking::Counting::pair();
    let mut ended = again.invalidated();
    assert!(wellspring_tests::waking::poll_once(&mut ended, &waker).is_pending(), "nothing has ended");
    source.set(&0, 4);
    assert_eq!(woken.count(), 1);
    engine.assert_consistent();
}
