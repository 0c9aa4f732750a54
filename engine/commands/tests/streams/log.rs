//! A log in memory with durable cursors, for the outbox over a log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wellspring_commands::{
    BoxFuture, Consumers, Cursor, Entry, Head, Hold, LogId, OperationLog, Place, Reading, StoreError, StoreErrorKind,
};

#[derive(Debug, Default)]
pub struct MemoryLog(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
pub struct Tables {
    pub entries: Vec<Entry>,
    pub trimmed: usize,
    pub cursors: HashMap<String, Cursor>,
    names: HashMap<String, Arc<Semaphore>>,
}

impl MemoryLog {
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, numbers: std::ops::RangeInclusive<u64>) {
        self.tables().entries.extend(numbers.map(super::entry));
    }
}

fn horizon(read: usize) -> Place {
    Place::new(read as u64 + 1, 0)
}

impl OperationLog for MemoryLog {
    fn id(&self) -> LogId {
        LogId::from_u128(1)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        Box::pin(async move {
            let end = self.tables().entries.len();
            Ok(Head { cursor: Cursor::new(end.to_string()), horizon: horizon(end), recent: Vec::new() })
        })
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(async move {
            let tables = self.tables();
            let since: usize = since.as_str().parse().expect("a number");
            if since < tables.trimmed {
                return Ok(Reading::lost("trimmed"));
            }
            let end = tables.entries.len().min(since + most);
            let entries = tables.entries[since..end].to_vec();
            let more = end < tables.entries.len();
            Ok(Reading::Entries { entries, cursor: Cursor::new(end.to_string()), horizon: horizon(end), more })
        })
    }

    fn trim(&self, _keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { Err(StoreError::new(StoreErrorKind::Other, "trimming")) })
    }
}

impl Consumers for MemoryLog {
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>> {
        Box::pin(async move {
            let free = self.tables().names.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
            Ok(free.try_acquire_owned().ok().map(|right| self.held(name, right)))
        })
    }

    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>> {
        Box::pin(async move {
            let free = self.tables().names.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
            let right = free.acquire_owned().await.map_err(|_| StoreError::new(StoreErrorKind::Other, "holding"))?;
            Ok(self.held(name, right))
        })
    }
}

impl MemoryLog {
    fn held(&self, name: &str, right: OwnedSemaphorePermit) -> Box<dyn Hold> {
        Box::new(MemoryHold { tables: self.0.clone(), name: name.to_owned(), _right: right })
    }
}

#[derive(Debug)]
struct MemoryHold {
    tables: Arc<Mutex<Tables>>,
    name: String,
    _right: OwnedSemaphorePermit,
}

impl MemoryHold {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold for MemoryHold {
    fn cursor(&self) -> BoxFuture<'_, Result<Option<Cursor>, StoreError>> {
        Box::pin(async move { Ok(self.tables().cursors.get(&self.name).cloned()) })
    }

    fn save<'a>(&'a self, cursor: &'a Cursor) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.tables().cursors.insert(self.name.clone(), cursor.clone());
            Ok(())
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
