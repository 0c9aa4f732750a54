//! The results of commands whose callers named them, so that a repeat gets the result and not a second change.

use crate::id::CommandId;
use crate::position::LogPosition;

/// What is written in the transaction of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJournalEntry {
    /// The caller's name for the call.
    pub id: CommandId,
    /// The command's name.
    pub command: String,
    /// A digest of the command's content, so that one id for two different commands is noticed.
    pub digest: u128,
    /// The result as JSON.
    pub result: String,
}

/// What a repeat finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The command's name.
    pub command: String,
    /// The digest of its content.
    pub digest: u128,
    /// The result as JSON.
    pub result: String,
    /// Where the operation is in the log.
    pub position: LogPosition,
}
