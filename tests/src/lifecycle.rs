//! Time, eviction, errors, panics and cancellation, one thread, against a model: every value exactly, after every operation.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Waker;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use wellspring::{CommitId, Computed, Fault, Invalidated, Snapshot};

use crate::expr::Outcome;
use crate::lifetimes::{BROKEN, DEBOUNCE, KEEP, KEYS, LAZY, Lives, Model, OUTER, Outside, SOURCES, pure, pure_heavy};
use crate::tracked::Tracked;
use crate::waking::{Counting, block_on, poll_once};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An outer function.
    Outer(usize),
    /// See [`Lives`].
    Small,
    /// See [`Lives`].
    Heavy,
    /// See [`Lives`].
    Kept,
    /// See [`Lives`].
    Above,
    /// See [`Lives`].
    Over,
    /// See [`Lives`].
    Panics,
    /// See [`Lives`].
    Late,
}

/// How it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `get`
    Get,
    /// `get_fresh`
    Fresh,
    /// `get_at_least` of the last commit
    AtLeast,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Read(What, usize, How),
    /// Reads several in a snapshot.
    Snapshot(Vec<(What, usize)>),
    /// Sets a source.
    Set(usize, i64),
    /// Sets a source to what it holds.
    SetSame(usize),
    /// Sets and invalidations in one commit.
    Batch(Vec<(usize, i64)>, Vec<(usize, usize)>),
    /// Changes what an outer body finds: a number, or an error.
    Outside(usize, usize, i64, Option<u8>),
    /// Whether the body that may panic does.
    Panics(usize, bool),
    /// Invalidates a key.
    Invalidate(What, usize),
    /// Invalidates an outer key later.
    InvalidateAfter(usize, usize, Duration),
    /// Forgets a key.
    Remove(What, usize),
    /// Evicts.
    Shrink(What, usize),
    /// Time passes.
    Tick(Duration),
    /// Waits for the end of a generation.
    Watch(What, usize),
    /// Lets go of the oldest wait.
    Unwatch,
    /// Starts an asynchronous read and leaves it.
    Leave(usize),
    /// Collects garbage.
    Collect,
}

/// At most this many operations are taken from bytes.
const MOST: usize = 96;

fn what(number: u8) -> What {
    match number % 12 {
        at @ 0..=3 => What::Outer(at.into()),
        4 | 5 => What::Small,
        6 => What::Heavy,
        7 => What::Kept,
        8 | 9 => What::Above,
        10 => What::Over,
        _ => [What::Panics, What::Late][usize::from(number / 12) % 2],
    }
}

impl Op {
    /// Operations from bytes.
    ///
    /// # Errors
    /// If the bytes end too early.
    pub fn list(bytes: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Op>> {
        let mut ops = Vec::new();
        while !bytes.is_empty() && ops.len() < MOST {
            ops.push(Op::one(bytes)?);
        }
        Ok(ops)
    }

    fn one(bytes: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
        let mut byte = || u8::arbitrary(bytes);
        let key = |byte: u8| byte as usize % KEYS;
        let outer = |byte: u8| byte as usize % OUTER;
        let micros = |byte: u8| Duration::from_micros([0, 300, 1_000, 3_700, 4_000, 9_999, 10_000, 16_000][byte as usize % 8]);
        Ok(match byte()? % 32 {
            0..=5 => Op::Read(what(byte()?), key(byte()?), How::Get),
            6 | 7 => Op::Read(what(byte()?), key(byte()?), How::Fresh),
            8 => Op::Read(what(byte()?), key(byte()?), How::AtLeast),
            9..=11 => {
                let count = byte()? % 5;
                Op::Snapshot((0..count).map(|_| Ok((what(byte()?), key(byte()?)))).collect::<arbitrary::Result<_>>()?)
            }
            12 | 13 => Op::Set(byte()? as usize % SOURCES, i64::from(byte()? % 8)),
            14 => Op::SetSame(byte()? as usize % SOURCES),
            15 => {
                let count = byte()?;
                let sets = (0..count % 4).map(|_| Ok((byte()? as usize % SOURCES, i64::from(byte()? % 8))));
                let sets = sets.collect::<arbitrary::Result<_>>()?;
                let marks = (0..count / 4 % 3).map(|_| Ok((outer(byte()?), key(byte()?)))).collect::<arbitrary::Result<_>>()?;
                Op::Batch(sets, marks)
            }
            16..=18 => {
                let (function, key, value) = (outer(byte()?), key(byte()?), byte()?);
                Op::Outside(function, key, i64::from(value / 8), (value % 2 == 1).then_some(value / 2 % 4))
            }
            19 => {
                let number = byte()?;
                Op::Panics(key(number), number / 8 % 2 == 1)
            }
            20 => Op::Invalidate(what(byte()?), key(byte()?)),
            21 => Op::InvalidateAfter(outer(byte()?), key(byte()?), micros(byte()?)),
            22 => Op::Remove(what(byte()?), key(byte()?)),
            23 | 24 => {
                let number = byte()?;
                Op::Shrink([What::Small, What::Heavy, What::Kept, What::Late][number as usize % 4], usize::from(number / 4 % 4))
            }
            25 | 26 => Op::Tick(micros(byte()?)),
            27 => Op::Watch(what(byte()?), key(byte()?)),
            28 => Op::Unwatch,
            29 | 30 => Op::Leave(key(byte()?)),
            _ => Op::Collect,
        })
    }
}

/// A generation whose end is waited for.
struct Watch {
    what: What,
    key: usize,
    /// The generation's number in the model: of an outer function, or touches of `small`.
    seen: u64,
    counter: Arc<Counting>,
    _end: Invalidated,
}

struct Run {
    lives: Lives,
    model: Model,
    watches: Vec<Watch>,
    last: CommitId,
}

type Seen = Result<Outcome, Fault>;

fn outcome(read: Result<Tracked, Fault>) -> Seen {
    read.map(|value| value.outcome)
}

/// Reads by any asker, sync functions only.
macro_rules! read {
    ($lives:expr, $by:expr, $what:expr, $key:expr, $get:ident $(, $more:expr)?) => {{
        let (lives, key) = (&$lives, &($key as u8));
        match $what {
            What::Outer(function) => outcome(lives.outer[function].$get($by, key $(, $more)?)),
            What::Small => outcome(lives.small.$get($by, key $(, $more)?)),
            What::Heavy => lives.heavy.$get($by, key $(, $more)?).map(Ok),
            What::Kept => lives.kept.$get($by, key $(, $more)?).map(Ok),
            What::Above => lives.above.$get($by, key $(, $more)?).map(Ok),
            What::Over => lives.over.$get($by, key $(, $more)?).map(Ok),
            What::Panics => lives.panics.$get($by, key $(, $more)?).map(Ok),
            What::Late => block_on(lives.late.$get($by, key $(, $more)?)).map(Ok),
        }
    }};
}

/// Does something to a function, whatever its type.
macro_rules! with {
    ($lives:expr, $what:expr, |$handle:ident| $use:expr) => {{
        let lives = &$lives;
        match $what {
            What::Outer(function) => {
                let $handle = &lives.outer[function];
                $use
            }
            What::Small => {
                let $handle = &lives.small;
                $use
            }
            What::Heavy => {
                let $handle = &lives.heavy;
                $use
            }
            What::Kept => {
                let $handle = &lives.kept;
                $use
            }
            What::Above => {
                let $handle = &lives.above;
                $use
            }
            What::Over => {
                let $handle = &lives.over;
                $use
            }
            What::Panics => {
                let $handle = &lives.panics;
                $use
            }
            What::Late => {
                let $handle = &lives.late;
                $use
            }
        }
    }};
}

impl Run {
    fn outside<T>(&self, see: impl FnOnce(&mut Outside) -> T) -> T {
        see(&mut self.lives.outside.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// What the model says of a read; `None` is a fault.
    fn expected(&mut self, what: What, key: usize) -> Option<Outcome> {
        let shared = self.lives.outside.clone();
        let outside = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let model = &mut self.model;
        let sources = model.sources;
        Some(match what {
            What::Outer(function) => model.read(&outside, function, key),
            What::Small => Ok(pure(&sources, key)),
            What::Heavy => Ok(pure_heavy(&sources, key)),
            What::Kept => Ok(sources[key % SOURCES]),
            What::Above => Ok(model.read_above(&outside, key)),
            What::Over => {
                let above = model.read_above(&outside, key);
                Ok(model.read_panics(&outside, key).map_or(BROKEN, |more| above.wrapping_add(more)))
            }
            What::Panics => Ok(model.read_panics(&outside, key)?),
            What::Late => Ok(pure(&sources, key) + sources[key % SOURCES]),
        })
    }

    fn check(&mut self, what: What, key: usize, got: Seen, op: &Op) {
        let expected = self.expected(what, key);
        match (expected, got) {
            (None, Err(Fault::Panicked { .. })) => {}
            // I1, I2, I6, I30.
            (Some(expected), got) => assert_eq!(got, Ok(expected), "I1: {what:?} {key} in {op:?}"),
            (None, got) => panic!("I27: {what:?} {key}: {got:?} from a body that panics"),
        }
    }

    fn read(&mut self, what: What, key: usize, how: How, op: &Op) {
        let before = self.lives.runs[OUTER].load(SeqCst);
        let engine = &self.lives.engine;
        let got = match how {
            How::Get => read!(self.lives, engine, what, key, get),
            How::Fresh => read!(self.lives, engine, what, key, get_fresh),
            How::AtLeast => read!(self.lives, engine, what, key, get_at_least, self.last),
        };
        if what == What::Kept {
            let ran = self.lives.runs[OUTER].load(SeqCst) > before;
            if self.model.kept[key].is_some_and(|read| self.model.now <= read + KEEP) {
                assert!(!ran, "key {key} was read at {:?} and is kept for {KEEP:?}: {:?}", self.model.kept[key], self.model.now);
            }
            self.model.kept[key] = Some(self.model.now);
        }
        self.check(what, key, got, op);
    }

    fn snapshot(&mut self, places: &[(What, usize)], op: &Op) {
        let got = {
            let lives = &self.lives;
            // Only what is not asynchronous and does not panic at every try.
            let read = |s: &Snapshot| -> Vec<Seen> {
                let sync = places.iter().filter(|(what, _)| !matches!(what, What::Late | What::Panics));
                sync.map(|&(what, key)| read!(*lives, s, what, key, get)).collect()
            };
            lives.engine.snapshot(read).expect("I30: nobody commits, so nothing is contended")
        };
        let sync = places.iter().filter(|(what, _)| !matches!(what, What::Late | What::Panics));
        for (&(what, key), got) in sync.zip(got) {
            self.check(what, key, got, op);
        }
    }

    fn watch(&mut self, what: What, key: usize, op: &Op) {
        fn arm<V: wellspring::Value>(computed: &Computed<V>, waker: &Waker) -> Option<Invalidated> {
            let mut end = computed.invalidated();
            poll_once(&mut end, waker).is_pending().then_some(end)
        }
        let (counter, waker) = Counting::pair();
        let engine = &self.lives.engine;
        let (got, end) = match what {
            What::Outer(function) => match self.lives.outer[function].computed(engine, &(key as u8)) {
                Ok(computed) => (Ok(computed.value().outcome), arm(&computed, &waker)),
                Err(fault) => (Err(fault), None),
            },
            _ => match self.lives.small.computed(engine, &(key as u8)) {
                Ok(computed) => (Ok(computed.value().outcome), arm(&computed, &waker)),
                Err(fault) => (Err(fault), None),
            },
        };
        let what = if matches!(what, What::Outer(_)) { what } else { What::Small };
        self.check(what, key, got, op);
        assert!(end.is_some() || what == What::Small, "I34: {what:?} {key} has ended as it was made");
        if let Some(end) = end {
            self.watches.push(Watch { what, key, seen: self.mark(what, key), counter, _end: end });
        }
    }

    /// A number that changes whenever the present generation ends.
    fn mark(&self, what: What, key: usize) -> u64 {
        match what {
            What::Outer(function) => match self.model.nodes[function][key] {
                Some(life) if life.valid => life.generation,
                _ => u64::MAX,
            },
            _ => self.model.touched[key],
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Read(what, key, how) => self.read(what, key, how, op),
            Op::Snapshot(ref places) => self.snapshot(places, op),
            Op::Set(source, value) => {
                self.last = self.last.max(self.lives.source.set(&(source as u8), value));
                self.model.set(source, value);
            }
            Op::SetSame(source) => {
                self.lives.source.set(&(source as u8), self.model.sources[source]);
            }
            Op::Batch(ref sets, ref marks) => {
                let lives = &self.lives;
                self.last = lives.engine.batch(|batch| {
                    sets.iter().for_each(|&(source, value)| batch.set(&lives.source, &(source as u8), value));
                    marks.iter().for_each(|&(function, key)| batch.invalidate(&lives.outer[function], &(key as u8)));
                });
                let last: std::collections::BTreeMap<_, _> = sets.iter().copied().collect();
                last.into_iter().for_each(|(source, value)| self.model.set(source, value));
                marks.iter().for_each(|&(function, key)| self.model.invalidate(function, key));
            }
            Op::Outside(function, key, value, error) => self.outside(|outside| {
                outside.values[function][key] = value;
                outside.errors[function][key] = error;
            }),
            Op::Panics(key, panics) => self.outside(|outside| outside.panics[key] = panics),
            Op::Invalidate(what, key) => {
                with!(self.lives, what, |handle| handle.invalidate(&(key as u8)));
                match what {
                    What::Outer(LAZY) => drop(self.model.invalidate_after(LAZY, key, DEBOUNCE)),
                    What::Outer(function) => self.model.invalidate(function, key),
                    _ => self.touch(what, key),
                }
            }
            Op::InvalidateAfter(function, key, delay) => {
                let told = self.lives.outer[function].invalidate_after(&(key as u8), delay);
                assert_eq!(told, self.model.invalidate_after(function, key, delay), "whether outer {function} {key} has a node");
            }
            Op::Remove(what, key) => {
                with!(self.lives, what, |handle| handle.remove(&(key as u8)));
                match what {
                    What::Outer(function) => self.model.nodes[function][key] = None,
                    _ => self.touch(what, key),
                }
            }
            Op::Shrink(what, entries) => {
                with!(self.lives, what, |handle| handle.shrink_to(entries));
            }
            Op::Tick(by) => {
                self.lives.clock.advance(by);
                self.model.advance(by);
            }
            Op::Watch(what, key) => self.watch(what, key, op),
            Op::Unwatch => drop((!self.watches.is_empty()).then(|| self.watches.remove(0))),
            Op::Leave(key) => {
                let mut read = self.lives.late.get(&self.lives.engine, &(key as u8));
                drop(poll_once(&mut read, Waker::noop()));
            }
            Op::Collect => {
                self.lives.engine.collect();
                assert_eq!(self.lives.engine.stats().retired, 0, "I31: nothing waits after `collect`");
            }
        }
    }

    fn touch(&mut self, what: What, key: usize) {
        match what {
            What::Small => self.model.touched[key] += 1,
            What::Kept => self.model.kept[key] = None,
            What::Panics => self.model.panics[key] = false,
            _ => {}
        }
    }

    /// What must hold after any operation.
    fn inspect(&self, op: &Op) {
        let (lives, model) = (&self.lives, &self.model);
        lives.engine.assert_consistent();
        for function in 0..OUTER {
            // I22, I33: no run too many and none too few.
            assert_eq!(lives.runs[function].load(SeqCst), model.runs[function], "runs of outer {function} after {op:?}");
        }
        let pin = lives.engine.pin();
        for key in 0..KEYS {
            let at = &(key as u8);
            for function in 0..OUTER {
                let cached = lives.outer[function].peek(&pin, at).map(|value| value.outcome);
                let expected = model.nodes[function][key].filter(|life| life.valid).and_then(|life| life.value);
                // I33: never early, and not late once the clock stands still. I7: nothing that has ended is served.
                assert_eq!(cached, expected, "I33: outer {function} {key} after {op:?} at {:?}", model.now);
            }
            let sources = &model.sources;
            let same = |what: &str, cached: Option<i64>, now: Option<i64>| {
                assert!(cached.is_none() || cached == now, "I8, I30: {what} {key} after {op:?}: {cached:?}, not {now:?}");
            };
            same("small", lives.small.peek(&pin, at).map(|value| value.outcome.expect("a number")), Some(pure(sources, key)));
            same("heavy", lives.heavy.peek(&pin, at).map(|value| *value), Some(pure_heavy(sources, key)));
            same("kept", lives.kept.peek(&pin, at).map(|value| *value), Some(sources[key % SOURCES]));
            same("late", lives.late.peek(&pin, at).map(|value| *value), Some(pure(sources, key) + sources[key % SOURCES]));
            same("above", lives.above.peek(&pin, at).map(|value| *value), model.cached_above(key));
            let panics = model.panics[key].then_some(sources[key % SOURCES]);
            assert_eq!(lives.panics.peek(&pin, at).map(|value| *value), panics, "I27: panics {key} after {op:?}");
            let over = model.cached_above(key).zip(panics).map(|(above, more)| above.wrapping_add(more));
            same("over", lives.over.peek(&pin, at).map(|value| *value), over);
        }
        for watch in &self.watches {
            let ended = self.mark(watch.what, watch.key) != watch.seen;
            assert_eq!(watch.counter.count(), usize::from(ended), "I34: {:?} {} after {op:?}", watch.what, watch.key);
            if !ended && watch.what == What::Small {
                assert!(lives.small.peek(&pin, &(watch.key as u8)).is_some(), "what is watched stays: {} after {op:?}", watch.key);
            }
        }
        self.account(op);
    }

    /// I29: what the budgets count is there, and is within them or said not to be. (Sums are the audit's.)
    fn account(&self, op: &Op) {
        for function in self.lives.engine.memory_report().functions {
            let Some(most) = function.capacity else { continue };
            if function.name != "heavy" {
                assert_eq!(function.used, function.nodes as u64, "I29: entries of {} after {op:?}", function.name);
            }
            assert!(function.used <= most || function.stuck > 0, "I29: {} holds {} of {most}", function.name, function.used);
        }
    }
}

/// Runs the operations with `small` holding so many entries and `heavy` so much weight.
///
/// # Panics
/// At the first difference between engine and model.
pub fn run(entries: usize, weight: u64, ops: &[Op]) {
    let lives = Lives::new(entries, weight);
    let tracker = lives.tracker.clone();
    let mut run = Run { lives, model: Model::default(), watches: Vec::new(), last: CommitId::default() };
    for op in ops {
        run.step(op);
        run.inspect(op);
    }
    run.watches.clear();
    run.lives.clock.advance(KEEP * 3);
    run.model.advance(KEEP * 3);
    // Three levels and a second chance: all that has a capacity can leave, whatever was made from it.
    for _ in 0..4 {
        let lives = &run.lives;
        let _ = (lives.small.shrink_to(0), lives.kept.shrink_to(0), lives.late.shrink_to(0));
    }
    let lives = &run.lives;
    assert_eq!((lives.small.len(), lives.kept.len(), lives.late.len()), (0, 0, 0), "I29: nothing is pinned for ever");
    run.inspect(&Op::Collect);
    for key in 0..KEYS {
        run.read(What::Over, key, How::Get, &Op::Collect);
    }
    run.inspect(&Op::Collect);
    drop(run);
    assert_eq!(tracker.alive(), 0, "I31: values alive after the engine is gone");
}

/// Runs what bytes say.
///
/// # Errors
/// If the bytes end too early.
pub fn run_bytes(bytes: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let shape = u8::arbitrary(bytes)?;
    let ops = Op::list(bytes)?;
    run(1 + usize::from(shape % 4), u64::from(shape / 4 % 16), &ops);
    Ok(())
}
