//! Polling a future without a runtime, so that an async row measures the engine and not an executor.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs futures to completion on the thread that made it, parking while they are pending.
#[derive(Debug)]
pub struct Driver {
    waker: Waker,
}

impl Driver {
    /// A driver for the current thread.
    pub fn new() -> Self {
        Self { waker: Waker::from(Arc::new(Unpark(thread::current()))) }
    }

    /// Polls `future` until it is done; one that is ready at once costs one poll and allocates nothing.
    #[inline]
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut context = Context::from_waker(&self.waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}
