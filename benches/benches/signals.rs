//! A write and the reads that follow it, over the shapes signal libraries measure each other by.
#![forbid(unsafe_code)]

use criterion::{Criterion, criterion_group, criterion_main};
use wellspring_benches::scenario::signals::{SCENARIOS, ours};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn signals(criterion: &mut Criterion) {
    for scenario in SCENARIOS {
        let mut step = ours(scenario.name);
        let mut turn = 0;
        criterion.bench_function(scenario.name, |bencher| {
            bencher.iter(|| {
                turn += 1;
                step(turn)
            });
        });
    }
}

criterion_group!(benches, signals);
criterion_main!(benches);
