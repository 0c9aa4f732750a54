//! Operations in the same PostgreSQL database as the data, for servers on many hosts.
//!
//! # What it needs
//! PostgreSQL 13 or later, the primary itself: behind a proxy that shares sessions between transactions (PgBouncer's transaction mode)
//! neither prepared statements nor hints nor consumers work. The role may create the schema, or use one that is there. Connections are
//! not encrypted: there is no TLS yet, so a URL that demands it (`sslmode=require`) cannot be connected to.
//!
//! Each server has up to [`pool`](PostgresBuilder::pool) connections for transactions, two for reading the log, three for the journal, the
//! outbox and the removal of what is old, one for hints if they are asked for, and one per consumer it holds or waits for.
//!
//! # What it promises
//! - The user's rows, the operation, its events and its journal entry are one transaction, with one round trip for all of the latter
//!   and one for the commit. What the commit promises (`synchronous_commit`, standbys) is the database's own setting.
//! - A place is a transaction id and a sequence number. A transaction that began after another was committed has the larger id.
//! - A [reading](crate::OperationLog::read) gives out what the database shows now and did not show at the cursor, which is a snapshot
//!   (`pg_current_snapshot()`). No window of time, no waiting for a horizon: an operation is read as soon as it is visible, once, however
//!   late it was committed and whatever else runs in the cluster. Numbers alone could not do that: they are drawn before the commit.
//! - A transaction of another database that lives for hours holds back neither trimming nor a head. One of this database does, whoever
//!   began it: it may append to the log yet. (It also keeps the database's own clean-up from freeing what was trimmed.)
//! - The [settled order](crate::OperationLog::read_settled) waits for the transactions of this log that are older, and for no others.
//!   That rests on all operations being written through this crate, in transactions that carry its mark.
//! - After a failover, or when the database was restored, cursors from before are [lost](crate::Reading::Lost), even if no operation is:
//!   the ids of transactions are used again then. The same where a dump was restored over the tables (dropped and made anew). Rows of a
//!   dump that was restored in another cluster are given up with their log.
//! - A server that vanishes without a word (power, network) is noticed after half a minute: until then its transactions are open and
//!   its consumers are held.
//!
//! # What a handler should know
//! See [`PostgresTx`]. A handler that waits for another transaction of this server to begin can wait for itself when the pool is used up;
//! that ends with an error after [`pool_timeout`](PostgresBuilder::pool_timeout).
//!
//! Commits that emit events into one partition take turns, from their events to the end of their commits: that is what makes the order
//! in the partition that of the commits.
mod append;
mod builder;
mod connection;
mod cursor;
mod failure;
mod holding;
mod names;
mod neighbours;
mod pool;
mod queue;
mod reading;
mod schema;
mod settled;
mod snapshot;
mod store;
mod trim;
mod tx;
mod wakeup;

#[cfg(fuzzing)]
pub(crate) use self::cursor::reread;

use std::sync::{Arc, OnceLock};

pub use self::builder::PostgresBuilder;
pub use self::tx::PostgresTx;
use crate::store_error::StoreError;

use self::connection::Connector;
use self::names::Names;
use self::pool::Pool;
use self::reading::PostgresLog;
use self::wakeup::PostgresWakeup;

/// A PostgreSQL database with an operation log in it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Postgres(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Arc<Connector>,
    names: Arc<Names>,
    /// For transactions of commands.
    work: Arc<Pool>,
    /// For the journal, the outbox and the removal of what is old.
    service: Arc<Pool>,
    log: PostgresLog,
    begin: Arc<str>,
    /// Started when first asked for: whoever takes hints from elsewhere has no connection for them.
    wakeup: OnceLock<PostgresWakeup>,
}

impl Postgres {
    /// Connects to the database at a URL (`postgres://user:password@host/database`), with everything as it is by default.
    ///
    /// # Errors
    /// See [`PostgresBuilder::connect`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect(url: &str) -> Result<Postgres, StoreError> {
        Postgres::builder(url).connect().await
    }

    /// To say more.
    pub fn builder(url: &str) -> PostgresBuilder {
        PostgresBuilder::new(url)
    }

    fn hints(&self) -> PostgresWakeup {
        self.0.wakeup.get_or_init(|| PostgresWakeup::new(self.0.connector.clone())).clone()
    }
}
