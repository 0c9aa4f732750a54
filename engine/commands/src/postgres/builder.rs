//! How to connect, and with how much.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Config, IsolationLevel};

use super::connection::Connector;
use super::names::Names;
use super::pool::Pool;
use super::reading::PostgresLog;
use super::tx::begin_sql;
use super::{Inner, Postgres, schema};
use crate::store_error::{StoreError, StoreErrorKind};

/// What [`Postgres::builder`] makes.
#[derive(Clone)]
pub struct PostgresBuilder {
    url: String,
    schema: String,
    pool: usize,
    patience: Duration,
    timeout: Duration,
    isolation: Option<IsolationLevel>,
}

impl fmt::Debug for PostgresBuilder {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder").field("schema", &self.schema).field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl PostgresBuilder {
    pub(super) fn new(url: &str) -> PostgresBuilder {
        PostgresBuilder {
            url: url.to_owned(),
            schema: "wellspring".to_owned(),
            pool: 16,
            patience: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            isolation: None,
        }
    }

    /// The schema that holds the tables: one log each. `wellspring` unless said otherwise.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> PostgresBuilder {
        self.schema = schema.into();
        self
    }

    /// The most transactions at a time, each on a connection of its own; 16 unless said otherwise. A few more connections serve the
    /// log, the outbox, the hints and each held consumer.
    #[must_use]
    pub fn pool(mut self, most: usize) -> PostgresBuilder {
        self.pool = most;
        self
    }

    /// How long to wait for one of these connections; 10 seconds unless said otherwise.
    #[must_use]
    pub fn pool_timeout(mut self, patience: Duration) -> PostgresBuilder {
        self.patience = patience;
        self
    }

    /// How long one reading of the log may take, and one step of what is not in a transaction (claiming events, looking into the journal,
    /// removing a few thousand old rows); 30 seconds unless said otherwise.
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> PostgresBuilder {
        self.timeout = timeout;
        self
    }

    /// The isolation level of commands' transactions; the database's default unless said otherwise.
    #[must_use]
    pub fn isolation(mut self, level: IsolationLevel) -> PostgresBuilder {
        self.isolation = Some(level);
        self
    }

    /// Connects, and makes the tables if they are not there.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] if the server cannot be reached, [`StoreErrorKind::Corrupt`] if the tables are another version's,
    /// [`StoreErrorKind::Other`] if the URL cannot be read or there can be no schema of that name.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect(self) -> Result<Postgres, StoreError> {
        let mut config: Config = self
            .url
            .parse()
            .map_err(|error: tokio_postgres::Error| StoreError::with(StoreErrorKind::Other, "reading the PostgreSQL URL", error))?;
        if !Names::is_possible(&self.schema) {
            return Err(StoreError::new(StoreErrorKind::Other, "the name of a schema has 1 to 63 bytes, none of them zero"));
        }
        // A standby of several hosts can be connected to and knows nothing of the last commits. The driver does not tell its default
        // from what somebody asked for.
        if !self.url.contains("target_session_attrs") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_application_name().is_none() {
            config.application_name("wellspring");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        // A peer that is gone without a word is noticed in half a minute instead of two hours.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(30));
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_idle(Duration::from_secs(15)).keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
        }
        // The same for the server: a host that is gone without a word keeps neither a transaction open nor a consumer held for long.
        let mut options = config.get_options().map(|options| format!("{options} ")).unwrap_or_default();
        options.push_str("-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3");
        config.options(options);
        let names = Arc::new(Names::new(&self.schema));
        let connector = Arc::new(Connector { config, names: names.clone(), runtime: Handle::current() });
        let pool = |most| Arc::new(Pool::new(connector.clone(), most, self.patience, self.timeout));
        let service = pool(SERVICE);
        let lease = service.get().await?;
        let id = schema::prepare(&lease, &names).await?;
        lease.give_back();
        let mark = names.lock("operation", "");
        let inner = Inner {
            work: pool(self.pool),
            log: PostgresLog::new(id, pool(READING), service.clone(), mark),
            begin: begin_sql(self.isolation, mark),
            wakeup: Default::default(),
            service,
            connector,
            names,
        };
        Ok(Postgres(Arc::new(inner)))
    }
}

/// Connections for readings of the log, apart from those of transactions: a handler that waits for the log while all of those are taken
/// would wait for itself. Made when they are first needed, like all others.
const READING: usize = 2;

/// Connections for the journal, the outbox and what removes old rows, apart from both for the same reason.
const SERVICE: usize = 3;
