//! Operations in the same PostgreSQL database as the data, for servers on many hosts. PostgreSQL 13 or later.
mod append;
mod builder;
mod connection;
mod cursor;
mod failure;
mod holding;
mod names;
mod pool;
mod queue;
mod reading;
mod schema;
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
    /// For everything else.
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
