//! Commands and the operation log: a change on one server is stale on every server, in order, and nothing is lost.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use wellspring::{Cx, Engine};
//! use wellspring_commands::{Command, LoggedFunctions, Op, Server, sqlite::{Sqlite, Write}};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct SetPrice { product: u32, cents: i64 }
//!
//! impl Command for SetPrice {
//!     const NAME: &'static str = "shop.SetPrice";
//!     type Output = ();
//!     type Error = wellspring_commands::InvalidateError;
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let database = Sqlite::open(&path)?;                       // each process opens the same file
//! # rusqlite::Connection::open(&path)?.execute_batch("CREATE TABLE prices (product INTEGER PRIMARY KEY, cents INTEGER)")?;
//! let (engine, rows) = (Engine::new(), database.clone());
//! let price = engine.function("price", move |_: &Cx, product: &u32| {
//!     rows.read_blocking(|sql| sql.query_row("SELECT cents FROM prices WHERE product = ?", [product], |row| row.get(0))).unwrap_or(0_i64)
//! })?;
//!
//! let functions = LoggedFunctions::new(&engine);
//! let prices = functions.log(&price)?;                        // its keys may travel: they are serde data
//! let server = Server::builder(&engine, database).functions(&functions).handler(move |set: SetPrice, op: Op<Sqlite>| {
//!     let prices = prices.clone();
//!     async move {
//!         op.invalidate(&prices, &set.product)?;             // stale on every server, once this is committed
//!         op.write(move |sql: &mut Write<'_>| {
//!             sql.execute("INSERT OR REPLACE INTO prices VALUES (?, ?)", (set.product, set.cents)).map(drop)
//!         });
//!         Ok(())
//!     }
//! }).start().await?;
//!
//! assert_eq!(price.get(&engine, &7)?, 0);
//! let done = server.call(SetPrice { product: 7, cents: 199 }).await?;
//! assert_eq!(price.get(&engine, &7)?, 199);                  // this server reads its own write
//! server.wait_for(done.position).await?;                     // and any other, once it has waited for the position
//! # Ok(())
//! # }
//! ```
//!
//! - A [`Command`] is plain data; its handler ([`Builder::handler`], or `#[command]` on an `impl` block) gets an [`Op`]: the transaction,
//!   the keys that are stale by it, [items](Op::set_item) and [events](Op::emit). All of that is committed together, or nothing is.
//! - Filters are `tower` layers: [`Builder::layer`].
//! - A call that is [named](Calling::id) is done once, however often it is repeated, on whichever server, crashes included.
//! - Every [`Server`] follows the log and applies what the others have committed, each operation once; [`Server::wait_for`] waits for one,
//!   [`Server::applied`] listens, [`Server::consume`] listens by a name whose cursor outlives the process.
//! - Where data and log are: `sqlite` (several processes of one host), `postgres`; for servers that do not share a database, a
//!   [`Relay`] takes either's operations to `nats` or `redis`, each a feature of the crate. [`memory`] is for tests.
//!
//! What is promised, and why it holds: `DESIGN.md` beside this crate.
#![forbid(unsafe_code)]

mod apply;
mod backoff;
mod builder;
mod call;
mod catch;
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
mod refill;
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
pub use crate::outbox::{Outbox, OutboxHold, Outgoing, Sent};
pub use crate::position::{Cursor, LogPosition, Place};
pub use crate::record::{Body, Entry, LoggedKey};
pub use crate::relay::{Relay, RelayBuilder, RelayStats};
pub use crate::retention::Retention;
pub use crate::server::{Applications, Calling, Missed, Server, ServerStats, WaitError};
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
