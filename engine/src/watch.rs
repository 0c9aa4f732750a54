//! Watchers: who wants to know of the first mark of a generation. A sparse side table, behind a flag in the head.

use std::collections::HashMap;
use std::task::Waker;

use crate::graph::Graph;
use crate::node::{Head, WATCHED};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, fault, lock};

const SHARDS: usize = if cfg!(any(loom, shuttle)) { 1 } else { 16 };

/// One slot's watchers by number, so that arming and leaving cost the same however many there are: (epoch watched, waker).
type Entries = HashMap<u64, (u32, Waker), ahash::RandomState>;
type Shard = Mutex<HashMap<u32, Entries, ahash::RandomState>>;

/// Wakers by slot. A waker is an executor's code, its clone and its drop too: neither happens under a shard's lock.
pub(crate) struct Watchers {
    shards: Box<[Shard]>,
    next: AtomicU64,
}

impl Watchers {
    pub(crate) fn new() -> Watchers {
        Watchers { shards: (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect(), next: AtomicU64::new(0) }
    }

    /// A number for a new watcher.
    pub(crate) fn number(&self) -> u64 {
        // Relaxed: only uniqueness matters.
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, slot: u32) -> &Shard {
        &self.shards[slot as usize % SHARDS]
    }

    fn insert(&self, slot: u32, watcher: u64, epoch: u32, waker: &Waker) {
        let waker = waker.clone();
        let old = lock(self.shard(slot)).entry(slot).or_default().insert(watcher, (epoch, waker));
        drop(old);
    }

    /// (slot, epoch) of every entry: for the validator.
    pub(crate) fn places(&self) -> Vec<(u32, u32)> {
        let mut places = Vec::new();
        for shard in &self.shards {
            for (&slot, entries) in &*lock(shard) {
                places.extend(entries.values().map(|&(epoch, _)| (slot, epoch)));
            }
        }
        places
    }
}

impl Graph {
    /// Registers a waker for the first mark of the generation `seen`; `false` if that has been marked already.
    ///
    /// Subscribe, then check: the entry is in the table before the flag is set, so a sweep that sees the flag finds it.
    pub(crate) fn watch(&self, slot: u32, seen: Head, watcher: u64, waker: &Waker) -> bool {
        if fault!("checked_before_subscribed") {
            let armed = self.raise_watched(slot, seen);
            crate::sync::yield_now();
            self.watchers.insert(slot, watcher, seen.epoch(), waker);
            return armed;
        }
        self.watchers.insert(slot, watcher, seen.epoch(), waker);
        let armed = self.raise_watched(slot, seen);
        if !armed {
            self.unwatch(slot, watcher);
        }
        armed
    }

    /// Sets the flag if the generation is unmarked: under the list's lock, without which a sweep's mark could overwrite it
    /// (see `Graph::mark_from`).
    fn raise_watched(&self, slot: u32, seen: Head) -> bool {
        self.edges.while_held(&self.row(slot).rev, || {
            let mut now = self.head(slot);
            while now.is_consistent() && now.version() == seen.version() && now.epoch() == seen.epoch() {
                match if now.has(WATCHED) { Ok(()) } else { self.swing(slot, now, now.with(WATCHED)) } {
                    Ok(()) => return true,
                    Err(other) => now = other,
                }
            }
            false
        })
    }

    pub(crate) fn unwatch(&self, slot: u32, watcher: u64) {
        let gone = {
            let mut shard = lock(self.watchers.shard(slot));
            let Some(entries) = shard.get_mut(&slot) else { return };
            let gone = entries.remove(&watcher);
            if entries.is_empty() {
                shard.remove(&slot);
            }
            gone
        };
        drop(gone);
    }

    /// Two passes: first decide whom to tell, then tell them, with no lock held.
    pub(crate) fn notify(&self, notices: Vec<(u32, u32)>) {
        let mut told = Vec::new();
        for (slot, epoch) in notices {
            let mut shard = lock(self.watchers.shard(slot));
            if let Some(entries) = shard.get_mut(&slot) {
                told.extend(entries.extract_if(|_, &mut (watched, _)| watched <= epoch));
                if entries.is_empty() {
                    shard.remove(&slot);
                }
            }
        }
        for (_, (_, waker)) in told {
            // Should one panic, the others are still told.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }
}
