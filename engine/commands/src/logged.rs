//! Functions whose keys may be in the log.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use wellspring::{Batch, Engine, Handle, Key, Lookup, Value};

use crate::record::LoggedKey;

/// The functions of an engine whose keys operations may make stale on every server.
///
/// Every server of a cluster logs the same functions under the same names; one that does not have a function skips its keys, since
/// it caches none of them.
#[derive(Clone)]
pub struct LoggedFunctions(Arc<Registry>);

struct Registry {
    engine: Engine,
    functions: RwLock<HashMap<String, Arc<dyn AnyLogged>>>,
}

/// A function for the log: what [`Op::invalidate`](crate::Op::invalidate) takes.
///
/// A function that is not for the log has none of these, so that its keys cannot be given to an operation by mistake:
///
/// ```compile_fail
/// # use wellspring::{Cx, Engine};
/// # use wellspring_commands::{Op, memory::Memory};
/// # fn handler(op: &Op<Memory>, engine: &Engine) {
/// let price = engine.function("price", |_: &Cx, product: &u32| u64::from(*product)).expect("registered");
/// op.invalidate(&price, &7);
/// # }
/// ```
pub struct Logged<K> {
    name: Arc<str>,
    registry: Arc<Registry>,
    types: PhantomData<fn(K)>,
}

impl<K> Clone for Logged<K> {
    fn clone(&self) -> Logged<K> {
        Logged { name: self.name.clone(), registry: self.registry.clone(), types: PhantomData }
    }
}

impl<K> fmt::Debug for Logged<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Logged").field(&self.name).finish()
    }
}

impl fmt::Debug for LoggedFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.read().keys().cloned().collect();
        names.sort_unstable();
        f.debug_tuple("LoggedFunctions").field(&names).finish()
    }
}

/// A function that cannot be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogFunctionError {
    /// It is another engine's.
    #[error("function `{0}` is registered with another engine than the one whose functions are logged here")]
    ForeignEngine(String),
}

/// A key that cannot be made stale through the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidateError {
    /// The function is logged for another server's engine.
    #[error("function `{0}` is not logged for this server: it belongs to another engine's functions")]
    ForeignFunction(String),
    /// The key cannot be written as JSON.
    #[error("a key of `{function}` cannot be written to the log: {error}")]
    Json {
        /// The function.
        function: String,
        /// Why.
        error: serde_json::Error,
    },
    /// What was written is read back as another key, or not at all: other servers would make something else stale. A float that is
    /// not finite, a field that is skipped.
    #[error("a key of `{0}` is another one when it is read back from the log, so other servers would miss it")]
    NotItself(String),
}

impl LoggedFunctions {
    /// None of the engine's functions yet.
    pub fn new(engine: &Engine) -> LoggedFunctions {
        LoggedFunctions(Arc::new(Registry { engine: engine.clone(), functions: RwLock::default() }))
    }

    /// Takes a function into the log, under its own name. Twice is once.
    ///
    /// # Errors
    /// [`LogFunctionError::ForeignEngine`].
    pub fn log<K, V>(&self, function: &Handle<K, V>) -> Result<Logged<K>, LogFunctionError>
    where
        K: Key + Serialize + DeserializeOwned,
        V: Value,
    {
        if !function.is_of(&self.0.engine) {
            return Err(LogFunctionError::ForeignEngine(function.name().to_owned()));
        }
        let mut functions = self.0.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.insert(function.name().to_owned(), Arc::new(function.clone()));
        Ok(Logged { name: function.name().into(), registry: self.0.clone(), types: PhantomData })
    }

    /// Whether they are this engine's.
    pub(crate) fn is_of(&self, engine: &Engine) -> bool {
        self.0.engine.is_same(engine)
    }

    /// Their engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Arc<dyn AnyLogged>>> {
        self.0.functions.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the function is one of these.
    pub(crate) fn owns<K>(&self, function: &Logged<K>) -> bool {
        Arc::ptr_eq(&self.0, &function.registry)
    }

    /// Puts a logged key into a batch.
    pub(crate) fn collect(&self, batch: &mut Batch<'_>, key: &LoggedKey) -> Result<(), Unread> {
        let Some(function) = self.read().get(&key.function).cloned() else {
            // Whoever has forgotten to log a function caches its values all the same.
            return Err(if batch.invalidate_function(&key.function) { Unread::NotLogged } else { Unread::Function });
        };
        // `Deserialize`, `Hash` and `Eq` are the user's; a panic in them must not take the rest of the batch with it.
        let collected = catch_unwind(AssertUnwindSafe(|| match &key.key {
            None => {
                function.all(batch);
                Ok(())
            }
            Some(text) => function.one(batch, text).map_err(|error| error.to_string()),
        }));
        let error = match collected {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => "reading it panicked".to_owned(),
        };
        // Which key it is nobody can say, so all of them are stale: never fewer.
        function.all(batch);
        Err(Unread::Key(error))
    }
}

/// Why a logged key was not taken as it is.
pub(crate) enum Unread {
    /// No such function here.
    Function,
    /// The engine has such a function, and it is not one of these; it is stale as a whole instead.
    NotLogged,
    /// The key cannot be read; the function is stale as a whole instead.
    Key(String),
}

/// A function without its types.
trait AnyLogged: Send + Sync {
    fn one(&self, batch: &mut Batch<'_>, key: &str) -> Result<(), serde_json::Error>;
    fn all(&self, batch: &mut Batch<'_>);
}

impl<K: Key + DeserializeOwned, V: Value> AnyLogged for Handle<K, V> {
    fn one(&self, batch: &mut Batch<'_>, key: &str) -> Result<(), serde_json::Error> {
        let key: K = serde_json::from_str(key)?;
        batch.invalidate(self, &key);
        Ok(())
    }

    fn all(&self, batch: &mut Batch<'_>) {
        batch.invalidate_all(self);
    }
}

impl<K: Key + Serialize + DeserializeOwned> Logged<K> {
    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A key as it is logged: for a closure that finds out at the commit what is stale.
    ///
    /// # Errors
    /// [`InvalidateError`] if it would not come back as itself.
    pub fn key<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> Result<LoggedKey, InvalidateError> {
        let function = || self.name.as_ref().to_owned();
        let owned = key.to_key();
        let text = serde_json::to_string(&owned).map_err(|error| InvalidateError::Json { function: function(), error })?;
        match serde_json::from_str::<K>(&text) {
            Ok(back) if back == owned => Ok(LoggedKey { function: function(), key: Some(text) }),
            _ => Err(InvalidateError::NotItself(function())),
        }
    }

    /// All keys, as they are logged.
    pub fn all_keys(&self) -> LoggedKey {
        LoggedKey { function: self.name.as_ref().to_owned(), key: None }
    }
}
