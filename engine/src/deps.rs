//! Forward edges: what a value was made from, in the order of first read.

use smallvec::SmallVec;

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

/// A published dependency list. The slots never change; epochs are renewed in place by the node's owner while it publishes
/// or verifies, and read by anybody under a pin.
#[derive(Debug)]
pub(crate) struct DepList(Box<[AtomicU64]>);

impl DepList {
    pub(crate) fn new(deps: &[Dep]) -> DepList {
        DepList(deps.iter().map(|dep| AtomicU64::new(dep.pack())).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Dep> {
        // Relaxed: the list was published by a Release store of its pointer; a renewed epoch is only a hint until the
        // owner re-checks it against the dependency's head.
        self.0.get(index).map(|word| Dep::unpack(word.load(Ordering::Relaxed)))
    }

    pub(crate) fn renew(&self, index: usize, dep: Dep) {
        // Relaxed: published to the next owner by the Release CAS that ends this owner's turn.
        self.0[index].store(dep.pack(), Ordering::Relaxed);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Dep> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<DepList>() + self.0.len() * 8
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
        if let Some(index) = &mut self.index {
            if !index.insert(dep.slot) {
                return self.unstored(dep);
            }
        } else {
            if self.deps.iter().any(|seen| seen.slot == dep.slot) {
                return self.unstored(dep);
            }
            if self.deps.len() == LINEAR {
                let mut index: std::collections::HashSet<_, _> = self.deps.iter().map(|seen| seen.slot).collect();
                index.insert(dep.slot);
                self.index = Some(Box::new(index));
            }
        }
        self.deps.push(dep);
    }

    /// A repeated read of a value that was never stored poisons the first record of it.
    fn unstored(&mut self, dep: Dep) {
        if dep.epoch == UNSTORED
            && let Some(seen) = self.deps.iter_mut().find(|seen| seen.slot == dep.slot)
        {
            seen.epoch = UNSTORED;
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
