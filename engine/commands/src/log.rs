//! The log that every server reads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::id::{LogId, OperationId};
use crate::position::{Cursor, Place};
use crate::record::Entry;
use crate::store_error::StoreError;

/// A boxed future: what makes a trait's asynchronous methods callable through `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The operations of all servers, in an order that respects real time and is the same for all.
///
/// Appending is not here: it happens in the transaction of the user's rows, by the [`Store`](crate::Store) whose log this is, or in
/// a [`Relay`](crate::Relay). A log is never asked to wait: that is what a [`Wakeup`](crate::Wakeup) is for.
pub trait OperationLog: fmt::Debug + Send + Sync + 'static {
    /// Which log this is: the same for every server that reads it, also after a restart.
    fn id(&self) -> LogId;

    /// Where the log ends now. A reader that starts here gets every operation that is not yet visible at this moment.
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>>;

    /// The operations that have become visible since the cursor, at most `most` of them, each exactly once along a chain of
    /// cursors, ordered by place within what is visible.
    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>>;

    /// Like [`read`](OperationLog::read), but in an order that is the same for every reader: what may still be overtaken by an operation
    /// at a smaller place waits. A log that is in one order anyway need not do anything about it.
    ///
    /// A cursor of one kind of reading is not one of the other, except that both may start at the [head](OperationLog::head).
    fn read_settled<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        self.read(since, most)
    }

    /// Removes operations older than `keep`, by the clock of the log itself; how many. Readers that had not read them yet find out.
    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// The end of a log at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// From where to read on.
    pub cursor: Cursor,
    /// Every operation at a place below this one was visible.
    pub horizon: Place,
    /// Operations that were visible at or above the horizon.
    pub recent: Vec<(Place, OperationId)>,
}

/// What a read has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The next operations.
    Entries {
        /// In the order of their places.
        entries: Vec<Entry>,
        /// From where to read on.
        cursor: Cursor,
        /// Every operation at a place below this one has been given out by now.
        horizon: Place,
        /// Whether there is more to be read at once.
        more: bool,
    },
    /// Operations after the cursor are gone (trimmed, or the log was replaced by an older or another one): nobody can say what they
    /// have made stale.
    Lost {
        /// What is known of it, for people.
        reason: String,
        /// From where what comes after them can be read, if the log can say so. Otherwise a reader goes on from the [head](OperationLog::head).
        next: Option<Cursor>,
    },
}

impl Reading {
    /// Operations after the cursor are gone, and nothing else can be read from there.
    pub fn lost(reason: impl Into<String>) -> Reading {
        Reading::Lost { reason: reason.into(), next: None }
    }
}

impl<L: OperationLog + ?Sized> OperationLog for std::sync::Arc<L> {
    fn id(&self) -> LogId {
        (**self).id()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        (**self).head()
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        (**self).read(since, most)
    }

    fn read_settled<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        (**self).read_settled(since, most)
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        (**self).trim(keep)
    }
}
