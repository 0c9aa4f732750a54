//! Shapes that break recursion, exponential walks and fixed limits.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wellspring::{Cx, Engine, Function};

const MANY: u32 = 1_000_000;

/// A function that can read itself.
fn recursive(
    engine: &Engine,
    name: &str,
    body: impl Fn(&Function<u32, u64>, &Cx, u32) -> u64 + Send + Sync + 'static,
) -> Function<u32, u64> {
    let cell: Arc<OnceLock<Function<u32, u64>>> = Arc::default();
    let inner = cell.clone();
    let define = engine.define(name).cut_off_eq();
    let function = define.function(move |cx: &Cx, n: &u32| body(inner.get().unwrap(), cx, *n)).unwrap();
    cell.set(function.clone()).unwrap();
    function
}

#[test]
fn a_chain_of_a_million_is_marked_verified_and_recomputed_on_a_small_stack() {
    let test = || {
        let engine = Engine::new();
        let base = engine.source("base", |_: &()| 2_u64).unwrap();
        let seen = base.clone();
        let chain = recursive(
            &engine,
            "chain",
            move |me, cx, n| if n == 0 { seen.get(cx, &()).unwrap() / 2 } else { me.get(cx, &(n - 1)).unwrap() + 1 },
        );
        for n in 0..MANY {
            chain.get(&engine, &n).unwrap();
        }
        let before = engine.stats();
        base.set(&(), 3);
        assert_eq!(engine.stats().marked - before.marked, u64::from(MANY) + 1, "I17, I20");
        assert_eq!(chain.get(&engine, &(MANY - 1)), Ok(u64::from(MANY)));
        let verified = engine.stats();
        assert_eq!((verified.computes - before.computes, verified.verified - before.verified), (1, u64::from(MANY) - 1), "I23");
        base.set(&(), 4);
        assert_eq!(chain.get(&engine, &(MANY - 1)), Ok(u64::from(MANY) + 1));
        engine.assert_consistent();
    };
    std::thread::Builder::new().stack_size(256 * 1024).spawn(test).unwrap().join().unwrap();
}

fn star(rays: u32) -> Engine {
    let engine = Engine::new();
    let hub = engine.source("hub", |_: &()| 1_u64).unwrap();
    let seen = hub.clone();
    let ray = recursive(&engine, "ray", move |_, cx, n| seen.get(cx, &()).unwrap() + u64::from(n));
    let sum = engine.function("sum", move |cx: &Cx, (): &()| (0..rays).map(|n| ray.get(cx, &n).unwrap()).sum::<u64>()).unwrap();
    let expected = |hub: u64| u64::from(rays) * hub + u64::from(rays) * u64::from(rays - 1) / 2;
    assert_eq!(sum.get(&engine, &()), Ok(expected(1)));
    let before = engine.stats().marked;
    hub.set(&(), 2);
    assert_eq!(engine.stats().marked - before, u64::from(rays) + 2, "I17: the hub, each ray once, the sum once");
    assert_eq!(sum.get(&engine, &()), Ok(expected(2)));
    assert_eq!(engine.stats().edges_live, 2 * rays as usize);
    engine
}

#[test]
fn a_star_from_one_to_a_million_and_back() {
    star(MANY).assert_consistent();
}

#[test]
fn a_ladder_with_two_to_the_64_paths_costs_its_128_nodes() {
    for threads in [1, 2] {
        let engine = Engine::builder().sweep_threads(threads).parallel_threshold(1).build();
        let base = engine.source("base", |_: &()| 1_u64).unwrap();
        let seen = base.clone();
        let ladder = recursive(&engine, "ladder", move |me, cx, n| {
            if n < 2 {
                return seen.get(cx, &()).unwrap();
            }
            let below = n / 2 * 2 - 2;
            me.get(cx, &below).unwrap().wrapping_add(me.get(cx, &(below + 1)).unwrap())
        });
        assert_eq!(ladder.get(&engine, &127), Ok(1 << 63));
        ladder.get(&engine, &126).unwrap();
        let before = engine.stats();
        base.set(&(), 3);
        assert_eq!(engine.stats().marked - before.marked, 129, "I17");
        assert_eq!(ladder.get(&engine, &127), Ok(3 << 63));
        assert_eq!(engine.stats().computes - before.computes, 127, "I22");
        engine.assert_consistent();
    }
}

#[test]
fn a_batch_of_many_sets_costs_what_its_sets_cost() {
    let engine = Engine::new();
    let cells = engine.source("cells", |_: &u32| 0_u64).unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    let worker = {
        let (engine, cells) = (engine.clone(), cells.clone());
        std::thread::spawn(move || {
            engine.batch(|batch| {
                for n in 0..200_000 {
                    batch.set(&cells, &n, 1);
                }
                for n in 0..200_000 {
                    batch.set(&cells, &n, 2);
                }
            });
            let _ = done.send(());
        })
    };
    // A quadratic batch takes minutes; a linear one a fraction of a second.
    ended.recv_timeout(Duration::from_secs(15)).expect("400,000 sets in one batch take too long");
    worker.join().unwrap();
    assert!((0..200_000).all(|n| cells.get(&engine, &n) == Ok(2)), "the last set of a key wins");
    assert_eq!(engine.commit().get(), 1);
    engine.assert_consistent();
}

#[test]
fn what_a_long_pin_kept_is_freed_by_collect_once_it_is_gone() {
    let engine = Engine::new();
    let words = engine.source("words", |n: &u32| n.to_string()).unwrap();
    let idle = Arc::new(std::sync::Barrier::new(2));
    let other = {
        let (engine, idle) = (engine.clone(), idle.clone());
        std::thread::spawn(move || {
            drop(engine.pin());
            idle.wait();
            // Alive and idle.
            idle.wait();
        })
    };
    idle.wait();
    words.set(&0, "first".to_string());
    let pin = engine.pin();
    let first = words.peek(&pin, &0).unwrap();
    for round in 0..20_000 {
        words.set(&0, round.to_string());
    }
    engine.collect();
    assert_eq!(*first, "first", "a borrowed value is as it was");
    assert!(engine.stats().retired > 0);
    drop(pin);
    engine.collect();
    assert_eq!(engine.stats().retired, 0, "I31: no pin is left, so nothing may wait");
    idle.wait();
    other.join().unwrap();
}

#[test]
fn dead_edges_are_bounded_when_dependencies_flip_back_and_forth() {
    let engine = Engine::new();
    let side = engine.source("side", |_: &()| 0_u32).unwrap();
    let values = engine.source("values", |_: &u32| 1_u64).unwrap();
    let (which, read) = (side.clone(), values.clone());
    let flip = recursive(&engine, "flip", move |_, cx, n| {
        let side = which.get(cx, &()).unwrap() % 2;
        read.get(cx, &side).unwrap() + u64::from(n)
    });
    let readers = 500;
    for round in 0..200 {
        side.set(&(), round);
        for n in 0..readers {
            flip.get(&engine, &n).unwrap();
        }
        let stats = engine.stats();
        assert_eq!(stats.edges_live, 2 * readers as usize);
        assert!(stats.edges_stale <= 2 * stats.edges_live + 64, "I13: {} stale edges in round {round}", stats.edges_stale);
    }
    engine.assert_consistent();
}

/// A pool that steals jobs while it waits would run the second job on the stack of the first, below its place in the queue of
/// sweeps, and never end.
#[test]
fn wide_sweeps_from_a_one_thread_rayon_pool_do_not_deadlock() {
    let engine = Engine::builder().sweep_threads(2).parallel_threshold(1).build();
    let hubs = engine.source("hubs", |_: &u32| 0_u64).unwrap();
    let seen = hubs.clone();
    let inner = recursive(&engine, "inner", move |_, cx, n| seen.get(cx, &(n % 2)).unwrap());
    let below = inner.clone();
    let outer = recursive(&engine, "outer", move |_, cx, n| below.get(cx, &n).unwrap());
    let width = 4_000;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    let finished = Arc::new(AtomicU64::new(0));
    for round in 1..=20_u64 {
        for n in 0..width {
            outer.get(&engine, &n).unwrap();
        }
        for hub in 0..2 {
            let (hubs, done, finished) = (hubs.clone(), done.clone(), finished.clone());
            pool.spawn(move || {
                // Parallel work of the user's around it, so that there is something to steal.
                rayon::join(|| hubs.set(&hub, round), || finished.fetch_add(1, Relaxed));
                done.send(()).unwrap();
            });
        }
        hubs.invalidate(&0);
        for _ in 0..2 {
            ended.recv_timeout(Duration::from_secs(30)).expect("two jobs in a one-thread pool dead-lock");
        }
        assert!((0..width).all(|n| outer.existing(&n).is_none()), "I2");
    }
    engine.assert_consistent();
}
