//! The columns: rows that never move, found by slot number alone.
//!
//! Struct of arrays: hot rows, warm rows, and the owner of each chunk of 64 slots. Nothing of it moves or is freed before the
//! engine is, which is what lets a read follow a slot number without a pin.
//!
//! Three more columns are for those who asked for them: when a node is due, whether it was read since the evicting hand came by,
//! and what it weighs. They are made usable with the others, and cost memory only where they are written.

use std::ptr;

use crate::node::{Head, Row, State, Times, Warm};
use crate::region::{Base, Region, prefetch};
use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use crate::sync::{Mutex, lock};

/// Slots are given to functions by the chunk, so one owner per chunk tells a slot's function.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const CHUNK: usize = 64;
#[cfg(any(loom, shuttle))]
pub(crate) const CHUNK: usize = 4;

/// The columns of an engine.
pub(crate) struct Columns {
    rows: Region<Row>,
    warm: Region<Warm>,
    owners: Region<AtomicU32>,
    times: Region<Times>,
    stamps: Region<AtomicU8>,
    weights: Region<AtomicU32>,
    growth: Mutex<Growth>,
}

struct Growth {
    chunks: usize,
    max_chunks: usize,
}

impl Columns {
    /// Room for `max_nodes`, rounded up to chunks; slot numbers have 31 bits.
    ///
    /// # Panics
    /// If the process has no addresses or no memory left, as any allocation would.
    pub(crate) fn new(max_nodes: u32) -> Columns {
        // Slot numbers start after chunk 0 so that no live slot is 0 and an edge word is never 0.
        let max_chunks = ((max_nodes as usize).div_ceil(CHUNK) + 1).min((1 << 31) / CHUNK);
        let slots = max_chunks * CHUNK;
        let none = "the process has no addresses left for an engine";
        let (rows, warm) = (Region::new(slots).expect(none), Region::new(slots).expect(none));
        let owners = Region::new(max_chunks).expect(none);
        let (times, stamps, weights) = (Region::new(slots).expect(none), Region::new(slots).expect(none), Region::new(slots).expect(none));
        let growth = Mutex::new(Growth { chunks: 0, max_chunks });
        let columns = Columns { rows, warm, owners, times, stamps, weights, growth };
        let reserved = columns.chunk(u32::MAX);
        assert_eq!(reserved, Some(0), "no memory for the first nodes");
        // Relaxed: the columns are published by whoever shares them. Zeroes would say that slot 0 holds the key 0, consistent.
        columns.row(0).head.store(Head::new(State::Empty, 0, 0).0, Ordering::Relaxed);
        columns
    }

    /// The first slot of a fresh chunk for `owner`, or `None` at the engine's id limit or the system's memory.
    pub(crate) fn chunk(&self, owner: u32) -> Option<u32> {
        let mut growth = lock(&self.growth);
        let next = growth.chunks + 1;
        let slots = next * CHUNK;
        let grown = next <= growth.max_chunks
            && self.rows.grow(slots)
            && self.warm.grow(slots)
            && self.owners.grow(next)
            && self.times.grow(slots)
            && self.stamps.grow(slots)
            && self.weights.grow(slots);
        if !grown {
            return None;
        }
        let chunk = growth.chunks;
        growth.chunks = next;
        // SAFETY: [region-stable] grown above.
        // Relaxed: the slot reaches other threads only through a Release store (table, edge or handle).
        unsafe { self.owners.at(chunk) }.store(owner, Ordering::Relaxed);
        Some((chunk * CHUNK) as u32)
    }

    /// How many nodes there can be.
    pub(crate) fn max_nodes(&self) -> usize {
        (lock(&self.growth).max_chunks - 1) * CHUNK
    }

    /// Where the hot rows are, for who reads many.
    pub(crate) fn rows(&self) -> Base<Row> {
        self.rows.base()
    }

    #[inline(always)]
    pub(crate) fn row(&self, slot: u32) -> &Row {
        // SAFETY: [region-stable] a slot number exists only after its chunk was grown, and whoever passes it on does so after a
        // Release store.
        unsafe { self.rows.at(slot as usize) }
    }

    #[inline(always)]
    pub(crate) fn warm(&self, slot: u32) -> &Warm {
        // SAFETY: [region-stable] as in `row`.
        unsafe { self.warm.at(slot as usize) }
    }

    /// When the node is due. Written only for functions with a rule about time, and by delayed invalidations.
    #[inline(always)]
    pub(crate) fn times(&self, slot: u32) -> &Times {
        // SAFETY: [region-stable] as in `row`.
        unsafe { self.times.at(slot as usize) }
    }

    /// Where the stamps are, for who touches one on every hit.
    pub(crate) fn stamps(&self) -> Base<AtomicU8> {
        self.stamps.base()
    }

    #[inline(always)]
    pub(crate) fn stamp(&self, slot: u32) -> &AtomicU8 {
        // SAFETY: [region-stable] as in `row`.
        unsafe { self.stamps.at(slot as usize) }
    }

    #[inline(always)]
    pub(crate) fn weight(&self, slot: u32) -> &AtomicU32 {
        // SAFETY: [region-stable] as in `row`.
        unsafe { self.weights.at(slot as usize) }
    }

    /// Whether the slot belongs to a chunk that was ever handed out.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        let chunk = slot as usize / CHUNK;
        chunk > 0 && chunk < lock(&self.growth).chunks
    }

    /// The function that owns the slot's chunk.
    #[inline]
    pub(crate) fn owner(&self, slot: u32) -> u32 {
        // SAFETY: [region-stable] as in `row`.
        // Relaxed: see `chunk`; never changes once set.
        unsafe { self.owners.at(slot as usize / CHUNK) }.load(Ordering::Relaxed)
    }

    /// Chunks handed out so far, as (first slot, owner).
    pub(crate) fn chunks(&self) -> Vec<(u32, u32)> {
        let count = lock(&self.growth).chunks;
        (1..count).map(|chunk| ((chunk * CHUNK) as u32, self.owner((chunk * CHUNK) as u32))).collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes() + self.warm.bytes() + self.owners.bytes()
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self, slot: u32) {
        prefetch(ptr::from_ref(self.row(slot)));
    }
}

impl std::fmt::Debug for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Columns").field("chunks", &lock(&self.growth).chunks).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_slot_that_is_nobodys_holds_no_key() {
        let columns = Columns::new(64);
        let head = Head(columns.row(0).head.load(Ordering::Relaxed));
        assert!(!head.is_consistent() && !head.is_live(), "its key word is 0, which is a key");
        assert!(columns.chunk(0).is_some());
        assert!(columns.chunk(0).is_none(), "64 nodes are one chunk");
    }
}
