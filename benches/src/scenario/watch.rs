//! How soon watchers learn of a change.
//!
//! Conditions: one value, 100,000 callbacks, one of them stuck inside a call all the time. A round sets the value and notes for each of
//! the others when its callback was entered, from before the commit; the figure is the 99th percentile. Beside it a
//! `tokio::sync::watch` with as many receivers, each in a task of its own on a runtime with as many workers as the machine has cores
//! and one more, which the stuck receiver blocks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, Thread};
use std::time::Instant;

use wellspring::{Engine, Source, Watch};

use super::Scenario;
use crate::rounds::median;
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "watch/fan-out-100k", run: fan_out }];

const WATCHERS: usize = 100_000;

/// When each watcher was reached in a round.
struct Roll {
    base: Instant,
    begun: AtomicU64,
    entered: Box<[AtomicU64]>,
    missing: AtomicUsize,
    caller: Thread,
}

impl Roll {
    fn new(watchers: usize) -> Arc<Roll> {
        Arc::new(Roll {
            base: Instant::now(),
            begun: AtomicU64::new(0),
            entered: (0..watchers).map(|_| AtomicU64::new(0)).collect(),
            missing: AtomicUsize::new(watchers),
            caller: thread::current(),
        })
    }

    fn enter(&self, watcher: usize) {
        self.entered[watcher].store(self.base.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.caller.unpark();
        }
    }

    fn wait(&self) {
        while self.missing.load(Ordering::Acquire) > 0 {
            thread::park();
        }
    }

    /// One round: milliseconds to the 99th percentile and to the last, and microseconds that `change` itself took.
    fn round(&self, change: impl FnOnce()) -> [f64; 3] {
        self.missing.store(self.entered.len(), Ordering::Release);
        let begun = self.base.elapsed().as_nanos() as u64;
        self.begun.store(begun, Ordering::Relaxed);
        change();
        let changed = self.base.elapsed().as_nanos() as u64;
        self.wait();
        let mut nanos: Vec<u64> = self.entered.iter().map(|at| at.load(Ordering::Relaxed) - begun).collect();
        nanos.sort_unstable();
        let millis = |nanos: u64| nanos as f64 / 1e6;
        [millis(nanos[nanos.len() * 99 / 100]), millis(nanos[nanos.len() - 1]), (changed - begun) as f64 / 1e3]
    }
}

struct Ours {
    source: Source<u8, u64>,
    roll: Arc<Roll>,
    next: u64,
    _watches: Vec<Watch>,
}

impl Ours {
    /// So many watchers and one that is stuck until the gate opens.
    fn new(engine: &Engine, watchers: usize, gate: &Arc<RwLock<()>>) -> Ours {
        let source = engine.source(format!("value-{watchers}"), |_: &u8| 0u64).expect("the name is free");
        let roll = Roll::new(watchers);
        let mut watches = Vec::with_capacity(watchers + 1);
        let gate = gate.clone();
        watches.push(source.watch(engine, &0, move |_| drop(gate.read())).expect("this engine's"));
        for watcher in 0..watchers {
            let roll = roll.clone();
            watches.push(source.watch(engine, &0, move |_| roll.enter(watcher)).expect("this engine's"));
        }
        roll.wait();
        Ours { source, roll, next: 0, _watches: watches }
    }

    fn round(&mut self) -> [f64; 3] {
        self.next += 1;
        let (source, next) = (&self.source, self.next);
        self.roll.round(|| {
            source.set(&0, next);
        })
    }
}

#[cfg(feature = "peers")]
struct Theirs {
    sender: tokio::sync::watch::Sender<u64>,
    roll: Arc<Roll>,
    next: u64,
    _runtime: tokio::runtime::Runtime,
}

#[cfg(feature = "peers")]
impl Theirs {
    fn new(watchers: usize, gate: &Arc<RwLock<()>>) -> Theirs {
        let workers = thread::available_parallelism().map_or(1, usize::from) + 1;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).build().expect("a runtime");
        let (sender, receiver) = tokio::sync::watch::channel(0u64);
        let roll = Roll::new(watchers);
        for watcher in 0..watchers {
            let (mut receiver, roll) = (receiver.clone(), roll.clone());
            runtime.spawn(async move {
                roll.enter(watcher);
                while receiver.changed().await.is_ok() {
                    receiver.borrow_and_update();
                    roll.enter(watcher);
                }
            });
        }
        roll.wait();
        let gate = gate.clone();
        runtime.spawn(async move { drop(gate.read()) });
        Theirs { sender, roll, next: 0, _runtime: runtime }
    }

    fn round(&mut self) -> [f64; 3] {
        self.next += 1;
        let (sender, next) = (&self.sender, self.next);
        self.roll.round(|| {
            sender.send_replace(next);
        })
    }
}

fn fan_out(name: &str, plan: Plan) -> Vec<Row> {
    let engine = Engine::new();
    let gate = Arc::new(RwLock::new(()));
    let shut = gate.write().expect("unpoisoned");
    let mut ours = Ours::new(&engine, WATCHERS - 1, &gate);
    let mut alone = Ours::new(&engine, 1, &gate);
    #[cfg(feature = "peers")]
    let mut theirs = Theirs::new(WATCHERS - 1, &gate);
    let (mut figures, mut peers) = (Vec::new(), Vec::new());
    let (mut last, mut commits, mut single) = (Vec::new(), Vec::new(), Vec::new());
    // The first round of each is not counted.
    for round in 0..=plan.rounds() {
        let [p99, most, commit] = ours.round();
        let [_, _, one] = alone.round();
        #[cfg(feature = "peers")]
        let [peer, _, _] = theirs.round();
        #[cfg(not(feature = "peers"))]
        let peer = f64::NAN;
        if round > 0 {
            figures.push(p99);
            last.push(most);
            commits.push(commit);
            single.push(one);
            peers.push(peer);
        }
    }
    let peer = "tokio::sync::watch, a task a receiver";
    let row = if cfg!(feature = "peers") {
        Row::versus(name, 1, Unit::MILLIS, &figures, peer, &peers)
    } else {
        Row::alone(name, 1, Unit::MILLIS, &figures, format!("{peer}: {}", super::NOT_BUILT))
    };
    let row = row
        .note(format!("p99 from before the commit until a callback is entered; the last after {:.0} ms", median(&last)))
        .note(format!("the commit itself {:.0} us, with one watcher {:.0} us", median(&commits), median(&single)))
        .bar(Bar::AtMost(100.0));
    drop(shut);
    vec![row]
}
