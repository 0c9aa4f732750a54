//! Named consumers: readers of the log whose cursor outlives them, of which one at a time exists anywhere.

use std::fmt;

use crate::log::BoxFuture;
use crate::position::Cursor;
use crate::store_error::StoreError;

/// Where durable cursors are kept, and who may move them.
pub trait Consumers: fmt::Debug + Send + Sync + 'static {
    /// Takes the name if nobody holds it. `None`: somebody does.
    ///
    /// What holds it dies with the process: an OS file lock, a session's advisory lock, or a lease that is renewed.
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>>;

    /// Takes the name, waiting for whoever holds it. Dropping the future leaves the queue.
    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>>;
}

/// A held name. Dropping it gives it up.
pub trait Hold: fmt::Debug + Send + Sync + 'static {
    /// The cursor the last holder saved.
    fn cursor(&self) -> BoxFuture<'_, Result<Option<Cursor>, StoreError>>;

    /// Saves a cursor.
    ///
    /// # Errors
    /// [`StoreErrorKind::Fenced`](crate::StoreErrorKind::Fenced) if somebody else holds the name by now: nothing was saved.
    fn save<'a>(&'a self, cursor: &'a Cursor) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Ready when the name was lost without being given up: the connection broke, the lease ran out. Pending for ever otherwise.
    fn lost(&self) -> BoxFuture<'_, ()>;
}

impl<C: Consumers + ?Sized> Consumers for std::sync::Arc<C> {
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>> {
        (**self).try_hold(name)
    }

    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>> {
        (**self).hold(name)
    }
}
