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

/// How long a session that is at nothing takes to end.
const FAREWELL: Duration = Duration::from_millis(20);

/// A server process in a long query looks after its client now and then, where it can (since PostgreSQL 14): it would keep the locks of
/// a program that was killed until the query's end.
const WATCHFUL: &str = "SELECT set_config(name, '5s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";

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
        let (client, mut messages) = connected.map_err(connect_failure)?;
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
        let connection = Connection { client, driver, ended, runtime, names: self.names.clone(), statements: Mutex::default() };
        let set = timeout(limit, connection.client().batch_execute(WATCHFUL)).await;
        let set = set.map_err(|_| StoreError::new(StoreErrorKind::Unavailable, "setting up a session in time"))?;
        set.map_err(|error| failure("setting up a session", error))?;
        Ok(connection)
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
    client: Client,
    driver: tokio::task::AbortHandle,
    ended: watch::Receiver<()>,
    runtime: Handle,
    names: Arc<Names>,
    statements: Mutex<HashMap<&'static str, Statement>>,
}

impl Connection {
    pub(super) fn client(&self) -> &Client {
        &self.client
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
        let (driver, mut ended) = (self.driver.clone(), self.ended.clone());
        if ended.has_changed().is_err() {
            return;
        }
        // A backend notices a closed socket only when it next reads or writes: one in a long query, or waiting for a lock, would go on.
        // Cancelled, it comes to the farewell that the driver sends once the client is gone, which is right after this.
        let cancel = self.client.cancel_token();
        self.runtime.spawn(async move {
            if timeout(FAREWELL, ended.changed()).await.is_err() {
                // What is left is a session that cannot be reached, which the socket's end will find out.
                let _ = timeout(LINGER, cancel.cancel_query(NoTls)).await;
                let _ = timeout(LINGER, ended.changed()).await;
            }
            driver.abort();
        });
    }
}
