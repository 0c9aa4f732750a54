//! The database as a store of commands.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::OptionalExtension;

use super::operation::Operation;
use super::write::SqliteTx;
use super::writer::gone;
use super::{Sqlite, fault, group};
use crate::consumer::Consumers;
use crate::draft::Draft;
use crate::event::EventQueue;
use crate::id::{CommandId, OperationId};
use crate::journal::JournalEntry;
use crate::log::OperationLog;
use crate::position::{LogPosition, Place};
use crate::store::{CommitError, Committed, Doubt, Store, Verdict};
use crate::store_error::StoreError;
use crate::wakeup::Wakeup;

impl Store for Sqlite {
    type Tx = SqliteTx;

    /// Nothing happens: see [`SqliteTx`].
    async fn begin(&self) -> Result<SqliteTx, StoreError> {
        Ok(SqliteTx::default())
    }

    /// Once polled it is queued, and is done whether or not the future is kept.
    async fn commit(&self, tx: SqliteTx, draft: Draft) -> Result<Committed, CommitError> {
        let (operation, answer) = Operation::new(self.0.log, self.0.clock.clone(), tx, draft);
        if self.0.writer.queue(Box::new(operation)).is_err() {
            return Err(gone("committing").into());
        }
        // Every operation is answered before or after its commit, never in between: one without an answer was not committed.
        answer.await.unwrap_or_else(|_| Err(gone("committing").into()))
    }

    /// Looks for the operation, and commits something else if it is not there, so that a recovery of the file cannot bring it back.
    async fn verify(&self, doubt: &Doubt) -> Result<Verdict, StoreError> {
        const DOING: &str = "finding out what became of a commit";
        let operation = doubt.position.operation;
        let verdict = self.0.writer.write(
            DOING,
            Box::new(move |connection| {
                if group::landed(connection, operation)? {
                    return Ok(Verdict::Committed);
                }
                group::fence(connection)?;
                Ok(Verdict::RolledBack)
            }),
        );
        verdict.await
    }

    async fn journaled(&self, id: &CommandId) -> Result<Option<JournalEntry>, StoreError> {
        let (id, log) = (id.clone(), self.0.log);
        let find = move |connection: &rusqlite::Connection| {
            let sql = "SELECT command, digest, result, seq, operation FROM wellspring_journal WHERE id = ?1";
            let mut find = connection.prepare_cached(sql)?;
            find.query_row([id.as_str()], |row| {
                let place = Place::new(row.get::<_, i64>(3)?.unsigned_abs(), 0);
                let operation = OperationId::from_u128(u128::from_be_bytes(row.get(4)?));
                Ok(JournalEntry {
                    command: row.get(0)?,
                    digest: u128::from_be_bytes(row.get(1)?),
                    result: row.get(2)?,
                    position: LogPosition { log, place, operation },
                })
            })
            .optional()
        };
        self.look("looking into the journal", find).await
    }

    fn is_transient(&self, error: &(dyn Error + 'static)) -> bool {
        fault::is_transient(error)
    }

    async fn trim_journal(&self, keep: Duration) -> Result<u64, StoreError> {
        self.trim_journal_entries(keep).await
    }

    fn log(&self) -> Arc<dyn OperationLog> {
        Arc::new(self.clone())
    }

    fn wakeup(&self) -> Arc<dyn Wakeup> {
        Arc::new(self.clone())
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(self.clone())
    }

    fn events(&self) -> Arc<dyn EventQueue> {
        Arc::new(self.clone())
    }
}
