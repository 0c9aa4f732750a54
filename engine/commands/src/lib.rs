//! Commands and the operation log: a change on one server is stale on every server, in order, and nothing is lost.
#![forbid(unsafe_code)]

mod apply;
mod backoff;
mod builder;
mod call;
mod command;
mod consume;
mod consumer;
mod draft;
mod event;
mod execute;
mod fault;
mod follow;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod id;
mod items;
mod journal;
#[cfg(any(feature = "nats", feature = "redis"))]
mod lease;
mod log;
mod log_outbox;
mod logged;
mod message;
mod notice;
mod op;
mod outbox;
mod position;
mod record;
mod relay;
mod retention;
mod server;
mod sink;
mod store;
mod store_error;
#[cfg(any(feature = "nats", feature = "redis"))]
mod streamed;
mod wakeup;
mod work;

pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use crate::apply::Applied;
pub use crate::backoff::Pause;
pub use crate::builder::{Builder, StartError};
pub use crate::call::{Call, Done, Reply};
pub use crate::command::Command;
pub use crate::consume::{Consumed, Consumer, Operation};
pub use crate::consumer::{Consumers, Hold};
pub use crate::draft::{Draft, MOST_KEYS};
pub use crate::event::{Claim, ClaimedEvent, DeadEvent, Duplicate, Event, EventQueue, NewEvent};
pub use crate::fault::{CommandError, CommandFault};
pub use crate::handler::{CommandService, HandlerError, Handlers};
pub use crate::id::{CommandId, EventId, InvalidId, LogId, OperationId, ServerId};
pub use crate::items::{ItemError, Items};
pub use crate::journal::{JournalEntry, NewJournalEntry};
pub use crate::log::{BoxFuture, Head, OperationLog, Reading};
pub use crate::log_outbox::LogOutbox;
pub use crate::logged::{InvalidateError, LogFunctionError, Logged, LoggedFunctions};
pub use crate::message::Message;
pub use crate::notice::Notice;
pub use crate::op::{Emit, EmitError, Op};
pub use crate::outbox::{Outbox, OutboxHold, Outgoing};
pub use crate::position::{Cursor, LogPosition, Place};
pub use crate::record::{Body, Entry, LoggedKey};
pub use crate::relay::{Relay, RelayBuilder, RelayStats};
pub use crate::retention::Retention;
pub use crate::server::{Applications, Calling, ForeignPosition, Missed, Server, ServerStats};
pub use crate::sink::{Mark, Sink, StreamEnd};
pub use crate::store::{CommitError, Committed, Doubt, Store, Verdict};
pub use crate::store_error::{StoreError, StoreErrorKind};
pub use crate::wakeup::{Hinter, Hints, LocalWakeup, Wakeup};
pub use crate::work::{Delivery, EventOptions};

#[cfg(feature = "macros")]
pub use wellspring_macros::command;

/// For `#[command]`.
#[doc(hidden)]
pub mod __private {
    /// What a handler returns, whatever its type is called.
    pub trait Outcome {
        /// Of a command that is done.
        type Output;
        /// Of one that is not.
        type Error;
    }

    impl<T, E> Outcome for Result<T, E> {
        type Output = T;
        type Error = E;
    }
}
