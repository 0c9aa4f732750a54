//! A batch of keys looked up at once: `get_many` prefetches what one lookup after the other would wait for.
//!
//! Conditions: two readers, uniform random keys, 1,000 keys a call under one pin; the read-only map is asked for the same
//! list of keys in a loop.

use super::Scenario;
use super::hit::{BOUND, bound, filled, walks};
use crate::keys::{Spread, Walk};
use crate::rounds::{alternate, throughput};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "many/u64/1k", run: |name, plan| many(name, plan, 1_000, 0.9) },
    Scenario { name: "many/u64/100k", run: |name, plan| many(name, plan, 100_000, 1.2) },
    Scenario { name: "many/u64/1m", run: |name, plan| many(name, plan, 1_000_000, 1.8) },
];

fn many(name: &str, plan: Plan, count: u32, bar: f64) -> Vec<Row> {
    let (engine, function) = filled(count);
    let map = bound(count);
    let walks: Vec<Vec<u64>> =
        walks(plan.threads(), Spread::Uniform, count).into_iter().map(|walk| walk.into_iter().map(u64::from).collect()).collect();
    let (threads, time) = (plan.threads(), plan.slice());
    let ours = |thread: usize| {
        let mut walk = Walk::new(&walks[thread]);
        let (engine, function) = (&engine, &function);
        move || {
            let pin = engine.pin();
            let mut sum = 0u64;
            function.get_many(&pin, walk.slice(), |_, value| {
                sum = sum.wrapping_add(*value.expect("every key is cached"));
            });
            sum
        }
    };
    let theirs = |thread: usize| {
        let mut walk = Walk::new(&walks[thread]);
        let map = &map;
        move || walk.slice().iter().fold(0u64, |sum, key| sum.wrapping_add(map[key]))
    };
    let [ours, theirs] = alternate(plan.rounds(), [&mut || throughput(threads, time, ours), &mut || throughput(threads, time, theirs)]);
    vec![Row::versus(name, threads, Unit::MILLIONS, &ours, BOUND, &theirs).bar(Bar::Ratio(bar))]
}
