//! Where the memory is: one report, for people and for budgets.

use std::fmt;
use std::time::Duration;

use crate::engine::Engine;
use crate::sync::atomic::Ordering;

/// What one function holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionMemory {
    /// The function.
    pub name: String,
    /// Keys that have a node.
    pub nodes: usize,
    /// Nodes that hold a value.
    pub values: usize,
    /// Bytes of its nodes, keys, values (without what they own on the heap), dependency lists and key table.
    pub bytes: usize,
    /// What its own capacity counts now, in that capacity's unit; 0 without one.
    pub used: u64,
    /// Its own capacity; `None` without one.
    pub capacity: Option<u64>,
    /// Keys that left because of its own capacity.
    pub evicted: u64,
    /// How often eviction ended above the low mark because everything left was in use.
    pub stuck: u64,
}

/// Where the engine's memory is: see [`Engine::memory_report`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Function by function, in order of registration.
    pub functions: Vec<FunctionMemory>,
    /// Edges in use.
    pub edges_live: usize,
    /// Edges whose dependant has changed since: dropped when their list is next full, or swept.
    pub edges_stale: usize,
    /// Bytes of the store of edges, free blocks included.
    pub edge_bytes: usize,
    /// Values and lists that were replaced and wait for pins.
    pub retired: usize,
    /// The longest a pin was ever held: what is retired waits so long.
    pub longest_pin: Duration,
    /// Entries in the timer wheel.
    pub timers: usize,
    /// What the engine's capacity counts now, and what it admits; `None` without one.
    pub capacity: Option<(u64, u64)>,
    /// Keys that left because of the engine's capacity.
    pub evicted: u64,
    /// Bytes of nodes, edges and key tables, which the engine has from the system and not from the allocator. The columns of those who
    /// asked for time, traces and weights (37 bytes a node) come on top where they are written.
    pub mapped: usize,
}

impl Engine {
    /// Counts everything that takes memory: a visit to every node and edge. Readers and sweeps go on meanwhile.
    pub fn memory_report(&self) -> MemoryReport {
        let graph = self.graph();
        let stats = self.stats();
        let functions = graph.all_functions().iter().map(|function| function.memory(graph)).collect();
        let budget = graph.budget.as_deref();
        MemoryReport {
            functions,
            edges_live: stats.edges_live,
            edges_stale: stats.edges_stale,
            edge_bytes: graph.edges.bytes(),
            retired: stats.retired,
            longest_pin: stats.longest_pin,
            timers: graph.timers.armed(),
            capacity: budget.map(|budget| (budget.used(), budget.high)),
            // Relaxed: a statistic.
            evicted: budget.map_or(0, |budget| budget.evicted.load(Ordering::Relaxed)),
            mapped: stats.mapped,
        }
    }
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<32} {:>10} {:>10} {:>14} {:>14} {:>14}", "function", "nodes", "values", "bytes", "used", "capacity")?;
        for function in &self.functions {
            let FunctionMemory { name, nodes, values, bytes, used, capacity, .. } = function;
            let capacity = capacity.map_or_else(|| String::from("-"), |capacity| capacity.to_string());
            writeln!(f, "{name:<32} {nodes:>10} {values:>10} {bytes:>14} {used:>14} {capacity:>14}")?;
        }
        writeln!(f, "edges: {} live, {} stale, {} bytes", self.edges_live, self.edges_stale, self.edge_bytes)?;
        writeln!(f, "retired, not freed: {}; longest pin: {:?}; timers: {}", self.retired, self.longest_pin, self.timers)?;
        if let Some((used, high)) = self.capacity {
            writeln!(f, "the engine: {used} of {high}; {} keys evicted", self.evicted)?;
        }
        write!(f, "mapped: {} bytes", self.mapped)
    }
}
