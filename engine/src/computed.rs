//! One generation of a value, and its end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::changes::Changes;
use crate::compute::Miss;
use crate::deps::{Dep, UNSTORED};
use crate::fault::Fault;
use crate::function::Body;
use crate::graph::Graph;
use crate::handle::{Handle, Origin};
use crate::key::Key;
use crate::node::{Head, State};
use crate::read::{NodeId, node_id};
use crate::sync::Arc;
use crate::value::Value;

/// (slot, version, epoch): where a generation is, or was.
pub(crate) type Place = (u32, u32, u32);

pub(crate) type Renewal<V> = Pin<Box<dyn Future<Output = Result<Computed<V>, Fault>> + Send>>;

/// What is left of a key's type in a generation.
pub(crate) trait Renew<V>: Send + Sync {
    fn renew(self: Arc<Self>) -> Renewal<V>;
    fn renew_here(self: Arc<Self>) -> Result<Computed<V>, Fault>;
}

/// One generation of a cached value: the value as it was, whether it still holds, and a signal for its end.
///
/// Holding one keeps a copy of the value, not the node's place in the cache.
pub struct Computed<V> {
    graph: Arc<Graph>,
    place: Place,
    value: V,
    origin: Arc<dyn Renew<V>>,
}

impl<V: Value> Computed<V> {
    pub(crate) fn new<K: Key>(graph: Arc<Graph>, place: Place, value: V, origin: Arc<Origin<K, V>>) -> Computed<V> {
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
        self.standing().is_some()
    }

    /// Where the value stands now, if it does: under a later epoch if it was verified since.
    fn standing(&self) -> Option<Place> {
        let (slot, version, epoch) = self.place;
        let head = self.graph.head(slot);
        let stands = head.is_consistent()
            && head.version() == version
            && self.graph.unchanged(Dep { slot, epoch })
            && self.graph.head(slot).same_flight(head);
        stands.then(|| (slot, version, head.epoch()))
    }

    /// This value's own generation of now, whose end can be waited for.
    fn renewed(&self) -> Option<Computed<V>> {
        let place = self.standing()?;
        Some(Computed { place, ..self.clone() })
    }

    /// Completes at the first mark of this generation, maybe marks included; at once if that has come already.
    /// Dropping it unsubscribes.
    pub fn invalidated(&self) -> Invalidated {
        Invalidated { graph: self.graph.clone(), place: self.place, watcher: self.graph.watchers.number(), armed: false }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// The key's current generation first, then one item for each that brought another value: a [`Stream`](futures_core::Stream), also
    /// read with [`Changes::next`]. Verifies before it yields: a generation that was maybe stale and verified, or recomputed and equal
    /// by the function's rule, is no item. Generations that came and went between two polls are skipped, the last one never is.
    ///
    /// A fault is an item too; the next poll then goes on after a wait by the engine's clock, 1 s at first and longer each time by
    /// the square root of two, up to 60 s, until a read succeeds. Endless, but for the item after [`Fault::Gone`].
    ///
    /// ```
    /// # use wellspring::Engine;
    /// # let engine = Engine::new();
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     let mut future = std::pin::pin!(future);
    /// #     loop { if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) { return output; } }
    /// # }
    /// let price = engine.source("price", |_: &u32| 100_u64)?;
    /// let mut prices = price.computed(&engine, &7)?.changes();
    /// # block_on(async {
    /// assert_eq!(*prices.next().await.expect("endless")?.value(), 100);
    /// price.set(&7, 120);
    /// assert_eq!(*prices.next().await.expect("endless")?.value(), 120);
    /// # Ok::<(), wellspring::Fault>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn changes(&self) -> Changes<V> {
        Changes::new(self.graph.clone(), self.origin.clone())
    }

    /// The key's first generation from now on whose value the predicate accepts: looks at the current one, and then at each that
    /// brought another value. Dropping it ends it.
    ///
    /// # Errors
    /// As a read of the function: the first fault ends the wait.
    pub fn when<P: FnMut(&V) -> bool>(&self, mut predicate: P) -> impl Future<Output = Result<Computed<V>, Fault>> + use<V, P> {
        let mut changes = self.changes();
        async move {
            while let Some(next) = changes.next().await {
                let computed = next?;
                if predicate(computed.value()) {
                    return Ok(computed);
                }
            }
            Err(Fault::Gone)
        }
    }

    /// The current generation for the same key: this one if it is still consistent.
    ///
    /// # Errors
    /// As a read of the function.
    pub async fn update(&self) -> Result<Computed<V>, Fault> {
        match self.renewed() {
            Some(renewed) => Ok(renewed),
            None => self.origin.clone().renew().await,
        }
    }

    /// [`update`](Computed::update) on this thread, which is blocked meanwhile.
    ///
    /// # Errors
    /// As a read of the function; [`Fault::WouldBlock`] inside an asynchronous function.
    pub fn update_sync(&self) -> Result<Computed<V>, Fault> {
        self.renewed().map_or_else(|| self.origin.clone().renew_here(), Ok)
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

impl<K: Key, V: Value> Handle<K, V> {
    /// The key's current generation, brought up to date: where it is and its value. Blocks in a synchronous body.
    pub(crate) async fn current(&self, key: &K) -> Result<(Place, V), Fault> {
        let (data, graph) = (&self.data, &self.graph);
        let body = data.body(false).ok_or(Fault::Gone)?;
        loop {
            let (slot, version) = data.find_or_insert(graph, self.hash(key), key)?;
            let got = match &*body {
                Body::Sync(_) => data.obtain(graph, slot, version, false),
                Body::Async(_) => data.obtain_async(graph, slot, version, None).await,
            };
            match got {
                Ok((value, epoch)) => {
                    data.touch_kept(slot);
                    return Ok(((slot, version, epoch), value));
                }
                Err(Miss::Removed) => {}
                Err(Miss::Fault(fault)) => return Err(fault),
            }
        }
    }
}

impl<K: Key, V: Value> Renew<V> for Origin<K, V> {
    fn renew(self: Arc<Self>) -> Renewal<V> {
        Box::pin(async move {
            let (place, value) = self.handle.current(&self.key).await?;
            Ok(Computed::new(self.handle.graph.clone(), place, value, self.clone()))
        })
    }

    fn renew_here(self: Arc<Self>) -> Result<Computed<V>, Fault> {
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
    place: Place,
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
