//! The log on NATS JetStream, relayed from an outbox.
//!
//! One [`NatsLog`] per server is the log, the hints, the durable consumers and the sink of a [`Relay`](crate::Relay). It needs NATS 2.9
//! or later with JetStream.
//!
//! # What is on the server
//! | name | what |
//! |---|---|
//! | stream `<name>` | file storage, no limits, subject `<name>.log`; a message is a [`Message`](crate::Message) as JSON, with the header `Wellspring-Link`: when the stream was created, the name of the message before, the name of the message |
//! | subject `<name>.hint` | hints, not stored |
//! | bucket `<name>-consumers` | for each consumer who holds it, and its cursor |
//!
//! A stream that is not there is created, with one replica unless told otherwise; one that is there is taken as it is: it should have
//! no limits, `allow_direct`, and keep messages until they are [trimmed](crate::OperationLog::trim).
//!
//! # What is promised
//! - **Order and completeness.** A message is appended with the sequence number it has to follow (`Nats-Expected-Last-Sequence`), many
//!   at a time: when one fails, those after it fail as well. With one replica each but the first carries the name of the one before
//!   (`Nats-Expected-Last-Msg-Id`), so that none gets in behind a message of another relay; with several, on which that comparison is not
//!   to be relied on, such a message is found by the readers, as a loss. A reader gets messages of which each
//!   names the one before, or learns that something is missing: by a purge, a deleted message, a limit, a stream that was made anew or
//!   went back to an older state and grew again.
//! - **Durability.** JetStream acknowledges before its data is on disk: it syncs every two minutes unless `sync_interval: always` is
//!   set. With three replicas a majority has the message in memory. A crash of all that have it may make it forget messages that it had
//!   acknowledged and that the relay's outbox no longer holds. A server that had read them finds the stream shorter than what it has read.
//!   For the others the relay finds, at its next append or within a check period, that the stream has gone back, and publishes a loss.
//!   Either way the server drops all it holds. So a forgotten message costs a refill of the caches, and until the relay looks (it must
//!   be running) a value may be stale; it is never silent.
//! - **At least once.** A message that was published again is read again: operations are to be de-duplicated by their id. A
//!   `Nats-Msg-Id` is never used twice, so that the duplicate window never swallows what is deliberately published again after a
//!   loss; a stream that is created here has a short one.
//! - **Hints** are a message of their own, sent when the appended ones were acknowledged. The appended ones themselves would be a
//!   hint that comes before the message can be read, and every server would get every message twice. After a reconnection there is a hint.
//! - **Leases** need no clock but the taker's: the holder writes at a third of the lease time, and who wants the name takes it when it
//!   has not seen the revision move for the whole of it. So clocks may differ, but taking the name of a holder that died takes that long,
//!   however long ago it died. Each write carries the revision it has to follow, so that only who took the name last saves a cursor.

mod consumers;
mod failure;
mod link;
mod log;
mod sink;
mod trim;

#[cfg(fuzzing)]
pub(crate) use self::log::reread;
#[cfg(fuzzing)]
pub(crate) use self::sink::reread as reread_mark;

use std::fmt;
use std::time::Duration;

pub use self::log::NatsLog;

/// Where the stream is, and how to talk to NATS.
#[derive(Clone)]
pub struct NatsOptions {
    /// Servers, as in `nats://host:port`, divided by commas.
    pub servers: String,
    /// The stream's name: one per log. Letters, digits, `-` and `_`.
    pub name: String,
    /// After which time a call has failed. Five seconds if not set.
    pub timeout: Duration,
    /// After how long a silence the server is asked whether it is there, and how often then. A connection on which three such times have
    /// passed without an answer is made anew. Five seconds if not set.
    pub ping: Duration,
    /// How long a consumer's name stays taken after its holder was last heard of. Ten seconds if not set.
    pub lease: Duration,
    /// How many servers keep the stream, if it is to be created. One if not set.
    pub replicas: usize,
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The servers may have passwords in them.
        let NatsOptions { servers: _, name, timeout, ping, lease, replicas } = self;
        let mut shown = f.debug_struct("NatsOptions");
        shown.field("name", name).field("timeout", timeout).field("ping", ping).field("lease", lease).field("replicas", replicas);
        shown.finish_non_exhaustive()
    }
}

impl NatsOptions {
    /// With what is said to be so if not set.
    pub fn new(servers: impl Into<String>, name: impl Into<String>) -> NatsOptions {
        NatsOptions {
            servers: servers.into(),
            name: name.into(),
            timeout: Duration::from_secs(5),
            // The client's own 60 s would leave a server without hints for three minutes when a peer is gone without a word.
            ping: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            replicas: 1,
        }
    }
}
