//! A server that answers for its own keys only.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::TryFutureExt;
use futures_util::future::{Either, ErrInto};
use wellspring::{Computed, Key, Value};

use super::route::Place;
use super::routes::{Follow, Routes};
use crate::failure::Failure;

/// Values are not looked for among fewer that are stale.
const FEW: usize = 64;

/// Guards the bodies of methods: one that is called for a key of another server is not run, and the caller hears that it has to ask that one.
///
/// ```
/// # use wellspring::Engine;
/// # use wellspring_rpc::{Failure, HashRing, Routes, Service};
/// # let engine = Engine::new();
/// # let stock = engine.source("stock", |_: &String| 0_u32)?;
/// let routes = Routes::of_server("a", HashRing::new(["a", "b", "c"]));
/// let (read, lost, write) = (stock.clone(), stock.clone(), stock.clone());
/// let get = routes.owned(|(item,): &(String,)| item.clone()).compute(
///     move |(item,)| std::future::ready(read.computed(&engine, &item)),
///     move |(item,)| _ = lost.invalidate(item),
/// );
/// let set = routes.owned(|(item, _): &(String, u32)| item.clone()).entry(move |(item, count)| {
///     write.set(&item, count);
///     async { Ok::<_, Failure>(()) }
/// });
/// let service = Service::new("IStock").compute("Get:2", get).method("Set:3", set);
/// # Ok::<(), wellspring::RegisterError>(())
/// ```
pub struct Owned<K, A>(Arc<Of<K, A>>);

/// Whether arguments are of this process's keys.
struct Of<K, A> {
    routes: Routes<K>,
    by: Box<dyn Fn(&A) -> K + Send + Sync>,
}

/// A guarded body: not run, or run.
pub type Entered<T, F> = Either<Ready<Result<T, Failure>>, ErrInto<F, Failure>>;

/// A guarded body whose key is looked at again.
pub type Guarded<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

impl<K, A> Clone for Owned<K, A> {
    fn clone(&self) -> Owned<K, A> {
        Owned(self.0.clone())
    }
}

impl<K, A> fmt::Debug for Owned<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("routes", &self.0.routes).finish_non_exhaustive()
    }
}

impl<K: Send + Sync + 'static> Routes<K> {
    /// Guards methods: the closure says which key arguments belong to.
    pub fn owned<A>(&self, by: impl Fn(&A) -> K + Send + Sync + 'static) -> Owned<K, A> {
        Owned(Arc::new(Of { routes: self.clone(), by: Box::new(by) }))
    }
}

impl<K: 'static, A> Of<K, A> {
    fn is_here(&self, arguments: &A) -> bool {
        self.routes.is_here(&(self.by)(arguments))
    }
}

impl<K: Send + Sync + 'static, A: Send + 'static> Owned<K, A> {
    /// A body that is not begun for another server's key. One that was begun goes on, whatever moves.
    pub fn entry<T, E, F>(&self, run: impl Fn(A) -> F + Send + Sync + 'static) -> impl Fn(A) -> Entered<T, F> + Send + Sync + 'static
    where
        E: Into<Failure>,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let of = self.0.clone();
        move |arguments| match of.is_here(&arguments) {
            true => Either::Right(run(arguments).err_into()),
            false => Either::Left(ready(Err(Failure::reroute()))),
        }
    }

    /// A body that is dropped when its key moves to another server: then the caller asks that one, whatever was done before.
    pub fn throughout<T, E, F>(&self, run: impl Fn(A) -> F + Send + Sync + 'static) -> impl Fn(A) -> Guarded<T> + Send + Sync + 'static
    where
        T: Send + 'static,
        E: Into<Failure>,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let of = self.0.clone();
        move |arguments| {
            let (routes, key) = (of.routes.clone(), (of.by)(&arguments));
            if !routes.is_here(&key) {
                return Box::pin(ready(Err(Failure::reroute())));
            }
            let running = run(arguments);
            Box::pin(async move {
                tokio::select! {
                    biased;
                    done = running => done.map_err(Into::into),
                    () = routes.moved(&key, &Place::Here) => Err(Failure::reroute()),
                }
            })
        }
    }

    /// A body that gives values out. Those whose keys move to another server are to be made stale by the second closure, by invalidating the function
    /// that they are of, so that whoever has subscribed to them asks the new server.
    pub fn compute<V, E, F>(
        &self,
        run: impl Fn(A) -> F + Send + Sync + 'static,
        lost: impl Fn(&A) + Send + Sync + 'static,
    ) -> impl Fn(A) -> Guarded<Computed<V>> + Send + Sync + 'static
    where
        A: Key,
        V: Value,
        E: Into<Failure>,
        F: Future<Output = Result<Computed<V>, E>> + Send + 'static,
    {
        let given = Arc::new(Given { of: self.0.clone(), lost, state: Mutex::new((FEW, HashMap::default())) });
        let follower: Weak<Given<K, A, V, _>> = Arc::downgrade(&given);
        self.0.routes.follow(follower);
        move |arguments| {
            if !given.of.is_here(&arguments) {
                return Box::pin(ready(Err(Failure::reroute())));
            }
            let (given, computing) = (given.clone(), run(arguments.clone()));
            Box::pin(async move {
                let computed = computing.await.map_err(Into::into)?;
                given.give(&arguments, &computed)?;
                Ok(computed)
            })
        }
    }
}

type Values<A, V> = HashMap<A, Computed<V>, ahash::RandomState>;

/// What was given out and is not stale, and how many there may be until it is seen what is stale.
struct Given<K, A, V, L> {
    of: Arc<Of<K, A>>,
    lost: L,
    state: Mutex<(usize, Values<A, V>)>,
}

impl<K, A, V, L> Given<K, A, V, L>
where
    K: Send + Sync + 'static,
    A: Key,
    V: Value,
    L: Fn(&A) + Send + Sync + 'static,
{
    fn state(&self) -> MutexGuard<'_, (usize, Values<A, V>)> {
        // A key that panics when it is compared leaves the map whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value is given out, unless its key is elsewhere by now.
    fn give(&self, arguments: &A, computed: &Computed<V>) -> Result<(), Failure> {
        {
            let mut state = self.state();
            let (most, values) = &mut *state;
            if values.len() >= *most {
                values.retain(|_, computed| computed.is_consistent());
                *most = FEW.max(2 * values.len());
            }
            values.insert(arguments.clone(), computed.clone());
        }
        // After it can be found by who sets another route: one of the two sees the other.
        if self.of.is_here(arguments) {
            return Ok(());
        }
        self.lose(arguments);
        Err(Failure::reroute())
    }

    fn lose(&self, arguments: &A) {
        self.state().1.remove(arguments);
        (self.lost)(arguments);
    }
}

impl<K, A, V, L> Follow for Given<K, A, V, L>
where
    K: Send + Sync + 'static,
    A: Key,
    V: Value,
    L: Fn(&A) + Send + Sync + 'static,
{
    fn moved(self: Arc<Self>) {
        let all: Vec<A> = self.state().1.keys().cloned().collect();
        // Routes, and what makes a value stale, are the user's: nothing is locked.
        all.iter().filter(|arguments| !self.of.is_here(arguments)).for_each(|arguments| self.lose(arguments));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use wellspring::Engine;

    use super::super::route::{By, Single};
    use super::*;

    #[tokio::test]
    async fn what_was_given_out_is_kept_only_while_it_holds_and_lost_once() {
        let engine = Engine::new();
        let numbers = engine.source("number", |_: &(u32,)| 0_u32).expect("registered");
        let routes = Routes::<u32>::of_server("a", Single::new("a"));
        let owned = routes.owned(|(key,): &(u32,)| *key);
        let lost = Arc::<AtomicUsize>::default();
        let (read, counted) = (numbers.clone(), lost.clone());
        let given = Arc::new(Given {
            of: owned.0.clone(),
            lost: move |_: &(u32,)| _ = counted.fetch_add(1, Ordering::SeqCst),
            state: Mutex::new((FEW, HashMap::default())),
        });
        let follower: Weak<Given<_, _, _, _>> = Arc::downgrade(&given);
        routes.follow(follower);
        for key in 0..10_000 {
            given.give(&(key,), &read.computed(&engine, &(key,)).expect("a value")).expect("here");
            if key >= 10 {
                numbers.set(&(key,), 1);
            }
        }
        assert!(given.state().1.len() <= FEW);
        routes.set(By::new(["a", "b"], |key: &u32| Some(usize::from(*key < 5))));
        assert_eq!(lost.load(Ordering::SeqCst), 5);
        routes.set(Single::new("a"));
        routes.set(By::new(["a", "b"], |key: &u32| Some(usize::from(*key < 7))));
        assert_eq!(lost.load(Ordering::SeqCst), 7, "what was lost before is not lost again");
        let failed = given.give(&(0,), &read.computed(&engine, &(0,)).expect("a value"));
        assert!(failed.is_err_and(|failure| failure.is_reroute()), "its key has moved while it was computed");
    }
}
