//! `why`: what a node's state comes from, in data and in words.

use std::fmt;

use crate::engine::Engine;
use crate::graph::Graph;
use crate::handle::{CommitId, Handle};
use crate::key::{Key, Lookup};
use crate::neighbour::{Condition, NodeLabel};
use crate::node::AGAIN;
use crate::read::{NodeId, node_id};
use crate::sync::atomic::Ordering;
use crate::trace::{Causes, Memory};
use crate::value::Value;

/// Why a node is as it is: see [`Handle::why`]. `Display` tells it in words.
///
/// What was true when it was asked for; readers and commits went on meanwhile.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Why {
    /// The node.
    pub node: NodeLabel,
    /// Whether its values are set from outside.
    pub is_source: bool,
    /// Where its value stands.
    pub condition: Condition,
    /// The last finished commit when this was asked.
    pub commit: CommitId,
    /// The last commit that had begun when its value was made; `None` without a value.
    pub made: Option<CommitId>,
    /// Whether there was a value before this one. Not so after the first read, nor after the last value was dropped.
    pub again: bool,
    /// Why the value is not fresh.
    pub stale: Causes,
    /// Why the value was made again when there was one: the latest changes below it by then. Empty for a first value.
    pub recomputed: Causes,
    /// What it was made from, in the order it was read.
    pub dependencies: Neighbours,
    /// What was made from it.
    pub dependants: Neighbours,
}

/// The nodes next to one.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Neighbours {
    /// The first of them.
    pub list: Vec<NodeLabel>,
    /// How many there are.
    pub total: usize,
    /// There are more than were counted.
    pub at_least: bool,
}

/// Neighbours that are listed.
const LISTED: usize = 16;

impl<K: Key, V: Value> Handle<K, V> {
    /// Why the key's value is as it is: whether and from which change it is stale, what made it run last, what it depends on and what
    /// depends on it. `None` if the key has no node.
    ///
    /// For people and logs: it walks the graph within a budget, without stopping readers, and computes nothing.
    ///
    /// ```
    /// # use wellspring::{Cx, Engine};
    /// # let engine = Engine::new();
    /// let price = engine.source("price", |_: &u32| 100_u64)?;
    /// let prices = price.clone();
    /// let double = engine.function("double", move |cx: &Cx, id: &u32| prices.get(cx, id).unwrap_or(0) * 2)?;
    /// double.get(&engine, &7)?;
    /// price.set(&7, 150);
    /// let why = double.why(&7).ok_or("no node")?;
    /// println!("{why}");
    /// // double(7) is stale
    /// //   its value is from commit 0, 1 commit ago
    /// //   stale because
    /// //     commit 1: price(7) set at src/main.rs:9:7 -> double(7)
    /// //   depends on 1: price(7)
    /// //   nothing depends on it
    /// assert!(why.to_string().contains("price(7) set at"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn why<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> Option<Why> {
        let (slot, version) = self.data.find(&self.graph, self.hash(key), key)?;
        self.graph.why(node_id(slot, version))
    }
}

impl Engine {
    /// [`Handle::why`] for a node by its id. `None` if it is not there any more.
    pub fn why(&self, node: NodeId) -> Option<Why> {
        self.graph().why(node)
    }
}

impl Graph {
    fn why(&self, node: NodeId) -> Option<Why> {
        if !self.has_node(node) {
            return None;
        }
        let slot = node.slot();
        let label = self.label(slot, node.version());
        let head = self.head(slot);
        let made = self.made(slot);
        // Acquire: as in `made`.
        let again = made.is_some() && self.warm(slot).flags.load(Ordering::Acquire) & AGAIN != 0;
        // After the head: the change that marked it is remembered by now.
        let memory = Memory::new(self.remembered());
        let commit = self.finished_commit();
        let condition = Condition::of(head);
        let (mut stale, mut recomputed) = (Causes::default(), Causes::default());
        if let Some(made) = made {
            if condition != Condition::Fresh {
                stale = self.why_stale(&memory, slot, made);
            }
            if again {
                recomputed = self.why_made(&memory, slot, made);
            }
        }
        let (first, total) = self.first_deps(slot, LISTED);
        let dependencies = self.neighbours(first.iter().map(|dep| dep.slot), total, false);
        let (mut found, all) = self.dependants(&[slot]);
        found.sort_unstable();
        found.dedup();
        let dependants = self.neighbours(found.iter().take(LISTED).map(|&(dependant, _)| dependant), found.len(), !all);
        let is_source = self.function(slot).is_source();
        let (commit, made) = (CommitId(commit), made.map(CommitId));
        Some(Why { node: label, is_source, condition, commit, made, again, stale, recomputed, dependencies, dependants })
    }

    fn neighbours(&self, first: impl Iterator<Item = u32>, total: usize, at_least: bool) -> Neighbours {
        Neighbours { list: first.map(|slot| self.label(slot, self.head(slot).version())).collect(), total, at_least }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.node, self.condition)?;
        if let Some(made) = self.made {
            let ago = self.commit.get().saturating_sub(made.get());
            let commits = if ago == 1 { "commit" } else { "commits" };
            write!(f, "\n  its value is from commit {}, {ago} {commits} ago", made.get())?;
            if self.condition != Condition::Fresh {
                write_causes(f, if self.condition == Condition::Computing { "being computed" } else { "stale" }, &self.stale)?;
            }
            if self.again {
                write_causes(f, if self.is_source { "changed last" } else { "recomputed last" }, &self.recomputed)?;
            }
        }
        match self.dependencies.total {
            0 => f.write_str("\n  depends on nothing")?,
            total => write_list(f, &format!("depends on {total}"), &self.dependencies)?,
        }
        match (self.dependants.total, self.dependants.at_least) {
            (0, false) => f.write_str("\n  nothing depends on it"),
            (1, false) => write_list(f, "1 depends on it", &self.dependants),
            (total, at_least) => {
                let bound = if at_least { "at least " } else { "" };
                write_list(f, &format!("{bound}{total} depend on it"), &self.dependants)
            }
        }
    }
}

fn write_causes(f: &mut fmt::Formatter<'_>, what: &str, causes: &Causes) -> fmt::Result {
    write!(f, "\n  {what} because")?;
    for cause in &causes.list {
        write!(f, "\n    {cause}")?;
    }
    if causes.more > 0 {
        write!(f, "\n    and of {} more changes", causes.more)?;
    }
    if causes.cut {
        write!(f, "\n    perhaps of more: too much lies below it to look at all")?;
    }
    match (causes.list.is_empty(), causes.forgotten) {
        (true, true) => f.write_str("\n    of a change that is no longer known: raise `remember_changes`"),
        (false, true) => f.write_str("\n    perhaps of earlier changes that are no longer known"),
        (true, false) => {
            f.write_str("\n    of nothing that is in its dependencies of now: one that was read before, or a result that was not kept")
        }
        (false, false) => Ok(()),
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, title: &str, nodes: &Neighbours) -> fmt::Result {
    write!(f, "\n  {title}:")?;
    for (at, node) in nodes.list.iter().enumerate() {
        write!(f, "{} {node}", if at == 0 { "" } else { "," })?;
    }
    match nodes.total.saturating_sub(nodes.list.len()) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}
