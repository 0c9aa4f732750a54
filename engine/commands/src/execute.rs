//! A call, from the last filter to the committed operation.
//!
//! Until the commit begins, all of it is the caller's future: dropping it rolls back. From then on it is a task of its own, which
//! ends whether anybody waits for it or not, and makes the result stale here before it tells anyone.

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tower::Service;
use wellspring::CommitId;

use crate::apply::Applier;
use crate::backoff::Pause;
use crate::call::{Call, Reply};
use crate::catch::caught;
use crate::draft::Draft;
use crate::fault::CommandFault;
use crate::handler::{AnyHandler, Handlers};
use crate::id::{CommandId, ServerId};
use crate::journal::{JournalEntry, NewJournalEntry};
use crate::logged::LoggedFunctions;
use crate::notice::{Notice, Notices};
use crate::op::Shared;
use crate::position::LogPosition;
use crate::record::Body;
use crate::store::{CommitError, Doubt, Store, Verdict};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::wakeup::Wakeup;

type BoxError = Box<dyn Error + Send + Sync>;

/// How a command is tried again when the database was in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) tries: u32,
    pub(crate) pause: Pause,
}

/// How a commit in doubt is found out.
const VERIFY_TRIES: u32 = 12;
const VERIFY_PAUSE: Pause = Pause::new(Duration::from_millis(50), Duration::from_secs(1));
const VERIFY_LIMIT: Duration = Duration::from_secs(3);

/// What executing needs.
#[derive(Debug)]
pub(crate) struct Executor<S: Store> {
    pub(crate) store: Arc<S>,
    pub(crate) handlers: Arc<Handlers<S>>,
    pub(crate) functions: LoggedFunctions,
    pub(crate) applier: Arc<Applier>,
    /// Who is hinted at a commit.
    pub(crate) wakeups: Vec<Arc<dyn Wakeup>>,
    /// Makes the follower read now.
    pub(crate) nudge: Arc<tokio::sync::Notify>,
    pub(crate) notices: Notices,
    pub(crate) id: ServerId,
    pub(crate) retry: Retry,
    pub(crate) retries: AtomicU64,
    /// Calls and commits under way; closed by the shutdown.
    pub(crate) gate: Gate,
}

/// Counts the calls and commits under way, and closes.
#[derive(Debug)]
pub(crate) struct Gate(watch::Sender<(usize, bool)>);

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate(watch::Sender::new((0, false)))
    }

    /// A place inside for a call, unless it is closed.
    fn enter<S: Store>(executor: &Arc<Executor<S>>) -> Option<Inside<S>> {
        let mut entered = false;
        executor.gate.0.send_modify(|(count, closed)| {
            entered = !*closed;
            *count += usize::from(entered);
        });
        entered.then(|| Inside(executor.clone()))
    }

    /// Lets nothing in any more, and waits for what is.
    pub(crate) async fn close(&self) {
        self.0.send_modify(|(_, closed)| *closed = true);
        let mut now = self.0.subscribe();
        // The sender is here: it cannot be gone.
        let _ = now.wait_for(|(count, _)| *count == 0).await;
    }

    /// Ready once it is closed.
    async fn closed(&self) {
        let mut now = self.0.subscribe();
        let _ = now.wait_for(|(_, closed)| *closed).await;
    }
}

/// A place inside the gate.
struct Inside<S: Store>(Arc<Executor<S>>);

impl<S: Store> Inside<S> {
    /// One more for what a call has begun and may outlive it, closed or not.
    fn another(&self) -> Inside<S> {
        self.0.gate.0.send_modify(|(count, _)| *count += 1);
        Inside(self.0.clone())
    }
}

impl<S: Store> Drop for Inside<S> {
    fn drop(&mut self) {
        self.0.gate.0.send_modify(|(count, _)| *count -= 1);
    }
}

/// The innermost service, below all filters.
#[derive(Debug)]
pub(crate) struct Core<S: Store>(pub(crate) Arc<Executor<S>>);

impl<S: Store> Clone for Core<S> {
    fn clone(&self) -> Self {
        Core(self.0.clone())
    }
}

impl<S: Store> Service<Call> for Core<S> {
    type Response = Reply;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.0.clone().execute(call))
    }
}

/// What a try came to.
enum Tried {
    Done(Reply),
    /// A command with this id was committed meanwhile.
    Repeated,
}

/// What is journaled of a call that has a name.
struct Journaling<'c, S: Store> {
    id: &'c CommandId,
    handler: &'c Arc<dyn AnyHandler<S>>,
    digest: u128,
}

impl<S: Store> Executor<S> {
    async fn execute(self: Arc<Self>, call: Call) -> Result<Reply, BoxError> {
        let name = call.name;
        let inside = Gate::enter(&self).ok_or_else(|| CommandFault::Closed { command: name.to_owned() })?;
        let handler = self.handlers.of(call.kind).cloned().ok_or_else(|| CommandFault::NoHandler { command: name.to_owned() })?;
        let journaling = match &call.id {
            None => None,
            Some(id) => {
                let json = handler.command_json(&*call.command)?;
                Some(Journaling { id, handler: &handler, digest: xxhash_rust::xxh3::xxh3_128(json.as_bytes()) })
            }
        };
        if let Some(journaling) = &journaling
            && let Some(reply) = self.journaled(journaling).await.map_err(|error| not_looked_up(name, error))?
        {
            return Ok(reply);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match inside.attempt(&call, journaling.as_ref(), &handler).await {
                Ok(Tried::Done(reply)) => return Ok(reply),
                Ok(Tried::Repeated) => {
                    // It is done: what cannot be looked up now is in doubt, and not "not done".
                    let in_doubt = |unread| match unread {
                        Unread::Store(error) => CommandFault::InDoubt { command: name.to_owned(), operation: call.operation, error },
                        Unread::Fault(fault) => fault,
                    };
                    let again = match &journaling {
                        Some(journaling) => self.journaled(journaling).await.map_err(in_doubt)?,
                        None => None,
                    };
                    return again.ok_or_else(|| CommandFault::AlreadyDone { command: name.to_owned() }.into());
                }
                Err(error) if tries < self.retry.tries && self.is_transient(&*error) => {
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(target: "wellspring", command = name, tries, %error, "tried again");
                    tokio::time::sleep(self.retry.pause.after(tries)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing was committed and the same again may be.
    fn is_transient(&self, error: &(dyn Error + Send + Sync + 'static)) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            // What another call has come to is final: it may be done, or may have been.
            if let Some(fault) = error.downcast_ref::<CommandFault>() {
                return matches!(fault, CommandFault::Store { error, .. } if error.is_transient());
            }
            let store_error = error.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient);
            if store_error || self.store.is_transient(error) {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// The result of an earlier call with the same id, stale here by the time it is returned.
    async fn journaled(&self, journaling: &Journaling<'_, S>) -> Result<Option<Reply>, Unread> {
        let (name, id) = (journaling.handler.name(), journaling.id);
        let Some(JournalEntry { command, digest, result, position }) = self.look_up(id).await.map_err(Unread::Store)? else {
            return Ok(None);
        };
        if command != name || digest != journaling.digest {
            return Err(Unread::Fault(CommandFault::IdReused { id: id.to_string(), journaled: command }));
        }
        let value = journaling.handler.result_of(&result).map_err(Unread::Fault)?;
        if position.log != self.applier.log() {
            // Of a log that this database was restored from: whatever is cached here was computed later.
            return Ok(Some(Reply { value, position, commit: self.functions.engine().commit(), repeated: true }));
        }
        match self.wait_for(position).await {
            Some(commit) => Ok(Some(Reply { value, position, commit, repeated: true })),
            None => Err(Unread::Fault(CommandFault::Closed { command: name.to_owned() })),
        }
    }

    async fn look_up(&self, id: &CommandId) -> Result<Option<JournalEntry>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.store.journaled(id).await {
                Err(error) if error.is_transient() && tries < self.retry.tries => {
                    tokio::time::sleep(self.retry.pause.after(tries)).await;
                }
                found => return found,
            }
        }
    }

    /// Waits until the operation is applied here; `None` if the server is shut down before.
    pub(crate) async fn wait_for(&self, position: LogPosition) -> Option<CommitId> {
        let mut moves = self.applier.moves();
        // One reading that begins now; what comes later comes by hints and checks.
        let mut nudged = false;
        loop {
            if let Some(commit) = self.applier.applied(position) {
                return Some(commit);
            }
            if !std::mem::replace(&mut nudged, true) {
                self.nudge.notify_one();
            }
            tokio::select! {
                biased;
                // The sender is the applier's.
                _ = moves.changed() => {}
                () = self.gate.closed() => return self.applier.applied(position),
            }
        }
    }
}

impl<S: Store> Inside<S> {
    async fn attempt(
        &self,
        call: &Call,
        journaling: Option<&Journaling<'_, S>>,
        handler: &Arc<dyn AnyHandler<S>>,
    ) -> Result<Tried, BoxError> {
        let name = call.name;
        let executor = &self.0;
        let tx = executor.store.begin().await.map_err(|error| failed(name, error))?;
        let shared = Arc::new(Shared {
            tx,
            draft: Mutex::new(Draft::new(call.operation, executor.id, name)),
            call: call.clone(),
            handlers: executor.handlers.clone(),
            functions: executor.functions.clone(),
        });
        let value = handler.run(&*call.command, shared.op()).await?;
        let Ok(shared) = Arc::try_unwrap(shared) else {
            return Err(CommandFault::Escaped { command: name.to_owned() }.into());
        };
        let mut draft = shared.draft.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&Journaling { id, digest, .. }) = journaling {
            let result = handler.result_json(&*value)?;
            draft.journal = Some(NewJournalEntry { id: id.clone(), command: name.to_owned(), digest, result });
        }
        self.commit(shared.tx, draft, value).await
    }

    /// The commit and what follows from it, on a task of its own.
    async fn commit(&self, tx: S::Tx, draft: Draft, value: Box<dyn Any + Send>) -> Result<Tried, BoxError> {
        let (name, inside) = (draft.command.clone(), self.another());
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let operation = draft.operation;
            let outcome = inside.0.commit_now(tx, draft).await;
            if let Err(outcome) = tell.send(outcome) {
                let outcome = match outcome {
                    Ok(Some(_)) => "was committed".to_owned(),
                    Ok(None) => "had been committed before".to_owned(),
                    Err(error) => error.to_string(),
                };
                inside.0.notices.tell(&Notice::Abandoned { operation, outcome });
            }
        });
        match told.await {
            Ok(Ok(Some((position, commit)))) => Ok(Tried::Done(Reply { value, position, commit, repeated: false })),
            Ok(Ok(None)) => Ok(Tried::Repeated),
            Ok(Err(error)) => Err(error),
            // The runtime is going down, and the task with it.
            Err(_) => Err(CommandFault::Closed { command: name }.into()),
        }
    }
}

impl<S: Store> Executor<S> {
    /// `None`: repeated.
    async fn commit_now(&self, tx: S::Tx, draft: Draft) -> Result<Option<(LogPosition, CommitId)>, BoxError> {
        let (name, operation) = (draft.command.clone(), draft.operation);
        let (command, items) = (name.clone(), draft.items.clone());
        let committing = caught(|| self.store.commit(tx, draft)).await.unwrap_or_else(|message| {
            // Nobody can say how far it came.
            let error = StoreError::with(StoreErrorKind::Other, "committing", format!("the store panicked: {message}"));
            Err(CommitError::Unknown(error))
        });
        let (position, keys) = match committing {
            Ok(committed) => (committed.position, committed.keys),
            Err(CommitError::Failed(error)) => return Err(failed(&name, error).into()),
            Err(CommitError::Refused(error)) => return Err(error),
            Err(CommitError::Repeated) => return Ok(None),
            Err(CommitError::Unknown(error)) => return Err(CommandFault::InDoubt { command: name, operation, error }.into()),
            Err(CommitError::InDoubt { error, doubt }) => {
                self.find_out(&name, error, &doubt).await?;
                (doubt.position, doubt.keys)
            }
        };
        // Stale here first, then told to others: a caller that has the result reads its own write.
        let commit = self.applier.apply_own(LogPosition { operation, ..position }, self.id, Body { command, keys, items });
        self.notify();
        Ok(Some((position, commit)))
    }

    /// Tells others that there is something new in the store.
    pub(crate) fn notify(&self) {
        for wakeup in &self.wakeups {
            // A hint that cannot be given is one that is lost: what it is about is committed.
            let _ = catch_unwind(AssertUnwindSafe(|| wakeup.notify()));
        }
    }

    /// Finds out what became of a commit; `Ok` if it has happened.
    async fn find_out(&self, name: &str, error: StoreError, doubt: &Doubt) -> Result<(), BoxError> {
        let operation = doubt.position.operation;
        let tell = |outcome| self.notices.tell(&Notice::InDoubt { operation, outcome });
        let mut last = error;
        for tries in 1..=VERIFY_TRIES {
            match tokio::time::timeout(VERIFY_LIMIT, self.store.verify(doubt)).await {
                Ok(Ok(Verdict::Committed)) => {
                    tell("it was committed");
                    return Ok(());
                }
                Ok(Ok(Verdict::RolledBack)) => {
                    tell("it was not committed");
                    return Err(failed(name, StoreError::with(StoreErrorKind::Unavailable, "committing", last)).into());
                }
                Ok(Ok(Verdict::Running)) | Err(_) => {}
                Ok(Err(error)) => last = error,
            }
            tokio::time::sleep(VERIFY_PAUSE.after(tries)).await;
        }
        tell("it could not be found out; the log will tell");
        Err(CommandFault::InDoubt { command: name.to_owned(), operation, error: last }.into())
    }
}

fn failed(command: &str, error: StoreError) -> CommandFault {
    CommandFault::Store { command: command.to_owned(), error }
}

/// Why a journaled result cannot be given out.
enum Unread {
    Store(StoreError),
    Fault(CommandFault),
}

/// Before anything was done.
fn not_looked_up(command: &str, unread: Unread) -> CommandFault {
    match unread {
        Unread::Store(error) => failed(command, error),
        Unread::Fault(fault) => fault,
    }
}
