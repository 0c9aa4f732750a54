//! From a node back to the changes that reached it: a walk over recorded dependencies down to roots that are still remembered.
//!
//! Which of a stale node's dependencies it was is told by epochs: a dependency that is consistent at the epoch recorded has not been
//! marked since, so nothing came from there. The commit in the value's flags says which changes the value has seen.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::Location;

use crate::graph::Graph;
use crate::handle::CommitId;
use crate::neighbour::NodeLabel;
use crate::origin::{Change, Remembered};

/// One change that reached a node, and the way it took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cause {
    /// The commit: the number its caller got.
    pub commit: CommitId,
    /// What was done.
    pub change: Change,
    /// Where it was asked for; `None` if the engine's own clock did it.
    pub place: Option<&'static Location<'static>>,
    /// From what was changed to the node that was asked about, each made from the one before.
    pub path: Vec<NodeLabel>,
    /// Nodes of a long path that are not shown, in the middle of it.
    pub left_out: usize,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {}: ", self.commit.get())?;
        let (root, rest) = self.path.split_first().map_or((None, &[][..]), |(root, rest)| (Some(root), rest));
        if let Some(root) = root {
            write!(f, "{root} ")?;
        }
        write!(f, "{}", self.change)?;
        if let Some(place) = self.place {
            write!(f, " at {place}")?;
        }
        for (at, node) in (1..).zip(rest) {
            if at == SHOWN / 2 && self.left_out > 0 {
                write!(f, " -> ({} more)", self.left_out)?;
            }
            write!(f, " -> {node}")?;
        }
        Ok(())
    }
}

/// The changes that explain a node's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Causes {
    /// The first of them, in the order of their commits.
    pub list: Vec<Cause>,
    /// How many more there are.
    pub more: usize,
    /// Changes that may belong here are no longer known: the engine remembers the latest ones only.
    pub forgotten: bool,
    /// The walk ended at its budget: there may be more.
    pub cut: bool,
}

/// Causes that are listed.
const LISTED: usize = 8;
/// Nodes of a path that are shown.
const SHOWN: usize = 32;
/// Nodes and dependencies that a walk looks at.
const NODES: usize = 1 << 17;
const EDGES: usize = 1 << 21;

/// What is remembered, by what it was done to.
pub(crate) struct Memory {
    remembered: Remembered,
    by_slot: HashMap<u32, Vec<usize>, ahash::RandomState>,
    by_function: HashMap<u32, Vec<usize>, ahash::RandomState>,
    everything: Vec<usize>,
}

impl Memory {
    pub(crate) fn new(remembered: Remembered) -> Memory {
        let (mut by_slot, mut by_function, mut everything) =
            (HashMap::<_, Vec<_>, _>::default(), HashMap::<_, Vec<_>, _>::default(), vec![]);
        for (at, entry) in remembered.entries.iter().enumerate() {
            match entry.change {
                None => {}
                Some(Change::EverythingInvalidated) => everything.push(at),
                Some(Change::AllInvalidated) => by_function.entry(entry.subject).or_default().push(at),
                Some(_) => by_slot.entry(entry.subject).or_default().push(at),
            }
        }
        Memory { remembered, by_slot, by_function, everything }
    }

    fn commit(&self, entry: usize) -> u64 {
        self.remembered.entries[entry].commit
    }

    /// Everything remembered that was done to the node in the slot. A removal counts whoever lives there now: the slot's former
    /// tenant may be what was read.
    fn of<'m>(&'m self, graph: &Graph, slot: u32) -> impl Iterator<Item = usize> + 'm {
        let version = graph.head(slot).version();
        let meant = move |entry: &usize| {
            let entry = &self.remembered.entries[*entry];
            entry.version == version || entry.change == Some(Change::Removed)
        };
        let slots = self.by_slot.get(&slot).into_iter().flatten().copied().filter(meant);
        let functions = self.by_function.get(&graph.columns.owner(slot)).into_iter().flatten().copied();
        slots.chain(functions).chain(self.everything.iter().copied())
    }
}

struct Step {
    slot: u32,
    /// The step whose dependency this is.
    from: usize,
    /// Its dependencies' epochs say nothing: what was asked about has not seen the node as it is now.
    loose: bool,
    /// Only changes after this commit can have marked it as it is; `None`: any.
    after: Option<u64>,
    /// A remembered change was done to it, or another step has met a dependency of it first.
    explained: bool,
}

/// A walk's findings: remembered changes, each at the first step that met it.
struct Walk {
    steps: Vec<Step>,
    met: Vec<(usize, usize)>,
    cut: bool,
}

impl Walk {
    /// Breadth first, so that paths are as short as they can be. `loose` goes everywhere.
    fn new(graph: &Graph, memory: &Memory, slot: u32, loose: bool, after: Option<u64>) -> Walk {
        let mut walk = Walk { steps: vec![Step { slot, from: 0, loose, after, explained: false }], met: Vec::new(), cut: false };
        let (mut seen, mut told) = (HashSet::<u32, ahash::RandomState>::default(), HashSet::new());
        seen.insert(slot);
        let (mut at, mut left) = (0, EDGES);
        while at < walk.steps.len() {
            let Step { slot, loose, after, from, .. } = walk.steps[at];
            let is_removal = |entry: usize| memory.remembered.entries[entry].change == Some(Change::Removed);
            // The value in the slot is the next tenant's: it says nothing about when the former one was removed.
            let since = |entry| if is_removal(entry) { walk.steps[from].after } else { after };
            let counts = |&entry: &usize| since(entry).is_none_or(|after| memory.commit(entry) > after);
            let mut here: Vec<_> = memory.of(graph, slot).filter(counts).collect();
            let removed = here.iter().copied().find(|&entry| is_removal(entry));
            let gone = removed.filter(|_| after.is_some());
            if let Some(entry) = gone {
                // What was read is gone, and what happened to the slot's next tenant is another story.
                here = vec![entry];
            }
            walk.steps[at].explained = !here.is_empty();
            walk.met.extend(here.into_iter().filter(|&entry| told.insert(entry)).map(|entry| (entry, at)));
            if gone.is_some() {
                at += 1;
                continue;
            }
            let Walk { steps, cut, .. } = &mut walk;
            let len = graph.with_deps(slot, |deps| {
                for dep in deps.take(left) {
                    let head = graph.head(dep.slot);
                    let settled = head.is_live() && head.is_consistent() && head.epoch() == dep.epoch;
                    if settled && !loose {
                        continue;
                    }
                    if !seen.insert(dep.slot) {
                        steps[at].explained = true;
                        continue;
                    }
                    if steps.len() == NODES {
                        *cut = true;
                        break;
                    }
                    let loose = loose || head.is_consistent();
                    // What is marked has seen every change up to its own value's commit: something later has marked it.
                    let after = if loose { after } else { after.max(after.and_then(|_| graph.made(dep.slot))) };
                    steps.push(Step { slot: dep.slot, from: at, loose, after, explained: false });
                }
            });
            *cut |= len > left;
            left = left.saturating_sub(len);
            at += 1;
        }
        walk
    }

    /// Whether a node that was certainly marked, or computed since it was read, has no remembered change in it or below it.
    fn is_lacking(&self) -> bool {
        let mut explained: Vec<bool> = self.steps.iter().map(|step| step.explained).collect();
        // A step comes after the one it was met from.
        for (at, step) in self.steps.iter().enumerate().rev() {
            explained[step.from] |= explained[at];
        }
        let certain = |step: &Step, at: usize| !step.loose || at == 0 || !self.steps[step.from].loose;
        self.steps.iter().enumerate().any(|(at, step)| !explained[at] && certain(step, at))
    }

    fn path(&self, graph: &Graph, memory: &Memory, (entry, step): (usize, usize)) -> (Vec<NodeLabel>, usize) {
        let mut at = step;
        let mut steps = vec![at];
        while at != 0 {
            at = self.steps[at].from;
            steps.push(at);
        }
        let left_out = steps.len().saturating_sub(SHOWN);
        let middle = SHOWN.min(steps.len()) / 2;
        steps.drain(middle..middle + left_out);
        let removed = memory.remembered.entries[entry].change == Some(Change::Removed);
        let label = |&at: &usize| {
            let slot = self.steps[at].slot;
            let version = if removed && at == step { memory.remembered.entries[entry].version } else { graph.head(slot).version() };
            graph.label(slot, version)
        };
        (steps.iter().map(label).collect(), left_out)
    }

    fn causes(&self, graph: &Graph, memory: &Memory, mut met: Vec<(usize, usize)>, forgotten: bool) -> Causes {
        met.sort_by_key(|&(entry, _)| entry);
        let more = met.len().saturating_sub(LISTED);
        let list = met.into_iter().take(LISTED).filter_map(|found| {
            let entry = memory.remembered.entries[found.0];
            let (path, left_out) = self.path(graph, memory, found);
            Some(Cause { commit: CommitId(entry.commit), change: entry.change?, place: memory.remembered.place(found.0), path, left_out })
        });
        Causes { list: list.collect(), more, forgotten, cut: self.cut }
    }
}

impl Graph {
    /// Why a value that was made at the commit `made` is stale.
    pub(crate) fn why_stale(&self, memory: &Memory, slot: u32, made: u64) -> Causes {
        let walk = Walk::new(self, memory, slot, false, Some(made));
        let forgotten = memory.remembered.lost > made && walk.is_lacking();
        if !walk.met.is_empty() || forgotten {
            return walk.causes(self, memory, walk.met.clone(), forgotten);
        }
        // The value was made while the sweep went on that marked it in the end.
        let walk = Walk::new(self, memory, slot, false, None);
        walk.causes(self, memory, latest(memory, &walk.met, made), false)
    }

    /// Why the value that was made at the commit `made` was not served from the cache: the latest change below it by then.
    ///
    /// By the dependencies of now: a change of something that was read for the value before and not for this one is not found.
    pub(crate) fn why_made(&self, memory: &Memory, slot: u32, made: u64) -> Causes {
        let walk = Walk::new(self, memory, slot, true, None);
        let met = latest(memory, &walk.met, made);
        let forgotten = met.is_empty() && memory.remembered.lost > 0;
        walk.causes(self, memory, met, forgotten)
    }
}

/// What belongs to the latest commit that is not after `until`.
fn latest(memory: &Memory, met: &[(usize, usize)], until: u64) -> Vec<(usize, usize)> {
    let commits = met.iter().map(|&(entry, _)| memory.commit(entry));
    let Some(last) = commits.filter(|&commit| commit <= until).max() else { return Vec::new() };
    met.iter().copied().filter(|&(entry, _)| memory.commit(entry) == last).collect()
}
