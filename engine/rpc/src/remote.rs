//! Another process, as a client sees it.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wellspring::Fault;

use crate::arguments::ToArguments;
use crate::call_options::{CallOptions, Sent};
use crate::connecting::{self, Disconnected};
use crate::end::End;
use crate::failure::Failure;
use crate::hash::Hash;
use crate::hub::Hub;
use crate::made::{Answer, Asked, Made};
use crate::outbound::Reply;
use crate::peer::Peer;
use crate::streams::Within;
use crate::synchronize::Unconfirmed;
use crate::transport::Connector;
use crate::wire::{Arguments, ErrorInfo, Format, Head, MethodId, ReadError, System, WriteError, Writer};

/// How often a compute call is made again that was stale before it was answered.
const TRIES: u32 = 3;

/// For how long a compute call is made again that the other end has given up, so often at most; and how long after the first time.
const CANCELLED: Duration = Duration::from_secs(5);
const CANCELLED_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of the buffer of a call, in which its arguments are and then its answer: those of a small record fit without another one.
const ROOM: usize = 128;

/// A process whose methods are called. It is connected to as long as this is there, and connected to again when a connection breaks: calls go on
/// through that, each run once by a server that keeps to the protocol as ours does. Clones are the same remote.
///
/// The one of a [`Caller`](crate::Caller) is the other end of a connection that somebody else keeps.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
    options: Option<Arc<CallOptions>>,
}

struct Shared {
    peer: Arc<Peer>,
    /// What connects, if it is this that keeps the connection.
    task: Option<JoinHandle<()>>,
    /// Where values are looked into that were given out before they were known to be true, whoever drives the bodies of functions.
    runtime: Handle,
    unconfirmed: Arc<Unconfirmed>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = *self.connected().borrow();
        f.debug_struct("Remote").field("peer", &self.shared.peer).field("state", &state).finish_non_exhaustive()
    }
}

/// Whether there is a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connected {
    /// One is being made; or, of one that has called, waited for.
    Connecting,
    /// There is one.
    Yes,
    /// The last attempt has failed, or the last connection broke: another is made at that time. See [`Remote::disconnected_by`] for why.
    Again(Instant),
    /// There will be none: the other end does not speak the format, or is given up.
    Never,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The other end says so.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The result is not what was expected.
    #[error("the result cannot be read: {0}")]
    Unreadable(#[from] ReadError),
    /// The arguments cannot be sent.
    #[error("the arguments cannot be sent: {0}")]
    Unsendable(String),
    /// There is no connection, and there will be none; or the remote was dropped.
    #[error("the other end cannot be reached any more")]
    Unreachable,
    /// There was no connection in time: see [`CallOptions::connect_timeout`].
    #[error("there was no connection within {0:?}")]
    NotConnected(Duration),
    /// There was no result in time: see [`CallOptions::timeout`].
    #[error("there was no result within {0:?}")]
    TimedOut(Duration),
    /// The value was stale before it had come, each time.
    #[error("the value was stale before it had come, {TRIES} times in a row")]
    Stale,
    /// Of a [`Router`](crate::Router): the server that has the key by the routes here says that it has not.
    #[error("server `{server}` says after {tries} tries that the key is not its own: its routes are not those of this process")]
    Disowned {
        /// The server that was asked last.
        server: Arc<str>,
        /// How often it was asked since the routes here have changed for the key.
        tries: u32,
    },
    /// Of a [`Router`](crate::Router): no server has the key, and none has got it in a while.
    #[error("no server has the key")]
    Nowhere,
    /// Of a [`Router`](crate::Router): the key is this process's own, and what was called has nothing to do for those.
    #[error("the key is this process's own, and was called as another's")]
    Here,
    /// The engine here has no value for a function that reads the other end.
    #[error("the engine here: {0}")]
    Engine(#[from] Fault),
}

impl From<WriteError> for CallError {
    fn from(error: WriteError) -> CallError {
        CallError::Unsendable(error.to_string())
    }
}

/// How a remote is connected to.
#[derive(Debug)]
pub struct RemoteBuilder<C> {
    pub(crate) connector: C,
    pub(crate) format: Format,
    hub: Option<Hub>,
    options: Option<CallOptions>,
    pub(crate) backoff: (Duration, Duration),
}

impl Remote {
    /// Over a connector.
    pub fn builder<C: Connector>(connector: C) -> RemoteBuilder<C> {
        let backoff = (Duration::from_secs(1), Duration::from_secs(60));
        RemoteBuilder { connector, format: Format::Msgpack6c, hub: None, options: None, backoff }
    }

    /// The other end of a peer, whose connection is not kept by this.
    pub(crate) fn of(peer: Arc<Peer>) -> Remote {
        let shared = Shared { peer, task: None, runtime: Handle::current(), unconfirmed: Arc::default() };
        Remote { shared: Arc::new(shared), options: None }
    }

    /// The same remote, whose calls are made otherwise.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Remote {
        Remote { shared: self.shared.clone(), options: Some(Arc::new(options)) }
    }

    /// Calls a method, and waits for its result. Without a connection the call waits for one.
    ///
    /// Dropping the future gives the call up, and tells the other end.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T: DeserializeOwned>(&self, method: &MethodId, arguments: impl ToArguments) -> Result<T, CallError> {
        let written = self.written(&arguments)?;
        drop(arguments);
        let mut asked = self.asked();
        let reply = match &self.options {
            // Nobody asks what the time is.
            None => asked.ask(0, method, self.headers()?, written).await?,
            // Apart, so that those who have no limits, which are most, have no room for them either: of a thousand calls it is what fits into a cache.
            Some(_) => Box::pin(self.reply(&mut asked, Instant::now(), method, written)).await?,
        };
        match reply {
            Reply::Answer { call, arguments, .. } => self.read(call, &arguments),
            Reply::Cancelled => Err(CallError::Stale),
            Reply::Never => Err(CallError::Unreachable),
        }
    }

    /// Waits for what is called, as long as it may take, since it was first made.
    async fn in_time<T>(&self, began: Instant, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let call = pin!(call);
        match &self.options {
            None => call.await,
            Some(options) => options.limit(began, self.connected(), call).await,
        }
    }

    /// As that, where it does not matter whether there is a connection.
    pub(crate) async fn rest<T>(&self, began: Instant, does: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        match &self.options {
            None => does.await,
            Some(options) => options.connected().limit(began, self.connected(), pin!(does)).await,
        }
    }

    /// What comes of a regular call, in time. One that may have been sent does not fail for want of a connection: it waits on.
    pub(crate) async fn reply(
        &self,
        asked: &mut Asked<'_>,
        began: Instant,
        method: &MethodId,
        written: Vec<u8>,
    ) -> Result<Reply, CallError> {
        let asking = asked.ask(0, method, self.headers()?, written);
        match self.in_time(began, asking).await {
            Err(CallError::NotConnected(_)) if !asked.withdraw() => self.rest(began, async { Ok(asked.reply().await) }).await,
            reply => reply,
        }
    }

    /// What a call that is made now is sent with.
    pub(crate) fn headers(&self) -> Result<Sent, CallError> {
        Sent::of(self.options.as_deref())
    }

    /// Calls a compute method, and waits for its value, whose end the other end tells.
    ///
    /// # Errors
    /// See [`CallError`]. A failure is a value like others to the other end: see [`Remote::try_compute`].
    pub async fn compute<T: DeserializeOwned>(&self, method: &MethodId, arguments: impl ToArguments) -> Result<Replica<T>, CallError> {
        let Replica { value, end, call } = self.try_compute(method, arguments).await?;
        Ok(Replica { value: value?, end, call })
    }

    /// As [`compute`](Remote::compute): a failure of the method itself is a value, which ends too.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn try_compute<T: DeserializeOwned>(
        &self,
        method: &MethodId,
        arguments: impl ToArguments,
    ) -> Result<Replica<Result<T, Failure>>, CallError> {
        let (value, end, call) = self.subscribe(Instant::now(), method, &arguments).await?;
        let value = match value {
            Ok(value) => Ok(value),
            Err(CallError::Failed(failure)) => Err(failure),
            Err(error) => return Err(error),
        };
        Ok(Replica { value, end, call })
    }

    /// A value, or why there is none, and in either case its end.
    pub(crate) async fn subscribe<T: DeserializeOwned>(
        &self,
        began: Instant,
        method: &MethodId,
        arguments: &impl ToArguments,
    ) -> Result<(Result<T, CallError>, Arc<End>, Made), CallError> {
        let Answer { call, arguments, end, made } = self.ask(began, method, || self.written(arguments), None).await?;
        Ok((self.read(call, &arguments), end, made))
    }

    /// What comes of a compute call, with arguments that are written for each try. If the value is still the one that is known, it does not come again.
    pub(crate) async fn ask(
        &self,
        began: Instant,
        method: &MethodId,
        written: impl Fn() -> Result<Vec<u8>, CallError>,
        known: Option<Hash>,
    ) -> Result<Answer, CallError> {
        self.in_time(began, self.asking(method, written, known)).await
    }

    /// As [`ask`](Remote::ask), as long as it may take.
    pub(crate) async fn asking(
        &self,
        method: &MethodId,
        written: impl Fn() -> Result<Vec<u8>, CallError>,
        known: Option<Hash>,
    ) -> Result<Answer, CallError> {
        let (mut stale, mut cancelled, began) = (0, 0, Instant::now());
        while stale < TRIES {
            let mut asked = self.asked();
            let (call, arguments, end) = match asked.ask(1, method, self.headers()?.knowing(known.as_ref()), written()?).await? {
                Reply::Answer { call, arguments, end } => (call, arguments, end.unwrap_or_default()),
                Reply::Cancelled => {
                    stale += 1;
                    continue;
                }
                Reply::Never => return Err(CallError::Unreachable),
            };
            let failed = (call == System::Error).then(|| self.read::<()>(call, &arguments));
            let is_cancelled = matches!(failed, Some(Err(CallError::Failed(failure))) if failure.is_cancelled());
            if !is_cancelled || cancelled + 1 == TRIES || began.elapsed() >= CANCELLED {
                return Ok(Answer { call, arguments, end, made: asked.into_made(self) });
            }
            // Told that nobody waits for the end of that.
            drop(asked);
            tokio::time::sleep(CANCELLED_PAUSE * 2_u32.pow(cancelled)).await;
            cancelled += 1;
        }
        Err(CallError::Stale)
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.shared.peer
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    pub(crate) fn unconfirmed(&self) -> &Arc<Unconfirmed> {
        &self.shared.unconfirmed
    }

    /// Calls a method that is not answered. Without a connection it is not called.
    ///
    /// # Errors
    /// If the arguments cannot be written.
    pub fn tell(&self, method: &MethodId, arguments: impl ToArguments) -> Result<(), CallError> {
        let (written, headers) = (self.written(&arguments)?, self.headers()?);
        let told = self.shared.peer.out.push(&Head::call(0, 0, method).with(&headers.borrowed()), |out| {
            out.raw_all(&written);
            Ok(())
        });
        told.map(|_| ()).map_err(|error| CallError::Unsendable(error.to_string()))
    }

    /// Whether there is a connection, and when that changes.
    pub fn connected(&self) -> watch::Receiver<Connected> {
        self.shared.peer.other.connected()
    }

    /// Why there is no connection: what the last attempt failed with, or how the last connection ended. None while there is one, or none was tried yet;
    /// and of one that has called, which connects by itself.
    pub fn disconnected_by(&self) -> Option<Disconnected> {
        self.shared.peer.other.disconnected_by()
    }

    /// How many streams there are, both ways.
    pub fn open_streams(&self) -> usize {
        self.shared.peer.streams().len()
    }

    /// How many calls have no result yet, or have one whose end is waited for.
    pub fn open_calls(&self) -> usize {
        self.shared.peer.made.len()
    }

    /// A call to be made.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked::new(&self.shared.peer)
    }

    /// Ends it, whoever else has it: its calls are not answered any more.
    pub(crate) fn close(&self) {
        if let Some(task) = &self.shared.task {
            task.abort();
        }
        self.shared.peer.close();
    }

    /// Not into what goes out: what writes arguments is the user's, and may take its time or make calls.
    pub(crate) fn written(&self, arguments: &impl ToArguments) -> Result<Vec<u8>, CallError> {
        let peer = &self.shared.peer;
        let _within = Within::of(peer);
        let mut written = Vec::with_capacity(ROOM);
        arguments.to_arguments(&mut Writer::new(peer.format, &mut written))?;
        Ok(written)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, call: System, arguments: &[u8]) -> Result<T, CallError> {
        let _within = Within::of(&self.shared.peer);
        let mut arguments = Arguments::new(self.shared.peer.format, arguments);
        if call == System::Ok {
            let value = arguments.read()?;
            // What stands before it is no value then, but says of which .NET type it is.
            return if arguments.is_over() { Ok(value) } else { Err(ReadError::new("more than one value").into()) };
        }
        let ErrorInfo { type_ref, message } = arguments.read()?;
        if type_ref.is_empty() {
            let message = if message.is_empty() { "the other end does not say why".into() } else { message.into_owned() };
            return Err(Failure::typed(ErrorInfo::RPC, message).into());
        }
        Err(Failure::typed(type_ref.into_owned(), message.into_owned()).into())
    }
}

impl<C: Connector> RemoteBuilder<C> {
    /// What is spoken: `msgpack6c` if nothing is said.
    #[must_use]
    pub fn format(mut self, format: Format) -> RemoteBuilder<C> {
        self.format = format;
        self
    }

    /// What the other end may call here, and timings: nothing, and the usual ones, if nothing is said.
    #[must_use]
    pub fn hub(mut self, hub: &Hub) -> RemoteBuilder<C> {
        self.hub = Some(hub.clone());
        self
    }

    /// How its calls are made, unless [something else](Remote::with) is said: see [`CallOptions`].
    #[must_use]
    pub fn options(mut self, options: CallOptions) -> RemoteBuilder<C> {
        self.options = Some(options);
        self
    }

    /// How long to wait after a first failure and after many, give or take a quarter: 1 s and 60 s if nothing is said.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> RemoteBuilder<C> {
        self.backoff = (first, most.max(first));
        self
    }

    /// Begins to connect.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(self) -> Remote {
        let hub = self.hub.clone().unwrap_or_else(|| Hub::builder().build());
        let peer = hub.client_peer(self.format);
        let options = self.options.clone().map(Arc::new);
        // What it offers the peer has; the hub itself is not kept alive by who connects.
        let how = RemoteBuilder { hub: None, ..self };
        let task = Some(tokio::spawn(connecting::run(how, peer.clone())));
        let shared = Shared { peer, task, runtime: Handle::current(), unconfirmed: Arc::default() };
        Remote { shared: Arc::new(shared), options }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            self.peer.close();
        }
    }
}

/// A value of another process, which says when it is stale. Dropping it tells the other end that nobody waits to hear of that.
#[derive(Debug)]
pub struct Replica<T> {
    value: T,
    end: Arc<End>,
    call: Made,
}

impl<T> Replica<T> {
    pub(crate) fn new(value: T, end: Arc<End>, call: Made) -> Replica<T> {
        Replica { value, end, call }
    }

    /// The value, also when it is stale.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The value, of which nobody will hear that it is stale.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Whether the other end has said that it is stale.
    pub fn is_stale(&self) -> bool {
        self.end.has_come()
    }

    /// Waits until the other end says that it is stale, or nobody can say that any more.
    pub async fn stale(&self) {
        self.end.wait().await;
    }

    /// The number of its call, for who looks at the wire.
    pub fn call_id(&self) -> u64 {
        self.call.id()
    }
}
