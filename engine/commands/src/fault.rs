//! What can go wrong with a command, other than what its handler says.

use std::error::Error;

use crate::id::OperationId;
use crate::store_error::StoreError;

/// Why a command has not been done, other than by its handler's own word.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandFault {
    /// No handler is registered for the type.
    #[error("no handler is registered for command `{command}` on this server")]
    NoHandler {
        /// The command's name.
        command: String,
    },
    /// The database failed; nothing of the command was written.
    #[error("command `{command}` was not done: {error}")]
    Store {
        /// The command's name.
        command: String,
        /// The failure.
        #[source]
        error: StoreError,
    },
    /// The connection broke during the commit, and what became of it could not be found out in time. A repeat with the same
    /// [`CommandId`](crate::CommandId) finds out, and never does it twice.
    #[error("whether command `{command}` was done is not known (operation {operation}): {error}; repeat it with the same command id")]
    InDoubt {
        /// The command's name.
        command: String,
        /// The operation that may have been committed.
        operation: OperationId,
        /// What was seen last.
        #[source]
        error: StoreError,
    },
    /// The id was used for another command before.
    #[error("command id `{id}` was used for another `{journaled}` before; ids name one command with one content")]
    IdReused {
        /// The id.
        id: String,
        /// What it was used for.
        journaled: String,
    },
    /// The operation was committed already, by a try of this same call whose result nobody kept: no id was given.
    #[error("command `{command}` was done by an earlier try of this call, and its result is lost; give calls that are tried again an id")]
    AlreadyDone {
        /// The command's name.
        command: String,
    },
    /// The handler has returned while something it started still holds its operation.
    #[error("the handler of `{command}` has let its operation escape: await what uses it before returning; nothing was written")]
    Escaped {
        /// The command's name.
        command: String,
    },
    /// The handler panicked; nothing was written.
    #[error("the handler of `{command}` panicked: {message}")]
    Panicked {
        /// The command's name.
        command: String,
        /// What it said.
        message: String,
    },
    /// The command or its result cannot be written as JSON, or a journaled result not be read as what it is now.
    #[error("command `{command}`: {what} is not the JSON that was expected: {error}")]
    Json {
        /// The command's name.
        command: String,
        /// Which of them.
        what: &'static str,
        /// Why.
        #[source]
        error: serde_json::Error,
    },
    /// A filter has put another command's reply in place of its own.
    #[error("a filter has replaced the reply to command `{command}` by one of another type")]
    Replaced {
        /// The command's name.
        command: String,
    },
    /// The server has been shut down.
    #[error("the server is shut down: command `{command}` was not done")]
    Closed {
        /// The command's name.
        command: String,
    },
}

/// What a call ends with when it does not end well.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandError<E> {
    /// The handler said so; nothing was written.
    Handler(E),
    /// See there.
    Fault(CommandFault),
    /// A filter said so: a time limit, a refused permission. If it came after the commit had begun, the command is done all the same.
    Filter(Box<dyn Error + Send + Sync>),
}

impl<E: Error + 'static> CommandError<E> {
    /// Sorts an error that came through the filters.
    pub(crate) fn sort(error: Box<dyn Error + Send + Sync>) -> CommandError<E> {
        match error.downcast::<E>() {
            Ok(error) => CommandError::Handler(*error),
            Err(error) => match error.downcast::<CommandFault>() {
                Ok(fault) => CommandError::Fault(*fault),
                Err(error) => CommandError::Filter(error),
            },
        }
    }
}

impl<E: std::fmt::Display> std::fmt::Display for CommandError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommandError::Handler(error) => error.fmt(f),
            CommandError::Fault(fault) => fault.fmt(f),
            CommandError::Filter(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for CommandError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The errors themselves: whoever looks for what is below finds them.
            CommandError::Handler(error) => Some(error),
            CommandError::Fault(fault) => Some(fault),
            CommandError::Filter(error) => Some(&**error),
        }
    }
}
