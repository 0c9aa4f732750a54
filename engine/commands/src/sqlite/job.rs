//! What the writer thread is asked to do.

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::fault;
use super::group::Turn;
use crate::id::OperationId;
use crate::store_error::{StoreError, StoreErrorKind};

/// One part of a group, in a savepoint of its own.
pub(crate) trait Job: Send {
    /// Writes. What it returns says whether its savepoint stays; a job that does not want it remembers why.
    fn apply(&mut self, turn: &Turn<'_>) -> bool;

    /// The operation that is in the log if this was committed.
    fn operation(&self) -> Option<OperationId> {
        None
    }

    /// Tells whoever waits, if anybody does.
    fn end(self: Box<Self>, end: End);
}

/// What became of a job.
#[derive(Debug)]
pub(crate) enum End {
    /// It is in the database.
    Committed,
    /// It did not want to be, and is not.
    Withdrawn,
    /// It is not in the database, for a reason outside of it.
    Failed(StoreError),
    /// It may be in the database.
    InDoubt(StoreError),
}

/// A piece of work of this module's own.
pub(crate) struct Request<T> {
    doing: &'static str,
    work: Option<Work<T>>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

pub(crate) type Work<T> = Box<dyn FnOnce(&Connection) -> rusqlite::Result<T> + Send>;

impl<T> Request<T> {
    pub(crate) fn new(doing: &'static str, work: Work<T>) -> (Request<T>, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Request { doing, work: Some(work), outcome: None, reply }, answer)
    }
}

impl<T: Send> Job for Request<T> {
    fn apply(&mut self, turn: &Turn<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let outcome = work(turn.connection);
        let keep = outcome.is_ok();
        self.outcome = Some(outcome.map_err(fault::doing(self.doing)));
        keep
    }

    fn end(self: Box<Self>, end: End) {
        let Request { doing, work, outcome, reply } = *self;
        // What the work holds is given up before anybody hears that it was not done: a lock, for example.
        drop(work);
        let answer = match (end, outcome) {
            (End::Committed | End::Withdrawn, Some(outcome)) => outcome,
            (End::Committed | End::Withdrawn, None) => Err(StoreError::new(StoreErrorKind::Unavailable, doing)),
            (End::Failed(error) | End::InDoubt(error), outcome) => {
                drop(outcome);
                Err(error)
            }
        };
        // Whoever has gone does not need it.
        let _ = reply.send(answer);
    }
}
