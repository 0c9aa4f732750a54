//! Functions whose values end: a small engine on a clock moved by hand, and the model that says what each of its reads returns.
//!
//! Sources feed functions with small capacities and one that keeps what was read; data outside the engine feeds functions that
//! expire, whose errors are tried again, that serve the last good value, and that are debounced. `above` and `over` read all of them.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wellspring::{AsyncFunction, Capacity, Cx, Define, Engine, ErrorKind, Function, ManualClock, Source};

use crate::expr::Outcome;
use crate::tracked::{Tracked, Tracker, to_word};
use crate::waking::Breath;

/// Keys of every function.
pub const KEYS: usize = 5;
/// Keys of the source.
pub const SOURCES: usize = 4;
/// Functions of outside data: expiring, tried again, serving stale, debounced.
pub const OUTER: usize = 4;
const SERVES_STALE: usize = 2;
/// The debounced one.
pub const LAZY: usize = 3;
/// What a body makes of a fault it met.
pub const BROKEN: i64 = -7;

const MS: Duration = Duration::from_millis(1);
/// How long the debounced function waits.
pub const DEBOUNCE: Duration = Duration::from_millis(5);
/// How long a read key is kept.
pub const KEEP: Duration = Duration::from_millis(16);

fn kind(code: u8) -> ErrorKind {
    match code % 4 {
        0 => ErrorKind::Transient,
        1 => ErrorKind::NonTransient,
        2 => ErrorKind::Terminal,
        _ => ErrorKind::RetryAfter(7 * MS),
    }
}

/// How long a value of the function lives.
fn span(function: usize, value: Outcome) -> Option<Duration> {
    match (function, value.err().map(kind)) {
        (0, _) => Some(10 * MS),
        (LAZY, _) | (_, None | Some(ErrorKind::Terminal)) => None,
        (_, Some(ErrorKind::Transient)) => Some(4 * MS),
        (_, Some(ErrorKind::NonTransient)) => Some(12 * MS),
        (_, _) => Some(7 * MS),
    }
}

/// Data that the engine is not told about.
#[derive(Debug, Default)]
pub struct Outside {
    /// What a run of an outer function finds, by function and key.
    pub values: [[i64; KEYS]; OUTER],
    /// The error it finds instead.
    pub errors: [[Option<u8>; KEYS]; OUTER],
    /// Whether the body that may panic does.
    pub panics: [bool; KEYS],
}

impl Outside {
    fn finds(&self, function: usize, key: usize) -> Outcome {
        match self.errors[function][key] {
            Some(code) if function == 1 || function == SERVES_STALE => Err(code),
            _ => Ok(self.values[function][key]),
        }
    }
}

/// The engine and its functions.
#[derive(Debug)]
pub struct Lives {
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// The engine.
    pub engine: Engine,
    /// Numbers.
    pub source: Source<u8, i64>,
    /// Of outside data.
    pub outer: [Function<u8, Tracked>; OUTER],
    /// So many entries.
    pub small: Function<u8, Tracked>,
    /// So much weight.
    pub heavy: Function<u8, i64>,
    /// Keeps what was read.
    pub kept: Function<u8, i64>,
    /// Panics if told to.
    pub panics: Function<u8, i64>,
    /// Of all but `panics`.
    pub above: Function<u8, i64>,
    /// Of `above` and `panics`.
    pub over: Function<u8, i64>,
    /// Waits once before it reads; two entries.
    pub late: AsyncFunction<u8, i64>,
    /// The data outside.
    pub outside: Arc<Mutex<Outside>>,
    /// Runs of the outer functions' bodies, then of `kept`, then of `above`.
    pub runs: Arc<[AtomicU64; OUTER + 2]>,
    /// Counts the values alive.
    pub tracker: Tracker,
}

/// What `small` is worth.
pub fn pure(sources: &[i64; SOURCES], key: usize) -> i64 {
    sources[key % SOURCES] * 2 + sources[(key + 1) % SOURCES]
}

/// What `heavy` is worth.
pub fn pure_heavy(sources: &[i64; SOURCES], key: usize) -> i64 {
    pure(sources, key) + pure(sources, (key + 1) % KEYS)
}

/// What a value of `heavy` weighs.
pub fn weight(value: i64) -> u32 {
    (value % 7) as u32
}

fn mixed(outer: [Outcome; OUTER], small: i64, heavy: i64, kept: i64) -> i64 {
    outer.into_iter().fold(small + 3 * heavy + 7 * kept, |sum, outcome| sum.wrapping_mul(31).wrapping_add(to_word(outcome)))
}

impl Lives {
    /// `entries` of `small`, `weight` of `heavy`.
    pub fn new(entries: usize, most_weight: u64) -> Lives {
        let clock = Arc::new(ManualClock::new());
        let engine = Engine::builder().clock(clock.clone()).build();
        let (outside, tracker) = (Arc::new(Mutex::new(Outside::default())), Tracker::default());
        let runs: Arc<[AtomicU64; OUTER + 2]> = Arc::default();
        let source = engine.source("source", |&key: &u8| i64::from(key)).expect("a fresh name");
        let outer = std::array::from_fn(|function| {
            let define: Define<u8, Tracked> = engine.define(format!("outer {function}"));
            let errors = |define: Define<u8, Tracked>| define.classify(|value| value.outcome.err().map(kind)).error_delays(4 * MS, 12 * MS);
            let define = match function {
                0 => define.expire_after(10 * MS),
                LAZY => define.debounce(DEBOUNCE),
                SERVES_STALE => errors(define).serve_stale_on_error(),
                _ => errors(define),
            };
            let (outside, tracker, runs) = (outside.clone(), tracker.clone(), runs.clone());
            let body = move |_: &Cx, &key: &u8| {
                runs[function].fetch_add(1, SeqCst);
                tracker.track(outside.lock().unwrap_or_else(PoisonError::into_inner).finds(function, key as usize))
            };
            define.function(body).expect("a fresh name")
        });
        let small = {
            let (source, tracker) = (source.clone(), tracker.clone());
            let body = move |cx: &Cx, &key: &u8| {
                let read = |key: u8| source.get(cx, &(key % SOURCES as u8)).expect("a value");
                tracker.track(Ok(read(key) * 2 + read(key + 1)))
            };
            engine.define("small").capacity(Capacity::entries(entries)).function(body).expect("a fresh name")
        };
        let heavy = {
            let small = small.clone();
            let body = move |cx: &Cx, &key: &u8| {
                let read = |key: u8| small.get(cx, &(key % KEYS as u8)).expect("a value").outcome.expect("a number");
                read(key) + read(key + 1)
            };
            let define = engine.define("heavy").capacity(Capacity::weight(most_weight)).weigh(|_: &u8, &value: &i64| weight(value));
            define.function(body).expect("a fresh name")
        };
        let kept = {
            let (source, runs) = (source.clone(), runs.clone());
            let body = move |cx: &Cx, &key: &u8| {
                runs[OUTER].fetch_add(1, SeqCst);
                source.get(cx, &(key % SOURCES as u8)).expect("a value")
            };
            engine.define("kept").capacity(Capacity::entries(2)).keep_at_least(KEEP).function(body).expect("a fresh name")
        };
        let panics = {
            let (source, outside) = (source.clone(), outside.clone());
            let body = move |cx: &Cx, &key: &u8| {
                let value = source.get(cx, &(key % SOURCES as u8)).expect("a value");
                if outside.lock().unwrap_or_else(PoisonError::into_inner).panics[key as usize] {
                    // Unwinds without the panic hook: thousands of these are part of the test.
                    std::panic::resume_unwind(Box::new("a body panics"));
                }
                value
            };
            engine.function("panics", body).expect("a fresh name")
        };
        let above = {
            let (outer, small, heavy, kept) = (outer.clone(), small.clone(), heavy.clone(), kept.clone());
            let runs = runs.clone();
            let body = move |cx: &Cx, key: &u8| {
                runs[OUTER + 1].fetch_add(1, SeqCst);
                let read = |function: &Function<u8, Tracked>| function.get(cx, key).expect("a value").outcome;
                let outer = std::array::from_fn(|at: usize| read(&outer[at]));
                let (heavy, kept) = (heavy.get(cx, key).expect("a value"), kept.get(cx, key).expect("a value"));
                mixed(outer, read(&small).expect("a number"), heavy, kept)
            };
            engine.define("above").cut_off_eq().function(body).expect("a fresh name")
        };
        let over = {
            let (above, panics) = (above.clone(), panics.clone());
            let body = move |cx: &Cx, key: &u8| {
                let above = above.get(cx, key).expect("a value");
                panics.get(cx, key).map_or(BROKEN, |more| above.wrapping_add(more))
            };
            engine.function("over", body).expect("a fresh name")
        };
        let late = {
            let (source, small) = (source.clone(), small.clone());
            let body = move |cx: Cx, key: u8| {
                let (source, small) = (source.clone(), small.clone());
                async move {
                    Breath::default().await;
                    let small = small.get(&cx, &key).expect("a value").outcome.expect("a number");
                    small + source.get(&cx, &(key % SOURCES as u8)).expect("a value")
                }
            };
            engine.define("late").capacity(Capacity::entries(2)).async_function(body).expect("a fresh name")
        };
        Lives { clock, engine, source, outer, small, heavy, kept, panics, above, over, late, outside, runs, tracker }
    }
}

/// What the model knows of a node of an outer function.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// The value, also an ended one.
    pub value: Option<Outcome>,
    /// Whether it may be served.
    pub valid: bool,
    /// The number of the run that made it.
    pub generation: u64,
    expires: Option<u64>,
    asked: Option<u64>,
}

/// The model.
#[derive(Debug)]
pub struct Model {
    /// What the sources hold.
    pub sources: [i64; SOURCES],
    /// Outer nodes.
    pub nodes: [[Option<Life>; KEYS]; OUTER],
    /// Runs of outer bodies there must have been.
    pub runs: [u64; OUTER],
    /// Whether a value of `panics` must be cached.
    pub panics: [bool; KEYS],
    /// The last direct read of a key of `kept` that nothing has touched since.
    pub kept: [Option<Duration>; KEYS],
    /// How often something befell a key of `small`.
    pub touched: [u64; KEYS],
    /// The time.
    pub now: Duration,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            sources: std::array::from_fn(|source| source as i64),
            nodes: Default::default(),
            runs: Default::default(),
            panics: Default::default(),
            kept: Default::default(),
            touched: Default::default(),
            now: Duration::ZERO,
        }
    }
}

impl Model {
    /// The tick at which a delay from now is over.
    fn after(&self, delay: Duration) -> u64 {
        ((self.now + delay).as_micros().div_ceil(1000) as u64).max(1)
    }

    /// Time passes.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        let tick = self.now.as_millis() as u64;
        for life in self.nodes.iter_mut().flatten().flatten() {
            if life.asked.is_some_and(|at| at <= tick) {
                (life.asked, life.valid) = (None, false);
            }
            life.valid &= life.expires.is_none_or(|at| at > tick);
        }
    }

    /// Reads an outer function.
    pub fn read(&mut self, outside: &Outside, function: usize, key: usize) -> Outcome {
        let life = self.nodes[function][key].get_or_insert_default();
        match life.value {
            Some(value) if life.valid => return value,
            _ => {}
        }
        self.runs[function] += 1;
        let found = outside.finds(function, key);
        let (old, ends) = (life.value, span(function, found));
        let expires = ends.map(|span| self.after(span));
        let value = old.filter(|old| function == SERVES_STALE && found.is_err() && old.is_ok()).unwrap_or(found);
        let life = self.nodes[function][key].get_or_insert_default();
        (life.value, life.valid, life.expires) = (Some(value), true, expires);
        // A number of the function's own: a key that was forgotten must not count from the start again.
        life.generation = self.runs[function];
        value
    }

    /// Reads `above`.
    pub fn read_above(&mut self, outside: &Outside, key: usize) -> i64 {
        let outer = std::array::from_fn(|function| self.read(outside, function, key));
        self.mixed(outer, key)
    }

    fn mixed(&self, outer: [Outcome; OUTER], key: usize) -> i64 {
        mixed(outer, pure(&self.sources, key), pure_heavy(&self.sources, key), self.sources[key % SOURCES])
    }

    /// What `above` may hold as consistent: nothing unless all it was made from is.
    pub fn cached_above(&self, key: usize) -> Option<i64> {
        let mut outer = [Ok(0); OUTER];
        for (function, at) in outer.iter_mut().enumerate() {
            *at = self.nodes[function][key].filter(|life| life.valid)?.value?;
        }
        Some(self.mixed(outer, key))
    }

    /// Reads `panics`; `None` is a fault.
    pub fn read_panics(&mut self, outside: &Outside, key: usize) -> Option<i64> {
        self.panics[key] |= !outside.panics[key];
        self.panics[key].then(|| self.sources[key % SOURCES])
    }

    /// A source is set.
    pub fn set(&mut self, source: usize, value: i64) {
        if self.sources[source] == value {
            return;
        }
        self.sources[source] = value;
        for key in 0..KEYS {
            if key % SOURCES == source {
                (self.panics[key], self.kept[key]) = (false, None);
            }
            self.touched[key] += u64::from(key % SOURCES == source || (key + 1) % SOURCES == source);
        }
    }

    /// An outer key is invalidated at once.
    pub fn invalidate(&mut self, function: usize, key: usize) {
        if let Some(life) = &mut self.nodes[function][key] {
            life.valid = false;
        }
    }

    /// An outer key is to be invalidated; whether it has a node.
    pub fn invalidate_after(&mut self, function: usize, key: usize, delay: Duration) -> bool {
        let at = self.after(delay);
        match &mut self.nodes[function][key] {
            Some(life) => {
                life.asked = Some(life.asked.map_or(at, |asked| asked.min(at)));
                true
            }
            None => false,
        }
    }
}
