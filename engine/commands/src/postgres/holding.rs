//! Named consumers, held by a session's advisory lock.
//!
//! The lock lives on a connection of its own and ends with it. A server that was cut off may not know yet that its session is over: the
//! epoch, which every holder moves on, keeps what it saves out.

use std::fmt;
use std::sync::Arc;

use super::connection::{Connection, Connector};
use super::failure::failure;
use crate::consumer::{Consumers, Hold};
use crate::log::BoxFuture;
use crate::position::Cursor;
use crate::store_error::{StoreError, StoreErrorKind};

const HOLDING: &str = "holding a consumer";

/// A session that waits may not be ended by limits meant for queries. A waiting query holds back the clean-up of dead rows in the whole
/// database, so it starts anew now and then.
const SESSION: &str = "
    SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN '20s' ELSE '0' END, false) FROM pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_session_timeout')";

const ENTER: &str = "
    INSERT INTO {s}.consumers AS c (name, epoch) VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET epoch = c.epoch + 1 RETURNING epoch";

const CURSOR: &str = "SELECT cursor FROM {s}.consumers WHERE name = $1";

const SAVE: &str = "UPDATE {s}.consumers SET cursor = $3 WHERE name = $1 AND epoch = $2";

/// The consumers of one schema.
#[derive(Clone, Debug)]
pub(super) struct PostgresConsumers(pub(super) Arc<Connector>);

impl PostgresConsumers {
    async fn connect(&self) -> Result<Connection, StoreError> {
        let connection = self.0.connect().await?;
        connection.client().batch_execute(SESSION).await.map_err(|error| failure(HOLDING, error))?;
        Ok(connection)
    }

    async fn enter(&self, connection: Connection, name: &str) -> Result<Box<dyn Hold>, StoreError> {
        let enter = async {
            let statement = connection.statement(ENTER).await?;
            connection.client().query_one(&statement, &[&name]).await?.try_get(0)
        };
        let epoch = enter.await.map_err(|error| failure(HOLDING, error))?;
        Ok(Box::new(PostgresHold { connection, name: name.to_owned(), epoch }))
    }
}

impl Consumers for PostgresConsumers {
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>> {
        Box::pin(async move {
            let connection = self.connect().await?;
            let key = self.0.names.lock("consumer", name);
            let held = connection.client().query_one("SELECT pg_try_advisory_lock($1)", &[&key]).await;
            match held.and_then(|row| row.try_get(0)).map_err(|error| failure(HOLDING, error))? {
                true => Ok(Some(self.enter(connection, name).await?)),
                false => Ok(None),
            }
        })
    }

    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>> {
        Box::pin(async move {
            let connection = self.connect().await?;
            let key = self.0.names.lock("consumer", name);
            loop {
                match connection.client().execute("SELECT pg_advisory_lock($1)", &[&key]).await {
                    Ok(_) => return self.enter(connection, name).await,
                    Err(error) if error.code().is_some_and(|code| code.code() == "55P03") => {}
                    Err(error) => return Err(failure(HOLDING, error)),
                }
            }
        })
    }
}

/// A held consumer.
struct PostgresHold {
    connection: Connection,
    name: String,
    epoch: i64,
}

impl fmt::Debug for PostgresHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresHold").field("name", &self.name).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Hold for PostgresHold {
    fn cursor(&self) -> BoxFuture<'_, Result<Option<Cursor>, StoreError>> {
        Box::pin(async move {
            let read = async {
                let statement = self.connection.statement(CURSOR).await?;
                self.connection.client().query_one(&statement, &[&self.name]).await?.try_get::<_, Option<String>>(0)
            };
            let cursor = read.await.map_err(|error| failure("reading a consumer's cursor", error))?;
            Ok(cursor.map(Cursor::new))
        })
    }

    fn save<'a>(&'a self, cursor: &'a Cursor) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            const SAVING: &str = "saving a consumer's cursor";
            let save = async {
                let statement = self.connection.statement(SAVE).await?;
                self.connection.client().execute(&statement, &[&self.name, &self.epoch, &cursor.as_str()]).await
            };
            match save.await {
                Ok(0) => Err(StoreError::new(StoreErrorKind::Fenced, SAVING)),
                Ok(_) => Ok(()),
                Err(error) => Err(failure(SAVING, error)),
            }
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.connection.ended())
    }
}
