//! A small state under a lock, and futures that wait until it is as they want: a condition variable for tasks.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slotmap::{DefaultKey, SlotMap};

use crate::sync::{Arc, Mutex, lock};

/// The state and who waits for it. What is run under the lock is the engine's own and short; wakers are cloned, woken and dropped
/// outside it.
#[derive(Debug)]
pub(crate) struct Signal<S>(Mutex<Inner<S>>);

#[derive(Debug)]
struct Inner<S> {
    state: S,
    /// `None`: told of a change, and not polled since.
    waiting: SlotMap<DefaultKey, Option<Waker>>,
}

impl<S> Signal<S> {
    pub(crate) fn new(state: S) -> Signal<S> {
        Signal(Mutex::new(Inner { state, waiting: SlotMap::new() }))
    }

    pub(crate) fn see<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&lock(&self.0).state)
    }

    /// Changes the state, then wakes all who wait. What must not be dropped under the lock is handed out as the result.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let (result, wakers) = {
            let mut inner = lock(&self.0);
            let result = change(&mut inner.state);
            (result, inner.waiting.values_mut().filter_map(Option::take).collect::<Vec<Waker>>())
        };
        for waker in wakers {
            // A waker is an executor's code; should it panic, the others are still woken.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        result
    }

    /// Completes with what `wanted` gives, once it gives something. It looks after the waker is in its place and under the lock that
    /// changes take, so that no change is missed.
    pub(crate) fn until<R, F: Fn(&S) -> Option<R>>(self: &Arc<Self>, wanted: F) -> Until<S, F> {
        Until { condition: self.clone(), wanted, key: None }
    }

    /// Futures that wait, or have waited and were not dropped.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.0).waiting.len()
    }
}

/// See [`Signal::until`]. Dropping it unregisters.
pub(crate) struct Until<S, F> {
    condition: Arc<Signal<S>>,
    wanted: F,
    key: Option<DefaultKey>,
}

// Nothing is pinned in place: `wanted` is called through a reference.
impl<S, F> Unpin for Until<S, F> {}

impl<S, R, F: Fn(&S) -> Option<R>> Future for Until<S, F> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let this = self.get_mut();
        let waker = Some(cx.waker().clone());
        let (_old, polled) = {
            let mut inner = lock(&this.condition.0);
            match (this.wanted)(&inner.state) {
                Some(result) => (waker, Poll::Ready(result)),
                None => match this.key.and_then(|key| inner.waiting.get_mut(key)) {
                    Some(place) => (std::mem::replace(place, waker), Poll::Pending),
                    None => {
                        this.key = Some(inner.waiting.insert(waker));
                        (None, Poll::Pending)
                    }
                },
            }
        };
        polled
    }
}

impl<S, F> Drop for Until<S, F> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let gone = lock(&self.condition.0).waiting.remove(key);
            drop(gone);
        }
    }
}

/// The first of two futures to end, the first one asked first.
pub(crate) enum First<A, B> {
    One(A),
    Other(B),
}

pub(crate) async fn first<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> First<A, B> {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(result) = one.as_mut().poll(cx) {
            return Poll::Ready(First::One(result));
        }
        other.as_mut().poll(cx).map(First::Other)
    })
    .await
}

/// Pending once: gives the executor a turn.
pub(crate) async fn breathe() {
    let mut breathed = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut breathed, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting(AtomicUsize);
    impl std::task::Wake for Counting {
        fn wake(self: Arc<Counting>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wait_is_woken_by_a_change_ends_when_it_is_satisfied_and_leaves_nothing_behind() {
        let condition = Arc::new(Signal::new(0));
        let counting = Arc::new(Counting(AtomicUsize::new(0)));
        let waker = Waker::from(counting.clone());
        let mut cx = Context::from_waker(&waker);
        let mut wait = condition.until(|&n| (n > 1).then_some(n));
        let dropped = condition.until(|&n| (n > 1).then_some(n));
        assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
        condition.change(|n| *n = 1);
        assert_eq!(counting.0.load(Ordering::SeqCst), 1);
        assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
        condition.change(|n| *n = 2);
        assert_eq!(counting.0.load(Ordering::SeqCst), 2);
        assert_eq!(Pin::new(&mut wait).poll(&mut cx), Poll::Ready(2));
        drop((wait, dropped));
        assert_eq!(condition.waiting(), 0);
    }
}
