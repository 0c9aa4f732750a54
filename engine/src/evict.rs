//! Eviction: which keys leave when there are too many, and what of them.
//!
//! Three levels, one a turn of the hand. A node that nothing was made from leaves whole. One that something was made from loses its value first
//! and stays, settled, as the path along which changes reach what was made from it; if the hand comes by again, it loses its dependencies, and what
//! was made from it may be stale; then its slot. A read of an evicted value marks what was made from the old one before it computes
//! the new one, which might come out differently.
//!
//! A node's head is moved by the evictor under the node's list lock and with a CAS: marks take the lock, and removals, which do not,
//! are a CAS too.

use crate::capacity::Budget;
use crate::function::{FnData, Slots};
use crate::graph::{AnyFunction, Graph};
use crate::key::Key;
use crate::log::What;
use crate::node::{HAS_VALUE, Head, LAST_VERSION, State, WATCHED};
use crate::origin::By;
use crate::region::Base;
use crate::sweep::{Root, Roots};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{fault, lock};
use crate::value::Value;

/// What the hand did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The slot has another tenant, or none.
    Gone,
    /// In use: read lately, watched, or in somebody's hands.
    Kept,
    /// The value was dropped.
    Emptied,
    /// There was no value left to drop, but something was made from it.
    Pinned,
    /// The key left.
    Freed,
}

pub(crate) type Weigh<K, V> = dyn Fn(&K, &V) -> u32 + Send + Sync;

/// A function's part in the limits that concern it.
pub(crate) struct Bounds<K, V> {
    stamps: Base<AtomicU8>,
    /// What a read writes: [`READ`], or the present quantum of `keep`.
    now: AtomicU8,
    /// Ticks of a quantum of `keep_at_least`; 0 without.
    quantum: u64,
    own: Option<Budget>,
    engine: Option<Arc<Budget>>,
    weigh: Option<Box<Weigh<K, V>>>,
}

/// Quanta in `keep_at_least`: a value is kept for so much of it longer at most.
const QUANTA: u8 = 16;
/// Stamps: 0 is "not read since the hand came by", 1 is "read". The rest is negative to a hit, which then looks closer.
const READ: u8 = 1;
/// Quanta of `keep`, in which a function with that rule says when a node was read; the one after the last is the first again.
const FIRST_QUANTUM: u8 = 128;
const LAST_QUANTUM: u8 = 254;
/// Read at a time that is not known: through a resolved node, which does not know its function.
const SOME_TIME: u8 = 255;

/// Whether a stamp says all that a hit would: a read of a function without `keep`.
#[inline(always)]
pub(crate) fn is_traced(stamp: u8) -> bool {
    stamp.cast_signed() > 0
}

/// Dependencies of a node in use that are in use through it.
const PASSED_ON: usize = 256;

/// Nodes whose dependants are marked in one commit.
const TOGETHER: usize = 64;

impl<K, V> Bounds<K, V> {
    /// `None` if nothing is limited. `keep` in ticks; `traced`: reads leave a trace in any case.
    pub(crate) fn new(
        stamps: Base<AtomicU8>,
        own: Option<Budget>,
        engine: Option<Arc<Budget>>,
        weigh: Option<Box<Weigh<K, V>>>,
        keep: Option<u64>,
        traced: bool,
    ) -> Option<Bounds<K, V>> {
        let own = own.or_else(|| (keep.is_some() || traced).then(Budget::unlimited));
        (own.is_some() || engine.is_some()).then(|| Bounds {
            stamps,
            now: AtomicU8::new(if keep.is_some() { FIRST_QUANTUM } else { READ }),
            quantum: keep.map_or(0, |ticks| ticks.div_ceil(u64::from(QUANTA)).max(1)),
            own,
            engine,
            weigh,
        })
    }

    /// Where hits leave their traces.
    pub(crate) fn stamps(&self) -> Base<AtomicU8> {
        self.stamps.clone()
    }

    /// What a read writes that does not know the function.
    pub(crate) fn trace(&self) -> u8 {
        if self.quantum == 0 { READ } else { SOME_TIME }
    }

    /// The node was read. Nothing is written that is there already.
    pub(crate) fn touch(&self, slot: u32) {
        // Relaxed (all): a hint to the hand.
        let now = self.now.load(Ordering::Relaxed);
        // SAFETY: [region-stable] a slot of a node has its stamp.
        let stamp = unsafe { self.stamps.at(slot as usize) };
        if stamp.load(Ordering::Relaxed) != now {
            stamp.store(now, Ordering::Relaxed);
        }
    }

    /// The node was read, and was no hit: that leaves a trace only where reads have times.
    pub(crate) fn touch_kept(&self, slot: u32) {
        if self.quantum > 0 {
            self.touch(slot);
        }
    }

    /// Ticks between two moves of the stamp; 0 for none.
    pub(crate) fn quantum(&self) -> u64 {
        self.quantum
    }

    pub(crate) fn move_stamp(&self) {
        // Relaxed (both): a hint; moved by the timers alone.
        let now = self.now.load(Ordering::Relaxed);
        self.now.store(if now >= LAST_QUANTUM { FIRST_QUANTUM } else { now + 1 }, Ordering::Relaxed);
    }

    /// Whether the node was read since the last time this was asked; by a function with `keep_at_least`, lately. The hand passes it over
    /// then.
    pub(crate) fn was_read(&self, slot: u32) -> bool {
        // SAFETY: [region-stable] as in `touch`.
        let stamp = unsafe { self.stamps.at(slot as usize) };
        // Relaxed (all): a hint; a read between the load and the store gets no second chance.
        let seen = stamp.load(Ordering::Relaxed);
        if seen == 0 {
            return false;
        }
        if self.quantum == 0 {
            stamp.store(0, Ordering::Relaxed);
            return true;
        }
        let now = self.now.load(Ordering::Relaxed);
        if seen == SOME_TIME {
            stamp.store(now, Ordering::Relaxed);
            return true;
        }
        let age = if now >= seen { now - seen } else { now - FIRST_QUANTUM + 1 + (LAST_QUANTUM - seen) };
        age <= QUANTA
    }

    fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.own.iter().chain(self.engine.as_deref())
    }

    pub(crate) fn own(&self) -> Option<&Budget> {
        self.own.as_ref()
    }

    /// Bytes a key takes outside its row.
    fn key_bytes() -> u64
    where
        K: 'static,
    {
        if crate::key::is_word::<K>() { 0 } else { size_of::<crate::key::BoxedKey<K>>() as u64 }
    }

    /// A key came.
    pub(crate) fn admit(&self, graph: &Graph, slot: u32, version: u32)
    where
        K: 'static,
    {
        // A key that is to be kept is so from its birth; others must be read once more before the hand passes over them.
        // Relaxed (both): a hint.
        let stamp = if self.quantum > 0 { self.now.load(Ordering::Relaxed) } else { 0 };
        // SAFETY: [region-stable] as in `touch`.
        unsafe { self.stamps.at(slot as usize) }.store(stamp, Ordering::Relaxed);
        for budget in self.budgets() {
            budget.admit(slot, version, Self::key_bytes(), |slot, version| graph.head(slot).version() == version);
        }
    }

    /// A key left, with the value it still had.
    pub(crate) fn release(&self, graph: &Graph, slot: u32)
    where
        K: 'static,
    {
        // Relaxed: the slot is the caller's.
        let weight = graph.columns.weight(slot).swap(0, Ordering::Relaxed);
        for budget in self.budgets() {
            budget.release(Self::key_bytes(), weight);
        }
    }

    /// What a value weighs. Runs the user's code.
    pub(crate) fn weight_of(&self, key: impl FnOnce() -> Option<K>, value: &V, inline: bool) -> u32 {
        match &self.weigh {
            Some(weigh) => key().map_or(0, |key| weigh(&key, value)),
            None if !self.budgets().any(Budget::counts_values) => 0,
            None if self.budgets().any(Budget::counts_bytes) => u32::try_from(if inline { 0 } else { size_of::<V>() }).unwrap_or(u32::MAX),
            None => 1,
        }
    }

    /// The node's value weighs so much now: for whoever owns the node's columns.
    pub(crate) fn set_weight(&self, graph: &Graph, slot: u32, weight: u32) {
        // Relaxed: the column is the caller's.
        let old = graph.columns.weight(slot).swap(weight, Ordering::Relaxed);
        if old != weight {
            self.budgets().for_each(|budget| budget.reweigh(old, weight));
        }
    }

    /// What the slots cost by a budget, its own if none is named; `None` for one that does not concern it.
    pub(crate) fn recount(&self, graph: &Graph, slots: &[u32], budget: Option<&Budget>) -> Option<u64>
    where
        K: 'static,
    {
        let budget = budget.filter(|_| self.engine.is_some()).or(if budget.is_none() { self.own() } else { None })?;
        // Relaxed: at quiescence.
        let cost = |&slot: &u32| budget.of_both(Self::key_bytes(), graph.columns.weight(slot).load(Ordering::Relaxed));
        Some(slots.iter().map(cost).sum())
    }

    /// Evicts what is beyond the limits.
    pub(crate) fn keep_within(&self, graph: &Arc<Graph>) {
        for budget in self.budgets() {
            if budget.is_exceeded() {
                graph.shrink(budget, budget.low);
            }
        }
    }
}

impl Graph {
    /// Moves the hand until the budget is down to `low`, or everything that is left is in use. How many keys left.
    pub(crate) fn shrink(self: &Arc<Graph>, budget: &Budget, low: u64) -> usize {
        let Some(evictor) = budget.evictor() else { return 0 };
        let shared = self.budget.as_deref().is_some_and(|engines| std::ptr::eq(engines, budget));
        let mut freed = 0;
        let mut pinned = Roots::new();
        // Three levels and a second chance are four turns.
        let mut steps = budget.len().saturating_mul(4) + 4;
        while budget.used() > low && steps > 0 {
            steps -= 1;
            let Some((slot, version)) = evictor.next() else { break };
            match self.function(slot).evict(self, slot, version, shared) {
                Verdict::Gone => evictor.leave(slot, version),
                Verdict::Freed => {
                    evictor.leave(slot, version);
                    freed += 1;
                }
                Verdict::Pinned => {
                    pinned.push(Root::Unsettle { slot, version, forget_deps: true });
                    if pinned.len() >= TOGETHER {
                        self.commit_by(std::mem::take(&mut pinned), &By::Engine);
                    }
                }
                Verdict::Kept | Verdict::Emptied => {}
            }
        }
        if !pinned.is_empty() {
            self.commit_by(pinned, &By::Engine);
        }
        drop(evictor);
        // Relaxed (both): statistics.
        budget.evicted.fetch_add(freed as u64, Ordering::Relaxed);
        budget.note_stuck(budget.used() > low);
        // Values go here, with nothing held: `Drop` is user code.
        self.collector.reap();
        freed
    }

    /// The sweep's part of the last levels, and of a read of an evicted value.
    pub(crate) fn unsettle(&self, slot: u32, version: u32, forget_deps: bool, found: &mut crate::sweep::Found) {
        let mut head = self.head(slot);
        while head.version() == version && head.state() == State::Evicted {
            let to = if forget_deps { head.next_flight(State::Publishing) } else { head.in_state(State::Empty) };
            let marked = if fault!("unsettled_alone") { self.swing(slot, head, to) } else { self.mark_from(slot, head, to, found) };
            match marked {
                Ok(()) => {
                    found.marked += 1;
                    if forget_deps {
                        self.forget_deps(slot, to, found);
                    }
                    return;
                }
                Err(other) => head = other,
            }
        }
    }

    /// The owner of `Publishing` takes the node out of its dependencies' lists and leaves it empty.
    fn forget_deps(&self, slot: u32, owned: Head, found: &mut crate::sweep::Found) {
        self.edges.next_generation(&self.row(slot).rev);
        let deps = self.warm(slot).deps.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if !deps.is_null() {
            // SAFETY: [owned-deps] out of the column, by the owner; readers are in sections.
            self.collector.retire(unsafe { crate::deps::DepList::retire(deps) });
        }
        self.let_go(slot, owned, State::Empty, found);
    }
}

impl<K: Key, V: Value> FnData<K, V> {
    /// The hand is over one of this function's nodes.
    ///
    /// `shared`: it is the engine's hand. A node that it finds read passes that on to what it was made from, which nobody reads while the
    /// value above is served; thrown out, it would take that with it.
    pub(crate) fn evict_node(&self, graph: &Graph, slot: u32, version: u32, shared: bool) -> Verdict {
        let Some(bounds) = &self.bounds else { return Verdict::Gone };
        let head = graph.head(slot);
        if !head.is_live() || head.version() != version {
            return Verdict::Gone;
        }
        // A wish to invalidate the key later would leave with it.
        // Relaxed: asked for before this look, or of the next tenant.
        let wished = graph.columns.times(slot).asked.load(Ordering::Relaxed) != 0;
        if wished || head.has(WATCHED) || head.is_owned() || head.state() == State::Computing {
            return Verdict::Kept;
        }
        if bounds.was_read(slot) {
            if shared && !fault!("use_ignored") {
                self.pass_use_on(graph, slot);
            }
            return Verdict::Kept;
        }
        let freed = Head::new(State::Empty, version.wrapping_add(1) & LAST_VERSION, head.epoch().saturating_add(1));
        let mut slots = lock(&self.slots);
        let verdict = graph.edges.judge(&graph.columns, slot, |has_dependants| {
            let moved = |to: Head| graph.swing(slot, head, to).is_ok();
            match head.state() {
                _ if !has_dependants || fault!("evicts_dependencies") => match moved(freed) {
                    true => (Verdict::Freed, true),
                    false => (Verdict::Kept, false),
                },
                State::Evicted => (Verdict::Pinned, false),
                State::Consistent if moved(head.in_state(State::Evicted)) => {
                    // Nobody else may take the list's lock meanwhile, and so nobody frees the slot under us.
                    self.drop_value(graph, slot);
                    (Verdict::Emptied, false)
                }
                _ => (Verdict::Kept, false),
            }
        });
        if verdict == Verdict::Freed {
            self.free_slot(graph, &mut slots, slot, freed);
        }
        drop(slots);
        if matches!(verdict, Verdict::Freed | Verdict::Emptied) {
            graph.note(What::Evicted, slot);
        }
        verdict
    }

    fn pass_use_on(&self, graph: &Graph, slot: u32) {
        graph.with_deps(slot, |deps| {
            for dep in deps.take(PASSED_ON) {
                let stamp = graph.columns.stamp(dep.slot);
                // Relaxed (both): a hint.
                if stamp.load(Ordering::Relaxed) == 0 {
                    stamp.store(READ, Ordering::Relaxed);
                }
            }
        });
    }

    fn drop_value(&self, graph: &Graph, slot: u32) {
        // AcqRel: of two who would drop the value, one sees the flag. The word stays: a reader that met the old head may still load
        // it, and what it points to is freed after that reader's section or pin.
        if graph.warm(slot).flags.fetch_and(!HAS_VALUE, Ordering::AcqRel) & HAS_VALUE != 0
            && let Some(retired) = self.retired_value(graph.row(slot).value.load(Ordering::Acquire))
        {
            graph.collector.retire(retired);
        }
        if let Some(bounds) = &self.bounds {
            bounds.set_weight(graph, slot, 0);
        }
    }

    /// What is left to do for a slot whose head says that it is free: it leaves the table and is given to the next key.
    pub(crate) fn free_slot(&self, graph: &Graph, slots: &mut Slots, slot: u32, freed: Head) {
        graph.clear_times(slot);
        if let Some(bounds) = &self.bounds {
            bounds.release(graph, slot);
        }
        self.table.remove(&mut slots.writer, self.stored_hash(graph, slot), slot);
        graph.edges.next_generation(&graph.row(slot).rev);
        self.empty_columns(graph, slot, &mut |retired| graph.collector.retire(retired));
        // A slot out of versions or epochs stays empty for good: a handle must never meet a second tenant under its id.
        if freed.version() != 0 && freed.epoch() < crate::verify::LAST_EPOCH / 2 {
            slots.free.push(slot);
        }
    }
}
