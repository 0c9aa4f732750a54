//! The graph as JSON and as Graphviz DOT: all of it or a neighbourhood, never more than was asked for.

use std::collections::HashSet;
use std::fmt;
use std::io;

use crate::engine::Engine;
use crate::graph::Graph;
use crate::neighbour::Condition;
use crate::picture::{Line, Picture, Shown};
use crate::read::NodeId;
use crate::sync::Arc;

/// The graph as it is written by [`json`](Export::json) and [`dot`](Export::dot): see [`Engine::export`].
#[derive(Clone)]
#[must_use = "an export is written by `json` or `dot`"]
pub struct Export {
    graph: Arc<Graph>,
    around: Option<(NodeId, usize)>,
    nodes: usize,
    edges: usize,
}

impl Engine {
    /// The graph as JSON or Graphviz DOT: all of it, or what is around one node. Readers and commits go on meanwhile, so that two
    /// nodes may be shown as they were at different moments.
    ///
    /// ```
    /// # use wellspring::{Cx, Engine};
    /// # let engine = Engine::new();
    /// let one = engine.function("one", |_: &Cx, _: &()| 1_u64)?;
    /// let two = engine.function("two", move |cx: &Cx, _: &()| one.get(cx, &()).unwrap_or(0) * 2)?;
    /// two.get(&engine, &())?;
    /// assert!(engine.export().dot().contains("two(())"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn export(&self) -> Export {
        Export { graph: self.graph().clone(), around: None, nodes: 10_000, edges: 100_000 }
    }
}

impl Export {
    /// Only the node and what is at most so many edges away from it, in either direction. Nothing if the node is gone.
    pub fn around(mut self, node: NodeId, hops: usize) -> Export {
        self.around = Some((node, hops));
        self
    }

    /// At most so many nodes. Default: 10,000.
    pub fn limit(mut self, nodes: usize) -> Export {
        self.nodes = nodes;
        self
    }

    /// At most so many edges. Default: 100,000.
    pub fn edge_limit(mut self, edges: usize) -> Export {
        self.edges = edges;
        self
    }

    /// `{"commit", "cut", "nodes": [..], "edges": [..]}`.
    ///
    /// A node has `id` (its slot, which the edges name), `version`, `function`, `key` (text or null), `state`, `made` (a commit or
    /// null) and `source`; an edge `dependant`, `dependency` and `current` (the dependency is as it was when it was read). `cut` is true if a limit left
    /// something out.
    pub fn json(&self) -> String {
        text(|out| self.take().json(out))
    }

    /// [`json`](Export::json) into a writer.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_json(&self, out: &mut impl io::Write) -> io::Result<()> {
        stream(out, |out| self.take().json(out))
    }

    /// A Graphviz digraph, arrows in the direction of invalidation: from a dependency to its dependants. Colours tell states; a label
    /// says if a limit left something out.
    pub fn dot(&self) -> String {
        text(|out| self.take().dot(out))
    }

    /// [`dot`](Export::dot) into a writer.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_dot(&self, out: &mut impl io::Write) -> io::Result<()> {
        stream(out, |out| self.take().dot(out))
    }

    fn take(&self) -> Picture {
        let graph = &*self.graph;
        let (slots, mut cut) = match self.around {
            None => self.all(),
            Some((node, hops)) if graph.has_node(node) => self.near(node.slot(), hops),
            Some(_) => (Vec::new(), false),
        };
        let nodes: Vec<_> = slots.iter().filter_map(|&slot| graph.shown(slot)).collect();
        let shown: HashSet<u32> = nodes.iter().map(|node| node.label.id.slot()).collect();
        let mut edges = Vec::new();
        for &dependant in &shown {
            graph.with_deps(dependant, |deps| {
                for dep in deps.filter(|dep| shown.contains(&dep.slot)) {
                    if edges.len() == self.edges {
                        cut = true;
                        break;
                    }
                    let head = graph.head(dep.slot);
                    let current = head.is_consistent() && head.epoch() == dep.epoch;
                    edges.push(Line { dependant, dependency: dep.slot, current });
                }
            });
        }
        edges.sort_unstable_by_key(|edge| (edge.dependant, edge.dependency));
        Picture { commit: graph.finished_commit(), nodes, edges, cut }
    }

    fn all(&self) -> (Vec<u32>, bool) {
        let mut slots = Vec::new();
        for function in self.graph.all_functions() {
            let of_function = function.slots();
            let room = self.nodes - slots.len();
            slots.extend(of_function.iter().take(room));
            if of_function.len() > room {
                return (slots, true);
            }
        }
        (slots, false)
    }

    /// Breadth first, so that a limit leaves out what is furthest.
    fn near(&self, slot: u32, hops: usize) -> (Vec<u32>, bool) {
        let graph = &*self.graph;
        if self.nodes == 0 {
            return (Vec::new(), true);
        }
        let (mut slots, mut seen) = (vec![slot], HashSet::from([slot]));
        let (mut from, mut complete) = (0, true);
        for _ in 0..hops {
            let frontier = from..slots.len();
            from = slots.len();
            if frontier.is_empty() {
                break;
            }
            let frontier = slots[frontier].to_vec();
            let mut add = |slot: u32, slots: &mut Vec<u32>| {
                let room = slots.len() < self.nodes || seen.contains(&slot);
                if room && seen.insert(slot) {
                    slots.push(slot);
                }
                room
            };
            for &slot in &frontier {
                graph.with_deps(slot, |deps| {
                    for dep in deps {
                        if !add(dep.slot, &mut slots) {
                            complete = false;
                            break;
                        }
                    }
                });
            }
            let (dependants, all) = graph.dependants(&frontier);
            let fitted = dependants.iter().all(|&(dependant, _)| add(dependant, &mut slots));
            complete &= all && fitted;
        }
        (slots, !complete)
    }
}

impl Graph {
    /// `None`: nobody lives in the slot any more.
    fn shown(&self, slot: u32) -> Option<Shown> {
        let head = self.head(slot);
        if !head.is_live() {
            return None;
        }
        Some(Shown {
            label: self.label(slot, head.version()),
            condition: Condition::of(head),
            made: self.made(slot),
            source: self.function(slot).is_source(),
        })
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("around", &self.around)
            .field("nodes", &self.nodes)
            .field("edges", &self.edges)
            .finish_non_exhaustive()
    }
}

fn text(write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out);
    out
}

/// Lets formatting go to an `io::Write`, whose error is kept.
fn stream(out: &mut impl io::Write, write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> io::Result<()> {
    struct Adapter<'o, W>(&'o mut W, io::Result<()>);
    impl<W: io::Write> fmt::Write for Adapter<'_, W> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0.write_all(part.as_bytes()).map_err(|error| {
                self.1 = Err(error);
                fmt::Error
            })
        }
    }
    let mut adapter = Adapter(out, Ok(()));
    let _ = write(&mut adapter);
    adapter.1
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_writers_error_comes_back() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = Engine::new().export().write_json(&mut Full).expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
