//! Forward edges: what a value was made from, in the order of first read.

use smallvec::SmallVec;

use crate::collector::Retired;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::fault;

/// One dependency: the slot and the epoch at which it was read. 8 bytes packed.
///
/// The epoch says two things at once: the reverse edge is in the dependency's list as long as its head still shows this
/// epoch (every mark starts a new one), and the value is unchanged as long as its `changed` epoch is not later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dep {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
}

/// The epoch of a read whose value was never stored: later than nothing, so the reader is always recomputed.
pub(crate) const UNSTORED: u32 = 0;

impl Dep {
    pub(crate) fn pack(self) -> u64 {
        (u64::from(self.slot) << 32) | u64::from(self.epoch)
    }

    pub(crate) fn unpack(word: u64) -> Dep {
        Dep { slot: ((word & !DURABLE_EDGE) >> 32) as u32, epoch: word as u32 }
    }
}

/// In a list's word: the dependency is a durable source. Slots have 31 bits.
const DURABLE_EDGE: u64 = 1 << 63;
/// In a list's first word: a stamp follows the edges.
const STAMPED: u64 = 1 << 63;

/// A published dependency list, borrowed. The slots never change; epochs are renewed in place by the node's owner while it
/// publishes or verifies, and read by anybody under a pin.
///
/// One allocation behind one word in the node: the length, then the edges, then a stamp if one of them is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DepList<'a> {
    edges: &'a [AtomicU64],
    /// See [`crate::durable`].
    stamp: Option<&'a AtomicU64>,
}

impl<'a> DepList<'a> {
    /// The list behind a column's pointer; `None` for a null one.
    ///
    /// # Safety
    /// The pointer came from `leak` and the list is not dropped during `'a`.
    pub(crate) unsafe fn borrow(pointer: *mut AtomicU64) -> Option<DepList<'a>> {
        if pointer.is_null() {
            return None;
        }
        // SAFETY: [owned-deps] the caller's promise; the first word is the number of edges that follow, and says if a stamp does.
        unsafe {
            let header = (*pointer).load(Ordering::Relaxed);
            let len = (header & !STAMPED) as usize;
            let edges = std::slice::from_raw_parts(pointer.add(1), len);
            let stamp = if header & STAMPED != 0 { Some(&*pointer.add(1 + len)) } else { None };
            Some(DepList { edges, stamp })
        }
    }

    /// A new list on the heap, without a valid stamp; null for no dependencies.
    pub(crate) fn leak(deps: &[Dep], durable: impl Fn(u32) -> bool) -> *mut AtomicU64 {
        if deps.is_empty() {
            return std::ptr::null_mut();
        }
        let stamped = deps.iter().any(|dep| durable(dep.slot));
        let header = deps.len() as u64 | if stamped { STAMPED } else { 0 };
        let edges = deps.iter().map(|dep| dep.pack() | if stamped && durable(dep.slot) { DURABLE_EDGE } else { 0 });
        let words = std::iter::once(header).chain(edges).chain(stamped.then_some(0));
        let list: Box<[AtomicU64]> = words.map(AtomicU64::new).collect();
        Box::into_raw(list).cast::<AtomicU64>()
    }

    /// Hands a list that is out of its column to the collector.
    ///
    /// # Safety
    /// The pointer came from `leak`, is not null, and nobody reaches it after the pins of this moment are gone.
    pub(crate) unsafe fn retire(pointer: *mut AtomicU64) -> Retired {
        unsafe fn free(pointer: *mut ()) {
            let pointer = pointer.cast::<AtomicU64>();
            // SAFETY: [owned-deps] the contract of `retire`: the box `leak` made, its length in the first word.
            unsafe {
                let header = (*pointer).load(Ordering::Relaxed);
                let len = (header & !STAMPED) as usize + 1 + usize::from(header & STAMPED != 0);
                drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(pointer, len)));
            }
        }
        // SAFETY: [retire] the caller's promise.
        unsafe { Retired::with(pointer.cast(), free) }
    }

    pub(crate) fn len(self) -> usize {
        self.edges.len()
    }

    pub(crate) fn get(self, index: usize) -> Option<Dep> {
        // Relaxed: the list was published by a Release store of its pointer; a renewed epoch is only a hint until the
        // owner re-checks it against the dependency's head.
        self.edges.get(index).map(|word| Dep::unpack(word.load(Ordering::Relaxed)))
    }

    pub(crate) fn renew(self, index: usize, dep: Dep) {
        // Relaxed: published to the next owner by the Release CAS that ends this owner's turn.
        let word = &self.edges[index];
        word.store(dep.pack() | (word.load(Ordering::Relaxed) & DURABLE_EDGE), Ordering::Relaxed);
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Dep> + 'a {
        self.edges.iter().map(|word| Dep::unpack(word.load(Ordering::Relaxed)))
    }

    /// Whether the durable edges are where they were and their values unchanged, at the given number of durable changes.
    pub(crate) fn is_settled(self, now: u64) -> bool {
        // Relaxed: the owner's own, or a hint that the owner checks again.
        self.stamp.is_some_and(|stamp| now & 1 == 0 && stamp.load(Ordering::Relaxed) == now || fault!("stamp_unread"))
    }

    /// For the list's owner, who has found every edge in place since it read the number; anything else ends the stamp.
    pub(crate) fn settle(self, now: u64) {
        if let Some(stamp) = self.stamp {
            // Relaxed: published to the next owner with the head.
            stamp.store(if now & 1 == 0 { now } else { 0 }, Ordering::Relaxed);
        }
    }

    /// What a verification has to look at, with its place: all, or all that is not durable if those are settled.
    pub(crate) fn unsettled(self, settled: bool) -> impl Iterator<Item = (usize, Dep)> + 'a {
        let skipped = if settled { DURABLE_EDGE } else { 0 };
        let words = self.edges.iter().map(|word| word.load(Ordering::Relaxed)).enumerate();
        words.filter(move |&(_, word)| word & skipped == 0).map(|(index, word)| (index, Dep::unpack(word)))
    }

    /// What a verification does not look at, at the given number of durable changes.
    pub(crate) fn settled(self, now: u64) -> impl Iterator<Item = Dep> + 'a {
        let chosen = if self.is_settled(now) { DURABLE_EDGE } else { 0 };
        let words = self.edges.iter().map(|word| word.load(Ordering::Relaxed));
        words.filter(move |word| word & chosen != 0).map(Dep::unpack)
    }

    pub(crate) fn bytes(self) -> usize {
        (self.edges.len() + 1 + usize::from(self.stamp.is_some())) * 8
    }
}

/// What a running flight has read so far: one entry per dependency, first read first.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    deps: SmallVec<[Dep; 8]>,
    /// Built when a linear search would start to cost more than a hash.
    #[allow(clippy::box_collection, reason = "one word instead of six in every flight; wide flights are rare")]
    index: Option<Box<std::collections::HashSet<u32, ahash::RandomState>>>,
}

const LINEAR: usize = 16;

impl Recorded {
    /// Records a read; a second read of one dependency keeps the first epoch, so that a change in between shows.
    pub(crate) fn record(&mut self, dep: Dep) {
        if !self.add(dep) {
            self.unstored(dep);
        }
    }

    /// `false`: the dependency is recorded already, and stays as it is.
    fn add(&mut self, dep: Dep) -> bool {
        if let Some(index) = &mut self.index {
            if !index.insert(dep.slot) {
                return false;
            }
        } else {
            if self.deps.iter().any(|seen| seen.slot == dep.slot) {
                return false;
            }
            if self.deps.len() == LINEAR {
                let mut index: std::collections::HashSet<_, _> = self.deps.iter().map(|seen| seen.slot).collect();
                index.insert(dep.slot);
                self.index = Some(Box::new(index));
            }
        }
        self.deps.push(dep);
        true
    }

    /// A repeated read of a value that was never stored poisons the first record of it.
    fn unstored(&mut self, dep: Dep) {
        if dep.epoch == UNSTORED
            && let Some(seen) = self.deps.iter_mut().find(|seen| seen.slot == dep.slot)
        {
            seen.epoch = UNSTORED;
        }
    }

    /// Adds what another thread recorded meanwhile. Of two reads of one dependency the older epoch counts, whoever made it: a
    /// change between them must show.
    pub(crate) fn merge(&mut self, other: &Recorded) {
        for &dep in other.as_slice() {
            if !self.add(dep)
                && let Some(seen) = self.deps.iter_mut().find(|seen| seen.slot == dep.slot)
            {
                seen.epoch = seen.epoch.min(dep.epoch);
            }
        }
    }

    pub(crate) fn as_slice(&self) -> &[Dep] {
        &self.deps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_read_keeps_one_edge_and_the_first_epoch() {
        let mut recorded = Recorded::default();
        for round in 1..=2 {
            for slot in 0..100 {
                recorded.record(Dep { slot, epoch: round });
            }
        }
        assert_eq!(recorded.as_slice().len(), 100);
        assert!(recorded.as_slice().iter().enumerate().all(|(at, dep)| dep.slot as usize == at && dep.epoch == 1));
        recorded.record(Dep { slot: 7, epoch: UNSTORED });
        assert_eq!(recorded.as_slice()[7].epoch, UNSTORED);
    }
}
