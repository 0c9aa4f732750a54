//! The end of a flight: edges first, then the value, then the head. The owner of `Publishing` alone writes the columns.

use crate::deps::{Dep, DepList, UNSTORED};
use crate::edge::{Edge, generation};
use crate::graph::Graph;
use crate::node::{DOOMED, DOOMED_MAYBE, HAS_VALUE, Head, State, WAITERS, value_flags};
use crate::sync::atomic::Ordering;
use crate::sync::fault;

/// What a flight brings to the node.
pub(crate) enum Outcoming {
    /// Equal to the value already there: that one stays, and so does its `changed` epoch.
    Equal,
    /// A new value word.
    Changed(u64),
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// In the node. `consistent` is false when a commit fell into the flight.
    Stored { consistent: bool, waiters: bool },
    /// The node belongs to a newer flight, or is gone.
    Superseded,
}

/// What became of a dependency since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Unchanged, and the edge is in its list at this epoch.
    Linked(u32),
    /// Marked, perhaps without a change: to be verified.
    Maybe,
    /// Changed, gone, or read from a result that was never stored.
    Changed,
}

impl Graph {
    /// Publishes a flight's result. `made` is the commit it began at; `owned` may write other columns of the node, and gets the old value
    /// word if that is replaced.
    pub(crate) fn publish(
        &self,
        slot: u32,
        flight: Head,
        deps: &[Dep],
        result: Outcoming,
        made: u64,
        owned: impl FnOnce(Option<u64>),
    ) -> Published {
        let Some(mut now) = self.own(slot, flight) else { return Published::Superseded };
        self.reach("publish:owned", slot);
        let standing = self.relink(slot, deps);
        self.reach("publish:linked", slot);
        let (row, warm) = (self.row(slot), self.warm(slot));
        let mut replaced = None;
        // Relaxed (flags): this owner's predecessor released them with the head, and so will this one.
        let flags = warm.flags.load(Ordering::Relaxed);
        let had = flags & HAS_VALUE != 0;
        if let Outcoming::Changed(word) = result {
            let old = row.value.load(Ordering::Relaxed);
            // Release: a reader that meets the new word meets the head that says `Publishing`, and its re-check fails.
            row.value.store(word, Ordering::Release);
            // Release: `changed` is read beside a head loaded earlier.
            warm.changed.store(flight.epoch(), Ordering::Release);
            warm.flags.store(value_flags(flags, made), Ordering::Relaxed);
            replaced = had.then_some(old);
        } else if had {
            warm.flags.store(value_flags(flags, made), Ordering::Relaxed);
        }
        owned(replaced);
        loop {
            let state = if now.has(DOOMED) && !fault!("missed_doom") || standing == Standing::Changed {
                State::Stale
            } else if now.has(DOOMED_MAYBE) && !fault!("missed_maybe_doom") || standing == Standing::Maybe {
                State::Pending
            } else {
                State::Consistent
            };
            match self.swing(slot, now, Head::new(state, now.version(), now.epoch())) {
                Ok(()) => return Published::Stored { consistent: state == State::Consistent, waiters: now.has(WAITERS) },
                // Only flags can have come: nobody else moves a `Publishing` head.
                Err(other) => now = other,
            }
        }
    }

    /// `Computing` -> `Publishing`, unless the flight was superseded.
    fn own(&self, slot: u32, flight: Head) -> Option<Head> {
        let mut now = flight;
        loop {
            let to = now.in_state(State::Publishing);
            match self.swing(slot, now, to) {
                Ok(()) => return Some(to),
                Err(other) if other.same_flight(flight) => now = other,
                Err(_) => return None,
            }
        }
    }

    /// Makes the node's recorded dependencies its dependency list, with one live edge in the list of each.
    ///
    /// An unchanged prefix writes nothing: as long as a dependency's head shows the epoch our list has for it, the edge is
    /// where it was, because every mark that takes a list is followed by a new epoch.
    pub(crate) fn relink(&self, slot: u32, deps: &[Dep]) -> Standing {
        let warm = self.warm(slot);
        let old = warm.deps.load(Ordering::Acquire);
        if old.is_null() && deps.is_empty() {
            return Standing::Linked(0);
        }
        // SAFETY: [owned-deps] lists are replaced and retired only by the owner of `Publishing`, which is this thread.
        let old_list = unsafe { DepList::borrow(old) };
        let old_len = old_list.map_or(0, DepList::len);
        let grown = old_list.is_none_or(|list| list.len() <= deps.len() && list.iter().zip(deps).all(|(old, new)| old.slot == new.slot));
        let generation =
            if grown { generation(self.row(slot).rev.load(Ordering::Relaxed)) } else { self.edges.next_generation(&self.row(slot).rev) };
        let durable = self.durability.now();
        let mut standing = Standing::Linked(0);
        let mut renewed = smallvec::SmallVec::<[Dep; 16]>::new();
        for (index, &dep) in deps.iter().enumerate() {
            let known = if grown && index < old_len { old_list.and_then(|list| list.get(index)) } else { None };
            let found = self.link(slot, generation, dep, known.map(|known| known.epoch));
            let epoch = match found {
                Standing::Linked(epoch) => epoch,
                Standing::Maybe | Standing::Changed => dep.epoch,
            };
            if found == Standing::Changed || (found == Standing::Maybe && standing != Standing::Changed) {
                standing = found;
            }
            let dep = Dep { slot: dep.slot, epoch };
            match (old_list, grown && old_len == deps.len()) {
                (Some(list), true) => {
                    if known != Some(dep) {
                        list.renew(index, dep);
                    }
                }
                _ => renewed.push(dep),
            }
        }
        if !(grown && old_len == deps.len()) {
            let fresh = DepList::leak(&renewed, |slot| self.has_durable(slot));
            // Release: whoever sees the pointer sees the list.
            warm.deps.store(fresh, Ordering::Release);
            if !old.is_null() {
                // SAFETY: [owned-deps] the pointer came from `leak` and is out of the column; readers hold pins.
                self.collector.retire(unsafe { DepList::retire(old) });
            }
        }
        // SAFETY: [owned-deps] as above: the list that is in the column now.
        if let Some(list) = unsafe { DepList::borrow(warm.deps.load(Ordering::Relaxed)) } {
            list.settle(if matches!(standing, Standing::Linked(_)) { durable } else { 0 });
        }
        standing
    }

    /// Puts one edge into the dependency's list, unless it is there (`known` = our list's epoch for it) or has moved on.
    pub(crate) fn link(&self, slot: u32, generation: u32, dep: Dep, known: Option<u32>) -> Standing {
        if let Some(known) = known {
            let head = self.head_after_mark(dep.slot);
            if head.is_settled() && (head.epoch() == known || fault!("prefix_trusted")) && self.unchanged(dep) {
                // A mark from here on finds the edge in the list and meets this node `Publishing` or `Verifying`.
                return Standing::Linked(known);
            }
        }
        self.edges.append(&self.columns, dep.slot, Edge { slot, generation }, || {
            let head = self.head(dep.slot);
            if !head.is_live() || !self.unchanged(dep) {
                return Err(Standing::Changed);
            }
            if head.is_settled() || fault!("skipped_closed_check") { Ok(Standing::Linked(head.epoch())) } else { Err(Standing::Maybe) }
        })
    }

    /// Whether the dependency's value is still the one that was read.
    #[inline]
    pub(crate) fn unchanged(&self, dep: Dep) -> bool {
        // Acquire: pairs with the Release store in `publish`.
        dep.epoch != UNSTORED && self.warm(dep.slot).changed.load(Ordering::Acquire) <= dep.epoch
    }
}
