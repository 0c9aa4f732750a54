//! The outbox, in the rules of [`EventQueue`].

use std::time::Duration;

use tokio::time::Instant;

use crate::event::{Claim, ClaimedEvent, DeadEvent, Duplicate, EventQueue, NewEvent};
use crate::id::EventId;
use crate::log::BoxFuture;
use crate::memory::Memory;
use crate::store_error::{StoreError, StoreErrorKind};

#[derive(Clone)]
enum State {
    /// With the lease's token while it is leased; due at the end of the lease then.
    Waiting(Option<u64>),
    Done(Instant),
    Dead(String),
}

#[derive(Clone)]
struct Row {
    event: NewEvent,
    due: Instant,
    attempts: u32,
    state: State,
}

/// The rows, in the order in which they were committed.
#[derive(Clone, Default)]
pub(super) struct Queue {
    rows: Vec<Row>,
    tokens: u64,
}

impl Queue {
    /// The queue with an operation's events in it.
    pub(super) fn with(&self, events: &[NewEvent], now: Instant) -> Result<Queue, StoreError> {
        let mut queue = self.clone();
        for event in events {
            let row = Row { event: event.clone(), due: now + event.delay, attempts: 0, state: State::Waiting(None) };
            let same = |row: &&mut Row| event.key.is_some() && row.event.key == event.key && row.event.kind == event.kind;
            match (queue.rows.iter_mut().find(same), event.duplicate) {
                (None, _) => queue.rows.push(row),
                (Some(_), Duplicate::Skip) => {}
                (Some(old), Duplicate::Update) if old.attempts == 0 && matches!(old.state, State::Waiting(None)) => {
                    let id = old.event.id;
                    *old = row;
                    old.event.id = id;
                }
                (Some(_), Duplicate::Fail | Duplicate::Update) => {
                    let key = event.key.as_deref().unwrap_or_default();
                    let doing = format!("emitting event `{}`, whose key `{key}` is in the outbox already", event.kind);
                    return Err(StoreError::new(StoreErrorKind::Constraint, doing));
                }
            }
        }
        Ok(queue)
    }

    /// Whether an earlier event of the row's partition is still to be done.
    fn is_behind(&self, at: usize) -> bool {
        let partition = &self.rows[at].event.partition;
        partition.is_some() && self.rows[..at].iter().any(|row| row.event.partition == *partition && matches!(row.state, State::Waiting(_)))
    }

    fn claim(&mut self, kinds: &[String], most: usize, lease: Duration, now: Instant) -> Claim {
        let mut candidates: Vec<_> = (0..self.rows.len())
            .filter(|&at| {
                let row = &self.rows[at];
                matches!(row.state, State::Waiting(_)) && kinds.contains(&row.event.kind) && !self.is_behind(at)
            })
            .collect();
        candidates.sort_by_key(|&at| self.rows[at].due);
        let due = candidates.iter().filter(|&&at| self.rows[at].due <= now).count();
        let events = candidates[..due.min(most)].iter().map(|&at| {
            self.tokens += 1;
            let row = &mut self.rows[at];
            row.attempts += 1;
            row.due = now + lease;
            row.state = State::Waiting(Some(self.tokens));
            let NewEvent { id, kind, payload, partition, .. } = row.event.clone();
            ClaimedEvent { id, kind, payload, partition, attempt: row.attempts, token: self.tokens }
        });
        let events: Vec<_> = events.collect();
        let next = match due > most {
            true => Some(Duration::ZERO),
            false => candidates.iter().map(|&at| self.rows[at].due.saturating_duration_since(now)).min(),
        };
        Claim { events, next }
    }

    /// The row of a claimed event, while its lease is held.
    fn leased(&mut self, event: &ClaimedEvent, now: Instant) -> Option<&mut Row> {
        let held = |row: &&mut Row| {
            row.event.id == event.id && row.due > now && matches!(row.state, State::Waiting(Some(token)) if token == event.token)
        };
        self.rows.iter_mut().find(held)
    }
}

impl Memory {
    fn with_lease(&self, event: &ClaimedEvent, change: impl FnOnce(&mut Row, Instant)) -> BoxFuture<'static, Result<bool, StoreError>> {
        let now = Instant::now();
        let held = self.state().events.leased(event, now).map(|row| change(row, now)).is_some();
        Box::pin(std::future::ready(Ok(held)))
    }
}

impl EventQueue for Memory {
    fn claim<'a>(&'a self, kinds: &'a [String], most: usize, lease: Duration) -> BoxFuture<'a, Result<Claim, StoreError>> {
        let claim = self.state().events.claim(kinds, most, lease, Instant::now());
        Box::pin(std::future::ready(Ok(claim)))
    }

    fn renew<'a>(&'a self, event: &'a ClaimedEvent, lease: Duration) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.with_lease(event, |row, now| row.due = now + lease)
    }

    fn complete<'a>(&'a self, event: &'a ClaimedEvent) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.with_lease(event, |row, now| row.state = State::Done(now))
    }

    fn fail<'a>(&'a self, event: &'a ClaimedEvent, error: &'a str, again: Option<Duration>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.with_lease(event, |row, now| match again {
            Some(again) => (row.due, row.state) = (now + again, State::Waiting(None)),
            None => row.state = State::Dead(error.to_owned()),
        })
    }

    fn dead(&self, most: usize) -> BoxFuture<'_, Result<Vec<DeadEvent>, StoreError>> {
        let dead = |row: &Row| match &row.state {
            State::Dead(error) => {
                let NewEvent { id, kind, payload, .. } = row.event.clone();
                Some(DeadEvent { id, kind, payload, attempts: row.attempts, error: error.clone() })
            }
            _ => None,
        };
        let dead = self.state().events.rows.iter().filter_map(dead).take(most).collect();
        Box::pin(std::future::ready(Ok(dead)))
    }

    fn requeue(&self, id: EventId) -> BoxFuture<'_, Result<bool, StoreError>> {
        let mut state = self.state();
        let dead = |row: &&mut Row| row.event.id == id && matches!(row.state, State::Dead(_));
        let found = state.events.rows.iter_mut().find(dead).map(|row| {
            (row.due, row.attempts, row.state) = (Instant::now(), 0, State::Waiting(None));
        });
        Box::pin(std::future::ready(Ok(found.is_some())))
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        let mut state = self.state();
        let before = state.events.rows.len();
        state.events.rows.retain(|row| !matches!(row.state, State::Done(at) if at.elapsed() >= keep));
        Box::pin(std::future::ready(Ok((before - state.events.rows.len()) as u64)))
    }
}
