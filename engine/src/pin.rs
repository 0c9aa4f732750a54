//! Pins: a thread's licence to borrow values.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::collector::Guard;
use crate::graph::Graph;
use crate::stats::add;
use crate::sync::atomic::Ordering;

/// A thread's licence to borrow values from the engine. What is replaced while a pin is held is kept until it is gone, so
/// renew a pin every thousand reads or so, and hold none across an `await` (it is `!Send`, which the compiler enforces).
///
/// Taking one and giving it back costs about as much as ten reads (it reads the clock twice, for `Stats::longest_pin`); a read under
/// it writes nothing that another core reads. For a single value, `get` is cheaper.
pub struct Pin<'e> {
    pub(crate) graph: &'e Graph,
    pub(crate) hits: Cell<u64>,
    since: crate::clock::Moment,
    _guard: Guard,
    /// A pin belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl<'e> Pin<'e> {
    pub(crate) fn new(graph: &'e Graph) -> Pin<'e> {
        let guard = graph.collector.pin();
        Pin { graph, hits: Cell::new(0), since: crate::clock::Moment::now(), _guard: guard, not_send: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn count_hit(&self) {
        self.hits.set(self.hits.get() + 1);
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mine = self.graph.counters.mine();
        add(&mine.hits, self.hits.get());
        let held = self.since.nanos_ago();
        // Relaxed (both): a statistic.
        if held > mine.longest_pin_ns.load(Ordering::Relaxed) {
            mine.longest_pin_ns.store(held, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Pin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("hits", &self.hits.get()).finish_non_exhaustive()
    }
}
