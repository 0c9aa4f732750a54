//! Keeping a lease by renewing it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::log::BoxFuture;
use crate::store_error::StoreError;

/// A name that is held for a while in a server, as its holder sees it.
pub(crate) trait Lease: fmt::Debug + Send + Sync + 'static {
    /// Holds it for the whole time again; whether it was still held.
    fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Gives it up, as well as that can be done now.
    fn release(&self) -> BoxFuture<'_, ()>;
}

/// Renews a lease at a third of its time until it is dropped or lost. It counts as lost as soon as the server may have given it to
/// somebody else, by this process' clock and counted from before the last renewal was asked for: so the holder is the first to know.
#[derive(Debug)]
pub(crate) struct Kept<L: Lease> {
    lease: Arc<L>,
    lost: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl<L: Lease> Kept<L> {
    /// Of a lease that was asked for at a moment.
    pub(crate) fn new(lease: L, asked: Instant, time: Duration) -> Kept<L> {
        let lease = Arc::new(lease);
        let (losing, lost) = watch::channel(false);
        let task = tokio::spawn(keep(lease.clone(), asked, time, losing));
        Kept { lease, lost, task }
    }

    pub(crate) fn lease(&self) -> &L {
        &self.lease
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    pub(crate) async fn lost(&self) {
        // The task ends only by saying so.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }
}

impl<L: Lease> Drop for Kept<L> {
    fn drop(&mut self) {
        self.task.abort();
        // Outside a runtime nothing can be sent any more: the lease runs out by itself.
        if !self.is_lost()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let lease = self.lease.clone();
            runtime.spawn(async move { lease.release().await });
        }
    }
}

async fn keep(lease: Arc<impl Lease>, mut good: Instant, time: Duration, losing: watch::Sender<bool>) {
    let mut next = good + time / 3;
    loop {
        tokio::time::sleep_until(next).await;
        let asked = Instant::now();
        match tokio::time::timeout_at(good + time, lease.renew()).await {
            Ok(Ok(true)) => {
                good = asked;
                next = good + time / 3;
            }
            Ok(Err(error)) if Instant::now() + time / 12 < good + time => {
                tracing::debug!(%error, "a lease could not be renewed: trying again");
                next = Instant::now() + time / 12;
            }
            Ok(_) | Err(_) => break,
        }
    }
    tracing::warn!(?lease, "a lease is lost");
    losing.send_replace(true);
    // What is lost stays lost: whoever waits finds the value, and nobody else changes it.
    losing.closed().await;
}
