//! Operations in the same SQLite file as the data: several processes on one host.
//!
//! # How it works
//! - **One writer thread** per handle takes what is queued, up to [`Builder::group`] operations, and commits it as one transaction:
//!   one `fsync` for all of them. Every operation runs in a savepoint of its own, so one that fails takes nobody along.
//! - **A handler never waits inside a transaction.** What it wants to write is a closure ([`SqliteTx::write`]) that runs in the writer
//!   thread at commit, where nobody else is writing. Before that, nothing touches the database, and there is nothing to roll back.
//! - **Places are sequence numbers.** SQLite has one writer at a time, and a number is given out under its lock: the order of the
//!   numbers is the order of the commits, without gaps that close later.
//! - **A cursor names the operation it stands behind**, not only its number. A file restored from a backup that has grown past the
//!   number since is another history, and a reader finds out ([`Reading::Lost`](crate::Reading::Lost)) instead of skipping what differs.
//! - **Other processes are noticed** by polling `PRAGMA data_version`, every [`Builder::poll_every`] while something goes on. Where the
//!   kernel tells of writes to a file (Linux), the poll sleeps while nothing is written, and looks only 10 times a second in case it is
//!   not told. Listeners are woken only if the log or the outbox has really changed: a cursor saved in one process does not wake the
//!   others, who would save theirs in turn.
//!
//! # What it promises
//! A commit that was reported has reached the disk ([`Durability::Full`]), or at least the operating system
//! ([`Durability::Normal`]: it survives the death of the process but, at the end of the log, not that of the machine).
//! The clock is the host's, which all processes on a file share; a step of it prolongs or shortens leases and retention, never
//! changes an order.
//!
//! # What it needs
//! A file on a local disk: SQLite's WAL does not work over a network file system. The file may be replaced only while no process
//! has it open. Besides SQLite's own `-wal` and `-shm`, files `<database>-<name>.consumer` lie beside it, one for each named consumer;
//! they are empty, and are never removed, since a lock on a removed file excludes nobody.
//!
//! Methods that wait need a tokio runtime: reading happens on its blocking threads.

mod builder;
mod clock;
mod connect;
mod consumer;
mod cursor;
mod fault;
mod group;
mod job;
mod log;
mod operation;
mod outbox;
mod pace;
mod queue;
mod reader;
mod schema;
mod store;
mod trim;
mod wal;
mod watch;
mod write;
mod writer;

#[cfg(fuzzing)]
pub(crate) use self::cursor::reread;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{Notify, Semaphore};

pub use self::builder::{Builder, Durability};
pub use self::operation::ClosurePanicked;
pub use self::write::{SqliteTx, Write};
pub use rusqlite;

use self::clock::Clock;
use self::connect::Opener;
use self::reader::Readers;
use self::watch::Watch;
use self::writer::Writer;
use crate::id::LogId;
use crate::store_error::StoreError;

/// Reads of the user's that may go on at once: each has a connection of its own, with its files and its page cache.
const MOST_READS: usize = 32;

/// A SQLite database with its operation log, its outbox of events, its journal of commands and its durable cursors.
///
/// Cheap to clone. When the last clone is dropped, what is queued is still committed, and the drop waits for that.
#[derive(Clone)]
pub struct Sqlite(Arc<Shared>);

struct Shared {
    log: LogId,
    opener: Arc<Opener>,
    clock: Clock,
    readers: Readers,
    reads: Arc<Semaphore>,
    /// Rung when a name is given up in this process.
    given_up: Arc<Notify>,
    // The writer hints to the watch, so it ends first.
    writer: Writer,
    watch: Watch,
}

impl Sqlite {
    /// Opens a database and makes it one if it does not exist, with the options as they are by default.
    ///
    /// Blocks for some milliseconds; for longer, up to the busy timeout, while another process is setting up the same file.
    ///
    /// # Errors
    /// The file cannot be opened, or cannot be written to though its tables are missing, or a newer version of this crate has been
    /// here ([`StoreErrorKind::Corrupt`](crate::StoreErrorKind::Corrupt)).
    pub fn open(path: impl AsRef<Path>) -> Result<Sqlite, StoreError> {
        Sqlite::builder(path).open()
    }

    /// Options first.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    /// The file, with links resolved.
    pub fn path(&self) -> &Path {
        &self.0.opener.path
    }

    /// Reads: in one snapshot, on a connection that cannot write, on a blocking thread of the runtime's.
    ///
    /// Errors of the closure's that are not the database's belong into `T`. At most 32 such reads go on at once; more wait.
    ///
    /// # Errors
    /// What the closure returns, and what opening a connection does.
    ///
    /// # Panics
    /// If the closure does, and outside a tokio runtime.
    ///
    /// # Cancellation
    /// Dropping the future drops the result; a closure that has begun runs to its end.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        // The semaphore is never closed.
        let place = self.0.reads.clone().acquire_owned().await.ok();
        self.look("reading", move |connection| {
            // As long as the closure runs, which may be longer than anybody waits for it.
            let _place = place;
            work(connection)
        })
        .await
    }

    /// Reads like [`read`](Sqlite::read), on this thread.
    ///
    /// # Errors
    /// What the closure returns, and what opening a connection does.
    ///
    /// # Panics
    /// If the closure does.
    pub fn read_blocking<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.0.readers.run("reading", work)
    }

    /// How many transactions this handle's writer has committed: fewer than operations if they were grouped.
    pub fn transactions(&self) -> u64 {
        self.0.writer.transactions()
    }

    /// A read of this module's own, which waits for no user's.
    async fn look<T, F>(&self, doing: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let shared = self.0.clone();
        blocking(move || shared.readers.run(doing, work)).await?
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.0.opener.path).field("log", &self.0.log).finish_non_exhaustive()
    }
}

/// Runs on a blocking thread. A panic goes on in the caller.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Ok(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(fault::unavailable("reading on a runtime that is shutting down", cancelled)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn dropped_reads_whose_closures_still_run_hold_their_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let sqlite = Sqlite::open(folder.path().join("shop.db")).expect("opened");
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let mut read = Box::pin(sqlite.read(move |_| {
            let _ = started.send(());
            let _ = wait.recv();
            Ok(())
        }));
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        has_started.await.expect("started");
        drop(read);
        assert_eq!(sqlite.0.reads.available_permits(), MOST_READS - 1);
        drop(go);
        let all = sqlite.0.reads.acquire_many(MOST_READS as u32).await.expect("open");
        drop(all);
    }
}
