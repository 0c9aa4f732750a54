//! Counters and the numbers `Engine::stats` returns. A hit writes no line that another core writes.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(any(loom, shuttle)))]
const SHARDS: usize = 64;
#[cfg(any(loom, shuttle))]
const SHARDS: usize = 1;

/// One shard's counters, on lines of their own.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) verified: AtomicU64,
    pub(crate) cut_offs: AtomicU64,
    pub(crate) longest_pin_ns: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Counters([Shard; SHARDS]);

impl Counters {
    pub(crate) fn new() -> Counters {
        let zero = || AtomicU64::new(0);
        let shard = || Shard { hits: zero(), misses: zero(), verified: zero(), cut_offs: zero(), longest_pin_ns: zero() };
        Counters(std::array::from_fn(|_| shard()))
    }

    #[inline(always)]
    pub(crate) fn mine(&self) -> &Shard {
        &self.0[crate::sync::thread_number() % SHARDS]
    }

    pub(crate) fn sum(&self, of: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        // Relaxed: statistics.
        self.0.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn max(&self, of: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.0.iter().map(|shard| of(shard).load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

/// One function's count, a word for each thread that counts: the first eight threads on a line each.
#[derive(Debug)]
pub(crate) struct Tally([AtomicU64; SHARDS]);

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    #[inline]
    pub(crate) fn count(&self) {
        let thread = crate::sync::thread_number();
        add(&self.0[(thread % 8 * 8 + thread / 8 % 8) % SHARDS], 1);
    }

    pub(crate) fn sum(&self) -> u64 {
        // Relaxed: statistics.
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Adds without a locked instruction: the shard is the thread's own unless more than 64 threads share it, and then a
/// count may be lost, which a statistic can bear and a hit cannot bear the alternative.
#[inline(always)]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    // Relaxed (both): statistics.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// What an engine holds and has done. Sums are exact when nothing runs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Keys with a node.
    pub nodes: usize,
    /// Reverse edges whose dependant still depends.
    pub edges_live: usize,
    /// Reverse edges that a sweep would skip.
    pub edges_stale: usize,
    /// Reads answered from the cache.
    pub hits: u64,
    /// Reads that found no consistent value.
    pub misses: u64,
    /// Function bodies run.
    pub computes: u64,
    /// Nodes found unchanged by verifying their dependencies: no user code ran.
    pub verified: u64,
    /// Bodies whose result was equal to the old one, so that nothing downstream ran.
    pub cut_offs: u64,
    /// Invalidation sweeps.
    pub sweeps: u64,
    /// Nodes marked by sweeps.
    pub marked: u64,
    /// Commit numbers given out.
    pub commits: u64,
    /// Values retired and not yet dropped.
    pub retired: usize,
    /// The longest `engine.pin()` that has ended.
    pub longest_pin: Duration,
    /// Bytes of nodes, edges, tables, boxed keys and values (their own heap memory not included).
    pub bytes: usize,
    /// The part of `bytes` that is the engine's own mappings (nodes, edges, key tables), which no allocator counts.
    pub mapped: usize,
    /// Each function, in the order of registration.
    pub functions: Vec<FunctionStats>,
}

/// One function's part of [`Stats`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FunctionStats {
    /// Its name.
    pub name: String,
    /// How a recomputed value is compared with the old one: `never`, `eq` or `custom`.
    pub cut_off: &'static str,
    /// Keys with a node.
    pub nodes: usize,
    /// Bytes of its nodes, table, boxed keys, boxed values and dependency lists.
    pub bytes: usize,
    /// The part of `bytes` that is its key table.
    pub table: usize,
    /// Bodies run.
    pub computes: u64,
    /// Its `expire_after`.
    pub expire_after: Option<Duration>,
    /// Its `keep_at_least`.
    pub keep_at_least: Option<Duration>,
    /// How long its transient and its other errors are kept, if it tells errors from values.
    pub error_delays: Option<(Duration, Duration)>,
}
