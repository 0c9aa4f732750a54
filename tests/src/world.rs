//! A program registered with an engine: real handles, real bodies, counters for what ran.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use wellspring::{AsyncFunction, CommitId, Computed, Cx, Engine, EngineBuilder, Fault, Function, NodeRef, Pin, Source};

use crate::expr::{BROKEN, Outcome, Stop};
use crate::program::{KEYS, Kind, Place, Program, SOURCES, initial};
use crate::tracked::{Tracked, Tracker, from_word, to_word};
use crate::waking::{Breath, Counting, block_on, poll_once};

/// Bodies one operation may run before it counts as running away.
const RUNAWAY: u64 = 20_000;

/// A registered function.
#[derive(Clone, Debug)]
pub enum Registered {
    /// [`Kind::Word`]
    Word(Function<u32, i64>),
    /// [`Kind::Boxed`]
    Boxed(Function<u32, Tracked>),
    /// [`Kind::Text`]
    Text(Function<String, Tracked>),
    /// [`Kind::AsyncWord`]
    AsyncWord(AsyncFunction<u32, i64>),
    /// [`Kind::AsyncBoxed`]
    AsyncBoxed(AsyncFunction<u32, Tracked>),
}

/// A generation, whatever its function.
#[derive(Clone, Debug)]
pub enum Generation {
    /// Of an inline value.
    Word(Computed<i64>),
    /// Of a boxed value.
    Boxed(Computed<Tracked>),
}

/// A resolved node, whatever its function.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// Of an inline value.
    Word(NodeRef<i64>),
    /// Of a boxed value.
    Boxed(NodeRef<Tracked>),
}

#[derive(Debug)]
struct Parts {
    program: Program,
    words: Source<u32, i64>,
    boxes: Source<u32, Tracked>,
    functions: OnceLock<Vec<Registered>>,
    runs: AtomicU64,
    limit: AtomicU64,
    ran_away: AtomicBool,
    tracker: Tracker,
}

/// A program in an engine.
#[derive(Debug)]
pub struct World {
    /// The engine.
    pub engine: Engine,
    parts: Arc<Parts>,
}

fn text(key: u32) -> String {
    format!("key {key}")
}

fn key_of(text: &str) -> usize {
    text.strip_prefix("key ").and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Runs `$use` with the function behind any kind of handle and the node's key.
macro_rules! with_key {
    ($function:expr, $node:expr, |$handle:ident, $key:ident| $use:expr) => {
        match $function {
            Registered::Word($handle) => {
                let $key = &(($node % KEYS) as u32);
                $use
            }
            Registered::Boxed($handle) => {
                let $key = &(($node % KEYS) as u32);
                $use
            }
            Registered::Text($handle) => {
                let $key = text(($node % KEYS) as u32);
                let $key = $key.as_str();
                $use
            }
            Registered::AsyncWord($handle) => {
                let $key = &(($node % KEYS) as u32);
                $use
            }
            Registered::AsyncBoxed($handle) => {
                let $key = &(($node % KEYS) as u32);
                $use
            }
        }
    };
}

impl Parts {
    fn function(&self, node: usize) -> &Registered {
        match self.functions.get() {
            Some(functions) => &functions[node / KEYS],
            None => unreachable!("bodies run after registration"),
        }
    }

    fn count_run(&self) {
        let runs = self.runs.fetch_add(1, Ordering::Relaxed);
        if runs > self.limit.load(Ordering::Relaxed) {
            self.ran_away.store(true, Ordering::Relaxed);
            std::panic::resume_unwind(Box::new("ran away"));
        }
    }

    fn read_source(&self, source: usize, cx: &Cx) -> Result<Outcome, Fault> {
        let key = (source % (SOURCES / 2)) as u32;
        if source < SOURCES / 2 { self.words.get(cx, &key).map(from_word) } else { self.boxes.get(cx, &key).map(|value| value.outcome) }
    }

    fn read_sync(&self, place: Place, cx: &Cx) -> Result<Outcome, Fault> {
        match place {
            Place::Source(source) => self.read_source(source, cx),
            Place::Node(node) => match self.function(node) {
                Registered::Word(function) => function.get(cx, &((node % KEYS) as u32)).map(from_word),
                Registered::Boxed(function) => function.get(cx, &((node % KEYS) as u32)).map(|value| value.outcome),
                Registered::Text(function) => function.get(cx, text((node % KEYS) as u32).as_str()).map(|value| value.outcome),
                Registered::AsyncWord(_) | Registered::AsyncBoxed(_) => Err(Fault::WouldBlock),
            },
        }
    }

    fn run(&self, node: usize, cx: &Cx) -> Outcome {
        self.count_run();
        let result = self.program.body(node).eval(&mut |read, tracked| {
            let Some(place) = self.program.resolve(node, read) else { return Ok(Ok(0)) };
            let got = if tracked { self.read_sync(place, cx) } else { cx.untracked(|cx| self.read_sync(place, cx)) };
            Ok(got.unwrap_or(Err(BROKEN)))
        });
        // Unwinds without the panic hook: thousands of these are part of the test.
        result.unwrap_or_else(|_| std::panic::resume_unwind(Box::new("a body panics")))
    }

    /// The same body as a future: evaluated again from the start after every read, with the reads so far replayed.
    async fn run_async(&self, node: usize, cx: Cx) -> Outcome {
        self.count_run();
        if node % 2 == 1 {
            Breath::default().await;
        }
        let mut replay: Vec<Outcome> = Vec::new();
        loop {
            let (mut at, mut wanted) = (0, None);
            let result = self.program.body(node).eval(&mut |read, tracked| {
                if at < replay.len() {
                    at += 1;
                    return Ok(replay[at - 1]);
                }
                wanted = Some((read, tracked));
                Err(Stop::Await)
            });
            match (result, wanted) {
                (Ok(outcome), _) => return outcome,
                (Err(_), Some((read, tracked))) => {
                    let next = match self.program.resolve(node, read) {
                        None => Ok(0),
                        Some(place) => self.read_async(place, &cx, tracked).await.unwrap_or(Err(BROKEN)),
                    };
                    replay.push(next);
                }
                (Err(_), None) => std::panic::resume_unwind(Box::new("a body panics")),
            }
        }
    }

    async fn read_async(&self, place: Place, cx: &Cx, tracked: bool) -> Result<Outcome, Fault> {
        if let Place::Node(node) = place {
            let key = (node % KEYS) as u32;
            let view = if tracked { cx.clone() } else { cx.untracked_cx() };
            match self.function(node) {
                Registered::AsyncWord(function) => return function.get(&view, &key).await.map(from_word),
                Registered::AsyncBoxed(function) => return function.get(&view, &key).await.map(|value| value.outcome),
                _ => {}
            }
        }
        if tracked { self.read_sync(place, cx) } else { cx.untracked(|cx| self.read_sync(place, cx)) }
    }
}

impl World {
    /// Registers the program.
    pub fn new(program: &Program, builder: EngineBuilder) -> World {
        let engine = builder.build();
        let tracker = Tracker::default();
        let words = engine.source("words", |&key: &u32| initial(key as usize));
        let boxes = {
            let tracker = tracker.clone();
            // Durable, so that programs mix what verifications pass over with what they look at.
            let define = engine.define("boxes").cut_off_eq().durable();
            define.source(move |&key: &u32| tracker.track(Ok(initial(key as usize + SOURCES / 2))))
        };
        let parts = Arc::new(Parts {
            program: program.clone(),
            words: words.expect("a fresh name"),
            boxes: boxes.expect("a fresh name"),
            functions: OnceLock::new(),
            runs: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            ran_away: AtomicBool::new(false),
            tracker,
        });
        let functions = (0..program.rules.len()).map(|index| register(&engine, &parts, index)).collect();
        parts.functions.set(functions).expect("set once");
        World { engine, parts }
    }

    /// Bodies run so far, sources' initial closures excluded.
    pub fn runs(&self) -> u64 {
        self.parts.runs.load(Ordering::Relaxed)
    }

    /// Starts counting for one operation: a runaway one ends in panics instead of never.
    pub fn arm(&self) {
        self.parts.limit.store(self.runs() + RUNAWAY, Ordering::Relaxed);
    }

    /// Whether an operation ran more bodies than any could need.
    pub fn ran_away(&self) -> bool {
        self.parts.ran_away.load(Ordering::Relaxed)
    }

    /// The counter of boxed values.
    pub fn tracker(&self) -> &Tracker {
        &self.parts.tracker
    }

    /// Sets a source.
    pub fn set(&self, source: usize, value: i64) -> CommitId {
        let key = (source % (SOURCES / 2)) as u32;
        if source < SOURCES / 2 {
            self.parts.words.set(&key, to_word(Ok(value)))
        } else {
            self.parts.boxes.set(&key, self.parts.tracker.track(Ok(value)))
        }
    }

    /// Applies sets and invalidations as one commit.
    pub fn batch(&self, sets: &[(usize, i64)], invalidated: &[Place]) -> CommitId {
        self.engine.batch(|batch| {
            for &(source, value) in sets {
                let key = (source % (SOURCES / 2)) as u32;
                if source < SOURCES / 2 {
                    batch.set(&self.parts.words, &key, value);
                } else {
                    batch.set(&self.parts.boxes, &key, self.parts.tracker.track(Ok(value)));
                }
            }
            for &place in invalidated {
                match place {
                    Place::Source(source) if source < SOURCES / 2 => batch.invalidate(&self.parts.words, &(source as u32)),
                    Place::Source(source) => batch.invalidate(&self.parts.boxes, &((source - SOURCES / 2) as u32)),
                    Place::Node(node) => with_key!(self.parts.function(node), node, |handle, key| batch.invalidate(handle, key)),
                }
            }
        })
    }

    /// Reads from outside.
    pub fn get(&self, place: Place) -> Result<Outcome, Fault> {
        match place {
            Place::Source(source) if source < SOURCES / 2 => self.parts.words.get(&self.engine, &(source as u32)).map(from_word),
            Place::Source(source) => self.parts.boxes.get(&self.engine, &((source - SOURCES / 2) as u32)).map(|value| value.outcome),
            Place::Node(node) => match self.parts.function(node) {
                Registered::Word(function) => function.get(&self.engine, &((node % KEYS) as u32)).map(from_word),
                Registered::Boxed(function) => function.get(&self.engine, &((node % KEYS) as u32)).map(|value| value.outcome),
                Registered::Text(function) => function.get(&self.engine, text((node % KEYS) as u32).as_str()).map(|value| value.outcome),
                Registered::AsyncWord(function) => block_on(function.get(&self.engine, &((node % KEYS) as u32))).map(from_word),
                Registered::AsyncBoxed(function) if node.is_multiple_of(2) => {
                    function.wait(&self.engine, &((node % KEYS) as u32)).map(|value| value.outcome)
                }
                Registered::AsyncBoxed(function) => {
                    block_on(function.get(&self.engine, &((node % KEYS) as u32))).map(|value| value.outcome)
                }
            },
        }
    }

    /// Starts a read of an asynchronous function, polls it once and leaves.
    pub fn ask_and_leave(&self, node: usize) {
        let (_, waker) = Counting::pair();
        match self.parts.function(node) {
            Registered::AsyncWord(function) => {
                let _ = poll_once(&mut function.get(&self.engine, &((node % KEYS) as u32)), &waker);
            }
            Registered::AsyncBoxed(function) => {
                let _ = poll_once(&mut function.get(&self.engine, &((node % KEYS) as u32)), &waker);
            }
            _ => {}
        }
    }

    /// Peeks under a pin.
    pub fn peek(&self, pin: &Pin<'_>, place: Place) -> Option<Outcome> {
        match place {
            Place::Source(source) if source < SOURCES / 2 => self.parts.words.peek(pin, &(source as u32)).map(|read| from_word(*read)),
            Place::Source(source) => self.parts.boxes.peek(pin, &((source - SOURCES / 2) as u32)).map(|read| read.outcome),
            Place::Node(node) => match self.parts.function(node) {
                Registered::Word(function) => function.peek(pin, &((node % KEYS) as u32)).map(|read| from_word(*read)),
                Registered::AsyncWord(function) => function.peek(pin, &((node % KEYS) as u32)).map(|read| from_word(*read)),
                Registered::Boxed(function) => function.peek(pin, &((node % KEYS) as u32)).map(|read| read.outcome),
                Registered::AsyncBoxed(function) => function.peek(pin, &((node % KEYS) as u32)).map(|read| read.outcome),
                Registered::Text(function) => function.peek(pin, text((node % KEYS) as u32).as_str()).map(|read| read.outcome),
            },
        }
    }

    /// All keys of one function through `get_many`.
    pub fn get_many(&self, pin: &Pin<'_>, function: usize) -> [Option<Outcome>; KEYS] {
        let mut found = [None; KEYS];
        let keys: [u32; KEYS] = std::array::from_fn(|key| key as u32);
        match &self.parts.function(function * KEYS) {
            Registered::Word(function) => function.get_many(pin, &keys, |at, value| found[at] = value.map(|word| from_word(*word))),
            Registered::AsyncWord(function) => {
                function.get_many(pin, &keys, |at, value| found[at] = value.map(|word| from_word(*word)));
            }
            Registered::Boxed(function) => function.get_many(pin, &keys, |at, value| found[at] = value.map(|value| value.outcome)),
            Registered::AsyncBoxed(function) => {
                function.get_many(pin, &keys, |at, value| found[at] = value.map(|value| value.outcome));
            }
            Registered::Text(function) => {
                let keys = keys.map(text);
                function.get_many(pin, &keys, |at, value| found[at] = value.map(|value| value.outcome));
            }
        }
        found
    }

    /// The cached generation, if there is a consistent one.
    pub fn existing(&self, node: usize) -> Option<Generation> {
        match self.parts.function(node) {
            Registered::Word(function) => function.existing(&((node % KEYS) as u32)).map(Generation::Word),
            Registered::AsyncWord(function) => function.existing(&((node % KEYS) as u32)).map(Generation::Word),
            Registered::Boxed(function) => function.existing(&((node % KEYS) as u32)).map(Generation::Boxed),
            Registered::AsyncBoxed(function) => function.existing(&((node % KEYS) as u32)).map(Generation::Boxed),
            Registered::Text(function) => function.existing(text((node % KEYS) as u32).as_str()).map(Generation::Boxed),
        }
    }

    /// The current generation, computed if needed.
    ///
    /// # Errors
    /// The engine's fault.
    pub fn computed(&self, node: usize) -> Result<Generation, Fault> {
        let (engine, key) = (&self.engine, (node % KEYS) as u32);
        match self.parts.function(node) {
            Registered::Word(function) => function.computed(engine, &key).map(Generation::Word),
            Registered::Boxed(function) => function.computed(engine, &key).map(Generation::Boxed),
            Registered::Text(function) => function.computed(engine, text(key).as_str()).map(Generation::Boxed),
            Registered::AsyncWord(function) => block_on(function.computed(engine, &key)).map(Generation::Word),
            Registered::AsyncBoxed(function) => block_on(function.computed(engine, &key)).map(Generation::Boxed),
        }
    }

    /// A resolved node, if the key has one.
    pub fn node(&self, node: usize) -> Option<Resolved> {
        match self.parts.function(node) {
            Registered::Word(function) => function.node(&((node % KEYS) as u32)).map(Resolved::Word),
            Registered::AsyncWord(function) => function.node(&((node % KEYS) as u32)).map(Resolved::Word),
            Registered::Boxed(function) => function.node(&((node % KEYS) as u32)).map(Resolved::Boxed),
            Registered::AsyncBoxed(function) => function.node(&((node % KEYS) as u32)).map(Resolved::Boxed),
            Registered::Text(function) => function.node(text((node % KEYS) as u32).as_str()).map(Resolved::Boxed),
        }
    }

    /// Invalidates one key.
    pub fn invalidate(&self, place: Place) -> CommitId {
        match place {
            Place::Source(source) if source < SOURCES / 2 => self.parts.words.invalidate(&(source as u32)),
            Place::Source(source) => self.parts.boxes.invalidate(&((source - SOURCES / 2) as u32)),
            Place::Node(node) => with_key!(self.parts.function(node), node, |handle, key| handle.invalidate(key)),
        }
    }

    /// Invalidates every key of a function.
    pub fn invalidate_all(&self, function: usize) -> CommitId {
        with_key!(self.parts.function(function * KEYS), 0, |handle, _key| handle.invalidate_all())
    }

    /// Forgets a key.
    pub fn remove(&self, place: Place) -> bool {
        match place {
            Place::Source(source) if source < SOURCES / 2 => self.parts.words.remove(&(source as u32)),
            Place::Source(source) => self.parts.boxes.remove(&((source - SOURCES / 2) as u32)),
            Place::Node(node) => with_key!(self.parts.function(node), node, |handle, key| handle.remove(key)),
        }
    }

    /// How many keys of the function have a node.
    pub fn len(&self, function: usize) -> usize {
        with_key!(self.parts.function(function * KEYS), 0, |handle, _key| handle.len())
    }
}

fn register(engine: &Engine, parts: &Arc<Parts>, index: usize) -> Registered {
    let rule = &parts.program.rules[index];
    let (name, base, cut_off, parts) = (format!("f{index}"), index * KEYS, rule.cut_off, parts.clone());
    macro_rules! define {
        ($key:ty, $value:ty) => {{
            let define = engine.define::<$key, $value>(name);
            if cut_off { define.cut_off_eq() } else { define.cut_off_never() }
        }};
    }
    let registered = match rule.kind {
        Kind::Word => {
            define!(u32, i64).function(move |cx: &Cx, &key: &u32| to_word(parts.run(base + key as usize, cx))).map(Registered::Word)
        }
        Kind::Boxed => define!(u32, Tracked)
            .function(move |cx: &Cx, &key: &u32| parts.tracker.track(parts.run(base + key as usize, cx)))
            .map(Registered::Boxed),
        Kind::Text => define!(String, Tracked)
            .function(move |cx: &Cx, key: &String| parts.tracker.track(parts.run(base + key_of(key), cx)))
            .map(Registered::Text),
        Kind::AsyncWord => define!(u32, i64)
            .async_function(move |cx: Cx, key: u32| {
                let parts = parts.clone();
                async move { to_word(parts.run_async(base + key as usize, cx).await) }
            })
            .map(Registered::AsyncWord),
        Kind::AsyncBoxed => define!(u32, Tracked)
            .async_function(move |cx: Cx, key: u32| {
                let parts = parts.clone();
                async move { parts.tracker.track(parts.run_async(base + key as usize, cx).await) }
            })
            .map(Registered::AsyncBoxed),
    };
    registered.expect("a fresh name")
}

impl Generation {
    /// Its value.
    pub fn outcome(&self) -> Outcome {
        match self {
            Generation::Word(computed) => from_word(*computed.value()),
            Generation::Boxed(computed) => computed.value().outcome,
        }
    }

    /// Whether it is current.
    pub fn is_consistent(&self) -> bool {
        match self {
            Generation::Word(computed) => computed.is_consistent(),
            Generation::Boxed(computed) => computed.is_consistent(),
        }
    }

    /// Its end.
    pub fn invalidated(&self) -> wellspring::Invalidated {
        match self {
            Generation::Word(computed) => computed.invalidated(),
            Generation::Boxed(computed) => computed.invalidated(),
        }
    }

    /// Its successor.
    ///
    /// # Errors
    /// The engine's fault.
    pub fn update(&self) -> Result<Generation, Fault> {
        match self {
            Generation::Word(computed) => block_on(computed.update()).map(Generation::Word),
            Generation::Boxed(computed) => computed.update_sync().map(Generation::Boxed),
        }
    }

    /// 1 if it holds a counted value.
    pub fn counted(&self) -> i64 {
        i64::from(matches!(self, Generation::Boxed(_)))
    }
}

impl Resolved {
    /// Its consistent value.
    pub fn peek(&self, pin: &Pin<'_>) -> Option<Outcome> {
        match self {
            Resolved::Word(node) => node.peek(pin).map(|read| from_word(*read)),
            Resolved::Boxed(node) => node.peek(pin).map(|read| read.outcome),
        }
    }

    /// Whether its key is still in the cache.
    pub fn is_live(&self) -> bool {
        match self {
            Resolved::Word(node) => node.is_live(),
            Resolved::Boxed(node) => node.is_live(),
        }
    }
}
