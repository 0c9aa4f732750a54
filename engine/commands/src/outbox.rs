//! Operations that wait to be relayed to a stream.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{LogId, OperationId};
use crate::log::BoxFuture;
use crate::position::Place;
use crate::record::Entry;
use crate::sink::Mark;
use crate::store_error::StoreError;

/// Where operations are written together with the user's rows, to be relayed to a stream afterwards.
///
/// A [`LogOutbox`](crate::LogOutbox) is one over the log of any store. An own one is a table that the user's transaction inserts into:
/// [`unsent`](OutboxHold::unsent) selects its first rows, [`sent`](OutboxHold::sent) deletes them. What matters is the order: a row whose
/// transaction began after another's had committed must never be given out before it.
pub trait Outbox: fmt::Debug + Send + Sync + 'static {
    /// Which log the operations belong to: what every follower of the stream calls it.
    fn id(&self) -> LogId;

    /// Waits until this process alone may relay. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// When the database cannot be asked: the relay asks again.
    fn hold(&self) -> BoxFuture<'_, Result<Box<dyn OutboxHold>, StoreError>>;
}

/// The right to relay. Dropping it gives it up.
pub trait OutboxHold: fmt::Debug + Send + Sync + 'static {
    /// What [`sent`](OutboxHold::sent) was last told, by this holder or one before it.
    ///
    /// An outbox that does not keep it answers `None`: then nobody finds out that the stream has lost acknowledged messages while no relay
    /// ran, nor that the outbox has gone back because an old backup of it was restored. One that keeps it does so in the transaction
    /// in which it forgets what was sent: what the stream has since the mark is expected to be [`unsent`](OutboxHold::unsent) still.
    fn last_sent(&self) -> BoxFuture<'_, Result<Option<Sent>, StoreError>>;

    /// The first operations that are not sent yet, in order, at most `most`. Called again without [`sent`](OutboxHold::sent) between,
    /// it begins at the same one.
    ///
    /// # Errors
    /// When the database cannot be asked: the relay asks again.
    fn unsent(&self, most: usize) -> BoxFuture<'_, Result<Outgoing, StoreError>>;

    /// All that the last [`unsent`](OutboxHold::unsent) returned is in the stream: none of it has to be given out again.
    ///
    /// # Errors
    /// [`StoreErrorKind::Fenced`](crate::StoreErrorKind::Fenced) if somebody else may relay by now: the next holder publishes the same
    /// operations once more. After any other error the relay says the same again before it asks for more.
    fn sent<'a>(&'a self, sent: &'a Sent) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Ready when the right was lost without being given up. Pending for ever otherwise.
    fn lost(&self) -> BoxFuture<'_, ()>;
}

/// What a relay has to know when it goes on where another stopped. The outbox keeps it as it is: it is serde data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sent {
    /// Where the stream ended.
    #[serde(rename = "m")]
    pub mark: Mark,
    /// The largest horizon that was published since the last loss.
    #[serde(rename = "h")]
    pub horizon: Place,
    /// The largest place that was published or lost since then: a horizon above it is still to be said.
    #[serde(rename = "l")]
    pub last: Option<Place>,
}

/// What waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// The next operations.
    Entries {
        /// In order.
        entries: Vec<Entry>,
        /// Every operation at a place below this one has been given out by now. An outbox in one order sets it above its last entry.
        horizon: Place,
        /// Whether there is more to be had at once. If not, what was not given out is not there: of what a relay died over, that it is lost.
        more: bool,
    },
    /// Operations that nobody can name any more have to be counted as having made anything stale.
    Lost {
        /// What is known of it, for people.
        reason: String,
        /// Every operation below was visible or is lost.
        horizon: Place,
        /// Those that are lost or were visible at or above the horizon.
        recent: Vec<(Place, OperationId)>,
    },
}
