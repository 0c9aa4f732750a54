//! The engine's own handle, its builder and the registration of functions.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::async_handle::AsyncFunction;
use crate::background::Background;
use crate::batch::Batch;
use crate::capacity::{Budget, Capacity};
use crate::clock::{Clock, SystemClock};
use crate::collector::Collector;
use crate::column::Columns;
use crate::cx::{Ask, Asker, Cx, sealed};
use crate::define::{Define, Options};
use crate::durable::Durability;
use crate::edge::Edges;
use crate::evict::Bounds;
use crate::fault::RegisterError;
use crate::feed::Feeds;
use crate::fingerprint::{MissingInvalidation, OnMissing};
use crate::flight::Flights;
use crate::function::{Body, FnData, Traits};
use crate::graph::Graph;
use crate::handle::{CommitId, Function, Handle, Source};
use crate::key::{Hashing, Key};
use crate::log::{Event, EventLog};
use crate::notify::{DEFAULT_THREADS, Notifier};
use crate::origin::{By, Origins};
use crate::pin::Pin;
use crate::states::States;
use crate::stats::{Counters, Stats};
use crate::sweep::{Root, Sweeper};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, Weak, lock};
use crate::timer::{Due, Sleep, Timer, Timers};
use crate::value::Value;
use crate::watch::Watchers;

/// Runs futures for the engine: an executor's `spawn`.
pub trait Spawner: Send + Sync + 'static {
    /// Polls the future to its end, soon and elsewhere.
    fn spawn(&self, future: StdPin<Box<dyn Future<Output = ()> + Send>>);
}

/// The engine: functions are registered with it, changes are told to it.
///
/// A clone is another handle to the same engine. When the last one is dropped, function bodies are dropped with it and
/// reads that would have to compute answer [`Fault::Gone`](crate::Fault::Gone).
#[derive(Clone)]
pub struct Engine {
    graph: Arc<Graph>,
    bodies: Arc<Bodies>,
}

/// User code, by name. Functions hold theirs weakly.
pub(crate) struct Bodies {
    registered: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
    notifier: Arc<Notifier>,
    states: States,
}

impl Drop for Bodies {
    fn drop(&mut self) {
        self.notifier.close();
        let registered = std::mem::take(&mut *lock(&self.registered));
        for (_, body) in registered {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(body)));
        }
    }
}

impl Default for Engine {
    fn default() -> Engine {
        Engine::new()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("functions", &self.graph.all_functions().len()).finish_non_exhaustive()
    }
}

impl sealed::Sealed for Engine {}

impl Ask for Engine {
    #[inline]
    fn asker(&self) -> Asker<'_> {
        Asker { graph: self.graph.id, cx: None, held: true }
    }
}

impl Engine {
    pub(crate) fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// An engine with the defaults of [`EngineBuilder`].
    pub fn new() -> Engine {
        Engine::builder().build()
    }

    /// Options first.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            sweep_threads: None,
            threshold: DEFAULT_THRESHOLD,
            max_nodes: DEFAULT_MAX_NODES,
            spawner: None,
            event_log: false,
            clock: None,
            capacity: None,
            notify_threads: DEFAULT_THREADS,
            remembered: DEFAULT_REMEMBERED,
            on_missing: None,
        }
    }

    /// Names a function and its options; finish with [`Define::function`], [`Define::async_function`] or [`Define::source`].
    pub fn define<K: Key, V: Value>(&self, name: impl Into<String>) -> Define<K, V> {
        Define::new(self.clone(), name.into())
    }

    /// Registers a synchronous function without a cut-off rule. See [`Define`] for options.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken.
    pub fn function<K: Key, V: Value>(
        &self,
        name: impl Into<String>,
        body: impl Fn(&Cx, &K) -> V + Send + Sync + 'static,
    ) -> Result<Function<K, V>, RegisterError> {
        self.define(name).function(body)
    }

    /// Registers an asynchronous function without a cut-off rule. See [`Define`] for options.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken.
    pub fn async_function<K: Key, V: Value, F: Future<Output = V> + Send + 'static>(
        &self,
        name: impl Into<String>,
        body: impl Fn(Cx, K) -> F + Send + Sync + 'static,
    ) -> Result<AsyncFunction<K, V>, RegisterError> {
        self.define(name).async_function(body)
    }

    /// Registers a source: `initial` gives a key's value until it is set. Equal sets change nothing.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken.
    pub fn source<K: Key, V: Value + PartialEq>(
        &self,
        name: impl Into<String>,
        initial: impl Fn(&K) -> V + Send + Sync + 'static,
    ) -> Result<Source<K, V>, RegisterError> {
        self.define(name).cut_off_eq().source(initial)
    }

    /// Registers the functions of a `#[compute]` service under its type's name.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if a service of that name is registered: use [`service_named`](Engine::service_named).
    pub fn service<S: Service>(&self, service: S) -> Result<S::Handle, RegisterError> {
        self.service_named(S::NAME, service)
    }

    /// Registers a second instance of a service under a name of its own.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken.
    pub fn service_named<S: Service>(&self, name: &str, service: S) -> Result<S::Handle, RegisterError> {
        S::register(Arc::new(service), self, name)
    }

    /// This thread's licence to borrow values: see [`Pin`].
    #[inline]
    pub fn pin(&self) -> Pin<'_> {
        Pin::new(&self.graph)
    }

    /// Collects changes and makes them one commit: one number, one sweep, one round of notifications. When it returns, no
    /// read that starts later gets a value made from anything older.
    ///
    /// Sources change one after the other within the sweep; a value computed meanwhile from some of them is stale when the
    /// batch returns.
    pub fn batch(&self, collect: impl FnOnce(&mut Batch<'_>)) -> CommitId {
        let mut batch = Batch::new(&self.graph);
        collect(&mut batch);
        let (roots, places) = batch.into_roots();
        CommitId(self.graph.commit_by(roots, &By::Each(&places)))
    }

    /// Makes every cached value stale: one commit. Costs a visit to every node.
    #[track_caller]
    pub fn invalidate_everything(&self) -> CommitId {
        CommitId(self.graph.commit(smallvec::smallvec![Root::Everything]))
    }

    /// Whether the other is a handle of this engine.
    pub fn is_same(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.graph, &other.graph)
    }

    /// The last finished commit.
    pub fn commit(&self) -> CommitId {
        CommitId(self.graph.finished_commit())
    }

    /// Completes when the engine's clock has moved on by `delay`: never early, late by at most a millisecond of that clock.
    pub fn sleep(&self, delay: Duration) -> Sleep {
        Sleep::new(self.graph.clone(), delay)
    }

    /// Drops retired values whose readers are gone, on this thread, each under `catch_unwind`; how many.
    pub fn collect(&self) -> usize {
        self.graph.collector.collect()
    }

    /// Counts everything: a visit to every node and edge, for people and tests. Readers and sweeps go on meanwhile.
    pub fn stats(&self) -> Stats {
        let graph = &self.graph;
        let functions: Vec<_> = graph.all_functions().iter().map(|function| function.stats(graph)).collect();
        let (edges_live, edges_stale) = graph.count_edges();
        let nodes_and_edges = graph.columns.bytes() + graph.edges.bytes();
        Stats {
            nodes: functions.iter().map(|function| function.nodes).sum(),
            edges_live,
            edges_stale,
            hits: graph.counters.sum(|shard| &shard.hits),
            misses: graph.counters.sum(|shard| &shard.misses),
            computes: functions.iter().map(|function| function.computes).sum(),
            verified: graph.counters.sum(|shard| &shard.verified),
            cut_offs: graph.counters.sum(|shard| &shard.cut_offs),
            // Relaxed: statistics.
            sweeps: graph.sweeper.sweeps.load(Ordering::Relaxed),
            marked: graph.sweeper.marked.load(Ordering::Relaxed),
            commits: graph.finished_commit(),
            retired: graph.collector.waiting(),
            longest_pin: Duration::from_nanos(graph.counters.max(|shard| &shard.longest_pin_ns)),
            bytes: nodes_and_edges + functions.iter().map(|function| function.bytes).sum::<usize>(),
            mapped: nodes_and_edges + functions.iter().map(|function| function.table).sum::<usize>(),
            functions,
        }
    }

    /// Checks the whole graph against the invariants of DESIGN.md; meant for the end of every test.
    ///
    /// # Panics
    /// With a list of what is wrong. Call it at quiescence: a flight or sweep under way looks like a fault. Only for values that are
    /// brought up to date because somebody watches them it waits by itself.
    pub fn assert_consistent(&self) {
        self.graph.feeds.notifier.settle();
        let wrong = self.graph.audit();
        assert!(wrong.is_empty(), "the graph is inconsistent:\n{}", wrong.join("\n"));
    }

    /// Takes what the event log holds; empty unless the builder asked for a log.
    pub fn take_events(&self) -> Vec<Event> {
        self.graph.log.as_ref().map(EventLog::take).unwrap_or_default()
    }

    pub(crate) fn states(&self) -> &States {
        &self.bodies.states
    }

    /// Its clock, to wait on, for what must not keep the engine's functions.
    pub fn timer(&self) -> Timer {
        Timer::new(self.graph.clone())
    }

    /// The engine of a graph, to register `name` with.
    pub(crate) fn of(graph: &Arc<Graph>, name: &str) -> Result<Engine, RegisterError> {
        let bodies = graph.bodies.get().and_then(Weak::upgrade).ok_or_else(|| RegisterError::Gone { name: name.to_owned() })?;
        Ok(Engine { graph: graph.clone(), bodies })
    }

    /// Whether a function may have the name.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), RegisterError> {
        let taken = lock(&self.bodies.registered).contains_key(name);
        if taken { Err(RegisterError::Duplicate { name: name.to_owned() }) } else { Ok(()) }
    }

    pub(crate) fn register<K: Key, V: Value>(
        &self,
        name: String,
        source: bool,
        options: Options<K, V>,
        body: Body<K, V>,
    ) -> Result<Handle<K, V>, RegisterError> {
        let body = Arc::new(body);
        // The clock may be the user's: it is asked before anything is locked.
        let now = self.graph.timers.now();
        let mut registered = lock(&self.bodies.registered);
        if registered.contains_key(&name) {
            return Err(RegisterError::Duplicate { name });
        }
        let mut functions = self.graph.functions.write().unwrap_or_else(PoisonError::into_inner);
        let id = u32::try_from(functions.len()).ok().filter(|&id| id < u32::MAX).ok_or(RegisterError::TooManyFunctions)?;
        let Options { cut_off, inline, key_limit, life, capacity, weigh, insight, durable, .. } = options;
        let set = [(capacity.is_some(), "capacity"), (weigh.is_some(), "weigh"), (insight.fingerprint.is_some(), "fingerprint")];
        let set = life.option().or_else(|| set.iter().find(|(set, _)| *set).map(|(_, name)| *name));
        if source && let Some(option) = set {
            return Err(RegisterError::NotForSources { name, option });
        }
        if let Some(ahead) = life.refresh_ahead
            && life.expire_after.is_none_or(|span| ahead >= span)
        {
            return Err(RegisterError::NothingToRefresh { name });
        }
        if life.refresh_ahead.is_some() && self.graph.spawner.is_none() {
            return Err(RegisterError::NeedsSpawner { name, option: "refresh_ahead" });
        }
        // A source's values were set: nothing could make them again.
        let shared = self.graph.budget.clone().filter(|_| !source);
        let keep = life.keep_at_least.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let bounds = Bounds::new(self.graph.columns.stamps(), capacity.map(Budget::new), shared, weigh, keep, life.refresh_ahead.is_some());
        let quantum = bounds.as_ref().map_or(0, Bounds::quantum);
        if durable {
            self.graph.durability.begin();
        }
        let traits = Traits { source, cut_off, inline, key_limit, life, bounds, insight, durable };
        let (hashing, rows, most) = (self.graph.hashing.clone(), self.graph.columns.rows(), self.graph.columns.max_nodes());
        let Some(data) = FnData::new(id, name.clone(), traits, hashing, rows, most) else {
            return Err(RegisterError::OutOfMemory { name });
        };
        let data = Arc::new(data);
        data.set_body(Arc::downgrade(&body));
        functions.push(data.clone());
        registered.insert(name, body);
        if quantum > 0 {
            self.graph.timers.arm(now.saturating_add(quantum), Due::Stamp { function: id });
        }
        Ok(Handle { graph: self.graph.clone(), data })
    }
}

/// A service whose `impl` block carries `#[compute]`: the macro writes this.
pub trait Service: Send + Sync + Sized + 'static {
    /// What callers read and invalidate through.
    type Handle: Clone;
    /// The name it is registered under by default.
    const NAME: &'static str;
    /// Registers every function under `name`.
    ///
    /// # Errors
    /// The first registration that fails.
    fn register(service: Arc<Self>, engine: &Engine, name: &str) -> Result<Self::Handle, RegisterError>;
}

/// Frontier width from which a sweep's level is shared with the pool: below it the hand-over costs more than it saves.
/// Measured on two cores with `report sweep`; the figures are in DESIGN.md §6.
pub(crate) const DEFAULT_THRESHOLD: usize = 16 * 1024;

/// Addresses are reserved for as many nodes as an engine may ever hold: 12 GiB for the columns and 2 GiB for each function's
/// key table. Ids reach eight times as far.
const DEFAULT_MAX_NODES: u32 = 1 << 28;

/// Changes that `why` can name: 128 KiB of them.
const DEFAULT_REMEMBERED: usize = if cfg!(any(loom, shuttle)) { 0 } else { 4096 };

/// Options of an engine.
#[derive(Clone)]
pub struct EngineBuilder {
    sweep_threads: Option<usize>,
    threshold: usize,
    max_nodes: u32,
    spawner: Option<Arc<dyn Spawner>>,
    event_log: bool,
    clock: Option<Arc<dyn Clock>>,
    capacity: Option<Capacity>,
    notify_threads: usize,
    remembered: usize,
    on_missing: Option<Arc<OnMissing>>,
}

impl EngineBuilder {
    /// Threads that share a wide level of a sweep, the caller included. Default: as many as there are cores, at most 8.
    pub fn sweep_threads(mut self, threads: usize) -> EngineBuilder {
        self.sweep_threads = Some(threads.max(1));
        self
    }

    /// Lists in a level from which it is shared. Default: 16,384.
    pub fn parallel_threshold(mut self, lists: usize) -> EngineBuilder {
        self.threshold = lists.max(1);
        self
    }

    /// Nodes the engine may hold, rounded up to chunks of 64 per function; beyond it reads of new keys are
    /// [`Fault::Full`](crate::Fault::Full). Default: 2^28; ids reach to 2^31.
    ///
    /// Addresses for that many are reserved from the start (48 bytes a node, and 7 to 14 more for each function), memory is
    /// not: it is taken as nodes come. Where the system limits addresses, the engine's limit is lower.
    pub fn max_nodes(mut self, nodes: u32) -> EngineBuilder {
        self.max_nodes = nodes;
        self
    }

    /// Drives asynchronous bodies on an executor instead of by their waiters.
    pub fn spawner(mut self, spawner: Arc<dyn Spawner>) -> EngineBuilder {
        self.spawner = Some(spawner);
        self
    }

    /// How much all functions may hold together; sources, whose values nothing could make again, are not counted.
    pub fn capacity(mut self, capacity: Capacity) -> EngineBuilder {
        self.capacity = Some(capacity);
        self
    }

    /// Threads that values are watched with (see [`Function::watch`]), at most: as many callbacks may be stuck at once before the others
    /// wait for them. Started one by one when callbacks keep the others busy; two stay when there is nothing to do. Default: 16.
    pub fn notify_threads(mut self, threads: usize) -> EngineBuilder {
        self.notify_threads = threads.max(1);
        self
    }

    /// Where the engine gets its time from, in place of the system's monotonic clock: see [`ManualClock`](crate::ManualClock).
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> EngineBuilder {
        self.clock = Some(clock);
        self
    }

    /// Keeps an event log (see [`Engine::take_events`]): for tests, unbounded.
    pub fn event_log(mut self) -> EngineBuilder {
        self.event_log = true;
        self
    }

    /// How many of the latest changes [`Engine::why`] can name: 32 bytes each, at most 2^20. Default: 4,096.
    ///
    /// They are copied when somebody asks, and commits wait for that: 4,096 take some ten microseconds.
    pub fn remember_changes(mut self, changes: usize) -> EngineBuilder {
        self.remembered = changes;
        self
    }

    /// Who is told of values that have changed without an invalidation: see [`Define::fingerprint`]. Called on the reader's thread,
    /// with no lock held. By default a line on standard error.
    pub fn on_missing_invalidation(mut self, tell: impl Fn(&MissingInvalidation) + Send + Sync + 'static) -> EngineBuilder {
        self.on_missing = Some(Arc::new(tell));
        self
    }

    /// The engine.
    pub fn build(self) -> Engine {
        let threads = self.sweep_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(8)));
        let id = next_engine();
        let graph = Graph {
            id,
            columns: Columns::new(self.max_nodes),
            edges: Edges::new(),
            hashing: Hashing::new(),
            counters: Counters::new(),
            flights: Flights::new(),
            watchers: Watchers::new(),
            feeds: Feeds::new(self.notify_threads),
            sweeper: Sweeper::new(threads, self.threshold, Origins::new(self.remembered)),
            background: Background::new(),
            timers: Timers::new(self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()))),
            durability: Durability::default(),
            budget: self.capacity.map(|capacity| Arc::new(Budget::new(capacity))),
            commit: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            functions: RwLock::new(Vec::new()),
            bodies: OnceLock::new(),
            spawner: self.spawner,
            log: self.event_log.then(EventLog::default),
            on_missing: self.on_missing,
            #[cfg(test)]
            hooks: crate::hook::Hooks::default(),
            collector: Collector::new(id),
        };
        let graph = Arc::new(graph);
        graph.timers.attach(&graph);
        let bodies = Arc::new(Bodies { registered: Mutex::default(), notifier: graph.feeds.notifier.clone(), states: States::default() });
        let _ = graph.bodies.set(Arc::downgrade(&bodies));
        Engine { graph, bodies }
    }
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("sweep_threads", &self.sweep_threads)
            .field("max_nodes", &self.max_nodes)
            .finish_non_exhaustive()
    }
}

/// Engines are told apart by number, so that a context of one is never taken for another's.
fn next_engine() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    // Relaxed: only uniqueness matters.
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
