//! A server being built.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tower::{BoxError, Layer, Service};
use wellspring::Engine;

use crate::apply::Applier;
use crate::backoff::Pause;
use crate::call::{Call, Reply};
use crate::command::Command;
use crate::consumer::Consumers;
use crate::event::Event;
use crate::execute::{Core, Executor, Gate, Retry};
use crate::follow::{Follower, Reads};
use crate::handler::{CommandService, HandlerError, Handlers};
use crate::id::{LogId, ServerId};
use crate::log::OperationLog;
use crate::logged::LoggedFunctions;
use crate::notice::{Notice, Notices};
use crate::op::Op;
use crate::refill::Refill;
use crate::retention::Retention;
use crate::server::{Filtered, Following, Running, Server};
use crate::store::Store;
use crate::store_error::StoreError;
use crate::wakeup::Wakeup;
use crate::work::{Delivery, EventHandlers, EventOptions, Worker};

type Filter = Box<dyn FnOnce(Filtered) -> Filtered + Send>;

/// A server being built: its handlers, its filters, its rules.
#[must_use = "nothing runs before `start`"]
pub struct Builder<S: Store> {
    engine: Engine,
    store: Arc<S>,
    functions: LoggedFunctions,
    handlers: Handlers<S>,
    failed: Option<HandlerError>,
    filters: Vec<Filter>,
    /// In place of the store's own.
    log: Option<Arc<dyn OperationLog>>,
    wakeup: Option<Arc<dyn Wakeup>>,
    notices: Notices,
    id: ServerId,
    check: Duration,
    retry: Retry,
    events: EventHandlers<S>,
    event_options: EventOptions,
    consumers: Arc<dyn Consumers>,
    retention: Retention,
    refill: Option<Refill>,
}

impl<S: Store> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("store", &self.store).field("handlers", &self.handlers).finish_non_exhaustive()
    }
}

/// A server that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// See there.
    #[error(transparent)]
    Handler(#[from] HandlerError),
    /// The functions given are another engine's.
    #[error("the functions to be logged are of another engine than the server's")]
    ForeignFunctions,
    /// The log that is to be followed is not filled from the store: it would never bring what is committed there, and places of the two
    /// cannot be compared.
    #[error("the log to be followed ({followed}) is not the store's ({store}): open it with the id of the store's log")]
    ForeignLog {
        /// Of the log given.
        followed: LogId,
        /// Of the store's own.
        store: LogId,
    },
    /// The log's end could not be read.
    #[error("the operation log cannot be read: {0}")]
    Log(#[from] StoreError),
}

impl<S: Store> Builder<S> {
    pub(crate) fn new(engine: &Engine, store: S) -> Builder<S> {
        let store = Arc::new(store);
        Builder {
            engine: engine.clone(),
            functions: LoggedFunctions::new(engine),
            handlers: Handlers::default(),
            failed: None,
            filters: Vec::new(),
            events: EventHandlers::default(),
            event_options: EventOptions::default(),
            consumers: store.consumers(),
            retention: Retention::default(),
            refill: None,
            log: None,
            wakeup: None,
            notices: Notices::default(),
            id: ServerId::random(),
            check: Duration::from_secs(1),
            retry: Retry { tries: 4, pause: Pause::new(Duration::from_millis(20), Duration::from_secs(1)) },
            store,
        }
    }

    /// The functions whose keys may be in the log.
    pub fn functions(mut self, functions: &LoggedFunctions) -> Self {
        self.functions = functions.clone();
        self
    }

    /// The handler of a command. Of two for one command the server does not start.
    pub fn handler<C, H, F>(mut self, handler: H) -> Self
    where
        C: Command,
        H: Fn(C, Op<S>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C::Output, C::Error>> + Send + 'static,
    {
        let added = self.handlers.add(handler);
        self.failed = self.failed.or(added.err());
        self
    }

    /// The handlers of a service: what `#[command]` on its `impl` block has made of its methods.
    pub fn service(mut self, service: impl CommandService<S>) -> Self {
        let added = Arc::new(service).register(&mut self.handlers);
        self.failed = self.failed.or(added.err());
        self
    }

    /// Does the events of a type, at least once each. Of two handlers of one type the server does not start.
    pub fn on_event<E, H, F>(mut self, handler: H) -> Self
    where
        E: Event,
        H: Fn(E, Delivery<S>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        if !self.events.add(handler) {
            self.failed = self.failed.or(Some(HandlerError::EventTwice(E::NAME.to_owned())));
        }
        self
    }

    /// How events are done.
    pub fn event_options(mut self, options: EventOptions) -> Self {
        self.event_options = options;
        self
    }

    /// Where named consumers keep their cursors, if not in the store: beside a log that a relay fills.
    pub fn consumers(mut self, consumers: impl Consumers) -> Self {
        self.consumers = Arc::new(consumers);
        self
    }

    /// What to compute ahead after coverage was lost and everything has become stale at once: started after a random part of `within`,
    /// so that servers which lost the same do not all fall upon the database in one moment. A later loss starts it anew.
    pub fn refill<F>(mut self, within: Duration, refill: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.refill = Some(Refill::new(within, refill));
        self
    }

    /// How long operations, results and events are kept.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// A filter around all commands: any `tower` layer. The first one given is the outermost.
    ///
    /// A filter that calls again what has failed (`tower::retry`) is safe: a call is one operation however often it is called, and
    /// with a [`CommandId`](crate::CommandId) it gets the result of the time it was done.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Filtered> + Send + 'static,
        L::Service: Service<Call, Response = Reply> + Clone + Send + Sync + 'static,
        <L::Service as Service<Call>>::Error: Into<BoxError>,
        <L::Service as Service<Call>>::Future: Send + 'static,
    {
        self.filters.push(Box::new(move |inner| {
            let service = tower::ServiceExt::map_err(layer.layer(inner), Into::into);
            Filtered::new(service)
        }));
        self
    }

    /// Another log than the store's own: one that a relay fills from it, whose own hints are to be given too.
    pub fn log(mut self, log: impl OperationLog) -> Self {
        self.log = Some(Arc::new(log));
        self
    }

    /// Hints to follow the log by, other than the store's own. With the store's own log, others are hinted this way too.
    pub fn wakeup(mut self, wakeup: impl Wakeup) -> Self {
        self.wakeup = Some(Arc::new(wakeup));
        self
    }

    /// The log that will be followed: to be wrapped.
    pub fn followed(&self) -> Arc<dyn OperationLog> {
        self.log.clone().unwrap_or_else(|| self.store.log())
    }

    /// Who hears of [`Notice`]s; `tracing` does in any case.
    pub fn on_notice(mut self, tell: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.notices = Notices::to(tell);
        self
    }

    /// Its id; a random one otherwise. No two servers may have the same.
    pub fn id(mut self, id: ServerId) -> Self {
        self.id = id;
        self
    }

    /// How often the log is read although no hint has come; a second by default, give or take a tenth. At least a millisecond.
    pub fn check_every(mut self, period: Duration) -> Self {
        self.check = period.max(Duration::from_millis(1));
        self
    }

    /// How often a command is tried when the database was in its way (4 times by default), and the waits between.
    pub fn retry(mut self, tries: u32, pause: Pause) -> Self {
        self.retry = Retry { tries: tries.max(1), pause };
        self
    }

    /// Reads the log's end, makes stale what the engine holds, and follows the log from there: what is computed from now on is kept
    /// fresh. Must be called on a tokio runtime, which the server's tasks run on.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(self) -> Result<Server<S>, StartError> {
        let Builder { engine, store, functions, handlers, failed, filters, log, wakeup, notices, id, check, retry, .. } = self;
        if let Some(failed) = failed {
            return Err(failed.into());
        }
        if !functions.is_of(&engine) {
            return Err(StartError::ForeignFunctions);
        }
        let (own_log, own) = (store.log(), store.wakeup());
        // A relay hints by itself, once what it has published can be read.
        let also = wakeup.iter().filter(|_| log.is_none()).cloned();
        let wakeups: Vec<_> = std::iter::once(own.clone()).chain(also).collect();
        let logs: Vec<_> = log.iter().cloned().chain([own_log.clone()]).collect();
        let (log, wakeup) = (log.unwrap_or_else(|| own_log.clone()), wakeup.unwrap_or_else(|| own.clone()));
        if log.id() != own_log.id() {
            return Err(StartError::ForeignLog { followed: log.id(), store: own_log.id() });
        }
        let applier = Arc::new(Applier::new(log.id(), functions.clone(), notices.clone()));
        // Before the head is read: an operation that comes between the two is heard of.
        let hints = wakeup.hints();
        let head = log.head().await?;
        applier.start(&head);
        let (nudge, reads) = (Arc::new(Notify::new()), Arc::new(Reads::default()));
        let queue = store.events();
        let executor = Arc::new(Executor {
            store: store.clone(),
            handlers: Arc::new(handlers),
            functions,
            applier: applier.clone(),
            wakeups,
            nudge: nudge.clone(),
            notices: notices.clone(),
            id,
            retry,
            retries: Default::default(),
            gate: Gate::new(),
        });
        let innermost = Filtered::new(Core(executor.clone()));
        let filtered = filters.into_iter().rev().fold(innermost, |inner, filter| filter(inner));
        let pause = Pause::new(Duration::from_millis(100), Duration::from_secs(5));
        let following =
            Following { log: log.clone(), wakeup: wakeup.clone(), consumers: self.consumers, check, pause, reads: reads.clone() };
        let closing = watch::Sender::new(false);
        let server = Server(Arc::new(Running { executor, filtered, following, closing, tasks: Default::default() }));
        let follower = Follower {
            log: log.clone(),
            applier,
            notices: notices.clone(),
            nudge,
            check,
            pause,
            reads,
            refill: self.refill,
            refilling: JoinSet::new(),
        };
        let mut tasks = vec![tokio::spawn(follower.run(head, hints)), tokio::spawn(self.retention.run(store, logs, queue.clone()))];
        if !self.events.is_empty() {
            let server = &server.0;
            let (handlers, options) = (self.events, self.event_options);
            let worker = Worker { queue, handlers, options, server: Arc::downgrade(server), notices, check };
            tasks.push(tokio::spawn(worker.run(own.hints(), server.closing.subscribe())));
        }
        *server.0.tasks.lock().await = tasks;
        Ok(server)
    }
}
