//! The graph: every column, table and counter of one engine, shared by all its handles. No user code lives here.

use std::any::Any;
use std::sync::{OnceLock, RwLock};

use crate::background::Background;
use crate::capacity::Budget;
use crate::collector::Collector;
use crate::column::Columns;
use crate::durable::Durability;
use crate::edge::Edges;
use crate::engine::Bodies;
use crate::evict::Verdict;
use crate::fault::Fault;
use crate::flight::{Flight, Flights};
use crate::key::Hashing;
use crate::memory::FunctionMemory;
use crate::node::{Head, Row, Warm};

use crate::stats::{Counters, FunctionStats};
use crate::sweep::Sweeper;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Weak, fault};
use crate::timer::Timers;
use crate::watch::Watchers;

/// What one engine is made of. Handles hold it strongly; function bodies are held by `Engine` alone, so that a body which
/// captures a handle does not keep itself alive.
pub(crate) struct Graph {
    pub(crate) id: u64,
    pub(crate) columns: Columns,
    pub(crate) edges: Edges,
    pub(crate) hashing: Hashing,
    pub(crate) counters: Counters,
    pub(crate) flights: Flights,
    pub(crate) watchers: Watchers,
    pub(crate) feeds: crate::feed::Feeds,
    pub(crate) sweeper: Sweeper,
    pub(crate) background: Background,
    pub(crate) timers: Timers,
    /// The engine's own limit, shared with every function but sources.
    pub(crate) budget: Option<Arc<Budget>>,
    pub(crate) durability: Durability,
    /// The last finished commit. A flight notes it at its start and a waiter when it joins.
    pub(crate) commit: AtomicU64,
    /// The last commit whose sweep has begun: its marks may be met before its number is.
    pub(crate) begun: AtomicU64,
    pub(crate) functions: RwLock<Vec<Arc<dyn AnyFunction>>>,
    /// Set once, when the engine is made.
    pub(crate) bodies: OnceLock<Weak<Bodies>>,
    pub(crate) spawner: Option<Arc<dyn crate::engine::Spawner>>,
    pub(crate) log: Option<crate::log::EventLog>,
    pub(crate) on_missing: Option<Arc<crate::fingerprint::OnMissing>>,
    #[cfg(test)]
    pub(crate) hooks: crate::hook::Hooks,
    pub(crate) collector: Collector,
}

/// A function without its types: what sweeps, verification and statistics ask of it.
pub(crate) trait AnyFunction: Send + Sync + Any {
    fn name(&self) -> &str;
    fn is_source(&self) -> bool;
    /// The node's key for people; `None` if keys cannot be told or the slot has another tenant. Runs user code.
    fn key_text(&self, graph: &Graph, slot: u32, version: u32) -> Option<String>;
    /// Whether it is a source that changes rarely.
    fn is_durable(&self) -> bool;
    /// Runs a sync function's flight on this thread, or starts an async one. `held` as in [`Asker`](crate::cx::Asker).
    fn refresh(self: Arc<Self>, graph: &Arc<Graph>, slot: u32, head: Head, held: bool) -> Refresh;
    /// Every slot that holds a key.
    fn slots(&self) -> Vec<u32>;
    /// Takes the node out of the key table; its slot is free afterwards, or retired for good. Returns the list of its
    /// dependants, 0 for none, and the last epoch it lived in.
    fn forget(&self, graph: &Graph, slot: u32) -> Option<(u32, u32)>;
    /// Drops every key and value: the graph is going away.
    fn drop_nodes(&self, graph: &Graph);
    fn stats(&self, graph: &Graph) -> FunctionStats;
    /// A quantum of the function's `keep_at_least` is over.
    fn move_stamp(&self, graph: &Graph);
    /// The evicting hand, the engine's if it is `shared`, is over one of its nodes.
    fn evict(&self, graph: &Graph, slot: u32, version: u32, shared: bool) -> Verdict;
    /// What its nodes cost by the engine's budget, and by its own (used, counted): for the validator.
    fn recount(&self, graph: &Graph) -> (u64, Option<(u64, u64)>);
    /// Evicts what is beyond the limits that concern it.
    fn keep_within(&self, graph: &Arc<Graph>);
    /// The node's value weighs so much now: for the node's owner.
    fn set_weight(&self, graph: &Graph, slot: u32, weight: u32);
    /// What it holds.
    fn memory(&self, graph: &Graph) -> FunctionMemory;
    /// Computes the node's value anew while the old one is served, if it was read since the last time.
    fn refresh_ahead(self: Arc<Self>, graph: &Arc<Graph>, slot: u32, version: u32);
    /// A value of this function, to be dropped when no pin can see it.
    fn retired_value(&self, word: u64) -> Option<crate::collector::Retired>;
}

/// What came of asking a function for a new value.
pub(crate) enum Refresh {
    /// A flight ended on this thread.
    Ran(Result<Ended, Fault>),
    /// An asynchronous flight is under way.
    Started(Arc<Flight>),
    /// Somebody else moved the node first: look again.
    Moved,
}

/// How a flight ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its result is in the node, perhaps marked again meanwhile.
    Stored,
    /// The node belongs to a newer flight, or was removed.
    Moved,
    /// Its result was made from a fault or from a value that is nowhere stored: running it again would end the same way.
    Hopeless,
}

impl Graph {
    #[inline(always)]
    pub(crate) fn row(&self, slot: u32) -> &Row {
        self.columns.row(slot)
    }

    #[inline(always)]
    pub(crate) fn warm(&self, slot: u32) -> &Warm {
        self.columns.warm(slot)
    }

    #[inline(always)]
    pub(crate) fn head(&self, slot: u32) -> Head {
        // Acquire: whoever sees a state sees what was written before it was published.
        Head(self.row(slot).head.load(Ordering::Acquire))
    }

    /// A dependency's head, read after our own was moved: of an owner that looks at a dependency, and a sweep that has marked the
    /// dependency and looks at the owner's node, one must see the other. The sweep's half is its fence at each level.
    #[inline(always)]
    pub(crate) fn head_after_mark(&self, slot: u32) -> Head {
        crate::sync::in_total_order();
        // SeqCst: with the SeqCst swing before it, the one store-load order between two words in the engine (DESIGN.md §5).
        Head(self.row(slot).head.load(Ordering::SeqCst))
    }

    /// Moves a head; `Err` carries what it is now.
    #[inline(always)]
    pub(crate) fn swing(&self, slot: u32, from: Head, to: Head) -> Result<(), Head> {
        // SeqCst: as AcqRel (Release publishes the columns written in the old state, Acquire sees those of the previous
        // owner), and ordered before `head_after_mark`. On x86 the same instruction.
        if fault!("relaxed_publish") {
            let swung = self.row(slot).head.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed);
            return swung.map(drop).map_err(Head);
        }
        match self.row(slot).head.compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(Head(now)),
        }
    }

    pub(crate) fn function(&self, slot: u32) -> Arc<dyn AnyFunction> {
        let owner = self.columns.owner(slot) as usize;
        self.functions.read().unwrap_or_else(std::sync::PoisonError::into_inner)[owner].clone()
    }

    pub(crate) fn function_name(&self, slot: u32) -> String {
        self.function(slot).name().to_owned()
    }

    /// The number of the function of this name.
    pub(crate) fn function_named(&self, name: &str) -> Option<u32> {
        let functions = self.functions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Registration counts in 32 bits.
        functions.iter().position(|function| function.name() == name).map(|id| id as u32)
    }

    pub(crate) fn all_functions(&self) -> Vec<Arc<dyn AnyFunction>> {
        self.functions.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(crate) fn finished_commit(&self) -> u64 {
        // Acquire: marks of the finished sweep are visible to whoever sees its number.
        self.commit.load(Ordering::Acquire)
    }

    pub(crate) fn begun_commit(&self) -> u64 {
        // Relaxed: ordered by the marks themselves, see `commit_by`.
        self.begun.load(Ordering::Relaxed)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        for function in self.all_functions() {
            function.drop_nodes(self);
        }
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("id", &self.id).field("columns", &self.columns).finish_non_exhaustive()
    }
}
