//! What a client knows of another process when it starts: the results of before, kept by whoever keeps bytes by keys.
//!
//! What is written goes into a queue that a thread empties, many changes at once: a reader waits for no disk but that of its own read, and of what it
//! reads the queue comes first. A queue that is full forgets what comes: what is kept then is older, which its first reader is told like everything else.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;

use crate::hash::Hash;
use crate::wire::{Format, MethodId};

/// How long more is waited for before changes are written.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes that wait above which they are written at once, and above which nothing is added.
const MUCH: usize = 1 << 20;
const MOST: usize = 16 << 20;
/// Bytes of a result that is not kept.
const LARGE: usize = 1 << 20;
/// Before the hash and the result. Another one is of another version of this, and not read.
const LAYOUT: u8 = 1;

/// Keeps bytes by keys for a [`Cache`], through restarts or not. One process at a time uses it.
///
/// What it loses or mixes up does no harm beyond a value that is asked for again: whatever it gives is compared with what the other process has.
pub trait ClientCache: fmt::Debug + Send + Sync + 'static {
    /// What is kept under a key. Called by readers, so it should not take longer than a read of a file.
    ///
    /// # Errors
    /// If it cannot be known. Nothing is asked of it any more then.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError>;

    /// Makes changes, all or none. Called by one thread at a time.
    ///
    /// # Errors
    /// If they cannot be made. Nothing is asked of it any more then.
    fn write(&self, changes: &[Change]) -> Result<(), CacheError>;

    /// Forgets everything. What is written meanwhile may stay or not.
    ///
    /// # Errors
    /// If it cannot.
    fn clear(&self) -> Result<(), CacheError>;
}

/// A change of what a [`ClientCache`] keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// Under which key.
    pub key: Arc<[u8]>,
    /// What is kept from now on, or nothing.
    pub value: Option<Arc<[u8]>>,
}

impl fmt::Debug for Change {
    /// Without what is in it, which may be anybody's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_ref().map(|value| value.len());
        f.debug_struct("Change").field("key_bytes", &self.key.len()).field("value_bytes", &value).finish()
    }
}

/// Why a [`ClientCache`] cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Another process uses it, or another part of this one.
    #[error("{} is in use by another process: give each its own", .0.display())]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is there was not written by this, or not as it is now.
    #[error("{} is not a cache, or damaged: {why}", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// Any other reason.
    #[error("{0}")]
    Other(String),
}

/// Results of another process's methods, kept for the next start: see [`RemoteDefine::cache`](crate::RemoteDefine::cache). Clones are the same; what is
/// not written yet when the last one is dropped is written then.
///
/// What is kept is not encrypted, and has what the user of this process may see: give each user another one, or another name.
#[derive(Clone)]
pub struct Cache {
    writer: Arc<Writer>,
    /// The name of the other process, and the version of what it says.
    scope: Arc<[u8]>,
    version: Arc<str>,
}

/// The thread that writes, and its end.
struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Queue {
    store: Box<dyn ClientCache>,
    state: Mutex<State>,
    /// For the thread: there is something to be done, or to be done now.
    filled: Condvar,
    /// For who waits until it is done.
    emptied: Condvar,
}

/// Changes, of which the last of a key counts.
type Changes = HashMap<Arc<[u8]>, Option<Arc<[u8]>>, ahash::RandomState>;

#[derive(Default)]
struct State {
    waiting: Changes,
    /// Of what waits.
    bytes: usize,
    /// Taken by the thread, and not kept yet.
    writing: Changes,
    /// How many wait for the end of what waits.
    flushing: usize,
    closed: bool,
    /// Nothing is read or written any more.
    broken: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.broken || (self.waiting.is_empty() && self.writing.is_empty())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("store", &self.writer.queue.store).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Cache {
    /// In a store. Each remote that it is used for needs another name: its address, say, and whose values they are.
    ///
    /// Results that were kept under another version are not found: change it with the types of results or the meaning of methods.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn new(store: impl ClientCache, name: &str, version: &str) -> io::Result<Cache> {
        let (state, filled, emptied) = (Mutex::default(), Condvar::new(), Condvar::new());
        let queue = Arc::new(Queue { store: Box::new(store), state, filled, emptied });
        let own = queue.clone();
        let thread = std::thread::Builder::new().name("wellspring-rpc-cache".to_owned()).spawn(move || own.run())?;
        let writer = Arc::new(Writer { queue, thread: Mutex::new(Some(thread)) });
        Ok(Cache { writer, scope: scope(name, version), version: version.into() })
    }

    /// The same store for another remote.
    #[must_use]
    pub fn named(&self, name: &str) -> Cache {
        Cache { writer: self.writer.clone(), scope: scope(name, &self.version), version: self.version.clone() }
    }

    /// Waits until what is known now is kept, or cannot be. Blocks the thread.
    pub fn flush(&self) {
        let queue = &self.writer.queue;
        let mut state = queue.state();
        state.flushing += 1;
        queue.filled.notify_one();
        while !state.is_done() {
            state = queue.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.flushing -= 1;
    }

    /// Forgets everything in the store, of all names: after a sign-out, say. What is in use stays.
    ///
    /// # Errors
    /// If the store cannot.
    pub fn clear(&self) -> Result<(), CacheError> {
        let queue = &self.writer.queue;
        let mut state = queue.state();
        (state.bytes, _) = (0, std::mem::take(&mut state.waiting));
        // The thread, if it wakes up only now, finds nothing to be done, and has nobody to tell.
        queue.emptied.notify_all();
        // What is being written is written before it is forgotten.
        while !state.broken && !state.writing.is_empty() {
            state = queue.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        queue.store.clear()
    }

    /// The key of a result: with all that says which one it is, and how it is written.
    pub(crate) fn key(&self, format: Format, method: &MethodId, arguments: &[u8]) -> Arc<[u8]> {
        let mut key = self.scope.to_vec();
        part(&mut key, format.to_string().as_bytes());
        part(&mut key, method.name().as_bytes());
        key.extend_from_slice(arguments);
        key.into()
    }

    /// A result, and its hash. One that is not what was kept is none.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Arc<[u8]>, Hash)> {
        let queue = &self.writer.queue;
        let waiting = {
            let state = queue.state();
            if state.broken {
                return None;
            }
            state.waiting.get(key).or_else(|| state.writing.get(key)).cloned()
        };
        let kept = match waiting {
            Some(value) => value,
            None => match queue.store.get(key) {
                Ok(value) => value.map(Arc::from),
                Err(error) => {
                    queue.give_up(&error);
                    None
                }
            },
        };
        let kept = kept?;
        let (layout, rest) = kept.split_first()?;
        let (hash, arguments) = rest.split_at_checked(Hash::BYTES)?;
        let found = Hash::of(arguments);
        (*layout == LAYOUT && found.bytes() == hash).then(|| (arguments.into(), found))
    }

    /// Keeps a result from now on.
    pub(crate) fn set(&self, key: Arc<[u8]>, hash: &Hash, arguments: &[u8]) {
        if key.len() + arguments.len() > LARGE {
            return self.remove(key);
        }
        let mut value = Vec::with_capacity(1 + Hash::BYTES + arguments.len());
        value.push(LAYOUT);
        value.extend_from_slice(hash.bytes());
        value.extend_from_slice(arguments);
        self.writer.queue.add(key, Some(value.into()));
    }

    pub(crate) fn remove(&self, key: Arc<[u8]>) {
        self.writer.queue.add(key, None);
    }
}

fn scope(name: &str, version: &str) -> Arc<[u8]> {
    let mut scope = Vec::new();
    part(&mut scope, name.as_bytes());
    part(&mut scope, version.as_bytes());
    scope.into()
}

/// With its length, so that no two lists of parts are the same bytes.
fn part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    out.extend_from_slice(part);
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, key: Arc<[u8]>, value: Option<Arc<[u8]>>) {
        let size = |key: &[u8], value: &Option<Arc<[u8]>>| key.len() + value.as_ref().map_or(0, |value| value.len());
        let mut state = self.state();
        if state.broken {
            return;
        }
        let bytes = state.bytes - state.waiting.get(&key).map_or(0, |before| size(&key, before)) + size(&key, &value);
        if bytes > MOST {
            drop(state);
            return tracing::debug!(target: "wellspring::rpc", "the cache cannot keep up: a result is not kept");
        }
        state.bytes = bytes;
        state.waiting.insert(key, value);
        drop(state);
        self.filled.notify_one();
    }

    fn give_up(&self, error: &CacheError) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.broken, true) {
            tracing::error!(target: "wellspring::rpc", %error, "the cache of results is not used any more until the next start");
        }
        (state.bytes, state.waiting) = (0, Changes::default());
        drop(state);
        self.filled.notify_one();
        self.emptied.notify_all();
    }

    /// Writes until the end.
    fn run(&self) {
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() && !state.closed && !state.broken {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.broken || state.waiting.is_empty() {
                return;
            }
            let more = |state: &mut State| state.bytes < MUCH && state.flushing == 0 && !state.closed && !state.broken;
            (state, _) = self.filled.wait_timeout_while(state, PAUSE, more).unwrap_or_else(PoisonError::into_inner);
            state.bytes = 0;
            state.writing = std::mem::take(&mut state.waiting);
            let changes: Vec<Change> = state.writing.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect();
            drop(state);
            let written = catch_unwind(AssertUnwindSafe(|| self.store.write(&changes)));
            let written = written.unwrap_or_else(|_| Err(CacheError::Other("the store panicked".to_owned())));
            self.state().writing.clear();
            if let Err(error) = written {
                return self.give_up(&error);
            }
            self.emptied.notify_all();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.state().closed = true;
        self.queue.filled.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It does not panic.
        let _ = thread.map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl ClientCache for Nothing {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
            Ok(None)
        }

        fn write(&self, _: &[Change]) -> Result<(), CacheError> {
            Ok(())
        }

        fn clear(&self) -> Result<(), CacheError> {
            Ok(())
        }
    }

    #[test]
    fn who_waits_for_what_is_forgotten_before_the_thread_has_woken_up_waits_no_longer() {
        let (state, filled, emptied) = (Mutex::default(), Condvar::new(), Condvar::new());
        let queue = Arc::new(Queue { store: Box::new(Nothing), state, filled, emptied });
        // Its thread does not wake up at all.
        let writer = Arc::new(Writer { queue: queue.clone(), thread: Mutex::default() });
        let cache = Cache { writer, scope: scope("server", "1"), version: "1".into() };
        queue.add(Arc::from([1]), None);
        let (done, is_done) = mpsc::channel();
        let flushing = cache.clone();
        std::thread::spawn(move || {
            flushing.flush();
            let _ = done.send(());
        });
        // Under the same lock by which it begins to wait.
        while queue.state().flushing == 0 {
            std::thread::yield_now();
        }
        cache.clear().expect("cleared");
        is_done.recv_timeout(Duration::from_secs(30)).expect("it waits for nothing");
    }
}
