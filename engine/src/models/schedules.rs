//! shuttle: the whole engine under seeded schedules (PCT), threads and tasks together.

use shuttle::scheduler::PctScheduler;
use shuttle::{Config, Runner, thread};

use crate::flight::block_on;
use crate::sync::Arc;
use crate::{AsyncFunction, Cx, Define, Engine, Function, Source};

/// Depth and schedules as salsa uses them, scaled to the time CI has. `WELLSPRING_SHUTTLE` multiplies the schedules.
fn schedules(check: impl Fn() + Send + Sync + 'static) {
    let times: usize = std::env::var("WELLSPRING_SHUTTLE").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut config = Config::new();
    config.stack_size = 0x4_0000;
    let check = Arc::new(check);
    for seed in 0..4 {
        let check = check.clone();
        let scheduler = PctScheduler::new_from_seed(0x5eed + seed, 5, 250 * times);
        Runner::new(scheduler, config.clone()).run(move || check());
    }
}

/// Two counters, their parities, and a total over both: a diamond with a cut-off in it.
struct Shop {
    engine: Engine,
    counter: Source<u8, u64>,
    parity: Function<u8, u64>,
    total: Function<(), u64>,
}

fn shop() -> Arc<Shop> {
    shop_over(|define| define)
}

fn shop_over(counter: impl FnOnce(Define<u8, u64>) -> Define<u8, u64>) -> Arc<Shop> {
    let engine = Engine::builder().sweep_threads(2).parallel_threshold(1).build();
    let counter = counter(engine.define("counter").cut_off_eq()).source(|_: &u8| 0_u64).expect("a free name");
    let parity = {
        let counter = counter.clone();
        let body = move |cx: &Cx, key: &u8| counter.get(cx, key).expect("a value") % 2;
        engine.define("parity").cut_off_eq().function(body).expect("a free name")
    };
    let total = {
        let (counter, parity) = (counter.clone(), parity.clone());
        let body = move |cx: &Cx, _: &()| {
            let odd: u64 = (0..2).map(|key| parity.get(cx, &key).expect("a value")).sum();
            let sum: u64 = (0..2).map(|key| counter.get(cx, &key).expect("a value")).sum();
            sum * 10 + odd
        };
        engine.define("total").cut_off_eq().function(body).expect("a free name")
    };
    Arc::new(Shop { engine, counter, parity, total })
}

fn settled(shop: &Shop) {
    let counts: Vec<u64> = (0..2).map(|key| shop.counter.get(&shop.engine, &key).expect("a value")).collect();
    let odd: u64 = counts.iter().map(|count| count % 2).sum();
    assert_eq!(shop.total.get(&shop.engine, &()), Ok(counts.iter().sum::<u64>() * 10 + odd), "I1 at quiescence");
    shop.engine.collect();
    shop.engine.assert_consistent();
}

#[test]
fn a_reader_that_starts_after_a_set_returned_never_sees_the_old_total() {
    never_sees_the_old_total(shop);
}

/// `total` reads the counters themselves and through `parity`: its verification passes over them while its parities are looked at.
#[test]
fn a_durable_source_that_changes_is_never_passed_over() {
    never_sees_the_old_total(|| shop_over(Define::durable));
}

fn never_sees_the_old_total(shop: impl Fn() -> Arc<Shop> + Send + Sync + 'static) {
    schedules(move || {
        let shop = shop();
        let writers: Vec<_> = (0..2_u8)
            .map(|key| {
                let shop = shop.clone();
                thread::spawn(move || {
                    for count in 1..3_u64 {
                        shop.counter.set(&key, count);
                        let total = shop.total.get(&shop.engine, &()).expect("a value");
                        assert!(total / 10 >= count, "I2: total {total} after the set to {count} returned");
                    }
                })
            })
            .collect();
        let reader = {
            let shop = shop.clone();
            thread::spawn(move || {
                let mut last = 0;
                for _ in 0..3 {
                    let total = shop.total.get(&shop.engine, &()).expect("a value") / 10;
                    assert!(total >= last, "I3: {total} after {last}");
                    last = total;
                    let parity = shop.parity.get(&shop.engine, &0).expect("a value");
                    assert!(parity <= 1);
                }
            })
        };
        for writer in writers {
            writer.join().expect("no panic");
        }
        reader.join().expect("no panic");
        settled(&shop);
    });
}

#[test]
fn a_batch_is_one_commit_whoever_sweeps_it() {
    schedules(|| {
        let shop = shop();
        shop.total.get(&shop.engine, &()).expect("a value");
        let writers: Vec<_> = (1..3_u64)
            .map(|count| {
                let shop = shop.clone();
                thread::spawn(move || {
                    let commit = shop.engine.batch(|batch| {
                        batch.set(&shop.counter, &0, count);
                        batch.set(&shop.counter, &1, count);
                        batch.invalidate(&shop.parity, &0);
                    });
                    assert!(shop.engine.commit() >= commit);
                    assert!(shop.total.get(&shop.engine, &()).expect("a value") / 10 >= 2, "I2 for a batch");
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        settled(&shop);
    });
}

#[test]
fn a_key_removed_beside_its_readers_leaves_nothing_behind() {
    schedules(|| {
        let shop = shop();
        let remover = {
            let shop = shop.clone();
            thread::spawn(move || {
                shop.parity.remove(&0);
                shop.total.remove(&());
            })
        };
        let reader = {
            let shop = shop.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    shop.total.get(&shop.engine, &()).expect("a value");
                }
            })
        };
        shop.counter.set(&0, 4);
        assert!(shop.total.get(&shop.engine, &()).expect("a value") >= 40);
        remover.join().expect("no panic");
        reader.join().expect("no panic");
        settled(&shop);
    });
}

/// A function that awaits another and yields once.
fn awaiting() -> (Engine, Source<u8, u64>, AsyncFunction<u8, u64>) {
    let engine = Engine::builder().sweep_threads(1).build();
    let counter = engine.source("counter", |_: &u8| 0_u64).expect("a free name");
    let inner = {
        let counter = counter.clone();
        let body = move |cx: Cx, key: u8| {
            let counter = counter.clone();
            async move {
                let before = counter.get(&cx, &key).expect("a value");
                shuttle::future::yield_now().await;
                before
            }
        };
        engine.async_function("inner", body).expect("a free name")
    };
    let outer = {
        let body = move |cx: Cx, key: u8| {
            let inner = inner.clone();
            async move { inner.get(&cx, &key).await.expect("a value") + 100 }
        };
        engine.async_function("outer", body).expect("a free name")
    };
    (engine, counter, outer)
}

#[test]
fn tasks_and_threads_share_flights_and_see_every_change() {
    schedules(|| {
        let (engine, counter, outer) = awaiting();
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (engine, outer) = (engine.clone(), outer.clone());
                shuttle::future::spawn(async move { outer.get(&engine, &0).await.expect("a value") })
            })
            .collect();
        let thread = {
            let (engine, counter, outer) = (engine.clone(), counter.clone(), outer.clone());
            thread::spawn(move || {
                counter.set(&0, 7);
                assert_eq!(outer.wait(&engine, &0), Ok(107), "I2 for a thread that waits");
            })
        };
        for task in tasks {
            let seen = shuttle::future::block_on(task).expect("no panic");
            assert!(seen == 100 || seen == 107);
        }
        thread.join().expect("no panic");
        assert_eq!(outer.wait(&engine, &0), Ok(107));
        engine.assert_consistent();
    });
}

#[test]
fn a_waiter_that_leaves_cancels_nobody_else() {
    schedules(|| {
        let (engine, _, outer) = awaiting();
        let leaver = {
            let (engine, outer) = (engine.clone(), outer.clone());
            thread::spawn(move || {
                let mut read = outer.get(&engine, &0);
                let waker = std::task::Waker::noop();
                let mut cx = std::task::Context::from_waker(waker);
                let _ = std::pin::Pin::new(&mut read).poll(&mut cx);
                thread::yield_now();
                drop(read);
            })
        };
        let stayer = {
            let (engine, outer) = (engine.clone(), outer.clone());
            thread::spawn(move || assert_eq!(block_on(outer.get(&engine, &0)), Ok(100), "I26"))
        };
        leaver.join().expect("no panic");
        stayer.join().expect("no panic");
        engine.assert_consistent();
    });
}

#[test]
fn two_threads_that_would_wait_for_each_other_are_told_of_the_cycle() {
    schedules(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let cell: Arc<std::sync::OnceLock<Function<u8, u64>>> = Arc::default();
        let other = {
            let cell = cell.clone();
            // A cycle is a fault for whoever meets it; the bodies answer it with a number of their own.
            let body = move |cx: &Cx, key: &u8| cell.get().map_or(0, |other| other.get(cx, &(1 - key)).unwrap_or(1000)) + 1;
            engine.function("other", body).expect("a free name")
        };
        assert!(cell.set(other.clone()).is_ok());
        let threads: Vec<_> = (0..2_u8)
            .map(|key| {
                let (engine, other) = (engine.clone(), other.clone());
                thread::spawn(move || other.get(&engine, &key).expect("a value"))
            })
            .collect();
        for thread in threads {
            assert!(thread.join().expect("no panic") > 1000, "I28");
        }
        engine.assert_consistent();
    });
}

#[test]
fn a_watched_generation_tells_its_watcher_exactly_of_its_end() {
    schedules(|| {
        let shop = shop();
        let generation = shop.total.computed(&shop.engine, &()).expect("a value");
        let watcher = thread::spawn(move || block_on(generation.invalidated()));
        shop.counter.set(&1, 3);
        watcher.join().expect("I34: woken");
        settled(&shop);
    });
}

#[test]
fn a_body_that_read_outside_data_before_its_invalidation_is_not_served_after_it() {
    use shuttle::sync::atomic::{AtomicU64, Ordering};
    schedules(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let row = Arc::new(AtomicU64::new(1));
        let function = {
            let row = row.clone();
            let body = move |_: &Cx, _: &()| {
                let seen = row.load(Ordering::SeqCst);
                thread::yield_now();
                seen
            };
            engine.function("row", body).expect("a free name")
        };
        let reader = {
            let (engine, function) = (engine.clone(), function.clone());
            thread::spawn(move || function.get(&engine, &()).map(drop))
        };
        row.store(2, Ordering::SeqCst);
        function.invalidate(&());
        assert_eq!(function.get(&engine, &()), Ok(2), "P6: the old row after its invalidation returned");
        reader.join().expect("no panic").expect("a value");
        assert_eq!(function.get(&engine, &()), Ok(2), "I5: left consistent with the old row");
        engine.assert_consistent();
    });
}

#[test]
fn a_watcher_armed_while_a_sweep_runs_is_woken_or_sees_the_mark() {
    schedules(|| {
        let shop = shop();
        shop.total.get(&shop.engine, &()).expect("a value");
        let follower = {
            let shop = shop.clone();
            // Arms beside each of the sweeps; one it misses leaves it asleep for good, which shuttle calls a deadlock.
            thread::spawn(move || {
                let mut changes = shop.total.changes(&());
                loop {
                    let total = *block_on(changes.next()).expect("endless").expect("a value").value();
                    if total / 10 == 3 {
                        return;
                    }
                }
            })
        };
        shop.counter.set(&1, 1);
        shop.counter.set(&0, 2);
        follower.join().expect("I34: woken");
        settled(&shop);
    });
}

#[test]
fn a_callback_is_told_the_last_value_and_nothing_after_its_end() {
    schedules(|| {
        let shop = shop();
        let (tell, told) = shuttle::sync::mpsc::channel();
        let watch = shop.total.watch(&shop.engine, &(), move |total| tell.send(*total.expect("a value") / 10).expect("open"));
        let writer = {
            let shop = shop.clone();
            thread::spawn(move || drop(shop.counter.set(&1, 1)))
        };
        shop.counter.set(&0, 2);
        let mut last = 0;
        while last != 3 {
            let total = told.recv().expect("I34: told");
            assert!(total > last || total == 0, "I35");
            last = total;
        }
        writer.join().expect("no panic");
        drop(watch);
        shop.counter.set(&0, 5);
        assert!(told.recv().is_err(), "I36");
        settled(&shop);
    });
}
