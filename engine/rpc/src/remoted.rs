//! A value of another process in the graph of this one.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use crate::end::End;
use crate::hash::Hash;
use crate::made::Made;
use crate::remote::CallError;
use crate::synchronize::Waiting;

/// A value of another process in the graph of this one, or why there is none. Clones are the same.
///
/// The other process pushes its end as long as this is cached, or a clone of it is there. What the engine has replaced or evicted is given up when it
/// is collected: after a later commit, or by [`Engine::collect`](wellspring::Engine::collect).
pub struct Remoted<V>(pub(crate) Arc<Inner<V>>);

/// The value, and how it is linked to the other process. The link may change, when the same value is confirmed, or given once more without a
/// connection: so what was made of the value need not be made again.
pub(crate) struct Inner<V> {
    pub(crate) value: Result<V, CallError>,
    /// By which the other end knows it, where that is asked for.
    pub(crate) hash: Option<Hash>,
    link: Mutex<Link<V>>,
}

struct Link<V> {
    standing: Standing<V>,
    place: Option<Box<dyn Place>>,
}

/// A generation of a key of a function.
pub(crate) trait Place: Send + Sync {
    fn number(&self) -> u64;

    /// Whether it is the last of its key.
    fn is_last(&self) -> bool;

    /// The value is not cached any more; whether its end would have been told.
    fn leave(&self, watched: bool);
}

/// What the other process says of a value.
pub(crate) enum Standing<V> {
    /// It is given for a while, and asked for again.
    Passing,
    /// It is true until its end, which is told as long as the call is there; or it is of this process, without one.
    Live { end: Arc<End>, call: Option<Made> },
    /// It is being asked.
    Unconfirmed { waiting: Waiting, task: Option<Task> },
    /// There is another one, which the next generation takes.
    Replaced(Option<Arc<Inner<V>>>),
    /// Nobody will ever say.
    Lost,
}

/// A task that ends with this.
pub(crate) struct Task(pub(crate) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How far a value can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The other process has said so, and has not said that it is stale; there is a connection on which it would.
    Synchronized,
    /// The same, but for the connection: the other process will say what has become of it when there is one.
    Disconnected,
    /// It was true once: it is of a [cache](crate::Cache), or was given without a connection. When the other process says that it is another, what
    /// depends on it is stale.
    Unconfirmed,
    /// It is known to be stale, or a failure that is given for a while: reading again, or a second later, gives another.
    Stale,
}

impl<V> Inner<V> {
    pub(crate) fn new(value: Result<V, CallError>, hash: Option<Hash>, standing: Standing<V>) -> Arc<Inner<V>> {
        Arc::new(Inner { value, hash, link: Mutex::new(Link { standing, place: None }) })
    }

    fn link(&self) -> MutexGuard<'_, Link<V>> {
        // Every change is whole before anything that can panic.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it the value of a generation, as long as that is the last. Looked at under the lock: whoever began later has to wait for it, and then
    /// has the last word.
    ///
    /// What makes the standing must not end a task, nor begin one: a runtime that shuts down drops it at once, and what looks into a value takes the lock
    /// when it is dropped.
    pub(crate) fn bind(&self, place: Box<dyn Place>, standing: impl FnOnce() -> Standing<V>) -> bool {
        let mut link = self.link();
        if !place.is_last() {
            return false;
        }
        let before = std::mem::replace(&mut *link, Link { standing: standing(), place: Some(place) });
        drop(link);
        drop(before);
        true
    }

    /// As [`bind`](Inner::bind), for who is linked already.
    pub(crate) fn place(&self, place: Box<dyn Place>) -> bool {
        let mut link = self.link();
        let is_last = place.is_last();
        if is_last {
            link.place = Some(place);
        }
        is_last
    }

    /// A task looks into an unconfirmed value of a generation. If it is known already, or of another, the task is not waited for.
    pub(crate) fn looked_into(&self, number: u64, by: Task) {
        let mut link = self.link();
        let is_its = link.place.as_ref().is_some_and(|place| place.number() == number);
        let before = match &mut link.standing {
            Standing::Unconfirmed { task, .. } if is_its => task.replace(by),
            _ => Some(by),
        };
        drop(link);
        drop(before);
    }

    /// What is known now of an unconfirmed value of a generation; what was before is dropped by the caller, when it has told.
    pub(crate) fn turn(&self, number: u64, standing: Standing<V>) -> Result<Standing<V>, Standing<V>> {
        let mut link = self.link();
        let is_its = link.place.as_ref().is_some_and(|place| place.number() == number);
        if is_its && matches!(link.standing, Standing::Unconfirmed { .. }) {
            return Ok(std::mem::replace(&mut link.standing, standing));
        }
        Err(standing)
    }

    /// The value in its place, once.
    pub(crate) fn successor(&self) -> Option<Arc<Inner<V>>> {
        match &mut self.link().standing {
            Standing::Replaced(by) => by.take(),
            _ => None,
        }
    }

    /// Its end, while it is linked.
    pub(crate) fn end(&self) -> Option<Arc<End>> {
        match &self.link().standing {
            Standing::Live { end, .. } => Some(end.clone()),
            _ => None,
        }
    }
}

impl<V> Drop for Link<V> {
    /// A value that the engine gives up for room, and does not replace, is not pushed any more: what was made of it must not be taken for fresh.
    fn drop(&mut self) {
        let watched = match &self.standing {
            Standing::Live { end, .. } => !end.has_come(),
            Standing::Unconfirmed { .. } | Standing::Passing => true,
            Standing::Replaced(_) | Standing::Lost => false,
        };
        if let Some(place) = &self.place {
            place.leave(watched);
        }
    }
}

impl<V> Remoted<V> {
    /// The value by reference, or why there is none.
    ///
    /// # Errors
    /// What the method failed with, until that ends; or why nothing is known of the value, for a second, or until there is a connection if that is what was
    /// lacking.
    pub fn as_result(&self) -> Result<&V, &CallError> {
        self.0.value.as_ref()
    }

    /// How far it can be relied on, now.
    ///
    /// Not for the bodies of functions: a value that turns out to be true stays what it is, and what was made of it is not made again.
    pub fn freshness(&self) -> Freshness {
        match &self.0.link().standing {
            Standing::Live { end, .. } if end.has_come() => Freshness::Stale,
            Standing::Live { call: Some(call), .. } if !call.remote().is_caught_up() => Freshness::Disconnected,
            Standing::Live { .. } => Freshness::Synchronized,
            Standing::Unconfirmed { .. } | Standing::Lost => Freshness::Unconfirmed,
            Standing::Passing | Standing::Replaced(_) => Freshness::Stale,
        }
    }

    /// Whether the other process says that it is true, now.
    pub fn is_synchronized(&self) -> bool {
        self.freshness() == Freshness::Synchronized
    }

    /// Waits until it is known whether this is true: it is, or reading again gives another one. As long as there is no connection it waits for one.
    ///
    /// # Errors
    /// If there is no connection and there will be none.
    pub async fn when_synchronized(&self) -> Result<(), CallError> {
        loop {
            let known = match &self.0.link().standing {
                Standing::Unconfirmed { waiting, .. } => Ok(waiting.known.clone()),
                Standing::Live { call: Some(call), .. } => Err(call.remote().clone()),
                Standing::Live { call: None, .. } | Standing::Replaced(_) => return Ok(()),
                Standing::Lost => return Err(CallError::Unreachable),
                Standing::Passing => return self.0.value.as_ref().map(drop).map_err(Clone::clone),
            };
            match known {
                Ok(known) => known.wait().await,
                Err(remote) => return remote.caught_up().await,
            }
        }
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

impl<V> fmt::Debug for Inner<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("hash", &self.hash).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generation, the last if its number says so.
    struct At {
        number: u64,
        last: Arc<Mutex<u64>>,
        left: Arc<Mutex<Vec<(u64, bool)>>>,
    }

    impl Place for At {
        fn number(&self) -> u64 {
            self.number
        }

        fn is_last(&self) -> bool {
            *self.last.lock().expect("no panic") == self.number
        }

        fn leave(&self, watched: bool) {
            self.left.lock().expect("no panic").push((self.number, watched));
        }
    }

    #[test]
    fn a_generation_that_was_overtaken_does_not_take_the_value() {
        let (last, left) = (Arc::new(Mutex::new(2)), Arc::<Mutex<Vec<_>>>::default());
        let at = |number| Box::new(At { number, last: last.clone(), left: left.clone() });
        let value = Inner::new(Ok(1_u8), None, Standing::Passing);
        assert!(value.bind(at(2), || Standing::Lost));
        assert!(!value.bind(at(1), || unreachable!("it is overtaken")));
        assert!(!value.place(at(1)));
        assert!(value.turn(2, Standing::Replaced(None)).is_err(), "nobody looks into it");
        *last.lock().expect("no panic") = 3;
        assert!(value.bind(at(3), || Standing::Passing));
        drop(value);
        assert_eq!(*left.lock().expect("no panic"), [(2, false), (3, true)]);
    }
}
