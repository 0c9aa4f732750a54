//! What an error of Redis means here.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store_error::{StoreError, StoreErrorKind};

pub(crate) fn failure(doing: &str, error: RedisError) -> StoreError {
    let kind = match error.kind() {
        _ if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_connection_refusal() => {
            StoreErrorKind::Unavailable
        }
        // The connection was closed in the middle of an answer.
        ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => StoreErrorKind::Unavailable,
        ErrorKind::UnexpectedReturnType => StoreErrorKind::Corrupt,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => StoreErrorKind::ReadOnly,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown,
        ) => StoreErrorKind::Unavailable,
        _ => match error.code() {
            Some("OOM" | "MISCONF") => StoreErrorKind::Full,
            Some("WRONGTYPE") => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Other,
        },
    };
    StoreError::with(kind, doing, error)
}
