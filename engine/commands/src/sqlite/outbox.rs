//! Events on their way into the outbox, and the order within a partition.

use rusqlite::{Connection, OptionalExtension};

use super::clock::millis;
use super::fault;
use crate::event::{Duplicate, NewEvent};
use crate::store::CommitError;
use crate::store_error::{StoreError, StoreErrorKind};

/// In the order of their numbers: those below [`DONE`] are unfinished, which the indexes rely on.
pub(crate) const WAITING: i64 = 0;
pub(crate) const LEASED: i64 = 1;
pub(crate) const DONE: i64 = 2;
pub(crate) const DEAD: i64 = 3;

const DOING: &str = "writing an event into the outbox";

const INSERT: &str = "INSERT INTO wellspring_events (id, kind, payload, partition, key, state, leading, due_at)
    VALUES (?1, ?2, ?3, ?4, ?5, 0, NOT EXISTS (SELECT 1 FROM wellspring_events WHERE partition = ?4 AND state <= 1), ?6)";

const FIRST: &str = "SELECT seq FROM wellspring_events WHERE partition = ?1 AND state <= 1 ORDER BY seq LIMIT 1";

const STEP_BACK: &str = "UPDATE wellspring_events SET leading = 0 WHERE partition = ?1 AND leading = 1 AND state <= 1 AND seq <> ?2";

const STEP_FORWARD: &str = "UPDATE wellspring_events SET leading = 1 WHERE seq = ?1 AND leading = 0";

/// Writes the events of one operation, in their order.
pub(crate) fn insert_all(connection: &Connection, events: &[NewEvent], now: i64) -> Result<(), CommitError> {
    for event in events {
        let there = match &event.key {
            Some(key) => find(connection, &event.kind, key).map_err(fault::doing(DOING))?,
            None => None,
        };
        match (there, event.duplicate) {
            (None, _) => insert(connection, event, now).map_err(fault::doing(DOING))?,
            (Some(_), Duplicate::Skip) => {}
            (Some(there), Duplicate::Update) if there.untouched => {
                replace(connection, &there, event, now).map_err(fault::doing(DOING))?;
            }
            (Some(_), Duplicate::Fail | Duplicate::Update) => {
                let key = event.key.as_deref().unwrap_or_default();
                let text = format!("there is an event `{}` with the key `{key}` already", event.kind);
                return Err(StoreError::with(StoreErrorKind::Constraint, DOING, text).into());
            }
        }
    }
    Ok(())
}

/// An event with the key of another.
struct There {
    seq: i64,
    partition: Option<String>,
    untouched: bool,
}

fn find(connection: &Connection, kind: &str, key: &str) -> rusqlite::Result<Option<There>> {
    let mut find =
        connection.prepare_cached("SELECT seq, partition, state, attempts FROM wellspring_events WHERE kind = ?1 AND key = ?2")?;
    find.query_row((kind, key), |row| {
        let (state, attempts): (i64, i64) = (row.get(2)?, row.get(3)?);
        Ok(There { seq: row.get(0)?, partition: row.get(1)?, untouched: state == WAITING && attempts == 0 })
    })
    .optional()
}

fn insert(connection: &Connection, event: &NewEvent, now: i64) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(INSERT)?;
    let id = event.id.as_u128().to_be_bytes();
    let due_at = now.saturating_add(millis(event.delay));
    insert.execute((id, &event.kind, &event.payload, &event.partition, &event.key, due_at)).map(drop)
}

/// In the place of the old row the new one would be done before events that were committed earlier: it takes its turn in its partition.
fn replace(connection: &Connection, there: &There, event: &NewEvent, now: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM wellspring_events WHERE seq = ?1")?.execute([there.seq])?;
    if let Some(partition) = &there.partition {
        lead(connection, partition)?;
    }
    insert(connection, event, now)
}

/// Makes the first unfinished event of a partition the one that is offered, after any change of which that is; whether it is another one
/// than before.
pub(crate) fn lead(connection: &Connection, partition: &str) -> rusqlite::Result<bool> {
    let first: Option<i64> = connection.prepare_cached(FIRST)?.query_row([partition], |row| row.get(0)).optional()?;
    let Some(first) = first else { return Ok(false) };
    connection.prepare_cached(STEP_BACK)?.execute((partition, first))?;
    Ok(connection.prepare_cached(STEP_FORWARD)?.execute([first])? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn no_statement_looks_through_all_events_or_all_of_a_partition() {
        let mut connection = Connection::open_in_memory().expect("opened");
        schema::prepare(&mut connection, std::time::Duration::ZERO).expect("prepared");
        for sql in [INSERT, FIRST, STEP_BACK, STEP_FORWARD] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepared");
            let values = vec![rusqlite::types::Null; plan.parameter_count()];
            let steps = plan.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).expect("planned");
            for step in steps {
                let step = step.expect("a step");
                assert!(!step.starts_with("SCAN w") && !step.contains("TEMP B-TREE"), "{step} in {sql}");
            }
        }
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {STEP_BACK}")).expect("prepared");
        let step: String = plan.query_row(("a", 1), |row| row.get(3)).expect("planned");
        assert!(step.contains("wellspring_events_leading"), "{step}");
    }
}
