//! The database that commands change, as this crate needs it.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::Consumers;
use crate::draft::Draft;
use crate::event::EventQueue;
use crate::id::CommandId;
use crate::journal::JournalEntry;
use crate::log::OperationLog;
use crate::position::LogPosition;
use crate::record::LoggedKey;
use crate::store_error::StoreError;
use crate::wakeup::Wakeup;

/// A database whose transactions take the operation, its events and its journal entry along with the user's rows.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// What a handler works in. Dropping it without a commit rolls back.
    type Tx: Send + Sync + 'static;

    /// Begins a transaction.
    fn begin(&self) -> impl Future<Output = Result<Self::Tx, StoreError>> + Send;

    /// Commits the transaction and with it the draft: all of it or nothing. Whoever sees any of it sees all of it.
    fn commit(&self, tx: Self::Tx, draft: Draft) -> impl Future<Output = Result<Committed, CommitError>> + Send;

    /// What has become of a commit whose end was not seen, on a fresh connection.
    fn verify(&self, doubt: &Doubt) -> impl Future<Output = Result<Verdict, StoreError>> + Send;

    /// The journaled result of a command.
    fn journaled(&self, id: &CommandId) -> impl Future<Output = Result<Option<JournalEntry>, StoreError>> + Send;

    /// Whether one error of a chain of sources means that the same again may succeed: a serialization failure, a busy database.
    fn is_transient(&self, error: &(dyn Error + 'static)) -> bool;

    /// Removes journal entries older than `keep`, by the database's clock; how many.
    fn trim_journal(&self, keep: Duration) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Its own log.
    fn log(&self) -> Arc<dyn OperationLog>;

    /// Hints of its own.
    fn wakeup(&self) -> Arc<dyn Wakeup>;

    /// Durable cursors of its own.
    fn consumers(&self) -> Arc<dyn Consumers>;

    /// Its outbox of events.
    fn events(&self) -> Arc<dyn EventQueue>;
}

/// A commit that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it is in the log.
    pub position: LogPosition,
    /// What is stale by it, as it was recorded.
    pub keys: Vec<LoggedKey>,
}

/// Why a commit has not happened, or is not known to have.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitError {
    /// It has not happened, and nothing of it is there.
    Failed(StoreError),
    /// It has not happened, because a closure of the handler's ended with this error.
    Refused(Box<dyn Error + Send + Sync>),
    /// It has not happened, because a command with this id has been committed already.
    Repeated,
    /// It may have happened, and the store has nothing to find that out with.
    Unknown(StoreError),
    /// The connection broke during the commit: it may have happened.
    InDoubt {
        /// What was seen of it.
        error: StoreError,
        /// With what to find out.
        doubt: Box<Doubt>,
    },
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> CommitError {
        CommitError::Failed(error)
    }
}

/// A commit whose end was not seen.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// The operation, at the place it has if it was committed.
    pub position: LogPosition,
    /// What is stale if it was.
    pub keys: Vec<LoggedKey>,
    /// What the store needs to tell a transaction that goes on from one that has ended.
    pub ticket: u64,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has happened.
    Committed,
    /// It has not, and will not.
    RolledBack,
    /// The database is still at it: ask again.
    Running,
}
