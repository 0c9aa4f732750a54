//! Connections, each set up for what it does.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ffi};

use super::builder::Durability;
use super::fault;
use crate::store_error::{StoreError, StoreErrorKind};

pub(crate) type OnConnect = dyn Fn(&Connection) -> rusqlite::Result<()> + Send + Sync;

/// Enough for this module's statements and as many of the user's.
const STATEMENTS: usize = 128;

/// What the write-ahead log is cut back to once it was longer, in bytes.
const WAL_KEPT: i64 = 16 << 20;

/// Between two attempts at the write lock. Beside a busy process it is free for moments only: with pauses of 2 ms, two such processes
/// together committed a third of what they do with this, and the last percent of the commits took six times as long.
const LONGEST_PAUSE: Duration = Duration::from_micros(500);

/// What connections are opened with.
pub(crate) struct Opener {
    pub(crate) path: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) busy_timeout: Duration,
    pub(crate) on_connect: Option<std::sync::Arc<OnConnect>>,
}

impl Opener {
    /// For writing, with the file made if it is not there.
    pub(crate) fn create(&self) -> rusqlite::Result<Connection> {
        self.writing(OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// For writing. The file must be there: in place of one that was removed, an empty one would only hide the loss.
    pub(crate) fn writer(&self) -> rusqlite::Result<Connection> {
        self.writing(OpenFlags::empty())
    }

    fn writing(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let connection = self.connect(flags)?;
        let synchronous = match self.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT, |_| Ok(()))?;
        self.greet(connection)
    }

    /// For reading only. Not opened as read-only: a reader of a write-ahead log must be able to make its index.
    pub(crate) fn reader(&self) -> rusqlite::Result<Connection> {
        let connection = self.connect(OpenFlags::empty())?;
        let connection = self.greet(connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        // Every connection is used by one thread at a time.
        let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }

    fn greet(&self, connection: Connection) -> rusqlite::Result<Connection> {
        if let Some(hook) = &self.on_connect {
            hook(&connection)?;
        }
        Ok(connection)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Brings the file into WAL mode, in which it stays.
pub(crate) fn to_wal(connection: &Connection, timeout: Duration) -> Result<(), StoreError> {
    const DOING: &str = "turning on the write-ahead log";
    let mut mode = String::new();
    patiently(timeout, || {
        mode = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if mode != "wal" {
            mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        }
        Ok(())
    })
    .map_err(fault::doing(DOING))?;
    if mode == "wal" {
        return Ok(());
    }
    let kind = match connection.is_readonly("main") {
        Ok(true) => StoreErrorKind::ReadOnly,
        _ => StoreErrorKind::Other,
    };
    Err(StoreError::with(kind, DOING, format!("the database stays in journal mode `{mode}`")))
}

/// Takes the write lock, in turn with other processes.
///
/// SQLite's own waiting sleeps up to 100 ms at a time, which is long beside a commit; and it does not wait for everything.
pub(crate) fn begin(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let begun = patiently(timeout, || connection.execute_batch("BEGIN IMMEDIATE"));
    connection.busy_timeout(timeout)?;
    begun?;
    // A transaction that wants to write begins on a read-only database too, and fails later, in what it writes.
    if connection.is_readonly("main")? {
        connection.execute_batch("ROLLBACK")?;
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None));
    }
    Ok(())
}

/// Tries again while the database is busy, for as long as the timeout.
fn patiently(timeout: Duration, mut work: impl FnMut() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let mut pause = Duration::from_micros(100);
    let mut left = timeout;
    loop {
        match work() {
            Err(error) if fault::kind(&error) == StoreErrorKind::Conflict && !left.is_zero() => {
                std::thread::sleep(pause.min(left));
                left = left.saturating_sub(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            end => return end,
        }
    }
}
