//! What a first computation and a repeated one cost.
//!
//! `compute/fresh`: one thread asks a new engine for a million keys it has never seen; the table, the pages and the maps grow
//! as they go, the body returns at once. Beside it moka and papaya do the same through their `get_or_insert_with` (for the
//! async row moka's future cache, polled by the same driver). Creating is timed, dropping is not.
//!
//! `compute/recompute-stable-deps`: 1,000 results that each read 8 of 1,000 sources; every source is set in one batch, then
//! every result is asked for again. Nothing about the dependencies changes. Beside it salsa does the same.

use std::hint::black_box;

use wellspring::{Engine, Function, Source};

use super::Scenario;
use crate::drive::Driver;
use crate::keys::{Dice, value_of};
use crate::rounds::nanos_each;
use crate::row::Bar;
use crate::{Plan, Row};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "compute/fresh/sync", run: fresh_sync },
    Scenario { name: "compute/fresh/async", run: fresh_async },
    Scenario { name: "compute/recompute-stable-deps", run: recompute },
];

/// Keys a round computes.
pub const FRESH: usize = 1_000_000;
const BAR: Bar = Bar::AtMost(150.0);

/// The `index`-th fresh key: distinct, without an order a table could profit from.
#[inline]
pub fn key_at(index: usize) -> u64 {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Computes `count` new keys in a new engine; nanoseconds each.
pub fn fresh_ours(count: usize) -> f64 {
    let mut kept = None;
    let nanos = nanos_each(count, || {
        let engine = Engine::new();
        let function = engine.function("value", |_, &key: &u64| value_of(key)).expect("the name is free");
        let mut sum = 0u64;
        for index in 0..count {
            sum = sum.wrapping_add(function.get(&engine, &key_at(index)).expect("the body does not fail"));
        }
        black_box(sum);
        kept = Some((engine, function));
    });
    drop(kept);
    nanos
}

/// The same with an async function.
pub fn fresh_ours_async(count: usize) -> f64 {
    let mut kept = None;
    let driver = Driver::new();
    let nanos = nanos_each(count, || {
        let engine = Engine::new();
        let function = engine.async_function("value", |_, key: u64| async move { value_of(key) }).expect("the name is free");
        let mut sum = 0u64;
        for index in 0..count {
            let value = driver.run(function.get(&engine, &key_at(index)));
            sum = sum.wrapping_add(value.expect("the body does not fail"));
        }
        black_box(sum);
        kept = Some((engine, function));
    });
    drop(kept);
    nanos
}

/// A thousand results over a thousand sources.
#[derive(Debug)]
pub struct Stable {
    engine: Engine,
    sources: Source<u32, u64>,
    results: Function<u32, u64>,
    turn: u64,
}

impl Stable {
    /// Results, and as many sources.
    pub const RESULTS: u32 = 1_000;

    /// Which sources each result reads.
    pub fn deps() -> Vec<Vec<u32>> {
        let mut dice = Dice::new(8);
        (0..Self::RESULTS).map(|_| (0..8).map(|_| dice.below(Self::RESULTS)).collect()).collect()
    }

    /// Builds and computes them.
    pub fn new() -> Self {
        let engine = Engine::new();
        let sources = engine.source("cell", |_: &u32| 0u64).expect("the name is free");
        let results = engine
            .function("sum", {
                let (sources, deps) = (sources.clone(), Self::deps());
                move |cx, &node: &u32| {
                    deps[node as usize]
                        .iter()
                        .fold(0u64, |sum, dep| sum.wrapping_add(sources.get(cx, dep).expect("a source does not fail")))
                }
            })
            .expect("the name is free");
        let mut this = Self { engine, sources, results, turn: 0 };
        this.round();
        this
    }

    /// Sets every source and asks for every result.
    pub fn round(&mut self) -> u64 {
        self.turn += 1;
        let (sources, turn) = (&self.sources, self.turn);
        self.engine.batch(|batch| {
            for source in 0..Self::RESULTS {
                batch.set(sources, &source, turn + u64::from(source));
            }
        });
        (0..Self::RESULTS).fold(0u64, |sum, node| sum.wrapping_add(self.results.get(&self.engine, &node).expect("the body does not fail")))
    }
}

impl Default for Stable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(feature = "peers"))]
mod rows {
    use super::*;
    use crate::Unit;
    use crate::rounds::alternate;
    use crate::scenario::NOT_BUILT;

    pub(super) fn fresh_sync(name: &str, plan: Plan) -> Vec<Row> {
        let [ours] = alternate(plan.rounds(), [&mut || fresh_ours(FRESH)]);
        vec![Row::alone(name, 1, Unit::NANOS, &ours, format!("moka, papaya: {NOT_BUILT}")).bar(BAR)]
    }

    pub(super) fn fresh_async(name: &str, plan: Plan) -> Vec<Row> {
        let [ours] = alternate(plan.rounds(), [&mut || fresh_ours_async(FRESH)]);
        vec![Row::alone(name, 1, Unit::NANOS, &ours, format!("moka, papaya: {NOT_BUILT}"))]
    }

    pub(super) fn recompute(name: &str, plan: Plan) -> Vec<Row> {
        let mut stable = Stable::new();
        let [ours] = alternate(plan.rounds(), [&mut || repeat(&mut || stable.round())]);
        vec![Row::alone(name, 1, Unit::NANOS, &ours, format!("salsa: {NOT_BUILT}"))]
    }
}

#[cfg(feature = "peers")]
mod rows {
    use super::*;
    use crate::Unit;
    use crate::rounds::alternate;
    use crate::scenario::salsa::StableSalsa;
    use ahash::RandomState;

    const PAPAYA: &str = "papaya pin().get_or_insert_with";

    fn fresh(name: &str, plan: Plan, mut ours: impl FnMut() -> f64, mut moka: impl FnMut() -> f64, moka_name: &str) -> [Row; 2] {
        let [ours, moka, papaya] = alternate(plan.rounds(), [&mut ours, &mut moka, &mut fresh_papaya]);
        let papaya_name = format!("{name}/papaya");
        [Row::versus(name, 1, Unit::NANOS, &ours, moka_name, &moka), Row::versus(&papaya_name, 1, Unit::NANOS, &ours, PAPAYA, &papaya)]
    }

    pub(super) fn fresh_sync(name: &str, plan: Plan) -> Vec<Row> {
        fresh(name, plan, || fresh_ours(FRESH), fresh_moka, "moka::sync get_with").map(|row| row.bar(BAR)).into()
    }

    pub(super) fn fresh_async(name: &str, plan: Plan) -> Vec<Row> {
        fresh(name, plan, || fresh_ours_async(FRESH), fresh_moka_async, "moka::future get_with").into()
    }

    fn fresh_moka() -> f64 {
        let mut kept = None;
        let nanos = nanos_each(FRESH, || {
            let cache = moka::sync::Cache::builder().build_with_hasher(RandomState::new());
            let mut sum = 0u64;
            for key in (0..FRESH).map(key_at) {
                sum = sum.wrapping_add(cache.get_with(key, || value_of(key)));
            }
            black_box(sum);
            kept = Some(cache);
        });
        drop(kept);
        nanos
    }

    fn fresh_moka_async() -> f64 {
        let mut kept = None;
        let driver = Driver::new();
        let nanos = nanos_each(FRESH, || {
            let cache = moka::future::Cache::builder().build_with_hasher(RandomState::new());
            let mut sum = 0u64;
            for key in (0..FRESH).map(key_at) {
                sum = sum.wrapping_add(driver.run(cache.get_with(key, async { value_of(key) })));
            }
            black_box(sum);
            kept = Some(cache);
        });
        drop(kept);
        nanos
    }

    fn fresh_papaya() -> f64 {
        let mut kept = None;
        let nanos = nanos_each(FRESH, || {
            // Blocking resizes are several times faster here than papaya's default of moving entries bit by bit.
            let map: papaya::HashMap<u64, u64, RandomState> =
                papaya::HashMap::builder().hasher(RandomState::new()).resize_mode(papaya::ResizeMode::Blocking).build();
            let mut sum = 0u64;
            for key in (0..FRESH).map(key_at) {
                sum = sum.wrapping_add(*map.pin().get_or_insert_with(key, || value_of(key)));
            }
            black_box(sum);
            kept = Some(map);
        });
        drop(kept);
        nanos
    }

    pub(super) fn recompute(name: &str, plan: Plan) -> Vec<Row> {
        let (mut stable, mut salsa) = (Stable::new(), StableSalsa::new());
        assert_eq!(stable.round(), salsa.round(), "both sides compute the same sums");
        let [ours, theirs] = alternate(plan.rounds(), [&mut || repeat(&mut || stable.round()), &mut || repeat(&mut || salsa.round())]);
        vec![Row::versus(name, 1, Unit::NANOS, &ours, "salsa, inputs set and results fetched", &theirs)]
    }
}

use rows::{fresh_async, fresh_sync, recompute};

/// Nanoseconds per result over a hundred rounds of setting and asking.
fn repeat(round: &mut dyn FnMut() -> u64) -> f64 {
    const ROUNDS: usize = 100;
    nanos_each(ROUNDS * Stable::RESULTS as usize, || {
        let sum = (0..ROUNDS).fold(0u64, |sum, _| sum.wrapping_add(round()));
        black_box(sum);
    })
}
