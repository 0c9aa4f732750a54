//! Which handler does which command.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::catch::caught;
use crate::command::Command;
use crate::fault::CommandFault;
use crate::log::BoxFuture;
use crate::op::Op;
use crate::store::Store;

type BoxError = Box<dyn Error + Send + Sync>;
type Ran = Result<Box<dyn Any + Send>, BoxError>;

/// A service whose methods are handlers: what `#[command]` implements.
pub trait CommandService<S: Store>: Send + Sync + 'static {
    /// Registers them.
    fn register(self: Arc<Self>, handlers: &mut Handlers<S>) -> Result<(), HandlerError>;
}

/// A handler that cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// The type has one, or another type of this name has.
    #[error("command `{0}` has a handler already; a command is done by one")]
    Twice(String),
    /// The type of event has one.
    #[error("event `{0}` has a handler already; what several are to do is several events")]
    EventTwice(String),
}

/// The handlers of a server, by the type of their command.
pub struct Handlers<S: Store>(HashMap<TypeId, Arc<dyn AnyHandler<S>>>);

impl<S: Store> Default for Handlers<S> {
    fn default() -> Self {
        Handlers(HashMap::new())
    }
}

impl<S: Store> fmt::Debug for Handlers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.0.values().map(|handler| handler.name()).collect();
        names.sort_unstable();
        f.debug_tuple("Handlers").field(&names).finish()
    }
}

impl<S: Store> Handlers<S> {
    /// Adds the handler of a command.
    ///
    /// # Errors
    /// [`HandlerError::Twice`].
    pub fn add<C, H, F>(&mut self, handler: H) -> Result<(), HandlerError>
    where
        C: Command,
        H: Fn(C, Op<S>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C::Output, C::Error>> + Send + 'static,
    {
        if self.0.values().any(|other| other.name() == C::NAME) {
            return Err(HandlerError::Twice(C::NAME.to_owned()));
        }
        self.0.insert(TypeId::of::<C>(), Arc::new(Typed { run: Arc::new(handler), types: PhantomData::<fn(C)> }));
        Ok(())
    }

    pub(crate) fn get<C: Command>(&self) -> Option<&Arc<dyn AnyHandler<S>>> {
        self.of(TypeId::of::<C>())
    }

    pub(crate) fn of(&self, kind: TypeId) -> Option<&Arc<dyn AnyHandler<S>>> {
        self.0.get(&kind)
    }
}

/// A handler without its types.
pub(crate) trait AnyHandler<S: Store>: Send + Sync {
    fn name(&self) -> &'static str;
    /// Runs it. The command is of its type: they are found by it.
    fn run(&self, command: &dyn Any, op: Op<S>) -> BoxFuture<'static, Ran>;
    fn command_json(&self, command: &dyn Any) -> Result<String, CommandFault>;
    fn result_json(&self, result: &dyn Any) -> Result<String, CommandFault>;
    fn result_of(&self, json: &str) -> Result<Box<dyn Any + Send>, CommandFault>;
}

struct Typed<C, H> {
    run: Arc<H>,
    types: PhantomData<fn(C)>,
}

impl<C: Command, H> Typed<C, H> {
    fn json<T>(what: &'static str, json: Result<T, serde_json::Error>) -> Result<T, CommandFault> {
        json.map_err(|error| CommandFault::Json { command: C::NAME.to_owned(), what, error })
    }

    fn mistaken<T>() -> Result<T, CommandFault> {
        Err(CommandFault::NoHandler { command: C::NAME.to_owned() })
    }
}

impl<S, C, H, F> AnyHandler<S> for Typed<C, H>
where
    S: Store,
    C: Command,
    H: Fn(C, Op<S>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<C::Output, C::Error>> + Send + 'static,
{
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn run(&self, command: &dyn Any, op: Op<S>) -> BoxFuture<'static, Ran> {
        let Some(command) = command.downcast_ref::<C>() else {
            return Box::pin(std::future::ready(Self::mistaken().map_err(Into::into)));
        };
        let command = command.clone();
        let run = self.run.clone();
        Box::pin(async move {
            match caught(move || run(command, op)).await {
                Ok(Ok(value)) => Ok(Box::new(value) as Box<dyn Any + Send>),
                Ok(Err(error)) => Err(error.into()),
                Err(message) => Err(CommandFault::Panicked { command: C::NAME.to_owned(), message }.into()),
            }
        })
    }

    fn command_json(&self, command: &dyn Any) -> Result<String, CommandFault> {
        match command.downcast_ref::<C>() {
            // By way of a value, whose maps are in order: a hash map is the same command whichever order it is in.
            Some(command) => Self::json("the command", serde_json::to_value(command).map(|value| value.to_string())),
            None => Self::mistaken(),
        }
    }

    fn result_json(&self, result: &dyn Any) -> Result<String, CommandFault> {
        match result.downcast_ref::<C::Output>() {
            Some(result) => Self::json("its result", serde_json::to_string(result)),
            None => Self::mistaken(),
        }
    }

    fn result_of(&self, json: &str) -> Result<Box<dyn Any + Send>, CommandFault> {
        Self::json("its journaled result", serde_json::from_str::<C::Output>(json)).map(|result| Box::new(result) as Box<dyn Any + Send>)
    }
}
