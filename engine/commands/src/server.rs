//! A server: an engine whose values are as fresh as the operations of all servers that share its log.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, broadcast, watch};
use tokio::task::JoinHandle;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt};
use wellspring::{CommitId, Engine};

use crate::apply::{Applied, Heard};
use crate::backoff::Pause;
use crate::builder::Builder;
use crate::call::{Call, Done, Reply};
use crate::command::Command;
use crate::consume::{Consumed, Consumer, Consuming};
use crate::consumer::Consumers;
use crate::event::DeadEvent;
use crate::execute::Executor;
use crate::fault::{CommandError, CommandFault};
use crate::follow::Reads;
use crate::id::{CommandId, EventId, ServerId};
use crate::log::OperationLog;
use crate::logged::LoggedFunctions;
use crate::position::LogPosition;
use crate::store::Store;
use crate::store_error::StoreError;
use crate::wakeup::Wakeup;

pub(crate) type Filtered = BoxCloneSyncService<Call, Reply, BoxError>;

/// An engine whose values are as fresh as the operations of all servers that share its log.
///
/// Cloning it is a reference count. It follows the log until the last clone is dropped, or [`shutdown`](Server::shutdown).
pub struct Server<S: Store>(pub(crate) Arc<Running<S>>);

pub(crate) struct Running<S: Store> {
    pub(crate) executor: Arc<Executor<S>>,
    pub(crate) filtered: Filtered,
    pub(crate) following: Following,
    /// Set when no new work is to be begun.
    pub(crate) closing: watch::Sender<bool>,
    /// The follower, the removal of what is old, the event worker: in this order.
    pub(crate) tasks: AsyncMutex<Vec<JoinHandle<()>>>,
}

/// How many of the tasks are the follower and the removal of what is old.
const FOLLOWING: usize = 2;

/// The log, and how it is read.
pub(crate) struct Following {
    pub(crate) log: Arc<dyn OperationLog>,
    pub(crate) wakeup: Arc<dyn Wakeup>,
    pub(crate) consumers: Arc<dyn Consumers>,
    pub(crate) check: Duration,
    pub(crate) pause: Pause,
    pub(crate) reads: Arc<Reads>,
}

impl<S: Store> Drop for Running<S> {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl<S: Store> Clone for Server<S> {
    fn clone(&self) -> Self {
        Server(self.0.clone())
    }
}

impl<S: Store> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("id", &self.0.executor.id).field("store", &self.0.executor.store).finish_non_exhaustive()
    }
}

/// A position that cannot be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// It is of another log.
    #[error("position {position:?} is of another log than the one this server follows ({follows})")]
    ForeignLog {
        /// What was asked for.
        position: LogPosition,
        /// The log this server follows.
        follows: crate::LogId,
    },
    /// The server is shut down and does not follow its log any more.
    #[error("the server is shut down: it does not follow its log any more")]
    Closed,
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Operations of its own that it has applied before the log brought them.
    pub applied_own: u64,
    /// Operations that the log has brought: those of other servers, and own ones that it brought sooner.
    pub applied_from_log: u64,
    /// Sweeps that took.
    pub sweeps: u64,
    /// Operations that came once more.
    pub duplicates: u64,
    /// Entries, or keys of them, that could not be applied as they are.
    pub poisoned: u64,
    /// Times operations were lost before they were read.
    pub coverage_lost: u64,
    /// Readings of the log that failed.
    pub failed_reads: u64,
    /// Whether the last reading failed: values may be stale.
    pub is_blind: bool,
    /// Commands tried again.
    pub retries: u64,
}

impl<S: Store> Server<S> {
    /// A server of an engine over a database.
    pub fn builder(engine: &Engine, store: S) -> Builder<S> {
        Builder::new(engine, store)
    }

    /// Its id.
    pub fn id(&self) -> ServerId {
        self.0.executor.id
    }

    /// Its engine.
    pub fn engine(&self) -> &Engine {
        self.functions().engine()
    }

    /// Its database.
    pub fn store(&self) -> &S {
        &self.0.executor.store
    }

    /// The functions whose keys may be in its log.
    pub fn functions(&self) -> &LoggedFunctions {
        &self.0.executor.functions
    }

    /// Calls a command: await it, or name it first with [`id`](Calling::id).
    ///
    /// When it ends well, what it has changed is committed, and what is stale by it is stale on this server. Dropping the future rolls
    /// back, until the commit has begun; from then on the commit goes on whether anybody waits or not.
    pub fn call<C: Command>(&self, command: C) -> Calling<S, C> {
        Calling { server: self.clone(), call: Call::new(command), types: PhantomData }
    }

    /// Waits until an operation of any server is stale here, and returns the engine's commit from which on it is.
    ///
    /// Returns at once for one that is. The log is read now rather than at the next hint. Cancel safe.
    ///
    /// It is about this one operation. A server applies its own when it commits them, before it has heard of those that others have
    /// committed a moment earlier: who has written on two servers waits for both positions, not only for the later one.
    ///
    /// There is no limit of its own: a position that never comes (of a relay that is down, made up by a client) is waited for until the
    /// server is shut down. Put one around it.
    ///
    /// # Errors
    /// [`WaitError`]
    pub async fn wait_for(&self, position: LogPosition) -> Result<CommitId, WaitError> {
        let follows = self.0.executor.applier.log();
        if position.log != follows {
            return Err(WaitError::ForeignLog { position, follows });
        }
        self.0.executor.wait_for(position).await.ok_or(WaitError::Closed)
    }

    /// The operations applied here from now on, in the order in which they are: own ones when they are committed, which may be before the
    /// log brings one of another server's that was committed earlier. Whose order matters compares places, or consumes by a name.
    pub fn applied(&self) -> Applications {
        Applications(self.0.executor.applier.listen())
    }

    /// What it has done so far.
    pub fn stats(&self) -> ServerStats {
        let (executor, reads) = (&self.0.executor, &self.0.following.reads);
        let counters = &executor.applier.counters;
        // Relaxed (all): statistics.
        ServerStats {
            applied_own: counters.local.load(Ordering::Relaxed),
            applied_from_log: counters.foreign.load(Ordering::Relaxed),
            sweeps: counters.sweeps.load(Ordering::Relaxed),
            duplicates: counters.duplicates.load(Ordering::Relaxed),
            poisoned: counters.poisoned.load(Ordering::Relaxed),
            coverage_lost: counters.lost.load(Ordering::Relaxed),
            failed_reads: reads.failures.load(Ordering::Relaxed),
            is_blind: reads.is_failing(),
            retries: executor.retries.load(Ordering::Relaxed),
        }
    }

    /// Takes part in the log as a named consumer: `handler` gets every operation of every server, one after the other, in the same
    /// order wherever it is asked for, at least once.
    ///
    /// One consumer of a name exists anywhere at a time; this one waits for its turn. Its cursor is saved after what it stands for was
    /// handled; the first time it starts at the log's end. A handler that fails gets the same operation again after a while, and
    /// nothing else before.
    pub fn consume<H, F>(&self, name: impl Into<String>, handler: H) -> Consumer
    where
        H: Fn(Consumed) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let Following { log, wakeup, consumers, check, pause, .. } = &self.0.following;
        let (log, consumers, notices) = (log.clone(), consumers.clone(), self.0.executor.notices.clone());
        let consuming = Consuming { name: name.into(), log, consumers, notices, check: *check, pause: *pause, handler };
        Consumer(tokio::spawn(consuming.run(wakeup.hints(), self.0.closing.subscribe())))
    }

    /// Events that have failed too often, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn dead_events(&self, most: usize) -> Result<Vec<DeadEvent>, StoreError> {
        self.store().events().dead(most).await
    }

    /// Makes a dead event due again; whether there was one.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn requeue(&self, event: EventId) -> Result<bool, StoreError> {
        let found = self.store().events().requeue(event).await?;
        self.0.executor.notify();
        Ok(found)
    }

    /// Ends it: events first, then commands. None is begun any more, those that are under way are waited for, and then the log is no
    /// longer followed. Consumers end at their next point of waiting.
    ///
    /// Cancel safe: called again, or by several at once, it goes on.
    pub async fn shutdown(&self) {
        self.0.closing.send_replace(true);
        let mut tasks = self.0.tasks.lock().await;
        // Events under way call commands, and commands may wait for the follower: the last to start ends first. A handle stays where it
        // is until its task has ended, so that whoever calls next finds it.
        while tasks.len() > FOLLOWING
            && let Some(worker) = tasks.last_mut()
        {
            let _ = worker.await;
            tasks.pop();
        }
        self.0.executor.gate.close().await;
        while let Some(task) = tasks.last_mut() {
            task.abort();
            let _ = task.await;
            tasks.pop();
        }
    }
}

/// A command being called.
#[must_use = "a call does nothing until it is awaited"]
pub struct Calling<S: Store, C> {
    server: Server<S>,
    call: Call,
    types: PhantomData<fn(C)>,
}

impl<S: Store, C> fmt::Debug for Calling<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Calling").field(&self.call).finish()
    }
}

impl<S: Store, C: Command> Calling<S, C> {
    /// Names the call: a repeat of it, on any server and after a crash, gets the journaled result and does nothing.
    pub fn id(mut self, id: CommandId) -> Self {
        self.call = self.call.with_id(id);
        self
    }

    /// Gives something along for filters and handlers.
    pub fn with<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.call = self.call.with(value);
        self
    }
}

impl<S: Store, C: Command> IntoFuture for Calling<S, C> {
    type Output = Result<Done<C::Output>, CommandError<C::Error>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let reply = self.server.0.filtered.clone().oneshot(self.call).await.map_err(CommandError::sort)?;
            let Reply { value, position, commit, repeated } = reply;
            match value.downcast::<C::Output>() {
                Ok(value) => Ok(Done { value: *value, position, commit, repeated }),
                Err(_) => Err(CommandError::Fault(CommandFault::Replaced { command: C::NAME.to_owned() })),
            }
        })
    }
}

/// The operations applied on a server.
#[derive(Debug)]
pub struct Applications(broadcast::Receiver<Heard>);

/// Operations that were not given out. A named consumer misses none, and is told where the log itself has lost some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Missed {
    /// Whoever listened was too slow.
    #[error("{0} operations were applied that this listener was too slow for")]
    Slow(u64),
    /// The server itself has lost operations, and everything it held is stale.
    #[error("operations were lost before this server had read them")]
    CoverageLost,
}

impl Applications {
    /// The next one; `None` when the server is gone. Cancel safe.
    ///
    /// # Errors
    /// [`Missed`]; the next call goes on after the gap.
    pub async fn next(&mut self) -> Result<Option<Applied>, Missed> {
        match self.0.recv().await {
            Ok(Heard::Applied(applied)) => Ok(Some(applied)),
            Ok(Heard::CoverageLost) => Err(Missed::CoverageLost),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(count)) => Err(Missed::Slow(count)),
        }
    }
}
