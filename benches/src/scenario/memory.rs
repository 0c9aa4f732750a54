//! Bytes in use, table included: what the counting allocator of the `report` binary sees, and the engine's own mappings
//! (`Stats::mapped`), which no allocator sees, whole pages that are not touched yet included.
//!
//! `memory/node`: a million u64 keys with inline u64 values and no edges, less the engine with one node, per node. Beside it
//! the read-only bound holding the same pairs. `memory/edge`: a million nodes with five million edges, less the same million
//! nodes without, per edge, right after the build. Beside it the edges as plain vectors of `u32` in both directions.
//!
//! Counting would slow every other row down, so `report` measures these in a child process of its own.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use wellspring::Engine;

use super::Scenario;
use super::sweep::Wired;
use crate::graphs::Shape;
use crate::keys::value_of;
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "memory/node", run: node }, Scenario { name: "memory/edge", run: edge }];

static BYTES_IN_USE: OnceLock<fn() -> usize> = OnceLock::new();

/// Says how to ask the counting allocator; a process that counts calls this before it allocates much.
pub fn counted_by(bytes_in_use: fn() -> usize) {
    // Set once by `main`; a second call would name the same allocator.
    let _ = BYTES_IN_USE.set(bytes_in_use);
}

/// How many bytes are in use, in a process that counts them.
pub(super) fn bytes_in_use() -> Option<fn() -> usize> {
    BYTES_IN_USE.get().copied()
}

/// The bytes `make` leaves in use, those the allocator does not see as `mapped` says.
fn bytes_with<T>(in_use: fn() -> usize, make: impl FnOnce() -> T, mapped: impl FnOnce(&T) -> usize) -> f64 {
    let before = in_use();
    let made = black_box(make());
    let bytes = in_use() as f64 - before as f64;
    bytes + mapped(&made) as f64
}

fn bytes_of<T>(in_use: fn() -> usize, make: impl FnOnce() -> T) -> f64 {
    bytes_with(in_use, make, |_| 0)
}

const NODES: u32 = 1_000_000;

fn node(name: &str, _plan: Plan) -> Vec<Row> {
    let Some(in_use) = bytes_in_use() else {
        return vec![Row::skipped(name, Unit::BYTES, "", "this process does not count its allocations")];
    };
    let of_engine = |nodes: u64| {
        let make = || {
            let engine = Engine::new();
            let function = engine.function("value", |_, &key: &u64| value_of(key)).expect("the name is free");
            for key in 0..nodes {
                assert_eq!(function.get(&engine, &key), Ok(value_of(key)));
            }
            (engine, function)
        };
        bytes_with(in_use, make, |(engine, _)| engine.stats().mapped)
    };
    // The first engine of a process also pays for what lives as long as the process.
    of_engine(1);
    let (one, half, full) = (of_engine(1), of_engine(u64::from(NODES) / 2), of_engine(u64::from(NODES)));
    let ours = (full - one) / f64::from(NODES - 1);
    let peer =
        bytes_of(in_use, || (0..u64::from(NODES)).map(|key| (key, value_of(key))).collect::<HashMap<u64, u64, ahash::RandomState>>());
    vec![
        Row::versus(name, 1, Unit::BYTES, &[ours], "std HashMap<u64, u64> of the same", &[peer / f64::from(NODES)])
            .note(format!("an engine with one node {one:.0} B; slope from 500k to 1M nodes {:.1} B", (full - half) / f64::from(NODES / 2)))
            .bar(Bar::AtMost(64.0)),
    ]
}

fn edge(name: &str, _plan: Plan) -> Vec<Row> {
    let Some(in_use) = bytes_in_use() else {
        return vec![Row::skipped(name, Unit::BYTES, "", "this process does not count its allocations")];
    };
    let shape = Shape::random(NODES, 5);
    let bare = Shape { reads: vec![Vec::new(); NODES as usize], dependants: Vec::new(), order: shape.order.clone(), root: shape.root };
    let begun = Instant::now();
    let of_shape = |shape: &Shape| {
        // What the body captures is the bench's, not the engine's: it is counted on both sides' account and taken off.
        let captured = bytes_of(in_use, || (shape.reads.clone(), shape.order.clone()));
        bytes_with(in_use, || Wired::new(Engine::new(), shape), |wired| wired.engine.stats().mapped) - captured
    };
    let ours = (of_shape(&shape) - of_shape(&bare)) / shape.edges() as f64;
    let built = begun.elapsed();
    let peer = bytes_of(in_use, || (shape.reads.clone(), shape.dependants.clone()));
    let bare_peer = bytes_of(in_use, || vec![Vec::<u32>::new(); 2 * NODES as usize]);
    let peer = (peer - bare_peer) / shape.edges() as f64;
    vec![
        Row::versus(name, 1, Unit::BYTES, &[ours], "Vec<u32> per node in both directions, exact size", &[peer])
            .note(format!("{} edges, both graphs built in {:.1} s", shape.edges(), built.as_secs_f64()))
            .bar(Bar::AtMost(24.0)),
    ]
}
