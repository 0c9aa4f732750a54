//! The event worker: does what is due in the outbox, at least once, by one server at a time.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::{Pause, spread};
use crate::catch::caught;
use crate::event::{Claim, ClaimedEvent, Event, EventQueue};
use crate::id::{CommandId, EventId};
use crate::log::BoxFuture;
use crate::notice::{Notice, Notices};
use crate::server::{Running, Server};
use crate::store::Store;
use crate::store_error::{StoreError, StoreErrorKind};
use crate::wakeup::Hints;

type BoxError = Box<dyn Error + Send + Sync>;

/// An event being done.
pub struct Delivery<S: Store> {
    server: Server<S>,
    event: ClaimedEvent,
}

impl<S: Store> fmt::Debug for Delivery<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delivery").field(&self.event).finish()
    }
}

impl<S: Store> Delivery<S> {
    /// The event.
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// Which attempt it is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.event.attempt
    }

    /// The server that does it: for commands that follow.
    pub fn server(&self) -> &Server<S> {
        &self.server
    }

    /// An id for a command that follows from this event: an event that is done twice does the command once. `part` tells several
    /// commands of one event apart.
    pub fn command_id(&self, part: u32) -> CommandId {
        // Text of fixed length: it fits.
        CommandId::new(format!("event:{}:{part}", self.event.id)).unwrap_or_else(|_| CommandId::random())
    }
}

/// How events are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventOptions {
    /// How long another server waits for one that has gone: 30 s by default. An event under way renews its lease at a third of it.
    pub lease: Duration,
    /// After so many failures an event is dead; 5 by default.
    pub attempts: u32,
    /// The wait between attempts; 250 ms to a minute by default.
    pub pause: Pause,
    /// How many are done at once on this server; 8 by default.
    pub parallel: usize,
}

impl Default for EventOptions {
    fn default() -> Self {
        let pause = Pause::new(Duration::from_millis(250), Duration::from_secs(60));
        EventOptions { lease: Duration::from_secs(30), attempts: 5, pause, parallel: 8 }
    }
}

/// Who does which events.
pub(crate) struct EventHandlers<S: Store>(HashMap<&'static str, Arc<dyn AnyEventHandler<S>>>);

trait AnyEventHandler<S: Store>: Send + Sync {
    fn run(&self, delivery: Delivery<S>) -> BoxFuture<'static, Result<(), Failure>>;
}

/// How an event has failed.
enum Failure {
    /// It may go well another time.
    Handler(String),
    /// It cannot.
    Payload(String),
}

impl<S: Store> Default for EventHandlers<S> {
    fn default() -> Self {
        EventHandlers(HashMap::new())
    }
}

impl<S: Store> EventHandlers<S> {
    /// Whether there was none before.
    pub(crate) fn add<E, H, F>(&mut self, handler: H) -> bool
    where
        E: Event,
        H: Fn(E, Delivery<S>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.0.insert(E::NAME, Arc::new(Typed(handler, std::marker::PhantomData::<fn(E)>))).is_none()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

struct Typed<E, H>(H, std::marker::PhantomData<fn(E)>);

impl<S, E, H, F> AnyEventHandler<S> for Typed<E, H>
where
    S: Store,
    E: Event,
    H: Fn(E, Delivery<S>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    fn run(&self, delivery: Delivery<S>) -> BoxFuture<'static, Result<(), Failure>> {
        let event = match serde_json::from_str::<E>(&delivery.event.payload) {
            Ok(event) => event,
            Err(error) => {
                let failure = Failure::Payload(format!("its payload cannot be read: {error}"));
                return Box::pin(std::future::ready(Err(failure)));
            }
        };
        let future = (self.0)(event, delivery);
        Box::pin(async move { future.await.map_err(|error| Failure::Handler(error.to_string())) })
    }
}

/// Does events until it is told to close.
pub(crate) struct Worker<S: Store> {
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) handlers: EventHandlers<S>,
    pub(crate) options: EventOptions,
    pub(crate) server: Weak<Running<S>>,
    pub(crate) notices: Notices,
    pub(crate) check: Duration,
}

impl<S: Store> Worker<S> {
    /// Those under way are ended before it returns.
    pub(crate) async fn run(self, mut hints: Hints, mut closing: watch::Receiver<bool>) {
        let kinds: Vec<String> = self.handlers.0.keys().map(|&kind| kind.to_owned()).collect();
        let worker = Arc::new(self);
        let mut running = JoinSet::new();
        let mut failures = 0;
        while !*closing.borrow() {
            let free = worker.options.parallel.max(1).saturating_sub(running.len());
            let next = match free {
                0 => None,
                _ => match worker.claim(&kinds, free).await {
                    Ok((claim, asked)) => {
                        failures = 0;
                        for event in claim.events {
                            running.spawn(worker.clone().deliver(event, asked));
                        }
                        claim.next
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::warn!(target: "wellspring", %error, failures, "the outbox cannot be read");
                        Some(worker.options.pause.after(failures))
                    }
                },
            };
            // When a place is free there is room for what is due now; when none is, only an end makes some.
            let full = running.len() >= worker.options.parallel.max(1);
            let wait = next.unwrap_or(Duration::MAX).min(spread(worker.check));
            tokio::select! {
                biased;
                _ = closing.changed() => {}
                Some(_) = running.join_next(), if !running.is_empty() => {}
                () = hints.next(), if !full => {}
                () = tokio::time::sleep(wait), if !full => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Leases events, and says when they were asked for: no lease began earlier.
    async fn claim(&self, kinds: &[String], most: usize) -> Result<(Claim, Instant), StoreError> {
        let asked = Instant::now();
        let claimed = caught(|| self.queue.claim(kinds, most, self.options.lease)).await;
        let panicked = |message| Err(StoreError::with(StoreErrorKind::Other, "claiming events", format!("it panicked: {message}")));
        Ok((claimed.unwrap_or_else(panicked)?, asked))
    }

    /// Does one event, renewing its lease meanwhile.
    async fn deliver(self: Arc<Self>, event: ClaimedEvent, asked: Instant) {
        if event.attempt > self.options.attempts {
            // Nobody has said that it failed: whoever did it did not live to.
            let error = format!("its lease has run out {} times before it was done or had failed", event.attempt - 1);
            return self.conclude(&event, Err(Failure::Payload(error))).await;
        }
        let (Some(running), Some(handler)) = (self.server.upgrade(), self.handlers.0.get(event.kind.as_str())) else { return };
        let delivery = Delivery { server: Server(running), event: event.clone() };
        let handler = handler.clone();
        let done = async move {
            let panicked = |message| Err(Failure::Handler(format!("it panicked: {message}")));
            caught(move || handler.run(delivery)).await.unwrap_or_else(panicked)
        };
        match self.while_leased(&event, asked, done).await {
            Some(outcome) => self.conclude(&event, outcome).await,
            // The lease is another's: so is what becomes of the event.
            None => {
                let error = "its lease ran out before it was done; what was under way was dropped".to_owned();
                self.notices.tell(&Notice::EventFailed { event: event.id, attempt: event.attempt, error });
            }
        }
    }

    /// `None` if the lease was lost: the event is no longer ours to do, and what was under way is dropped.
    async fn while_leased(
        &self,
        event: &ClaimedEvent,
        asked: Instant,
        done: impl Future<Output = Result<(), Failure>>,
    ) -> Option<Result<(), Failure>> {
        let lease = self.options.lease;
        tokio::select! {
            biased;
            outcome = done => Some(outcome),
            () = self.keep(event, lease, asked) => None,
        }
    }

    /// Renews a lease for as long as that goes well. A lease is counted from before it was asked for, so that this server is the first to
    /// know of its end.
    async fn keep(&self, event: &ClaimedEvent, lease: Duration, mut asked: Instant) {
        let mut next = asked + lease / 3;
        loop {
            tokio::time::sleep_until(next).await;
            let began = Instant::now();
            match tokio::time::timeout_at(asked + lease, self.queue.renew(event, lease)).await {
                Ok(Ok(true)) => (asked, next) = (began, began + lease / 3),
                // It may be renewed yet, until it must have run out.
                Ok(Err(_)) if Instant::now() + lease / 10 < asked + lease => next = Instant::now() + lease / 10,
                Ok(Ok(false) | Err(_)) | Err(_) => return,
            }
        }
    }

    async fn conclude(&self, event: &ClaimedEvent, outcome: Result<(), Failure>) {
        let (error, last) = match outcome {
            Ok(()) => (None, false),
            Err(Failure::Handler(error)) => (Some(error), event.attempt >= self.options.attempts),
            Err(Failure::Payload(error)) => (Some(error), true),
        };
        let again = (!last).then(|| self.options.pause.after(event.attempt));
        let mut held = Ok(false);
        for tries in 1..=3 {
            held = match &error {
                None => self.queue.complete(event).await,
                Some(error) => self.queue.fail(event, error, again).await,
            };
            if held.is_ok() {
                break;
            }
            tokio::time::sleep(self.options.pause.after(tries)).await;
        }
        match (error, held) {
            (Some(error), Ok(true)) if last => self.notices.tell(&Notice::EventDead { event: event.id, error }),
            (Some(error), _) => self.notices.tell(&Notice::EventFailed { event: event.id, attempt: event.attempt, error }),
            (None, Err(error)) => {
                let error = format!("it was done, and that could not be written down, so it will be done again: {error}");
                self.notices.tell(&Notice::EventFailed { event: event.id, attempt: event.attempt, error });
            }
            (None, Ok(_)) => {}
        }
    }
}
