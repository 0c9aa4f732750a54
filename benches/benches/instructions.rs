//! Instruction counts of the hit path, the compute path, the sweep and reads of what another process has computed, under valgrind: the same on a noisy machine.
//!
//! `cargo bench -p wellspring-benches --features instructions --bench instructions`
#![allow(missing_docs, unreachable_pub, missing_debug_implementations, reason = "the macros generate public items")]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wellspring::{Engine, Function, Value};
use wellspring_benches::graphs::Shape;
use wellspring_benches::keys::{Spread, indices};
use wellspring_benches::replicas::{Local, Replicas, local, replicas};
use wellspring_benches::scenario::bounded::filled_within;
use wellspring_benches::scenario::compute::{Stable, key_at};
use wellspring_benches::scenario::hit::{Bound, bound, filled};
use wellspring_benches::scenario::sweep::Wired;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reads or keys in one measured call.
const STEPS: usize = 1_000;

struct Cached {
    engine: Engine,
    function: Function<u64, u64>,
    keys: Vec<u64>,
}

fn cached() -> Cached {
    cached_by(filled(STEPS as u32))
}

/// The same with a capacity, which nothing reaches: a hit leaves its trace for the evicting hand.
fn cached_within() -> Cached {
    cached_by(filled_within(STEPS as u32))
}

fn cached_by((engine, function): (Engine, Function<u64, u64>)) -> Cached {
    let keys: Vec<u64> = indices(Spread::Uniform, STEPS as u32, 1).into_iter().take(STEPS).map(u64::from).collect();
    let cached = Cached { engine, function, keys };
    // The first pin of a thread registers it.
    peeks(&cached);
    cached
}

fn peeks(cached: &Cached) -> u64 {
    let pin = cached.engine.pin();
    cached.keys.iter().fold(0, |sum, key| sum + cached.function.peek(&pin, key).map_or(0, |value| *value >> 32))
}

// The measured functions give their input back, so that tearing it down is not measured.

#[library_benchmark]
#[bench::a_thousand(cached())]
#[bench::within_capacity(cached_within())]
fn peek(cached: Cached) -> Cached {
    black_box(peeks(&cached));
    cached
}

// The bound of every hit row, so that a change of the compiler is told from a change of ours.
#[library_benchmark]
#[bench::a_thousand((bound(STEPS as u32), cached()))]
fn map((map, cached): (Bound<u64>, Cached)) -> (Bound<u64>, Cached) {
    black_box(cached.keys.iter().fold(0, |sum, key| sum + (map[key] >> 32)));
    (map, cached)
}

#[library_benchmark]
#[bench::a_thousand(cached())]
#[bench::within_capacity(cached_within())]
fn get(cached: Cached) -> Cached {
    for key in &cached.keys {
        let _ = black_box(cached.function.get(&cached.engine, key));
    }
    cached
}

#[library_benchmark]
#[bench::a_thousand(cached())]
#[bench::within_capacity(cached_within())]
fn get_many(cached: Cached) -> Cached {
    let pin = cached.engine.pin();
    cached.function.get_many(&pin, &cached.keys, |_, value| {
        black_box(value);
    });
    drop(pin);
    cached
}

#[library_benchmark]
#[bench::a_thousand(cached())]
fn get_fresh(cached: Cached) -> Cached {
    for key in &cached.keys {
        let _ = black_box(cached.function.get_fresh(&cached.engine, key));
    }
    cached
}

#[library_benchmark]
#[bench::a_thousand(cached())]
fn compute_fresh(cached: Cached) -> Cached {
    for index in 0..STEPS {
        // Past the keys that are cached.
        let _ = black_box(cached.function.get(&cached.engine, &(key_at(index) | 1 << 63)));
    }
    cached
}

#[library_benchmark]
#[bench::a_thousand(Stable::new())]
fn recompute(mut stable: Stable) -> Stable {
    black_box(stable.round());
    stable
}

fn wired(shape: &Shape) -> Wired {
    let wired = Wired::new(Engine::builder().sweep_threads(1).build(), shape);
    wired.check();
    wired
}

#[library_benchmark]
#[bench::chain_10k(wired(&Shape::chain(10_000)))]
#[bench::star_10k(wired(&Shape::star(10_001)))]
#[bench::random_10k_50k(wired(&Shape::random(10_000, 5)))]
fn sweep(wired: Wired) -> Wired {
    black_box(wired.sweep());
    wired
}

/// As large as a small record.
type Record = [u64; 12];

fn record(value: u64) -> Record {
    [value; 12]
}

const READS: u64 = STEPS as u64;

fn here<V: Value>(of: fn(u64) -> V) -> Local<V> {
    let here = local(READS, of);
    here.peeks(1, |_| 0);
    here
}

fn there<V: Value + Serialize + DeserializeOwned>(of: fn(u64) -> V) -> Replicas<V> {
    let there = replicas(READS, of);
    there.here.peeks(1, |_| 0);
    there
}

#[library_benchmark]
#[bench::a_thousand(here(record))]
fn peek_local(here: Local<Record>) -> Local<Record> {
    black_box(here.peeks(READS, |value| value[0]));
    here
}

#[library_benchmark]
#[bench::a_thousand(there(record))]
fn peek_replica(there: Replicas<Record>) -> Replicas<Record> {
    black_box(there.here.peeks(READS, |value| value.as_result().map_or(0, |value| value[0])));
    there
}

#[library_benchmark]
#[bench::a_thousand(here(record))]
fn get_local(here: Local<Record>) -> Local<Record> {
    black_box(here.gets(READS, |value| value[0]));
    here
}

#[library_benchmark]
#[bench::a_thousand(there(record))]
fn get_replica(there: Replicas<Record>) -> Replicas<Record> {
    black_box(there.here.gets(READS, |value| value.as_result().map_or(0, |value| value[0])));
    there
}

#[library_benchmark]
#[bench::a_thousand(here(|value| value))]
fn get_number_local(here: Local<u64>) -> Local<u64> {
    black_box(here.gets(READS, |value| *value));
    here
}

#[library_benchmark]
#[bench::a_thousand(there(|value| value))]
fn get_number_replica(there: Replicas<u64>) -> Replicas<u64> {
    black_box(there.here.gets(READS, |value| value.as_result().copied().unwrap_or_default()));
    there
}

library_benchmark_group!(name = hits, benchmarks = [peek, map, get, get_fresh, get_many]);
library_benchmark_group!(name = computes, benchmarks = [compute_fresh, recompute]);
library_benchmark_group!(name = sweeps, benchmarks = [sweep]);
// Prints what is more, or less, beside the first.
library_benchmark_group!(name = replica_peeks, compare_by_id = true, benchmarks = [peek_local, peek_replica]);
library_benchmark_group!(name = replica_gets, compare_by_id = true, benchmarks = [get_local, get_replica]);
library_benchmark_group!(name = replica_numbers, compare_by_id = true, benchmarks = [get_number_local, get_number_replica]);

main!(library_benchmark_groups = [hits, computes, sweeps, replica_peeks, replica_gets, replica_numbers]);
