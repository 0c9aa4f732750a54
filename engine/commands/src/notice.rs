//! What a server tells about itself: rare things that people or alarms should hear of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{EventId, OperationId};

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Operations are gone that this server had not read. Everything it held is stale by now; it goes on from the log's present end.
    CoverageLost {
        /// What the log knows of it.
        reason: String,
    },
    /// An entry of the log could not be applied as it is.
    Poisoned {
        /// The operation.
        operation: OperationId,
        /// What is wrong with it and what was done instead.
        reason: String,
    },
    /// The log cannot be read; values may be stale without anybody knowing. It is tried again.
    LogUnreadable {
        /// Why.
        error: String,
        /// How often in a row.
        attempts: u32,
    },
    /// The log can be read again.
    LogReadable {
        /// For how long it could not be.
        after: Duration,
    },
    /// A commit whose end was not seen has been found out, or not.
    InDoubt {
        /// The operation.
        operation: OperationId,
        /// What was found.
        outcome: &'static str,
    },
    /// A commit ended, well or not, after its caller had gone.
    Abandoned {
        /// The operation.
        operation: OperationId,
        /// How it ended.
        outcome: String,
    },
    /// An event has failed; it is tried again.
    EventFailed {
        /// The event.
        event: EventId,
        /// Which attempt it was.
        attempt: u32,
        /// How.
        error: String,
    },
    /// An event has failed too often and waits to be requeued.
    EventDead {
        /// The event.
        event: EventId,
        /// How it failed last.
        error: String,
    },
    /// A named consumer has failed; it is tried again.
    ConsumerFailed {
        /// Its name.
        name: String,
        /// How.
        error: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::CoverageLost { reason } => {
                write!(f, "operations were lost before this server had read them, so everything it held is stale: {reason}")
            }
            Notice::Poisoned { operation, reason } => write!(f, "operation {operation} could not be applied as it is: {reason}"),
            Notice::LogUnreadable { error, attempts } => write!(f, "the operation log cannot be read (attempt {attempts}): {error}"),
            Notice::LogReadable { after } => write!(f, "the operation log can be read again after {after:?}"),
            Notice::InDoubt { operation, outcome } => write!(f, "the commit of operation {operation} was in doubt: {outcome}"),
            Notice::Abandoned { operation, outcome } => write!(f, "operation {operation}, whose caller had gone, {outcome}"),
            Notice::EventFailed { event, attempt, error } => write!(f, "event {event} failed (attempt {attempt}): {error}"),
            Notice::EventDead { event, error } => write!(f, "event {event} has failed too often and is dead: {error}"),
            Notice::ConsumerFailed { name, error } => write!(f, "consumer `{name}` failed: {error}"),
        }
    }
}

/// Who hears of notices: the `tracing` subscriber always, and a callback if there is one.
#[derive(Clone, Default)]
pub(crate) struct Notices(Option<Arc<Tell>>);

type Tell = dyn Fn(&Notice) + Send + Sync;

impl Notices {
    pub(crate) fn to(tell: impl Fn(&Notice) + Send + Sync + 'static) -> Notices {
        Notices(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, notice: &Notice) {
        match notice {
            Notice::LogReadable { .. } | Notice::Abandoned { .. } => tracing::info!(target: "wellspring", "{notice}"),
            Notice::EventFailed { .. } | Notice::InDoubt { .. } => tracing::warn!(target: "wellspring", "{notice}"),
            _ => tracing::error!(target: "wellspring", "{notice}"),
        }
        if let Some(tell) = &self.0 {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tell(notice)));
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notices").field(&self.0.is_some()).finish()
    }
}
