//! Reads with a promise beside reads without one.
//!
//! `snapshot/unrelated`: one thread reads ten warm keys in `Engine::snapshot`, over and over, while another makes a
//! thousand commits a second, each a batch that sets ten other keys. The first row is the share of snapshots whose
//! closure ran once. The others are the time of a snapshot beside ten plain `get`s of the same keys, and beside ten
//! lookups under one read lock of a `RwLock<HashMap>` that another thread locks to write ten other keys a thousand times
//! a second. `fresh/hit`: two readers as in `hit/get`, with `get_fresh` and with `get_at_least` of the last commit,
//! beside `get`.

use std::cell::Cell;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use wellspring::{Engine, Function};

use super::Scenario;
use super::hit::{filled, getter, walks};
use crate::keys::{Spread, Walk, value_of};
use crate::rounds::{alternate, throughput, throughput_beside};
use crate::row::Bar;
use crate::{PIN_READS, Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "snapshot/unrelated", run: snapshot }, Scenario { name: "fresh/hit", run: fresh }];

const KEYS: u32 = 1_000;
/// Reads in a snapshot, and changes in a commit.
const TOGETHER: usize = 10;

/// Calls `change` a thousand times a second, on schedule, until told to stop.
fn every_millisecond(stop: &AtomicBool, made: &AtomicU64, mut change: impl FnMut(u64)) {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        change(made.fetch_add(1, Ordering::Relaxed));
        due += Duration::from_millis(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Snapshots a reader took, and how many of them took more than one run.
#[derive(Default)]
struct Tally {
    snapshots: AtomicU64,
    again: AtomicU64,
}

fn snapshot(name: &str, plan: Plan) -> Vec<Row> {
    let (engine, function) = filled(KEYS);
    let source = engine.source("row", |_: &u64| 0u64).expect("the name is free");
    for key in 0..TOGETHER as u64 {
        assert_eq!(source.get(&engine, &key), Ok(0));
    }
    let map =
        RwLock::new((0..u64::from(KEYS) + TOGETHER as u64).map(|key| (key, value_of(key))).collect::<HashMap<_, _, ahash::RandomState>>());
    let walk = &walks(1, Spread::Uniform, KEYS)[0];
    let (commits, writes, tally) = (AtomicU64::new(0), AtomicU64::new(0), Tally::default());
    let (busy, shares) = (Cell::new(Duration::ZERO), Cell::new(Vec::new()));

    let commit = |stop: &AtomicBool| {
        every_millisecond(stop, &commits, |turn| {
            engine.batch(|batch| (0..TOGETHER as u64).for_each(|key| batch.set(&source, &key, turn + 1)));
        });
    };
    let write = |stop: &AtomicBool| {
        every_millisecond(stop, &writes, |turn| {
            let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
            (0..TOGETHER as u64).for_each(|key| _ = map.insert(u64::from(KEYS) + key, turn));
        });
    };
    let each = |rate: f64| TOGETHER as f64 * 1_000.0 / rate;
    let [ours, plain, locked] = alternate(
        plan.rounds(),
        [
            &mut || {
                let before = [&tally.snapshots, &tally.again].map(|count| count.load(Ordering::Relaxed));
                let begun = Instant::now();
                let rate = throughput_beside(1, plan.slice(), |_| snapshots(&engine, &function, walk, &tally), commit);
                busy.set(busy.get() + begun.elapsed());
                let [taken, again] = [&tally.snapshots, &tally.again].map(|count| count.load(Ordering::Relaxed));
                let mut list = shares.take();
                list.push(100.0 - 100.0 * (again - before[1]) as f64 / (taken - before[0]) as f64);
                shares.set(list);
                each(rate)
            },
            &mut || each(throughput_beside(1, plan.slice(), |_| getter(&engine, &function, walk, |value| value), commit)),
            &mut || each(throughput_beside(1, plan.slice(), |_| under_lock(&map, walk), write)),
        ],
    );
    let [snapshots, again, commits] = [tally.snapshots, tally.again, commits].map(AtomicU64::into_inner);
    let note = format!("{again} of {snapshots} ran again");
    let time = format!("{name}/time");
    vec![
        Row::alone(name, 1, Unit::SHARE, &shares.into_inner(), "none: a lock never reads again").note(note).bar(Bar::AtLeast(99.0)),
        Row::versus(&time, 1, Unit::NANOS, &ours, "ten plain gets of ours, the same commits", &plain)
            .note(format!("ten reads each; {commits} commits in {} rounds of both", 2 * (plan.rounds() + 1))),
        Row::versus(&format!("{time}/rwlock"), 1, Unit::NANOS, &ours, "RwLock<HashMap>, one read lock for ten reads", &locked),
    ]
}

/// A reader of ours: [`PIN_READS`] reads a call, ten to a snapshot.
fn snapshots<'a>(engine: &'a Engine, function: &'a Function<u64, u64>, walk: &'a [u32], tally: &'a Tally) -> impl FnMut() -> u64 + 'a {
    let mut walk = Walk::new(walk);
    move || {
        let (mut sum, mut again) = (0u64, 0);
        for keys in walk.slice().chunks_exact(TOGETHER) {
            let mut runs = 0;
            let together = engine.snapshot(|asker| {
                runs += 1;
                let value = |&key: &u32| function.get(asker, &u64::from(key)).expect("every key is cached");
                keys.iter().fold(0u64, |sum, key| sum.wrapping_add(value(key)))
            });
            again += u64::from(runs > 1);
            sum = sum.wrapping_add(together.expect("nothing touches these keys"));
        }
        tally.snapshots.fetch_add((PIN_READS / TOGETHER) as u64, Ordering::Relaxed);
        tally.again.fetch_add(again, Ordering::Relaxed);
        sum
    }
}

fn under_lock<'a>(map: &'a RwLock<HashMap<u64, u64, ahash::RandomState>>, walk: &'a [u32]) -> impl FnMut() -> u64 + 'a {
    let mut walk = Walk::new(walk);
    move || {
        walk.slice().chunks_exact(TOGETHER).fold(0u64, |sum, keys| {
            let map = map.read().unwrap_or_else(PoisonError::into_inner);
            keys.iter().fold(sum, |sum, &key| sum.wrapping_add(map[&u64::from(key)]))
        })
    }
}

fn fresh(name: &str, plan: Plan) -> Vec<Row> {
    let (engine, function) = filled(KEYS);
    // A commit to have been told of.
    let commit = function.invalidate(&0);
    assert_eq!(function.get_fresh(&engine, &0), Ok(value_of(0)));
    let walks = walks(plan.threads(), Spread::Uniform, KEYS);
    let (threads, time) = (plan.threads(), plan.slice());
    let fresh = |key: u64| function.get_fresh(&engine, &key).expect("every key is cached");
    let at_least = |key: u64| function.get_at_least(&engine, &key, black_box(commit)).expect("every key is cached");
    let [fresh, at_least, plain] = alternate(
        plan.rounds(),
        [
            &mut || throughput(threads, time, |thread| reader(&walks[thread], fresh)),
            &mut || throughput(threads, time, |thread| reader(&walks[thread], at_least)),
            &mut || throughput(threads, time, |thread| getter(&engine, &function, &walks[thread], |value| value)),
        ],
    );
    let beside = "our own get";
    vec![
        Row::versus(name, threads, Unit::MILLIONS, &fresh, beside, &plain).note("get_fresh"),
        Row::versus(&format!("{name}/at-least"), threads, Unit::MILLIONS, &at_least, beside, &plain)
            .note("get_at_least of the last commit"),
    ]
}

fn reader<'a>(walk: &'a [u32], read: impl Fn(u64) -> u64 + 'a) -> impl FnMut() -> u64 + 'a {
    let mut walk = Walk::new(walk);
    move || walk.slice().iter().fold(0u64, |sum, &index| sum.wrapping_add(read(u64::from(index))))
}
