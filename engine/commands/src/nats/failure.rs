//! What an error of NATS means here.

use std::error::Error;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};

use crate::store_error::{StoreError, StoreErrorKind};

/// Of a call to the server. What JetStream itself answered is somewhere among the sources; everything else is about the connection.
pub(crate) fn failure(doing: &str, error: impl Error + Send + Sync + 'static) -> StoreError {
    let kind = answered(&error).unwrap_or(StoreErrorKind::Unavailable);
    StoreError::with(kind, doing, error)
}

/// Of an attempt to append.
pub(crate) fn publishing(doing: &str, error: PublishError) -> StoreError {
    match error.kind() {
        PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
            StoreError::with(StoreErrorKind::Conflict, doing, error)
        }
        PublishErrorKind::MaxPayloadExceeded => StoreError::with(StoreErrorKind::Other, doing, error),
        _ => failure(doing, error),
    }
}

fn answered(error: &(dyn Error + 'static)) -> Option<StoreErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(answer) = error.downcast_ref::<async_nats::jetstream::Error>() {
            return Some(match answer.error_code() {
                ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                | ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::MEMORY_RESOURCES_EXCEEDED
                | ErrorCode::STORAGE_RESOURCES_EXCEEDED
                | ErrorCode::STREAM_STORE_FAILED => StoreErrorKind::Full,
                _ if answer.code() == 503 => StoreErrorKind::Unavailable,
                _ if answer.code() == 404 => StoreErrorKind::Unavailable,
                _ => StoreErrorKind::Other,
            });
        }
        next = error.source();
    }
    None
}
