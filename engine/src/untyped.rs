//! A function without its types: what sweeps, eviction, timers and reports ask of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::capacity::Budget;
use crate::collector::Retired;
use crate::deps::DepList;
use crate::evict::{Bounds, Verdict};
use crate::fault::Fault;
use crate::function::{Body, FnData};
use crate::graph::{AnyFunction, Ended, Graph, Refresh};
use crate::key::{BoxedKey, Key, is_word};
use crate::memory::FunctionMemory;
use crate::node::{HAS_VALUE, Head, LAST_VERSION, State};
use crate::stats::FunctionStats;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Backoff, lock};
use crate::timer::Due;
use crate::value::{Value, pointer};

impl<K: Key, V: Value> AnyFunction for FnData<K, V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_source(&self) -> bool {
        self.source
    }

    fn key_text(&self, graph: &Graph, slot: u32, version: u32) -> Option<String> {
        let describe = self.insight.describe?;
        let key = catch_unwind(AssertUnwindSafe(|| self.key(graph, slot, version))).ok()??;
        crate::describe::text_of(&key, describe)
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn refresh(self: Arc<Self>, graph: &Arc<Graph>, slot: u32, head: Head, held: bool) -> Refresh {
        let Some(body) = self.body(held) else { return Refresh::Ran(Err(Fault::Gone)) };
        match &*body {
            Body::Sync(_) => match graph.claim(slot, head) {
                None => Refresh::Moved,
                Some(flight) => {
                    Refresh::Ran(self.run(graph, slot, flight, &body, held).map(|ran| ran.map_or(Ended::Moved, |ran| ran.ended)))
                }
            },
            Body::Async(_) => match self.start(graph, slot, head) {
                None => Refresh::Moved,
                Some(flight) => Refresh::Started(flight),
            },
        }
    }

    fn slots(&self) -> Vec<u32> {
        let _slots = lock(&self.slots);
        self.table.slots()
    }

    fn forget(&self, graph: &Graph, slot: u32) -> Option<(u32, u32)> {
        let mut slots = lock(&self.slots);
        let mut backoff = Backoff::default();
        let mut now = graph.head(slot);
        let freed = loop {
            if !now.is_live() {
                return None;
            }
            // An owner is about to let go; what it writes until then would be lost.
            if matches!(now.state(), State::Publishing | State::Verifying) {
                backoff.wait();
                now = graph.head(slot);
                continue;
            }
            let freed = Head::new(State::Empty, now.version().wrapping_add(1) & LAST_VERSION, now.epoch().saturating_add(1));
            match graph.swing(slot, now, freed) {
                Ok(()) => break freed,
                Err(other) => now = other,
            }
        };
        // Before the slot is free: its next tenant's edges are not ours to take.
        let dependants = graph.edges.take(&graph.row(slot).rev);
        self.free_slot(graph, &mut slots, slot, freed);
        Some((dependants, now.epoch()))
    }

    fn drop_nodes(&self, graph: &Graph) {
        let mut waiting = Vec::new();
        for slot in self.slots() {
            self.empty_columns(graph, slot, &mut |retired| waiting.push(retired));
        }
        for retired in waiting {
            graph.collector.retire(retired);
        }
    }

    fn stats(&self, graph: &Graph) -> FunctionStats {
        let slots = lock(&self.slots);
        let nodes = slots.writer.len();
        let mut bytes = self.table.bytes() + nodes * (size_of::<crate::node::Row>() + size_of::<crate::node::Warm>());
        let (table, _pin) = (self.table.slots(), graph.collector.section());
        drop(slots);
        for slot in table {
            if !is_word::<K>() {
                bytes += size_of::<BoxedKey<K>>();
            }
            if !self.is_inline() && graph.warm(slot).flags.load(Ordering::Relaxed) & HAS_VALUE != 0 {
                bytes += size_of::<V>();
            }
            // SAFETY: [pinned-deps] read under the pin above.
            bytes += unsafe { DepList::borrow(graph.warm(slot).deps.load(Ordering::Acquire)) }.map_or(0, DepList::bytes);
        }
        FunctionStats {
            name: self.name.clone(),
            cut_off: self.cut_off.name(),
            nodes,
            bytes,
            table: self.table.bytes(),
            computes: self.computes.sum(),
            expire_after: self.life.expire_after,
            keep_at_least: self.life.keep_at_least,
            error_delays: self.life.errors.as_ref().map(|rule| (rule.transient, rule.non_transient)),
        }
    }

    fn move_stamp(&self, graph: &Graph) {
        if let Some(bounds) = &self.bounds {
            bounds.move_stamp();
            graph.timers.arm(graph.timers.now().saturating_add(bounds.quantum()), Due::Stamp { function: self.id });
        }
    }

    fn evict(&self, graph: &Graph, slot: u32, version: u32, shared: bool) -> Verdict {
        self.evict_node(graph, slot, version, shared)
    }

    fn recount(&self, graph: &Graph) -> (u64, Option<(u64, u64)>) {
        let Some(bounds) = &self.bounds else { return (0, None) };
        let slots = self.slots();
        let shared = graph.budget.as_deref().and_then(|budget| bounds.recount(graph, &slots, Some(budget)));
        (shared.unwrap_or(0), bounds.own().map(Budget::used).zip(bounds.recount(graph, &slots, None)))
    }

    fn keep_within(&self, graph: &Arc<Graph>) {
        if let Some(bounds) = &self.bounds {
            bounds.keep_within(graph);
        }
    }

    fn refresh_ahead(self: Arc<Self>, graph: &Arc<Graph>, slot: u32, version: u32) {
        self.start_refresh(graph, slot, version);
    }

    fn set_weight(&self, graph: &Graph, slot: u32, weight: u32) {
        if let Some(bounds) = &self.bounds {
            bounds.set_weight(graph, slot, weight);
        }
    }

    fn memory(&self, graph: &Graph) -> FunctionMemory {
        let stats = self.stats(graph);
        // Relaxed (all): statistics.
        let has_value = |&slot: &u32| graph.warm(slot).flags.load(Ordering::Relaxed) & HAS_VALUE != 0;
        let own = self.bounds.as_ref().and_then(Bounds::own).filter(|budget| budget.high != u64::MAX);
        FunctionMemory {
            values: self.slots().iter().filter(|slot| has_value(slot)).count(),
            nodes: stats.nodes,
            bytes: stats.bytes + own.map_or(0, Budget::bytes),
            name: stats.name,
            used: own.map_or(0, Budget::used),
            capacity: own.map(|budget| budget.high),
            evicted: own.map_or(0, |budget| budget.evicted.load(Ordering::Relaxed)),
            stuck: own.map_or(0, |budget| budget.stuck.load(Ordering::Relaxed)),
        }
    }

    fn retired_value(&self, word: u64) -> Option<Retired> {
        if self.is_inline() {
            return None;
        }
        // SAFETY: [retire] the word was exposed from a box of `V` by this function and has left its row.
        Some(unsafe { Retired::boxed(pointer::<V>(word)) })
    }
}
