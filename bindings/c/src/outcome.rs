//! What a function answers for a key: the value type of every function that C registers.

use std::fmt;
use std::sync::Arc;

use crate::error::{Failure, WsCode};

/// Equal outcomes are no change for whoever reads them, failures included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Value(Arc<[u8]>),
    Failed(Arc<Refusal>),
    /// The callback said it worked and set no value.
    NoValue,
    /// A source's key before it is set for the first time.
    NotSet,
}

/// A callback's own code and words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) message: Option<String>,
}

impl Outcome {
    pub(crate) fn value(bytes: &[u8]) -> Outcome {
        Outcome::Value(Arc::from(bytes))
    }

    /// The value, or what to tell the caller who asked `function` for it.
    pub(crate) fn into_value(self, function: &str) -> Result<Arc<[u8]>, Failure> {
        match self {
            Outcome::Value(value) => Ok(value),
            other => Err(other.failure(function)),
        }
    }

    /// The same without taking the value: for reads that copy under a pin.
    pub(crate) fn as_value(&self, function: &str) -> Result<&[u8], Failure> {
        match self {
            Outcome::Value(value) => Ok(value),
            other => Err(other.failure(function)),
        }
    }

    fn failure(&self, function: &str) -> Failure {
        match self {
            Outcome::Failed(refusal) => {
                Failure { callback_code: refusal.code, ..Failure::new(WsCode::CallbackFailed, format!("`{function}` {refusal}")) }
            }
            Outcome::NotSet => Failure::new(WsCode::NotSet, format!("`{function}` has no value for this key")),
            Outcome::NoValue | Outcome::Value(_) => {
                Failure::new(WsCode::NoValue, format!("the callback of `{function}` returned 0 without ws_context_set_value"))
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed with code {}", self.code)?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}
