//! The stream that operations are relayed to, as the relay sees it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::OperationId;
use crate::log::BoxFuture;
use crate::message::Message;
use crate::store_error::StoreError;

/// A stream that messages can be appended to.
///
/// Appending says after what: a message never gets into a stream that lacks what its writer believes to be before it. So a message's
/// [horizon](Message::horizon) is true wherever the message is, also when several are under way and one of them fails, when a relay
/// that was believed dead writes late, and when the stream has lost what it had acknowledged.
pub trait Sink: fmt::Debug + Send + Sync + 'static {
    /// The longest message there may be, in bytes.
    fn most_bytes(&self) -> usize;

    /// Where the stream ends now, and whether all that was there up to a mark is or was readable there: messages that were trimmed
    /// are no loss, messages that were acknowledged and then forgotten are.
    ///
    /// # Errors
    /// When the stream cannot be asked.
    fn end<'a>(&'a self, known: Option<&'a Mark>) -> BoxFuture<'a, Result<StreamEnd, StoreError>>;

    /// The operations in the messages between a mark and the stream's end, if all of those messages are there (and not trimmed, say) and
    /// they are at most `most`. A relay asks once, when it takes over from another; what nobody can say counts as a loss.
    ///
    /// # Errors
    /// When the stream cannot be asked.
    fn published_since<'a>(&'a self, mark: &'a Mark, most: usize) -> BoxFuture<'a, Result<Option<Vec<OperationId>>, StoreError>>;

    /// Appends messages in this order, directly after the mark, and hints; where the stream ends then.
    ///
    /// # Errors
    /// [`StoreErrorKind::Conflict`](crate::StoreErrorKind::Conflict) if the stream does not end at the mark. Whatever the error, the
    /// first few of the messages may have been appended, never one without those before it.
    fn publish<'a>(&'a self, after: &'a Mark, messages: &'a [Message]) -> BoxFuture<'a, Result<Mark, StoreError>>;
}

/// The end of a stream at one moment, in the stream's own words: opaque, and storable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(String);

impl Mark {
    /// From the stream's own text.
    pub fn new(text: impl Into<String>) -> Mark {
        Mark(text.into())
    }

    /// The stream's own text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What [`Sink::end`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// Where to append.
    pub mark: Mark,
    /// Whether no message is there, so that who starts to read now learns no horizon.
    pub empty: bool,
    /// If messages are gone that had been acknowledged: what is known of it, for people.
    pub lost: Option<String>,
}
