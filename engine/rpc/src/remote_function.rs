//! Functions of another process as functions of an engine here.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};

use serde::de::DeserializeOwned;
use wellspring::{AsyncFunction, Engine, Key, RegisterError};

use crate::arguments::ToArguments;
use crate::remote::{CallError, Made, Remote};
use crate::wire::MethodId;

/// A value of another process in the graph of this one, or why there is none. Clones are the same.
///
/// The other process pushes its end as long as this is cached, or a clone of it is there. What the engine has replaced or evicted is given up when it
/// is collected: after a later commit, or by [`Engine::collect`].
pub struct Remoted<V>(Arc<Inner<V>>);

struct Inner<V> {
    value: Result<V, CallError>,
    /// Given up when nobody has the value any more, which tells the other process.
    _call: Option<Made>,
}

impl<V> Remoted<V> {
    /// The value by reference, or why there is none.
    ///
    /// # Errors
    /// What the method failed with; or that the other process cannot be reached, which is not cached.
    pub fn as_result(&self) -> Result<&V, &CallError> {
        self.0.value.as_ref()
    }
}

impl<V> Deref for Remoted<V> {
    type Target = Result<V, CallError>;

    fn deref(&self) -> &Result<V, CallError> {
        &self.0.value
    }
}

impl<V> Clone for Remoted<V> {
    fn clone(&self) -> Remoted<V> {
        Remoted(self.0.clone())
    }
}

impl<V: fmt::Debug> fmt::Debug for Remoted<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remoted").field(&self.0.value).finish()
    }
}

impl Remote {
    /// Makes a compute method of the other process a function of an engine: its values are cached here, other functions can depend on them, and
    /// they are stale when the other process says so. Reading one that is cached is a lookup like any other.
    ///
    /// A key is the method's arguments, as a tuple. A read without a connection waits for one.
    ///
    /// # Errors
    /// If the engine has a function of this name.
    pub fn function<K, V>(
        &self,
        engine: &Engine,
        name: impl Into<String>,
        method: &MethodId,
    ) -> Result<AsyncFunction<K, Remoted<V>>, RegisterError>
    where
        K: Key + ToArguments,
        V: DeserializeOwned + Send + Sync + 'static,
    {
        /// The function, for what happens to its values. Its body has it, as bodies have the functions that they read: they go with the engine.
        type Own<K, V> = OnceLock<AsyncFunction<K, Remoted<V>>>;
        let own: Arc<Own<K, V>> = Arc::default();
        let (remote, method, mine) = (self.clone(), method.clone(), own.clone());
        let function = engine.async_function(name, move |_, key: K| {
            let (remote, method, mine) = (remote.clone(), method.clone(), mine.clone());
            async move {
                let stale = {
                    // Not kept by who waits for the end: the value has the call, and the call what runs at its end.
                    let (key, mine) = (key.clone(), Arc::downgrade(&mine));
                    move || {
                        if let Some(function) = Weak::upgrade(&mine).as_deref().and_then(OnceLock::get) {
                            function.invalidate(&key);
                        }
                    }
                };
                match remote.subscribe(&method, &key).await {
                    Ok((value, end, call)) => {
                        end.then(stale);
                        Remoted(Arc::new(Inner { value, _call: Some(call) }))
                    }
                    Err(error) => {
                        // Whoever asks now gets it, and whoever asks then asks again.
                        stale();
                        Remoted(Arc::new(Inner { value: Err(error), _call: None }))
                    }
                }
            }
        })?;
        // It is set once.
        let _ = own.set(function.clone());
        Ok(function)
    }
}
