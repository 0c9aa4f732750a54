//! Watchers: who wants to know of the first mark of a generation. A sparse side table, behind a flag in the head.

use std::collections::HashMap;
use std::task::Waker;

use crate::graph::Graph;
use crate::node::{Head, WATCHED};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};

const SHARDS: usize = if cfg!(any(loom, shuttle)) { 1 } else { 16 };

/// (epoch watched, watcher, its waker).
type Entry = (u32, u64, Waker);
type Shard = Mutex<HashMap<u32, Vec<Entry>, ahash::RandomState>>;

/// Wakers by slot.
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

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).values().map(Vec::len).sum::<usize>()).sum()
    }
}

impl Graph {
    /// Registers a waker for the first mark of the generation `seen`; `false` if that has been marked already.
    ///
    /// Subscribe, then check: the entry is in the table before the flag is set, so a sweep that sees the flag finds it. The flag is
    /// set under the list's lock, without which a sweep's mark could overwrite it: see `Graph::mark_from`.
    pub(crate) fn watch(&self, slot: u32, seen: Head, watcher: u64, waker: &Waker) -> bool {
        {
            let mut shard = lock(self.watchers.shard(slot));
            let entries = shard.entry(slot).or_default();
            match entries.iter_mut().find(|(_, id, _)| *id == watcher) {
                Some((_, _, old)) => old.clone_from(waker),
                None => entries.push((seen.epoch(), watcher, waker.clone())),
            }
        }
        let armed = self.edges.while_held(&self.row(slot).rev, || {
            let mut now = self.head(slot);
            while now.is_consistent() && now.version() == seen.version() && now.epoch() == seen.epoch() {
                match if now.has(WATCHED) { Ok(()) } else { self.swing(slot, now, now.with(WATCHED)) } {
                    Ok(()) => return true,
                    Err(other) => now = other,
                }
            }
            false
        });
        if !armed {
            self.unwatch(slot, watcher);
        }
        armed
    }

    /// Forgets a watcher. The last one takes the flag with it: a node that nobody watches may be evicted.
    pub(crate) fn unwatch(&self, slot: u32, watcher: u64) {
        {
            let mut shard = lock(self.watchers.shard(slot));
            let Some(entries) = shard.get_mut(&slot) else { return };
            entries.retain(|(_, id, _)| *id != watcher);
            if !entries.is_empty() {
                return;
            }
            shard.remove(&slot);
        }
        // Under the list's lock as in `watch`: whoever subscribes meanwhile is in the table by now, or sets the flag after this.
        self.edges.while_held(&self.row(slot).rev, || {
            if lock(self.watchers.shard(slot)).contains_key(&slot) {
                return;
            }
            let mut now = self.head(slot);
            while now.is_consistent() && now.has(WATCHED) {
                match self.swing(slot, now, now.without(WATCHED)) {
                    Ok(()) => return,
                    Err(other) => now = other,
                }
            }
        });
    }

    /// Two passes: first decide whom to tell, then tell them, with no lock held.
    pub(crate) fn notify(&self, notices: Vec<(u32, u32)>) {
        let mut wakers = Vec::new();
        for (slot, epoch) in notices {
            let mut shard = lock(self.watchers.shard(slot));
            if let Some(entries) = shard.get_mut(&slot) {
                entries.retain(|(watched, _, waker)| {
                    let hit = *watched <= epoch;
                    if hit {
                        wakers.push(waker.clone());
                    }
                    !hit
                });
                if entries.is_empty() {
                    shard.remove(&slot);
                }
            }
        }
        for waker in wakers {
            // A waker is the executor's code; should it panic, the others are still told.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }
}
