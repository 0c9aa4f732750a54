//! Nodes around a node, for people: what they are called, in what state they are and who depends on them.
//!
//! Whoever asks takes the locks that statistics take, a node at a time, and walks within a budget.

use std::collections::HashSet;
use std::fmt;

use crate::edge::generation;
use crate::graph::Graph;
use crate::node::{HAS_VALUE, Head, State, made_at};
use crate::read::{NodeId, node_id};
use crate::sync::atomic::Ordering;

/// A node as it is shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct NodeLabel {
    /// The node. A removed one's id names nothing any more.
    pub id: NodeId,
    /// Its function's name.
    pub function: String,
    /// Its key, if the function can print its keys and the node is still there.
    pub key: Option<String>,
}

impl fmt::Display for NodeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}({key})", self.function),
            None => write!(f, "{}#{}v{}", self.function, self.id.slot(), self.id.version()),
        }
    }
}

/// Where a node's value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// Served as it is.
    Fresh,
    /// Something that was read for it has changed, or it was invalidated itself: the next read computes it.
    Stale,
    /// Something further down has changed: the next read verifies it, and computes it if that reached it.
    MaybeStale,
    /// Somebody computes or verifies it right now.
    Computing,
    /// Its value was evicted; what was made from it still stands.
    Evicted,
    /// The key has a node without a value.
    Absent,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Condition::Fresh => "fresh",
            Condition::Stale => "stale",
            Condition::MaybeStale => "maybe stale",
            Condition::Computing => "being computed",
            Condition::Evicted => "evicted",
            Condition::Absent => "absent",
        })
    }
}

impl Condition {
    pub(crate) fn of(head: Head) -> Condition {
        match head.state() {
            State::Consistent => Condition::Fresh,
            State::Stale => Condition::Stale,
            State::Pending => Condition::MaybeStale,
            State::Computing | State::Verifying | State::Publishing => Condition::Computing,
            State::Evicted => Condition::Evicted,
            State::Empty => Condition::Absent,
        }
    }
}

/// Edges of one list that are looked at.
const LISTED: usize = 1 << 16;
/// Dependencies that a scan of the whole graph looks at.
const SCANNED: usize = 1 << 22;

impl Graph {
    /// The last commit that had begun when the slot's value was made; `None` without a value.
    pub(crate) fn made(&self, slot: u32) -> Option<u64> {
        // Acquire: the owner before the one of now has released them with the head.
        let flags = self.warm(slot).flags.load(Ordering::Acquire);
        (flags & HAS_VALUE != 0).then(|| made_at(flags, self.finished_commit().max(self.begun_commit())))
    }

    pub(crate) fn label(&self, slot: u32, version: u32) -> NodeLabel {
        let function = self.function(slot);
        NodeLabel { id: node_id(slot, version), key: function.key_text(self, slot, version), function: function.name().to_owned() }
    }

    /// Whether the id names a node that is there.
    pub(crate) fn has_node(&self, id: NodeId) -> bool {
        self.columns.contains(id.slot()) && self.head(id.slot()).is_live() && self.head(id.slot()).version() == id.version()
    }

    /// The slots whose values were made from the given ones, as (dependant, dependency), some of them twice, and whether that is all.
    ///
    /// A mark carries off the list that led to it, so a dependant that is not fresh is found only by what it recorded: a scan, once for
    /// all that are asked about. Beyond the scan's budget there are still those who are in the lists.
    pub(crate) fn dependants(&self, of: &[u32]) -> (Vec<(u32, u32)>, bool) {
        let mut found = Vec::new();
        for &slot in of {
            // Acquire: as every look at a row that is not ours.
            let live = |slot: u32| generation(self.row(slot).rev.load(Ordering::Acquire));
            let edges = self.edges.first(&self.row(slot).rev, LISTED);
            found.extend(edges.iter().filter(|edge| live(edge.slot) == edge.generation).map(|edge| (edge.slot, slot)));
        }
        let all = self.scan(&of.iter().copied().collect(), &mut found);
        (found, all)
    }

    /// Adds everybody who recorded one of the slots as a dependency; `false` if the budget was too small.
    fn scan(&self, of: &HashSet<u32>, found: &mut Vec<(u32, u32)>) -> bool {
        let mut left = SCANNED;
        for function in self.all_functions().iter().filter(|function| !function.is_source()) {
            for slot in function.slots() {
                let len = self.with_deps(slot, |deps| {
                    found.extend(deps.take(left).filter(|dep| of.contains(&dep.slot)).map(|dep| (slot, dep.slot)));
                });
                match left.checked_sub(len.max(1)) {
                    Some(rest) => left = rest,
                    None => return false,
                }
            }
        }
        true
    }
}
