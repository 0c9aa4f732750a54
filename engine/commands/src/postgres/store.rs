//! Transactions that take an operation along.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::append::{self, APPENDING, Failed};
use super::failure::{corrupt, failure, is_transient, rules_out_commit};
use super::holding::PostgresConsumers;
use super::pool::Lease;
use super::queue::PostgresEvents;
use super::reading::place;
use super::tx::PostgresTx;
use super::{Postgres, trim};
use crate::consumer::Consumers;
use crate::draft::Draft;
use crate::event::EventQueue;
use crate::id::{CommandId, LogId, OperationId};
use crate::journal::JournalEntry;
use crate::log::OperationLog;
use crate::position::LogPosition;
use crate::store::{CommitError, Committed, Doubt, Store, Verdict};
use crate::store_error::StoreError;
use crate::wakeup::Wakeup;

const COMMITTING: &str = "committing an operation";
const VERIFYING: &str = "verifying a commit";
const REMEMBERING: &str = "looking into the journal";

const STANDBY: &str = "SELECT pg_is_in_recovery()";

const STATUS: &str = "SELECT pg_xact_status($1::text::xid8)";

/// A statement of its own after the status: one snapshot for both could be older than the commit it is to show.
const FOUND: &str = "SELECT EXISTS (SELECT FROM {s}.operations WHERE id = $1 AND xid = $2::text::xid8),
    trimmed >= $2::text::xid8 FROM {s}.meta";

const JOURNALED: &str = "SELECT command, digest, result, log, xid::text, seq, operation FROM {s}.journal WHERE id = $1";

impl Store for Postgres {
    type Tx = PostgresTx;

    async fn begin(&self) -> Result<PostgresTx, StoreError> {
        PostgresTx::begin(&self.0.work, &self.0.begin).await
    }

    async fn commit(&self, tx: PostgresTx, draft: Draft) -> Result<Committed, CommitError> {
        let log = self.0.log.id();
        let place = match append::append(&tx, log, &draft).await {
            Ok(place) => place,
            Err(Failed::Driver(error)) if append::is_repeat(&error, self.0.names.schema()) => return Err(CommitError::Repeated),
            Err(Failed::Driver(error)) => return Err(CommitError::Failed(tx.failed(APPENDING, error))),
            Err(Failed::Refused(error)) => return Err(error),
        };
        let position = LogPosition { log, place, operation: draft.operation };
        let keys = draft.keys().to_vec();
        match tx.send_commit().await {
            Ok(()) => {
                tx.ended();
                Ok(Committed { position, keys })
            }
            Err(error) if rules_out_commit(&error) => Err(CommitError::Failed(tx.failed(COMMITTING, error))),
            Err(error) => {
                tx.close();
                let doubt = Doubt { position, keys, ticket: place.major };
                Err(CommitError::InDoubt { error: failure(COMMITTING, error), doubt: Box::new(doubt) })
            }
        }
    }

    async fn verify(&self, doubt: &Doubt) -> Result<Verdict, StoreError> {
        // Also where nothing is wrong with the connections that are there: they may lead to a server that is not the primary any more.
        let connection = self.0.connector.connect().await?;
        let xid = doubt.ticket.to_string();
        let look = async {
            let client = connection.client();
            // It may be behind the commit that is asked about, and would call its id one of the future.
            if client.query_one(STANDBY, &[]).await?.try_get(0)? {
                return Ok(None);
            }
            let status: Option<String> = client.query_one(STATUS, &[&xid]).await?.try_get(0)?;
            let operation = Uuid::from_u128(doubt.position.operation.as_u128());
            let row = client.query_one(&self.0.names.fill(FOUND), &[&operation, &xid]).await?;
            Ok(Some((status, row.try_get::<_, bool>(0)?, row.try_get::<_, bool>(1)?)))
        };
        let (status, found, trimmed) = match look.await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Verdict::Running),
            // "Transaction id is in the future": of a database that was restored to before it.
            Err(error) if error_code(&error) == Some("22023") => return Ok(Verdict::RolledBack),
            Err(error) => return Err(failure(VERIFYING, error)),
        };
        match (status.as_deref(), found, trimmed) {
            (_, true, _) => Ok(Verdict::Committed),
            (Some("in progress"), ..) => Ok(Verdict::Running),
            // Its row was there as long as rows are kept.
            (Some("committed"), false, true) => Ok(Verdict::Committed),
            // The number was used again, by somebody else, in a database that was restored.
            (Some("committed"), false, false) | (Some("aborted"), ..) => Ok(Verdict::RolledBack),
            (_, false, _) => Err(corrupt(format!("the end of transaction {xid}, which is too long ago"))),
        }
    }

    async fn journaled(&self, id: &CommandId) -> Result<Option<JournalEntry>, StoreError> {
        let look = async |lease: &Lease| lease.client().query_opt(&lease.statement(JOURNALED).await?, &[&id.as_str()]).await;
        let row = self.0.service.step(REMEMBERING, look).await?;
        let Some(row) = row else { return Ok(None) };
        let read = || -> Result<_, tokio_postgres::Error> {
            Ok((row.try_get(0)?, row.try_get::<_, &[u8]>(1)?, row.try_get(2)?, row.try_get::<_, Uuid>(3)?))
        };
        let (command, digest, result, log) = read().map_err(|error| failure(REMEMBERING, error))?;
        let read = || -> Result<_, tokio_postgres::Error> {
            Ok((row.try_get::<_, &str>(4)?, row.try_get::<_, i64>(5)?, row.try_get::<_, Uuid>(6)?))
        };
        let (xid, seq, operation) = read().map_err(|error| failure(REMEMBERING, error))?;
        let digest = digest.try_into().map_err(|_| corrupt(format!("the journal's digest of `{id}`")))?;
        let position = LogPosition {
            log: LogId::from_u128(log.as_u128()),
            place: place(xid, seq)?,
            operation: OperationId::from_u128(operation.as_u128()),
        };
        Ok(Some(JournalEntry { command, digest: u128::from_be_bytes(digest), result, position }))
    }

    fn is_transient(&self, error: &(dyn Error + 'static)) -> bool {
        is_transient(error)
    }

    async fn trim_journal(&self, keep: Duration) -> Result<u64, StoreError> {
        trim::journal(&self.0.service, keep).await
    }

    fn log(&self) -> Arc<dyn OperationLog> {
        Arc::new(self.0.log.clone())
    }

    fn wakeup(&self) -> Arc<dyn Wakeup> {
        Arc::new(self.hints())
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(PostgresConsumers(self.0.connector.clone()))
    }

    fn events(&self) -> Arc<dyn EventQueue> {
        Arc::new(PostgresEvents(self.clone()))
    }
}

fn error_code(error: &tokio_postgres::Error) -> Option<&str> {
    error.code().map(|code| code.code())
}
