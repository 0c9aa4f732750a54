//! When a value of the other end is stale.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The end of a value at the other end.
#[derive(Default)]
pub(crate) struct End {
    has_come: AtomicBool,
    come: Notify,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("has_come", &self.has_come()).finish_non_exhaustive()
    }
}

impl End {
    pub(crate) fn has_come(&self) -> bool {
        // Acquire, with the release of whoever says so: what it knew is known to who asks.
        self.has_come.load(Ordering::Acquire)
    }

    /// Runs something when it comes, or now if it has come. One thing: another takes its place.
    pub(crate) fn then(&self, run: impl FnOnce() + Send + 'static) {
        let mut then = self.then.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_come() {
            let before = then.replace(Box::new(run));
            drop(then);
            // It may hold what is the user's.
            drop(before);
            return;
        }
        drop(then);
        run();
    }

    /// No lock is held: what runs then may make calls.
    pub(crate) fn tell(&self) {
        // Before it looks for what is to run, which is put there by who has not seen this.
        self.has_come.store(true, Ordering::Release);
        self.come.notify_waiters();
        let then = self.then.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(run) = then {
            run();
        }
    }

    pub(crate) async fn wait(&self) {
        let come = self.come.notified();
        let mut come = std::pin::pin!(come);
        // Counted among the waiters before it looks.
        come.as_mut().enable();
        if !self.has_come() {
            come.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Sees when it is dropped whether the end's lock is free.
    struct Probe(Arc<End>, Arc<AtomicBool>);

    impl Drop for Probe {
        fn drop(&mut self) {
            self.1.store(self.0.then.try_lock().is_ok(), Ordering::Relaxed);
        }
    }

    #[test]
    fn what_was_to_run_is_not_dropped_under_the_lock_by_what_takes_its_place() {
        let (end, free) = (Arc::<End>::default(), Arc::<AtomicBool>::default());
        let probe = Probe(end.clone(), free.clone());
        end.then(move || drop(probe));
        end.then(|| {});
        assert!(free.load(Ordering::Relaxed));
    }
}
