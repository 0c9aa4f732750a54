//! How a message says which one it follows.
//!
//! Sequence numbers are not enough: a stream that has forgotten its last messages gives their numbers to others, and a reader that
//! had read the forgotten ones would go on behind them as if nothing were missing. So each message has a random name, and carries
//! that of the one before it.

use std::fmt;

use async_nats::jetstream::message::StreamMessage;

use crate::streamed::parts;

/// When the stream was created, in nanoseconds; the name of the message before; the name of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) created: i128,
    pub(crate) before: String,
    pub(crate) name: String,
}

/// The name of what is not there, or was not named by us.
pub(crate) fn nameless() -> String {
    "-".to_owned()
}

impl Link {
    /// Where it is in a message.
    pub(crate) const HEADER: &str = "Wellspring-Link";

    /// To a message that follows the one with a name.
    pub(crate) fn after(created: i128, before: &str) -> Link {
        Link { created, before: before.to_owned(), name: format!("{:016x}", fastrand::u64(..)) }
    }

    pub(crate) fn of(message: &StreamMessage) -> Option<Link> {
        let [created, before, name] = parts(message.headers.get(Link::HEADER)?.as_str())?;
        Some(Link { created: created.parse().ok()?, before: before.to_owned(), name: name.to_owned() })
    }

    /// The name of any message.
    pub(crate) fn name_of(message: &StreamMessage) -> String {
        Link::of(message).map_or_else(nameless, |link| link.name)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.created, self.before, self.name)
    }
}
