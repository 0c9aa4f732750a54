//! The event worker: does what is due in the outbox, at least once, by one server at a time.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backoff::{Pause, spread};
use crate::event::{ClaimedEvent, Event, EventQueue};
use crate::handler::panic_message;
use crate::id::{CommandId, EventId};
use crate::log::BoxFuture;
use crate::notice::{Notice, Notices};
use crate::server::{Running, Server};
use crate::store::Store;
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
                _ => match worker.queue.claim(&kinds, free, worker.options.lease).await {
                    Ok(claim) => {
                        failures = 0;
                        for event in claim.events {
                            running.spawn(worker.clone().deliver(event));
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

    /// Does one event, renewing its lease meanwhile.
    async fn deliver(self: Arc<Self>, event: ClaimedEvent) {
        let (Some(running), Some(handler)) = (self.server.upgrade(), self.handlers.0.get(event.kind.as_str())) else { return };
        let delivery = Delivery { server: Server(running), event: event.clone() };
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| handler.run(delivery)));
        let outcome = match made {
            Ok(future) => self.while_leased(&event, future).await,
            Err(panic) => Some(Err(Failure::Handler(format!("it panicked: {}", panic_message(&*panic))))),
        };
        // The lease is another's: so is what becomes of the event.
        let Some(outcome) = outcome else { return };
        self.conclude(&event, outcome).await;
    }

    /// `None` if the lease was lost: the event is no longer ours to do, and what was under way is dropped.
    async fn while_leased(&self, event: &ClaimedEvent, future: BoxFuture<'static, Result<(), Failure>>) -> Option<Result<(), Failure>> {
        let mut future = pin!(future);
        let mut caught = std::future::poll_fn(move |cx| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(panic) => Poll::Ready(Err(Failure::Handler(format!("it panicked: {}", panic_message(&*panic))))),
        });
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                outcome = &mut caught => return Some(outcome),
                () = tokio::time::sleep(self.options.lease / 3) => match self.queue.renew(event, self.options.lease).await {
                    Ok(true) => renewed = tokio::time::Instant::now(),
                    Ok(false) => return None,
                    // It may be renewed yet, until it must have run out.
                    Err(_) if renewed.elapsed() < self.options.lease => {}
                    Err(_) => return None,
                },
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
