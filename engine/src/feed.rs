//! Value callbacks: one feed for each watched node, shared by all who watch it.
//!
//! A feed is armed once, whatever the number of its subscribers, so a commit pays for one waker. On a mark it goes to the
//! [`Notifier`], reads its value there, and only if that has changed asks for a call of every subscriber. A subscriber takes the
//! newest value when its call begins: nothing is kept for a slow one, and nobody waits for it.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use slotmap::{DefaultKey, DenseSlotMap};

use crate::callback::{AnyFeed, Callback, News, Shelf, Subscriber, Watch, WatchError};
use crate::computed::Place;
use crate::cx::Ask;
use crate::deps::UNSTORED;
use crate::engine::{Engine, Spawner};
use crate::fault::Fault;
use crate::flight::{block_on, drop_quietly, panic_message};
use crate::follow::{Follow, Verdict};
use crate::function::FnData;
use crate::graph::Graph;
use crate::handle::Handle;
use crate::key::{Key, Lookup};
use crate::node::{Head, State};
use crate::notify::{Job, Notifier, Ran, Turn};
use crate::sync::{Arc, Mutex, Weak, lock};
use crate::timer::Sleep;
use crate::value::Value;

/// Feeds by the slot they read, so that the next watcher of the node finds its feed without a look at keys, which are the user's.
pub(crate) struct Feeds {
    pub(crate) notifier: Arc<Notifier>,
    by_slot: Mutex<HashMap<u32, Entry, ahash::RandomState>>,
}

struct Entry {
    version: u32,
    number: u64,
    feed: Weak<dyn Any + Send + Sync>,
}

impl Feeds {
    pub(crate) fn new(threads: usize) -> Feeds {
        Feeds { notifier: Arc::new(Notifier::new(threads)), by_slot: Mutex::new(HashMap::default()) }
    }

    /// The node's feed: the one that is there, or else this one from now on.
    fn enter<K: Key, V: Value>(&self, slot: u32, version: u32, feed: &Arc<Feed<K, V>>) -> Arc<Feed<K, V>> {
        let there = {
            let mut by_slot = lock(&self.by_slot);
            // What is upgraded here is dropped after the lock: it may be the last one, and a feed's end takes the lock.
            let there = by_slot.get(&slot).filter(|entry| entry.version == version).and_then(|entry| entry.feed.upgrade());
            if there.is_none() {
                let entry = Entry { version, number: feed.number, feed: Arc::<Feed<K, V>>::downgrade(feed) };
                by_slot.insert(slot, entry);
            }
            there
        };
        there.and_then(|there| there.downcast().ok()).unwrap_or_else(|| feed.clone())
    }

    fn leave(&self, slot: u32, number: u64) {
        let mut by_slot = lock(&self.by_slot);
        if by_slot.get(&slot).is_some_and(|entry| entry.number == number) {
            by_slot.remove(&slot);
        }
    }
}

/// One watched node: what its subscribers share.
struct Feed<K: Key, V: Value> {
    /// Weak: a watch that is kept longer than its engine keeps only the function's own data.
    graph: Weak<Graph>,
    data: Arc<FnData<K, V>>,
    key: K,
    /// Runs the reads of an asynchronous function.
    spawner: Option<Arc<dyn Spawner>>,
    notifier: Arc<Notifier>,
    /// Its watcher's number in the graph.
    number: u64,
    waker: Waker,
    turn: Turn,
    shelf: Arc<Shelf<V>>,
    subscribers: Mutex<Subscribers<V>>,
    /// The runner's own: locked for as long as it writes, by nobody else at that time.
    course: Mutex<Course>,
}

struct Subscribers<V> {
    all: DenseSlotMap<DefaultKey, Arc<Subscriber<V>>>,
    /// Those who came since the last read began: they are owed the value also if it is no news.
    newcomers: HashSet<DefaultKey, ahash::RandomState>,
}

#[derive(Default)]
struct Course {
    follow: Follow,
    /// Until when it waits after a fault.
    sleep: Option<Sleep>,
    /// Slot and version of the node it read last.
    home: Option<(u32, u32)>,
}

/// The waker of a feed's generation: a push, on the committing thread.
struct Bell<K: Key, V: Value>(Weak<Feed<K, V>>);

impl<K: Key, V: Value> Wake for Bell<K, V> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(feed) = self.0.upgrade() {
            feed.notifier.clone().ask(feed);
        }
    }
}

impl<K: Key, V: Value> Feed<K, V> {
    fn new(handle: &Handle<K, V>, key: K, spawner: Option<Arc<dyn Spawner>>) -> Arc<Feed<K, V>> {
        Arc::new_cyclic(|feed| Feed {
            graph: Arc::downgrade(&handle.graph),
            data: handle.data.clone(),
            key,
            spawner,
            notifier: handle.graph.feeds.notifier.clone(),
            number: handle.graph.watchers.number(),
            waker: Waker::from(Arc::new(Bell(feed.clone()))),
            turn: Turn::new(),
            shelf: Arc::new(Shelf::new()),
            subscribers: Mutex::new(Subscribers { all: DenseSlotMap::new(), newcomers: HashSet::default() }),
            course: Mutex::new(Course::default()),
        })
    }

    fn subscribe(self: Arc<Self>, call: Callback<V>) -> Watch {
        let subscriber = Arc::new(Subscriber::new(self.shelf.clone(), call));
        let id = {
            let mut subscribers = lock(&self.subscribers);
            let id = subscribers.all.insert(subscriber);
            subscribers.newcomers.insert(id);
            id
        };
        self.notifier.ask(self.clone());
        Watch::new(self, id)
    }

    /// Whether a fault's wait goes on; if so, the feed is asked again at its end.
    fn is_waiting(&self) -> bool {
        let mut course = lock(&self.course);
        let sleep = course.sleep.as_mut();
        sleep.is_some_and(|sleep| Pin::new(sleep).poll(&mut Context::from_waker(&self.waker)).is_pending())
    }

    /// What a read that began after the commit `began` brought: armed first, compared, then given out.
    fn conclude(
        self: &Arc<Self>,
        graph: &Arc<Graph>,
        got: Result<(Place, V), Fault>,
        began: u64,
        newcomers: HashSet<DefaultKey, ahash::RandomState>,
    ) -> Ran {
        let mut armed = true;
        let mut course = std::mem::take(&mut *lock(&self.course));
        course.sleep = None;
        let mut wait = None;
        let news = match got {
            Ok((place, value)) => {
                armed = self.arm(graph, place, &mut course.home);
                match course.follow.judge(graph, place, began) {
                    Verdict::News => Ok(value),
                    Verdict::Loose(delay) => {
                        (armed, wait) = (true, Some(delay));
                        Ok(value)
                    }
                    verdict => {
                        drop_quietly(value);
                        *lock(&self.course) = course;
                        if verdict == Verdict::Again {
                            lock(&self.subscribers).newcomers.extend(newcomers);
                            return Ran::Again;
                        }
                        self.call(Some(newcomers));
                        return if armed { Ran::Over } else { Ran::Again };
                    }
                }
            }
            Err(fault) => {
                // Without its engine the function will never have a value again.
                wait = (fault != Fault::Gone).then(|| course.follow.failed());
                Err(fault)
            }
        };
        course.sleep = wait.map(|delay| Sleep::new(graph.clone(), delay));
        *lock(&self.course) = course;
        // The same fault once more is no news.
        let known = |old: &News<V>| matches!((&**old, &news), (Err(old), Err(new)) if old == new);
        if self.shelf.newest().1.as_ref().is_some_and(known) {
            self.call(Some(newcomers));
        } else {
            self.shelf.put(Arc::new(news));
            self.call(None);
        }
        // Starts the wait's clock; should it be over already, the feed goes on at once.
        if wait.is_some() && !self.is_waiting() {
            Ran::Again
        } else if armed {
            Ran::Over
        } else {
            Ran::Again
        }
    }

    /// Sees to it that the generation's first mark asks for the feed; `false` if that has come already.
    fn arm(self: &Arc<Self>, graph: &Arc<Graph>, (slot, version, epoch): Place, home: &mut Option<(u32, u32)>) -> bool {
        if *home != Some((slot, version)) {
            if let Some((old, _)) = home.replace((slot, version)) {
                graph.feeds.leave(old, self.number);
            }
            // Another feed may be there, of a watcher who came after the key's old node was removed: then both read it.
            drop(graph.feeds.enter(slot, version, self));
        }
        epoch != UNSTORED && graph.watch(slot, Head::new(State::Consistent, version, epoch), self.number, &self.waker)
    }

    /// Asks for a call of those named, or of all: first decides whom, then queues them.
    fn call(&self, named: Option<HashSet<DefaultKey, ahash::RandomState>>) {
        let jobs: Vec<Arc<dyn Job>> = {
            let subscribers = lock(&self.subscribers);
            let ask = |subscriber: &Arc<Subscriber<V>>| subscriber.turn.ask().then(|| subscriber.clone() as Arc<dyn Job>);
            match named {
                Some(named) => named.into_iter().filter_map(|id| ask(subscribers.all.get(id)?)).collect(),
                // A newcomer is owed a value read after it came: the next run's.
                None => {
                    subscribers.all.iter().filter(|(id, _)| !subscribers.newcomers.contains(id)).filter_map(|(_, one)| ask(one)).collect()
                }
            }
        };
        if !jobs.is_empty() {
            self.notifier.push(jobs);
        }
    }
}

impl<K: Key, V: Value> Job for Feed<K, V> {
    fn turn(&self) -> &Turn {
        &self.turn
    }

    fn is_update(&self) -> bool {
        true
    }

    fn run(self: Arc<Self>) -> Ran {
        let Some(graph) = self.graph.upgrade() else { return Ran::Over };
        let newcomers = {
            let mut subscribers = lock(&self.subscribers);
            if subscribers.all.is_empty() {
                return Ran::Over;
            }
            std::mem::take(&mut subscribers.newcomers)
        };
        // Somebody new asks as any reader would, and waits for no fault of before.
        if newcomers.is_empty() && self.is_waiting() {
            return Ran::Over;
        }
        let began = graph.finished_commit();
        let handle = Handle { graph, data: self.data.clone() };
        let Some(spawner) = self.spawner.clone() else {
            let got = block_on(caught(&handle, handle.current(&self.key)));
            return self.conclude(&handle.graph, got, began, newcomers);
        };
        let reading = Reading { feed: self, again: false };
        let read = async move {
            let got = caught(&handle, handle.current(&reading.feed.key)).await;
            let ran = reading.feed.conclude(&handle.graph, got, began, newcomers);
            reading.end(ran);
        };
        // Whatever becomes of the future, its end is the read's.
        let _ = catch_unwind(AssertUnwindSafe(|| spawner.spawn(Box::pin(read))));
        Ran::Elsewhere
    }
}

/// A read on the user's executor; also one that is dropped there is over.
struct Reading<K: Key, V: Value> {
    feed: Arc<Feed<K, V>>,
    again: bool,
}

impl<K: Key, V: Value> Reading<K, V> {
    fn end(mut self, ran: Ran) {
        self.again = ran == Ran::Again;
    }
}

impl<K: Key, V: Value> Drop for Reading<K, V> {
    fn drop(&mut self) {
        self.feed.notifier.ended(self.feed.clone(), self.again);
    }
}

/// A read whose user code (`Hash`, `Eq`, `Clone` of keys) panics ends in a fault, as one whose body does.
async fn caught<K, V, T>(handle: &Handle<K, V>, read: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let mut read = std::pin::pin!(read);
    let poll = |cx: &mut Context<'_>| match catch_unwind(AssertUnwindSafe(|| read.as_mut().poll(cx))) {
        Ok(polled) => polled,
        Err(panic) => Poll::Ready(Err(Fault::Panicked { function: handle.data.name.clone(), message: panic_message(&*panic) })),
    };
    std::future::poll_fn(poll).await
}

impl<K: Key, V: Value> Drop for Feed<K, V> {
    fn drop(&mut self) {
        let home = lock(&self.course).home;
        if let (Some((slot, _)), Some(graph)) = (home, self.graph.upgrade()) {
            graph.feeds.leave(slot, self.number);
            graph.unwatch(slot, self.number);
        }
    }
}

impl<K: Key, V: Value> AnyFeed for Feed<K, V> {
    fn leave(&self, id: DefaultKey) {
        let gone = {
            let mut subscribers = lock(&self.subscribers);
            subscribers.newcomers.remove(&id);
            subscribers.all.remove(id)
        };
        if let Some(gone) = &gone {
            gone.leave();
        }
        drop_quietly(gone);
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("function", &self.data.name).finish_non_exhaustive()
    }
}

impl<K: Key, V: Value> Handle<K, V> {
    pub(crate) fn watch_with<Q: ?Sized + Lookup<K>>(
        &self,
        engine: &Engine,
        key: &Q,
        spawner: Option<Arc<dyn Spawner>>,
        call: Callback<V>,
    ) -> Result<Watch, WatchError> {
        if engine.asker().graph != self.graph.id {
            return Err(WatchError::ForeignEngine);
        }
        let feed = Feed::new(self, key.to_key(), spawner);
        let feed = match self.data.find_or_insert(&self.graph, self.hash(key), key) {
            Ok((slot, version)) => {
                lock(&feed.course).home = Some((slot, version));
                self.graph.feeds.enter(slot, version, &feed)
            }
            // Its reads will meet the same fault, and tell it.
            Err(_) => feed,
        };
        Ok(feed.subscribe(call))
    }
}
