//! Writing an operation, its events and its journal entry into the transaction of the user's rows.

use futures_util::future;
use tokio_postgres::Row;
use tokio_postgres::error::DbError;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::pool::Lease;
use super::reading::place;
use super::trim::seconds;
use super::tx::PostgresTx;
use crate::draft::Draft;
use crate::event::{Duplicate, NewEvent};
use crate::id::LogId;
use crate::position::Place;
use crate::store::CommitError;
use crate::store_error::{StoreError, StoreErrorKind};

pub(super) const APPENDING: &str = "appending to the operation log";

/// Only the operation: what most commands write. No row if the transaction is not the one the handler was given.
const OPERATION: &str = "
    INSERT INTO {s}.operations (id, origin, body) SELECT $1::uuid, $2::uuid, $3::text
    WHERE current_setting('wellspring.tx', true) = 'open' RETURNING xid::text, seq";

/// The operation, its journal entry and its events in one statement: all or none, in one round trip.
///
/// Events are inserted in the order of their keys, so that two operations with the same keys wait for each other and never both. Those
/// whose key is taken and may not be replaced are missing from what is returned; the operation fails by that.
const ALL: &str = "
    WITH appended AS (
        INSERT INTO {s}.operations (id, origin, body) SELECT $1::uuid, $2::uuid, $3::text
        WHERE current_setting('wellspring.tx', true) = 'open' RETURNING xid, seq
    ), journaled AS (
        INSERT INTO {s}.journal (id, command, digest, result, log, xid, seq, operation)
        SELECT $4::text, $5::text, $6::bytea, $7::text, $8::uuid, xid, seq, $1 FROM appended WHERE $4 IS NOT NULL
    ), emitted AS (
        INSERT INTO {s}.events AS there (id, seq, ordinal, kind, payload, due, partition, key, duplicate)
        SELECT e.id, appended.seq, e.ordinal, e.kind, e.payload, clock_timestamp() + make_interval(secs => e.delay), e.partition, e.key, e.rule
        FROM appended, unnest($9::uuid[], $10::text[], $11::text[], $12::float8[], $13::text[], $14::text[], $15::int2[])
            WITH ORDINALITY AS e (id, kind, payload, delay, partition, key, rule, ordinal)
        ORDER BY e.kind, e.key, e.ordinal
        ON CONFLICT (kind, key) WHERE key IS NOT NULL DO UPDATE
        SET (id, seq, ordinal, payload, due, partition, duplicate) =
            (excluded.id, excluded.seq, excluded.ordinal, excluded.payload, excluded.due, excluded.partition, excluded.duplicate)
        WHERE excluded.duplicate = 2 AND there.state = 0 AND there.attempts = 0
        RETURNING id
    )
    SELECT xid::text, seq, (SELECT array_agg(id) FROM emitted) FROM appended";

/// Whoever appends to a partition holds this until the end of its transaction: numbers are drawn before a commit, and without it the
/// event that was committed first could have the larger one. In the order of the numbers, for the reason above.
const PARTITIONS: &str = "
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT {lanes} | (hashtextextended(partition, {salt}) & 1023) AS key FROM unnest($1::text[]) AS partition ORDER BY key
    ) AS keys";

/// Writes the draft; where it is.
pub(super) async fn append(tx: &PostgresTx, log: LogId, draft: &Draft) -> Result<Place, Failed> {
    let (id, origin) = (Uuid::from_u128(draft.operation.as_u128()), Uuid::from_u128(draft.origin.as_u128()));
    let body = draft.body();
    let lease = tx.lease();
    let row = if draft.journal.is_none() && draft.events.is_empty() {
        let statement = lease.statement(OPERATION).await?;
        lease.client().query_opt(&statement, &[&id, &origin, &body]).await?
    } else {
        append_all(lease, log, draft, id, origin, &body).await?
    };
    let Some(row) = row else { return Err(Failed::Refused(CommitError::Failed(PostgresTx::taken_away()))) };
    let (xid, seq) = (row.try_get::<_, &str>(0)?, row.try_get::<_, i64>(1)?);
    if !draft.events.is_empty() {
        let emitted: Vec<Uuid> = row.try_get::<_, Option<Vec<Uuid>>>(2)?.unwrap_or_default();
        let missing = |event: &&NewEvent| event.duplicate != Duplicate::Skip && !emitted.contains(&Uuid::from_u128(event.id.as_u128()));
        if let Some(event) = draft.events.iter().find(missing) {
            return Err(Failed::Refused(CommitError::Failed(duplicate(event))));
        }
    }
    place(xid, seq).map_err(|error| Failed::Refused(CommitError::Failed(error)))
}

async fn append_all(
    lease: &Lease,
    log: LogId,
    draft: &Draft,
    id: Uuid,
    origin: Uuid,
    body: &str,
) -> Result<Option<Row>, tokio_postgres::Error> {
    let journal = draft.journal.as_ref();
    let command_id = journal.map(|entry| entry.id.as_str());
    let command = journal.map(|entry| entry.command.as_str());
    let digest = journal.map(|entry| entry.digest.to_be_bytes().to_vec());
    let result = journal.map(|entry| entry.result.as_str());
    let log = Uuid::from_u128(log.as_u128());
    let events = &draft.events;
    let ids: Vec<Uuid> = events.iter().map(|event| Uuid::from_u128(event.id.as_u128())).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let payloads: Vec<&str> = events.iter().map(|event| event.payload.as_str()).collect();
    let delays: Vec<f64> = events.iter().map(|event| seconds(event.delay)).collect();
    let partitions: Vec<Option<&str>> = events.iter().map(|event| event.partition.as_deref()).collect();
    let keys: Vec<Option<&str>> = events.iter().map(|event| event.key.as_deref()).collect();
    let rules: Vec<i16> = events.iter().map(|event| rule(event.duplicate)).collect();

    let statement = lease.statement(ALL).await?;
    let values: [&(dyn ToSql + Sync); 15] =
        [&id, &origin, &body, &command_id, &command, &digest, &result, &log, &ids, &kinds, &payloads, &delays, &partitions, &keys, &rules];
    let write = lease.client().query_opt(&statement, &values);
    let lines: Vec<&str> = partitions.iter().flatten().copied().collect();
    if lines.is_empty() {
        return write.await;
    }
    // Sent together, answered one after the other: one round trip.
    let queue = lease.statement(PARTITIONS).await?;
    let (queued, written) = future::join(lease.client().query(&queue, &[&lines]), write).await;
    queued?;
    written
}

fn rule(duplicate: Duplicate) -> i16 {
    match duplicate {
        Duplicate::Fail => 0,
        Duplicate::Skip => 1,
        Duplicate::Update => 2,
    }
}

fn duplicate(event: &NewEvent) -> StoreError {
    let key = event.key.as_deref().unwrap_or_default();
    let why = match event.duplicate {
        Duplicate::Update => "is in the outbox and has been started",
        _ => "is in the outbox already",
    };
    StoreError::new(StoreErrorKind::Constraint, format!("emitting an event: `{}` with the key `{key}` {why}", event.kind))
}

/// Why nothing was appended.
pub(super) enum Failed {
    Driver(tokio_postgres::Error),
    Refused(CommitError),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Failed {
        Failed::Driver(error)
    }
}

/// Whether an error says that the command is in the journal of this schema already, or its operation in the log.
pub(super) fn is_repeat(error: &tokio_postgres::Error, schema: &str) -> bool {
    let again = |error: &DbError| matches!((error.table(), error.constraint()), (Some("journal"), _) | (_, Some("operations_id_key")));
    let violates = |error: &DbError| error.code().code() == "23505" && error.schema() == Some(schema) && again(error);
    error.as_db_error().is_some_and(violates)
}
