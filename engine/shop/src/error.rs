//! What can go wrong in the shop.

use std::fmt;
use std::sync::Arc;

use wellspring::{Fault, RegisterError};

/// Everything that can fail here. Cheap to clone and comparable, because a function of the graph may return it:
/// a failed query is then a result like any other, cached until something it depends on changes, and for a second at most.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShopError {
    /// The command line makes no sense.
    Usage(String),
    /// The data files hold something that is not a basket line or a product.
    Data(String),
    /// A file could not be read or written.
    File(Arc<str>),
    /// The database refused, or could not be reached.
    Sql(Arc<str>),
    /// The engine's part of a read failed.
    Engine(Fault),
    /// A function could not be registered.
    Register(Arc<str>),
    /// The operation log failed.
    Log(Arc<str>),
    /// A server of a cluster did not do what it should.
    Server(Arc<str>),
    /// A worker thread panicked.
    Worker(&'static str),
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => write!(f, "{text} (try --help)"),
            Self::Data(text) => write!(f, "data: {text}"),
            Self::File(text) => write!(f, "file: {text}"),
            Self::Sql(text) => write!(f, "database: {text}"),
            Self::Engine(fault) => write!(f, "engine: {fault}"),
            Self::Register(text) => write!(f, "engine: {text}"),
            Self::Log(text) => write!(f, "operation log: {text}"),
            Self::Server(text) => write!(f, "server {text}"),
            Self::Worker(who) => write!(f, "the {who} panicked"),
        }
    }
}

impl std::error::Error for ShopError {}

impl ShopError {
    /// A PostgreSQL error in words. On its own it says "db error"; what the server said is below it.
    pub(crate) fn postgres(error: &postgres::Error) -> Self {
        let below = std::error::Error::source(error).map(|below| format!(": {below}")).unwrap_or_default();
        Self::Sql(format!("{error}{below}").into())
    }

    /// A file error that names the file.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::File(format!("{}: {error}", path.display()).into())
    }
}

impl From<rusqlite::Error> for ShopError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error.to_string().into())
    }
}

impl From<postgres::Error> for ShopError {
    fn from(error: postgres::Error) -> Self {
        Self::postgres(&error)
    }
}

impl From<Fault> for ShopError {
    fn from(fault: Fault) -> Self {
        Self::Engine(fault)
    }
}

impl From<RegisterError> for ShopError {
    fn from(error: RegisterError) -> Self {
        Self::Register(error.to_string().into())
    }
}
