//! One thread, one operation at a time: the engine must do exactly what the oracle says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Poll, Waker};

use wellspring::{Engine, EngineBuilder, Event, Fault, Invalidated};

use crate::expr::{Outcome, Stop};
use crate::op::Op;
use crate::oracle::{Oracle, State};
use crate::program::{KEYS, Place, Program, SOURCES};
use crate::waking::{Counting, poll_once};
use crate::world::{Generation, Resolved, World};

/// A generation that is kept, and what the oracle knew when it was taken.
struct Held {
    generation: Generation,
    node: usize,
    outcome: Outcome,
    born: u64,
    changed: u64,
    marks: u64,
    watch: Option<Watch>,
}

struct Watch {
    end: Invalidated,
    counter: Arc<Counting>,
    waker: Waker,
}

struct Kept {
    resolved: Resolved,
    node: usize,
    born: u64,
}

/// Engine options to run a program under: every sweep on one thread, or every level shared.
pub fn builder(parallel: bool) -> EngineBuilder {
    let builder = Engine::builder().event_log();
    if parallel { builder.sweep_threads(2).parallel_threshold(1) } else { builder.sweep_threads(1) }
}

/// Runs operations against engine and oracle and compares everything there is to compare after each. Returns the event log.
///
/// # Panics
/// At the first difference.
pub fn run_exact(program: &Program, ops: &[Op], parallel: bool) -> Vec<Event> {
    let world = World::new(program, builder(parallel));
    let tracker = world.tracker().clone();
    let mut run = Run { program, oracle: Oracle::new(program), world, held: Vec::new(), kept: Vec::new() };
    for op in ops {
        run.world.arm();
        run.step(op);
        run.compare(op);
    }
    let events = run.world.engine.take_events();
    drop(run);
    // I31: after the engine and its handles are gone, every value's Drop has run, once.
    assert_eq!(tracker.alive(), 0, "I31: values alive after the engine is gone");
    events
}

struct Run<'p> {
    program: &'p Program,
    world: World,
    oracle: Oracle,
    held: Vec<Held>,
    kept: Vec<Kept>,
}

impl Run<'_> {
    fn step(&mut self, op: &Op) {
        let source = |number: u8| number as usize % SOURCES;
        match op {
            Op::Get(number) => {
                let place = self.program.place(*number);
                // I1: with no concurrency, exactly now.
                assert_eq!(self.world.get(place), Ok(self.oracle.get(place)), "I1: {place:?}");
            }
            Op::Set(number, value) => self.set(source(*number), i64::from(*value % 16)),
            Op::SetSame(number) => {
                let source = source(*number);
                let _ = self.oracle.get(Place::Source(source));
                let _ = self.world.get(Place::Source(source));
                let (runs, marked) = (self.world.runs(), self.world.engine.stats().marked);
                let commit = self.world.engine.commit();
                // I23: an equal set is no commit, marks nothing, runs nothing.
                assert_eq!(self.world.set(source, self.oracle.sources()[source]), commit, "I23");
                assert_eq!((self.world.runs(), self.world.engine.stats().marked), (runs, marked), "I23");
            }
            Op::Batch(sets, marks) => {
                let sets: Vec<_> = sets.iter().map(|&(number, value)| (source(number), i64::from(value % 16))).collect();
                let marks: Vec<_> = marks.iter().map(|&number| self.program.place(number)).collect();
                let (before, sweeps) = (self.world.engine.commit(), self.world.engine.stats().sweeps);
                let commit = self.world.batch(&sets, &marks);
                // One commit, one sweep, however much there is in it.
                assert_eq!((commit.get(), self.world.engine.commit()), (before.get() + 1, commit), "one commit per batch");
                assert_eq!(self.world.engine.stats().sweeps, sweeps + 1, "one sweep per batch");
                self.oracle.commit(&sets, &marks);
            }
            Op::ThereAndBack(number) => {
                let source = source(*number);
                let value = self.oracle.sources()[source];
                self.set(source, value + 1);
                self.set(source, value);
            }
            Op::GetMany(function) => {
                let function = *function as usize % self.program.rules.len();
                let pin = self.world.engine.pin();
                let found = self.world.get_many(&pin, function);
                for (key, found) in found.into_iter().enumerate() {
                    assert_eq!(found, self.oracle.consistent(Place::Node(function * KEYS + key)), "get_many, key {key} of f{function}");
                }
            }
            Op::Resolve(number) => {
                let node = *number as usize % self.program.nodes();
                let known = self.oracle.known(Place::Node(node)).map(|known| known.born);
                let resolved = self.world.node(node);
                assert_eq!(resolved.is_some(), known.is_some(), "a handle for exactly the keys that have a node");
                if let (Some(resolved), Some(born)) = (resolved, known) {
                    self.kept.push(Kept { resolved, node, born });
                    self.kept.truncate(16);
                }
            }
            Op::Hold(number) => {
                let node = *number as usize % self.program.nodes();
                let generation = self.world.computed(node).expect("no faults in the exact dialect");
                let _ = self.oracle.get(Place::Node(node));
                self.hold(node, generation);
            }
            Op::Watch(number) => {
                let at = *number as usize % self.held.len().max(1);
                let Some(held) = self.held.get_mut(at) else { return };
                let (counter, waker) = Counting::pair();
                let mut end = held.generation.invalidated();
                let first = poll_once(&mut end, &waker);
                let current = self.oracle.known(Place::Node(held.node)).map(|known| (known.born, known.marks));
                let ended = current != Some((held.born, held.marks));
                assert_eq!(first.is_ready(), ended, "`invalidated` is ready at once if the generation was marked already");
                held.watch = (!ended).then(|| Watch { end, counter, waker });
            }
            Op::Update(number) => {
                let at = *number as usize % self.held.len().max(1);
                let Some(held) = self.held.get(at) else { return };
                let (node, was) = (held.node, held.generation.is_consistent());
                let next = held.generation.update().expect("no faults in the exact dialect");
                let outcome = self.oracle.get(Place::Node(node));
                assert_eq!(next.outcome(), outcome, "I1: update");
                if !was {
                    self.hold(node, next);
                }
            }
            Op::Release(number) => {
                let at = *number as usize % self.held.len().max(1);
                if at < self.held.len() {
                    self.held.swap_remove(at);
                }
            }
            Op::Invalidate(number) => {
                let place = self.program.place(*number);
                self.world.invalidate(place);
                self.oracle.commit(&[], &[place]);
            }
            Op::InvalidateAll(function) => {
                let function = *function as usize % self.program.rules.len();
                self.world.invalidate_all(function);
                self.oracle.invalidate_all(Some(function));
            }
            Op::Everything => {
                self.world.engine.invalidate_everything();
                self.oracle.invalidate_all(None);
            }
            Op::Remove(number) => {
                let place = self.program.place(*number);
                assert_eq!(self.world.remove(place), self.oracle.remove(place), "remove says whether there was a node");
            }
            Op::Reborn(number) => {
                let node = *number as usize % self.program.nodes();
                let place = (self.program.nodes() - 1 - node) as u8;
                for op in [Op::Get(place), Op::Resolve(node as u8), Op::Remove(place), Op::Get(place)] {
                    self.step(&op);
                }
            }
            Op::Collect => {
                self.world.engine.collect();
                assert_eq!(self.world.engine.stats().retired, 0, "I31: nothing waits after `collect` without pins");
                let held: i64 = self.held.iter().map(|held| held.generation.counted()).sum();
                assert_eq!(self.world.tracker().alive(), self.oracle.boxed() + held, "I31: values alive = values cached + values held");
            }
        }
    }

    fn set(&mut self, source: usize, value: i64) {
        let same = self.oracle.consistent(Place::Source(source)) == Some(Ok(value));
        let before = self.world.engine.commit();
        let commit = self.world.set(source, value);
        assert_eq!(commit.get(), before.get() + u64::from(!same), "a set is a commit unless the value is equal");
        if !same {
            self.oracle.commit(&[(source, value)], &[]);
        }
    }

    fn hold(&mut self, node: usize, generation: Generation) {
        let Some(known) = self.oracle.known(Place::Node(node)) else { return };
        let (born, changed, marks) = (known.born, known.changed, known.marks);
        let outcome = generation.outcome();
        assert_eq!(known.value, Some(outcome), "I1: the generation's value");
        if self.held.len() < 16 {
            self.held.push(Held { generation, node, outcome, born, changed, marks, watch: None });
        }
    }

    fn compare(&mut self, op: &Op) {
        let (world, oracle) = (&self.world, &self.oracle);
        assert!(!world.ran_away(), "{op:?} ran bodies without end");
        // I8 to I12, I14, I16, I26, I32, I34: the engine's own validator.
        world.engine.assert_consistent();
        let pin = world.engine.pin();
        for node in 0..self.program.nodes() {
            let place = Place::Node(node);
            // I18, I19: exactly what the oracle says is consistent, nothing more (stale) and nothing less (over-invalidated).
            assert_eq!(world.peek(&pin, place), oracle.consistent(place), "I18/I19: {place:?} after {op:?}");
            assert_eq!(world.existing(node).map(|found| found.outcome()), oracle.consistent(place), "existing {place:?} after {op:?}");
        }
        for source in 0..SOURCES {
            assert_eq!(world.peek(&pin, Place::Source(source)), oracle.consistent(Place::Source(source)), "source {source} after {op:?}");
        }
        self.compare_handles(op);
        let stats = world.engine.stats();
        let runs: Vec<u64> = stats.functions[2..].iter().map(|function| function.computes).collect();
        // I22, I24, I25: each body ran as often as it had to, in all.
        assert_eq!(runs, oracle.runs, "I22: bodies run per function after {op:?}");
        assert_eq!(stats.cut_offs, oracle.cut_offs, "I23: cut-offs after {op:?}");
        assert_eq!(stats.verified, oracle.verified, "nodes verified without running anything after {op:?}");
        // I17, I21: each node that can be reached is marked once per sweep, whatever the paths to it.
        assert_eq!(stats.marked, oracle.marked, "I17: marks made by sweeps after {op:?}");
        let nodes: Vec<usize> = stats.functions[2..].iter().map(|function| function.nodes).collect();
        assert_eq!(nodes, (0..self.program.rules.len()).map(|function| oracle.len(function)).collect::<Vec<_>>(), "nodes after {op:?}");
        assert!(stats.edges_live >= oracle.edges(), "I9: an edge is missing after {op:?}");
        // I13: garbage is bounded; the constant is a block per node.
        assert!(stats.edges_stale <= 2 * stats.edges_live + 4 * stats.nodes + 8, "I13: {} stale edges after {op:?}", stats.edges_stale);
    }

    fn compare_handles(&self, op: &Op) {
        let (world, oracle) = (&self.world, &self.oracle);
        let pin = world.engine.pin();
        for kept in &self.kept {
            let known = oracle.known(Place::Node(kept.node)).filter(|known| known.born == kept.born);
            // I32: a handle shows its own key's value or nothing, also when the slot has another tenant.
            assert_eq!(kept.resolved.is_live(), known.is_some(), "I32 after {op:?}");
            let expected = known.filter(|known| known.state == State::Consistent).and_then(|known| known.value);
            assert_eq!(kept.resolved.peek(&pin), expected, "I32 after {op:?}");
        }
        for held in &self.held {
            let known = oracle.known(Place::Node(held.node));
            let current =
                known.is_some_and(|known| known.state == State::Consistent && (known.born, known.changed) == (held.born, held.changed));
            assert_eq!(held.generation.is_consistent(), current, "is_consistent of {} after {op:?}", held.node);
            assert_eq!(held.generation.outcome(), held.outcome, "a generation's value is for ever");
            if let Some(watch) = &held.watch {
                let marked = known.map(|known| (known.born, known.marks)) != Some((held.born, held.marks));
                // I34: told once at the first mark, and not before.
                assert_eq!(watch.counter.count(), usize::from(marked), "I34: node {} after {op:?}", held.node);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let told = self.counter.count() > 0;
        let ready = poll_once(&mut self.end, &self.waker) == Poll::Ready(());
        assert_eq!(told, ready, "I34: woken exactly if it is over");
    }
}

/// Runs operations of a program whose bodies may panic: values exactly as evaluated, faults where they belong, no run without
/// end, and a consistent graph after each.
///
/// # Panics
/// At the first difference.
pub fn run_faulty(program: &Program, ops: &[Op], parallel: bool) {
    let world = World::new(program, builder(parallel));
    let tracker = world.tracker().clone();
    let mut sources: BTreeMap<usize, i64> = BTreeMap::new();
    let values = |sources: &BTreeMap<usize, i64>| {
        std::array::from_fn(|source| sources.get(&source).copied().unwrap_or_else(|| crate::program::initial(source)))
    };
    let mut expected = program.evaluate(&values(&sources));
    for op in ops {
        world.arm();
        let source = |number: u8| number as usize % SOURCES;
        match op {
            Op::Set(number, value) => {
                world.set(source(*number), i64::from(*value % 16));
                sources.insert(source(*number), i64::from(*value % 16));
            }
            Op::Batch(sets, marks) => {
                let sets: Vec<_> = sets.iter().map(|&(number, value)| (source(number), i64::from(value % 16))).collect();
                let marks: Vec<_> = marks.iter().map(|&number| program.place(number)).collect();
                world.batch(&sets, &marks);
                sources.extend(sets);
            }
            Op::Invalidate(number) => drop(world.invalidate(program.place(*number))),
            Op::InvalidateAll(function) => drop(world.invalidate_all(*function as usize % program.rules.len())),
            Op::Everything => drop(world.engine.invalidate_everything()),
            Op::Remove(number) => {
                let place = program.place(*number);
                world.remove(place);
                if let Place::Source(source) = place {
                    sources.remove(&source);
                }
            }
            Op::Collect => {
                world.engine.collect();
                assert_eq!(world.engine.stats().retired, 0, "I31");
            }
            other => {
                let number = match other {
                    Op::Get(n) | Op::SetSame(n) | Op::ThereAndBack(n) | Op::GetMany(n) | Op::Resolve(n) | Op::Hold(n) => *n,
                    Op::Watch(n) | Op::Update(n) | Op::Release(n) | Op::Reborn(n) => *n,
                    _ => 0,
                };
                let node = number as usize % program.nodes();
                let got = world.get(Place::Node(node));
                assert!(!world.ran_away(), "reading node {node} ran bodies without end");
                // I27: a panic is a fault for those who asked, never a value.
                match expected[node] {
                    Ok(outcome) => assert_eq!(got, Ok(outcome), "I1: node {node}"),
                    Err(Stop::Panic | Stop::Await) => assert!(matches!(got, Err(Fault::Panicked { .. })), "I27: node {node}: {got:?}"),
                }
            }
        }
        expected = program.evaluate(&values(&sources));
        assert!(!world.ran_away(), "{op:?} ran bodies without end");
        world.engine.assert_consistent();
        let pin = world.engine.pin();
        for (node, expected) in expected.iter().enumerate() {
            if let Some(found) = world.peek(&pin, Place::Node(node)) {
                assert_eq!(Ok(found), *expected, "I27: what is cached is right and never made from a fault: node {node} after {op:?}");
            }
        }
    }
    drop(world);
    assert_eq!(tracker.alive(), 0, "I31: values alive after the engine is gone");
}
