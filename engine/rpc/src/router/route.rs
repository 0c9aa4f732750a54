//! Which server has a key.

use std::fmt;
use std::sync::Arc;

/// Says which server has a key. All processes that are to agree have equal ones.
///
/// Servers have names; what they are reached by is known to who connects.
pub trait Route<K>: Send + Sync + 'static {
    /// The server that has the key. None if nobody has it: who asks waits a while for a route that says more.
    ///
    /// Equal keys have one answer, as long as the route is the same.
    fn server(&self, key: &K) -> Option<Arc<str>>;

    /// Whether the server may have keys. One that has none is let go.
    fn names(&self, server: &str) -> bool;
}

/// Where a key is, as one process sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// In this process.
    Here,
    /// At another server.
    At(Arc<str>),
    /// Nobody has it.
    Nowhere,
}

/// One server has all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Single(Arc<str>);

impl Single {
    /// This one.
    pub fn new(server: impl Into<Arc<str>>) -> Single {
        Single(server.into())
    }
}

impl<K> Route<K> for Single {
    fn server(&self, _: &K) -> Option<Arc<str>> {
        Some(self.0.clone())
    }

    fn names(&self, server: &str) -> bool {
        *self.0 == *server
    }
}

/// A closure says which of some servers has a key.
#[derive(Clone)]
pub struct By<F> {
    servers: Vec<Arc<str>>,
    choose: F,
}

impl<F> By<F> {
    /// The closure gives the number of one of the servers, in the order in which they are given here. Where there is no such number, nobody has the
    /// key.
    pub fn new<S: Into<Arc<str>>>(servers: impl IntoIterator<Item = S>, choose: F) -> By<F> {
        By { servers: servers.into_iter().map(Into::into).collect(), choose }
    }
}

impl<F> fmt::Debug for By<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("By").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl<K, F: Fn(&K) -> Option<usize> + Send + Sync + 'static> Route<K> for By<F> {
    fn server(&self, key: &K) -> Option<Arc<str>> {
        self.servers.get((self.choose)(key)?).cloned()
    }

    fn names(&self, server: &str) -> bool {
        self.servers.iter().any(|name| **name == *server)
    }
}
