//! Several jobs in one transaction.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OptionalExtension};

use super::job::{End, Job};
use super::{connect, fault};
use crate::id::OperationId;
use crate::store_error::{StoreError, StoreErrorKind};

const COMMITTING: &str = "committing";

/// How many jobs are committed one by one after a group was refused as a whole: the one to blame is tried again soon.
const ALONE: usize = 256;

/// The savepoint around each job.
const SAVEPOINT: &str = "wellspring_operation";

/// The writer's connection, and what keeps a user's closure from ending the transaction it runs in.
pub(crate) struct Group {
    connection: Connection,
    closed: Arc<AtomicBool>,
    busy_timeout: Duration,
    alone: usize,
    transactions: Arc<AtomicU64>,
}

/// What a job works with.
pub(crate) struct Turn<'a> {
    pub(crate) connection: &'a Connection,
    closed: &'a AtomicBool,
}

/// What one pass over the queue has come to.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Whether there are new operations in the log.
    pub(crate) operations: bool,
    /// Whether the connection is to be replaced.
    pub(crate) broken: bool,
}

impl Group {
    pub(crate) fn new(mut connection: Connection, busy_timeout: Duration, transactions: Arc<AtomicU64>) -> rusqlite::Result<Group> {
        let closed = Arc::new(AtomicBool::new(false));
        let seen = closed.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| match context.action {
            AuthAction::Transaction { .. } if seen.load(Ordering::Relaxed) => Authorization::Deny,
            AuthAction::Savepoint { savepoint_name: SAVEPOINT, .. } if seen.load(Ordering::Relaxed) => Authorization::Deny,
            _ => Authorization::Allow,
        }))?;
        Ok(Group { connection, closed, busy_timeout, alone: 0, transactions })
    }

    /// Commits what is at the front of the queue: all of it, unless something ends the transaction early.
    pub(crate) fn pass(&mut self, jobs: &mut VecDeque<Box<dyn Job>>) -> Pass {
        if let Err(error) = connect::begin(&self.connection, self.busy_timeout) {
            let broken = fault::kind(&error) != StoreErrorKind::Conflict;
            for job in jobs.drain(..) {
                tell(job, End::Failed(fault::shared("waiting for the write lock", &error)));
            }
            return Pass { broken, ..Pass::default() };
        }
        let mut applied = Vec::with_capacity(jobs.len());
        // Their reasons may rest on rows of this group, which nobody else sees yet, and which may never be.
        let mut withheld = Vec::new();
        let most = if self.alone > 0 { 1 } else { jobs.len() };
        for _ in 0..most {
            let Some(mut job) = jobs.pop_front() else { break };
            self.alone = self.alone.saturating_sub(1);
            match self.attempt(job.as_mut()) {
                Attempt::Applied => applied.push(job),
                // One that has ended the transaction itself says why, or it would do so again and again.
                Attempt::Withdrawn if applied.is_empty() || self.connection.is_autocommit() => tell(job, End::Withdrawn),
                Attempt::Withdrawn => withheld.push(job),
                Attempt::Failed(error) => tell(job, End::Failed(error)),
            }
            if self.connection.is_autocommit() {
                // SQLite gives a whole transaction up if there is no room or memory for a part of it.
                break;
            }
        }
        if self.connection.is_autocommit() {
            return self.sort_out(applied, withheld, "another operation ended the transaction", StoreErrorKind::Conflict, false);
        }
        if applied.is_empty() {
            let broken = self.connection.execute_batch("ROLLBACK").is_err();
            return Pass { broken, ..Pass::default() };
        }
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => {
                // Before anybody hears of it, and may look.
                self.transactions.fetch_add(1, Ordering::Relaxed);
                let operations = applied.iter().any(|job| job.operation().is_some());
                applied.into_iter().for_each(|job| tell(job, End::Committed));
                withheld.into_iter().for_each(|job| tell(job, End::Withdrawn));
                Pass { operations, broken: false }
            }
            Err(error) => self.refused(applied, withheld, &error),
        }
    }

    /// Runs a job in its savepoint.
    fn attempt(&self, job: &mut dyn Job) -> Attempt {
        if let Err(error) = self.step("SAVEPOINT wellspring_operation") {
            return Attempt::Failed(fault::shared("beginning an operation", &error));
        }
        let keep = job.apply(&Turn { connection: &self.connection, closed: &self.closed });
        if self.connection.is_autocommit() {
            return match keep {
                true => {
                    Attempt::Failed(StoreError::with(StoreErrorKind::Other, COMMITTING, "the transaction was ended inside an operation"))
                }
                false => Attempt::Withdrawn,
            };
        }
        let end = match keep {
            true => self.step("RELEASE wellspring_operation"),
            false => self.step("ROLLBACK TO wellspring_operation").and_then(|()| self.step("RELEASE wellspring_operation")),
        };
        match end {
            Ok(()) if keep => Attempt::Applied,
            Ok(()) => Attempt::Withdrawn,
            Err(error) => {
                // Without its savepoint a part of the job could stay.
                let _ = self.connection.execute_batch("ROLLBACK");
                Attempt::Failed(fault::shared("ending an operation", &error))
            }
        }
    }

    fn step(&self, sql: &str) -> rusqlite::Result<()> {
        // Not out of the cache, where a closure would find the statement as it was prepared, past the authorizer.
        self.connection.execute_batch(sql)
    }

    /// The database refused the commit.
    fn refused(&mut self, applied: Vec<Box<dyn Job>>, withheld: Vec<Box<dyn Job>>, error: &rusqlite::Error) -> Pass {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        let kind = fault::kind(error);
        if kind == StoreErrorKind::Constraint && applied.len() > 1 {
            // A foreign key that is checked only now. It does not say whose it is, so all of them are to try again, one by one.
            self.alone = ALONE;
            for job in applied.into_iter().chain(withheld) {
                tell(job, End::Failed(StoreError::with(StoreErrorKind::Conflict, COMMITTING, error.to_string())));
            }
            return Pass::default();
        }
        // Of an input or output error it is not known how far the commit has come.
        let doubtful =
            !matches!(kind, StoreErrorKind::Conflict | StoreErrorKind::Constraint | StoreErrorKind::Full | StoreErrorKind::ReadOnly);
        self.sort_out(applied, withheld, &error.to_string(), kind, doubtful)
    }

    /// Tells jobs whose transaction ended without a successful commit of this thread's what the database says of them.
    fn sort_out(
        &mut self,
        applied: Vec<Box<dyn Job>>,
        withheld: Vec<Box<dyn Job>>,
        reason: &str,
        kind: StoreErrorKind,
        doubtful: bool,
    ) -> Pass {
        let mut pass = Pass { broken: doubtful, ..Pass::default() };
        // What was written of the commit is in the file. Only a later commit, in its place, makes sure that it cannot come back.
        let certain = !doubtful || fence(&self.connection).is_ok();
        for job in applied {
            let landed = match job.operation() {
                Some(operation) => landed(&self.connection, operation),
                None => Ok(false),
            };
            let error = StoreError::with(kind, COMMITTING, reason);
            let end = match landed {
                Ok(true) => {
                    pass.operations = true;
                    End::Committed
                }
                Ok(false) if certain => End::Failed(error),
                Ok(false) => End::InDoubt(error),
                Err(_) => {
                    pass.broken = true;
                    End::InDoubt(error)
                }
            };
            tell(job, end);
        }
        for job in withheld {
            // One transaction: if one of its operations is there, all of it is. If not, its reason may have gone with the rows: it is to
            // try again, whatever the others died of, and is not to blame for that.
            let end = match pass.operations {
                true => End::Withdrawn,
                false => End::Failed(StoreError::with(StoreErrorKind::Conflict, COMMITTING, reason)),
            };
            tell(job, end);
        }
        pass
    }
}

enum Attempt {
    Applied,
    Withdrawn,
    Failed(StoreError),
}

impl Turn<'_> {
    /// Runs a closure that must not end the transaction.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> T) -> std::thread::Result<T> {
        self.closed.store(true, Ordering::Relaxed);
        let end = catch_unwind(AssertUnwindSafe(work));
        self.closed.store(false, Ordering::Relaxed);
        end
    }
}

/// Ends a job. Waking a waiter runs foreign code, which must not keep the others from hearing.
fn tell(job: Box<dyn Job>, end: End) {
    if catch_unwind(AssertUnwindSafe(|| job.end(end))).is_err() {
        tracing::error!("a waker panicked when a commit ended");
    }
}

/// Whether an operation is in the log.
pub(crate) fn landed(connection: &Connection, operation: OperationId) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM wellspring_operations WHERE id = ?1")?;
    statement.query_row([operation.as_u128().to_be_bytes()], |_| Ok(())).optional().map(|found| found.is_some())
}

/// Commits something: whatever was not committed before this will not be.
///
/// A failed commit can leave whole frames behind the end of the write-ahead log, which a recovery after a crash would find.
/// This takes their place.
pub(crate) fn fence(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE wellspring_meta SET value = value + 1 WHERE name = 'fence'", []).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use rusqlite::ffi;

    use super::*;

    struct Row {
        id: u32,
        end: Sender<(u32, End)>,
    }

    impl Job for Row {
        fn apply(&mut self, turn: &Turn<'_>) -> bool {
            turn.connection.execute("INSERT INTO row VALUES (1)", []).is_ok()
        }

        fn end(self: Box<Self>, end: End) {
            let _ = self.end.send((self.id, end));
        }
    }

    /// The first job is applied and the second withheld because of it; what they hear, in order, when the commit ends.
    fn ends(commit: Option<i32>) -> Vec<(u32, End)> {
        let connection = Connection::open_in_memory().expect("opened");
        connection.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY); CREATE TABLE wellspring_operations (id BLOB)").expect("made");
        let mut group = Group::new(connection, Duration::ZERO, Arc::default()).expect("a group");
        let (end, ends) = channel();
        let mut jobs: Vec<Box<dyn Job>> = [1, 2].map(|id| Box::new(Row { id, end: end.clone() }) as Box<dyn Job>).into();
        match commit {
            None => drop(group.pass(&mut jobs.into())),
            Some(code) => {
                group.connection.execute_batch("BEGIN IMMEDIATE").expect("begun");
                assert!(matches!(group.attempt(jobs[0].as_mut()), Attempt::Applied));
                assert!(matches!(group.attempt(jobs[1].as_mut()), Attempt::Withdrawn));
                let withheld = jobs.split_off(1);
                group.refused(jobs, withheld, &rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
            }
        }
        drop(end);
        ends.iter().collect()
    }

    #[test]
    fn a_withheld_job_hears_its_own_reason_once_the_group_is_committed() {
        assert!(matches!(ends(None)[..], [(1, End::Committed), (2, End::Withdrawn)]));
    }

    #[test]
    fn a_withheld_job_is_to_try_again_when_the_group_is_not_committed() {
        for (code, kind) in [(ffi::SQLITE_FULL, StoreErrorKind::Full), (ffi::SQLITE_READONLY, StoreErrorKind::ReadOnly)] {
            let ends = ends(Some(code));
            let [(1, End::Failed(applied)), (2, End::Failed(withheld))] = &ends[..] else { panic!("{ends:?}") };
            assert_eq!(applied.kind(), kind);
            assert!(withheld.is_transient(), "{withheld}");
        }
        // Only that of the first may be in the file.
        let ends = ends(Some(ffi::SQLITE_IOERR));
        let [(1, End::InDoubt(_)), (2, End::Failed(withheld))] = &ends[..] else { panic!("{ends:?}") };
        assert!(withheld.is_transient(), "{withheld}");
    }
}
