//! A value that is computed again whenever it ends: a function without a key, and what a loop last made of it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::async_handle::{AsyncFunction, GetFuture};
use crate::cx::{Ask, Cx};
use crate::delay::UpdateDelayer;
use crate::signal::Signal;
use crate::state_error::StateError;
use crate::state_snapshot::{Made, StateSnapshot};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, Weak, lock};
use crate::timer::Timer;
use crate::value::Value;

/// A state's closure, with its rules about errors applied.
pub(crate) type Compute<T> = dyn Fn(Cx) -> Pin<Box<dyn Future<Output = Made<T>> + Send>> + Send + Sync;

/// Closures by state. Weak: a state's own end drops its closure.
pub(crate) type Computes<T> = Mutex<HashMap<u64, Weak<Compute<T>>, ahash::RandomState>>;

/// What all of one type share: each is a key.
pub(crate) struct Runs<T: Value> {
    pub(crate) function: AsyncFunction<u64, Arc<Made<T>>>,
    pub(crate) computes: Arc<Computes<T>>,
    pub(crate) next: AtomicU64,
}

/// A value that is computed again whenever it ends, by an [`UpdateLoop`](crate::UpdateLoop): see [`Engine::computed_state`].
///
/// [`snapshot`](ComputedState::snapshot) is what the loop last published. [`get`](ComputedState::get) is a read like any other: it
/// computes if it must, shares the loop's flight, and makes whoever reads depend on the state.
///
/// A clone is another handle to the same state. When the last one is dropped the state stops, as by [`stop`](ComputedState::stop); its
/// closure must not hold one.
///
/// [`Engine::computed_state`]: crate::Engine::computed_state
pub struct ComputedState<T: Value>(pub(crate) Arc<Held<T>>);

/// What handles hold, and the loop does not.
pub(crate) struct Held<T: Value>(pub(crate) Arc<Inner<T>>);

impl<T: Value> Drop for Held<T> {
    fn drop(&mut self) {
        self.0.ask_to_stop();
    }
}

/// What handles, reads and the loop hold.
pub(crate) struct Inner<T: Value> {
    pub(crate) function: AsyncFunction<u64, Arc<Made<T>>>,
    pub(crate) id: u64,
    pub(crate) computes: Arc<Computes<T>>,
    /// `None` once it has ended.
    pub(crate) compute: Mutex<Option<Arc<Compute<T>>>>,
    pub(crate) delayer: Box<dyn UpdateDelayer>,
    pub(crate) grace: Duration,
    pub(crate) timer: Timer,
    pub(crate) shown: Arc<Signal<Shown<T>>>,
}

pub(crate) struct Shown<T: Value> {
    pub(crate) snapshot: Arc<StateSnapshot<T>>,
    /// How often `recompute` was called, and how many of these calls an update has answered.
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) stopping: bool,
    pub(crate) ended: bool,
}

impl<T: Value> Inner<T> {
    pub(crate) fn ask_to_stop(&self) {
        self.shown.change(|shown| shown.stopping = true);
    }

    /// The loop is over: the closure goes, and the node with its edges.
    pub(crate) fn end(&self) {
        lock(&self.computes).remove(&self.id);
        let compute = lock(&self.compute).take();
        crate::flight::drop_quietly(compute);
        self.function.remove(&self.id);
        self.shown.change(|shown| (shown.stopping, shown.ended) = (true, true));
    }
}

impl<T: Value> Drop for Inner<T> {
    /// A read that ran beside the end may have made the node again; reads hold this, so there are none any more.
    fn drop(&mut self) {
        self.function.remove(&self.id);
    }
}

/// Something a state will come to. What was asked for has been asked for, whether this is awaited or not.
pub struct StateWait<R>(Pin<Box<dyn Future<Output = R> + Send>>);

impl<R> Future for StateWait<R> {
    type Output = R;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        self.0.as_mut().poll(cx)
    }
}

impl<R> std::fmt::Debug for StateWait<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateWait").finish_non_exhaustive()
    }
}

impl<T: Value> ComputedState<T> {
    fn inner(&self) -> &Arc<Inner<T>> {
        &self.0.0
    }

    /// What the loop last published.
    pub fn snapshot(&self) -> Arc<StateSnapshot<T>> {
        self.inner().shown.see(|shown| shown.snapshot.clone())
    }

    /// The published value.
    ///
    /// # Errors
    /// As [`StateSnapshot::value`].
    pub fn value(&self) -> Result<T, StateError> {
        self.snapshot().value().cloned().map_err(Clone::clone)
    }

    /// The last published value that was no error.
    pub fn last_good(&self) -> Option<T> {
        self.snapshot().last_good().cloned()
    }

    /// The value as of now: computed if it must be, recorded if a context asks. It does not wait for the delayer, and the loop will not
    /// compute it once more.
    ///
    /// # Errors
    /// What the closure returned; a [`Fault`](crate::Fault), [`WouldBlock`](crate::Fault::WouldBlock) among them if a synchronous
    /// function asks while the value is not cached; or that the state was stopped.
    pub fn get(&self, by: impl Ask) -> StateRead<T> {
        let inner = self.inner();
        let read = inner.shown.see(|shown| !shown.ended).then(|| inner.function.get(by, &inner.id));
        StateRead { read, _state: inner.clone() }
    }

    /// [`get`](ComputedState::get) for threads: blocks this one until the value is there. See [`AsyncFunction::wait`].
    ///
    /// # Errors
    /// As [`get`](ComputedState::get).
    pub fn wait(&self, by: impl Ask) -> Result<T, StateError> {
        let inner = self.inner();
        if inner.shown.see(|shown| shown.ended) {
            return Err(StateError::stopped());
        }
        inner.function.wait(by, &inner.id)?.result.as_deref().cloned().map_err(Clone::clone)
    }

    /// The first snapshot after `seen`: at once if there has been one, so that none is missed between two calls; several that came
    /// meanwhile are one. `None` when the state has ended.
    ///
    /// ```
    /// # async fn f(state: wellspring::ComputedState<u64>) {
    /// let mut seen = state.snapshot();
    /// while let Some(next) = state.changed(&seen).await {
    ///     println!("{:?}", next.value());
    ///     seen = next;
    /// }
    /// # }
    /// ```
    #[must_use = "nothing is waited for until it is awaited"]
    pub fn changed(&self, seen: &StateSnapshot<T>) -> StateWait<Option<Arc<StateSnapshot<T>>>> {
        let seen = seen.updates;
        StateWait(Box::pin(self.inner().shown.until(move |shown| {
            let changed = shown.snapshot.updates > seen;
            if changed { Some(Some(shown.snapshot.clone())) } else { shown.ended.then_some(None) }
        })))
    }

    /// The first snapshot that the predicate accepts, today's included; `None` if the state ends before. It sees the latest, and not
    /// every one.
    pub async fn when(&self, accepts: impl Fn(&StateSnapshot<T>) -> bool) -> Option<Arc<StateSnapshot<T>>> {
        let mut snapshot = self.snapshot();
        while !accepts(&snapshot) {
            snapshot = self.changed(&snapshot).await?;
        }
        Some(snapshot)
    }

    /// Makes the value stale: the loop computes it again after its delay. An update under way does not count: there will be another.
    #[track_caller]
    pub fn invalidate(&self) {
        self.inner().function.invalidate(&self.inner().id);
    }

    /// Makes the value stale and updates it without delay. An update under way does not count: there will be another. The result,
    /// which need not be awaited, is the snapshot of an update that began after this call; if the state has ended, its last.
    #[track_caller]
    pub fn recompute(&self) -> StateWait<Arc<StateSnapshot<T>>> {
        // First the mark, then the word: a loop that has heard of it reads what comes after.
        self.invalidate();
        let shown = &self.inner().shown;
        let mine = shown.change(|shown| {
            shown.asked += 1;
            shown.asked
        });
        StateWait(Box::pin(shown.until(move |shown| (shown.answered >= mine || shown.ended).then(|| shown.snapshot.clone()))))
    }

    /// Stops the state: no update begins any more. One that is under way may end within the grace period and is published; then it is
    /// dropped. The result, which need not be awaited, is the end: then the closure and the dependencies are let go, waits are over,
    /// reads are errors ([`StateError::is_stopped`]) and whatever was made from the value is stale. The last snapshot stays.
    pub fn stop(&self) -> StateWait<()> {
        self.inner().ask_to_stop();
        StateWait(Box::pin(self.inner().shown.until(|shown| shown.ended.then_some(()))))
    }

    /// Whether it was stopped; an update may still be under way.
    pub fn is_stopped(&self) -> bool {
        self.inner().shown.see(|shown| shown.stopping)
    }
}

impl<T: Value> Clone for ComputedState<T> {
    fn clone(&self) -> ComputedState<T> {
        ComputedState(self.0.clone())
    }
}

impl<T: Value + std::fmt::Debug> std::fmt::Debug for ComputedState<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComputedState").field("id", &self.inner().id).field("snapshot", &self.snapshot()).finish()
    }
}

/// A read of a state under way: see [`ComputedState::get`]. Dropping it leaves the flight.
#[must_use = "a read does nothing until it is awaited"]
pub struct StateRead<T: Value> {
    /// `None`: the state has ended.
    read: Option<GetFuture<Arc<Made<T>>>>,
    /// The node is not removed for good before the read is over.
    _state: Arc<Inner<T>>,
}

impl<T: Value> Future for StateRead<T> {
    type Output = Result<T, StateError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, StateError>> {
        let Some(read) = &mut self.get_mut().read else { return Poll::Ready(Err(StateError::stopped())) };
        Pin::new(read).poll(cx).map(|got| got?.result.as_deref().cloned().map_err(Clone::clone))
    }
}

impl<T: Value> std::fmt::Debug for StateRead<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StateRead").field(&self.read).finish()
    }
}

pub(crate) fn next_id(next: &AtomicU64) -> u64 {
    // Relaxed: only uniqueness matters.
    next.fetch_add(1, Ordering::Relaxed)
}
