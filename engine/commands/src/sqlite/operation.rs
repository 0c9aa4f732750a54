//! A commit: the user's rows, the operation, its events and its journal entry.

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::clock::Clock;
use super::group::{self, Turn};
use super::job::{End, Job};
use super::write::{Closure, SqliteTx, Write};
use super::{fault, outbox};
use crate::catch::said;
use crate::draft::Draft;
use crate::id::{LogId, OperationId};
use crate::position::{LogPosition, Place};
use crate::store::{CommitError, Committed, Doubt};
use crate::store_error::{StoreError, StoreErrorKind};

/// A closure of the handler's panicked at commit: the operation was rolled back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a closure that was to write panicked: {message}")]
pub struct ClosurePanicked {
    /// What the panic said, if it said it in words.
    pub message: String,
}

type Outcome = Result<Committed, CommitError>;

/// An operation in the writer's queue.
pub(crate) struct Operation {
    id: OperationId,
    log: LogId,
    clock: Clock,
    work: Option<(Vec<Closure>, Draft)>,
    outcome: Option<Outcome>,
    reply: oneshot::Sender<Outcome>,
}

impl Operation {
    pub(crate) fn new(log: LogId, clock: Clock, tx: SqliteTx, draft: Draft) -> (Operation, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        let id = draft.operation;
        (Operation { id, log, clock, work: Some((tx.into_closures(), draft)), outcome: None, reply }, answer)
    }

    fn run(&self, turn: &Turn<'_>, closures: Vec<Closure>, mut draft: Draft) -> Outcome {
        let connection = turn.connection;
        // Before the closures: theirs would be the first to stumble over what they have written the first time.
        if repeated(connection, &draft).map_err(appending)? {
            return Err(CommitError::Repeated);
        }
        let mut closures = closures.into_iter();
        let written = self.write(turn, &mut closures, &mut draft);
        // Those that did not get their turn: what they hold is the user's, and so are its destructors.
        if let Err(panic) = turn.guarded(move || drop(closures)) {
            tracing::error!(message = said(panic), "what a closure held panicked when it was dropped");
        }
        written?;
        let now = self.clock.now();
        let seq = append(connection, &draft, now).map_err(appending)?;
        outbox::insert_all(connection, &draft.events, now)?;
        let position = LogPosition { log: self.log, place: Place::new(seq.unsigned_abs(), 0), operation: self.id };
        Ok(Committed { position, keys: draft.keys().to_vec() })
    }

    /// Runs the closures.
    fn write(&self, turn: &Turn<'_>, closures: &mut std::vec::IntoIter<Closure>, draft: &mut Draft) -> Result<(), CommitError> {
        let connection = turn.connection;
        for closure in closures {
            let mut write = Write { connection, draft };
            match turn.guarded(move || closure(&mut write)) {
                Ok(Ok(())) if connection.is_autocommit() => {
                    let error = "a closure went on after an error that had ended the transaction";
                    return Err(StoreError::with(StoreErrorKind::Other, "writing the rows of an operation", error).into());
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(CommitError::Refused(error)),
                Err(panic) => return Err(CommitError::Refused(Box::new(ClosurePanicked { message: said(panic) }))),
            }
        }
        Ok(())
    }
}

impl Job for Operation {
    fn apply(&mut self, turn: &Turn<'_>) -> bool {
        let Some((closures, draft)) = self.work.take() else { return false };
        let outcome = self.run(turn, closures, draft);
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn operation(&self) -> Option<OperationId> {
        Some(self.id)
    }

    fn end(self: Box<Self>, end: End) {
        let answer = match (end, self.outcome) {
            (End::Committed | End::Withdrawn, Some(outcome)) => outcome,
            (End::InDoubt(error), Some(Ok(Committed { position, keys }))) => {
                Err(CommitError::InDoubt { error, doubt: Box::new(Doubt { position, keys, ticket: 0 }) })
            }
            (End::Failed(error) | End::InDoubt(error), _) => Err(error.into()),
            (End::Committed | End::Withdrawn, None) => Err(StoreError::new(StoreErrorKind::Unavailable, "committing").into()),
        };
        // Whoever has gone does not hear, and the operation stands.
        let _ = self.reply.send(answer);
    }
}

fn appending(error: rusqlite::Error) -> CommitError {
    fault::doing("appending to the operation log")(error).into()
}

/// Whether the operation, or another of the same command call, has been committed before.
fn repeated(connection: &Connection, draft: &Draft) -> rusqlite::Result<bool> {
    if let Some(id) = draft.command_id() {
        let mut statement = connection.prepare_cached("SELECT 1 FROM wellspring_journal WHERE id = ?1")?;
        if statement.query_row([id.as_str()], |_| Ok(())).optional()?.is_some() {
            return Ok(true);
        }
    }
    group::landed(connection, draft.operation)
}

fn append(connection: &Connection, draft: &Draft, now: i64) -> rusqlite::Result<i64> {
    let id = draft.operation.as_u128().to_be_bytes();
    let origin = draft.origin.as_u128().to_be_bytes();
    let mut insert = connection.prepare_cached("INSERT INTO wellspring_operations (id, origin, at, body) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute((id, origin, now, draft.body()))?;
    let seq = connection.last_insert_rowid();
    if let Some(entry) = &draft.journal {
        let mut insert = connection.prepare_cached(
            "INSERT INTO wellspring_journal (id, command, digest, result, seq, operation, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        insert.execute((entry.id.as_str(), &entry.command, entry.digest.to_be_bytes(), &entry.result, seq, id, now))?;
    }
    Ok(seq)
}
