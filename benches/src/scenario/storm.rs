//! What a reader feels of a million-node sweep next to it.
//!
//! Conditions: one reader looks up 100 keys outside the cone under one pin, over and over, and times each batch. On a thread
//! of its own another sweeps a tree of a million nodes, makes it consistent again and sweeps it again; only batches
//! that overlap a sweep count. Beside it the same reader with nobody else in the process, round by round in alternation.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use wellspring::{Engine, Function};

use super::Scenario;
use super::sweep::Wired;
use crate::graphs::Shape;
use crate::keys::{Spread, indices, value_of};
use crate::rounds::alternate;
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "storm/p999", run: p999 }];

const BATCH: usize = 100;

struct Reader<'a> {
    engine: &'a Engine,
    outside: &'a Function<u64, u64>,
    walk: Vec<u32>,
}

impl Reader<'_> {
    /// Times batches until `done`, keeps those for which `counts` holds before and after.
    fn latencies(&self, counts: impl Fn() -> bool, done: impl Fn(usize) -> bool) -> Vec<u64> {
        let mut kept = Vec::with_capacity(1 << 20);
        let mut sum = 0u64;
        for batch in self.walk.chunks_exact(BATCH).cycle() {
            let wanted = counts();
            let begun = Instant::now();
            let pin = self.engine.pin();
            for &index in batch {
                sum = sum.wrapping_add(*self.outside.peek(&pin, &u64::from(index)).expect("outside every cone"));
            }
            drop(pin);
            let nanos = begun.elapsed().as_nanos() as u64;
            // A batch during which a sweep began or ended is a batch beside that sweep.
            if wanted || counts() {
                kept.push(nanos);
            }
            if done(kept.len()) {
                break;
            }
        }
        black_box(sum);
        kept
    }
}

fn per_mille(mut nanos: Vec<u64>, rank: usize) -> f64 {
    nanos.sort_unstable();
    nanos.get(nanos.len() * rank / 1_000).map_or(f64::NAN, |&nanos| nanos as f64)
}

fn p999(name: &str, plan: Plan) -> Vec<Row> {
    let shape = Shape::tree(1_000_000).shuffled();
    let wired = Wired::new(Engine::builder().sweep_threads(1).build(), &shape);
    wired.check();
    let outside = wired.engine.function("outside", |_, &key: &u64| value_of(key)).expect("the name is free");
    for key in 0..1_000 {
        assert_eq!(outside.get(&wired.engine, &key), Ok(value_of(key)));
    }
    let reader = Reader { engine: &wired.engine, outside: &outside, walk: indices(Spread::Uniform, 1_000, 9) };
    let sweeps_a_round = if plan.quick { 2 } else { 4 };
    let (batches, swept) = (AtomicU64::new(0), AtomicU64::new(0));

    let mut storm = || {
        let (sweeping, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let nanos = thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..sweeps_a_round {
                    sweeping.store(true, Ordering::Relaxed);
                    wired.sweep();
                    sweeping.store(false, Ordering::Relaxed);
                    swept.fetch_add(1, Ordering::Relaxed);
                    wired.rearm();
                }
                over.store(true, Ordering::Relaxed);
            });
            reader.latencies(|| sweeping.load(Ordering::Relaxed), |_| over.load(Ordering::Relaxed))
        });
        batches.fetch_add(nanos.len() as u64, Ordering::Relaxed);
        per_mille(nanos, 999)
    };
    let mut idle = || per_mille(reader.latencies(|| true, |kept| kept == 100_000), 999);
    let [storm, idle] = alternate(plan.rounds(), [&mut storm, &mut idle]);
    vec![
        Row::versus(name, 1, Unit::NANOS, &storm, "the same reader, no sweep", &idle)
            .note(format!("p99.9 of 100 lookups; {} batches beside {} sweeps", batches.into_inner(), swept.into_inner()))
            .bar(Bar::Ratio(0.5)),
    ]
}
