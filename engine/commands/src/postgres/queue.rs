//! The outbox as a queue: rows that are leased with `SKIP LOCKED`.
//!
//! A leased row is one that is due when its lease ends, so one index finds both what waits and what was abandoned. Times are compared
//! with the statement's own, which an index can be searched by.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Postgres;
use super::failure::{corrupt, failure};
use super::pool::{Lease, Pool};
use super::trim::{self, seconds};
use crate::event::{Claim, ClaimedEvent, DeadEvent, EventQueue};
use crate::id::EventId;
use crate::log::BoxFuture;
use crate::store_error::StoreError;
use crate::wakeup::Wakeup;

/// Of an error's text, so much is kept.
const MOST_ERROR: usize = 4096;

/// Of a partition only the first that has not ended: whatever comes later stands behind it, since appending and requeueing take turns.
///
/// Of what is due, so many are looked at ($5), and the first of each partition among them is looked up once: ten thousand that stand
/// behind one cost next to nothing. Asking of each whether something is before it cost 13 us each, for every claim.
const CLAIM: &str = "
    WITH span AS MATERIALIZED (
        SELECT id, due, partition FROM {s}.events
        WHERE state = 0 AND due <= statement_timestamp() AND kind = ANY($1) ORDER BY due LIMIT $5::bigint
    ), heads AS MATERIALIZED (
        SELECT head.id FROM (SELECT DISTINCT partition FROM span WHERE partition IS NOT NULL) AS line
        CROSS JOIN LATERAL (
            SELECT id FROM {s}.events WHERE state = 0 AND partition = line.partition ORDER BY seq, ordinal LIMIT 1
        ) AS head
    ), open AS MATERIALIZED (
        SELECT id, due FROM span WHERE partition IS NULL OR id IN (SELECT id FROM heads) ORDER BY due LIMIT 4 * $2::bigint + 32
    ), picked AS MATERIALIZED (
        SELECT e.id, e.due FROM open JOIN {s}.events AS e ON e.id = open.id
        WHERE e.state = 0 AND e.due <= statement_timestamp() ORDER BY open.due LIMIT $2 FOR UPDATE OF e SKIP LOCKED
    ), taken AS (
        UPDATE {s}.events AS e SET due = statement_timestamp() + make_interval(secs => $3), attempts = attempts + 1, token = $4
        FROM picked WHERE e.id = picked.id
        RETURNING e.id, e.kind, e.payload, e.partition, e.attempts, picked.due AS since, e.seq, e.ordinal
    )
    SELECT id, kind, payload, partition, attempts, (SELECT count(*) FROM span) AS looked
    FROM (SELECT) AS always LEFT JOIN taken ON true ORDER BY since, seq, ordinal";

/// How many that are due a claim looks at first, for each that it wants, and how many more each time that was too few.
const FIRST_LOOK: i64 = 8;
const NEXT_LOOK: i64 = 16;

const NEXT: &str = "
    SELECT extract(epoch FROM min(due) - statement_timestamp())::float8 FROM {s}.events
    WHERE state = 0 AND due > statement_timestamp() AND kind = ANY($1)";

const RENEW: &str = "
    UPDATE {s}.events SET due = statement_timestamp() + make_interval(secs => $3) WHERE id = $1 AND token = $2 AND state = 0";

const COMPLETE: &str = "UPDATE {s}.events SET state = 1, ended = clock_timestamp(), token = NULL, error = NULL
    WHERE id = $1 AND token = $2 AND state = 0";

const RETRY: &str = "UPDATE {s}.events SET due = statement_timestamp() + make_interval(secs => $4), token = NULL, error = $3
    WHERE id = $1 AND token = $2 AND state = 0";

const BURY: &str = "UPDATE {s}.events SET state = 2, ended = clock_timestamp(), token = NULL, error = $3
    WHERE id = $1 AND token = $2 AND state = 0";

const DEAD: &str = "SELECT id, kind, payload, attempts, error FROM {s}.events WHERE state = 2 ORDER BY ended LIMIT $1";

/// Behind what its partition has come to since: the others were let pass when it died, and at its old place it could be done at the
/// same time as one of them that is being claimed just now.
const REQUEUE: &str = "
    WITH turn AS MATERIALIZED (
        SELECT id, CASE WHEN partition IS NOT NULL THEN pg_advisory_xact_lock({lanes} | (hashtextextended(partition, {salt}) & 1023)) END
        FROM {s}.events WHERE id = $1 AND state = 2
    )
    UPDATE {s}.events AS e SET state = 0, due = clock_timestamp(), attempts = 0, error = NULL, ended = NULL,
        seq = CASE WHEN e.partition IS NULL THEN e.seq ELSE nextval('{in_text}.seq') END
    FROM turn WHERE e.id = turn.id AND e.state = 2";

/// Whether the first of a partition can be claimed now. A statement of its own after the end of the one before it: whoever commits an event
/// that this one does not see hints by itself, and the end is seen by whoever hears of that.
const WAITS: &str = "SELECT due <= statement_timestamp() FROM {s}.events WHERE state = 0 AND partition = $1 ORDER BY seq, ordinal LIMIT 1";

/// The outbox of one schema.
#[derive(Clone, Debug)]
pub(super) struct PostgresEvents(pub(super) Postgres);

impl PostgresEvents {
    fn pool(&self) -> &Arc<Pool> {
        &self.0.0.service
    }

    /// Tells whoever claims events, here and on other servers, where hints are asked for.
    fn hint(&self) {
        if let Some(wakeup) = self.0.0.wakeup.get() {
            wakeup.notify();
        }
    }

    /// Ends an event. Whoever waits behind it hears of it.
    async fn end(
        &self,
        event: &ClaimedEvent,
        doing: &'static str,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<bool, StoreError> {
        let Some(partition) = &event.partition else { return self.change(doing, sql, values).await };
        let end = async |lease: &Lease| {
            let (end, waits) = (lease.statement(sql).await?, lease.statement(WAITS).await?);
            let value: [&(dyn ToSql + Sync); 1] = [&partition];
            let (ended, waits) = future::join(lease.client().execute(&end, values), lease.client().query_opt(&waits, &value)).await;
            // What has ended has ended, whether or not anybody hears of it.
            Ok((ended? > 0, waits.is_ok_and(|row| row.is_some_and(|row| row.try_get(0).unwrap_or_default()))))
        };
        let (ended, waits) = self.pool().step(doing, end).await?;
        if ended && waits {
            self.hint();
        }
        Ok(ended)
    }

    async fn change(&self, doing: &'static str, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<bool, StoreError> {
        let change = async |lease: &Lease| lease.client().execute(&lease.statement(sql).await?, values).await;
        Ok(self.pool().step(doing, change).await? > 0)
    }

    async fn take(&self, kinds: &[String], most: usize, time: Duration) -> Result<Claim, StoreError> {
        const CLAIMING: &str = "claiming events";
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let token = fastrand::i64(1..);
        let time = seconds(time);
        let take = async |lease: &Lease| {
            let (claim, next) = (lease.statement(CLAIM).await?, lease.statement(NEXT).await?);
            let mut look = limit.saturating_mul(FIRST_LOOK).max(FIRST_LOOK);
            loop {
                let (claim_values, next_values): ([&(dyn ToSql + Sync); 5], [&(dyn ToSql + Sync); 1]) =
                    ([&kinds, &limit, &time, &token, &look], [&kinds]);
                // Sent together: the second looks at what the first has left.
                let claim = lease.client().query(&claim, &claim_values);
                let next = lease.client().query_one(&next, &next_values);
                let (claimed, next) = future::join(claim, next).await;
                let (mut rows, next) = (claimed?, next?.try_get::<_, Option<f64>>(0)?);
                let looked: i64 = rows.first().map_or(Ok(0), |row| row.try_get("looked"))?;
                // One row comes also when there is nothing.
                rows.retain(|row| !matches!(row.try_get::<_, Option<Uuid>>("id"), Ok(None)));
                if rows.is_empty() && limit > 0 && looked == look {
                    look = look.saturating_mul(NEXT_LOOK);
                    continue;
                }
                return Ok((rows, next));
            }
        };
        let (rows, next) = self.pool().step(CLAIMING, take).await?;
        let events = rows.iter().map(|row| claimed(row, token)).collect::<Result<Vec<_>, _>>()?;
        let more = most > 0 && events.len() == most;
        let next = if more { Some(Duration::ZERO) } else { next.and_then(|next| Duration::try_from_secs_f64(next.max(0.0)).ok()) };
        Ok(Claim { events, next })
    }

    async fn list_dead(&self, most: usize) -> Result<Vec<DeadEvent>, StoreError> {
        const LISTING: &str = "listing dead events";
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let list = async |lease: &Lease| lease.client().query(&lease.statement(DEAD).await?, &[&limit]).await;
        let rows = self.pool().step(LISTING, list).await?;
        rows.iter().map(dead).collect()
    }
}

impl EventQueue for PostgresEvents {
    fn claim<'a>(&'a self, kinds: &'a [String], most: usize, lease: Duration) -> BoxFuture<'a, Result<Claim, StoreError>> {
        Box::pin(self.take(kinds, most, lease))
    }

    fn renew<'a>(&'a self, event: &'a ClaimedEvent, lease: Duration) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { self.change("renewing a lease", RENEW, &[&id(event.id), &token(event), &seconds(lease)]).await })
    }

    fn complete<'a>(&'a self, event: &'a ClaimedEvent) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { self.end(event, "completing an event", COMPLETE, &[&id(event.id), &token(event)]).await })
    }

    fn fail<'a>(&'a self, event: &'a ClaimedEvent, error: &'a str, again: Option<Duration>) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            const FAILING: &str = "recording an event's failure";
            // The database takes no zero bytes in a text.
            let error: String = error.chars().filter(|c| *c != '\0').take(MOST_ERROR).collect();
            match again {
                Some(again) => self.change(FAILING, RETRY, &[&id(event.id), &token(event), &error, &seconds(again)]).await,
                None => self.end(event, FAILING, BURY, &[&id(event.id), &token(event), &error]).await,
            }
        })
    }

    fn dead(&self, most: usize) -> BoxFuture<'_, Result<Vec<DeadEvent>, StoreError>> {
        Box::pin(self.list_dead(most))
    }

    fn requeue(&self, event: EventId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let requeued = self.change("requeueing an event", REQUEUE, &[&id(event)]).await?;
            if requeued {
                self.hint();
            }
            Ok(requeued)
        })
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(trim::events(self.pool(), keep))
    }
}

fn id(event: EventId) -> Uuid {
    Uuid::from_u128(event.as_u128())
}

fn token(event: &ClaimedEvent) -> i64 {
    i64::from_ne_bytes(event.token.to_ne_bytes())
}

fn attempts(attempts: i32) -> Result<u32, StoreError> {
    u32::try_from(attempts).map_err(|_| corrupt(format!("{attempts} attempts at an event")))
}

fn claimed(row: &Row, token: i64) -> Result<ClaimedEvent, StoreError> {
    let read = || -> Result<_, tokio_postgres::Error> {
        Ok((row.try_get::<_, Uuid>(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
    };
    let (id, kind, payload, partition, tried) = read().map_err(|error| failure("reading a claimed event", error))?;
    let token = u64::from_ne_bytes(token.to_ne_bytes());
    Ok(ClaimedEvent { id: EventId::from_u128(id.as_u128()), kind, payload, partition, attempt: attempts(tried)?, token })
}

fn dead(row: &Row) -> Result<DeadEvent, StoreError> {
    let read = || -> Result<_, tokio_postgres::Error> {
        Ok((row.try_get::<_, Uuid>(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get::<_, Option<String>>(4)?))
    };
    let (id, kind, payload, tried, error) = read().map_err(|error| failure("reading a dead event", error))?;
    Ok(DeadEvent { id: EventId::from_u128(id.as_u128()), kind, payload, attempts: attempts(tried)?, error: error.unwrap_or_default() })
}
