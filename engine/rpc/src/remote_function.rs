//! Functions of another process as functions of an engine here.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use serde::de::DeserializeOwned;
use wellspring::{AsyncFunction, Cx, Engine, Key, RegisterError};

use crate::arguments::ToArguments;
use crate::end::End;
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
    _held: Option<Box<dyn Held>>,
}

/// What a value keeps alive.
trait Held: Send + Sync {}

/// The function, for what happens to its values. Its body has it, as bodies have the functions that they read: they go with the engine.
type Own<K, V> = OnceLock<AsyncFunction<K, Remoted<V>>>;

/// The call behind a generation of a key.
struct Generation<K: Key, V: Send + Sync + 'static> {
    key: K,
    number: u64,
    latest: Arc<Latest<K>>,
    /// Not kept alive by what waits for the end: the value has the call, and the call what runs at its end.
    own: Weak<Own<K, V>>,
    end: Option<Arc<End>>,
    _call: Option<Made>,
}

/// Which generation is the last of each key.
struct Latest<K>(Mutex<(u64, HashMap<K, u64, ahash::RandomState>)>);

impl<K: Key> Latest<K> {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<K, u64, ahash::RandomState>)> {
        // A key that panics when it is compared leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, key: &K) -> u64 {
        let mut latest = self.lock();
        latest.0 += 1;
        let number = latest.0;
        latest.1.insert(key.clone(), number);
        number
    }

    fn is(&self, key: &K, number: u64) -> bool {
        self.lock().1.get(key) == Some(&number)
    }

    /// Whether it was the last.
    fn leave(&self, key: &K, number: u64) -> bool {
        let mut latest = self.lock();
        let was = latest.1.get(key) == Some(&number);
        if was {
            latest.1.remove(key);
        }
        was
    }
}

impl<K: Key, V: Send + Sync + 'static> Held for Generation<K, V> {}

impl<K: Key, V: Send + Sync + 'static> Generation<K, V> {
    fn invalidate(own: &Weak<Own<K, V>>, key: &K) {
        if let Some(function) = own.upgrade().as_deref().and_then(OnceLock::get) {
            function.invalidate(key);
        }
    }
}

impl<K: Key, V: Send + Sync + 'static> Drop for Generation<K, V> {
    /// A value that the engine gives up for room, and does not replace, is not pushed any more: what was made of it must not be taken for fresh.
    fn drop(&mut self) {
        let is_watched = self.end.as_ref().is_some_and(|end| !end.has_come());
        if self.latest.leave(&self.key, self.number) && is_watched {
            Generation::invalidate(&self.own, &self.key);
        }
    }
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
        let (remote, method) = (self.clone(), method.clone());
        following(engine, name, move |_, key: K| {
            let (remote, method) = (remote.clone(), method.clone());
            async move {
                let (value, end, call) = remote.subscribe(&method, &key).await?;
                Ok((value, end, Some(call)))
            }
        })
    }
}

/// A value, or what was failed with; its end; and what hears of that, while somebody has it.
pub(crate) type Subscribed<V> = (Result<V, CallError>, Arc<End>, Option<Made>);

/// A function of an engine here whose values come from elsewhere, each until its end.
pub(crate) fn following<K, V, S, F>(
    engine: &Engine,
    name: impl Into<String>,
    subscribe: S,
) -> Result<AsyncFunction<K, Remoted<V>>, RegisterError>
where
    K: Key,
    V: Send + Sync + 'static,
    S: Fn(Cx, K) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Subscribed<V>, CallError>> + Send + 'static,
{
    let own: Arc<Own<K, V>> = Arc::default();
    let latest: Arc<Latest<K>> = Arc::new(Latest(Mutex::default()));
    let mine = own.clone();
    let function = engine.async_function(name, move |cx, key: K| {
        let (own, latest, subscribed) = (Arc::downgrade(&mine), latest.clone(), subscribe(cx, key.clone()));
        async move {
            let number = latest.begin(&key);
            let mut generation = Generation { key, number, latest, own, end: None, _call: None };
            let error = match subscribed.await {
                Ok((Err(error @ CallError::Unreadable(_)), ..)) | Err(error) => error,
                // Given up there, again and again: that says nothing of the value.
                Ok((Err(error), ..)) if matches!(&error, CallError::Failed(failure) if failure.is_cancelled()) => error,
                Ok((value, end, call)) => {
                    let (own, latest, key) = (generation.own.clone(), generation.latest.clone(), generation.key.clone());
                    (generation.end, generation._call) = (Some(end.clone()), call);
                    end.then(move || {
                        // One that was replaced here before has a newer one in its place.
                        if latest.is(&key, number) {
                            Generation::invalidate(&own, &key);
                        }
                    });
                    return Remoted(Arc::new(Inner { value, _held: Some(Box::new(generation)) }));
                }
            };
            // Whoever asks now gets it, and whoever asks then asks again.
            Generation::invalidate(&generation.own, &generation.key);
            Remoted(Arc::new(Inner { value: Err(error), _held: None }))
        }
    })?;
    // It is set once.
    let _ = own.set(function.clone());
    Ok(function)
}
