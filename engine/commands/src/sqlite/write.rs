//! What a handler may do with the database: queue closures, which run at commit.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::draft::Draft;
use crate::event::NewEvent;
use crate::record::LoggedKey;

/// A transaction that has not begun: what is to be written, in order.
///
/// Nothing touches the database before the commit. A handler that must decide by what it reads does so inside a closure, where
/// nobody else is writing, or reads first with [`Sqlite::read`](super::Sqlite::read) and takes into account that it may have changed.
#[derive(Default)]
pub struct SqliteTx {
    closures: Mutex<Vec<Closure>>,
}

pub(crate) type Closure = Box<dyn FnOnce(&mut Write<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + Send>;

impl SqliteTx {
    /// Queues a closure that runs at commit, in the writer's thread, after those queued before it.
    ///
    /// An error rolls the whole operation back, and is what the commit ends with
    /// ([`CommitError::Refused`](crate::CommitError::Refused)). So does a panic ([`ClosurePanicked`](super::ClosurePanicked)).
    /// All other commits wait meanwhile: keep it short. It cannot end the transaction it runs in, but may use savepoints.
    pub fn write<F>(&self, closure: F)
    where
        F: FnOnce(&mut Write<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        self.closures.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(closure));
    }

    pub(crate) fn into_closures(self) -> Vec<Closure> {
        self.closures.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SqliteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = self.closures.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("SqliteTx").field("queued", &queued).finish()
    }
}

/// A transaction that is being committed: a [`Connection`], and the operation's draft, since what is stale may be known only here.
pub struct Write<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) draft: &'a mut Draft,
}

impl Write<'_> {
    /// Records a key as stale by this operation.
    pub fn add_key(&mut self, key: LoggedKey) {
        self.draft.add_key(key);
    }

    /// Records that a key is stale by this operation, as [`Op::invalidate`](crate::Op::invalidate) does.
    ///
    /// # Errors
    /// [`InvalidateError`](crate::InvalidateError) if the key would not arrive as itself.
    pub fn invalidate<K, Q>(&mut self, function: &crate::Logged<K>, key: &Q) -> Result<(), crate::InvalidateError>
    where
        K: wellspring::Key + serde::Serialize + serde::de::DeserializeOwned,
        Q: ?Sized + wellspring::Lookup<K>,
    {
        self.add_key(function.key(key)?);
        Ok(())
    }

    /// Adds an event to the outbox.
    pub fn add_event(&mut self, event: NewEvent) {
        self.draft.add_event(event);
    }

    /// The operation as it stands.
    pub fn draft(&mut self) -> &mut Draft {
        self.draft
    }
}

impl Deref for Write<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl fmt::Debug for Write<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").field("draft", &self.draft).finish_non_exhaustive()
    }
}

impl crate::op::Op<super::Sqlite> {
    /// Writes rows at the commit, on the writer's thread, after what was written before it. An error refuses the whole operation, and
    /// is what the call ends with.
    ///
    /// The closure should be short: it runs within a transaction that other operations share. What is stale may be found out in it:
    /// [`Write::add_key`].
    pub fn write<F, E>(&self, closure: F)
    where
        F: FnOnce(&mut Write<'_>) -> Result<(), E> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.tx().write(move |write| closure(write).map_err(Into::into));
    }
}
