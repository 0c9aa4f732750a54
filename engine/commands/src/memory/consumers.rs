//! Durable cursors, as far as memory is durable.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::consumer::{Consumers, Hold};
use crate::log::BoxFuture;
use crate::memory::Memory;
use crate::position::Cursor;
use crate::store_error::StoreError;

/// Each name's lock, in which its cursor is.
pub(super) type Table = HashMap<String, Arc<AsyncMutex<Option<Cursor>>>>;

struct MemoryHold {
    name: String,
    /// Never waited for: the lock is held.
    cursor: std::sync::Mutex<OwnedMutexGuard<Option<Cursor>>>,
}

impl fmt::Debug for MemoryHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryHold").field(&self.name).finish()
    }
}

impl MemoryHold {
    fn boxed(name: &str, cursor: OwnedMutexGuard<Option<Cursor>>) -> Box<dyn Hold> {
        Box::new(MemoryHold { name: name.to_owned(), cursor: cursor.into() })
    }

    fn cursor(&self) -> std::sync::MutexGuard<'_, OwnedMutexGuard<Option<Cursor>>> {
        self.cursor.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Memory {
    fn consumer(&self, name: &str) -> Arc<AsyncMutex<Option<Cursor>>> {
        self.state().consumers.entry(name.to_owned()).or_default().clone()
    }
}

impl Consumers for Memory {
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>> {
        let held = self.consumer(name).try_lock_owned().ok();
        Box::pin(std::future::ready(Ok(held.map(|cursor| MemoryHold::boxed(name, cursor)))))
    }

    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>> {
        Box::pin(async move { Ok(MemoryHold::boxed(name, self.consumer(name).lock_owned().await)) })
    }
}

impl Hold for MemoryHold {
    fn cursor(&self) -> BoxFuture<'_, Result<Option<Cursor>, StoreError>> {
        let cursor = (*self.cursor()).clone();
        Box::pin(std::future::ready(Ok(cursor)))
    }

    fn save<'a>(&'a self, cursor: &'a Cursor) -> BoxFuture<'a, Result<(), StoreError>> {
        **self.cursor() = Some(cursor.clone());
        Box::pin(std::future::ready(Ok(())))
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
