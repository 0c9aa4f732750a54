//! An outbox in memory, which outlives its relays as a table would.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wellspring_commands::{
    BoxFuture, Entry, LocalWakeup, LogId, Outbox, OutboxHold, Outgoing, Place, Sent, StoreError, StoreErrorKind, Wakeup,
};

/// The log of every outbox of the tests.
pub const LOG: u128 = 1;

#[derive(Debug)]
pub struct MemoryOutbox {
    rows: Arc<Mutex<Rows>>,
    right: Arc<Semaphore>,
    pub wakeup: Arc<LocalWakeup>,
}

#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub entries: Vec<Entry>,
    pub sent: usize,
    pub told: Option<Sent>,
    /// What befalls the next who says that something was sent.
    pub fault: Option<StoreErrorKind>,
    /// Held back by a transaction that goes on.
    pub horizon: Option<Place>,
    pub given: usize,
}

impl MemoryOutbox {
    pub fn new() -> Arc<MemoryOutbox> {
        let rows = Arc::default();
        Arc::new(MemoryOutbox { rows, right: Arc::new(Semaphore::new(1)), wakeup: Arc::default() })
    }

    pub fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As committed by a server that hints.
    pub fn add(&self, entry: Entry) -> Entry {
        self.rows().entries.push(entry.clone());
        self.wakeup.notify();
        entry
    }

    /// Numbered on from what is there.
    pub fn add_some(&self, count: u64) -> Vec<Entry> {
        let first = self.rows().entries.len() as u64 + 1;
        (first..first + count).map(|number| self.add(super::entry(number))).collect()
    }

    pub fn all_sent(&self) -> bool {
        let rows = self.rows();
        rows.sent == rows.entries.len()
    }
}

impl Outbox for MemoryOutbox {
    fn id(&self) -> LogId {
        LogId::from_u128(LOG)
    }

    fn hold(&self) -> BoxFuture<'_, Result<Box<dyn OutboxHold>, StoreError>> {
        Box::pin(async move {
            let right = self.right.clone().acquire_owned().await.map_err(|_| StoreError::new(StoreErrorKind::Other, "holding"))?;
            Ok(Box::new(MemoryHold { rows: self.rows.clone(), _right: right }) as Box<dyn OutboxHold>)
        })
    }
}

#[derive(Debug)]
struct MemoryHold {
    rows: Arc<Mutex<Rows>>,
    _right: OwnedSemaphorePermit,
}

impl MemoryHold {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutboxHold for MemoryHold {
    fn last_sent(&self) -> BoxFuture<'_, Result<Option<Sent>, StoreError>> {
        Box::pin(async move { Ok(self.rows().told.clone()) })
    }

    fn unsent(&self, most: usize) -> BoxFuture<'_, Result<Outgoing, StoreError>> {
        Box::pin(async move {
            let mut rows = self.rows();
            let rest = &rows.entries[rows.sent..];
            let entries = rest[..most.min(rest.len())].to_vec();
            rows.given = rows.sent + entries.len();
            let given = Place::new(rows.given as u64 + 1, 0);
            let horizon = rows.horizon.map_or(given, |held| held.min(given));
            Ok(Outgoing::Entries { entries, horizon, more: rows.given < rows.entries.len() })
        })
    }

    fn sent<'a>(&'a self, sent: &'a Sent) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut rows = self.rows();
            if let Some(kind) = rows.fault.take() {
                return Err(StoreError::new(kind, "forgetting what was sent"));
            }
            rows.sent = rows.given;
            rows.told = Some(sent.clone());
            Ok(())
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
