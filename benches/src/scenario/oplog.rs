//! What commands and the operation log cost, over the engines they run on.
//!
//! Every row is taken over a database of its own (a SQLite file in the temporary folder, a schema, a stream), with everything as it is
//! by default: SQLite syncs each group of commits to the disk, PostgreSQL does what its server is set to. A command writes one row and
//! makes one key stale. Servers of NATS and Redis follow a stream that a relay in the writer's process fills from its SQLite file. A
//! service that is not there is a row that says so.
//!
//! - `oplog/*-propagation`: two processes. One commits at random moments, 260 to 460 ms apart, so that the other sleeps each time; the
//!   other one notes when the watched value's `invalidated()` future has completed. Both read the clock that all processes of a host
//!   share. The figure is the median from the *begin* of the commit, which is the stricter reading of the bar: most of it may be the
//!   disk's. The note has the rest of it, and the time from the commit's end on, as its caller sees it.
//! - `oplog/apply`: a server whose log is kept shut until it is full of operations, each with a key of its own that is cached and that
//!   a total of a hundred keys depends on; then the log is opened, and the time until the last one is applied is taken. Values are
//!   counted afterwards: all of them had become stale.
//! - `oplog/commands`: `Server::call` by 1 and by 64 callers at a time, beside the same row written without us in as many transactions
//!   (SQLite: one connection that syncs each of them; PostgreSQL: prepared statements, as many connections as we have), and for SQLite
//!   beside a writer thread by hand that commits what has queued up, up to 128 rows, in one transaction as ours does. What ours does
//!   more is the operation's row and what it is for.
//! - `oplog/idle`: a server process that has nothing to do, for ten seconds (three with `--quick`): the processor time of all its threads,
//!   those that end meanwhile included, in percent of a core. What the database's own processes do for it is not in it.
//! - `oplog/relay-*`: operations a second that a relay takes from an outbox in memory and has acknowledged by the stream, with 64
//!   in a message (the default) and with one, beside JetStream's bare publish and a bare `XADD` of messages with the same bytes, as many
//!   of them on their way at once. What ours does more is to make the messages, to append each only behind the one before, and to hint. The
//!   note has how fast they are read back.
//! - `oplog/repeat`: a command called again under its id by 1 caller, beside reading one row by its key without us.

use super::Scenario;

#[cfg(all(feature = "peers", target_os = "linux"))]
mod apply;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod child;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod clock;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod commands;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod idle;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod plain;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod propagation;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod relay;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod repeat;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod server;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod site;

/// The first word of a child process, which is a server of a cluster; its other words say of which.
pub const MEMBER: &str = "--oplog-member";

/// The rows of this module.
#[cfg(all(feature = "peers", target_os = "linux"))]
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "oplog/sqlite-propagation", run: propagation::sqlite },
    Scenario { name: "oplog/postgres-propagation", run: propagation::postgres },
    Scenario { name: "oplog/nats-propagation", run: propagation::nats },
    Scenario { name: "oplog/redis-propagation", run: propagation::redis },
    Scenario { name: "oplog/apply", run: apply::rows },
    Scenario { name: "oplog/commands", run: commands::rows },
    Scenario { name: "oplog/idle", run: idle::rows },
    Scenario { name: "oplog/relay-nats", run: relay::nats },
    Scenario { name: "oplog/relay-redis", run: relay::redis },
    Scenario { name: "oplog/repeat", run: repeat::rows },
];

/// The rows of this module: that they are not built.
#[cfg(not(all(feature = "peers", target_os = "linux")))]
pub const SCENARIOS: &[Scenario] =
    &[Scenario { name: "oplog", run: |name, _| vec![crate::Row::skipped(name, crate::Unit::RATE, "", super::NOT_BUILT)] }];

/// Is a server of a cluster until its standard input ends.
///
/// # Errors
/// What kept it from being one.
#[cfg(all(feature = "peers", target_os = "linux"))]
pub fn member(words: &[String]) -> Result<(), String> {
    child::run(words)
}

/// Nothing asks for it.
///
/// # Errors
/// Always.
#[cfg(not(all(feature = "peers", target_os = "linux")))]
pub fn member(_: &[String]) -> Result<(), String> {
    Err(super::NOT_BUILT.to_owned())
}

/// The runtime of a process: as many workers as the machine has cores.
#[cfg(all(feature = "peers", target_os = "linux"))]
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))
}
