//! What a process offers, and who is connected to it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::request::Parts;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::calling::Authorize;
use crate::caps::{Caps, Room, Seat};
use crate::connection;
use crate::failure::Failure;
use crate::method_limits::MethodLimits;
use crate::peer::Peer;
use crate::service::{Methods, Service, ServiceError};
use crate::session::{Authenticate, Refusal, Session};
use crate::transport::{Close, FrameReader, FrameWriter};
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

struct Shared {
    offer: Arc<Offer>,
    room: Arc<Room>,
    clients: Mutex<Clients>,
}

/// By what they speak, and the id that they say; those that came in where backends do apart from all others, who cannot take their place.
type Clients = HashMap<Key, Client, ahash::RandomState>;
type Key = (bool, Format, String);

/// What every connection needs of a hub. Apart from the clients, each of which has it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) id: Guid,
    pub(crate) methods: Methods,
    pub(crate) timings: Timings,
    /// Calls that one client may have open.
    pub(crate) subscriptions: usize,
    pub(crate) rules: Rules,
}

/// Who may connect, and what may be called.
#[derive(Debug)]
pub(crate) struct Rules {
    authenticate: Option<Authenticate>,
    pub(crate) authorize: Option<Authorize>,
    /// Bodies that one client may have running at once.
    pub(crate) at_once: usize,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { authenticate: None, authorize: None, at_once: AT_ONCE }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("offer", &self.offer).finish_non_exhaustive()
    }
}

/// A client that is remembered.
struct Client {
    peer: Arc<Peer>,
    /// Told when another connection takes over. None while there is none.
    connection: Option<watch::Sender<bool>>,
    /// The largest number that it has proved itself with.
    proved: u64,
    /// Whether it was somebody else before, whose secret it may still have.
    is_another: bool,
    /// How many have asked for its place: only the last gets it.
    asked: u64,
    /// Ends it after a while without a connection.
    forgetting: Option<AbortHandle>,
}

impl Client {
    fn new(peer: Arc<Peer>) -> Client {
        Client { peer, connection: None, proved: 0, is_another: false, asked: 0, forgetting: None }
    }
}

/// What goes into a [`Hub`].
#[derive(Debug, Default)]
pub struct HubBuilder {
    methods: Methods,
    timings: Timings,
    subscriptions: Option<usize>,
    caps: Caps,
    rules: Rules,
    limits: Option<MethodLimits>,
}

/// How many subscriptions a client may have if nothing is said.
const SUBSCRIPTIONS: usize = 1 << 20;

/// How many bodies a client may have running if nothing is said: more than the hundred thousand values that one may well ask for in one breath.
const AT_ONCE: usize = 1 << 18;

impl HubBuilder {
    /// Adds a service.
    ///
    /// # Errors
    /// If a method cannot have its name.
    pub fn service(mut self, service: Service) -> Result<HubBuilder, ServiceError> {
        self.methods.add(service, false)?;
        Ok(self)
    }

    /// Adds a service for other servers: its methods are there only for connections that came in by a [listener for
    /// backends](crate::Listener::backend) or [its route](crate::web::backend_router). For all others there are no such methods.
    ///
    /// # Errors
    /// If a method cannot have its name.
    pub fn backend_service(mut self, service: Service) -> Result<HubBuilder, ServiceError> {
        self.methods.add(service, true)?;
        Ok(self)
    }

    /// How many may be connected.
    #[must_use]
    pub fn caps(mut self, caps: Caps) -> HubBuilder {
        self.caps = caps;
        self
    }

    /// Other timings, for tests above all.
    #[must_use]
    pub fn timings(mut self, timings: Timings) -> HubBuilder {
        self.timings = timings;
        self
    }

    /// How many values one client may wait to hear the ends of: 1,048,576 if nothing is said. One that asks for more hears that an eighth of them, those
    /// that it has had for longest, are stale, whether they are or not.
    #[must_use]
    pub fn subscriptions(mut self, most: usize) -> HubBuilder {
        self.subscriptions = Some(most);
        self
    }

    /// Finds out at each connection who a client is, from what is known of the [visitor](Visitor): the session that its methods see by
    /// [`Caller::session`], or why it is not let in. It may take as long as a handshake.
    ///
    /// Sessions that are equal are the same identity. A client that comes back with an equal one goes on where it was, with the new one. One that
    /// comes back with another is somebody else: calls of before are cancelled, and nothing that they came to is given out.
    #[must_use]
    pub fn authenticate<S, F, U>(mut self, authenticate: F) -> HubBuilder
    where
        S: Eq + Send + Sync + 'static,
        F: Fn(Visitor) -> U + Send + Sync + 'static,
        U: Future<Output = Result<S, Refusal>> + Send + 'static,
    {
        self.rules.authenticate = Some(Authenticate::new(authenticate));
        self
    }

    /// Says of each call whether it may be made, from who makes it and the method's full name, before its arguments are read. It is not asked
    /// about what the protocol itself calls. It runs where calls are read, so it must not take long.
    #[must_use]
    pub fn authorize(mut self, authorize: impl Fn(&Caller, &str) -> Result<(), Failure> + Send + Sync + 'static) -> HubBuilder {
        self.rules.authorize = Some(Authorize::new(authorize));
        self
    }

    /// What calls of a method may take, for methods that [say nothing themselves](Service::limits).
    #[must_use]
    pub fn limits(mut self, limits: MethodLimits) -> HubBuilder {
        self.limits = Some(limits);
        self
    }

    /// How many bodies one client may have running at once, of those that were not over at once: while there are so many its calls fail, before they
    /// are begun. 262,144 if nothing is said.
    #[must_use]
    pub fn at_once(mut self, most: usize) -> HubBuilder {
        self.rules.at_once = most;
        self
    }

    /// Makes it.
    pub fn build(self) -> Hub {
        let HubBuilder { mut methods, timings, caps, subscriptions, rules, limits } = self;
        if let Some(limits) = limits {
            methods.limit(limits);
        }
        let offer = Offer { id: Guid::random(), methods, timings, subscriptions: subscriptions.unwrap_or(SUBSCRIPTIONS), rules };
        Hub(Arc::new(Shared { offer: Arc::new(offer), room: Room::new(caps), clients: Mutex::default() }))
    }
}

/// Who wants to connect.
#[derive(Clone)]
#[non_exhaustive]
pub struct Visitor {
    /// By which a client is known again, in at most [`Visitor::LONGEST`] bytes. Empty, or longer: it never is.
    pub client_id: String,
    /// What it speaks.
    pub format: Format,
    /// That it is the one that was known by this id before.
    pub proof: Option<Proof>,
    /// Whether it has come in where backends do. Whoever listens says so, never the visitor.
    pub backend: bool,
    /// Where it comes from, as far as that is known.
    pub address: Option<SocketAddr>,
    /// The HTTP request that it has come by, with all that layers in front have put into its extensions. None if it has come otherwise.
    pub request: Option<Box<Parts>>,
    /// As whom it was let in.
    session: Option<Session>,
}

impl fmt::Debug for Visitor {
    /// Without the id, by which somebody else could take its place, and without its request, which may have secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Visitor { format, proof, backend, .. } = self;
        f.debug_struct("Visitor").field("format", format).field("proof", proof).field("backend", backend).finish_non_exhaustive()
    }
}

impl Visitor {
    /// Bytes of an id by which a client can be known.
    pub const LONGEST: usize = 128;

    /// One without a proof.
    pub fn new(client_id: impl Into<String>, format: Format) -> Visitor {
        Visitor { client_id: client_id.into(), format, proof: None, backend: false, address: None, request: None, session: None }
    }
}

impl Hub {
    /// One that offers nothing yet.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// A seat for whoever comes from there, if there is room.
    pub(crate) fn seat(&self, from: Option<IpAddr>) -> Option<Seat> {
        self.0.room.seat(from)
    }

    pub(crate) fn timings(&self) -> &Timings {
        &self.0.offer.timings
    }

    /// This end of a connection that it makes itself.
    pub(crate) fn client_peer(&self, format: Format) -> Arc<Peer> {
        Arc::new(Peer::new(self.0.offer.clone(), format, false))
    }

    /// This end of a connection that a client makes.
    fn server_peer(&self, format: Format, backend: bool, session: Option<Session>) -> Arc<Peer> {
        let peer = Peer::new(self.0.offer.clone(), format, true).for_backend(backend);
        peer.other.set_session(session);
        Arc::new(peer)
    }

    /// Whoever has a client's place now was let in as this: it is the one that was there before, or somebody else by the same id, who gets a peer that
    /// knows nothing of that.
    fn meet(&self, key: &Key, peer: Arc<Peer>, session: Option<Session>) -> Arc<Peer> {
        // Not under the lock, as it is the user's who says so. Nobody else changes the peer of a client that has a connection.
        if Session::is_same(peer.other.session().as_ref(), session.as_ref()) {
            peer.other.set_session(session);
            return peer;
        }
        let other = self.server_peer(key.1, key.0, session);
        if let Some(client) = self.0.clients().get_mut(key) {
            client.peer = other.clone();
            // By the secret of the one before.
            (client.proved, client.is_another) = (0, true);
        }
        peer.close();
        other
    }

    /// How many calls of all clients that are known by an id are not over: those that run, and those whose callers wait to hear that a value is
    /// stale.
    pub fn open_calls(&self) -> usize {
        self.0.clients().values().map(|client| client.peer.open_calls()).sum()
    }

    /// How many streams there are, both ways, of all clients that are known by an id.
    pub fn open_streams(&self) -> usize {
        self.0.clients().values().map(|client| client.peer.streams().len()).sum()
    }

    /// How many clients are known by an id, connected or not.
    pub fn clients(&self) -> usize {
        self.0.clients().len()
    }

    /// Looks at a visitor before anything is done for it: who it is, see [`HubBuilder::authenticate`], and whether it is the one that it says it was
    /// before. A number that is proved counts as used. Its request is not needed any more, and taken away.
    ///
    /// # Errors
    /// If it may not come in, or is not who it says it is: then whoever has its place keeps it.
    pub async fn admit(&self, visitor: &mut Visitor) -> Result<(), Refusal> {
        let Offer { rules, timings, .. } = &*self.0.offer;
        if let Some(authenticate) = &rules.authenticate {
            visitor.session = Some(authenticate.ask(visitor.clone(), timings.handshake).await?);
        }
        visitor.request = None;
        self.prove(visitor)
    }

    fn prove(&self, visitor: &mut Visitor) -> Result<(), Refusal> {
        let mut clients = self.0.clients();
        // Nobody is known by an empty id.
        let Some(client) = clients.get_mut(&(visitor.backend, visitor.format, visitor.client_id.clone())) else { return Ok(()) };
        match &visitor.proof {
            // Once proved, always to be proved.
            None if client.proved == 0 => Ok(()),
            None => Err(Refusal::not_proved()),
            Some(proof) => {
                let counter = client.peer.secret.check(&visitor.client_id, proof).filter(|counter| *counter > client.proved);
                match counter {
                    Some(counter) => client.proved = counter,
                    // It may not have heard that it is somebody else now, and by what to prove that.
                    None if client.is_another && client.proved == 0 => visitor.proof = None,
                    None => return Err(Refusal::not_proved()),
                }
                Ok(())
            }
        }
    }

    /// Serves a visitor that was [admitted](Hub::admit), until its connection ends. One that has another connection loses that first; if others ask
    /// for its place meanwhile, the last one gets it. One that was not admitted to a hub that authenticates is turned away.
    pub async fn serve<R: FrameReader, W: FrameWriter>(&self, visitor: Visitor, reader: R, mut writer: W) {
        let Visitor { client_id, format, proof, backend, session, .. } = visitor;
        if self.0.offer.rules.authenticate.is_some() && session.is_none() {
            connection::close(&mut writer, Close::POLICY, &self.0.offer.timings).await;
            return;
        }
        if client_id.is_empty() || client_id.len() > Visitor::LONGEST {
            let peer = self.server_peer(format, backend, session);
            let (_keep, replaced) = watch::channel(false);
            let _end = Private(&peer);
            connection::serve(peer.clone(), reader, writer, replaced, || {}).await;
            return;
        }
        let key = (backend, format, client_id);
        let (replace, replaced) = watch::channel(false);
        let mut asked = None;
        let peer = loop {
            let before = {
                let mut clients = self.0.clients();
                let client = clients.entry(key.clone()).or_insert_with(|| Client::new(self.server_peer(format, backend, session.clone())));
                let mine = *asked.get_or_insert_with(|| {
                    client.asked += 1;
                    client.asked
                });
                // It may be another client by now, of whom nobody else has asked yet.
                client.asked = client.asked.max(mine);
                match &client.connection {
                    // It may have been proved meanwhile that this is somebody else.
                    _ if client.asked > mine || (proof.is_none() && client.proved > 0) => None,
                    Some(before) => Some(before.clone()),
                    None => {
                        client.connection = Some(replace);
                        if let Some(forgetting) = client.forgetting.take() {
                            forgetting.abort();
                        }
                        break client.peer.clone();
                    }
                }
            };
            let Some(before) = before else {
                connection::close(&mut writer, Close::NORMAL, &self.0.offer.timings).await;
                return;
            };
            before.send_replace(true);
            // The other one has ended when nobody listens, see `Place`.
            before.closed().await;
        };
        // Given up whatever happens, also to what is the user's in meeting it.
        let mut place = Place { hub: &self.0, key: &key, peer, _listens: replaced.clone() };
        place.peer = self.meet(&key, place.peer.clone(), session);
        connection::serve(place.peer.clone(), reader, writer, replaced, || {}).await;
        drop(place);
    }
}

/// The end of a connection of a client that is never known again.
struct Private<'a>(&'a Arc<Peer>);

impl Drop for Private<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A connection's place, given up at its end, also if its task is dropped.
struct Place<'a> {
    hub: &'a Arc<Shared>,
    key: &'a Key,
    peer: Arc<Peer>,
    /// Dropped after the place was given up: whoever waits for that finds it free.
    _listens: watch::Receiver<bool>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // A task that was dropped in the middle has not said so.
        self.peer.lost([[0_u8; 0]; 0]);
        let (least, most) = self.hub.offer.timings.retention;
        let kept = (Instant::now().duration_since(self.peer.born) / 3).clamp(least, most.max(least));
        let mut clients = self.hub.clients();
        let too_many = clients.len() > self.hub.room.caps().clients;
        let Some(client) = clients.get_mut(self.key) else { return };
        client.connection = None;
        let runtime = tokio::runtime::Handle::try_current();
        // Who never said who it is has nothing to come back to.
        if let (true, Ok(runtime)) = (self.peer.has_met() && !too_many, runtime) {
            let (hub, key) = (Arc::downgrade(self.hub), self.key.clone());
            let forget = async move {
                tokio::time::sleep(kept).await;
                if let Some(hub) = hub.upgrade() {
                    hub.forget(&key);
                }
            };
            client.forgetting = Some(runtime.spawn(forget).abort_handle());
        } else {
            clients.remove(self.key);
            drop(clients);
            self.peer.close();
        }
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        // Every change is whole before anything that can panic.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, key: &Key) {
        let mut clients = self.clients();
        if clients.get(key).is_some_and(|client| client.connection.is_none())
            && let Some(client) = clients.remove(key)
        {
            drop(clients);
            client.peer.close();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for client in self.clients().values() {
            client.peer.close();
        }
    }
}
