//! A function being defined: its options, then its body.

use std::any::Any;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

use crate::async_handle::AsyncFunction;
use crate::capacity::Capacity;
use crate::consolidate;
use crate::cut_off::CutOff;
use crate::cx::Cx;
use crate::describe::{by_debug, default_describe};
use crate::engine::Engine;
use crate::evict::Weigh;
use crate::expire::{ErrorKind, ErrorRule, Life};
use crate::fault::RegisterError;
use crate::fingerprint::{Fingerprint, Insight};
use crate::function::{Body, KeyLimit};
use crate::handle::{Function, Handle, Source};
use crate::key::Key;
use crate::value::{Inline, Value};

/// What a function is registered with.
pub(crate) struct Options<K, V> {
    pub(crate) cut_off: CutOff<V>,
    pub(crate) inline: bool,
    pub(crate) key_limit: Option<KeyLimit<K>>,
    pub(crate) life: Life<V>,
    pub(crate) capacity: Option<Capacity>,
    pub(crate) weigh: Option<Box<Weigh<K, V>>>,
    pub(crate) insight: Insight<K, V>,
    /// The delay before changes are consolidated.
    pub(crate) consolidate: Option<Duration>,
    pub(crate) durable: bool,
}

impl<K, V> Default for Options<K, V> {
    fn default() -> Options<K, V> {
        Options {
            cut_off: CutOff::Never,
            inline: false,
            key_limit: None,
            life: Life::default(),
            capacity: None,
            weigh: None,
            insight: Insight { describe: None, fingerprint: None },
            consolidate: None,
            durable: false,
        }
    }
}

/// `String` and `Vec<u8>` keys may have 1 MiB unless said otherwise: a key that large is a mistake.
fn default_key_limit<K: Key>() -> Option<KeyLimit<K>> {
    fn text<K: Key>(key: &K) -> usize {
        (key as &dyn Any).downcast_ref::<String>().map_or(0, String::len)
    }
    fn bytes<K: Key>(key: &K) -> usize {
        (key as &dyn Any).downcast_ref::<Vec<u8>>().map_or(0, Vec::len)
    }
    let id = std::any::TypeId::of::<K>();
    let measure: fn(&K) -> usize = if id == std::any::TypeId::of::<String>() {
        text::<K>
    } else if id == std::any::TypeId::of::<Vec<u8>>() {
        bytes::<K>
    } else {
        return None;
    };
    Some(KeyLimit { bytes: 1 << 20, measure })
}

/// A function being defined: its options, then its body.
///
/// ```
/// # use wellspring::{Cx, Engine};
/// let engine = Engine::new();
/// let parity = engine.define("parity").cut_off_eq().function(|_: &Cx, n: &u64| n % 2)?;
/// assert_eq!(parity.get(&engine, &7)?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is registered before the body is given"]
pub struct Define<K, V> {
    engine: Engine,
    name: String,
    options: Options<K, V>,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> std::fmt::Debug for Define<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Define").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K: Key, V: Value> Define<K, V> {
    pub(crate) fn new(engine: Engine, name: String) -> Define<K, V> {
        let insight = Insight { describe: default_describe::<K>(), fingerprint: None };
        let options = Options { key_limit: default_key_limit::<K>(), insight, ..Options::default() };
        Define { engine, name, options, types: PhantomData }
    }

    /// A recomputed value equal (`==`) to the old one changes nothing downstream.
    ///
    /// A value that is not equal to itself (a float `NaN`) counts as changed each time. What `==` does not look at may change
    /// unseen: the old value stays. One that is mutated in place (interior mutability) is compared as it is by then.
    pub fn cut_off_eq(mut self) -> Self
    where
        V: PartialEq,
    {
        self.options.cut_off = CutOff::Eq(|old, new| old == new);
        self
    }

    /// A recomputed value whose hash is that of the old one changes nothing downstream: for values whose `Eq` is missing, costs more
    /// than their `Hash`, or looks at less than matters.
    ///
    /// Both are hashed when a new value comes, twice each: 128 bits under random seeds, so two different values pass for one about
    /// once in 2^128 comparisons, and nobody can prepare such a pair. What `Hash` leaves out (a field behind interior mutability, a
    /// cached length) changes unseen; a float hashed by its bits (`to_bits`) makes a `NaN` like itself, which `==` never does, and
    /// 0.0 unlike -0.0.
    ///
    /// ```
    /// # use wellspring::{Cx, Engine};
    /// let engine = Engine::new();
    /// let words = engine.define("words").cut_off_hash().function(|_: &Cx, text: &String| text.split(' ').count())?;
    /// assert_eq!(words.get(&engine, "to be")?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cut_off_hash(mut self) -> Self
    where
        V: Hash,
    {
        self.options.cut_off = CutOff::hash_of(|value: &V| Some(value));
        self
    }

    /// A recomputed value that `same` accepts beside the old one changes nothing downstream.
    pub fn cut_off_by(mut self, same: impl Fn(&V, &V) -> bool + Send + Sync + 'static) -> Self {
        self.options.cut_off = CutOff::By(Box::new(same));
        self
    }

    /// Every recomputed value counts as changed. The default of the closure API.
    pub fn cut_off_never(mut self) -> Self {
        self.options.cut_off = CutOff::Never;
        self
    }

    /// Keeps values in the node itself: reads take no pin and follow no pointer. Primitives are inline without asking.
    pub fn inline(mut self) -> Self
    where
        V: Inline,
    {
        self.options.inline = true;
        self
    }

    /// Keys that `measure` finds larger than `bytes` are [`Fault::KeyTooLarge`](crate::Fault::KeyTooLarge).
    pub fn key_limit(mut self, bytes: usize, measure: fn(&K) -> usize) -> Self {
        self.options.key_limit = Some(KeyLimit { bytes, measure });
        self
    }

    /// How [`why`](crate::Handle::why) and [`Engine::export`] print the function's keys. Integers, `bool`, `char` and text are printed
    /// without asking; keys of a `#[compute]` block if they are `Debug`.
    pub fn describe_keys(mut self, describe: fn(&K) -> String) -> Self {
        self.options.insight.describe = Some(describe);
        self
    }

    /// [`describe_keys`](Define::describe_keys) by their `Debug`.
    pub fn debug_keys(self) -> Self
    where
        K: std::fmt::Debug,
    {
        self.describe_keys(by_debug::<K>)
    }

    /// Looks for missing invalidations in builds with debug assertions: of `rate` hits through `get` one is computed once more, and a
    /// value whose fingerprint is another now is reported to
    /// [`on_missing_invalidation`](crate::EngineBuilder::on_missing_invalidation). Other builds pay nothing and find nothing.
    ///
    /// The body's reads in such a run are recorded nowhere and its result is thrown away. For bodies that read what the engine does
    /// not know of, such as a table. A run that falls between such a change and the `invalidate` that tells of it is reported too.
    ///
    /// ```
    /// # use std::sync::{Arc, Mutex, atomic::{AtomicU64, Ordering::SeqCst}};
    /// # use wellspring::{Cx, Engine};
    /// let found = Arc::new(Mutex::new(Vec::new()));
    /// let list = found.clone();
    /// let engine = Engine::builder().on_missing_invalidation(move |missing| list.lock().unwrap().push(missing.clone())).build();
    /// let table = Arc::new(AtomicU64::new(1));
    /// let rows = table.clone();
    /// let row = engine.define("row").fingerprint(1, |row: &u64| *row).function(move |_: &Cx, id: &u32| rows.load(SeqCst) + u64::from(*id))?;
    /// row.get(&engine, &7)?;
    /// table.store(2, SeqCst); // and nobody invalidates
    /// assert_eq!(row.get(&engine, &7)?, 8);
    /// # if cfg!(debug_assertions) {
    /// assert_eq!(found.lock().unwrap()[0].key.as_deref(), Some("7"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fingerprint(mut self, rate: u32, fingerprint: fn(&V) -> u64) -> Self {
        self.options.insight.fingerprint = Some(Fingerprint::new(rate, fingerprint));
        self
    }

    /// A value is stale this long after it was stored, whether it was used or not.
    pub fn expire_after(mut self, span: Duration) -> Self {
        self.options.life.expire_after = Some(span);
        self
    }

    /// So long before it would expire, a value that was read since it was stored is computed anew while the old one is still served.
    /// Needs [`expire_after`](Define::expire_after) and the engine's [`Spawner`](crate::Spawner).
    pub fn refresh_ahead(mut self, span: Duration) -> Self {
        self.options.life.refresh_ahead = Some(span);
        self
    }

    /// An invalidation of a key takes effect so much later; more of them meanwhile are the same one.
    ///
    /// For keys whose changes come in bursts. Nothing is promised to readers until then: the value is served as if nothing had
    /// happened. Marks that come from dependencies are not delayed, and neither is [`invalidate_all`](crate::Handle::invalidate_all).
    pub fn debounce(mut self, delay: Duration) -> Self {
        self.options.life.debounce = Some(delay);
        self
    }

    /// A change of what a value was made from is looked into first, and told only if the value did change: so much later (zero is
    /// meant, too) it is computed anew in the background, compared by the cut-off rule, and replaced on a difference, as a commit of
    /// its own. Dependants, watchers and borrowers never meet a mark that turns out to be for nothing; until then they are served the
    /// value of before. More marks within the delay are the same one.
    ///
    /// Only for keys somebody has asked for, which are then computed after every change whether anybody still reads them or not: for
    /// values that are pushed to somebody, made from what changes often and matters rarely. [`remove`](crate::Handle::remove) ends it.
    ///
    /// The body is that of a function `~name`, which has the values a second time. [`invalidate`](crate::Handle::invalidate) means
    /// that one: it computes, and tells of a difference. [`invalidate_now`](crate::Handle::invalidate_now) ends the value at once. If
    /// the body ends in a fault, or the comparison panics, the value ends too, and the next read meets the fault.
    ///
    /// Synchronous bodies run on the engine's [`Spawner`](crate::Spawner), or without one on a thread of the engine's; asynchronous
    /// ones need the former. Nothing of whoever made the change is around: the engine has no ambient context.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wellspring::{Cx, Engine};
    /// let engine = Engine::new();
    /// let stock = engine.source("stock", |_: &u32| 12_u32)?;
    /// let rows = stock.clone();
    /// let shown = engine
    ///     .define("shown")
    ///     .cut_off_eq()
    ///     .consolidate(Duration::ZERO)
    ///     .function(move |cx: &Cx, id: &u32| if rows.get(cx, id).unwrap_or(0) > 5 { "in stock" } else { "few left" })?;
    /// let computed = shown.computed(&engine, &7)?;
    /// stock.set(&7, 11);
    /// assert!(computed.is_consistent()); // whatever comes of it, nothing was told yet
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn consolidate(mut self, delay: Duration) -> Self {
        self.options.consolidate = Some(delay);
        self
    }

    /// A source that changes rarely: configuration, a rate, a right. While no durable source of the engine changes, whoever verifies a
    /// value passes over those it was made from. Worth it where values are made from many such rows and few that change: one that is
    /// passed over costs a nanosecond in place of two lines of memory.
    ///
    /// A change of one costs what any change costs; after it, every value made from durable sources is looked at in full once more.
    ///
    /// ```
    /// # use wellspring::Engine;
    /// let engine = Engine::new();
    /// let rate = engine.define("rate").cut_off_eq().durable().source(|_: &u16| 19_u32)?;
    /// rate.set(&1, 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durable(mut self) -> Self {
        self.options.durable = true;
        self
    }

    /// Values that are errors, and how soon they are tried again: [`Define::retry_errors`] for values that are no `Result`.
    pub fn classify(mut self, kind: impl Fn(&V) -> Option<ErrorKind> + Send + Sync + 'static) -> Self {
        self.options.life.errors = Some(ErrorRule::new(Box::new(kind)));
        self
    }

    /// How long errors are kept: transient ones 1 s and others 30 s unless said here. After [`classify`](Define::classify) or
    /// [`retry_errors`](Define::retry_errors).
    pub fn error_delays(mut self, transient: Duration, non_transient: Duration) -> Self {
        if let Some(rule) = &mut self.options.life.errors {
            (rule.transient, rule.non_transient) = (transient, non_transient);
        }
        self
    }

    /// While a body ends in errors, readers get the last value that was none, which is tried again as soon as the error would be. After
    /// [`classify`](Define::classify) or [`retry_errors`](Define::retry_errors).
    pub fn serve_stale_on_error(mut self) -> Self {
        if let Some(rule) = &mut self.options.life.errors {
            rule.serve_stale = true;
        }
        self
    }

    /// How much the function may hold; what was read least lately leaves first, by SIEVE.
    ///
    /// Whether anything is evicted changes no result, only its cost. A value that others were made from leaves alone at first: the node stays as
    /// the path along which changes reach them, and leaves last. What is being computed or watched stays. A capacity smaller than
    /// what one body reads has that body's values recomputed at every read.
    pub fn capacity(mut self, capacity: Capacity) -> Self {
        self.options.capacity = Some(capacity);
        self
    }

    /// What a value weighs, for a [`Capacity`] in weight or bytes; in bytes, it is what the value takes apart from its node and key. Called once
    /// for every value that is stored.
    pub fn weigh(mut self, weigh: impl Fn(&K, &V) -> u32 + Send + Sync + 'static) -> Self {
        self.options.weigh = Some(Box::new(weigh));
        self
    }

    /// Keys that were read within the span are not evicted, whatever the capacity. Reads are timed to a sixteenth of it.
    pub fn keep_at_least(mut self, span: Duration) -> Self {
        self.options.life.keep_at_least = Some(span);
        self
    }

    /// Registers a synchronous body.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken.
    pub fn function(self, body: impl Fn(&Cx, &K) -> V + Send + Sync + 'static) -> Result<Function<K, V>, RegisterError> {
        self.register(Body::Sync(Box::new(body))).map(Function)
    }

    /// Registers an asynchronous body.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken.
    pub fn async_function<F: Future<Output = V> + Send + 'static>(
        self,
        body: impl Fn(Cx, K) -> F + Send + Sync + 'static,
    ) -> Result<AsyncFunction<K, V>, RegisterError> {
        let boxed = Box::new(move |cx: Cx, key: K| Box::pin(body(cx, key)) as crate::function::ValueFuture<V>);
        self.register(Body::Async(boxed)).map(AsyncFunction)
    }

    fn register(self, body: Body<K, V>) -> Result<Handle<K, V>, RegisterError> {
        if self.options.durable {
            return Err(RegisterError::OnlyForSources { name: self.name, option: "durable" });
        }
        match self.options.consolidate {
            Some(delay) => consolidate::register(&self.engine, self.name, self.options, body, delay),
            None => self.engine.register(self.name, false, self.options, body),
        }
    }

    /// Registers a source: `initial` gives a key's value until it is set.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken.
    pub fn source(self, initial: impl Fn(&K) -> V + Send + Sync + 'static) -> Result<Source<K, V>, RegisterError> {
        if self.options.consolidate.is_some() {
            return Err(RegisterError::NotForSources { name: self.name, option: "consolidate" });
        }
        let body = Body::Sync(Box::new(move |_: &Cx, key: &K| initial(key)));
        self.engine.register(self.name, true, self.options, body).map(|handle| Source(Function(handle)))
    }
}

impl<K: Key, T, E> Define<K, Result<T, E>>
where
    Result<T, E>: Value,
{
    /// An `Err` is kept for a while only, by its kind, then the next read tries again: one flight, however many ask.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use wellspring::{Cx, Engine, ErrorKind, ManualClock};
    /// # let clock = Arc::new(ManualClock::new());
    /// # let engine = Engine::builder().clock(clock.clone()).build();
    /// let parsed = engine
    ///     .define("parsed")
    ///     .retry_errors(|_: &std::num::ParseIntError| ErrorKind::NonTransient)
    ///     .function(|_: &Cx, text: &String| text.parse::<u64>())?;
    /// assert!(parsed.get(&engine, "x")?.is_err());
    /// clock.advance(Duration::from_secs(30));
    /// assert!(parsed.existing("x").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry_errors(self, kind: impl Fn(&E) -> ErrorKind + Send + Sync + 'static) -> Self {
        self.classify(move |value| value.as_ref().err().map(&kind))
    }

    /// [`cut_off_by`](Define::cut_off_by) for values; an error is compared with an error by `==`, and is unlike every value.
    pub fn cut_off_ok_by(self, same: impl Fn(&T, &T) -> bool + Send + Sync + 'static) -> Self
    where
        E: PartialEq,
    {
        self.cut_off_by(move |old, new| match (old, new) {
            (Ok(old), Ok(new)) => same(old, new),
            (Err(old), Err(new)) => old == new,
            _ => false,
        })
    }

    /// [`cut_off_hash`](Define::cut_off_hash) for values; every error counts as changed.
    pub(crate) fn cut_off_hash_ok(mut self) -> Self
    where
        T: Hash,
    {
        self.options.cut_off = CutOff::hash_of(|value: &Result<T, E>| value.as_ref().ok());
        self
    }
}
