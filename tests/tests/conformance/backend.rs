//! A backend as the suite sees it.

use std::future::Future;

use wellspring_commands::{Builder, Op, Store};

use crate::cluster::Refused;

/// A database, its log, and a table of texts in it.
pub(crate) trait Backend: Send + Sync + Sized + 'static {
    type Store: Store + Clone;

    /// Whether rows, the log and the events are all there at once when a commit is: not so where a relay comes between.
    const RELAYED: bool = false;

    /// An empty one; `None` if its server is not there.
    fn create() -> impl Future<Output = Option<Self>> + Send;

    /// As another process would open it.
    fn open(&self) -> impl Future<Output = Self::Store> + Send;

    /// Lets a server follow the log, if that is not the store's own.
    fn follow(&self, builder: Builder<Self::Store>) -> impl Future<Output = Builder<Self::Store>> + Send {
        std::future::ready(builder)
    }

    /// Writes a row in the operation.
    fn put(op: &Op<Self::Store>, key: String, value: String) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Reads a row.
    fn get(store: &Self::Store, key: &str) -> impl Future<Output = Option<String>> + Send;

    /// Appends an entry with this body to the log, as another program could.
    fn append_raw(&self, body: &str) -> impl Future<Output = ()> + Send;

    /// Trims the log to nothing.
    fn trim(&self) -> impl Future<Output = ()> + Send;

    /// Removes it.
    fn end(self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}
