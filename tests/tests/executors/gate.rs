//! Something for bodies to wait at, and to announce that they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// Bodies that come by are counted and wait until it is open.
#[derive(Clone)]
pub(crate) struct Gate {
    open: Arc<watch::Sender<bool>>,
    arrived: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

/// Says when the body it lives in is over.
pub(crate) struct Passing(Arc<AtomicUsize>);

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { open: Arc::new(watch::Sender::new(false)), arrived: Arc::default(), dropped: Arc::default() }
    }

    pub(crate) async fn pass(&self) -> Passing {
        let passing = Passing(self.dropped.clone());
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.open.subscribe();
        let _ = seen.wait_for(|open| *open).await;
        passing
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Bodies that came.
    pub(crate) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    /// Bodies that are over: ended, or dropped half-way.
    pub(crate) fn over(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

/// Waits for something another thread does. Yields; never sleeps for a guessed time.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < super::runtime::HANGS, "waited too long for: {what}");
        std::thread::yield_now();
    }
}
