//! Missing invalidations: in builds with debug assertions some hits are computed once more, and a value that has silently become
//! another one is reported.
//!
//! The second run reads through a context that is thrown away, so it leaves no edge and no value behind. It counts only if no commit
//! began meanwhile and the node is still consistent at its epoch: then every input the engine knows of was the same for both runs.

use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use crate::compute::EndOnDrop;
use crate::cx::{Asker, Cx};
use crate::describe::{Describe, text_of};
use crate::flight::FlightKey;
use crate::function::{Body, FnData};
use crate::graph::Graph;
use crate::key::Key;
use crate::read::{NodeId, node_id};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::value::Value;

/// A value that is no longer what its function returns, although nobody invalidated it: see
/// [`Define::fingerprint`](crate::Define::fingerprint).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingInvalidation {
    /// The function.
    pub function: String,
    /// The key, if the function can print its keys.
    pub key: Option<String>,
    /// The node.
    pub node: NodeId,
    /// The fingerprint of the value in the cache.
    pub cached: u64,
    /// The fingerprint of what the function returned now.
    pub recomputed: u64,
}

impl fmt::Display for MissingInvalidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MissingInvalidation { function, key, node, cached, recomputed } = self;
        match key {
            Some(key) => write!(f, "`{function}({key})`")?,
            None => write!(f, "`{function}`, node {}v{},", node.slot(), node.version())?,
        }
        write!(
            f,
            " has changed without an invalidation: fingerprint {cached:#x} in the cache, {recomputed:#x} now; \
             invalidate the key when what the function reads changes, or read it through a function or a source"
        )
    }
}

/// Who is told of missing invalidations.
pub(crate) type OnMissing = dyn Fn(&MissingInvalidation) + Send + Sync;

/// What a function tells about itself for diagnosis.
pub(crate) struct Insight<K, V> {
    pub(crate) describe: Option<Describe<K>>,
    pub(crate) fingerprint: Option<Fingerprint<V>>,
}

pub(crate) struct Fingerprint<V> {
    of: fn(&V) -> u64,
    rate: u64,
    hits: AtomicU64,
}

impl<V> Fingerprint<V> {
    pub(crate) fn new(rate: u32, of: fn(&V) -> u64) -> Fingerprint<V> {
        Fingerprint { of, rate: u64::from(rate.max(1)), hits: AtomicU64::new(0) }
    }

    /// Whether this hit's turn has come.
    fn is_due(&self) -> bool {
        // Relaxed: a turn among hits, nothing else.
        self.hits.fetch_add(1, Ordering::Relaxed) % self.rate == self.rate - 1
    }
}

/// A hit that is to be checked.
pub(crate) struct Check<'k, K, V> {
    pub(crate) key: &'k K,
    pub(crate) value: &'k V,
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
}

impl<K, V> Check<'_, K, V> {
    /// Whose waits a check's are: the asking flight's, so that a cycle through it is found. Without one, those of a flight that has
    /// ended, for which nobody waits.
    pub(crate) fn flight(&self, asker: Asker<'_>) -> FlightKey {
        asker.cx.map_or((self.slot, self.epoch), |cx| cx.state().flight)
    }
}

impl<K: Key, V: Value> FnData<K, V> {
    /// Whether a hit is to be computed once more. A constant `false` without debug assertions.
    #[inline(always)]
    pub(crate) fn is_checked(&self, asker: Asker<'_>) -> bool {
        cfg!(debug_assertions) && self.insight.fingerprint.is_some() && self.is_due(asker)
    }

    /// Reads made by a check are not checked in their turn, or a diamond of functions would cost two to its depth.
    #[cold]
    fn is_due(&self, asker: Asker<'_>) -> bool {
        !asker.cx.is_some_and(|cx| cx.state().is_check()) && self.insight.fingerprint.as_ref().is_some_and(Fingerprint::is_due)
    }

    #[cold]
    pub(crate) fn check(&self, graph: &Arc<Graph>, asker: Asker<'_>, check: &Check<'_, K, V>) {
        let Some(before) = self.quiet(graph, check) else { return };
        let Some(body) = self.body(asker.held) else { return };
        let Body::Sync(body) = &*body else { return };
        let cx = Cx::check(graph.id, check.flight(asker), asker.held);
        let _end = EndOnDrop(cx.clone());
        // A body that panics has not changed silently.
        let Ok(value) = catch_unwind(AssertUnwindSafe(|| body(&cx, check.key))) else { return };
        self.compare(graph, &cx, before, check, &value);
    }

    /// [`check`](Self::check) of an asynchronous function.
    pub(crate) async fn check_async(&self, graph: &Arc<Graph>, flight: FlightKey, check: &Check<'_, K, V>) {
        let Some(before) = self.quiet(graph, check) else { return };
        let Some(body) = self.body(false) else { return };
        let Body::Async(make) = &*body else { return };
        let cx = Cx::check(graph.id, flight, false);
        let _end = EndOnDrop(cx.clone());
        let key = check.key.clone();
        let Ok(mut future) = catch_unwind(AssertUnwindSafe(|| make(cx.clone(), key))) else { return };
        let value = std::future::poll_fn(|task| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(task))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
            Err(_) => Poll::Ready(None),
        });
        if let Some(value) = value.await {
            self.compare(graph, &cx, before, check, &value);
        }
    }

    /// The commit at which the node is consistent and no sweep is under way.
    fn quiet(&self, graph: &Graph, check: &Check<'_, K, V>) -> Option<u64> {
        let begun = graph.begun_commit();
        let head = graph.head(check.slot);
        (graph.finished_commit() == begun && head.is_consistent() && head.epoch() == check.epoch).then_some(begun)
    }

    fn compare(&self, graph: &Graph, cx: &Cx, before: u64, check: &Check<'_, K, V>, value: &V) {
        let Some(fingerprint) = &self.insight.fingerprint else { return };
        // What was made from a fault is no value. A source's new value that the body has read was stored after its sweep had
        // begun, so whoever has read it sees the number.
        if cx.state().is_faulted() || self.quiet(graph, check) != Some(before) {
            return;
        }
        let prints = catch_unwind(AssertUnwindSafe(|| ((fingerprint.of)(check.value), (fingerprint.of)(value))));
        let Ok((cached, recomputed)) = prints else { return };
        if cached == recomputed {
            return;
        }
        let report = MissingInvalidation {
            function: self.name.clone(),
            key: self.insight.describe.and_then(|describe| text_of(check.key, describe)),
            node: node_id(check.slot, graph.head(check.slot).version()),
            cached,
            recomputed,
        };
        match &graph.on_missing {
            Some(tell) => {
                let _ = catch_unwind(AssertUnwindSafe(|| tell(&report)));
            }
            // Whoever marked a function for this wants to hear of it also where nobody set a callback.
            None => {
                let _ = writeln!(std::io::stderr(), "wellspring: {report}");
            }
        }
    }
}

impl<V> fmt::Debug for Fingerprint<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fingerprint").field("rate", &self.rate).finish_non_exhaustive()
    }
}
