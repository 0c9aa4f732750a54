//! Who calls.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::connecting::Disconnected;
use crate::peer::Peer;
use crate::remote::{Connected, Remote};
use crate::session::Session;
use crate::trace_context::TraceContext;

/// The headers of a call that has any, by their keys.
pub(crate) type OwnedHeaders = [(Box<str>, Box<str>)];

/// What a method may know of a call: a method that takes one as the first of its arguments gets it, and the other end knows nothing of that.
///
/// ```
/// use wellspring_rpc::{Caller, Failure, Service};
///
/// let service = Service::new("IHello").method("Hello:2", |(caller, name): (Caller, String)| async move {
///     let user = caller.session::<String>().ok_or_else(|| Failure::new("nobody is logged in"))?;
///     Ok::<_, Failure>(format!("{user} says hello to {name}"))
/// });
/// ```
///
/// For methods that do not ask, nothing is made. Clones are of the same call.
///
/// What a function of an engine computes is everybody's: whatever of a caller its value depends on belongs into its key.
#[derive(Clone)]
pub struct Caller {
    pub(crate) peer: Arc<Peer>,
    pub(crate) session: Option<Session>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) headers: Option<Arc<OwnedHeaders>>,
}

impl fmt::Debug for Caller {
    /// Nothing of its session, nor of its headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("number", &self.number()).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Caller {
    /// The other end's number in this process: the same for all its calls, through all its connections, and nobody else's. It is no secret.
    pub fn number(&self) -> u64 {
        self.peer.other.number
    }

    /// As whom the other end was let in by [`HubBuilder::authenticate`](crate::HubBuilder::authenticate). None if nobody has asked it, as of a server
    /// that calls its client, or if it is of another type.
    pub fn session<S: 'static>(&self) -> Option<&S> {
        self.session.as_ref().and_then(Session::get)
    }

    /// When the body will be dropped, if it is not over: see [`MethodLimits::timeout`](crate::MethodLimits::timeout).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The trace that the call came with. Calls of the body go on with it by themselves.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// The first value of a header of the call.
    pub fn header(&self, key: &str) -> Option<&str> {
        self.headers().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All headers of the call, the protocol's own (`#`, `~p`, `~s`) among them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().flat_map(|headers| headers.iter()).map(|(key, value)| (&**key, &**value))
    }

    /// The other end, to be called back. Calls wait for it to come back while it is not connected, and fail once it is forgotten. This does not keep
    /// it connected: whoever has made the connection does.
    pub fn remote(&self) -> Remote {
        Remote::of(self.peer.clone())
    }
}

/// What is known here of the other end of a peer.
#[derive(Debug)]
pub(crate) struct OtherEnd {
    pub(crate) number: u64,
    session: Mutex<Option<Session>>,
    connected: watch::Sender<Connected>,
    disconnected_by: Mutex<Option<Disconnected>>,
    /// How many bodies run that it has called, of those that were not over at once.
    pub(crate) running: Arc<AtomicUsize>,
}

impl OtherEnd {
    pub(crate) fn new() -> OtherEnd {
        static LAST: AtomicU64 = AtomicU64::new(0);
        OtherEnd {
            // Relaxed: only that each is another one counts.
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            session: Mutex::default(),
            connected: watch::Sender::new(Connected::Connecting),
            disconnected_by: Mutex::default(),
            running: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn session(&self) -> Option<Session> {
        self.lock().clone()
    }

    /// What authentication says of it now.
    pub(crate) fn set_session(&self, session: Option<Session>) {
        let before = std::mem::replace(&mut *self.lock(), session);
        // It may be the last, and its destructor is the user's.
        drop(before);
    }

    pub(crate) fn connected(&self) -> watch::Receiver<Connected> {
        self.connected.subscribe()
    }

    /// Why the last connection is none any more, or was not made: said before that there is none.
    pub(crate) fn is_disconnected_by(&self, why: Disconnected) {
        *self.disconnected_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(crate) fn disconnected_by(&self) -> Option<Disconnected> {
        let is_connected = *self.connected.borrow() == Connected::Yes;
        let why = self.disconnected_by.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().filter(|_| !is_connected)
    }

    /// Whether there is a connection. After `Never` nothing comes.
    pub(crate) fn is_now(&self, connected: Connected) {
        self.connected.send_if_modified(|known| {
            let is_new = *known != connected && *known != Connected::Never;
            if is_new {
                *known = connected;
            }
            is_new
        });
    }
}
