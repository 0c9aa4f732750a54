//! New keys in a new engine, and recomputation over dependencies that stay the same.
#![forbid(unsafe_code)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wellspring_benches::scenario::compute::{Stable, fresh_ours, fresh_ours_async};
use wellspring_benches::scenario::salsa::{Forest, ROOTS};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Small enough for a criterion sample, large enough that the table grows several times.
const KEYS: usize = 10_000;

fn compute(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compute");
    group.throughput(Throughput::Elements(KEYS as u64));
    for (name, fresh) in [("fresh/sync", fresh_ours as fn(usize) -> f64), ("fresh/async", fresh_ours_async)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| Duration::from_nanos((fresh(KEYS) * KEYS as f64) as u64)).sum());
        });
    }
    group.throughput(Throughput::Elements(u64::from(Stable::RESULTS)));
    group.bench_function("recompute-stable-deps", |bencher| {
        let mut stable = Stable::new();
        bencher.iter(|| stable.round());
    });
    group.throughput(Throughput::Elements(ROOTS));
    group.bench_function("deep-verify", |bencher| {
        let mut forest = Forest::new();
        bencher.iter(|| {
            forest.tick();
            forest.sum()
        });
    });
    group.finish();
}

criterion_group!(benches, compute);
criterion_main!(benches);
