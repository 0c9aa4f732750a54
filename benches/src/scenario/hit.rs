//! A cached value looked up by key, beside a `std::HashMap` with ahash that nobody writes to.
//!
//! Conditions: two readers, uniform random keys unless the row says otherwise, values summed, our pin renewed every 1,000
//! reads; the map needs no guard. `hit/get` and `async-hit` hold no pin: each lookup stands for itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wellspring::{AsyncFunction, Engine, Function, Source};

use super::Scenario;
use crate::drive::Driver;
use crate::keys::{Dice, Spread, Walk, indices, names, value_of};
use crate::rounds::{alternate, throughput, throughput_beside};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "hit/u64/1k", run: |name, plan| peek_u64(name, plan, 1_000, Spread::Uniform) },
    Scenario { name: "hit/u64/100k", run: |name, plan| peek_u64(name, plan, 100_000, Spread::Uniform) },
    Scenario { name: "hit/u64/1m", run: |name, plan| peek_u64(name, plan, 1_000_000, Spread::Uniform) },
    Scenario { name: "hit/string/1k", run: peek_string },
    Scenario { name: "hit/zipf/1m", run: |name, plan| peek_u64(name, plan, 1_000_000, Spread::Zipf) },
    Scenario { name: "hit/one-key", run: |name, plan| peek_u64(name, plan, 1_000, Spread::One) },
    Scenario { name: "hit/get/u64/1k", run: get },
    Scenario { name: "hit-with-mutator/u64/1k", run: with_mutator },
    Scenario { name: "async-hit/u64/1k", run: async_get },
];

/// The bound: a map that is never written while it is read.
pub type Bound<K> = HashMap<K, u64, ahash::RandomState>;

/// Said of the bound in every row.
pub const BOUND: &str = "std HashMap + ahash, read-only";

/// A `u64` that the engine keeps behind a pointer, like any value too large for the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boxed(pub u64);

/// A function over `0..count` with every value computed.
pub fn filled(count: u32) -> (Engine, Function<u64, u64>) {
    let engine = Engine::new();
    let function = engine.function("value", |_, &key: &u64| value_of(key)).expect("the name is free");
    for key in 0..u64::from(count) {
        assert_eq!(function.get(&engine, &key), Ok(value_of(key)));
    }
    (engine, function)
}

/// The bound over the same pairs.
pub fn bound(count: u32) -> Bound<u64> {
    (0..u64::from(count)).map(|key| (key, value_of(key))).collect()
}

/// The walks of the readers, one list each.
pub fn walks(threads: usize, spread: Spread, count: u32) -> Vec<Vec<u32>> {
    (0..threads).map(|thread| indices(spread, count, 40 + thread as u64)).collect()
}

/// A reader of ours: [`crate::PIN_READS`] reads by key under one pin a call.
pub fn peeker<'a>(engine: &'a Engine, function: &'a Function<u64, u64>, walk: &'a [u32]) -> impl FnMut() -> u64 + 'a {
    let mut walk = Walk::new(walk);
    move || {
        let pin = engine.pin();
        let mut sum = 0u64;
        for &index in walk.slice() {
            sum = sum.wrapping_add(*function.peek(&pin, &u64::from(index)).expect("every key is cached"));
        }
        sum
    }
}

/// A reader of the bound.
pub fn map_reader<'a>(map: &'a Bound<u64>, walk: &'a [u32]) -> impl FnMut() -> u64 + 'a {
    let mut walk = Walk::new(walk);
    move || walk.slice().iter().fold(0u64, |sum, &index| sum.wrapping_add(map[&u64::from(index)]))
}

fn peek_u64(name: &str, plan: Plan, count: u32, spread: Spread) -> Vec<Row> {
    let (engine, function) = filled(count);
    let map = bound(count);
    let walks = walks(plan.threads(), spread, count);
    vec![versus_map(name, plan, |thread| peeker(&engine, &function, &walks[thread]), |thread| map_reader(&map, &walks[thread]))]
}

fn versus_map<A: FnMut() -> u64, B: FnMut() -> u64>(
    name: &str,
    plan: Plan,
    ours: impl Fn(usize) -> A + Sync,
    theirs: impl Fn(usize) -> B + Sync,
) -> Row {
    let (threads, time) = (plan.threads(), plan.slice());
    let [ours, theirs] = alternate(plan.rounds(), [&mut || throughput(threads, time, &ours), &mut || throughput(threads, time, &theirs)]);
    Row::versus(name, threads, Unit::MILLIONS, &ours, BOUND, &theirs)
}

/// `String` keys of 16 to 24 bytes, looked up with a `&str`.
fn peek_string(name: &str, plan: Plan) -> Vec<Row> {
    let names = names(1_000);
    let engine = Engine::new();
    let function = engine.function("length", |_, key: &String| value_of(key.len() as u64)).expect("the name is free");
    for name in &names {
        assert_eq!(function.get(&engine, name.as_str()), Ok(value_of(name.len() as u64)));
    }
    let map: Bound<String> = names.iter().map(|name| (name.clone(), value_of(name.len() as u64))).collect();
    let walks = walks(plan.threads(), Spread::Uniform, 1_000);
    let row = versus_map(
        name,
        plan,
        |thread| {
            let mut walk = Walk::new(&walks[thread]);
            let (engine, function, names) = (&engine, &function, &names);
            move || {
                let pin = engine.pin();
                let mut sum = 0u64;
                for &index in walk.slice() {
                    let key = names[index as usize].as_str();
                    sum = sum.wrapping_add(*function.peek(&pin, key).expect("every key is cached"));
                }
                sum
            }
        },
        |thread| {
            let mut walk = Walk::new(&walks[thread]);
            let (map, names) = (&map, &names);
            move || walk.slice().iter().fold(0u64, |sum, &index| sum.wrapping_add(lookup(map, names[index as usize].as_str())))
        },
    );
    vec![row.bar(Bar::Ratio(0.70))]
}

fn lookup<K: Hash + Eq + std::borrow::Borrow<str>>(map: &Bound<K>, key: &str) -> u64 {
    map[key]
}

/// Through `get`, no pin held: once with a value that lives in the column, once with one behind a pointer.
fn get(name: &str, plan: Plan) -> Vec<Row> {
    let (engine, inline) = filled(1_000);
    let boxed = engine.function("boxed", |_, &key: &u64| Boxed(value_of(key))).expect("the name is free");
    for key in 0..1_000 {
        assert_eq!(boxed.get(&engine, &key), Ok(Boxed(value_of(key))));
    }
    let map = bound(1_000);
    let walks = walks(plan.threads(), Spread::Uniform, 1_000);
    let theirs = |thread: usize| map_reader(&map, &walks[thread]);
    let inline = versus_map(name, plan, |thread| getter(&engine, &inline, &walks[thread], |value| value), theirs);
    let boxed_name = format!("{name}/boxed");
    let boxed = versus_map(&boxed_name, plan, |thread| getter(&engine, &boxed, &walks[thread], |Boxed(value)| value), theirs);
    vec![inline.bar(Bar::Ratio(0.60)), boxed.bar(Bar::Ratio(0.30))]
}

/// A reader of ours that asks with `get`.
pub fn getter<'a, V: Clone + Send + Sync + 'static>(
    engine: &'a Engine,
    function: &'a Function<u64, V>,
    walk: &'a [u32],
    number: impl Fn(V) -> u64 + 'a,
) -> impl FnMut() -> u64 + 'a {
    let mut walk = Walk::new(walk);
    move || {
        let mut sum = 0u64;
        for &index in walk.slice() {
            let value = function.get(engine, &u64::from(index)).expect("every key is cached");
            sum = sum.wrapping_add(number(value));
        }
        sum
    }
}

/// Two readers, and a mutator that makes a random key stale 100 times a second; a reader that finds nothing under its pin
/// computes the value again. First the mutator invalidates the key itself; in the second row it sets a source that the key
/// reads, so that the engine holds twice the nodes, each source next to its reader. The map beside it is never written.
fn with_mutator(name: &str, plan: Plan) -> Vec<Row> {
    let (engine, function) = filled(1_000);
    let invalidated = beside_mutator(name, plan, &engine, &function, |dice| {
        function.invalidate(&u64::from(dice.below(1_000)));
    });

    let engine = Engine::new();
    let source: Source<u64, u64> = engine.source("row", |&key: &u64| value_of(key)).expect("the name is free");
    let function = engine
        .function("value", {
            let source = source.clone();
            move |cx, key: &u64| source.get(cx, key).map_or(0, |row| row.wrapping_add(1))
        })
        .expect("the name is free");
    for key in 0..1_000 {
        assert_eq!(function.get(&engine, &key), Ok(value_of(key) + 1));
    }
    let over_sources = format!("{name}/over-sources");
    let set = beside_mutator(&over_sources, plan, &engine, &function, |dice| {
        source.set(&u64::from(dice.below(1_000)), dice.roll() >> 8);
    });
    vec![invalidated.bar(Bar::Both(0.70, 260.0, 340.0)), set]
}

fn beside_mutator(name: &str, plan: Plan, engine: &Engine, function: &Function<u64, u64>, update: impl Fn(&mut Dice) + Sync) -> Row {
    let map = bound(1_000);
    let walks = walks(plan.threads(), Spread::Uniform, 1_000);
    let (threads, time) = (plan.threads(), plan.slice());
    let (updates, recomputed) = (AtomicU64::new(0), AtomicU64::new(0));
    let ours = |thread: usize| {
        let mut walk = Walk::new(&walks[thread]);
        let recomputed = &recomputed;
        move || {
            let pin = engine.pin();
            let mut sum = 0u64;
            for &index in walk.slice() {
                let key = u64::from(index);
                let value = match function.peek(&pin, &key) {
                    Some(value) => *value,
                    None => compute_again(engine, function, key, recomputed),
                };
                sum = sum.wrapping_add(value);
            }
            sum
        }
    };
    let [ours, theirs] = alternate(
        plan.rounds(),
        [&mut || throughput_beside(threads, time, ours, |stop| mutate(stop, &update, &updates)), &mut || {
            throughput(threads, time, |thread| map_reader(&map, &walks[thread]))
        }],
    );
    Row::versus(name, threads, Unit::MILLIONS, &ours, BOUND, &theirs).note(format!(
        "{} updates, {} recomputed",
        updates.into_inner(),
        recomputed.into_inner()
    ))
}

/// Out of line, since it is taken twice in a hundred million reads.
#[cold]
#[inline(never)]
fn compute_again(engine: &Engine, function: &Function<u64, u64>, key: u64, recomputed: &AtomicU64) -> u64 {
    recomputed.fetch_add(1, Ordering::Relaxed);
    function.get(engine, &key).expect("the body does not fail")
}

/// Updates a random key every 10 ms, on schedule, until told to stop.
fn mutate(stop: &AtomicBool, update: &impl Fn(&mut Dice), updates: &AtomicU64) {
    let mut dice = Dice::new(updates.load(Ordering::Relaxed));
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        update(&mut dice);
        updates.fetch_add(1, Ordering::Relaxed);
        due += Duration::from_millis(10);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// An async function's hit: the future is ready at its first poll.
fn async_get(name: &str, plan: Plan) -> Vec<Row> {
    let engine = Engine::new();
    let function: AsyncFunction<u64, u64> =
        engine.async_function("value", |_, key: u64| async move { value_of(key) }).expect("the name is free");
    let driver = Driver::new();
    for key in 0..1_000 {
        assert_eq!(driver.run(function.get(&engine, &key)), Ok(value_of(key)));
    }
    let map = bound(1_000);
    let walks = walks(plan.threads(), Spread::Uniform, 1_000);
    let row = versus_map(
        name,
        plan,
        |thread| {
            let mut walk = Walk::new(&walks[thread]);
            let (engine, function, driver) = (&engine, &function, Driver::new());
            move || {
                let mut sum = 0u64;
                for &index in walk.slice() {
                    let value = driver.run(function.get(engine, &u64::from(index)));
                    sum = sum.wrapping_add(value.expect("every key is cached"));
                }
                sum
            }
        },
        |thread| map_reader(&map, &walks[thread]),
    );
    vec![row]
}
