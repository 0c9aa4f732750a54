//! The tables, made once and by one of the processes that open the file together.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::{connect, fault};
use crate::id::LogId;
use crate::store_error::{StoreError, StoreErrorKind};

/// Raised with every change of the tables.
const VERSION: i64 = 1;

/// Of events, `leading` is 1 for what stands first in its partition and for what is in none: a queue of a hundred thousand rows
/// behind a slow one is not looked through. `due_at` of a leased row is the end of the lease.
///
/// `wellspring_meta` holds: `schema`, `log`; `trimmed_to` and `trimmed_id`, the last operation removed; `stirred`, which changes when an
/// event becomes due without an operation; `fence`, which is written to make sure of what has gone before.
const TABLES: &str = "
CREATE TABLE wellspring_meta (
    name TEXT NOT NULL PRIMARY KEY,
    value
) WITHOUT ROWID;
CREATE TABLE wellspring_operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    origin BLOB NOT NULL CHECK (length(origin) = 16),
    at INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE wellspring_journal (
    id TEXT NOT NULL PRIMARY KEY,
    command TEXT NOT NULL,
    digest BLOB NOT NULL,
    result TEXT NOT NULL,
    seq INTEGER NOT NULL,
    operation BLOB NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX wellspring_journal_at ON wellspring_journal (at);
CREATE TABLE wellspring_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    partition TEXT,
    key TEXT,
    state INTEGER NOT NULL,
    leading INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    ended_at INTEGER
);
CREATE UNIQUE INDEX wellspring_events_key ON wellspring_events (kind, key) WHERE key IS NOT NULL;
CREATE INDEX wellspring_events_due ON wellspring_events (kind, due_at) WHERE leading = 1 AND state <= 1;
CREATE INDEX wellspring_events_partition ON wellspring_events (partition, seq) WHERE partition IS NOT NULL AND state <= 1;
CREATE INDEX wellspring_events_leading ON wellspring_events (partition) WHERE partition IS NOT NULL AND leading = 1 AND state <= 1;
CREATE INDEX wellspring_events_leased ON wellspring_events (partition, due_at) WHERE partition IS NOT NULL AND state = 1;
CREATE INDEX wellspring_events_done ON wellspring_events (ended_at) WHERE state = 2;
CREATE INDEX wellspring_events_dead ON wellspring_events (seq) WHERE state = 3;
CREATE TABLE wellspring_consumers (
    name TEXT NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    cursor TEXT
) WITHOUT ROWID;
INSERT INTO wellspring_meta VALUES ('trimmed_to', 0), ('trimmed_id', zeroblob(16)), ('stirred', 0), ('fence', 0);
";

/// Makes the tables if they are missing, and says which log it is.
pub(crate) fn prepare(connection: &mut Connection, timeout: Duration) -> Result<LogId, StoreError> {
    const DOING: &str = "preparing the tables";
    // First without the lock, so that a file that cannot be written to can be read.
    if let Some(log) = find(connection).map_err(fault::doing(DOING))? {
        return log;
    }
    connect::begin(connection, timeout).map_err(fault::doing(DOING))?;
    let made = make(connection);
    if !connection.is_autocommit() {
        // Reached after a failure, which is what counts.
        let _ = connection.execute_batch("ROLLBACK");
    }
    made.map_err(fault::doing(DOING))?
}

fn make(connection: &Connection) -> rusqlite::Result<Result<LogId, StoreError>> {
    // Another process may have been faster.
    if let Some(log) = find(connection)? {
        return Ok(log);
    }
    let log = LogId::random();
    connection.execute_batch(TABLES)?;
    connection.execute("INSERT INTO wellspring_meta VALUES ('schema', ?1), ('log', ?2)", (VERSION, log.as_u128().to_be_bytes()))?;
    connection.execute_batch("COMMIT")?;
    Ok(Ok(log))
}

/// The log of a file that has the tables.
fn find(connection: &Connection) -> rusqlite::Result<Option<Result<LogId, StoreError>>> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'wellspring_meta'";
    if connection.query_row(exists, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let version = "SELECT value FROM wellspring_meta WHERE name = 'schema'";
    let version: Option<i64> = connection.query_row(version, [], |row| row.get(0)).optional()?;
    if version != Some(VERSION) {
        let version = version.map_or_else(|| "no version".into(), |version| format!("version {version}"));
        let text = format!("its tables are of {version}, and this program knows version {VERSION}");
        return Ok(Some(Err(StoreError::with(StoreErrorKind::Corrupt, "opening the database", text))));
    }
    log(connection).map(|log| Some(Ok(log)))
}

/// Which log the file is of.
pub(crate) fn log(connection: &Connection) -> rusqlite::Result<LogId> {
    let mut statement = connection.prepare_cached("SELECT value FROM wellspring_meta WHERE name = 'log'")?;
    let bytes: [u8; 16] = statement.query_row([], |row| row.get(0))?;
    Ok(LogId::from_u128(u128::from_be_bytes(bytes)))
}
