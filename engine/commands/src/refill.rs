//! What is done after everything has become stale at once.
//!
//! What is asked for is computed when it is asked for, and that alone may be a rush on the database; a server that also wants to
//! compute ahead of that what it will be asked for must not do so in the same moment as all the others that lost the same operations.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::log::BoxFuture;

type Run = dyn Fn() -> BoxFuture<'static, ()> + Send + Sync;

/// Computes ahead what was lost, after a random part of a time.
#[derive(Clone)]
pub(crate) struct Refill {
    within: Duration,
    run: Arc<Run>,
}

impl fmt::Debug for Refill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refill").field("within", &self.within).finish_non_exhaustive()
    }
}

impl Refill {
    pub(crate) fn new<F: Future<Output = ()> + Send + 'static>(within: Duration, run: impl Fn() -> F + Send + Sync + 'static) -> Refill {
        Refill { within, run: Arc::new(move || Box::pin(run())) }
    }

    /// Starts it, in place of one that is still under way or waits.
    pub(crate) fn start(&self, tasks: &mut JoinSet<()>) {
        tasks.abort_all();
        let (wait, run) = (self.within.mul_f64(fastrand::f64()), self.run.clone());
        tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            run().await;
        });
    }
}
