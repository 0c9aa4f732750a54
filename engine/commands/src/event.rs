//! Events: work that follows from an operation, is written with it, and is done at least once, by one server at a time.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::EventId;
use crate::log::BoxFuture;
use crate::store_error::StoreError;

/// A type whose values can be events. Its name is what rows are found by: keep it when you rename the type.
pub trait Event: Serialize + DeserializeOwned + Send + 'static {
    /// The name in the outbox.
    const NAME: &'static str;
}

/// What happens to an event whose de-duplication key is in the outbox already, whether it waits there, was done a short time ago
/// (within the outbox's retention), or is dead: a dead event keeps its key until it is requeued and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Duplicate {
    /// The whole operation fails: nothing is written.
    #[default]
    Fail,
    /// The event in the outbox stays as it is, and this one is dropped.
    Skip,
    /// The event in the outbox becomes this one, with its time and payload, if it has not been started; otherwise as
    /// [`Fail`](Duplicate::Fail). Whether it keeps its id and its turn in its partition is not promised.
    Update,
}

/// An event on its way into the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// Its type's name.
    pub kind: String,
    /// The value as JSON.
    pub payload: String,
    /// How long after the commit it is due, by the database's clock.
    pub delay: Duration,
    /// Events of one partition are done one after the other, in the order in which they were committed.
    pub partition: Option<String>,
    /// What it is de-duplicated by, within its type.
    pub key: Option<String>,
    /// What happens if the key is there.
    pub duplicate: Duplicate,
}

impl NewEvent {
    /// Due at once, in no partition, without de-duplication.
    pub fn new(kind: impl Into<String>, payload: impl Into<String>) -> NewEvent {
        NewEvent {
            id: EventId::new(),
            kind: kind.into(),
            payload: payload.into(),
            delay: Duration::ZERO,
            partition: None,
            key: None,
            duplicate: Duplicate::Fail,
        }
    }
}

/// The outbox as a queue. All times are the database's own, so that servers with wrong clocks agree.
///
/// A row is waiting, leased, done or dead. Done rows stay for the retention, for the sake of de-duplication.
pub trait EventQueue: fmt::Debug + Send + Sync + 'static {
    /// Leases up to `most` due events of these kinds, those that are due first: whoever else asks does not get them before the lease
    /// ends. Of a partition, only the first that is not done or dead, and only if it is due and not leased.
    fn claim<'a>(&'a self, kinds: &'a [String], most: usize, lease: Duration) -> BoxFuture<'a, Result<Claim, StoreError>>;

    /// Prolongs a lease; whether it was still held.
    fn renew<'a>(&'a self, event: &'a ClaimedEvent, lease: Duration) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// The event is done; whether the lease was still held.
    fn complete<'a>(&'a self, event: &'a ClaimedEvent) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// The event has failed: due again after a while, or dead if `again` is `None`. Whether the lease was still held.
    fn fail<'a>(&'a self, event: &'a ClaimedEvent, error: &'a str, again: Option<Duration>) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Dead events, oldest first.
    fn dead(&self, most: usize) -> BoxFuture<'_, Result<Vec<DeadEvent>, StoreError>>;

    /// Makes a dead event due now, with all its attempts before it; whether there was one. In its partition it is not done beside another;
    /// whether it comes before or after what waits there is not promised, since what it should have come before may be done already.
    fn requeue(&self, id: EventId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Removes events that were done longer ago than `keep`; how many. Dead ones stay until they are requeued.
    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// What a server has leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The events.
    pub events: Vec<ClaimedEvent>,
    /// In how long the next event of these kinds will be due or its lease will have run out, as far as is known now. Zero: there are
    /// more at once.
    pub next: Option<Duration>,
}

/// An event this server is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedEvent {
    /// Its id.
    pub id: EventId,
    /// Its type's name.
    pub kind: String,
    /// The value as JSON.
    pub payload: String,
    /// Its partition.
    pub partition: Option<String>,
    /// Counted from 1.
    pub attempt: u32,
    /// The lease.
    pub token: u64,
}

/// An event that has failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadEvent {
    /// Its id.
    pub id: EventId,
    /// Its type's name.
    pub kind: String,
    /// The value as JSON.
    pub payload: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The last failure.
    pub error: String,
}
