//! The route that holds now, and who follows it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use super::route::{Place, Route};

/// Where keys are, which may change: what a [`Router`](crate::Router) goes by, and what a server goes by that answers for its own keys only
/// ([`Routes::owned`]). One that does both has one of these for both. Clones are the same.
///
/// Every process has its own: whoever knows the servers (a file, a registry of services, a lease in a database) [sets](Routes::set) it. Processes need
/// not change at the same time: one that is behind is told so by the server that it asks, and asks again.
pub struct Routes<K>(Arc<Shared<K>>);

struct Shared<K> {
    /// The name of this process.
    here: Option<Arc<str>>,
    route: watch::Sender<Arc<dyn Route<K>>>,
    followers: Mutex<Vec<Weak<dyn Follow>>>,
}

/// Who does something when keys have moved. It is done when [`Routes::set`] returns.
pub(super) trait Follow: Send + Sync {
    /// There is another route, which can be asked by now. Those that follow one another may be told at once, and in any order.
    fn moved(self: Arc<Self>);
}

impl<K> Clone for Routes<K> {
    fn clone(&self) -> Routes<K> {
        Routes(self.0.clone())
    }
}

impl<K> fmt::Debug for Routes<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("here", &self.0.here).finish_non_exhaustive()
    }
}

impl<K: 'static> Routes<K> {
    /// Of a process that is no server.
    pub fn new(route: impl Route<K>) -> Routes<K> {
        Routes::with(None, Arc::new(route))
    }

    /// Of the server of this name.
    pub fn of_server(here: impl Into<Arc<str>>, route: impl Route<K>) -> Routes<K> {
        Routes::with(Some(here.into()), Arc::new(route))
    }

    fn with(here: Option<Arc<str>>, route: Arc<dyn Route<K>>) -> Routes<K> {
        Routes(Arc::new(Shared { here, route: watch::Sender::new(route), followers: Mutex::default() }))
    }

    /// Another route holds from now on. When this returns, values whose keys are elsewhere now are stale, those that were got from others as well as
    /// those that this server has given out; calls under way are told, and go to the key's new server when they are polled.
    pub fn set(&self, route: impl Route<K>) {
        self.0.route.send_replace(Arc::new(route));
        let followers: Vec<Arc<dyn Follow>> = {
            let mut followers = self.0.followers.lock().unwrap_or_else(PoisonError::into_inner);
            followers.retain(|follower| follower.strong_count() > 0);
            followers.iter().filter_map(Weak::upgrade).collect()
        };
        followers.into_iter().for_each(Follow::moved);
    }

    /// The route, and its changes.
    pub fn watch(&self) -> watch::Receiver<Arc<dyn Route<K>>> {
        self.0.route.subscribe()
    }

    /// Where a key is.
    pub fn place(&self, key: &K) -> Place {
        // Not asked under the lock: it is the user's.
        let route = self.0.route.borrow().clone();
        self.0.place(&*route, key)
    }

    /// Whether a key is this process's own.
    pub fn is_here(&self, key: &K) -> bool {
        self.place(key) == Place::Here
    }

    /// Completes when a key is not at a place any more.
    pub async fn moved(&self, key: &K, from: &Place) {
        let mut changes = self.watch();
        loop {
            let route = changes.borrow_and_update().clone();
            if self.0.place(&*route, key) != *from || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether a server may have keys.
    pub(super) fn names(&self, server: &str) -> bool {
        let route = self.0.route.borrow().clone();
        route.names(server)
    }

    pub(super) fn follow(&self, follower: Weak<dyn Follow>) {
        let mut followers = self.0.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.push(follower);
    }
}

impl<K: 'static> Shared<K> {
    fn place(&self, route: &dyn Route<K>, key: &K) -> Place {
        match route.server(key) {
            Some(server) if self.here.as_ref() == Some(&server) => Place::Here,
            Some(server) => Place::At(server),
            None => Place::Nowhere,
        }
    }
}
