//! The log, read by number.

use std::time::Duration;

use rusqlite::{Connection, Row};

use super::Sqlite;
use super::cursor::Mark;
use crate::id::{LogId, OperationId, ServerId};
use crate::log::{BoxFuture, Head, OperationLog, Reading};
use crate::position::{Cursor, Place};
use crate::record::Entry;
use crate::store_error::StoreError;

impl OperationLog for Sqlite {
    fn id(&self) -> LogId {
        self.0.log
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        Box::pin(async move {
            let end = self.look("finding the end of the operation log", Mark::end).await?;
            Ok(Head { cursor: end.cursor(), horizon: after(end.seq), recent: Vec::new() })
        })
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(async move {
            let Some(mark) = Mark::parse(since) else {
                return Ok(Reading::lost(format!("`{}` is not a place in this kind of log", since.as_str())));
            };
            self.look("reading the operation log", move |connection| read(connection, mark, most)).await
        })
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.trim_operations(keep))
    }
}

fn read(connection: &Connection, since: Mark, most: usize) -> rusqlite::Result<Reading> {
    if let Some(reason) = since.lost(connection)? {
        return Ok(Reading::lost(reason));
    }
    // One more than asked for, to see whether there is one.
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows =
        connection.prepare_cached("SELECT seq, id, origin, body FROM wellspring_operations WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let mut entries = rows.query_map([since.seq, limit], entry)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = entries.len() > most;
    entries.truncate(most);
    let mark = match entries.last() {
        Some(last) => Mark { log: since.log, seq: last.place.major.cast_signed(), operation: last.operation.as_u128() },
        None => since,
    };
    Ok(Reading::Entries { entries, cursor: mark.cursor(), horizon: after(mark.seq), more })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        place: Place::new(row.get::<_, i64>(0)?.unsigned_abs(), 0),
        operation: OperationId::from_u128(u128::from_be_bytes(row.get(1)?)),
        origin: ServerId::from_u128(u128::from_be_bytes(row.get(2)?)),
        body: row.get(3)?,
    })
}

/// Numbers are given out under the write lock: below the one that follows, nothing can appear any more.
fn after(seq: i64) -> Place {
    Place::new(seq.unsigned_abs() + 1, 0)
}
