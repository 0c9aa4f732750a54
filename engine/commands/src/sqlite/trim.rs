//! Removing what is old, in steps that commits can come between.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use super::outbox::DONE;
use crate::store_error::StoreError;

/// Rows removed in one transaction: some milliseconds.
const STEP: usize = 1024;

impl Sqlite {
    pub(crate) async fn trim_operations(&self, keep: Duration) -> Result<u64, StoreError> {
        let (before, now) = (self.0.clock.before(keep), self.0.clock.now());
        let due = move |connection: &Connection| last_older(connection, before, now, 1).map(|last| last.is_some());
        self.in_steps("trimming the operation log", due, move |connection| operations(connection, before, now)).await
    }

    pub(crate) async fn trim_journal_entries(&self, keep: Duration) -> Result<u64, StoreError> {
        let before = self.0.clock.before(keep);
        let due = move |connection: &Connection| exists(connection, "SELECT 1 FROM wellspring_journal WHERE at < ?1 LIMIT 1", before);
        let step = move |connection: &Connection| {
            let sql = "DELETE FROM wellspring_journal WHERE id IN (SELECT id FROM wellspring_journal WHERE at < ?1 ORDER BY at LIMIT ?2)";
            connection.prepare_cached(sql)?.execute(params![before, STEP.cast_signed()])
        };
        self.in_steps("trimming the journal", due, step).await
    }

    pub(crate) async fn trim_events(&self, keep: Duration) -> Result<u64, StoreError> {
        let before = self.0.clock.before(keep);
        const OLD: &str = "SELECT 1 FROM wellspring_events WHERE state = 2 AND ended_at < ?1 LIMIT 1";
        const _: () = assert!(DONE == 2);
        let due = move |connection: &Connection| exists(connection, OLD, before);
        let step = move |connection: &Connection| {
            let sql = "DELETE FROM wellspring_events WHERE seq IN
                       (SELECT seq FROM wellspring_events WHERE state = 2 AND ended_at < ?1 ORDER BY ended_at LIMIT ?2)";
            connection.prepare_cached(sql)?.execute(params![before, STEP.cast_signed()])
        };
        self.in_steps("trimming the outbox", due, step).await
    }

    /// Repeats a step until it finds less than it may. If there is nothing to do nothing is written: other processes would wake up for it.
    async fn in_steps<D, S>(&self, doing: &'static str, due: D, step: S) -> Result<u64, StoreError>
    where
        D: Fn(&Connection) -> rusqlite::Result<bool> + Clone + Send + 'static,
        S: Fn(&Connection) -> rusqlite::Result<usize> + Clone + Send + 'static,
    {
        let mut removed = 0;
        while self.look(doing, due.clone()).await? {
            let count = self.0.writer.write(doing, Box::new(step.clone())).await?;
            removed += count as u64;
            if count < STEP {
                break;
            }
        }
        Ok(removed)
    }
}

fn exists(connection: &Connection, sql: &str, before: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached(sql)?.query_row([before], |_| Ok(())).optional().map(|row| row.is_some())
}

/// The last of the first operations of which none is young; about so many of them. Only first ones: the clock may have been set back
/// between two of them, and what is removed must be what a cursor can stand behind. A date in the future says nothing of an operation's
/// age: one that is followed by an old one is older still.
fn last_older(connection: &Connection, before: i64, now: i64, most: usize) -> rusqlite::Result<Option<(i64, [u8; 16])>> {
    let mut first = connection.prepare_cached("SELECT seq, id, at FROM wellspring_operations ORDER BY seq")?;
    let mut rows = first.query([])?;
    let (mut last, mut looked) = (None, 0);
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(2)?;
        if (before..=now).contains(&at) || (looked >= most && last.is_some()) {
            break;
        }
        looked += 1;
        if at < before {
            last = Some((row.get(0)?, row.get(1)?));
        }
    }
    Ok(last)
}

fn operations(connection: &Connection, before: i64, now: i64) -> rusqlite::Result<usize> {
    let Some((seq, id)) = last_older(connection, before, now, STEP)? else { return Ok(0) };
    let removed = connection.prepare_cached("DELETE FROM wellspring_operations WHERE seq <= ?1")?.execute([seq])?;
    let mut set = connection.prepare_cached("UPDATE wellspring_meta SET value = ?2 WHERE name = ?1")?;
    set.execute(params!["trimmed_to", seq])?;
    set.execute(params!["trimmed_id", id])?;
    Ok(removed)
}
