//! Durable sources: what changes rarely is not looked at when a value is verified.
//!
//! Marks are pushed, so a dependency that no sweep has reached costs a verification two loads and no more; but those are two lines
//! of memory, and a value made from a hundred rows of configuration has two hundred of them. A dependency list with durable sources in
//! it carries a stamp: the number of durable changes when all its edges were last found in place. While the number is the same, none
//! of those edges was taken and none of those values has changed.
//!
//! The number is odd while the sweeper changes a durable source, and a stamp is never odd. A verification claims its node and then
//! reads the number; the sweeper raises the number and then looks at the node, which is in the list it took. So either the
//! verification sees the new number or the sweeper meets the claim, and marks it: the pair of `head_after_mark`, once more.

use crate::graph::Graph;
use crate::node::DURABLE;
use crate::sweep::Root;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::in_total_order;

/// Twice the changes of durable sources, and one while a change is under way. 0: there are no durable sources.
#[derive(Debug, Default)]
pub(crate) struct Durability(AtomicU64);

impl Durability {
    /// A durable source is about to be registered.
    pub(crate) fn begin(&self) {
        // Relaxed: whoever changes or reads the source got its handle from the registration.
        let _ = self.0.compare_exchange(0, 2, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The number as it is after the caller has claimed its node.
    pub(crate) fn now(&self) -> u64 {
        in_total_order();
        // SeqCst: after the claim; see above.
        self.0.load(Ordering::SeqCst)
    }

    /// The sweeper's, before and after it changes a durable source.
    pub(crate) fn step(&self) {
        // SeqCst: before the fence of the level that looks at the dependants.
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Graph {
    /// Whether a sweep that starts here changes or forgets durable sources.
    pub(crate) fn is_durable(&self, root: &Root) -> bool {
        // Relaxed: 0 once and for all, or set before the root's source was registered.
        if self.durability.0.load(Ordering::Relaxed) == 0 {
            return false;
        }
        match *root {
            Root::Stale { slot, .. }
            | Root::Set { slot, .. }
            | Root::Consolidate { slot, .. }
            | Root::Expired { slot, .. }
            | Root::Refresh { slot, .. }
            | Root::Unsettle { slot, .. }
            | Root::Forget { slot, .. } => self.function(slot).is_durable(),
            Root::Replace(ref new) => self.function(new.slot).is_durable(),
            Root::Function { id } => self.all_functions().get(id as usize).is_some_and(|function| function.is_durable()),
            Root::Everything => true,
        }
    }

    /// Whether a node that was just read is a durable source's.
    pub(crate) fn has_durable(&self, slot: u32) -> bool {
        // Relaxed: written at the node's birth, before the head through which it was found.
        self.warm(slot).flags.load(Ordering::Relaxed) & DURABLE != 0
    }
}
