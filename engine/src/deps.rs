//! Forward edges: what a value was made from, in the order of first read.

use smallvec::SmallVec;

use crate::collector::Retired;
use crate::sync::atomic::{AtomicU64, Ordering};

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
        Dep { slot: (word >> 32) as u32, epoch: word as u32 }
    }
}

/// A published dependency list, borrowed. The slots never change; epochs are renewed in place by the node's owner while it
/// publishes or verifies, and read by anybody under a pin.
///
/// One allocation behind one word in the node: the length, then the edges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DepList<'a>(&'a [AtomicU64]);

impl<'a> DepList<'a> {
    /// The list behind a column's pointer; `None` for a null one.
    ///
    /// # Safety
    /// The pointer came from `leak` and the list is not dropped during `'a`.
    pub(crate) unsafe fn borrow(pointer: *mut AtomicU64) -> Option<DepList<'a>> {
        if pointer.is_null() {
            return None;
        }
        // SAFETY: [owned-deps] the caller's promise; the first word is the number of words that follow.
        unsafe {
            let len = (*pointer).load(Ordering::Relaxed) as usize;
            Some(DepList(std::slice::from_raw_parts(pointer.add(1), len)))
        }
    }

    /// A new list on the heap; null for no dependencies.
    pub(crate) fn leak(deps: &[Dep]) -> *mut AtomicU64 {
        if deps.is_empty() {
            return std::ptr::null_mut();
        }
        let words = std::iter::once(deps.len() as u64).chain(deps.iter().map(|dep| dep.pack()));
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
                let len = (*pointer).load(Ordering::Relaxed) as usize + 1;
                drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(pointer, len)));
            }
        }
        // SAFETY: [retire] the caller's promise.
        unsafe { Retired::with(pointer.cast(), free) }
    }

    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(self, index: usize) -> Option<Dep> {
        // Relaxed: the list was published by a Release store of its pointer; a renewed epoch is only a hint until the
        // owner re-checks it against the dependency's head.
        self.0.get(index).map(|word| Dep::unpack(word.load(Ordering::Relaxed)))
    }

    pub(crate) fn renew(self, index: usize, dep: Dep) {
        // Relaxed: published to the next owner by the Release CAS that ends this owner's turn.
        self.0[index].store(dep.pack(), Ordering::Relaxed);
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Dep> + 'a {
        self.0.iter().map(|word| Dep::unpack(word.load(Ordering::Relaxed)))
    }

    pub(crate) fn bytes(self) -> usize {
        (self.0.len() + 1) * 8
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
