//! Removing what has been there for long enough.
//!
//! How long an operation has been *visible* is not what its row's time says: a transaction may write it and commit an hour later. So
//! every trimming notes the horizon of its moment, and removes what is below a horizon that was noted long enough ago: all of that had
//! been visible by then. The horizon is the first transaction that runs in this database: one of another never has an operation here, so
//! that one that lives for hours keeps nothing from being removed. Readers pass over it likewise, or else would be told that they have
//! lost what it might have written.

use std::sync::Arc;
use std::time::Duration;

use super::pool::{Lease, Pool};
use crate::store_error::StoreError;

/// Rows of one step: each is a transaction of its own, short enough to be in nobody's way.
pub(super) const STEP: i64 = 4096;

const TRIMMING: &str = "trimming the operation log";

/// At most one mark a second, so that a trimming every millisecond does not fill the table.
const MARK: &str = "
    INSERT INTO {s}.marks (horizon) SELECT {horizon}
    WHERE NOT EXISTS (SELECT FROM {s}.marks WHERE at > statement_timestamp() - interval '1 second')
    ON CONFLICT DO NOTHING";

const LIMIT: &str = "
    SELECT CASE WHEN $1::float8 <= 0 THEN {horizon}::text
    ELSE (SELECT horizon::text FROM {s}.marks WHERE at <= statement_timestamp() - make_interval(secs => $1) ORDER BY at DESC LIMIT 1) END";

/// By their places in the file: a join with the table would read all of it at each step. Nothing moves a row that is locked.
///
/// What a reader that sleeps is told by is the last transaction that was removed, not the limit: if there was nothing to remove, nothing
/// was lost. Both in one transaction, so that no reader sees the gap without the word of it.
const REMOVE: &str = "
    WITH gone AS (
        DELETE FROM {s}.operations WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM {s}.operations WHERE xid < $1::text::xid8 ORDER BY xid, seq LIMIT $2 FOR UPDATE SKIP LOCKED
        )) RETURNING xid
    ), noted AS (
        UPDATE {s}.meta SET trimmed = greatest(trimmed, (SELECT xid FROM gone ORDER BY xid DESC LIMIT 1)) WHERE EXISTS (SELECT FROM gone)
    )
    SELECT count(*) FROM gone";

/// Marks before the one that was used will never be used.
const FORGET: &str = "DELETE FROM {s}.marks WHERE at < (
        SELECT at FROM {s}.marks WHERE at <= statement_timestamp() - make_interval(secs => $1) ORDER BY at DESC LIMIT 1)";

/// A duration as seconds that the database's clock can be moved by.
pub(super) fn seconds(duration: Duration) -> f64 {
    const CENTURY: f64 = 100.0 * 365.25 * 86_400.0;
    duration.as_secs_f64().min(CENTURY)
}

pub(super) async fn operations(pool: &Arc<Pool>, keep: Duration) -> Result<u64, StoreError> {
    let keep = seconds(keep);
    pool.step(TRIMMING, async |lease| lease.client().execute(&lease.statement(MARK).await?, &[]).await).await?;
    let limit = async |lease: &Lease| lease.client().query_one(&lease.statement(LIMIT).await?, &[&keep]).await?.try_get(0);
    let Some(limit) = pool.step::<Option<String>>(TRIMMING, limit).await? else { return Ok(0) };
    let mut removed = 0;
    loop {
        let remove = async |lease: &Lease| lease.client().query_one(&lease.statement(REMOVE).await?, &[&limit, &STEP]).await?.try_get(0);
        let gone: i64 = pool.step(TRIMMING, remove).await?;
        removed += gone.unsigned_abs();
        if gone < STEP {
            break;
        }
    }
    pool.step(TRIMMING, async |lease| lease.client().execute(&lease.statement(FORGET).await?, &[&keep]).await).await?;
    Ok(removed)
}

const JOURNAL: &str = "
    DELETE FROM {s}.journal WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {s}.journal WHERE at < statement_timestamp() - make_interval(secs => $1)
        ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))";

const EVENTS: &str = "
    DELETE FROM {s}.events WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {s}.events WHERE state = 1 AND ended < statement_timestamp() - make_interval(secs => $1)
        ORDER BY ended LIMIT $2 FOR UPDATE SKIP LOCKED))";

/// Removes old entries of the journal.
pub(super) async fn journal(pool: &Arc<Pool>, keep: Duration) -> Result<u64, StoreError> {
    in_steps(pool, JOURNAL, keep, "trimming the journal").await
}

/// Removes events that were done.
pub(super) async fn events(pool: &Arc<Pool>, keep: Duration) -> Result<u64, StoreError> {
    in_steps(pool, EVENTS, keep, "trimming the outbox").await
}

async fn in_steps(pool: &Arc<Pool>, sql: &'static str, keep: Duration, doing: &'static str) -> Result<u64, StoreError> {
    let keep = seconds(keep);
    let mut removed = 0;
    loop {
        let remove = async |lease: &Lease| lease.client().execute(&lease.statement(sql).await?, &[&keep, &STEP]).await;
        let gone = pool.step(doing, remove).await?;
        removed += gone;
        if gone < STEP.unsigned_abs() {
            return Ok(removed);
        }
    }
}
