//! Places in a log.

use serde::{Deserialize, Serialize};

use crate::id::{LogId, OperationId};

/// A place in the order of a log, which is total and the same for every server.
///
/// What the two numbers are is the log's own: a sequence number (SQLite), a transaction id and a sequence number (PostgreSQL).
/// An operation that was committed before another began has the smaller place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Place {
    /// Compared first.
    pub major: u64,
    /// Compared second.
    pub minor: u64,
}

impl Place {
    /// From its two numbers.
    pub const fn new(major: u64, minor: u64) -> Place {
        Place { major, minor }
    }
}

/// Where a committed operation is in its log: what a caller takes to another server, to read there what it has written here.
///
/// It is serde data, so it travels in a header or a reply. See [`Server::wait_for`](crate::Server::wait_for).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The log.
    pub log: LogId,
    /// The place in it.
    pub place: Place,
    /// The operation.
    pub operation: OperationId,
}

/// How far a reader has read, in the words of the log it reads: opaque, and storable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// From the log's own text.
    pub fn new(text: impl Into<String>) -> Cursor {
        Cursor(text.into())
    }

    /// The log's own text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
