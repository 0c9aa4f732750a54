//! What a handler works in.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use tokio_postgres::{Client, IsolationLevel};

use super::failure::spoils_connection;
use super::pool::{Lease, Pool};
use crate::store_error::{StoreError, StoreErrorKind};

/// A transaction on a connection of its own: what `op.tx()` gives, as a [`tokio_postgres::Client`].
///
/// It is committed by the command, together with its operation. A handler that says `COMMIT`, `ROLLBACK` or `PREPARE TRANSACTION` on it
/// takes its rows out of that: this is noticed when the command commits, which then fails and writes nothing of its own, but what the
/// handler has committed by itself stays. Savepoints are the handler's own business.
///
/// What is set with `SET` without `LOCAL`, and session locks and temporary tables, outlive the transaction on that connection and
/// will be met by another handler.
pub struct PostgresTx {
    lease: Lease,
}

impl fmt::Debug for PostgresTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTx").finish_non_exhaustive()
    }
}

impl Deref for PostgresTx {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.lease.client()
    }
}

/// The statement a transaction begins with.
///
/// The setting ends with the transaction, whatever ends it. That is what the append looks at: it writes nothing if the handler has ended
/// the transaction, in which each of its statements would be committed by itself.
///
/// The lock is nobody's way: all take it shared. It tells the transaction from those of strangers, see `settled`.
pub(super) fn begin_sql(isolation: Option<IsolationLevel>, mark: i64) -> Arc<str> {
    let isolation = match isolation {
        None => "",
        Some(IsolationLevel::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        Some(IsolationLevel::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
        Some(_) => " ISOLATION LEVEL READ COMMITTED",
    };
    format!("BEGIN{isolation}; SET LOCAL wellspring.tx = 'open'; SELECT pg_advisory_xact_lock_shared({mark})").into()
}

impl PostgresTx {
    /// Begins. A connection that turns out to be gone is replaced: nothing has happened on it yet.
    pub(super) async fn begin(pool: &Arc<Pool>, sql: &str) -> Result<PostgresTx, StoreError> {
        const DOING: &str = "beginning a transaction";
        // Connections that went with a restarted server are found out one by one; a new one follows the last of them.
        loop {
            let lease = pool.get().await?;
            let fresh = lease.is_fresh();
            match lease.client().batch_execute(sql).await {
                Ok(()) => return Ok(PostgresTx { lease }),
                Err(error) if spoils_connection(&error) && !fresh => lease.close(),
                Err(error) => return Err(lease.failed(DOING, error)),
            }
        }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The transaction has ended well.
    pub(super) fn ended(self) {
        self.lease.give_back();
    }

    /// Ends the session with it.
    pub(super) fn close(self) {
        self.lease.close();
    }

    /// Rolls back after a failure.
    pub(super) fn failed(self, doing: &str, error: tokio_postgres::Error) -> StoreError {
        self.lease.failed(doing, error)
    }

    /// Sends the end of the transaction.
    pub(super) async fn send_commit(&self) -> Result<(), tokio_postgres::Error> {
        self.lease.client().batch_execute("COMMIT").await
    }

    /// The handler has ended the transaction itself.
    pub(super) fn taken_away() -> StoreError {
        let doing = "committing an operation whose handler has ended the transaction itself (or has reset the session's settings)";
        StoreError::new(StoreErrorKind::Other, doing)
    }
}
