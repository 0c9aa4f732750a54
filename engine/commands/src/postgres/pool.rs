//! Connections that are used again.
//!
//! `deadpool-postgres` was weighed and left: what is given back to it with an open transaction lies in it with the transaction open
//! until somebody takes it out again. Here a connection goes back only once it is known to be clean; one that was let go of in the
//! middle is rolled back by a task of its own, and closed if that takes long.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::{Connection, Connector};
use super::failure::{failure, spoils_connection};
use crate::store_error::{StoreError, StoreErrorKind};

/// How long a rollback may take before the session is ended instead: the query before it is still running.
const ROLLBACK: Duration = Duration::from_millis(100);

/// At most so many connections. Those who wait for one are served in turn, and leave the queue when they are dropped.
pub(super) struct Pool {
    connector: Arc<Connector>,
    permits: Arc<Semaphore>,
    /// The one that was used last is used next.
    idle: Mutex<Vec<Arc<Connection>>>,
    patience: Duration,
    /// How long what is [bounded](Pool::bounded) may take.
    limit: Duration,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Pool").field("idle", &idle).field("free", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, most: usize, patience: Duration, limit: Duration) -> Pool {
        Pool { connector, permits: Arc::new(Semaphore::new(most.max(1))), idle: Mutex::default(), patience, limit }
    }

    /// Something that is given up when it takes too long, the wait for a connection included: what hangs would keep its connection from
    /// everybody else.
    ///
    /// # Errors
    /// Its own, and [`Unavailable`](StoreErrorKind::Unavailable) when it was given up.
    pub(super) async fn bounded<T>(&self, doing: &str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |_| StoreError::new(StoreErrorKind::Unavailable, format!("{doing} within {:?}", self.limit));
        timeout(self.limit, work).await.map_err(late)?
    }

    /// Statements outside of a transaction, on any connection, [within their time](Pool::bounded). Between two steps others may have it.
    pub(super) async fn step<T>(
        self: &Arc<Self>,
        doing: &str,
        work: impl AsyncFnOnce(&Lease) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let step = async {
            let lease = self.get().await?;
            match work(&lease).await {
                Ok(done) => {
                    lease.give_back();
                    Ok(done)
                }
                Err(error) => Err(lease.failed(doing, error)),
            }
        };
        self.bounded(doing, step).await
    }

    /// A connection that is in no transaction.
    ///
    /// # Errors
    /// [`Unavailable`](StoreErrorKind::Unavailable) if none was free in time, or none could be made.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Lease, StoreError> {
        let permit = timeout(self.patience, self.permits.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "waiting for a connection of the pool"));
        };
        let (connection, fresh) = match self.take_idle() {
            Some(connection) => (connection, false),
            None => (Arc::new(self.connector.connect().await?), true),
        };
        Ok(Lease { connection, permit: Some(permit), then: Then::RollBack, fresh, pool: self.clone() })
    }

    fn take_idle(&self) -> Option<Arc<Connection>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn put_idle(&self, connection: Arc<Connection>, permit: Option<OwnedSemaphorePermit>) {
        if !connection.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        drop(permit);
    }
}

/// What becomes of a connection when its lease ends.
#[derive(Clone, Copy)]
enum Then {
    RollBack,
    Keep,
    Close,
}

/// A connection taken out of the pool. Dropping it, at whatever it is, rolls back or closes.
pub(super) struct Lease {
    connection: Arc<Connection>,
    /// Others get their turn when the connection is clean again, not before.
    permit: Option<OwnedSemaphorePermit>,
    then: Then,
    fresh: bool,
    pool: Arc<Pool>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Lease {
    /// Gives back a connection on which nothing is under way and no transaction is open.
    pub(super) fn give_back(mut self) {
        self.then = Then::Keep;
    }

    /// Whether the connection was made for this lease.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Ends the session.
    pub(super) fn close(mut self) {
        self.then = Then::Close;
    }

    /// After a failure: gives back what is still good once it is rolled back, closes what is not.
    pub(super) fn failed(self, doing: &str, error: tokio_postgres::Error) -> StoreError {
        if spoils_connection(&error) {
            self.close();
        }
        failure(doing, error)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (connection, permit, pool) = (self.connection.clone(), self.permit.take(), self.pool.clone());
        match self.then {
            Then::Close => {}
            Then::Keep => pool.put_idle(connection, permit),
            Then::RollBack if connection.is_closed() => {}
            Then::RollBack => {
                let runtime = pool.connector.runtime.clone();
                runtime.spawn(async move {
                    let clean = timeout(ROLLBACK, connection.client().batch_execute("ROLLBACK")).await;
                    // Never used again otherwise: the cancellation that comes with its end has no address but the session.
                    if matches!(clean, Ok(Ok(()))) {
                        pool.put_idle(connection, permit);
                    }
                });
            }
        }
    }
}
