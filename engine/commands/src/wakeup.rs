//! Hints that something was committed. Never trusted: a hint may be lost, doubled, late or wrong, and costs at most one reading.

use std::fmt;

use tokio::sync::watch;

/// Tells other servers to read the log now, and hears from them.
pub trait Wakeup: fmt::Debug + Send + Sync + 'static {
    /// Something was committed here. Returns at once; many in a row may become one.
    fn notify(&self);

    /// Hints of others and of this server itself, from now on.
    fn hints(&self) -> Hints;
}

impl<W: Wakeup + ?Sized> Wakeup for std::sync::Arc<W> {
    fn notify(&self) {
        (**self).notify();
    }

    fn hints(&self) -> Hints {
        (**self).hints()
    }
}

/// A stream of hints in which one stands for all since the last.
#[derive(Clone, Debug)]
pub struct Hints(watch::Receiver<u64>);

impl Hints {
    /// Waits for a hint that came after the last one. Pending for ever when the source is gone.
    ///
    /// Cancel safe: a hint that was not returned is not lost.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The sending end of [`Hints`]: what an implementation of [`Wakeup`] is made with.
#[derive(Clone, Debug)]
pub struct Hinter(watch::Sender<u64>);

impl Hinter {
    /// Without listeners yet.
    pub fn new() -> Hinter {
        Hinter(watch::Sender::new(0))
    }

    /// Wakes all listeners.
    pub fn hint(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A new listener, who hears what comes from now on.
    pub fn hints(&self) -> Hints {
        Hints(self.0.subscribe())
    }
}

impl Default for Hinter {
    fn default() -> Self {
        Self::new()
    }
}

/// Hints within one process only: enough for one server, and for tests of what happens when none arrive.
#[derive(Clone, Debug, Default)]
pub struct LocalWakeup(Hinter);

impl Wakeup for LocalWakeup {
    fn notify(&self) {
        self.0.hint();
    }

    fn hints(&self) -> Hints {
        self.0.hints()
    }
}
