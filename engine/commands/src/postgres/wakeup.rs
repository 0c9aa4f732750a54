//! Hints over `NOTIFY`, on a connection of their own.
//!
//! Never in the transaction of the user's rows: a transaction with a notification holds a lock of the whole database cluster while it
//! commits, and all such commits would stand in one line. Here many commits become one notification, in a transaction of nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::connection::{Connection, Connector};
use super::failure::failure;
use crate::store_error::StoreError;
use crate::wakeup::{Hinter, Hints, Wakeup};

/// The first and the longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The hints of one schema. The connection ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct PostgresWakeup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hinter: Hinter,
    wanted: Arc<Notify>,
    worker: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl PostgresWakeup {
    /// Starts to listen.
    pub(super) fn new(connector: Arc<Connector>) -> PostgresWakeup {
        let (hinter, wanted) = (Hinter::new(), Arc::new(Notify::new()));
        let runtime = connector.runtime.clone();
        let worker = runtime.spawn(work(connector, hinter.clone(), wanted.clone())).abort_handle();
        PostgresWakeup(Arc::new(Inner { hinter, wanted, worker }))
    }
}

impl Wakeup for PostgresWakeup {
    fn notify(&self) {
        self.0.hinter.hint();
        // One permit at most: however many commits come while one notification is under way, one follows it.
        self.0.wanted.notify_one();
    }

    fn hints(&self) -> Hints {
        self.0.hinter.hints()
    }
}

/// Listens and notifies, over one connection after the other.
async fn work(connector: Arc<Connector>, hinter: Hinter, wanted: Arc<Notify>) {
    let channel = connector.names.channel();
    // Every notification comes back to its sender, who has hinted itself already.
    let me = format!("{:016x}", fastrand::u64(..));
    // A notification that was asked for and not seen to be sent.
    let owed = AtomicBool::new(false);
    let mut backoff = BACKOFF.0;
    loop {
        match listen(&connector, &channel, &me, &hinter).await {
            Ok(connection) => {
                backoff = BACKOFF.0;
                // What was notified while nobody listened is lost.
                hinter.hint();
                if let Err(error) = notify(&connection, &channel, &me, &wanted, &owed).await {
                    tracing::warn!(%error, "the connection for hints was lost: servers find out by polling until it is back");
                }
            }
            Err(error) => tracing::warn!(%error, "no connection for hints: servers find out by polling until there is one"),
        }
        tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64())).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

async fn listen(connector: &Connector, channel: &str, me: &str, hinter: &Hinter) -> Result<Connection, StoreError> {
    let (hinter, own) = (hinter.clone(), me.to_owned());
    let hear = move |notification: tokio_postgres::Notification| {
        if notification.payload() != own {
            hinter.hint();
        }
    };
    let connection = connector.connect_and_hear(hear).await?;
    let client = connection.client();
    let prepared = async {
        // A notification is a transaction with a commit record of its own. Nobody minds if a crash takes it back, so none waits for the
        // disk: that would delay the hint, and take the disk's time from commits that need it.
        client.batch_execute("SET synchronous_commit = off").await?;
        client.batch_execute(&format!("LISTEN {channel}")).await
    };
    prepared.await.map_err(|error| failure("listening for hints", error))?;
    Ok(connection)
}

/// Sends what is wanted until the connection ends.
async fn notify(connection: &Connection, channel: &str, me: &str, wanted: &Notify, owed: &AtomicBool) -> Result<(), StoreError> {
    let sql = format!("NOTIFY {channel}, '{me}'");
    loop {
        if !owed.load(Ordering::Relaxed) {
            tokio::select! {
                () = wanted.notified() => owed.store(true, Ordering::Relaxed),
                () = connection.ended() => return Err(StoreError::new(crate::StoreErrorKind::Unavailable, "waiting for hints")),
            }
        }
        connection.client().batch_execute(&sql).await.map_err(|error| failure("sending a hint", error))?;
        owed.store(false, Ordering::Relaxed);
    }
}
