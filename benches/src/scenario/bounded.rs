//! What a capacity costs a hit, and whether it holds.
//!
//! `hit/capacity`: two readers as in `hit/get`, of a function with a capacity nobody reaches, beside the same function
//! without one. The instruction counts of the same are in `benches/instructions.rs`.
//!
//! `evict/bounded-memory`: one thread makes 50 million reads of uniform random keys out of 10 million, of a function that
//! may hold a million. First it fills up with different keys, then come the reads, nine of ten of which store a value and
//! evict another. A figure is the peak of the bytes in use beyond an engine with one node, in percent of the budget:
//! bytes as the counting allocator sees them (asked every 256 reads) and the engine's own mappings (`Stats::mapped`,
//! which only grow; not the columns for stamps, weights and times). The `/rss` row compares the growth of the process's
//! resident pages, which has those columns too, the allocator's own spare pages, and huge pages where one byte of them is
//! in use.
//!
//! - `/entries`: a million entries. The budget is what the engine takes when it is full and nothing has been evicted yet.
//! - `/bytes`: `Capacity::bytes` for as many nodes as `NODE_BYTES` of the engine says; the budget is that capacity.
//! - `/boxed`: the same with values of 64 bytes behind a pointer.

use std::fs;

use wellspring::{Capacity, Define, Engine, Function};

use super::Scenario;
use super::hit::{Boxed, filled, getter, walks};
use super::memory::bytes_in_use;
use crate::keys::{Dice, Spread, value_of};
use crate::rounds::{alternate, throughput};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "hit/capacity", run: hit },
    Scenario { name: "evict/bounded-memory/entries", run: entries },
    Scenario { name: "evict/bounded-memory/bytes", run: bytes },
    Scenario { name: "evict/bounded-memory/boxed", run: boxed },
];

/// How the names of the scenarios start that count bytes: each runs in a process of its own, so that none finds pages which another
/// left with the allocator.
pub const MEMORY: &str = "evict/bounded-memory";

const KEYS: u32 = 1_000;

/// [`filled`] with a capacity that nobody reaches.
pub fn filled_within(count: u32) -> (Engine, Function<u64, u64>) {
    let engine = Engine::new();
    let define = engine.define("value").capacity(Capacity::entries(4 * count as usize));
    let function = define.function(|_, &key: &u64| value_of(key)).expect("the name is free");
    fill(&engine, &function, count);
    (engine, function)
}

fn fill<V: wellspring::Value>(engine: &Engine, function: &Function<u64, V>, count: u32) {
    for key in 0..u64::from(count) {
        assert!(function.get(engine, &key).is_ok());
    }
}

fn hit(name: &str, plan: Plan) -> Vec<Row> {
    let (threads, time) = (plan.threads(), plan.slice());
    let walks = walks(threads, Spread::Uniform, KEYS);
    let (engine, plain) = filled(KEYS);
    let (bounded_engine, bounded) = filled_within(KEYS);
    let boxes = |capacity: Option<Capacity>| {
        let engine = Engine::new();
        let define = engine.define("boxed");
        let define = capacity.into_iter().fold(define, Define::capacity);
        let function = define.function(|_, &key: &u64| Boxed(value_of(key))).expect("the name is free");
        fill(&engine, &function, KEYS);
        (engine, function)
    };
    let (box_engine, plain_boxes) = boxes(None);
    let (bounded_box_engine, bounded_boxes) = boxes(Some(Capacity::entries(4 * KEYS as usize)));
    let peeks = |engine: &Engine, function: &Function<u64, u64>| {
        throughput(threads, time, |thread| super::hit::peeker(engine, function, &walks[thread]))
    };
    let gets = |engine: &Engine, function: &Function<u64, u64>| {
        throughput(threads, time, |thread| getter(engine, function, &walks[thread], |value| value))
    };
    let boxed_gets = |engine: &Engine, function: &Function<u64, Boxed>| {
        throughput(threads, time, |thread| getter(engine, function, &walks[thread], |Boxed(value)| value))
    };
    let row = |name: &str, note: &str, [ours, theirs]: [Vec<f64>; 2]| {
        Row::versus(name, threads, Unit::MILLIONS, &ours, "our own without a capacity", &theirs).note(note)
    };
    let rounds = plan.rounds();
    let get = alternate(rounds, [&mut || gets(&bounded_engine, &bounded), &mut || gets(&engine, &plain)]);
    let boxed = alternate(rounds, [&mut || boxed_gets(&bounded_box_engine, &bounded_boxes), &mut || boxed_gets(&box_engine, &plain_boxes)]);
    let peek = alternate(rounds, [&mut || peeks(&bounded_engine, &bounded), &mut || peeks(&engine, &plain)]);
    vec![row(name, "get", get), row(&format!("{name}/boxed"), "get", boxed), row(&format!("{name}/peek"), "peek under a pin", peek)]
}

/// What the engine takes, by both ways of counting.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// What the allocator gave out; the mappings are added when they are known.
    heap: usize,
    mapped: usize,
    resident: usize,
}

impl Room {
    fn accounted(self) -> f64 {
        (self.heap + self.mapped) as f64
    }

    /// Beyond what there was before, in percent of the budget.
    fn percent(self, before: Room, accounted_budget: f64, resident_budget: f64) -> [f64; 2] {
        [
            100.0 * (self.accounted() - before.accounted()) / accounted_budget,
            100.0 * (self.resident as f64 - before.resident as f64) / resident_budget,
        ]
    }
}

/// The process's pages in memory, in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|line| line.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// How large a run is.
#[derive(Clone, Copy, Debug)]
struct Size {
    entries: u32,
    keys: u32,
    reads: u32,
}

impl Size {
    fn of(plan: Plan) -> Size {
        if plan.quick {
            Size { entries: 40_000, keys: 400_000, reads: 2_000_000 }
        } else {
            Size { entries: 1_000_000, keys: 10_000_000, reads: 50_000_000 }
        }
    }
}

/// Bytes that the engine counts for a node without a value and a key of a word: `NODE_BYTES` of `capacity.rs`.
const NODE_BYTES: u64 = 83;

/// The room before, when the function was full for the first time, and at the peak of the reads that followed.
fn run<V: wellspring::Value>(in_use: fn() -> usize, size: Size, capacity: Capacity, make: fn(u64) -> V) -> [Room; 3] {
    let engine = Engine::new();
    let function = engine.define("value").capacity(capacity).function(move |_, &key: &u64| make(key)).expect("the name is free");
    let get = |key: u64| assert!(function.get(&engine, &key).is_ok());
    let room = || Room { heap: in_use(), mapped: engine.stats().mapped, resident: resident() };
    get(0);
    let before = room();
    (1..u64::from(size.entries)).for_each(get);
    let full = room();
    let (mut heap, mut pages) = (0, 0);
    let mut dice = Dice::new(77);
    for read in 0..size.reads {
        get(u64::from(dice.below(size.keys)));
        if read % 256 == 0 {
            heap = heap.max(in_use());
        }
        if read % 4096 == 0 {
            pages = pages.max(resident());
        }
    }
    assert!(function.len() <= size.entries as usize + size.entries as usize / 16, "{} keys", function.len());
    [before, full, Room { heap, mapped: engine.stats().mapped, resident: pages }]
}

fn rows(name: &str, plan: Plan, budget: &str, [accounted, resident]: [f64; 2], note: &str) -> Vec<Row> {
    let size = Size::of(plan);
    let reads = format!("{}M reads, {}k entries of {}k keys", size.reads / 1_000_000, size.entries / 1_000, size.keys / 1_000);
    let bar = |row: Row| {
        if plan.quick { row.note("too small for the bar of 110%: steps of mappings count") } else { row.bar(Bar::AtMost(110.0)) }
    };
    let rss = Row::alone(&format!("{name}/rss"), 1, Unit::LOAD, &[resident], budget).note("resident pages");
    vec![bar(Row::alone(name, 1, Unit::LOAD, &[accounted], budget).note(reads).note(note)), bar(rss)]
}

fn entries(name: &str, plan: Plan) -> Vec<Row> {
    let Some(in_use) = bytes_in_use() else { return vec![not_counted(name)] };
    let size = Size::of(plan);
    let [before, full, peak] = run(in_use, size, Capacity::entries(size.entries as usize), value_of);
    let budget = full.accounted() - before.accounted();
    let resident_budget = full.resident as f64 - before.resident as f64;
    let note =
        format!("{:.1} B a node when full, {:.1} B of pages", budget / f64::from(size.entries), resident_budget / f64::from(size.entries));
    rows(name, plan, "itself when first full", peak.percent(before, budget, resident_budget), &note)
}

fn bytes(name: &str, plan: Plan) -> Vec<Row> {
    within_bytes(name, plan, value_of, 0)
}

fn boxed(name: &str, plan: Plan) -> Vec<Row> {
    within_bytes(name, plan, |key| [value_of(key); 8], size_of::<[u64; 8]>() as u64)
}

fn within_bytes<V: wellspring::Value>(name: &str, plan: Plan, make: fn(u64) -> V, value_bytes: u64) -> Vec<Row> {
    let Some(in_use) = bytes_in_use() else { return vec![not_counted(name)] };
    let size = Size::of(plan);
    let budget = u64::from(size.entries) * (NODE_BYTES + value_bytes);
    let [before, _, peak] = run(in_use, size, Capacity::bytes(budget), make);
    let note = format!("a budget of {:.1} MB", budget as f64 / 1e6);
    rows(name, plan, "its capacity in bytes", peak.percent(before, budget as f64, budget as f64), &note)
}

fn not_counted(name: &str) -> Row {
    Row::skipped(name, Unit::LOAD, "", "this process does not count its allocations")
}
