//! Callbacks: one subscriber of a feed, the watch its owner holds, and how a function's value comes to be watched.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use slotmap::DefaultKey;

use crate::AsyncFunction;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::flight::drop_quietly;
use crate::handle::Function;
use crate::key::{Key, Lookup};
use crate::notify::{Job, Ran, Turn};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, fault, lock};
use crate::value::Value;

pub(crate) type Callback<V> = Box<dyn FnMut(Result<&V, &Fault>) + Send>;
pub(crate) type News<V> = Arc<Result<V, Fault>>;

/// The newest news and their number; 0 before the first.
pub(crate) struct Shelf<V>(Mutex<(u64, Option<News<V>>)>);

impl<V> Shelf<V> {
    pub(crate) fn new() -> Shelf<V> {
        Shelf(Mutex::new((0, None)))
    }

    pub(crate) fn put(&self, news: News<V>) {
        let mut shelf = lock(&self.0);
        shelf.0 += 1;
        let old = shelf.1.replace(news);
        drop(shelf);
        drop_quietly(old);
    }

    pub(crate) fn newest(&self) -> (u64, Option<News<V>>) {
        lock(&self.0).clone()
    }
}

/// One callback.
pub(crate) struct Subscriber<V> {
    pub(crate) turn: Turn,
    gone: AtomicBool,
    shelf: Arc<Shelf<V>>,
    /// Locked while it is called: its turn lets one thread in at a time, and nobody else takes the lock.
    call: Mutex<Calling<V>>,
}

struct Calling<V> {
    /// The number of the news it was called with last.
    seen: u64,
    call: Callback<V>,
}

impl<V> Subscriber<V> {
    pub(crate) fn new(shelf: Arc<Shelf<V>>, call: Callback<V>) -> Subscriber<V> {
        let call = Mutex::new(Calling { seen: 0, call });
        Subscriber { turn: Turn::new(), gone: AtomicBool::new(false), shelf, call }
    }

    /// Its watch has ended.
    pub(crate) fn leave(&self) {
        // Release: a call that begins later sees it.
        self.gone.store(true, Ordering::Release);
    }
}

impl<V: Value> Job for Subscriber<V> {
    fn turn(&self) -> &Turn {
        &self.turn
    }

    fn is_update(&self) -> bool {
        false
    }

    fn run(self: Arc<Self>) -> Ran {
        let (number, news) = self.shelf.newest();
        // Asked after the news were taken: whoever left before they were made is not called with them.
        // Acquire: pairs with the Release in `leave`, through the locks that the news have gone through since.
        if self.gone.load(Ordering::Acquire) && !fault!("call_after_unwatch") {
            return Ran::Over;
        }
        if let Some(news) = news {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let mut calling = lock(&self.call);
                if calling.seen != number {
                    calling.seen = number;
                    (calling.call)(news.as_ref().as_ref());
                }
            }));
            drop_quietly(news);
        }
        Ran::Over
    }
}

/// A feed without its types.
pub(crate) trait AnyFeed: Send + Sync {
    fn leave(&self, id: DefaultKey);
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A callback's place: see [`Function::watch`]. Dropping it ends the watch.
///
/// No call begins after that with anything that changed later; one that is under way on another thread may still finish. It waits for
/// nothing, so it may be dropped anywhere, also inside the callback.
#[must_use = "dropping it ends the watch"]
pub struct Watch {
    place: Option<(Arc<dyn AnyFeed>, DefaultKey)>,
}

impl Watch {
    pub(crate) fn new(feed: Arc<dyn AnyFeed>, id: DefaultKey) -> Watch {
        Watch { place: Some((feed, id)) }
    }

    /// Ends the watch: what dropping it does.
    pub fn unwatch(self) {}
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((feed, id)) = self.place.take() {
            feed.leave(id);
            drop_quietly(feed);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((feed, _)) => feed.describe(f),
            None => f.write_str("Watch"),
        }
    }
}

/// Why a value could not be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchError {
    /// The function is asynchronous, and the engine has nothing to run it on when nobody waits for it.
    NeedsSpawner {
        /// The function.
        function: String,
    },
    /// The function belongs to another engine.
    ForeignEngine,
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WatchError::NeedsSpawner { function } => {
                write!(f, "`{function}` is asynchronous, and watching it works in the background: give the engine a `spawner`")
            }
            WatchError::ForeignEngine => f.write_str("the function belongs to another engine"),
        }
    }
}

impl std::error::Error for WatchError {}

impl<K: Key, V: Value> Function<K, V> {
    /// Calls back with the key's value: the current one first, then each that differs from the one before.
    ///
    /// After a commit that may have changed it, a thread of the engine's verifies or recomputes the value, once for all who watch it, and
    /// calls them if it did change: never the committing thread, and never two calls of one callback at a time. A callback that is
    /// slow or stuck delays no other: it is next called with the newest value, and what came in between is skipped. Values never go
    /// back. Up to [`notify_threads`](crate::EngineBuilder::notify_threads) callbacks may be stuck at once; one that panics is called
    /// again at the next change.
    ///
    /// A fault is told once, as `Err`, and the read is tried again by the engine's clock: after 1 s at first, longer each time by the
    /// square root of two, up to 60 s. When the last [`Engine`] handle is dropped all watches end.
    ///
    /// ```
    /// # use wellspring::Engine;
    /// # let engine = Engine::new();
    /// let price = engine.source("price", |_: &u32| 100_u64)?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let watch = price.watch(&engine, &7, move |price| {
    ///     let _ = tell.send(price.cloned().ok());
    /// })?;
    /// assert_eq!(told.recv(), Ok(Some(100)));
    /// price.set(&7, 120);
    /// assert_eq!(told.recv(), Ok(Some(120)));
    /// watch.unwatch();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WatchError::ForeignEngine`].
    pub fn watch<Q: ?Sized + Lookup<K>>(
        &self,
        engine: &Engine,
        key: &Q,
        callback: impl FnMut(Result<&V, &Fault>) + Send + 'static,
    ) -> Result<Watch, WatchError> {
        self.watch_with(engine, key, None, Box::new(callback))
    }
}

impl<K: Key, V: Value> AsyncFunction<K, V> {
    /// [`Function::watch`]; the value is read on the engine's [`Spawner`](crate::Spawner), callbacks run on the engine's own threads.
    ///
    /// # Errors
    /// [`WatchError::NeedsSpawner`] if the engine was built without one; [`WatchError::ForeignEngine`].
    pub fn watch<Q: ?Sized + Lookup<K>>(
        &self,
        engine: &Engine,
        key: &Q,
        callback: impl FnMut(Result<&V, &Fault>) + Send + 'static,
    ) -> Result<Watch, WatchError> {
        let Some(spawner) = self.graph.spawner.clone() else {
            return Err(WatchError::NeedsSpawner { function: self.data.name.clone() });
        };
        self.watch_with(engine, key, Some(spawner), Box::new(callback))
    }
}
