//! Where changes came from: a ring of the latest commits' roots, for whoever asks why a value is stale.
//!
//! It lies beside the ticket queue, whose lock a commit holds anyway when it gets its number: an entry is a store into memory that
//! is there, and it is there before the first mark. Nothing is written at the nodes that a sweep marks. An origin on each mark would
//! cost the sweep a store of 8 bytes a node on a line it does not touch; instead the way from a root to a node is found again from
//! the dependencies, when somebody asks.

use std::panic::Location;

use crate::graph::Graph;
use crate::sweep::Root;

/// A place in the caller's code.
pub(crate) type Place = &'static Location<'static>;

/// What was done to the node a sweep started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// A source got a value.
    Set,
    /// A key was invalidated by name.
    Invalidated,
    /// A key was invalidated by name some time before, with a delay: `invalidate_after` or `debounce`.
    Delayed,
    /// A key was removed.
    Removed,
    /// A value's time was over.
    Expired,
    /// A value was computed anew while the old one was served.
    Refreshed,
    /// A value that had been evicted was asked for again, or its dependencies were evicted too.
    Evicted,
    /// Every key of the function was invalidated.
    AllInvalidated,
    /// Everything was invalidated.
    EverythingInvalidated,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Change::Set => "set",
            Change::Invalidated => "invalidated",
            Change::Delayed => "invalidated after a delay",
            Change::Removed => "removed",
            Change::Expired => "expired",
            Change::Refreshed => "refreshed",
            Change::Evicted => "evicted",
            Change::AllInvalidated => "invalidated with all keys of its function",
            Change::EverythingInvalidated => "invalidated with everything",
        })
    }
}

/// Who asked for a commit.
pub(crate) enum By<'a> {
    Caller(Place),
    /// Each root has a place of its own.
    Each(&'a [Place]),
    Timer,
    /// The engine itself: it has no place in the caller's code.
    Engine,
}

impl By<'_> {
    fn place(&self, root: usize) -> Option<Place> {
        match self {
            By::Caller(place) => Some(place),
            By::Each(places) => places.get(root).copied(),
            By::Timer | By::Engine => None,
        }
    }
}

/// One root of one commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) commit: u64,
    pub(crate) place: Option<Place>,
    /// The slot; a function's number for `AllInvalidated`.
    pub(crate) subject: u32,
    pub(crate) version: u32,
    /// `None`: somebody asked for a delayed invalidation, which is a change only when its time has come.
    pub(crate) change: Option<Change>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Entry>() == 32);

/// The ring.
#[derive(Debug)]
pub(crate) struct Origins {
    entries: Vec<Entry>,
    most: usize,
    next: usize,
    /// The latest commit of which a root was overwritten.
    lost: u64,
}

/// The ring at one moment, oldest entry first.
pub(crate) struct Remembered {
    pub(crate) entries: Vec<Entry>,
    /// The latest commit of which something is no longer known.
    pub(crate) lost: u64,
}

/// More than this is a log, not a memory.
const MOST: usize = 1 << 20;

impl Origins {
    /// Room for `most` entries, taken at once so that a commit allocates nothing.
    pub(crate) fn new(most: usize) -> Origins {
        let most = most.min(MOST);
        Origins { entries: Vec::with_capacity(most), most, next: 0, lost: 0 }
    }

    /// Notes a commit's roots. Of more than there is room for, the last stay.
    pub(crate) fn note(&mut self, commit: u64, roots: &[Root], by: &By<'_>) {
        let skipped = roots.len().saturating_sub(self.most);
        if skipped > 0 {
            self.lost = commit;
        }
        for (at, root) in roots.iter().enumerate().skip(skipped) {
            let (subject, version, change) = match *root {
                Root::Stale { slot, version } if matches!(by, By::Timer) => (slot, version, Change::Delayed),
                Root::Stale { slot, version } => (slot, version, Change::Invalidated),
                Root::Set { slot, version, .. } => (slot, version, Change::Set),
                Root::Expired { slot, version, .. } => (slot, version, Change::Expired),
                Root::Replace(ref replacement) => (replacement.slot, replacement.version, Change::Set),
                Root::Consolidate { slot, seen, .. } => (slot, seen.version(), Change::Set),
                Root::Refresh { slot, version, .. } => (slot, version, Change::Refreshed),
                Root::Unsettle { slot, version, .. } => (slot, version, Change::Evicted),
                Root::Forget { slot, version } => (slot, version, Change::Removed),
                Root::Function { id } => (id, 0, Change::AllInvalidated),
                Root::Everything => (0, 0, Change::EverythingInvalidated),
            };
            self.push(Entry { commit, place: by.place(at), subject, version, change: Some(change) });
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() < self.most {
            self.entries.push(entry);
        } else if let Some(old) = self.entries.get_mut(self.next) {
            let gone = std::mem::replace(old, entry);
            self.next = (self.next + 1) % self.most;
            if gone.change.is_some() {
                self.lost = self.lost.max(gone.commit);
            }
        }
    }

    fn remembered(&self) -> Remembered {
        let (newer, older) = self.entries.split_at(self.next);
        Remembered { entries: [older, newer].concat(), lost: self.lost }
    }
}

impl Graph {
    /// A copy of the ring: commits wait for its length, sweeps and readers do not.
    pub(crate) fn remembered(&self) -> Remembered {
        self.sweeper.with_origins(|origins| origins.remembered())
    }

    /// Notes who asked for a delayed invalidation that will count.
    pub(crate) fn note_wish(&self, slot: u32, place: Place) {
        let entry =
            Entry { commit: self.finished_commit(), place: Some(place), subject: slot, version: self.head(slot).version(), change: None };
        self.sweeper.with_origins(|origins| origins.push(entry));
    }
}

impl Remembered {
    /// Where a change was asked for: of a delayed one, where its delay began.
    pub(crate) fn place(&self, at: usize) -> Option<Place> {
        let entry = self.entries.get(at)?;
        let began = || {
            let mine = |wish: &&Entry| wish.subject == entry.subject && wish.version == entry.version;
            self.entries[..at].iter().rev().filter(mine).find(|wish| wish.change.is_none())?.place
        };
        entry.place.or_else(|| if entry.change == Some(Change::Delayed) { began() } else { None })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn noted(most: usize, batches: &[u32]) -> Origins {
        let mut origins = Origins::new(most);
        for (commit, &roots) in (1..).zip(batches) {
            let roots: Vec<_> = (0..roots).map(|slot| Root::Stale { slot, version: 1 }).collect();
            origins.note(commit, &roots, &By::Caller(Location::caller()));
        }
        origins
    }

    #[test]
    fn the_latest_changes_stay_in_order_and_what_was_lost_is_known() {
        let kept = noted(4, &[1, 1, 1]).remembered();
        assert_eq!((kept.entries.len(), kept.lost), (3, 0));
        let kept = noted(4, &[1, 2, 1, 2]).remembered();
        let commits: Vec<_> = kept.entries.iter().map(|entry| entry.commit).collect();
        assert_eq!((commits, kept.lost), (vec![2, 3, 4, 4], 2));
    }

    #[test]
    fn of_a_batch_larger_than_the_ring_the_last_roots_stay() {
        let kept = noted(4, &[1, 9]).remembered();
        let slots: Vec<_> = kept.entries.iter().map(|entry| entry.subject).collect();
        assert!(slots.len() == 4 && slots.contains(&8) && !slots.contains(&4));
        assert_eq!(kept.lost, 2);
    }

    #[test]
    fn an_engine_may_remember_nothing() {
        let kept = noted(0, &[1]).remembered();
        assert_eq!((kept.entries.len(), kept.lost), (0, 1));
    }

    #[test]
    fn a_delayed_invalidation_is_told_by_where_its_delay_began() {
        let mut origins = Origins::new(8);
        let place = Location::caller();
        origins.push(Entry { commit: 0, place: Some(place), subject: 7, version: 1, change: None });
        origins.note(1, &[Root::Stale { slot: 7, version: 1 }, Root::Expired { slot: 8, version: 1, now: 0 }], &By::Timer);
        let kept = origins.remembered();
        assert_eq!((kept.place(1), kept.place(2)), (Some(place), None));
        assert_eq!(kept.entries[1].change, Some(Change::Delayed));
    }
}
