//! An operation as its handler sees it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wellspring::{Key, Lookup};

use crate::call::Call;
use crate::command::Command;
use crate::draft::Draft;
use crate::event::{Duplicate, Event, NewEvent};
use crate::fault::{CommandError, CommandFault};
use crate::handler::Handlers;
use crate::id::OperationId;
use crate::items::ItemError;
use crate::logged::{InvalidateError, Logged, LoggedFunctions};
use crate::store::Store;

/// What a command changes: the user's transaction, and what goes with it.
///
/// The user's rows, the keys that are stale by them, the items and the events are one transaction: all of it is committed when the
/// handler returns `Ok`, and none of it otherwise. An operation belongs to its handler and ends with it: what the handler has started
/// must be awaited before it returns.
pub struct Op<S: Store> {
    shared: Arc<Shared<S>>,
}

/// One operation, shared by its command and those nested in it.
pub(crate) struct Shared<S: Store> {
    pub(crate) tx: S::Tx,
    pub(crate) draft: Mutex<Draft>,
    pub(crate) call: Call,
    pub(crate) handlers: Arc<Handlers<S>>,
    pub(crate) functions: LoggedFunctions,
}

impl<S: Store> Shared<S> {
    pub(crate) fn op(self: &Arc<Self>) -> Op<S> {
        Op { shared: self.clone() }
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> fmt::Debug for Op<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op").field("call", &self.shared.call).finish_non_exhaustive()
    }
}

/// An event that cannot be given out.
#[derive(Debug, thiserror::Error)]
#[error("event `{kind}` cannot be written as JSON: {error}")]
pub struct EmitError {
    kind: &'static str,
    #[source]
    error: serde_json::Error,
}

impl<S: Store> Op<S> {
    /// The transaction, in the words of the database in use.
    pub fn tx(&self) -> &S::Tx {
        &self.shared.tx
    }

    /// The operation's id: the same over every retry of the command.
    pub fn id(&self) -> OperationId {
        self.shared.call.operation
    }

    /// The outermost call, with what its caller gave along.
    pub fn call(&self) -> &Call {
        &self.shared.call
    }

    /// Records that a key is stale by this operation: on every server, once it is committed.
    ///
    /// # Errors
    /// [`InvalidateError`]: the key would not arrive as itself, or the function is another engine's.
    pub fn invalidate<K, Q>(&self, function: &Logged<K>, key: &Q) -> Result<(), InvalidateError>
    where
        K: Key + Serialize + DeserializeOwned,
        Q: ?Sized + Lookup<K>,
    {
        self.check(function)?;
        let key = function.key(key)?;
        self.shared.draft().add_key(key);
        Ok(())
    }

    /// Records that every key of a function is stale by this operation.
    ///
    /// # Errors
    /// [`InvalidateError::ForeignFunction`].
    pub fn invalidate_all<K>(&self, function: &Logged<K>) -> Result<(), InvalidateError>
    where
        K: Key + Serialize + DeserializeOwned,
    {
        self.check(function)?;
        self.shared.draft().add_key(function.all_keys());
        Ok(())
    }

    fn check<K>(&self, function: &Logged<K>) -> Result<(), InvalidateError>
    where
        K: Key + Serialize + DeserializeOwned,
    {
        match self.shared.functions.owns(function) {
            true => Ok(()),
            false => Err(InvalidateError::ForeignFunction(function.name().to_owned())),
        }
    }

    /// Gives something along to whoever listens to operations, on any server. Names are the operation's: a nested command that sets one
    /// again replaces it.
    ///
    /// # Errors
    /// [`ItemError`]; the items are as they were.
    pub fn set_item(&self, name: impl Into<String>, value: &impl Serialize) -> Result<(), ItemError> {
        self.shared.draft().items.set(name, value)
    }

    /// An item set by this command or the one it is nested in.
    ///
    /// # Errors
    /// [`ItemError::Json`] if it is of another type.
    pub fn item<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ItemError> {
        self.shared.draft().items.get(name)
    }

    /// Puts an event into the outbox: it is there if and only if the operation is committed. Options follow:
    /// `op.emit(&event).delay(..).send()?`.
    pub fn emit<E: Event>(&self, event: &E) -> Emit<'_, S> {
        let event = serde_json::to_string(event).map(|payload| NewEvent::new(E::NAME, payload));
        Emit { op: self, kind: E::NAME, event }
    }

    /// Runs another command's handler within this operation: it joins the transaction, and its keys, items and events are this
    /// operation's. Filters see only the outermost call.
    ///
    /// A nested command that fails has not been undone: return its error, unless all it did before is to stand.
    ///
    /// # Errors
    /// As [`Server::call`](crate::Server::call), except what a commit can end with.
    pub async fn nest<C: Command>(&self, command: C) -> Result<C::Output, CommandError<C::Error>> {
        let handler = self.shared.handlers.get::<C>().ok_or_else(|| no_handler(C::NAME))?;
        let value = handler.run(&command, self.shared.op()).await.map_err(CommandError::sort)?;
        // The handler is the one of `C`, whose output this is.
        value.downcast::<C::Output>().map(|value| *value).map_err(|_| no_handler(C::NAME))
    }
}

fn no_handler<E>(command: &str) -> CommandError<E> {
    CommandError::Fault(CommandFault::NoHandler { command: command.to_owned() })
}

/// An event being given out.
#[must_use = "nothing is emitted before `send`"]
pub struct Emit<'o, S: Store> {
    op: &'o Op<S>,
    kind: &'static str,
    event: Result<NewEvent, serde_json::Error>,
}

impl<S: Store> fmt::Debug for Emit<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emit").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<S: Store> Emit<'_, S> {
    fn with(mut self, change: impl FnOnce(&mut NewEvent)) -> Self {
        if let Ok(event) = &mut self.event {
            change(event);
        }
        self
    }

    /// Due this long after the commit, by the database's clock.
    pub fn delay(self, delay: Duration) -> Self {
        self.with(|event| event.delay = delay)
    }

    /// Done after all earlier events of the same partition are done or dead.
    pub fn partition(self, partition: impl Into<String>) -> Self {
        self.with(|event| event.partition = Some(partition.into()))
    }

    /// Only once in the outbox, by this key, within its type.
    pub fn once(self, key: impl Into<String>, duplicate: Duplicate) -> Self {
        self.with(|event| (event.key, event.duplicate) = (Some(key.into()), duplicate))
    }

    /// Gives it out.
    ///
    /// # Errors
    /// [`EmitError`] if it cannot be written as JSON.
    pub fn send(self) -> Result<(), EmitError> {
        let event = self.event.map_err(|error| EmitError { kind: self.kind, error })?;
        self.op.shared.draft().add_event(event);
        Ok(())
    }
}
