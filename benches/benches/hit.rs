//! One slice of a thousand reads by key, ours and the bound's.
#![forbid(unsafe_code)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wellspring_benches::PIN_READS;
use wellspring_benches::keys::{Spread, Walk};
use wellspring_benches::scenario::hit::{bound, filled, getter, map_reader, peeker, walks};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn hit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit");
    group.throughput(Throughput::Elements(PIN_READS as u64));
    for count in [1_000, 100_000] {
        let (engine, function) = filled(count);
        let map = bound(count);
        let walk = &walks(1, Spread::Uniform, count)[0];
        group.bench_function(format!("peek/{count}"), |bencher| bencher.iter(peeker(&engine, &function, walk)));
        group.bench_function(format!("get/{count}"), |bencher| {
            bencher.iter(getter(&engine, &function, walk, |value| value));
        });
        group.bench_function(format!("many/{count}"), |bencher| {
            let keys: Vec<u64> = walk.iter().copied().map(u64::from).collect();
            let mut keys = Walk::new(&keys);
            bencher.iter(|| {
                let pin = engine.pin();
                let mut sum = 0u64;
                function.get_many(&pin, keys.slice(), |_, value| sum = sum.wrapping_add(value.map_or(0, |&v| v)));
                sum
            });
        });
        group.bench_function(format!("map/{count}"), |bencher| bencher.iter(map_reader(&map, walk)));
    }
    group.finish();
}

criterion_group!(benches, hit);
criterion_main!(benches);
