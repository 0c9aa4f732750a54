//! A node resolved once and read through its handle, which skips the table.
//!
//! Conditions: two readers, 1,000 nodes in uniform random order, pin renewed every 1,000 reads; beside it the least such
//! a read can be, a relaxed load from an indexed `Vec<AtomicU64>`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Scenario;
use super::hit::{filled, walks};
use crate::keys::{Spread, Walk, value_of};
use crate::rounds::{alternate, throughput};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "handle/u64/1k", run: handle }];

fn handle(name: &str, plan: Plan) -> Vec<Row> {
    let (engine, function) = filled(1_000);
    let nodes: Vec<_> = (0..1_000u64).map(|key| function.node(&key).expect("every key is cached")).collect();
    let cells: Vec<AtomicU64> = (0..1_000).map(|key| AtomicU64::new(value_of(key))).collect();
    let walks = walks(plan.threads(), Spread::Uniform, 1_000);
    let (threads, time) = (plan.threads(), plan.slice());
    let ours = |thread: usize| {
        let mut walk = Walk::new(&walks[thread]);
        let (engine, nodes) = (&engine, &nodes);
        move || {
            let pin = engine.pin();
            let mut sum = 0u64;
            for &index in walk.slice() {
                sum = sum.wrapping_add(*nodes[index as usize].peek(&pin).expect("every node is consistent"));
            }
            sum
        }
    };
    let theirs = |thread: usize| {
        let mut walk = Walk::new(&walks[thread]);
        let cells = &cells;
        move || walk.slice().iter().fold(0u64, |sum, &index| sum.wrapping_add(cells[index as usize].load(Ordering::Relaxed)))
    };
    let [ours, theirs] = alternate(plan.rounds(), [&mut || throughput(threads, time, ours), &mut || throughput(threads, time, theirs)]);
    vec![Row::versus(name, threads, Unit::MILLIONS, &ours, "indexed Vec<AtomicU64>", &theirs).bar(Bar::Either(500.0, 0.7))]
}
