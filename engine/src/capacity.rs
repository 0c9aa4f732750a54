//! How much a function, or the whole engine, may hold, and how much it does.

use crate::sieve::Sieve;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Backoff, Mutex, lock};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Entries,
    Weight,
    Bytes,
}

/// How much may be held: see [`Define::capacity`](crate::Define::capacity) and
/// [`EngineBuilder::capacity`](crate::EngineBuilder::capacity).
///
/// Beyond the high mark keys are evicted until the low mark is reached, by whoever stored the value that went beyond it.
///
/// ```
/// # use wellspring::{Capacity, Cx, Engine};
/// let engine = Engine::new();
/// let squares = engine.define("square").capacity(Capacity::entries(100)).function(|_: &Cx, n: &u64| n * n)?;
/// for n in 0..1_000 {
///     assert_eq!(squares.get(&engine, &n)?, n * n);
/// }
/// assert!(squares.len() <= 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    unit: Unit,
    high: u64,
    low: Option<u64>,
}

impl Capacity {
    fn of(unit: Unit, high: u64) -> Capacity {
        Capacity { unit, high, low: None }
    }

    /// So many keys, with or without a value.
    pub fn entries(most: usize) -> Capacity {
        Capacity::of(Unit::Entries, most as u64)
    }

    /// Values that weigh so much together, by [`Define::weigh`](crate::Define::weigh); 1 each without it.
    pub fn weight(most: u64) -> Capacity {
        Capacity::of(Unit::Weight, most)
    }

    /// So many bytes of nodes, keys and values. What a value holds on the heap is for [`Define::weigh`](crate::Define::weigh) to say; without it
    /// a value counts with its own size. Edges are not counted.
    pub fn bytes(most: u64) -> Capacity {
        Capacity::of(Unit::Bytes, most)
    }

    /// Where eviction stops once it has begun. Default: 256 below the high mark or its 64th, whichever is less.
    #[must_use]
    pub fn low(mut self, mark: u64) -> Capacity {
        self.low = Some(mark.min(self.high));
        self
    }
}

/// A capacity in use: what it admits, what there is, and in which order it came.
pub(crate) struct Budget {
    unit: Unit,
    pub(crate) high: u64,
    pub(crate) low: u64,
    used: AtomicU64,
    /// Keys it has counted in.
    members: AtomicU64,
    sieve: Mutex<Sieve>,
    /// Somebody moves the hand.
    evicting: AtomicBool,
    pub(crate) evicted: AtomicU64,
    /// Turns of the hand that ended above the low mark: everything left was in use.
    pub(crate) stuck: AtomicU64,
    /// What was used after the last such turn; 0 after another.
    stuck_at: AtomicU64,
}

/// Bytes of a node whatever it holds: its rows, its part of the key table, its stamp, weight and place in the order.
pub(crate) const NODE_BYTES: u64 = 32 + 16 + 14 + 1 + 4 + 16;

impl Budget {
    pub(crate) fn new(capacity: Capacity) -> Budget {
        let Capacity { unit, high, low } = capacity;
        let step = match unit {
            Unit::Entries => (high / 64).clamp(1, 256),
            Unit::Weight => high / 64,
            Unit::Bytes => (high / 64).clamp(NODE_BYTES, 256 * NODE_BYTES),
        };
        Budget {
            unit,
            high,
            low: low.unwrap_or(high.saturating_sub(step)),
            used: AtomicU64::new(0),
            members: AtomicU64::new(0),
            sieve: Mutex::new(Sieve::default()),
            evicting: AtomicBool::new(false),
            evicted: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            stuck_at: AtomicU64::new(0),
        }
    }

    /// One that never is exceeded: for who wants the order alone.
    pub(crate) fn unlimited() -> Budget {
        Budget::new(Capacity::entries(usize::MAX))
    }

    pub(crate) fn used(&self) -> u64 {
        // Relaxed: a sum; who acts on it looks again.
        self.used.load(Ordering::Relaxed)
    }

    /// Whether it is time to evict. After turns of the hand that found everything in use, only once as much more has come as one turn is
    /// for: or else every value stored would pay for a look at all.
    pub(crate) fn is_exceeded(&self) -> bool {
        let used = self.used();
        // Relaxed: a hint.
        let stuck_at = self.stuck_at.load(Ordering::Relaxed);
        used > self.high && (stuck_at == 0 || used < stuck_at || used - stuck_at >= (self.high - self.low).max(1))
    }

    /// A turn of the hand is over.
    pub(crate) fn note_stuck(&self, stuck: bool) {
        // Relaxed (both): a statistic and a hint.
        self.stuck.fetch_add(u64::from(stuck), Ordering::Relaxed);
        self.stuck_at.store(if stuck { self.used() } else { 0 }, Ordering::Relaxed);
    }

    /// What a key of `key` bytes costs without its value.
    fn of_node(&self, key: u64) -> u64 {
        match self.unit {
            Unit::Entries => 1,
            Unit::Weight => 0,
            Unit::Bytes => NODE_BYTES + key,
        }
    }

    /// What a key with a value of the weight costs, for the validator.
    pub(crate) fn of_both(&self, key: u64, weight: u32) -> u64 {
        self.of_node(key) + self.of_value(weight)
    }

    fn of_value(&self, weight: u32) -> u64 {
        if self.unit == Unit::Entries { 0 } else { u64::from(weight) }
    }

    /// Whether a value's weight matters.
    pub(crate) fn counts_values(&self) -> bool {
        self.unit != Unit::Entries
    }

    pub(crate) fn counts_bytes(&self) -> bool {
        self.unit == Unit::Bytes
    }

    /// A key came. `stays` as for [`Sieve::push`].
    pub(crate) fn admit(&self, slot: u32, version: u32, key: u64, stays: impl Fn(u32, u32) -> bool) {
        // Relaxed (both): sums.
        self.used.fetch_add(self.of_node(key), Ordering::Relaxed);
        let members = self.members.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.sieve).push(slot, version, members as usize, stays);
    }

    /// A key and its value left.
    pub(crate) fn release(&self, key: u64, weight: u32) {
        // Relaxed (both): sums.
        self.used.fetch_sub(self.of_node(key) + self.of_value(weight), Ordering::Relaxed);
        self.members.fetch_sub(1, Ordering::Relaxed);
    }

    /// A value of another weight took its place.
    pub(crate) fn reweigh(&self, old: u32, new: u32) {
        // Relaxed: a sum. Added before it is taken away, so that it never goes below zero.
        self.used.fetch_add(self.of_value(new), Ordering::Relaxed);
        self.used.fetch_sub(self.of_value(old), Ordering::Relaxed);
    }

    /// The role of the evictor, if nobody has it; waits for it only where the budget is exceeded by far, so that it stays one.
    pub(crate) fn evictor(&self) -> Option<Evictor<'_>> {
        let mut backoff = Backoff::default();
        loop {
            // Acquire: the last evictor's turn before this one.
            if !self.evicting.swap(true, Ordering::Acquire) {
                return Some(Evictor(self));
            }
            // Relaxed: a hint. Waiting for a turn that finds everything in use would help nobody.
            let stuck = self.stuck_at.load(Ordering::Relaxed) != 0;
            if stuck || self.used() <= self.high.saturating_add(self.high / 16) || backoff.is_long() {
                return None;
            }
            backoff.wait();
        }
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.sieve).len()
    }

    pub(crate) fn bytes(&self) -> usize {
        lock(&self.sieve).bytes()
    }
}

/// Who moves the hand. Nothing is locked between its steps.
pub(crate) struct Evictor<'b>(&'b Budget);

impl Evictor<'_> {
    pub(crate) fn next(&self) -> Option<(u32, u32)> {
        lock(&self.0.sieve).next()
    }

    pub(crate) fn leave(&self, slot: u32, version: u32) {
        lock(&self.0.sieve).leave(slot, version);
    }
}

impl Drop for Evictor<'_> {
    fn drop(&mut self) {
        // Release: this turn before the next evictor's.
        self.0.evicting.store(false, Ordering::Release);
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("high", &self.high).field("used", &self.used()).finish_non_exhaustive()
    }
}
