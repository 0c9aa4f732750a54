//! shuttle: snapshots, eviction, timers and refreshes beside commits.

use std::time::Duration;

use shuttle::thread;

use super::schedules::schedules;
use crate::engine::Spawner;
use crate::flight::block_on;
use crate::sync::{Arc, Mutex, lock};
use crate::{Capacity, Cx, Engine, Function, ManualClock, Source};
use shuttle::sync::atomic::{AtomicU64, Ordering};

const MS: Duration = Duration::from_millis(1);

/// Two counters, a half of each that may be evicted, and the total of both.
struct Shop {
    engine: Engine,
    counter: Source<u8, u64>,
    half: Function<u8, u64>,
    total: Function<(), u64>,
}

fn shop(capacity: usize) -> Arc<Shop> {
    let engine = Engine::builder().sweep_threads(1).build();
    let counter = engine.source("counter", |_: &u8| 0_u64).expect("a free name");
    let half = {
        let counter = counter.clone();
        let body = move |cx: &Cx, key: &u8| counter.get(cx, key).expect("a value") / 2;
        engine.define("half").capacity(Capacity::entries(capacity)).function(body).expect("a free name")
    };
    let total = {
        let half = half.clone();
        let body = move |cx: &Cx, _: &()| (0..2).map(|key| half.get(cx, &key).expect("a value")).sum();
        engine.define("total").cut_off_eq().function(body).expect("a free name")
    };
    Arc::new(Shop { engine, counter, half, total })
}

fn settled(shop: &Shop) {
    let halves: u64 = (0..2).map(|key| shop.counter.get(&shop.engine, &key).expect("a value") / 2).sum();
    assert_eq!(shop.total.get(&shop.engine, &()), Ok(halves), "I30 at quiescence");
    shop.engine.collect();
    shop.engine.assert_consistent();
}

#[test]
fn a_snapshot_beside_a_batch_sees_all_of_it_or_nothing() {
    schedules(|| {
        let shop = shop(10);
        shop.total.get(&shop.engine, &()).expect("a value");
        let writer = {
            let shop = shop.clone();
            thread::spawn(move || {
                for count in 1..3_u64 {
                    shop.engine.batch(|batch| (0..2).for_each(|key| batch.set(&shop.counter, &key, count * 2)));
                }
            })
        };
        for _ in 0..2 {
            let (counts, total) = shop
                .engine
                .snapshot(|s| {
                    let count = |key: u8| shop.counter.get(s, &key).expect("a value");
                    ([count(0), count(1)], shop.total.get(s, &()).expect("a value"))
                })
                .expect("fewer commits than tries");
            assert_eq!(counts[0], counts[1], "I4: half a batch");
            assert_eq!(total, counts[0], "I4: a total of another commit");
            let fresh = shop.total.get_fresh(&shop.engine, &()).expect("fewer commits than tries");
            assert!(fresh % 2 == 0 && fresh >= total, "I1: {fresh} after {total}");
        }
        writer.join().expect("no panic");
        settled(&shop);
    });
}

#[test]
fn a_read_of_at_least_a_commit_is_never_older_than_it() {
    schedules(|| {
        let shop = shop(1);
        let told = Arc::new(Mutex::new(None));
        let writer = {
            let (shop, told) = (shop.clone(), told.clone());
            thread::spawn(move || {
                for count in 1..3_u64 {
                    let commit = shop.counter.set(&0, count * 2);
                    *lock(&told) = Some((count, commit));
                }
            })
        };
        for _ in 0..3 {
            let now = *lock(&told);
            if let Some((least, commit)) = now {
                let seen = shop.half.get_at_least(&shop.engine, &0, commit).expect("a commit of this engine");
                assert!(seen >= least, "I6: {seen} is older than {commit:?}, which set {least}");
            } else {
                shop.half.get(&shop.engine, &0).expect("a value");
            }
        }
        writer.join().expect("no panic");
        settled(&shop);
    });
}

#[test]
fn a_reader_after_a_set_sees_it_whatever_is_evicted_meanwhile() {
    schedules(|| {
        let shop = shop(1);
        shop.total.get(&shop.engine, &()).expect("a value");
        let writer = {
            let shop = shop.clone();
            thread::spawn(move || {
                for count in 1..3_u64 {
                    shop.counter.set(&0, count * 2);
                    let total = shop.total.get(&shop.engine, &()).expect("a value");
                    assert!(total >= count, "I2: total {total} after the set to {count} returned");
                }
            })
        };
        let evictor = {
            let shop = shop.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    shop.half.shrink_to(0);
                }
            })
        };
        let reader = {
            let shop = shop.clone();
            thread::spawn(move || {
                for key in [0, 1, 0] {
                    assert!(shop.half.get(&shop.engine, &key).expect("a value") <= 2);
                }
                shop.total.get_fresh(&shop.engine, &()).expect("fewer commits than tries");
            })
        };
        for thread in [writer, evictor, reader] {
            thread.join().expect("no panic");
        }
        settled(&shop);
    });
}

#[test]
fn a_slot_that_eviction_freed_never_shows_its_next_tenant() {
    schedules(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let define = engine.define("tenth").capacity(Capacity::entries(1));
        let tenth = define.function(|_: &Cx, key: &u8| u64::from(*key) * 10).expect("a free name");
        tenth.get(&engine, &1).expect("a value");
        let node = tenth.node(&1).expect("a node");
        let threads: Vec<_> = (2..4_u8)
            .map(|key| {
                let (engine, tenth) = (engine.clone(), tenth.clone());
                thread::spawn(move || {
                    for key in [key, 1] {
                        assert_eq!(tenth.get(&engine, &key), Ok(u64::from(key) * 10));
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let seen = node.peek(&engine.pin()).map(|read| *read);
            assert!(matches!(seen, None | Some(10)), "I32: key 1 read as {seen:?}");
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
        engine.assert_consistent();
    });
}

#[test]
fn a_value_that_an_evicted_one_was_made_again_for_is_marked_first() {
    schedules(|| {
        let shop = shop(10);
        shop.total.get(&shop.engine, &()).expect("a value");
        // A second chance, then the values: `total` stands on two nodes without one.
        let rows = [0, 1].map(|key| shop.half.node(&key).expect("a node"));
        for node in &rows {
            let (slot, version) = (node.id().slot(), node.id().version());
            for _ in 0..2 {
                shop.half.data.evict_node(&shop.half.graph, slot, version, false);
            }
        }
        let readers: Vec<_> = (0..2_u8)
            .map(|key| {
                let shop = shop.clone();
                thread::spawn(move || {
                    assert!(shop.half.get(&shop.engine, &key).expect("a value") <= 1);
                    assert!(shop.total.get(&shop.engine, &()).expect("a value") <= 1);
                })
            })
            .collect();
        shop.counter.set(&0, 2);
        assert_eq!(shop.total.get(&shop.engine, &()), Ok(1), "I2");
        for reader in readers {
            reader.join().expect("no panic");
        }
        settled(&shop);
    });
}

/// Outside data behind a function that expires.
fn expiring() -> (Arc<ManualClock>, Engine, Arc<AtomicU64>, Function<(), (u64, Duration)>) {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().sweep_threads(1).clock(clock.clone()).build();
    let row = Arc::new(AtomicU64::new(1));
    let function = {
        let (row, clock) = (row.clone(), clock.clone());
        let body = move |_: &Cx, _: &()| {
            let seen = row.load(Ordering::SeqCst);
            (seen, crate::Clock::now(&*clock))
        };
        engine.define("row").expire_after(10 * MS).function(body).expect("a free name")
    };
    (clock, engine, row, function)
}

#[test]
fn a_ring_ends_the_value_whose_time_it_is_and_no_newer_one() {
    schedules(|| {
        let (clock, engine, row, function) = expiring();
        function.get(&engine, &()).expect("a value");
        let ringer = {
            let (clock, function) = (clock.clone(), function.clone());
            thread::spawn(move || {
                clock.advance(10 * MS);
                let served = function.existing(&()).map(|computed| computed.value().0);
                assert_ne!(served, Some(1), "the first value outlived its time");
            })
        };
        row.store(2, Ordering::SeqCst);
        function.invalidate(&());
        let (seen, began) = function.get(&engine, &()).expect("a value");
        let ended = crate::Clock::now(&*clock);
        assert_eq!(seen, 2, "I2: the old row after its invalidation returned");
        ringer.join().expect("no panic");
        let existing = function.existing(&()).is_some();
        if began == 10 * MS {
            assert!(existing, "I33: a value made at the time of the ring ended with the one before it");
        }
        if ended == Duration::ZERO {
            assert!(!existing, "I33: a value made before the ring outlived it");
        }
        clock.advance(10 * MS);
        assert!(function.existing(&()).is_none(), "I33: armed again");
        engine.assert_consistent();
    });
}

#[test]
fn of_two_wishes_at_once_the_earlier_counts() {
    schedules(|| {
        let (clock, engine, _, function) = expiring();
        function.get(&engine, &()).expect("a value");
        let threads: Vec<_> = [7, 3]
            .map(|delay| {
                let function = function.clone();
                thread::spawn(move || assert!(function.invalidate_after(&(), delay * MS)))
            })
            .into();
        for thread in threads {
            thread.join().expect("no panic");
        }
        clock.advance(2 * MS);
        assert!(function.existing(&()).is_some(), "I33: never early");
        clock.advance(MS);
        assert!(function.existing(&()).is_none(), "I33: the earlier wish");
        engine.assert_consistent();
    });
}

/// A thread for every task.
#[derive(Default)]
struct Threads(Mutex<Vec<thread::JoinHandle<()>>>);

impl Spawner for Threads {
    fn spawn(&self, future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
        let task = thread::spawn(move || block_on(future));
        lock(&self.0).push(task);
    }
}

#[test]
fn a_refresh_beside_a_set_never_brings_the_old_value_back() {
    schedules(|| {
        let (clock, threads) = (Arc::new(ManualClock::new()), Arc::new(Threads::default()));
        let engine = Engine::builder().sweep_threads(1).clock(clock.clone()).spawner(threads.clone()).build();
        let counter = engine.source("counter", |_: &u8| 0_u64).expect("a free name");
        let ahead = {
            let counter = counter.clone();
            let define = engine.define("ahead").expire_after(100 * MS).refresh_ahead(20 * MS);
            define.function(move |cx: &Cx, key: &u8| counter.get(cx, key).expect("a value") * 10).expect("a free name")
        };
        let above = {
            let ahead = ahead.clone();
            engine.function("above", move |cx: &Cx, key: &u8| ahead.get(cx, key).expect("a value") + 1).expect("a free name")
        };
        assert_eq!((above.get(&engine, &0), ahead.get(&engine, &0)), (Ok(1), Ok(0)));
        let ringer = {
            let clock = clock.clone();
            thread::spawn(move || clock.advance(80 * MS))
        };
        counter.set(&0, 5);
        assert_eq!(above.get(&engine, &0), Ok(51), "I2");
        counter.set(&0, 6);
        assert_eq!(ahead.get(&engine, &0), Ok(60), "I2");
        ringer.join().expect("no panic");
        let tasks = std::mem::take(&mut *lock(&threads.0));
        tasks.into_iter().for_each(|task| task.join().expect("no panic"));
        assert_eq!((ahead.get(&engine, &0), above.get(&engine, &0)), (Ok(60), Ok(61)), "I5");
        engine.collect();
        engine.assert_consistent();
    });
}
