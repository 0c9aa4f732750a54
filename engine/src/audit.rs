//! The validator: the whole graph against its invariants. Numbers are those of DESIGN.md.

use std::collections::{HashMap, HashSet};

use crate::deps::{Dep, DepList};
use crate::edge::generation;
use crate::graph::Graph;
use crate::node::{HAS_VALUE, State};
use crate::sync::atomic::Ordering;

impl Graph {
    fn deps_of(&self, slot: u32) -> Vec<Dep> {
        self.first_deps(slot, usize::MAX).0
    }

    /// The node's first `most` dependencies, and how many there are.
    pub(crate) fn first_deps(&self, slot: u32, most: usize) -> (Vec<Dep>, usize) {
        let mut first = Vec::new();
        let len = self.with_deps(slot, |deps| first.extend(deps.take(most)));
        (first, len)
    }

    /// Shows the node's dependencies, in a section; how many there are.
    pub(crate) fn with_deps(&self, slot: u32, see: impl FnOnce(&mut dyn Iterator<Item = Dep>)) -> usize {
        let _pin = self.collector.section();
        // SAFETY: [pinned-deps] read under the pin above.
        let Some(list) = (unsafe { DepList::borrow(self.warm(slot).deps.load(Ordering::Acquire)) }) else { return 0 };
        see(&mut list.iter());
        list.len()
    }

    fn settled_deps_of(&self, slot: u32) -> Vec<Dep> {
        let _pin = self.collector.section();
        let now = self.durability.now();
        // SAFETY: [pinned-deps] read under the pin above.
        unsafe { DepList::borrow(self.warm(slot).deps.load(Ordering::Acquire)) }.map_or_else(Vec::new, |list| list.settled(now).collect())
    }

    /// (live, stale) reverse edges.
    pub(crate) fn count_edges(&self) -> (usize, usize) {
        let (mut live, mut stale) = (0, 0);
        for (first, _) in self.columns.chunks() {
            for slot in first..first + crate::column::CHUNK as u32 {
                for edge in self.edges.list(&self.row(slot).rev) {
                    if generation(self.row(edge.slot).rev.load(Ordering::Acquire)) == edge.generation {
                        live += 1;
                    } else {
                        stale += 1;
                    }
                }
            }
        }
        (live, stale)
    }

    /// Everything that is wrong, in words.
    pub(crate) fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let functions = self.all_functions();
        let live: HashMap<u32, usize> =
            functions.iter().enumerate().flat_map(|(id, function)| function.slots().into_iter().map(move |slot| (slot, id))).collect();
        // One pass over all lists and one over all dependencies, so that a star is checked in linear time.
        let mut depends: HashSet<(u32, u32)> = HashSet::new();
        let mut linked: HashMap<(u32, u32), usize> = HashMap::new();
        for &slot in live.keys() {
            depends.extend(self.deps_of(slot).iter().map(|dep| (slot, dep.slot)));
            for edge in self.edges.list(&self.row(slot).rev) {
                if generation(self.row(edge.slot).rev.load(Ordering::Acquire)) == edge.generation {
                    *linked.entry((edge.slot, slot)).or_default() += 1;
                }
            }
        }
        let named = |slot: u32| format!("node {slot} of `{}` ({:?})", self.function_name(slot), self.head(slot));
        for (&slot, &id) in &live {
            let head = self.head(slot);
            if !head.is_live() {
                wrong.push(format!("I32: {} is in a key table but free", named(slot)));
            }
            if self.columns.owner(slot) as usize != id {
                wrong.push(format!("I32: {} lies in another function's chunk", named(slot)));
            }
            if matches!(head.state(), State::Computing | State::Verifying | State::Publishing) {
                wrong.push(format!("I26: {} is in flight at quiescence", named(slot)));
            }
            let changed = self.warm(slot).changed.load(Ordering::Acquire);
            if changed > head.epoch() {
                wrong.push(format!("I16: {} changed at epoch {changed}, later than its own", named(slot)));
            }
            let list = self.edges.list(&self.row(slot).rev);
            if !head.is_settled() && !list.is_empty() {
                wrong.push(format!("I11: {} is marked but has {} reverse edges", named(slot), list.len()));
            }
            for edge in &list {
                let dependant = self.head(edge.slot);
                if generation(self.row(edge.slot).rev.load(Ordering::Acquire)) != edge.generation {
                    continue;
                }
                if !dependant.is_live() {
                    wrong.push(format!("I12: {} has a live edge to the free slot {}", named(slot), edge.slot));
                } else if !depends.contains(&(edge.slot, slot)) {
                    wrong.push(format!("I10: {} has a live edge to {}, which does not depend on it", named(slot), named(edge.slot)));
                }
            }
            // Relaxed: at quiescence.
            let weight = self.columns.weight(slot).load(Ordering::Relaxed);
            if head.state() == State::Evicted && weight > 0 {
                wrong.push(format!("I29: {} still weighs {weight}", named(slot)));
            }
            if !head.is_consistent() && head.has(crate::node::WATCHED) {
                wrong.push(format!("I34: {} is marked and still says that somebody waits for its mark", named(slot)));
            }
            let deps = self.deps_of(slot);
            if deps.iter().map(|dep| dep.slot).collect::<HashSet<_>>().len() != deps.len() {
                wrong.push(format!("I14: {} has a dependency twice", named(slot)));
            }
            // What a verification would pass over must be right, whatever the node's own state.
            self.audit_deps(slot, &self.settled_deps_of(slot), &linked, &mut wrong);
            if head.is_settled() {
                let has_value = self.warm(slot).flags.load(Ordering::Acquire) & HAS_VALUE != 0;
                if has_value != head.is_consistent() {
                    wrong.push(format!("{} {} a value", named(slot), if has_value { "has" } else { "is without" }));
                }
                self.audit_deps(slot, &deps, &linked, &mut wrong);
            }
        }
        for (first, _) in self.columns.chunks() {
            for slot in (first..first + crate::column::CHUNK as u32).filter(|slot| !live.contains_key(slot)) {
                if self.head(slot).is_live() {
                    wrong.push(format!("{} is live but in no key table", named(slot)));
                }
                if !self.edges.list(&self.row(slot).rev).is_empty() {
                    wrong.push(format!("I12: the free slot {slot} has reverse edges"));
                }
            }
        }
        let mut shared = 0;
        for function in &functions {
            let (counted, own) = function.recount(self);
            shared += counted;
            if let Some((used, counted)) = own.filter(|(used, counted)| used != counted) {
                wrong.push(format!("I29: `{}` has {used} in use by its capacity, and its nodes cost {counted}", function.name()));
            }
        }
        if let Some(used) = self.budget.as_deref().map(crate::capacity::Budget::used).filter(|&used| used != shared) {
            wrong.push(format!("I29: the engine has {used} in use by its capacity, and its nodes cost {shared}"));
        }
        if self.flights.len() > 0 {
            wrong.push(format!("I26: {} flight records or waits are left", self.flights.len()));
        }
        for (slot, epoch) in self.watchers.places() {
            let head = self.head(slot);
            if !head.is_consistent() || head.epoch() != epoch || !head.has(crate::node::WATCHED) {
                wrong.push(format!("I34: a watcher of epoch {epoch} waits on node {slot}, which will not tell it: {head:?}"));
            }
        }
        wrong
    }

    fn audit_deps(&self, slot: u32, deps: &[Dep], linked: &HashMap<(u32, u32), usize>, wrong: &mut Vec<String>) {
        for dep in deps {
            let head = self.head(dep.slot);
            if !head.is_settled() || head.epoch() != dep.epoch {
                wrong.push(format!(
                    "I8: node {slot} is consistent or has a stamp, but its dependency {} is {head:?} (read at epoch {})",
                    dep.slot, dep.epoch
                ));
                continue;
            }
            let count = linked.get(&(slot, dep.slot)).copied().unwrap_or(0);
            if count != 1 {
                wrong.push(format!("I9: node {slot} has {count} live edges in the list of {}, not one", dep.slot));
            }
        }
    }
}
