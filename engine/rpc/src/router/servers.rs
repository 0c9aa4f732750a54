//! The servers that a router has a connection to, or tries to have one.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::remote::Remote;

/// By name, each from its first use on.
pub(super) struct Servers {
    connect: Box<dyn Fn(&str) -> Remote + Send + Sync>,
    all: Mutex<HashMap<Arc<str>, Arc<Server>, ahash::RandomState>>,
}

/// One of them. Whoever has a call under way there has this, so that it is not let go.
#[derive(Default)]
pub(super) struct Server {
    remote: OnceLock<Remote>,
    /// Whether somebody waits to let it go.
    pub(super) is_leaving: AtomicBool,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all().keys()).finish()
    }
}

impl Servers {
    pub(super) fn new(connect: impl Fn(&str) -> Remote + Send + Sync + 'static) -> Servers {
        Servers { connect: Box::new(connect), all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Server>, ahash::RandomState>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server of a name.
    pub(super) fn get(&self, name: &Arc<str>) -> Arc<Server> {
        self.all().entry(name.clone()).or_default().clone()
    }

    /// A server's remote. Who connects may take its time, but others wait for it only if they want the same server.
    pub(super) fn remote<'a>(&self, name: &str, server: &'a Server) -> &'a Remote {
        server.remote.get_or_init(|| (self.connect)(name))
    }

    pub(super) fn names(&self) -> Vec<(Arc<str>, Arc<Server>)> {
        self.all().iter().map(|(name, server)| (name.clone(), server.clone())).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    /// Lets a server go that nobody has a call at, nor a stream. False if somebody has. What is subscribed to there does not count: its keys are
    /// elsewhere, and it has ended.
    pub(super) fn close(&self, name: &str, server: Arc<Server>) -> bool {
        {
            let mut all = self.all();
            // One is in the map, one is ours; and who wants it gets it under this lock.
            let is_used = Arc::strong_count(&server) > 2 || server.remote.get().is_some_and(|remote| remote.open_streams() > 0);
            if is_used {
                return false;
            }
            all.remove(name);
        }
        if let Some(remote) = server.remote.get() {
            remote.close();
        }
        true
    }
}

impl Server {
    /// Whether the caller is the one that waits to let it go, from now on.
    pub(super) fn begins_to_leave(&self) -> bool {
        // Ordered by the lock that the route is behind: it is set before this is asked, and looked at after this was cleared.
        !self.is_leaving.swap(true, Ordering::SeqCst)
    }
}
