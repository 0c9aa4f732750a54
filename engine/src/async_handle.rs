//! The typed handle of an asynchronous function.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::compute::{Miss, record};
use crate::computed::Computed;
use crate::cx::{Ask, Asker, Cx};
use crate::deps::Dep;
use crate::fault::Fault;
use crate::fingerprint::Check;
use crate::flight::{Running, block_on};
use crate::handle::Handle;
use crate::key::{Key, Lookup};
use crate::value::Value;

/// An asynchronous function: its body is a future, driven by whoever waits for it (or by the engine's
/// [`Spawner`](crate::Spawner)). When the last waiter leaves, the future is dropped.
pub struct AsyncFunction<K, V>(pub(crate) Handle<K, V>);

impl<K, V> Deref for AsyncFunction<K, V> {
    type Target = Handle<K, V>;
    fn deref(&self) -> &Handle<K, V> {
        &self.0
    }
}

impl<K, V> Clone for AsyncFunction<K, V> {
    fn clone(&self) -> AsyncFunction<K, V> {
        AsyncFunction(self.0.clone())
    }
}

impl<K, V> std::fmt::Debug for AsyncFunction<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

type Cold<V> = Pin<Box<dyn Future<Output = Result<V, Fault>> + Send>>;

/// A read under way. A hit is in it already: no allocation, ready at the first poll. Dropping it leaves the flight; the
/// last one to leave cancels it.
#[must_use = "a read does nothing until it is awaited"]
pub struct GetFuture<V>(Reading<V>);

enum Reading<V> {
    Ready(Option<Result<V, Fault>>),
    Cold(Cold<V>),
}

// Nothing is pinned in place: the cold future is boxed.
impl<V> Unpin for GetFuture<V> {}

impl<V> Future for GetFuture<V> {
    type Output = Result<V, Fault>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<V, Fault>> {
        let reading = &mut self.get_mut().0;
        match reading {
            // Polled again after the end: a mistake of the executor's, answered with a fault instead of a panic.
            Reading::Ready(result) => Poll::Ready(result.take().unwrap_or(Err(Fault::Escaped))),
            Reading::Cold(cold) => {
                let polled = cold.as_mut().poll(cx);
                if polled.is_ready() {
                    *reading = Reading::Ready(None);
                }
                polled
            }
        }
    }
}

impl<V> GetFuture<V> {
    pub(crate) fn cold(read: impl Future<Output = Result<V, Fault>> + Send + 'static) -> GetFuture<V> {
        GetFuture(Reading::Cold(Box::pin(read)))
    }
}

impl<V> std::fmt::Debug for GetFuture<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Reading::Ready(_) => "GetFuture(ready)",
            Reading::Cold(_) => "GetFuture(pending)",
        })
    }
}

impl<K: Key, V: Value> AsyncFunction<K, V> {
    /// The value for the key: from the cache at once, or verified, or computed. Recorded if a context asks.
    ///
    /// # Errors
    /// [`Fault`]: never what the function itself returned. [`Fault::WouldBlock`] if a synchronous body asks and the value
    /// is not cached: a synchronous function cannot wait for an asynchronous one.
    #[inline]
    pub fn get<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q) -> GetFuture<V> {
        let asker = by.asker();
        if asker.graph == self.graph.id {
            let hash = self.hash(key);
            if let Some((value, slot, epoch)) = self.take_hit(hash, key) {
                self.count_hit();
                if self.data.is_checked(asker) {
                    return self.get_checked(asker, key.to_key(), value, Dep { slot, epoch });
                }
                return GetFuture(Reading::Ready(Some(asker.record(Dep { slot, epoch }).map(|()| value))));
            }
        }
        self.get_cold(asker, key)
    }

    #[cold]
    #[inline(never)]
    fn get_cold<Q: ?Sized + Lookup<K>>(&self, asker: Asker<'_>, key: &Q) -> GetFuture<V> {
        match self.prepare(asker) {
            Ok(cx) => {
                let (handle, key) = (self.0.clone(), key.to_key());
                GetFuture::cold(async move {
                    let (slot, _, got) = handle.obtain_async(cx.as_ref(), &key).await?;
                    record(handle.owned_asker(cx.as_ref()), slot, got)
                })
            }
            Err(fault) => GetFuture(Reading::Ready(Some(Err(fault)))),
        }
    }

    /// A hit whose body runs once more before the value is given out.
    #[cold]
    fn get_checked(&self, asker: Asker<'_>, key: K, value: V, dep: Dep) -> GetFuture<V> {
        if let Err(fault) = asker.record(dep) {
            return GetFuture(Reading::Ready(Some(Err(fault))));
        }
        let handle = self.0.clone();
        GetFuture(Reading::Cold(Box::pin(async move {
            let check = Check { key: &key, value: &value, slot: dep.slot, epoch: dep.epoch };
            handle.data.check_async(&handle.graph, &check).await;
            Ok(value)
        })))
    }

    /// An owned asker for a read that goes on after this call.
    pub(crate) fn prepare(&self, asker: Asker<'_>) -> Result<Option<Cx>, Fault> {
        self.admit(asker)?;
        self.count_miss();
        match asker.cx {
            None => Ok(None),
            Some(cx) => Ok(Some(cx.share().ok_or_else(|| asker.fault(Fault::WouldBlock))?)),
        }
    }

    /// The current generation with its value: what to hold when its end matters. Computes if needed.
    ///
    /// # Errors
    /// As [`get`](AsyncFunction::get).
    pub fn computed<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q) -> GetFuture<Computed<V>> {
        let prepared = self.prepare(by.asker());
        let (handle, key) = (self.0.clone(), key.to_key());
        GetFuture::cold(async move {
            let cx = prepared?;
            let (slot, version, (value, epoch)) = handle.obtain_async(cx.as_ref(), &key).await?;
            handle.owned_asker(cx.as_ref()).record(Dep { slot, epoch })?;
            Ok(handle.generation(slot, version, epoch, value, key))
        })
    }

    /// [`get`](AsyncFunction::get) for threads: blocks this one until the value is there, driving the body meanwhile.
    ///
    /// Never call it on the only thread of a runtime: what the body awaits could not make progress. Where the engine can
    /// know (inside one of its asynchronous bodies, or through a context) it answers [`Fault::WouldBlock`].
    ///
    /// # Errors
    /// As [`get`](AsyncFunction::get).
    pub fn wait<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q) -> Result<V, Fault> {
        let asker = by.asker();
        if asker.cx.is_some() || Running::is_polling() {
            return Err(asker.fault(Fault::WouldBlock));
        }
        block_on(self.get(by, key))
    }
}

impl<K: Key, V: Value> Handle<K, V> {
    /// The asker of a read that goes on after its call.
    pub(crate) fn owned_asker<'a>(&self, cx: Option<&'a Cx>) -> Asker<'a> {
        Asker { graph: self.graph.id, cx, held: false }
    }

    pub(crate) async fn obtain_async(&self, cx: Option<&Cx>, key: &K) -> Result<(u32, u32, (V, u32)), Fault> {
        let asker = |fault| self.owned_asker(cx).fault(fault);
        loop {
            let (slot, version) = self.data.find_or_insert(&self.graph, self.hash(key), key).map_err(asker)?;
            match self.data.obtain_async(&self.graph, slot, version, cx).await {
                Ok(got) => return Ok((slot, version, got)),
                Err(Miss::Removed) => {}
                Err(Miss::Fault(fault)) => return Err(asker(fault)),
            }
        }
    }
}
