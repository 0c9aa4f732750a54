//! What can go wrong with a database, a log or a lease.

use std::error::Error;
use std::fmt;

/// The kinds of failure that lead to different things being done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Two transactions were in each other's way: nothing was done, and the same again may succeed.
    Conflict,
    /// The server cannot be reached, or has gone away.
    Unavailable,
    /// The database cannot be written to: it is read-only here.
    ReadOnly,
    /// The disk is full.
    Full,
    /// A unique key was there already, or another rule of the database was broken.
    Constraint,
    /// What is in the database is not what was expected: another version's tables, a damaged file.
    Corrupt,
    /// A lease has been lost to another process.
    Fenced,
    /// Anything else.
    Other,
}

/// A failure of a database, a log or a lease, with what was being done.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    doing: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// What kind of failure, and what was being done ("appending to the operation log").
    pub fn new(kind: StoreErrorKind, doing: impl Into<String>) -> StoreError {
        StoreError { kind, doing: doing.into(), source: None }
    }

    /// With the failure below it.
    pub fn with(kind: StoreErrorKind, doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        StoreError { kind, doing: doing.into(), source: Some(source.into()) }
    }

    /// The kind.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same again may succeed soon, without anybody doing anything about it.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Conflict | StoreErrorKind::Unavailable)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::Conflict => "another transaction was in the way",
            StoreErrorKind::Unavailable => "the server cannot be reached",
            StoreErrorKind::ReadOnly => "the database is read-only",
            StoreErrorKind::Full => "the disk is full",
            StoreErrorKind::Constraint => "a rule of the database was broken",
            StoreErrorKind::Corrupt => "what is stored there is not what was expected",
            StoreErrorKind::Fenced => "another process holds the lease now",
            StoreErrorKind::Other => "failed",
        };
        write!(f, "{}: {what}", self.doing)?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
