//! The log on Redis Streams, relayed from an outbox.
//!
//! One [`RedisLog`] per server is the log, the hints, the durable consumers and the sink of a [`Relay`](crate::Relay). It needs Redis 6.2
//! or later (or a server that speaks its language), as one primary: a cluster is not supported, its answer to a key of another node is an
//! error.
//!
//! # Keys
//! | key | what |
//! |---|---|
//! | `<prefix>:log` | the stream; the fields of a message are `n`: its ordinal, the name of the publication before it and of its own; how many operations it has `c`, and a [`Message`](crate::Message) as JSON `m` |
//! | `<prefix>:meta` | hash: `s`, a random name that a stream gets when it is begun, `n`, the ordinal of the last message ever appended, and `l`, the name of the last publication |
//! | `<prefix>:consumer:<name>` | hash: `holder`, the token of who took the name last, and `cursor` |
//! | `<prefix>:lease:<name>` | the token of who holds the name, for as long as the lease lasts |
//! | `<prefix>:hint` | channel for hints |
//!
//! The ordinals and names are our own, in the messages and beside them, and not Redis' `entries-added` and ids: a reader sees from two
//! neighbouring messages that nothing is missing between them, whatever was trimmed, deleted or restored, and however Redis' clock goes.
//! A number alone would not do: a stream that has forgotten its last messages gives their numbers to others.
//!
//! # What is promised
//! - **Order and completeness.** A script appends messages only directly after the one their writer believes to be the last, all or
//!   none. A reader gets messages with ascending ordinals without a gap, or learns that there was one: by `XTRIM`, `XDEL`, `DEL`,
//!   `FLUSHALL`, a restart without persistence, a restored backup.
//! - **Durability.** Redis acknowledges before its data is on disk, unless `appendfsync always` is set, and before a replica has it.
//!   A crash or a failover may make it forget messages that it had acknowledged and that the relay's outbox no longer holds. A server
//!   that had read them finds the stream shorter than what it has read. For the others the relay finds, at its next append or within a
//!   check period, that the stream has gone back, and publishes a loss. Either way the server drops all it holds. So a forgotten
//!   message costs a refill of the caches, and until the relay looks (it must be running) a value may be stale; it is never
//!   silent. `WAIT` is not used: it narrows the window at the price of a round trip per batch, and closes nothing, as Redis says itself.
//! - **Retention.** Messages stay until [`trim`](crate::OperationLog::trim). Set no `maxmemory-policy` that evicts keys: an evicted
//!   stream is a lost one, though a noticed one. When memory is full, appending fails and the relay tries again; reading
//!   and trimming go on.
//! - **At least once.** A message that was published again is read again: operations are to be de-duplicated by their id.
//! - **Hints** are pub/sub messages on an own connection, made again after a failure, with a hint when it is.
//! - **Connections** whose peer is gone without a word are not waited for: who hears hints asks in every silence, and a call that had no
//!   answer in time takes its connection with it.
//! - **Leases** are `SET NX PX` with a random token, renewed at a third of their time. Their clock is Redis'. After a failover two
//!   may believe to hold a name until the first renewal; a cursor is only saved by who took the name last.

mod consumers;
mod failure;
mod hint;
mod log;
mod managed;
mod scripts;
mod sink;

#[cfg(fuzzing)]
pub(crate) use self::log::reread;
#[cfg(fuzzing)]
pub(crate) use self::sink::reread as reread_mark;

use std::fmt;
use std::time::Duration;

pub use self::log::RedisLog;

/// Where the stream is, and how to talk to Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// As in `redis://user:password@host:port/db`.
    pub url: String,
    /// What all keys begin with: one per log.
    pub prefix: String,
    /// After which time a call has failed. Five seconds if not set.
    pub timeout: Duration,
    /// After how long a silence on the connection for hints the server is asked whether it is there. If there is no answer within the
    /// timeout the connection is made anew. Five seconds if not set.
    pub ping: Duration,
    /// How long a consumer's name stays taken after its holder was last heard of. Ten seconds if not set.
    pub lease: Duration,
    /// The longest message. A megabyte if not set, as Redis does nothing else while it copies one.
    pub most_bytes: usize,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may have a password in it.
        let RedisOptions { url: _, prefix, timeout, ping, lease, most_bytes } = self;
        let mut shown = f.debug_struct("RedisOptions");
        shown.field("prefix", prefix).field("timeout", timeout).field("ping", ping).field("lease", lease).field("most_bytes", most_bytes);
        shown.finish_non_exhaustive()
    }
}

impl RedisOptions {
    /// With what is said to be so if not set.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> RedisOptions {
        RedisOptions {
            url: url.into(),
            prefix: prefix.into(),
            timeout: Duration::from_secs(5),
            ping: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            most_bytes: 1 << 20,
        }
    }
}
