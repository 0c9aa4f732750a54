//! Real threads: what holds while they run, and that all agrees with the oracle when they have stopped.

use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, Ordering};

use arbitrary::{Arbitrary, Unstructured};
use wellspring::{EngineBuilder, Fault};

use crate::program::{Place, Program, SOURCES, initial};
use crate::world::World;

/// What one thread does at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Reads a node and checks what came.
    Get(u8),
    /// Reads a node with the promise that it stood at one instant.
    Fresh(u8),
    /// Reads all sources and two nodes together.
    Snapshot(u8, u8),
    /// Peeks at a node; anything but an old value will do.
    Peek(u8),
    /// Raises a source.
    Raise(u8),
    /// Raises two sources in one batch.
    RaiseTwo(u8, u8),
    /// Invalidates a node.
    Invalidate(u8),
    /// Forgets a node.
    Remove(u8),
    /// Starts an asynchronous read and cancels it.
    Leave(u8),
    /// Collects garbage.
    Collect,
}

impl Act {
    /// Acts for each thread, from the rest of the bytes.
    ///
    /// # Errors
    /// If the bytes end too early.
    pub fn scripts(bytes: &mut Unstructured<'_>, threads: usize) -> arbitrary::Result<Vec<Vec<Act>>> {
        let mut scripts = vec![Vec::new(); threads];
        let mut turn = 0;
        while !bytes.is_empty() && turn < threads * 48 {
            let number = |bytes: &mut Unstructured<'_>| u8::arbitrary(bytes);
            let act = match number(bytes)? % 20 {
                0..=5 => Act::Get(number(bytes)?),
                6 => Act::Leave(number(bytes)?),
                7 | 8 => Act::Peek(number(bytes)?),
                9..=11 => Act::Raise(number(bytes)?),
                12 => Act::RaiseTwo(number(bytes)?, number(bytes)?),
                13 => Act::Invalidate(number(bytes)?),
                14 => Act::Remove(number(bytes)?),
                15 | 16 => Act::Fresh(number(bytes)?),
                17 | 18 => Act::Snapshot(number(bytes)?, number(bytes)?),
                _ => Act::Collect,
            };
            scripts[turn % threads].push(act);
            turn += 1;
        }
        Ok(scripts)
    }
}

/// A source as counters: what has been asked for, and what has certainly arrived.
struct Level {
    issued: AtomicI64,
    arrived: AtomicI64,
}

struct Stage<'w> {
    world: &'w World,
    program: &'w Program,
    levels: Vec<Level>,
    turns: Vec<std::sync::Mutex<()>>,
}

impl Stage<'_> {
    fn read(&self, of: impl Fn(&Level) -> &AtomicI64) -> [i64; SOURCES] {
        std::array::from_fn(|source| of(&self.levels[source]).load(Ordering::SeqCst))
    }

    /// What the node is worth at these levels.
    fn worth(&self, node: usize, of: impl Fn(&Level) -> &AtomicI64) -> i64 {
        self.program.evaluate(&self.read(of))[node].ok().and_then(Result::ok).expect("monotone programs have no errors")
    }

    /// Raises sources by one commit. Sources rise under a lock each, so that they never fall.
    fn raise(&self, mut sources: Vec<usize>) {
        sources.sort_unstable();
        sources.dedup();
        let _turns: Vec<_> = sources.iter().map(|&source| self.turns[source].lock()).collect();
        let sets: Vec<_> = sources.iter().map(|&s| (s, self.levels[s].issued.fetch_add(1, Ordering::SeqCst) + 1)).collect();
        match sets[..] {
            [(source, value)] => self.world.set(source, value),
            _ => self.world.batch(&sets, &[]),
        };
        for (source, value) in sets {
            self.levels[source].arrived.store(value, Ordering::SeqCst);
        }
    }

    fn run(&self, script: &[Act]) {
        let mut seen = vec![i64::MIN; self.program.nodes()];
        for act in script {
            match *act {
                Act::Get(number) => {
                    let node = number as usize % self.program.nodes();
                    let floor = self.worth(node, |level| &level.arrived);
                    let got = self.world.get(Place::Node(node)).expect("no faults in a monotone program").expect("no errors");
                    let ceiling = self.worth(node, |level| &level.issued);
                    // I1, I2, I7: not older than what had arrived before the call, not newer than what was ever asked for.
                    assert!((floor..=ceiling).contains(&got), "I1/I2/I7: node {node}: {floor} <= {got} <= {ceiling}");
                    // I3: a thread never sees a key go back behind what it saw cached.
                    assert!(got >= seen[node], "I3: node {node} went back from {} to {got}", seen[node]);
                    // A doomed flight's value may be ahead of the cache while the commit that doomed it is under way, so
                    // only what is cached counts as seen.
                    let pin = self.world.engine.pin();
                    if let Some(Ok(cached)) = self.world.peek(&pin, Place::Node(node)) {
                        assert!(cached >= seen[node], "I3: node {node} went back from {} to {cached}", seen[node]);
                        seen[node] = cached;
                    }
                }
                Act::Fresh(number) => {
                    let node = number as usize % self.program.nodes();
                    let floor = self.worth(node, |level| &level.arrived);
                    let got = match self.world.get_fresh(node) {
                        Ok(got) => got.expect("monotone programs have no errors"),
                        Err(fault) => {
                            assert!(matches!(fault, Fault::Contended { .. }), "no faults in a monotone program: {fault}");
                            continue;
                        }
                    };
                    let ceiling = self.worth(node, |level| &level.issued);
                    assert!((floor..=ceiling).contains(&got), "I1/I7: node {node}, fresh: {floor} <= {got} <= {ceiling}");
                    // A fresh value was cached, so it counts as seen at once.
                    assert!(got >= seen[node], "I3: node {node} went back from {} to {got}", seen[node]);
                    seen[node] = got;
                }
                Act::Snapshot(a, b) => {
                    let nodes = [a, b].map(|number| number as usize % self.program.nodes());
                    // Nodes first for one half: the order of the reads must not matter.
                    let mut places: Vec<Place> = (0..SOURCES).map(Place::Source).chain(nodes.map(Place::Node)).collect();
                    let back = a > b;
                    if back {
                        places.reverse();
                    }
                    let arrived = self.read(|level| &level.arrived);
                    let Some(mut got) = self.world.snapshot(&places) else { continue };
                    if back {
                        got.reverse();
                    }
                    let got: Vec<i64> = got.into_iter().map(|read| read.expect("no faults").expect("no errors")).collect();
                    let sources: [i64; SOURCES] = std::array::from_fn(|source| got[source]);
                    assert!(sources.iter().zip(&arrived).all(|(got, arrived)| got >= arrived), "I2: {sources:?} after {arrived:?}");
                    let worth = self.program.evaluate(&sources);
                    for (node, got) in nodes.into_iter().zip(&got[SOURCES..]) {
                        assert_eq!(worth[node], Ok(Ok(*got)), "I4: node {node} is not of the commit of {sources:?}");
                    }
                }
                Act::Peek(number) => {
                    let node = number as usize % self.program.nodes();
                    let floor = self.worth(node, |level| &level.arrived);
                    let pin = self.world.engine.pin();
                    if let Some(got) = self.world.peek(&pin, Place::Node(node)) {
                        let got = got.expect("monotone programs have no errors");
                        assert!(got >= floor, "I2: peek of node {node}: {got}, and {floor} had arrived");
                        assert!(got >= seen[node], "I3: node {node} went back from {} to {got}", seen[node]);
                        seen[node] = got;
                    }
                }
                Act::Raise(number) => self.raise(vec![number as usize % SOURCES]),
                Act::RaiseTwo(a, b) => self.raise(vec![a as usize % SOURCES, b as usize % SOURCES]),
                Act::Invalidate(number) => drop(self.world.invalidate(Place::Node(number as usize % self.program.nodes()))),
                Act::Remove(number) => drop(self.world.remove(Place::Node(number as usize % self.program.nodes()))),
                // I26: cancelling one waiter cancels nobody else, and leaves nothing behind.
                Act::Leave(number) => self.world.ask_and_leave(number as usize % self.program.nodes()),
                Act::Collect => drop(self.world.engine.collect()),
            }
        }
    }
}

/// Runs one script per thread, all at once, then compares everything with the oracle.
///
/// # Panics
/// At the first invariant that does not hold.
pub fn run(program: &Program, scripts: &[Vec<Act>], builder: EngineBuilder) {
    let world = World::new(program, builder);
    let tracker = world.tracker().clone();
    let level = |source| Level { issued: AtomicI64::new(initial(source)), arrived: AtomicI64::new(initial(source)) };
    let stage = Stage {
        world: &world,
        program,
        levels: (0..SOURCES).map(level).collect(),
        turns: (0..SOURCES).map(|_| std::sync::Mutex::new(())).collect(),
    };
    let (start, stop) = (Barrier::new(scripts.len()), Barrier::new(scripts.len() + 1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = scripts
            .iter()
            .map(|script| {
                let (stage, start, stop) = (&stage, &start, &stop);
                scope.spawn(move || {
                    // Every thread has pinned the engine, and is alive and idle while the rest is checked.
                    drop(stage.world.engine.pin());
                    start.wait();
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stage.run(script)));
                    stop.wait();
                    stop.wait();
                    if let Err(panic) = result {
                        std::panic::resume_unwind(panic);
                    }
                })
            })
            .collect();
        stop.wait();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| at_quiescence(&stage)));
        stop.wait();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
    drop(stage);
    drop(world);
    assert_eq!(tracker.alive(), 0, "I31: values alive after the engine is gone");
}

fn at_quiescence(stage: &Stage<'_>) {
    let (world, program) = (stage.world, stage.program);
    world.engine.assert_consistent();
    let expected = program.evaluate(&stage.read(|level| &level.arrived));
    {
        let pin = world.engine.pin();
        for (node, expected) in expected.iter().enumerate() {
            if let Some(found) = world.peek(&pin, Place::Node(node)) {
                // I5: whatever was computed across two commits was not left consistent.
                assert_eq!(Ok(found), *expected, "I5: node {node} was left consistent with an old value");
            }
        }
    }
    for (node, expected) in expected.iter().enumerate() {
        assert_eq!(world.get(Place::Node(node)).map_err(|_| ()), expected.map_err(|_| ()), "I1: node {node} at quiescence");
    }
    world.engine.assert_consistent();
    world.engine.collect();
    let boxed = |node: &usize| program.rule(*node).kind.is_boxed();
    let cached = (0..program.nodes()).filter(boxed).count() as i64;
    assert_eq!(world.engine.stats().retired, 0, "I31: nothing waits after `collect`, with other threads alive and idle");
    let sources = (SOURCES / 2..SOURCES)
        .filter(|&source| {
            let pin = world.engine.pin();
            world.peek(&pin, Place::Source(source)).is_some()
        })
        .count() as i64;
    let alive = world.tracker().alive();
    match world.engine.memory_report().capacity {
        None => assert_eq!(alive, cached + sources, "I31: values alive = values cached"),
        // Some have been evicted.
        Some(_) => assert!(alive <= cached + sources, "I31: {alive} values alive of {cached} and {sources}"),
    }
}
