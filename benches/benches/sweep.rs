//! One change at the root of ten thousand nodes, and the plain search it is measured against.
#![forbid(unsafe_code)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wellspring::Engine;
use wellspring_benches::graphs::{Search, Shape};
use wellspring_benches::scenario::sweep::Wired;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn sweep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sweep");
    let shapes = [
        ("chain-10k", Shape::chain(10_000)),
        ("star-10k", Shape::star(10_001)),
        ("tree-10k", Shape::tree(10_000)),
        ("random-10k-50k", Shape::random(10_000, 5)),
        ("ladder", Shape::ladder(64)),
    ];
    for (name, shape) in shapes {
        group.throughput(Throughput::Elements(u64::from(shape.nodes())));
        let wired = Wired::new(Engine::builder().sweep_threads(1).build(), &shape);
        wired.check();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let millis = wired.sweep();
                        wired.rearm();
                        Duration::from_secs_f64(millis / 1e3)
                    })
                    .sum()
            });
        });
        group.bench_function(format!("{name}/plain-search"), |bencher| {
            let mut search = Search::default();
            bencher.iter(|| search.run(&shape.dependants, shape.root));
        });
    }
    group.finish();
}

criterion_group!(benches, sweep);
criterion_main!(benches);
