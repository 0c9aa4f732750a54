//! Which keys a bounded cache keeps: the share of reads it answers, beside moka and quick_cache with as many entries.
//!
//! Conditions: one thread reads a trace from end to end, first into an empty cache; a read that finds nothing computes
//! the value and stores it, by our `get`, moka's `get_with` and quick_cache's `get_or_insert_with`. `evict/zipf` draws
//! from zipf 0.99 over a million keys; `evict/baskets` is every line of the Complete Journey's baskets by time, read by
//! product: of the folder that `WELLSPRING_BASKETS` names, else the four weeks that the shop carries. Capacities are
//! shares of the keys there are. A figure is the hit ratio in percent of all reads, first ones included; what a read
//! costs, hit or miss, stands in the note. Ours and quick_cache decide the same way every time; moka's housekeeping also
//! goes by the clock.

use std::cell::RefCell;

use wellspring::{Capacity, Engine};

use super::Scenario;
use crate::keys::value_of;
use crate::rounds::{alternate_warm, median, nanos_each};
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "evict/zipf", run: zipf }, Scenario { name: "evict/baskets", run: baskets }];

/// What one pass over a trace gave: percent of reads answered, and nanoseconds a read.
#[derive(Clone, Copy, Debug)]
struct Pass {
    hits: f64,
    nanos: f64,
}

/// Reads the whole trace; `read` says how many values had to be made so far.
fn pass(trace: &[u32], mut read: impl FnMut(u64) -> u64, made: impl FnOnce() -> u64) -> Pass {
    let mut sum = 0u64;
    let nanos = nanos_each(trace.len(), || sum = trace.iter().fold(0, |sum, &key| sum.wrapping_add(read(u64::from(key)))));
    assert_eq!(sum, trace.iter().fold(0, |sum: u64, &key| sum.wrapping_add(value_of(u64::from(key)))), "a wrong value");
    Pass { hits: 100.0 * (1.0 - made() as f64 / trace.len() as f64), nanos }
}

fn ours(trace: &[u32], entries: usize) -> Pass {
    let engine = Engine::new();
    let define = engine.define("value").capacity(Capacity::entries(entries));
    let function = define.function(|_, &key: &u64| value_of(key)).expect("the name is free");
    let pass = pass(trace, |key| function.get(&engine, &key).expect("the body does not fail"), || engine.stats().computes);
    assert!(function.len() <= entries, "{} keys of {entries}", function.len());
    pass
}

fn zipf(name: &str, plan: Plan) -> Vec<Row> {
    let keys = 1_000_000;
    let trace = crate::keys::zipf(keys, if plan.quick { 400_000 } else { 10_000_000 }, 21);
    let note = format!("{} reads", trace.len());
    [1, 10].iter().flat_map(|&percent| at(name, plan, &trace, (percent, keys), &note)).collect()
}

fn baskets(name: &str, plan: Plan) -> Vec<Row> {
    match trace_of_baskets(plan) {
        Ok((trace, products, from)) => {
            let note = format!("{} lines, {products} products, {from}", trace.len());
            [1, 5, 10].iter().flat_map(|&percent| at(name, plan, &trace, (percent, products), &note)).collect()
        }
        Err(why) => vec![Row::skipped(name, Unit::SHARE, "moka and quick_cache", &why)],
    }
}

/// The rows of one capacity, `percent` of `keys`.
fn at(name: &str, plan: Plan, trace: &[u32], (percent, keys): (u32, u32), note: &str) -> Vec<Row> {
    let entries = keys as usize * percent as usize / 100;
    let rows = beside(&format!("{name}/{percent}%"), plan, trace, entries);
    rows.into_iter().map(|row| row.note(format!("{entries} entries, {note}"))).collect()
}

/// Rounds of every side: the hit ratios, and the median of the times.
fn rounds<const SIDES: usize>(plan: Plan, sides: [&dyn Fn() -> Pass; SIDES]) -> [(Vec<f64>, f64); SIDES] {
    let hits = [const { RefCell::new(Vec::new()) }; SIDES];
    let mut timed: [_; SIDES] = std::array::from_fn(|side| {
        let (hits, side) = (&hits[side], sides[side]);
        move || {
            let pass = side();
            hits.borrow_mut().push(pass.hits);
            pass.nanos
        }
    });
    let nanos = alternate_warm(plan.rounds(), plan.patience(), timed.each_mut().map(|side| side as &mut dyn FnMut() -> f64));
    std::array::from_fn(|side| (hits[side].take(), median(&nanos[side])))
}

#[cfg(not(feature = "peers"))]
fn beside(name: &str, plan: Plan, trace: &[u32], entries: usize) -> Vec<Row> {
    let [(hits, nanos)] = rounds(plan, [&|| ours(trace, entries)]);
    vec![
        Row::alone(name, 1, Unit::SHARE, &hits, format!("moka and quick_cache: {}", super::NOT_BUILT))
            .note(format!("{nanos:.0} ns a read")),
    ]
}

#[cfg(not(feature = "peers"))]
fn trace_of_baskets(_: Plan) -> Result<(Vec<u32>, u32, String), String> {
    Err(format!("the baskets' reader is {}", super::NOT_BUILT))
}

#[cfg(feature = "peers")]
use peers::{beside, trace_of_baskets};

#[cfg(feature = "peers")]
mod peers {
    use std::cell::Cell;
    use std::collections::HashMap;

    use ahash::RandomState;
    use wellspring_shop::data::Data;

    use super::{Pass, ours, pass, rounds};
    use crate::keys::value_of;
    use crate::{Plan, Row, Unit};

    /// The same hashes every time, so that what a peer evicts does not depend on luck.
    fn hasher() -> RandomState {
        RandomState::with_seeds(1, 2, 3, 4)
    }

    fn moka(trace: &[u32], entries: usize) -> Pass {
        let cache = moka::sync::Cache::builder().max_capacity(entries as u64).build_with_hasher(hasher());
        let made = Cell::new(0);
        let read = |key| {
            cache.get_with(key, || {
                made.set(made.get() + 1);
                value_of(key)
            })
        };
        pass(trace, read, || made.get())
    }

    fn quick_cache(trace: &[u32], entries: usize) -> Pass {
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        let cache = quick_cache::sync::Cache::with(entries, entries as u64, quick_cache::UnitWeighter, hasher(), lifecycle);
        let made = Cell::new(0);
        let read = |key| {
            let value = cache.get_or_insert_with(&key, || {
                made.set(made.get() + 1);
                Ok::<_, std::convert::Infallible>(value_of(key))
            });
            value.unwrap_or_else(|never| match never {})
        };
        pass(trace, read, || made.get())
    }

    pub(super) fn beside(name: &str, plan: Plan, trace: &[u32], entries: usize) -> Vec<Row> {
        let [(ours, nanos), moka, quick] =
            rounds(plan, [&|| ours(trace, entries), &|| moka(trace, entries), &|| quick_cache(trace, entries)]);
        let row = |peer: &str, named: &str, (hits, theirs): (Vec<f64>, f64)| {
            Row::versus(&format!("{name}/{peer}"), 1, Unit::SHARE, &ours, named, &hits)
                .note(format!("ours {nanos:.0} ns a read, {peer} {theirs:.0} ns"))
        };
        vec![row("moka", "moka::sync::Cache (W-TinyLFU)", moka), row("quick_cache", "quick_cache::sync::Cache (S3-FIFO)", quick)]
    }

    /// The products of every basket line by time, numbered from 0; how many there are, and where they come from.
    pub(super) fn trace_of_baskets(plan: Plan) -> Result<(Vec<u32>, u32, String), String> {
        let folder = std::env::var_os("WELLSPRING_BASKETS").filter(|_| !plan.quick);
        let (data, from) = match folder {
            Some(folder) => (Data::Folder(folder.into()), "the whole year"),
            None => (Data::Fixture, "four weeks (WELLSPRING_BASKETS names a folder with more)"),
        };
        let mut lines = Vec::new();
        data.purchases(|purchase| {
            lines.push((purchase.unix_time, purchase.line.product));
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        // Stable: lines of one moment stay in the file's order.
        lines.sort_by_key(|&(time, _)| time);
        let mut numbers = HashMap::new();
        let mut trace = Vec::with_capacity(lines.len());
        for (_, product) in lines {
            let next = numbers.len() as u32;
            trace.push(*numbers.entry(product).or_insert(next));
        }
        Ok((trace, numbers.len() as u32, from.to_owned()))
    }
}
