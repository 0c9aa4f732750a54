//! One connection: a client, the task that drives it, and the statements prepared on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification, Statement};

use super::failure::failure;
use super::names::Names;
use crate::store_error::{StoreError, StoreErrorKind};

/// How long a session that was let go of may take to end before its socket is closed over its head.
const LINGER: Duration = Duration::from_secs(5);

/// With what, and as what, connections are made.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) config: Config,
    pub(super) names: Arc<Names>,
    /// Where connections are driven and cleaned up, also if they are let go of outside of a runtime.
    pub(super) runtime: Handle,
}

impl Connector {
    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        self.connect_and_hear(|_| {}).await
    }

    /// A new connection, whose notifications go to a function.
    pub(super) async fn connect_and_hear(&self, hear: impl Fn(Notification) + Send + 'static) -> Result<Connection, StoreError> {
        // A bound over the whole: the driver's own covers the TCP connection only, not a server that never answers.
        let limit = self.config.get_connect_timeout().copied().unwrap_or(LINGER) * 2;
        let connected = timeout(limit, self.config.connect(NoTls)).await;
        let connected = connected.map_err(|_| StoreError::new(StoreErrorKind::Unavailable, "connecting to PostgreSQL in time"))?;
        let (client, mut messages) = connected.map_err(|error| connect_failure(error))?;
        let (alive, ended) = watch::channel(());
        let driver = self.runtime.spawn(async move {
            // Dropped when the connection ends: that is how others find out.
            let _alive = alive;
            loop {
                match std::future::poll_fn(|cx| messages.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => hear(notification),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a PostgreSQL connection has ended");
                        return;
                    }
                    None => return,
                }
            }
        });
        let driver = driver.abort_handle();
        let runtime = self.runtime.clone();
        Ok(Connection { client: Some(client), driver, ended, runtime, names: self.names.clone(), statements: Mutex::default() })
    }
}

fn connect_failure(error: tokio_postgres::Error) -> StoreError {
    const DOING: &str = "connecting to PostgreSQL";
    match error.as_db_error() {
        // A wrong password or a missing database will not be better the next time.
        Some(_) => failure(DOING, error),
        None => StoreError::with(StoreErrorKind::Unavailable, DOING, error),
    }
}

/// A session. Dropping it cancels what it is at and ends it, so that neither a transaction nor a lock of it stays behind.
#[derive(Debug)]
pub(super) struct Connection {
    /// `None` only while it is being dropped.
    client: Option<Client>,
    driver: tokio::task::AbortHandle,
    ended: watch::Receiver<()>,
    runtime: Handle,
    names: Arc<Names>,
    statements: Mutex<HashMap<&'static str, Statement>>,
}

impl Connection {
    pub(super) fn client(&self) -> &Client {
        #[expect(clippy::expect_used, reason = "it is taken by `drop` alone")]
        self.client.as_ref().expect("a connection in use has a client")
    }

    /// Whether it is known to be gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client().is_closed()
    }

    /// Ready when the session is over, whoever has ended it.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent.
        while ended.changed().await.is_ok() {}
    }

    /// A statement, prepared at its first use on this connection. `{s}` in it stands for the schema.
    pub(super) async fn statement(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client().prepare(&self.names.fill(sql)).await?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(sql, statement.clone());
        Ok(statement)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let (driver, ended) = (self.driver.clone(), self.ended.clone());
        if ended.has_changed().is_err() {
            return;
        }
        self.runtime.spawn(async move {
            // A backend notices a closed socket only when it next reads or writes: one in a long query, or waiting for a lock, would
            // go on. Cancelled, it comes to the farewell that the driver sends once the client is gone.
            let cancel = client.cancel_token();
            drop(client);
            let mut gone = ended;
            let quick = timeout(Duration::from_millis(20), gone.changed()).await.is_ok();
            if !quick {
                let _ = timeout(LINGER, cancel.cancel_query(NoTls)).await;
                let _ = timeout(LINGER, gone.changed()).await;
            }
            driver.abort();
        });
    }
}
