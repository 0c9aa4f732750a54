//! What PostgreSQL's errors mean to this crate.

use std::error::Error;
use std::io;

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store_error::{StoreError, StoreErrorKind};

/// An error of the driver, with what was being done. The driver's own text says only "db error": its source is what people can use.
pub(super) fn failure(doing: &str, error: tokio_postgres::Error) -> StoreError {
    let kind = kind(&error);
    if error.source().is_some_and(|source| source.is::<DbError>() || source.is::<io::Error>())
        && let Some(source) = error.into_source()
    {
        return StoreError::with(kind, doing, source);
    }
    StoreError::new(kind, doing)
}

/// What came from the database does not look like what this version writes.
pub(super) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, what)
}

fn kind(error: &tokio_postgres::Error) -> StoreErrorKind {
    match error.as_db_error() {
        Some(error) => kind_of_code(error.code()),
        None if is_gone(error) => StoreErrorKind::Unavailable,
        None => StoreErrorKind::Other,
    }
}

/// Whether the connection is gone, or may be.
fn is_gone(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.source().is_some_and(|source| source.is::<io::Error>())
}

fn kind_of_code(code: &SqlState) -> StoreErrorKind {
    match code.code() {
        // Serialization failure, deadlock, lock not available: the other transaction will be done soon.
        "40001" | "40P01" | "55P03" => StoreErrorKind::Conflict,
        // Being shut down, crashed, starting up, idle for too long, too many connections.
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" => StoreErrorKind::Unavailable,
        "25006" => StoreErrorKind::ReadOnly,
        "53100" => StoreErrorKind::Full,
        // A missing schema, table, column or function.
        "3F000" | "42P01" | "42703" | "42883" => StoreErrorKind::Corrupt,
        code if code.starts_with("08") => StoreErrorKind::Unavailable,
        code if code.starts_with("23") => StoreErrorKind::Constraint,
        _ => StoreErrorKind::Other,
    }
}

/// Whether one error of a chain means that the same again may succeed.
pub(super) fn is_transient(error: &(dyn Error + 'static)) -> bool {
    let kind = if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
        kind(error)
    } else if let Some(error) = error.downcast_ref::<DbError>() {
        kind_of_code(error.code())
    } else if let Some(error) = error.downcast_ref::<StoreError>() {
        return error.is_transient();
    } else {
        return false;
    };
    matches!(kind, StoreErrorKind::Conflict | StoreErrorKind::Unavailable)
}

/// Whether an error that came instead of the answer to `COMMIT` says that nothing was committed.
///
/// Only an ordinary error says so. One that ends the session may have come after the commit, while it waited for a standby, and one
/// of the socket says nothing at all.
pub(super) fn rules_out_commit(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error) && !error.code().code().starts_with("08"))
}

/// Whether a connection is no use after this error: it is gone, or its prepared statements are.
pub(super) fn spoils_connection(error: &tokio_postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return true };
    let statement_gone = matches!(error.code().code(), "26000" | "0A000" | "42P05");
    statement_gone || error.parsed_severity() != Some(Severity::Error)
}
