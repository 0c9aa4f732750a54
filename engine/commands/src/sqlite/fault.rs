//! What SQLite's errors mean to a caller.

use std::error::Error;

use rusqlite::ErrorCode;

use crate::store_error::{StoreError, StoreErrorKind};

pub(crate) fn kind(error: &rusqlite::Error) -> StoreErrorKind {
    let Some(code) = error.sqlite_error_code() else {
        return match error {
            // A value of another type than what the tables are made with.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Other,
        };
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => StoreErrorKind::Conflict,
        ErrorCode::CannotOpen => StoreErrorKind::Unavailable,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreErrorKind::ReadOnly,
        ErrorCode::DiskFull => StoreErrorKind::Full,
        ErrorCode::ConstraintViolation => StoreErrorKind::Constraint,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Other,
    }
}

/// For `map_err`.
pub(crate) fn doing(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| StoreError::with(kind(&error), what, error)
}

/// The same failure told to one more of those it concerns.
pub(crate) fn shared(what: &'static str, error: &rusqlite::Error) -> StoreError {
    StoreError::with(kind(error), what, error.to_string())
}

pub(crate) fn unavailable(what: &'static str, error: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::with(StoreErrorKind::Unavailable, what, error)
}

/// Whether the same again may succeed.
pub(crate) fn is_transient(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rusqlite::Error>() {
        return kind(error) == StoreErrorKind::Conflict;
    }
    error.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient)
}
