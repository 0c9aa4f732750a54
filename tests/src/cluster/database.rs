//! The database beside the crate under test: made, looked at and damaged with connections of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tokio_postgres::NoTls;

use super::BoxError;
use super::job::Job;

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A schema on a server.
    Postgres {
        /// The server and its database.
        url: String,
        /// The schema, for the rows and the log.
        schema: String,
    },
}

/// All that is in it, from one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The rows.
    pub rows: BTreeMap<String, i64>,
    /// What was done, in order.
    pub done: Vec<Done>,
    /// Operations in the log.
    pub operations: u64,
    /// Results in the journal.
    pub journaled: u64,
}

/// What a command has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its id.
    pub id: String,
    /// What its handler has returned.
    pub token: i64,
    /// The command.
    pub job: Job,
}

const ROWS: &str = "SELECT key, value FROM rows";
const DONE: &str = "SELECT id, token, job FROM done ORDER BY seq";

impl Database {
    /// Makes the tables of these tests.
    pub async fn prepare(&self) -> Result<(), BoxError> {
        match self {
            // No rule says that an id is there once: a command that is done twice is to be seen.
            Database::Sqlite(_) => {
                self.execute(
                    "PRAGMA journal_mode = wal;
                     CREATE TABLE rows (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
                     CREATE TABLE done (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, token INTEGER NOT NULL, job TEXT NOT NULL)",
                )
                .await
            }
            Database::Postgres { schema, .. } => {
                self.execute(&format!(
                    "CREATE SCHEMA IF NOT EXISTS {schema};
                     CREATE TABLE {schema}.rows (key text NOT NULL PRIMARY KEY, value bigint NOT NULL);
                     CREATE TABLE {schema}.done (seq bigserial PRIMARY KEY, id text NOT NULL, token bigint NOT NULL, job text NOT NULL)"
                ))
                .await
            }
        }
    }

    /// How to connect, with the schema's tables in sight and under its name; empty for a file.
    pub fn url(&self) -> String {
        match self {
            Database::Sqlite(_) => String::new(),
            Database::Postgres { url, schema } => {
                let begin = if url.contains('?') { '&' } else { '?' };
                format!("{url}{begin}application_name={schema}&options=-csearch_path%3D{schema}")
            }
        }
    }

    /// The statement that writes an entry into the log, as a program of another version might.
    pub fn entry(&self, body: &str) -> String {
        let id = uuid::Uuid::new_v4().simple();
        let body = body.replace('\'', "''");
        match self {
            Database::Sqlite(_) => {
                format!("INSERT INTO wellspring_operations (id, origin, at, body) VALUES (x'{id}', x'{id}', unixepoch() * 1000, '{body}')")
            }
            Database::Postgres { .. } => format!("INSERT INTO operations (id, origin, body) VALUES ('{id}', '{id}', '{body}')"),
        }
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) -> Result<(), BoxError> {
        match self {
            Database::Sqlite(path) => {
                let (path, sql) = (path.clone(), sql.to_owned());
                tokio::task::spawn_blocking(move || Ok(open(&path)?.execute_batch(&sql)?)).await?
            }
            Database::Postgres { .. } => Ok(connect(&self.url()).await?.batch_execute(sql).await?),
        }
    }

    /// All that is in it.
    pub async fn dump(&self) -> Result<Dump, BoxError> {
        match self {
            Database::Sqlite(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || dump_sqlite(&path)).await?
            }
            Database::Postgres { schema, .. } => {
                let mut client = connect(&self.url()).await?;
                let snapshot = client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
                let snapshot = snapshot.read_only(true).start().await?;
                let mut dump = Dump::default();
                for row in snapshot.query(ROWS, &[]).await? {
                    dump.rows.insert(row.try_get(0)?, row.try_get(1)?);
                }
                for row in snapshot.query(DONE, &[]).await? {
                    let job: String = row.try_get(2)?;
                    dump.done.push(Done { id: row.try_get(0)?, token: row.try_get(1)?, job: serde_json::from_str(&job)? });
                }
                for (table, count) in [("operations", &mut dump.operations), ("journal", &mut dump.journaled)] {
                    let sql = format!("SELECT count(*) FROM {schema}.{table}");
                    *count = snapshot.query_one(&sql, &[]).await?.try_get::<_, i64>(0)?.cast_unsigned();
                }
                Ok(dump)
            }
        }
    }
}

/// A connection. It ends with the client.
pub(crate) async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // Longer than any member is stopped for in the midst of writing.
    connection.busy_timeout(Duration::from_secs(30))?;
    Ok(connection)
}

fn dump_sqlite(path: &Path) -> Result<Dump, BoxError> {
    let mut connection = open(path)?;
    let snapshot = connection.transaction()?;
    let mut dump = Dump::default();
    let mut rows = snapshot.prepare(ROWS)?;
    for row in rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
        let (key, value) = row?;
        dump.rows.insert(key, value);
    }
    let mut done = snapshot.prepare(DONE)?;
    for row in done.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))? {
        let (id, token, job) = row?;
        dump.done.push(Done { id, token, job: serde_json::from_str(&job)? });
    }
    for (table, count) in [("wellspring_operations", &mut dump.operations), ("wellspring_journal", &mut dump.journaled)] {
        *count = snapshot.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))?.cast_unsigned();
    }
    Ok(dump)
}
