//! Options.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tokio::sync::{Notify, Semaphore};

use super::clock::Clock;
use super::connect::{OnConnect, Opener};
use super::reader::Readers;
use super::watch::Watch;
use super::writer::Writer;
use super::{MOST_READS, Shared, Sqlite, connect, fault, schema};
use crate::store_error::{StoreError, StoreErrorKind};

/// What a reported commit has survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The loss of power: every group of commits is synced to the disk.
    #[default]
    Full,
    /// The death of the process. The loss of power may take back the last commits, all of each; the file stays whole.
    Normal,
}

/// Options of a [`Sqlite`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    path: PathBuf,
    durability: Durability,
    busy_timeout: Duration,
    poll_every: Duration,
    group: usize,
    clock: Clock,
    on_connect: Option<Arc<OnConnect>>,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Builder {
        Builder {
            path: path.to_owned(),
            durability: Durability::Full,
            busy_timeout: Duration::from_secs(10),
            poll_every: Duration::from_millis(2),
            group: 128,
            clock: Clock::host(),
            on_connect: None,
        }
    }

    /// What a reported commit has survived. By default: the loss of power.
    pub fn durability(mut self, durability: Durability) -> Builder {
        self.durability = durability;
        self
    }

    /// How long a writer waits for those of other processes before a commit fails with
    /// [`Conflict`](StoreErrorKind::Conflict). 10 s by default.
    pub fn busy_timeout(mut self, timeout: Duration) -> Builder {
        self.busy_timeout = timeout;
        self
    }

    /// How often to look for commits of other processes while the file is being written to, once somebody listens: 2 ms by default, at
    /// least 0.1 ms.
    pub fn poll_every(mut self, period: Duration) -> Builder {
        self.poll_every = period.max(Duration::from_micros(100));
        self
    }

    /// How many operations are committed together at most: 128 by default, at least 1. More delay other processes' commits, fewer cost
    /// a sync of the disk each.
    pub fn group(mut self, most: usize) -> Builder {
        self.group = most.max(1);
        self
    }

    /// The clock by which operations are dated, events are due and leases end; the host's by default. Processes on one file must agree
    /// on it: this is for tests.
    pub fn wall_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Builder {
        self.clock = Clock(Arc::new(clock));
        self
    }

    /// What every connection begins with, the writer's and those for reading: functions, collations and pragmas of your own.
    pub fn on_connect(mut self, hook: impl Fn(&Connection) -> rusqlite::Result<()> + Send + Sync + 'static) -> Builder {
        self.on_connect = Some(Arc::new(hook));
        self
    }

    /// Opens the database.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn open(self) -> Result<Sqlite, StoreError> {
        const OPENING: &str = "opening the database";
        if self.path.as_os_str() == ":memory:" || self.path.as_os_str().is_empty() {
            // A connection of its own would be a database of its own.
            return Err(StoreError::with(StoreErrorKind::Other, OPENING, "a database in memory has no log: `memory` is for that"));
        }
        // Absolute, so that a change of the directory means nothing, and so that SQLite cannot take it for a URI.
        let path = std::path::absolute(&self.path).map_err(|error| fault::unavailable(OPENING, error))?;
        let mut opener = Opener { path, durability: self.durability, busy_timeout: self.busy_timeout, on_connect: self.on_connect };
        let mut connection = opener.create().map_err(fault::doing(OPENING))?;
        connect::to_wal(&connection, self.busy_timeout)?;
        let log = schema::prepare(&mut connection, self.busy_timeout)?;
        // Locks lie beside the file: two names of one file must not be two locks. The file exists by now.
        opener.path = opener.path.canonicalize().map_err(|error| fault::unavailable(OPENING, error))?;
        let opener = Arc::new(opener);
        let watch = Watch::new(opener.clone(), self.poll_every);
        let writer = Writer::start(connection, opener.clone(), self.group, watch.signal())?;
        Ok(Sqlite(Arc::new(Shared {
            log,
            readers: Readers::new(opener.clone()),
            reads: Arc::new(Semaphore::new(MOST_READS)),
            opener,
            clock: self.clock,
            given_up: Arc::new(Notify::new()),
            writer,
            watch,
        })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("path", &self.path)
            .field("durability", &self.durability)
            .field("busy_timeout", &self.busy_timeout)
            .field("poll_every", &self.poll_every)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
