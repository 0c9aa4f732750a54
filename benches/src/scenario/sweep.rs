//! One change at the root of a graph, from the call of `invalidate` to its return: every node marked, every epoch moved,
//! every list of dependants taken and given back.
//!
//! Conditions: all nodes consistent before each sweep (recomputed in dependency order, outside the clock); sweeps on one core
//! and on two; beside both a plain breadth-first search over `Vec<Vec<u32>>` with a visited bitmap on one core, over the
//! same graph with the same numbering. Nodes are created in number order, so a shuffled shape is shuffled in memory too.
//! After the first sweep a row checks that every node was marked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use wellspring::{Engine, Function};

use super::Scenario;
use crate::graphs::{Search, Shape};
use crate::rounds::{alternate_warm, median};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "sweep/small-10k-50k", run: |name, plan| sweep(name, plan, Shape::random(10_000, 5), Some(0.6), false) },
    Scenario { name: "sweep/chain-1m", run: |name, plan| sweep(name, plan, Shape::chain(1_000_000), None, false) },
    Scenario { name: "sweep/chain-1m-shuffled", run: |name, plan| sweep(name, plan, Shape::chain(1_000_000).shuffled(), None, false) },
    Scenario { name: "sweep/star-1m", run: |name, plan| sweep(name, plan, Shape::star(1_000_001), None, false) },
    Scenario { name: "sweep/tree-1m", run: |name, plan| sweep(name, plan, Shape::tree(1_000_000), None, false) },
    Scenario { name: "sweep/tree-1m-shuffled", run: |name, plan| sweep(name, plan, Shape::tree(1_000_000).shuffled(), None, false) },
    Scenario { name: "sweep/random-1m-5m", run: |name, plan| sweep(name, plan, Shape::random(1_000_000, 5), Some(1.0), true) },
    Scenario { name: "sweep/ladder", run: |name, plan| sweep(name, plan, Shape::ladder(64), None, false) },
    Scenario { name: "sweep/shop", run: |name, plan| sweep(name, plan, Shape::shop(), None, false) },
];

/// Where a body finds the function it is the body of. Emptied when the graph is dropped, since an engine that owns a
/// body that owns a handle would keep itself alive.
type Knot = Arc<RwLock<Option<Function<u32, u64>>>>;

/// A shape in an engine, every node computed.
#[derive(Debug)]
pub struct Wired {
    /// The engine.
    pub engine: Engine,
    /// The function whose keys are the nodes.
    pub node: Function<u32, u64>,
    order: Vec<u32>,
    root: u32,
    knot: Knot,
}

impl Wired {
    /// Creates the nodes in number order, then computes them in dependency order.
    pub fn new(engine: Engine, shape: &Shape) -> Self {
        let reads = shape.reads.clone();
        let knot = Knot::default();
        let connected = Arc::new(AtomicBool::new(false));
        let node = engine
            .function("node", {
                let (knot, connected) = (knot.clone(), connected.clone());
                move |cx, &node: &u32| {
                    if !connected.load(Ordering::Relaxed) {
                        return 0;
                    }
                    let knot = knot.read().unwrap_or_else(PoisonError::into_inner);
                    let Some(function) = knot.as_ref() else { return 0 };
                    reads[node as usize]
                        .iter()
                        .fold(u64::from(node), |sum, read| sum.wrapping_add(function.get(cx, read).expect("no body fails")))
                }
            })
            .expect("the name is free");
        *knot.write().unwrap_or_else(PoisonError::into_inner) = Some(node.clone());
        let this = Self { engine, node, order: shape.order.clone(), root: shape.root, knot };
        let in_order = shape.order.iter().copied().eq(0..shape.nodes());
        if !in_order {
            for node in 0..shape.nodes() {
                this.read(node);
            }
            connected.store(true, Ordering::Relaxed);
            this.node.invalidate_all();
        }
        connected.store(true, Ordering::Relaxed);
        this.rearm();
        this
    }

    fn read(&self, node: u32) -> u64 {
        self.node.get(&self.engine, &node).expect("no body fails")
    }

    /// Makes every node consistent again, each after what it reads, so that no body waits for another.
    pub fn rearm(&self) {
        for &node in &self.order {
            self.read(node);
        }
    }

    /// One sweep from the root; milliseconds.
    pub fn sweep(&self) -> f64 {
        let begun = Instant::now();
        self.node.invalidate(&self.root);
        begun.elapsed().as_secs_f64() * 1e3
    }

    /// Sweeps once and fails unless every node was marked.
    pub fn check(&self) {
        let before = self.engine.stats().marked;
        self.sweep();
        let marked = self.engine.stats().marked - before;
        // The root itself may or may not count as marked by its own sweep.
        assert!(marked as usize + 1 >= self.order.len(), "marked {marked} of {} nodes", self.order.len());
        self.rearm();
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        self.knot.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The sweep and the search, each right after every node was computed.
fn search_as_swept(name: &str, plan: Plan, shape: &Shape, wired: &Wired, repeats: usize) -> Row {
    let mut search = Search::default();
    let mut theirs = || {
        let total: f64 = (0..repeats)
            .map(|_| {
                wired.sweep();
                wired.rearm();
                let begun = Instant::now();
                assert_eq!(search.run(&shape.dependants, shape.root), shape.nodes() as usize);
                begun.elapsed().as_secs_f64() * 1e6
            })
            .sum();
        total / repeats as f64
    };
    let mut ours = || {
        let total: f64 = (0..repeats)
            .map(|_| {
                let millis = wired.sweep();
                wired.rearm();
                millis * 1e3
            })
            .sum();
        total / repeats as f64
    };
    let [ours, theirs] = alternate_warm(plan.rounds(), plan.patience(), [&mut ours, &mut theirs]);
    let name = format!("{name}/caches-alike");
    Row::versus(&name, 1, Unit::MICROS, &ours, "BFS over Vec<Vec<u32>>, 1 thread", &theirs).note("both right after every node was computed")
}

fn sweep(name: &str, plan: Plan, shape: Shape, bar: Option<f64>, two_against_one: bool) -> Vec<Row> {
    // Small graphs sweep in microseconds: average enough of them that the clock's own cost disappears.
    let repeats = (200_000 / shape.nodes() as usize).clamp(1, 500);
    // Built side by side: setting a million nodes up takes far longer than the sweeps themselves.
    let wired = thread::scope(|scope| {
        let builders = [1, 2].map(|threads| {
            let shape = &shape;
            scope.spawn(move || {
                let wired = Wired::new(Engine::builder().sweep_threads(threads).build(), shape);
                wired.check();
                wired
            })
        });
        builders.map(|builder| builder.join().expect("the graph could not be built"))
    });
    let mut search = Search::default();
    let mut plain = || {
        let begun = Instant::now();
        for _ in 0..repeats {
            assert_eq!(search.run(&shape.dependants, shape.root), shape.nodes() as usize);
        }
        begun.elapsed().as_secs_f64() * 1e3 / repeats as f64
    };
    let average = |wired: &Wired| {
        let total: f64 = (0..repeats)
            .map(|_| {
                let millis = wired.sweep();
                wired.rearm();
                millis
            })
            .sum();
        total / repeats as f64
    };
    // The checks have swept both graphs once.
    plain();
    // A search repeated at once finds its graph in the nearest caches; a sweep finds its own as the computation of every node
    // left it. Where that matters a second row has the search begin as the sweep does.
    let alike = (shape.nodes() < 100_000).then(|| search_as_swept(name, plan, &shape, &wired[0], repeats));
    let sides: [&mut dyn FnMut() -> f64; 3] = [&mut plain, &mut || average(&wired[0]), &mut || average(&wired[1])];
    let [plain, one, two] = alternate_warm(plan.rounds(), plan.patience(), sides);
    let scale = if shape.nodes() < 100_000 { 1e3 } else { 1.0 };
    let unit = if scale > 1.0 { Unit::MICROS } else { Unit::MILLIS };
    let scaled = |figures: &[f64]| figures.iter().map(|figure| figure * scale).collect::<Vec<_>>();
    let (plain, one, two) = (scaled(&plain), scaled(&one), scaled(&two));
    let row = |threads, ours: &[f64]| {
        let nanos = median(ours) / scale * 1e6;
        Row::versus(name, threads, unit, ours, "BFS over Vec<Vec<u32>>, 1 thread", &plain).note(format!(
            "{} nodes, {} edges, {:.1} ns a node",
            shape.nodes(),
            shape.edges(),
            nanos / f64::from(shape.nodes())
        ))
    };
    let first = row(1, &one);
    let first = if let Some(bar) = bar { first.bar(Bar::Ratio(bar)) } else { first };
    let mut rows = vec![first, row(2, &two)];
    if two_against_one {
        let name = format!("{name}/two-cores");
        rows.push(Row::versus(&name, 2, unit, &two, "our own sweep on 1 core", &one).bar(Bar::Ratio(1.2)));
    }
    rows.extend(alike);
    if name.ends_with("/shop") {
        rows.iter_mut().for_each(|row| row.note.insert_str(0, "synthetic, with the real counts: "));
    }
    rows
}
