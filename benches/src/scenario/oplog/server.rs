//! A server with one command, over any store.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;
use wellspring::{Engine, Function};
use wellspring_commands::postgres::Postgres;
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::{
    BoxFuture, Builder, Command, CommandId, InvalidateError, LogPosition, LoggedFunctions, Op, Relay, Server, ServerStats, Store,
};

use super::clock;
use super::site::text;

/// The rows that commands write.
pub(super) const SQLITE_TABLE: &str = "CREATE TABLE IF NOT EXISTS bench (key INTEGER PRIMARY KEY, value INTEGER NOT NULL)";
pub(super) const SQLITE_UPSERT: &str =
    "INSERT INTO bench (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
pub(super) const POSTGRES_SCHEMA: &str = "{schema}";
pub(super) const POSTGRES_UPSERT: &str =
    "INSERT INTO {schema}.bench (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// Writes one row and makes its key stale.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Put {
    key: u64,
    value: i64,
}

impl Command for Put {
    const NAME: &'static str = "Put";
    type Output = i64;
    type Error = Refused;
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Key(#[from] InvalidateError),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
}

/// A store that can write the row.
pub(super) trait Rows: Store + Sized {
    fn put(op: &Op<Self>, upsert: Arc<str>, key: i64, value: i64) -> impl Future<Output = Result<(), Refused>> + Send;
}

impl Rows for Sqlite {
    async fn put(op: &Op<Sqlite>, upsert: Arc<str>, key: i64, value: i64) -> Result<(), Refused> {
        op.write(move |write| write.prepare_cached(&upsert)?.execute((key, value)).map(drop));
        Ok(())
    }
}

impl Rows for Postgres {
    async fn put(op: &Op<Postgres>, upsert: Arc<str>, key: i64, value: i64) -> Result<(), Refused> {
        // One round trip: with the types given nothing has to be prepared.
        op.tx().query_typed(&upsert, &[(&key, Type::INT8), (&value, Type::INT8)]).await?;
        Ok(())
    }
}

/// A server whatever its store is.
pub(super) trait AnyServer: Send + Sync {
    fn put(&self, key: u64, value: i64, id: Option<CommandId>) -> BoxFuture<'static, Result<LogPosition, String>>;
    fn wait_for(&self, position: LogPosition) -> BoxFuture<'_, Result<(), String>>;
    fn stats(&self) -> ServerStats;
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

impl<S: Rows> AnyServer for Server<S> {
    fn put(&self, key: u64, value: i64, id: Option<CommandId>) -> BoxFuture<'static, Result<LogPosition, String>> {
        let call = self.call(Put { key, value });
        let call = match id {
            Some(id) => call.id(id),
            None => call,
        };
        Box::pin(async move { call.await.map(|done| done.position).map_err(text) })
    }

    fn wait_for(&self, position: LogPosition) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.wait_for(position).await.map(drop).map_err(text) })
    }

    fn stats(&self) -> ServerStats {
        self.stats()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shutdown())
    }
}

/// A server of a cluster.
pub(super) struct Member {
    pub(super) engine: Engine,
    /// Says its key; what is measured is when it is stale.
    pub(super) row: Function<u64, u64>,
    pub(super) server: Arc<dyn AnyServer>,
    /// When the last handler was done, and so the commit began.
    pub(super) begun: Arc<AtomicU64>,
    /// How often the value was computed.
    pub(super) computed: Arc<AtomicU64>,
    pub(super) relay: Option<Relay>,
}

impl Member {
    pub(super) async fn leave(self) {
        self.server.shutdown().await;
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
    }
}

/// Starts a server; `dress` says what is not as it is by default.
pub(super) async fn start<S: Rows>(store: S, upsert: Arc<str>, dress: impl FnOnce(Builder<S>) -> Builder<S>) -> Result<Member, String> {
    let engine = Engine::new();
    let computed = Arc::new(AtomicU64::new(0));
    let count = computed.clone();
    let row = engine.function("row", move |_, key: &u64| {
        count.fetch_add(1, Ordering::Relaxed);
        *key
    });
    let row = row.map_err(text)?;
    let functions = LoggedFunctions::new(&engine);
    let logged = functions.log(&row).map_err(text)?;
    let begun = Arc::new(AtomicU64::new(0));
    let note = begun.clone();
    let handler = move |Put { key, value }: Put, op: Op<S>| {
        let (logged, note, upsert) = (logged.clone(), note.clone(), upsert.clone());
        async move {
            op.invalidate(&logged, &key)?;
            S::put(&op, upsert, key.cast_signed(), value).await?;
            note.store(clock::now(), Ordering::Relaxed);
            Ok(value)
        }
    };
    let builder = Server::builder(&engine, store).functions(&functions).handler(handler);
    let server = dress(builder).start().await.map_err(text)?;
    Ok(Member { engine, row, server: Arc::new(server), begun, computed, relay: None })
}
