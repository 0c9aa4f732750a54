//! A key's generations as a stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::computed::{Computed, Invalidated, Renew, Renewal};
use crate::fault::Fault;
use crate::follow::{Follow, Verdict};
use crate::graph::Graph;
use crate::handle::{Handle, Origin};
use crate::key::{Key, Lookup};
use crate::sync::Arc;
use crate::timer::Sleep;
use crate::value::Value;

/// The generations of a key that brought another value: see [`Computed::changes`].
///
/// Its consumer drives it, nothing else: a generation that nobody polls for is neither verified nor computed. Dropping it ends it.
#[must_use = "a stream does nothing until it is polled"]
pub struct Changes<V> {
    graph: Arc<Graph>,
    origin: Arc<dyn Renew<V>>,
    follow: Follow,
    step: Step<V>,
}

enum Step<V> {
    Ask,
    /// A read under way, and the last commit before it.
    Reading(Renewal<V>, u64),
    Watching(Invalidated),
    Waiting(Sleep),
    Over,
}

// Nothing is pinned in place: the read is boxed.
impl<V> Unpin for Changes<V> {}

impl<V: Value> Changes<V> {
    pub(crate) fn new(graph: Arc<Graph>, origin: Arc<dyn Renew<V>>) -> Changes<V> {
        Changes { graph, origin, follow: Follow::default(), step: Step::Ask }
    }

    /// The next changed generation: [`poll_next`](Stream::poll_next) as a future. `None` as the stream's.
    pub async fn next(&mut self) -> Option<Result<Computed<V>, Fault>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn wait(&self, delay: Duration) -> Step<V> {
        Step::Waiting(Sleep::new(self.graph.clone(), delay))
    }

    /// A read has ended; what to give out, if anything. Armed first, then compared.
    fn take(&mut self, got: Result<Computed<V>, Fault>, began: u64, cx: &mut Context<'_>) -> Option<Result<Computed<V>, Fault>> {
        match got {
            Ok(computed) => {
                let mut end = computed.invalidated();
                // Over already? Then so says the verdict.
                let _ = Pin::new(&mut end).poll(cx);
                match self.follow.judge(&self.graph, computed.place(), began) {
                    Verdict::Again => {
                        self.step = Step::Ask;
                        None
                    }
                    Verdict::Loose(delay) => {
                        self.step = self.wait(delay);
                        Some(Ok(computed))
                    }
                    verdict => {
                        self.step = Step::Watching(end);
                        (verdict == Verdict::News).then_some(Ok(computed))
                    }
                }
            }
            // Nothing can follow.
            Err(Fault::Gone) => {
                self.step = Step::Over;
                Some(Err(Fault::Gone))
            }
            Err(fault) => {
                let delay = self.follow.failed();
                self.step = self.wait(delay);
                Some(Err(fault))
            }
        }
    }
}

impl<K: Key, V: Value> Handle<K, V> {
    /// The key's values from now on, as [`Computed::changes`] gives them; the first poll reads the current one.
    pub fn changes<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> Changes<V> {
        Changes::new(self.graph.clone(), Arc::new(Origin { handle: self.clone(), key: key.to_key() }))
    }
}

impl<V: Value> Stream for Changes<V> {
    type Item = Result<Computed<V>, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match &mut this.step {
                Step::Over => return Poll::Ready(None),
                Step::Ask => {
                    let began = this.graph.finished_commit();
                    this.step = Step::Reading(this.origin.clone().renew(), began);
                }
                Step::Reading(read, began) => {
                    let began = *began;
                    let Poll::Ready(got) = read.as_mut().poll(cx) else { return Poll::Pending };
                    if let Some(item) = this.take(got, began, cx) {
                        return Poll::Ready(Some(item));
                    }
                    if matches!(this.step, Step::Ask) {
                        // The value changes faster than it can be read: other tasks have their turn in between.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Step::Watching(end) => match Pin::new(end).poll(cx) {
                    Poll::Ready(()) => this.step = Step::Ask,
                    Poll::Pending => return Poll::Pending,
                },
                Step::Waiting(sleep) => match Pin::new(sleep).poll(cx) {
                    Poll::Ready(()) => this.step = Step::Ask,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

impl<V> std::fmt::Debug for Changes<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = match self.step {
            Step::Ask | Step::Reading(..) => "reading",
            Step::Watching(_) => "watching",
            Step::Waiting(_) => "waiting after a fault",
            Step::Over => "over",
        };
        f.debug_struct("Changes").field("step", &step).finish_non_exhaustive()
    }
}
