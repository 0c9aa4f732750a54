//! The outbox as a queue.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use super::clock::until;
use super::outbox::{DEAD, DONE, LEASED, WAITING, lead};
use crate::event::{Claim, ClaimedEvent, DeadEvent, EventQueue};
use crate::id::EventId;
use crate::log::BoxFuture;
use crate::store_error::StoreError;

const CLAIMING: &str = "claiming events";

impl EventQueue for Sqlite {
    /// Writes only if there is something to claim: every commit makes other processes look, who would claim in turn.
    fn claim<'a>(&'a self, kinds: &'a [String], most: usize, lease: Duration) -> BoxFuture<'a, Result<Claim, StoreError>> {
        Box::pin(async move {
            let clock = self.0.clock.clone();
            let (wanted, at) = (kinds.to_vec(), clock.clone());
            let found = self.look(CLAIMING, move |connection| Found::look(connection, &wanted, most, at.now())).await?;
            if found.due.is_empty() {
                return Ok(Claim { events: Vec::new(), next: found.next });
            }
            let wanted = kinds.to_vec();
            let work = move |connection: &Connection| claim(connection, &wanted, most, clock.now(), clock.after(lease));
            self.0.writer.write(CLAIMING, Box::new(work)).await
        })
    }

    fn renew<'a>(&'a self, event: &'a ClaimedEvent, lease: Duration) -> BoxFuture<'a, Result<bool, StoreError>> {
        let (held, clock) = (Held::of(event), self.0.clock.clone());
        Box::pin(self.0.writer.write(
            "prolonging an event's lease",
            Box::new(move |connection| {
                let sql = "UPDATE wellspring_events SET due_at = ?3 WHERE id = ?1 AND state = 1 AND token = ?2";
                let renewed = connection.prepare_cached(sql)?.execute(params![held.id, held.token, clock.after(lease)])?;
                Ok(renewed > 0)
            }),
        ))
    }

    fn complete<'a>(&'a self, event: &'a ClaimedEvent) -> BoxFuture<'a, Result<bool, StoreError>> {
        let (held, clock) = (Held::of(event), self.0.clock.clone());
        Box::pin(self.0.writer.write(
            "completing an event",
            Box::new(move |connection| {
                let now = clock.now();
                held.release(connection, Next { state: DONE, due_at: now, ended_at: Some(now), error: None })
            }),
        ))
    }

    fn fail<'a>(&'a self, event: &'a ClaimedEvent, error: &'a str, again: Option<Duration>) -> BoxFuture<'a, Result<bool, StoreError>> {
        let (held, clock, error) = (Held::of(event), self.0.clock.clone(), error.to_owned());
        Box::pin(self.0.writer.write(
            "recording an event's failure",
            Box::new(move |connection| {
                let error = Some(error);
                let next = match again {
                    Some(delay) => Next { state: WAITING, due_at: clock.after(delay), ended_at: None, error },
                    None => Next { state: DEAD, due_at: clock.now(), ended_at: Some(clock.now()), error },
                };
                let released = held.release(connection, next)?;
                if released {
                    stir(connection)?;
                }
                Ok(released)
            }),
        ))
    }

    fn dead(&self, most: usize) -> BoxFuture<'_, Result<Vec<DeadEvent>, StoreError>> {
        Box::pin(self.look("listing dead events", move |connection| {
            let sql = "SELECT id, kind, payload, attempts, error FROM wellspring_events WHERE state = 3 ORDER BY seq LIMIT ?1";
            let mut dead = connection.prepare_cached(sql)?;
            let rows = dead.query_map([limit(most)], |row| {
                Ok(DeadEvent {
                    id: EventId::from_u128(u128::from_be_bytes(row.get(0)?)),
                    kind: row.get(1)?,
                    payload: row.get(2)?,
                    attempts: row.get(3)?,
                    error: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
                })
            })?;
            rows.collect()
        }))
    }

    fn requeue(&self, id: EventId) -> BoxFuture<'_, Result<bool, StoreError>> {
        let clock = self.0.clock.clone();
        Box::pin(self.0.writer.write(
            "requeueing a dead event",
            Box::new(move |connection| {
                let sql = "UPDATE wellspring_events SET state = 0, leading = partition IS NULL, attempts = 0, due_at = ?2, ended_at = NULL
                           WHERE id = ?1 AND state = 3 RETURNING partition";
                let mut requeue = connection.prepare_cached(sql)?;
                let id = id.as_u128().to_be_bytes();
                let found: Option<Option<String>> = requeue.query_row(params![id, clock.now()], |row| row.get(0)).optional()?;
                let Some(partition) = found else { return Ok(false) };
                if let Some(partition) = partition {
                    lead(connection, &partition)?;
                }
                stir(connection)?;
                Ok(true)
            }),
        ))
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.trim_events(keep))
    }
}

/// An event of this kind is due earlier than anybody knows: other processes are to look.
fn stir(connection: &Connection) -> rusqlite::Result<()> {
    let mut stir = connection.prepare_cached("UPDATE wellspring_meta SET value = value + 1 WHERE name = 'stirred'")?;
    stir.execute([]).map(drop)
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// A lease, as the table knows it.
#[derive(Clone, Copy)]
struct Held {
    id: [u8; 16],
    token: i64,
}

/// What becomes of an event whose lease ends.
struct Next {
    state: i64,
    due_at: i64,
    ended_at: Option<i64>,
    error: Option<String>,
}

impl Held {
    fn of(event: &ClaimedEvent) -> Held {
        Held { id: event.id.as_u128().to_be_bytes(), token: event.token.cast_signed() }
    }

    /// Ends the lease; whether it was held. One that has run out counts as held while nobody else has taken it: nothing was done twice.
    fn release(self, connection: &Connection, next: Next) -> rusqlite::Result<bool> {
        let sql = "UPDATE wellspring_events SET state = ?3, due_at = ?4, ended_at = ?5, error = coalesce(?6, error)
                   WHERE id = ?1 AND state = 1 AND token = ?2 RETURNING partition";
        let mut release = connection.prepare_cached(sql)?;
        let Next { state, due_at, ended_at, error } = next;
        let values = params![self.id, self.token, state, due_at, ended_at, error];
        let found: Option<Option<String>> = release.query_row(values, |row| row.get(0)).optional()?;
        let Some(partition) = found else { return Ok(false) };
        // Others may be waiting for what was behind it.
        if let Some(partition) = partition
            && lead(connection, &partition)?
        {
            stir(connection)?;
        }
        Ok(true)
    }
}

/// An event that may be claimed.
#[derive(Debug)]
struct Due {
    seq: i64,
    due_at: i64,
    event: ClaimedEvent,
}

/// What a look at the queue has found.
#[derive(Debug)]
struct Found {
    due: Vec<Due>,
    next: Option<Duration>,
}

/// A requeued event comes first again, but not while the one that came first meanwhile is being done.
const DUE: &str = "SELECT seq, due_at, id, kind, payload, partition, attempts, token FROM wellspring_events AS event
    WHERE kind = ?1 AND leading = 1 AND state <= 1 AND due_at <= ?2
      AND NOT EXISTS (SELECT 1 FROM wellspring_events AS other
                      WHERE other.partition = event.partition AND other.state = 1 AND other.due_at > ?2 AND other.seq <> event.seq)
    ORDER BY due_at, seq LIMIT ?3";

const LATER: &str = "SELECT due_at FROM wellspring_events
    WHERE kind = ?1 AND leading = 1 AND state <= 1 AND due_at > ?2 ORDER BY due_at LIMIT 1";

/// Of those that are due and wait for another of their partition, when its lease ends.
const HELD_UP: &str = "SELECT min(other.due_at) FROM wellspring_events AS event
    JOIN wellspring_events AS other ON other.partition = event.partition AND other.state = 1 AND other.due_at > ?2 AND other.seq <> event.seq
    WHERE event.kind = ?1 AND event.leading = 1 AND event.state <= 1 AND event.due_at <= ?2";

impl Found {
    fn look(connection: &Connection, kinds: &[String], most: usize, now: i64) -> rusqlite::Result<Found> {
        let mut all = Vec::new();
        for kind in kinds {
            let mut due = connection.prepare_cached(DUE)?;
            let rows = due.query_map(params![kind, now, limit(most).saturating_add(1)], Due::of)?;
            for row in rows {
                all.push(row?);
            }
        }
        all.sort_by_key(|due| (due.due_at, due.seq));
        // A kind that is asked for twice is found twice.
        all.dedup_by_key(|due| due.seq);
        let more = all.len() > most;
        all.truncate(most);
        let next = if more { Some(Duration::ZERO) } else { next(connection, kinds, now)? };
        Ok(Found { due: all, next })
    }
}

impl Due {
    fn of(row: &Row<'_>) -> rusqlite::Result<Due> {
        Ok(Due {
            seq: row.get(0)?,
            due_at: row.get(1)?,
            event: ClaimedEvent {
                id: EventId::from_u128(u128::from_be_bytes(row.get(2)?)),
                kind: row.get(3)?,
                payload: row.get(4)?,
                partition: row.get(5)?,
                attempt: row.get::<_, u32>(6)?.saturating_add(1),
                token: row.get::<_, i64>(7)?.cast_unsigned().wrapping_add(1),
            },
        })
    }
}

fn next(connection: &Connection, kinds: &[String], now: i64) -> rusqlite::Result<Option<Duration>> {
    let mut first: Option<i64> = None;
    for kind in kinds {
        let later: Option<i64> = connection.prepare_cached(LATER)?.query_row(params![kind, now], |row| row.get(0)).optional()?;
        let held_up: Option<i64> = connection.prepare_cached(HELD_UP)?.query_row(params![kind, now], |row| row.get(0))?;
        first = [first, later, held_up].into_iter().flatten().min();
    }
    Ok(first.map(|first| until(now, first)))
}

fn claim(connection: &Connection, kinds: &[String], most: usize, now: i64, until: i64) -> rusqlite::Result<Claim> {
    let found = Found::look(connection, kinds, most, now)?;
    let sql = "UPDATE wellspring_events SET state = ?2, due_at = ?3, attempts = ?4, token = ?5 WHERE seq = ?1";
    let mut lease = connection.prepare_cached(sql)?;
    let mut events = Vec::with_capacity(found.due.len());
    for Due { seq, event, .. } in found.due {
        lease.execute(params![seq, LEASED, until, event.attempt, event.token.cast_signed()])?;
        events.push(event);
    }
    let next = match found.next {
        Some(Duration::ZERO) => found.next,
        // With the leases just taken.
        _ => next(connection, kinds, now)?,
    };
    Ok(Claim { events, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn no_question_to_the_queue_looks_through_all_of_it() {
        let mut connection = Connection::open_in_memory().expect("opened");
        schema::prepare(&mut connection, Duration::ZERO).expect("prepared");
        for sql in [DUE, LATER, HELD_UP] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepared");
            let count = plan.parameter_count();
            let values = rusqlite::params_from_iter(["mail", "0", "10"].into_iter().take(count));
            let steps: Vec<String> = plan.query_map(values, |row| row.get(3)).expect("planned").map(|step| step.expect("a step")).collect();
            assert!(!steps.is_empty());
            for step in steps {
                assert!(!step.starts_with("SCAN") && !step.contains("TEMP B-TREE"), "{step} in {sql}");
            }
        }
    }
}
