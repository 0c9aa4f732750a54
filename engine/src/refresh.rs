//! Refresh ahead: a value that is in use is computed anew shortly before it ends, while the old one is served.
//!
//! The body runs beside the node, as a task of the engine's spawner, and its result is brought in by a sweep like a source's new
//! value: only if the node still is the generation that was to be refreshed. Whoever invalidated or computed it meanwhile was
//! later, and wins. An error, a fault or a panic leaves the old value to its end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cx::Cx;
use crate::deps::{Dep, UNSTORED};
use crate::expire::Term;
use crate::function::{Body, FnData, Lease};
use crate::graph::{AnyFunction, Graph};
use crate::key::Key;
use crate::log::What;
use crate::node::{Head, State};
use crate::origin::By;
use crate::publish::{Outcoming, Standing};
use crate::sweep::{Found, Root};
use crate::sync::Arc;
use crate::value::Value;

/// A result on its way to a node that serves another meanwhile.
pub(crate) struct Renewal {
    /// The generation it was computed to replace.
    epoch: u32,
    /// The new value word; `None` if it equals the old one.
    word: Option<u64>,
    deps: Vec<Dep>,
    term: Term,
    weight: Option<u32>,
}

impl<K: Key, V: Value> FnData<K, V> {
    /// Starts a refresh of the node's present generation, if it was read since the last.
    pub(crate) fn start_refresh(self: &Arc<Self>, graph: &Arc<Graph>, slot: u32, version: u32) {
        let head = graph.head(slot);
        let read = self.bounds.as_ref().is_some_and(|bounds| bounds.was_read(slot));
        let (true, true, Some(spawner)) = (read, head.is_consistent() && head.version() == version, &graph.spawner) else { return };
        let Some(Lease::Owned(body)) = self.body(false) else { return };
        let (function, weak, graph_id) = (self.clone(), Arc::downgrade(graph), graph.id);
        spawner.spawn(Box::pin(async move {
            let key = || weak.upgrade().and_then(|graph| function.key(&graph, slot, version));
            let Some(key) = catch_unwind(AssertUnwindSafe(key)).ok().flatten() else { return };
            let mut cx = Cx::outside_shared(graph_id);
            let value = match &*body {
                Body::Sync(body) => catch_unwind(AssertUnwindSafe(|| body(&cx, &key))).ok(),
                Body::Async(make) => match cx.share() {
                    Some(mine) => CatchUnwind(make(mine, key)).await,
                    None => None,
                },
            };
            let deps = cx.close(|recorded, faulted| (!faulted).then(|| recorded.as_slice().to_vec()));
            if let (Some(value), Some(deps), Some(graph)) = (value, deps, weak.upgrade()) {
                let _ = catch_unwind(AssertUnwindSafe(|| function.bring(&graph, slot, head, &value, deps)));
            }
        }));
    }

    /// Hands a refresh's result to a sweep.
    fn bring(&self, graph: &Arc<Graph>, slot: u32, head: Head, value: &V, deps: Vec<Dep>) {
        self.computes.count();
        let is_error = self.life.errors.as_ref().is_some_and(|rule| rule.kind(value).is_some());
        if is_error || deps.iter().any(|dep| dep.epoch == UNSTORED) {
            return;
        }
        let prepared = self.prepare(graph, slot, head, value);
        let word = match prepared.result {
            Outcoming::Equal => None,
            Outcoming::Changed(word) => Some(word),
        };
        let term = prepared.term.unwrap_or_default();
        let renewal = Renewal { epoch: head.epoch(), word, deps, term, weight: prepared.weight };
        graph.commit_by(smallvec::smallvec![Root::Refresh { slot, version: head.version(), renewal: Box::new(renewal) }], &By::Engine);
        // The new value may weigh more.
        self.keep_within(graph);
    }
}

/// A future whose panics end it without a value.
struct CatchUnwind<V>(crate::function::ValueFuture<V>);

impl<V> Future for CatchUnwind<V> {
    type Output = Option<V>;
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<V>> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_) => std::task::Poll::Ready(None),
        }
    }
}

impl Graph {
    /// The sweep's part: the new value takes the old one's place, and what was made from that is stale.
    pub(crate) fn bring_in(&self, slot: u32, version: u32, renewal: Renewal, found: &mut Found, direct: &mut Found) {
        let Renewal { epoch, word, deps, term, weight } = renewal;
        let mut head = self.head(slot);
        let owned = loop {
            if !head.is_consistent() || head.version() != version || head.epoch() != epoch || epoch >= crate::verify::LAST_EPOCH {
                if let Some(word) = word {
                    self.discard(slot, word);
                }
                return;
            }
            let owned = head.next_flight(State::Publishing);
            // An equal value's readers need only be verified.
            match self.mark_from(slot, head, owned, if word.is_some() { &mut *direct } else { &mut *found }) {
                Ok(()) => break owned,
                Err(other) => head = other,
            }
        };
        let standing = self.relink(slot, &deps);
        if let Some(word) = word {
            self.replace_value(slot, owned, word);
        }
        self.set_term(slot, term);
        if let Some(weight) = weight {
            self.function(slot).set_weight(self, slot, weight);
        }
        found.marked += 1;
        self.note(What::Refreshed, slot);
        let state = match standing {
            Standing::Linked(_) => State::Consistent,
            Standing::Maybe => State::Pending,
            Standing::Changed => State::Stale,
        };
        self.let_go(slot, owned, state, found);
        self.arm_term(slot, term);
    }
}
