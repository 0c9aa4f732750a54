//! One generation of a value, and its end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::compute::Miss;
use crate::deps::{Dep, UNSTORED};
use crate::fault::Fault;
use crate::function::Body;
use crate::graph::Graph;
use crate::handle::Origin;
use crate::key::Key;
use crate::node::{Head, State};
use crate::read::{NodeId, node_id};
use crate::sync::Arc;
use crate::value::Value;

type Renewal<'a, V> = Pin<Box<dyn Future<Output = Result<Computed<V>, Fault>> + Send + 'a>>;

trait Renew<V>: Send + Sync {
    fn renew(&self) -> Renewal<'_, V>;
    fn renew_here(&self) -> Result<Computed<V>, Fault>;
}

/// One generation of a cached value: the value as it was, whether it still holds, and a signal for its end.
///
/// Holding one keeps a copy of the value, not the node's place in the cache.
pub struct Computed<V> {
    graph: Arc<Graph>,
    /// (slot, version, epoch).
    place: (u32, u32, u32),
    value: V,
    origin: Arc<dyn Renew<V>>,
}

impl<V: Value> Computed<V> {
    pub(crate) fn new<K: Key>(graph: Arc<Graph>, place: (u32, u32, u32), value: V, origin: Arc<Origin<K, V>>) -> Computed<V> {
        Computed { graph, place, value, origin }
    }

    /// The value of this generation, also after its end.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// The node it is a generation of.
    pub fn node(&self) -> NodeId {
        node_id(self.place.0, self.place.1)
    }

    /// Whether a read would return this value now without computing or verifying. False while it may be stale, and true
    /// again if it was verified since.
    pub fn is_consistent(&self) -> bool {
        let (slot, version, epoch) = self.place;
        let head = self.graph.head(slot);
        head.is_consistent()
            && head.version() == version
            && self.graph.unchanged(Dep { slot, epoch })
            && self.graph.head(slot).same_flight(head)
    }

    /// Completes at the first mark of this generation, maybe marks included; at once if that has come already.
    /// Dropping it unsubscribes.
    pub fn invalidated(&self) -> Invalidated {
        Invalidated { graph: self.graph.clone(), place: self.place, watcher: self.graph.watchers.number(), armed: false }
    }

    /// The current generation for the same key: this one if it is still consistent.
    ///
    /// # Errors
    /// As a read of the function.
    pub async fn update(&self) -> Result<Computed<V>, Fault> {
        if self.is_consistent() { Ok(self.clone()) } else { self.origin.renew().await }
    }

    /// [`update`](Computed::update) on this thread, which is blocked meanwhile.
    ///
    /// # Errors
    /// As a read of the function; [`Fault::WouldBlock`] inside an asynchronous function.
    pub fn update_sync(&self) -> Result<Computed<V>, Fault> {
        if self.is_consistent() { Ok(self.clone()) } else { self.origin.renew_here() }
    }
}

impl<V: Clone> Clone for Computed<V> {
    fn clone(&self) -> Computed<V> {
        Computed { graph: self.graph.clone(), place: self.place, value: self.value.clone(), origin: self.origin.clone() }
    }
}

impl<V: std::fmt::Debug> std::fmt::Debug for Computed<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Computed").field("value", &self.value).field("epoch", &self.place.2).finish_non_exhaustive()
    }
}

impl<K: Key, V: Value> Renew<V> for Origin<K, V> {
    fn renew(&self) -> Renewal<'_, V> {
        Box::pin(async move {
            let (data, graph) = (&self.handle.data, &self.handle.graph);
            let body = data.body(false).ok_or(Fault::Gone)?;
            loop {
                let (slot, version) = data.find_or_insert(graph, self.handle.hash(&self.key), &self.key)?;
                let got = match &*body {
                    Body::Sync(_) => data.obtain(graph, slot, version, false),
                    Body::Async(_) => data.obtain_async(graph, slot, version, None).await,
                };
                match got {
                    Ok((value, epoch)) => {
                        data.touch_kept(slot);
                        return Ok(self.handle.generation(slot, version, epoch, value, self.key.clone()));
                    }
                    Err(Miss::Removed) => {}
                    Err(Miss::Fault(fault)) => return Err(fault),
                }
            }
        })
    }

    fn renew_here(&self) -> Result<Computed<V>, Fault> {
        if crate::flight::Running::is_polling() && matches!(self.handle.data.body(false).as_deref(), Some(Body::Async(_))) {
            return Err(Fault::WouldBlock);
        }
        crate::flight::block_on(self.renew())
    }
}

/// The end of a generation: see [`Computed::invalidated`].
#[derive(Debug)]
pub struct Invalidated {
    graph: Arc<Graph>,
    place: (u32, u32, u32),
    watcher: u64,
    armed: bool,
}

impl Future for Invalidated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (slot, version, epoch) = self.place;
        let seen = Head::new(State::Consistent, version, epoch);
        if epoch != UNSTORED && self.graph.watch(slot, seen, self.watcher, cx.waker()) {
            self.armed = true;
            return Poll::Pending;
        }
        self.armed = false;
        Poll::Ready(())
    }
}

impl Drop for Invalidated {
    fn drop(&mut self) {
        if self.armed {
            self.graph.unwatch(self.place.0, self.watcher);
        }
    }
}
