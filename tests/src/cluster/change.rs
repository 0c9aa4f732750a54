//! How a command changes rows, whatever the database.

use std::error::Error;
use std::fmt;
use std::future::Future;

use wellspring_commands::{InvalidateError, ItemError, Logged, Op, Store};

use super::BoxError;
use super::job::Job;
use super::kill::{Killing, Switch};

/// Why a command has not been done.
#[derive(Debug)]
pub enum Refused {
    /// It was asked to fail.
    AsAsked,
    /// Anything else.
    Other(BoxError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::AsAsked => f.write_str("it was to fail"),
            Refused::Other(error) => write!(f, "the rows could not be written: {error}"),
        }
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Refused::AsAsked => None,
            Refused::Other(error) => Some(&**error),
        }
    }
}

macro_rules! from {
    ($($type:ty),*) => {
        $(impl From<$type> for Refused {
            fn from(error: $type) -> Refused {
                Refused::Other(error.into())
            }
        })*
    };
}

from!(InvalidateError, ItemError, rusqlite::Error, tokio_postgres::Error, serde_json::Error);

/// What a command leaves in the database beside its rows.
#[derive(Clone, Debug)]
pub struct Change {
    /// The command's id.
    pub id: String,
    /// What its handler returns.
    pub token: i64,
    /// The command.
    pub job: Job,
}

/// A handler at work.
#[derive(Debug)]
pub struct Work<'a, S: Store> {
    /// Its operation.
    pub op: &'a Op<Killing<S>>,
    /// What it is to do.
    pub change: Change,
    /// The function whose keys are stale by it.
    pub row: Logged<String>,
    /// Where it may die.
    pub switch: Switch,
}

/// How the body of a cached function reads.
pub trait Rows: Clone + fmt::Debug + Send + Sync + 'static {
    /// A row.
    fn row(&self, key: &str) -> impl Future<Output = Result<Option<i64>, BoxError>> + Send;
}

/// A store with the rows of these tests in it.
pub trait Data: Store + Clone {
    /// Writes the rows, what is stale by them, and a row that says so.
    fn change(work: Work<'_, Self>) -> impl Future<Output = Result<(), Refused>> + Send;
}
