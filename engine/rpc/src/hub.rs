//! What a process offers, and who is connected to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::connection;
use crate::peer::Peer;
use crate::service::{Methods, Service, ServiceError};
use crate::transport::{FrameReader, FrameWriter};
use crate::wire::{Format, Guid, Proof};

/// How long things take, or may take. The defaults are the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Until the other end has said who it is: 10 s.
    pub handshake: Duration,
    /// Between signs of life: 10 s.
    pub keep_alive: Duration,
    /// Without a sign of life of the other end, until the connection counts as broken: 25 s.
    pub silence: Duration,
    /// How long a client that is not connected is remembered: a third of the time since it was first seen, but 3 minutes at least and 15 at most.
    pub retention: (Duration, Duration),
    /// To say good-bye: 1 s.
    pub close: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            handshake: Duration::from_secs(10),
            keep_alive: Duration::from_secs(10),
            silence: Duration::from_secs(25),
            retention: (Duration::from_secs(180), Duration::from_secs(900)),
            close: Duration::from_secs(1),
        }
    }
}

/// What a process offers to others. Clones are the same hub; it lives as long as one of them, or a connection.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) id: Guid,
    pub(crate) methods: Methods,
    pub(crate) timings: Timings,
    clients: Mutex<HashMap<(Format, String), Client, ahash::RandomState>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("id", &self.id).field("methods", &self.methods).finish_non_exhaustive()
    }
}

/// A client that is remembered.
struct Client {
    peer: Arc<Peer>,
    /// Told when another connection takes over. None while there is none.
    connection: Option<watch::Sender<bool>>,
    /// The largest number that it has proved itself with.
    proved: u64,
    /// How many connections there were.
    seen: u64,
}

/// What goes into a [`Hub`].
#[derive(Debug, Default)]
pub struct HubBuilder {
    methods: Methods,
    timings: Timings,
}

impl HubBuilder {
    /// Adds a service.
    ///
    /// # Errors
    /// If a method cannot have its name.
    pub fn service(mut self, service: Service) -> Result<HubBuilder, ServiceError> {
        self.methods.add(service)?;
        Ok(self)
    }

    /// Other timings, for tests above all.
    #[must_use]
    pub fn timings(mut self, timings: Timings) -> HubBuilder {
        self.timings = timings;
        self
    }

    /// Makes it.
    pub fn build(self) -> Hub {
        let HubBuilder { methods, timings } = self;
        Hub(Arc::new(Shared { id: Guid::random(), methods, timings, clients: Mutex::default() }))
    }
}

/// Who wants to connect.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Visitor {
    /// By which a client is known again. Empty: it never is.
    pub client_id: String,
    /// What it speaks.
    pub format: Format,
    /// That it is the one that was known by this id before.
    pub proof: Option<Proof>,
}

impl Visitor {
    /// One without a proof.
    pub fn new(client_id: impl Into<String>, format: Format) -> Visitor {
        Visitor { client_id: client_id.into(), format, proof: None }
    }
}

/// A client is not the one that it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has not proved that it is the one that was connected before")]
pub struct NotProved;

impl Hub {
    /// One that offers nothing yet.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// This end of a connection that it makes itself.
    pub(crate) fn client_peer(&self, format: Format) -> Arc<Peer> {
        Arc::new(Peer::new(self.0.clone(), format, false))
    }

    /// How many calls of all clients are not over: those that run, and those whose callers wait to hear that a value is stale.
    pub fn open_calls(&self) -> usize {
        self.0.clients().values().map(|client| client.peer.open_calls()).sum()
    }

    /// How many clients are known, connected or not.
    pub fn clients(&self) -> usize {
        self.0.clients().len()
    }

    /// Looks at a visitor before anything is done for it. A number that is proved counts as used.
    ///
    /// # Errors
    /// If it is not who it says it is: then whoever has its place keeps it.
    pub fn admit(&self, visitor: &Visitor) -> Result<(), NotProved> {
        let mut clients = self.0.clients();
        // Nobody is known by an empty id.
        let Some(client) = clients.get_mut(&(visitor.format, visitor.client_id.clone())) else { return Ok(()) };
        match &visitor.proof {
            // Once proved, always to be proved.
            None if client.proved == 0 => Ok(()),
            None => Err(NotProved),
            Some(proof) => {
                let counter = client.peer.secret.check(&visitor.client_id, proof).filter(|counter| *counter > client.proved);
                client.proved = counter.ok_or(NotProved)?;
                Ok(())
            }
        }
    }

    /// Serves a visitor that was [admitted](Hub::admit), until its connection ends. One that has another connection loses that first.
    pub async fn serve<R: FrameReader, W: FrameWriter>(&self, visitor: Visitor, reader: R, writer: W) {
        let key = (visitor.format, visitor.client_id);
        let (replace, replaced) = watch::channel(false);
        let (peer, seen) = loop {
            let before = {
                let mut clients = self.0.clients();
                if key.1.is_empty() {
                    break (Arc::new(Peer::new(self.0.clone(), key.0, true)), 0);
                }
                let client = clients.entry(key.clone()).or_insert_with(|| Client {
                    peer: Arc::new(Peer::new(self.0.clone(), key.0, true)),
                    connection: None,
                    proved: 0,
                    seen: 0,
                });
                match &client.connection {
                    Some(before) => before.clone(),
                    None => {
                        client.connection = Some(replace.clone());
                        client.seen += 1;
                        break (client.peer.clone(), client.seen);
                    }
                }
            };
            before.send_replace(true);
            // The other one has ended when nobody listens.
            before.closed().await;
            tokio::task::yield_now().await;
        };
        let end = End { hub: &self.0, key: &key, peer: &peer, seen };
        connection::serve(peer.clone(), reader, writer, replaced, || {}).await;
        drop(end);
    }
}

/// A connection's end, also of one whose task is dropped.
struct End<'a> {
    hub: &'a Arc<Shared>,
    key: &'a (Format, String),
    peer: &'a Arc<Peer>,
    seen: u64,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // A task that was dropped in the middle has not said so.
        self.peer.lost([[0_u8; 0]; 0]);
        if self.key.1.is_empty() {
            return self.peer.forget_all();
        }
        if let Some(client) = self.hub.clients().get_mut(self.key) {
            client.connection = None;
        }
        let (least, most) = self.hub.timings.retention;
        let kept = (Instant::now().duration_since(self.peer.born) / 3).clamp(least, most.max(least));
        let (hub, key, seen) = (Arc::downgrade(self.hub), self.key.clone(), self.seen);
        let forget = async move {
            tokio::time::sleep(kept).await;
            let Some(hub) = hub.upgrade() else { return };
            let mut clients = hub.clients();
            if clients.get(&key).is_some_and(|client| client.connection.is_none() && client.seen == seen)
                && let Some(client) = clients.remove(&key)
            {
                drop(clients);
                client.peer.forget_all();
            }
        };
        // Without a runtime everything ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(forget);
        }
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, HashMap<(Format, String), Client, ahash::RandomState>> {
        // Every change is whole before anything that can panic.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
