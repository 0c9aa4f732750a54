//! What remote calls cost, beside other ways to call another process.
//!
//! Client and server are two processes on this machine, each with a tokio runtime of one worker thread; what is sent goes through the
//! loopback device with `TCP_NODELAY`. Ours is the route of an axum server and a `Remote`, over WebSocket in
//! `msgpack6c`.
//!
//! - `rpc/calls/*`: a thousand tasks, each with one call on its way over one connection. `add` adds two numbers, `user` gets a record of about a
//!   hundred bytes, which the server copies for each call. Beside it, in alternation: *a raw echo*, where the same tasks put length, slot and as many bytes as
//!   our messages have into a shared buffer that a writer task sends whole, the other process sends back what it reads as it is, and a reader
//!   task wakes them (no formats, no call table, nothing is kept for a reconnection); *tarpc* over TCP with bincode; *tonic* with prost; and `redis-benchmark -t get`,
//!   50 connections, without pipelining, as the tool does it.
//! - `rpc/latency/*`: one call after the other, beside one byte to and fro over a bare TCP socket: medians, and 99th percentiles in rows of their own.
//! - `rpc/streams`: a hundred streams at once of items of a hundred bytes, with the windows that streams have by default; items a second.
//! - `rpc/idle`: ten thousand clients that have made one call, and do nothing: bytes that the server's process has allocated for each connection.
//! - `rpc/fan-out`: a thousand connections with a hundred subscriptions each, all of values that are made from one source: from its commit to the
//!   last of the hundred thousand clients' replicas that knows. The note has the bytes that the server's process has allocated for each
//!   subscription, its value's generation not counted in: all of them are of the same hundred values.
//! - `rpc/subscriptions`: a hundred thousand subscriptions of one connection: bytes that the server's process has allocated for each, of the same hundred values;
//!   the note says how long it takes from a commit until all are told.
//! - `rpc/equal-rewrite`: a hundred subscriptions of values that are found to be equal each time that what they are made of is written: bytes of frames, both ways,
//!   with notices once the server has verified a change, beside those at the first mark, after which the client asks again.
//! - `rpc/replica-reads/*`: a read of a value of another process that is held here, beside the same read of an async function's value of this one, in
//!   instructions as valgrind counts them, the key a tuple and the value 96 bytes in both. Not two processes: the transport is in memory, and nothing goes over it meanwhile.

use super::Scenario;

#[cfg(all(feature = "peers", target_os = "linux"))]
mod calls;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod crowd;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod echo;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod grpc;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod latency;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod replica;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod rewrite;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod server;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod streams;
#[cfg(all(feature = "peers", target_os = "linux"))]
mod tarpc;

/// The first word of a child process that is the server of a row; its second word says of which kind.
pub const SERVER: &str = "--rpc-server";
/// The same, in a process whose allocator counts.
pub const COUNTED_SERVER: &str = "--rpc-server-counted";

/// The first word of a child process that reads, to be counted in instructions.
pub const READER: &str = "--rpc-reader";

/// The rows of this module.
#[cfg(all(feature = "peers", target_os = "linux"))]
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "rpc/calls/add", run: calls::add },
    Scenario { name: "rpc/calls/user", run: calls::user },
    Scenario { name: "rpc/latency", run: latency::rows },
    Scenario { name: "rpc/streams", run: streams::rows },
    Scenario { name: "rpc/idle", run: crowd::idle },
    Scenario { name: "rpc/fan-out", run: crowd::fan_out },
    Scenario { name: "rpc/subscriptions", run: crowd::subscriptions },
    Scenario { name: "rpc/equal-rewrite", run: rewrite::rows },
    Scenario { name: "rpc/replica-reads", run: replica::rows },
];

/// The rows of this module: that they are not built.
#[cfg(not(all(feature = "peers", target_os = "linux")))]
pub const SCENARIOS: &[Scenario] =
    &[Scenario { name: "rpc", run: |name, _| vec![crate::Row::skipped(name, crate::Unit::RATE, "", super::NOT_BUILT)] }];

/// Is the server of a row until its standard input ends.
///
/// # Errors
/// What kept it from being one.
#[cfg(all(feature = "peers", target_os = "linux"))]
pub fn serve(words: &[String]) -> Result<(), String> {
    server::run(words)
}

/// Nothing asks for it.
///
/// # Errors
/// Always.
#[cfg(not(all(feature = "peers", target_os = "linux")))]
pub fn serve(_: &[String]) -> Result<(), String> {
    Err(super::NOT_BUILT.to_owned())
}

/// Reads, as it is told.
///
/// # Errors
/// If that makes no sense.
#[cfg(all(feature = "peers", target_os = "linux"))]
pub fn read(words: &[String]) -> Result<(), String> {
    replica::run(words)
}

/// Nothing asks for it.
///
/// # Errors
/// Always.
#[cfg(not(all(feature = "peers", target_os = "linux")))]
pub fn read(_: &[String]) -> Result<(), String> {
    Err(super::NOT_BUILT.to_owned())
}

/// A record of about a hundred bytes.
#[cfg(all(feature = "peers", target_os = "linux"))]
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct User {
    id: u64,
    name: String,
    email: String,
    about: String,
    age: u32,
}

#[cfg(all(feature = "peers", target_os = "linux"))]
impl User {
    fn with(id: u64) -> User {
        User {
            id,
            name: "Ada Lovelace".to_owned(),
            email: "ada@example.org".to_owned(),
            about: "The first to publish a program for a machine.".to_owned(),
            age: 36,
        }
    }
}

/// The runtime of either process.
#[cfg(all(feature = "peers", target_os = "linux"))]
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

#[cfg(all(feature = "peers", target_os = "linux"))]
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
