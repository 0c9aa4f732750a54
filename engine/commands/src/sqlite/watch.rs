//! Noticing commits, also those of other processes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::Sqlite;
use super::connect::Opener;
use super::pace::Pace;
use super::wal::{Waker, WalWatch};
use crate::wakeup::{Hinter, Hints, Wakeup};

/// Pause after the database could not be looked at.
const RETRY: Duration = Duration::from_millis(100);

/// How long it takes to look although nothing was told: a hint may come that late if the kernel cannot be relied on.
const UNTOLD: Duration = Duration::from_millis(100);

/// The hints, and the thread that looks for reasons to give them. It starts with the first listener and ends with the last handle.
pub(crate) struct Watch {
    opener: Arc<Opener>,
    period: Duration,
    hinter: Hinter,
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The writer's end: it hints at once, without waiting for the poll.
#[derive(Clone, Debug)]
pub(crate) struct Signal(Hinter);

impl Signal {
    pub(crate) fn committed(&self) {
        self.0.hint();
    }
}

impl Watch {
    pub(crate) fn new(opener: Arc<Opener>, period: Duration) -> Watch {
        Watch { opener, period, hinter: Hinter::new(), stop: Arc::new(Stop::new()), thread: Mutex::default() }
    }

    pub(crate) fn signal(&self) -> Signal {
        Signal(self.hinter.clone())
    }

    fn start(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return;
        }
        let (opener, period, hinter, stop) = (self.opener.clone(), self.period, self.hinter.clone(), self.stop.clone());
        let name = "wellspring-sqlite-watch".to_owned();
        match thread::Builder::new().name(name).spawn(move || watch(&opener, period, &hinter, &stop)) {
            Ok(started) => *thread = Some(started),
            // Hints may be missing. The next listener tries again.
            Err(error) => tracing::warn!(%error, "other processes' commits are noticed late: the thread that polls cannot be started"),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.set();
        let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // A hint wakes a task, and the last handle may go with the task.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread that polls had panicked");
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("period", &self.period).finish_non_exhaustive()
    }
}

/// Pauses that can be ended.
#[derive(Debug)]
struct Stop {
    set: AtomicBool,
    lock: Mutex<()>,
    bell: Condvar,
    /// For the waits that the kernel ends. Without it there are none.
    waker: Option<Waker>,
}

impl Stop {
    fn new() -> Stop {
        Stop { set: AtomicBool::new(false), lock: Mutex::default(), bell: Condvar::new(), waker: Waker::new().ok() }
    }

    fn set(&self) {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.set.store(true, Ordering::Relaxed);
        self.bell.notify_all();
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }

    fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    fn pause(&self, period: Duration) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_set() {
            drop(self.bell.wait_timeout(lock, period).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn watch(opener: &Opener, period: Duration, hinter: &Hinter, stop: &Stop) {
    let mut seen = Seen::default();
    let mut complained = false;
    while !stop.is_set() {
        // A hint wakes tasks, which is foreign code.
        match catch_unwind(AssertUnwindSafe(|| poll(opener, period, hinter, stop, &mut seen))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) if complained => tracing::debug!(%error, "the database still cannot be polled"),
            Ok(Err(error)) => tracing::warn!(%error, "the database cannot be polled"),
            Err(_) => tracing::error!("a waker panicked when the database was polled"),
        }
        complained = true;
        stop.pause(RETRY);
    }
}

/// What the last look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    last: i64,
    stirred: i64,
}

/// Looks until it is stopped or something fails.
fn poll(opener: &Opener, period: Duration, hinter: &Hinter, stop: &Stop, seen: &mut Seen) -> rusqlite::Result<()> {
    let connection = opener.reader()?;
    let mut version = connection.prepare("PRAGMA data_version")?;
    // Another connection counts anew.
    let mut last_version = None;
    let mut pace = Pace::new(period);
    let mut told = None;
    while !stop.is_set() {
        // It changes with every commit of any other connection, of which few matter here.
        let now: i64 = version.query_row([], |row| row.get(0))?;
        let changed = last_version.replace(now) != Some(now);
        if changed {
            let found = look(&connection)?;
            if std::mem::replace(seen, found) != found {
                hinter.hint();
            }
        }
        // The file is there now, and stays as long as this connection does.
        let told = told.get_or_insert_with(|| tell(opener, stop));
        pace.looked(changed);
        match told {
            Some((wal, waker)) if pace.may_sleep() => match wal.wait(waker, UNTOLD.max(period)) {
                Ok(written) => pace.slept(written),
                Err(error) => {
                    tracing::warn!(%error, "the kernel does not tell of writes any more");
                    pace.never_sleep();
                }
            },
            _ => {
                stop.pause(period);
                pace.paused();
            }
        }
    }
    Ok(())
}

/// The kernel's word on writes, if it gives it.
fn tell<'a>(opener: &Opener, stop: &'a Stop) -> Option<(WalWatch, &'a Waker)> {
    let mut file = opener.path.clone().into_os_string();
    file.push("-wal");
    let wal = WalWatch::new(Path::new(&file)).inspect_err(|error| tracing::debug!(%error, "the kernel does not tell of writes")).ok()?;
    Some((wal, stop.waker.as_ref()?))
}

fn look(connection: &Connection) -> rusqlite::Result<Seen> {
    let mut last = connection.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'wellspring_operations'")?;
    let last = last.query_row([], |row| row.get(0)).optional()?.unwrap_or(0);
    let mut stirred = connection.prepare_cached("SELECT value FROM wellspring_meta WHERE name = 'stirred'")?;
    Ok(Seen { last, stirred: stirred.query_row([], |row| row.get(0))? })
}

impl Wakeup for Sqlite {
    /// Wakes listeners of this process. Those of others have their own poll.
    fn notify(&self) {
        self.0.watch.hinter.hint();
    }

    fn hints(&self) -> Hints {
        let hints = self.0.watch.hinter.hints();
        self.0.watch.start();
        hints
    }
}
