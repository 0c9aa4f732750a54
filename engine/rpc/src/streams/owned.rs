//! Streams that are read at the other end.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Window;
use super::consumed::Consumed;
use super::sending::{Acks, Progress, Sending, Source};
use crate::failure::Failure;
use crate::outgoing::{Outgoing, Pushed};
use crate::peer::Peer;
use crate::wire::{Guid, Head, StreamRef, System};

/// A stream of which nobody has heard for so long is over.
const FORGOTTEN: Duration = Duration::from_secs(125);

/// More streams than this nobody has: a peer that has them is given up.
pub(crate) const MOST: usize = 65_536;

/// What was said so long before a connection broke has arrived.
const ARRIVED: Duration = Duration::from_secs(1);

/// The streams of one peer, both ways.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    owned: HashMap<u64, Owned, ahash::RandomState>,
    consumed: HashMap<u64, Weak<Consumed>, ahash::RandomState>,
    /// Bytes of what waits to be read of those.
    unread: Arc<AtomicUsize>,
    /// Streams of the other end that nothing more is wanted of, and that it may not know of yet.
    left: VecDeque<Left>,
}

/// A stream of the other end that was left: its number and whose it is, and when the other end was told, if it was.
#[derive(Debug)]
struct Left {
    id: u64,
    host: Guid,
    told: Option<Instant>,
}

impl Left {
    fn tell(&mut self, out: &Outgoing) {
        let told = out.push(&Head::system(System::AckEnd, self.id), |out| out.value(&self.host));
        self.told = matches!(told, Ok(Pushed::Queued)).then(Instant::now);
    }

    fn may_be_lost(&self, now: Instant) -> bool {
        self.told.is_none_or(|told| now.duration_since(told) <= ARRIVED)
    }
}

impl State {
    /// Takes streams out, to be dropped when the lock is not held any more.
    fn take(&mut self, which: impl Fn(&Owned) -> bool) -> Vec<Owned> {
        self.owned.extract_if(|_, owned| which(owned)).map(|(_, owned)| owned).collect()
    }

    /// Nobody could be heard of without a connection.
    fn hear_all(&mut self) {
        let now = Instant::now();
        self.owned.values_mut().for_each(|owned| owned.heard = now);
    }
}

/// A stream of this end.
struct Owned {
    progress: Arc<Progress>,
    reconnects: bool,
    heard: Instant,
    /// What sends it, once it was asked for; what it is made of, until then.
    state: Running,
}

enum Running {
    Not(Box<dyn Source>, Window),
    /// It is about to be.
    Begun,
    Yes(AbortHandle),
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("reconnects", &self.reconnects).finish_non_exhaustive()
    }
}

impl Streams {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a stream known; what stands for it.
    ///
    /// Called in the middle of a message that is being written, so it says nothing by itself.
    ///
    /// The source comes back if there are too many: it is not dropped here.
    pub(super) fn share(&self, peer: &Peer, source: Box<dyn Source>, window: Window) -> Result<StreamRef, Box<dyn Source>> {
        let mut state = self.state();
        if state.owned.len() >= MOST {
            return Err(source);
        }
        state.last += 1;
        let Window { ack_period, ack_advance, reconnects, real_time } = window;
        let id = state.last;
        let owned = Owned { progress: Arc::default(), reconnects, heard: Instant::now(), state: Running::Not(source, window) };
        state.owned.insert(id, owned);
        Ok(StreamRef { ack_period, ack_advance, reconnects, real_time, ..StreamRef::new(peer.id, id) })
    }

    /// A stream of the other end.
    pub(super) fn consume(&self, peer: &Arc<Peer>, stream: StreamRef) -> Result<Arc<Consumed>, &'static str> {
        let mut state = self.state();
        let consumed = Arc::new(Consumed::new(peer, stream, state.unread.clone()));
        let is_twice = state.consumed.get(&stream.id).is_some_and(|known| known.strong_count() > 0);
        if is_twice || state.consumed.len() >= MOST {
            drop(state);
            consumed.forget();
            return Err("a stream that is read already, or more of them than anybody reads");
        }
        state.consumed.insert(stream.id, Arc::downgrade(&consumed));
        Ok(consumed)
    }

    /// The consumer of a stream of the other end.
    pub(crate) fn consumer(&self, id: u64) -> Option<Arc<Consumed>> {
        self.state().consumed.get(&id).and_then(Weak::upgrade)
    }

    /// A consumer is not one any more. Another one may have the number of its stream: another process's.
    pub(super) fn not_consumed(&self, id: u64, consumed: *const Consumed) {
        let mut state = self.state();
        if state.consumed.get(&id).is_some_and(|known| std::ptr::eq(known.as_ptr(), consumed)) {
            state.consumed.remove(&id);
        }
    }

    /// Nothing more is wanted of a stream of the other end. Without a connection it is told on the next one, and once more if the connection breaks
    /// on which it was: it would keep the stream for minutes.
    pub(super) fn leave(&self, out: &Outgoing, id: u64, host: Guid) {
        let mut left = Left { id, host, told: None };
        left.tell(out);
        let mut state = self.state();
        let now = Instant::now();
        while state.left.len() >= MOST || state.left.front().is_some_and(|left| !left.may_be_lost(now)) {
            state.left.pop_front();
        }
        state.left.push_back(left);
    }

    /// Which streams of the other end are read here.
    pub(crate) fn consumed(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.state().consumed.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The other end has read to here, or asks to be sent from here on. Whether the stream is known.
    pub(crate) fn acknowledged(&self, peer: &Arc<Peer>, id: u64, next: u64, host: Guid) -> bool {
        let mut state = self.state();
        let Some(owned) = state.owned.get_mut(&id) else { return false };
        let reset = !host.is_none();
        // No stream has so many items.
        let is_possible = i64::try_from(next).is_ok();
        let may = match &owned.state {
            Running::Not(..) => reset && next == 0,
            Running::Begun | Running::Yes(_) => true,
        };
        if (reset && host != peer.id) || !may || !is_possible {
            let over = state.owned.remove(&id);
            drop(state);
            drop(over);
            return false;
        }
        owned.heard = Instant::now();
        if let Running::Not(..) = owned.state {
            let progress = owned.progress.clone();
            // The source goes into a task, and its handle takes the place. Nobody else hears of this stream meanwhile: it is the reader who hears. Not
            // under the lock, as a runtime that is ending drops the task at once, and what is in it is the user's.
            let begun = std::mem::replace(&mut owned.state, Running::Begun);
            drop(state);
            if let Running::Not(source, window) = begun {
                let sending = Sending { id, source, window, progress, base: 0, items: VecDeque::new(), newest: None, over: None };
                let abort = tokio::spawn(sending.run(Arc::downgrade(peer))).abort_handle();
                match self.state().owned.get_mut(&id) {
                    Some(owned) => owned.state = Running::Yes(abort),
                    // Everything was forgotten meanwhile.
                    None => abort.abort(),
                }
            }
            return true;
        }
        {
            let mut acks = owned.progress.acks.lock().unwrap_or_else(PoisonError::into_inner);
            if reset {
                *acks = Acks { next, reset: true };
            } else {
                // Also while it is to be sent again: what was read need not be.
                acks.next = acks.next.max(next);
            }
        }
        owned.progress.come.notify_one();
        true
    }

    /// The other end has enough of a stream.
    pub(crate) fn released(&self, id: u64) {
        // In two steps, lest it be dropped under the lock.
        let over = self.state().owned.remove(&id);
        drop(over);
    }

    /// The other end reads these streams; those of them that are not known.
    pub(crate) fn kept(&self, ids: &[u64]) -> Vec<u64> {
        let mut state = self.state();
        let now = Instant::now();
        let mut unknown = Vec::new();
        for id in ids.iter().take(MOST) {
            match state.owned.get_mut(id) {
                Some(owned) => owned.heard = now,
                None => unknown.push(*id),
            }
        }
        unknown
    }

    /// Ends those of which nobody has heard for long.
    pub(crate) fn expire(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let over = state.take(|owned| now.duration_since(owned.heard) > FORGOTTEN);
        drop(state);
        drop(over);
    }

    /// The connection is gone.
    pub(crate) fn lost(&self) {
        let mut state = self.state();
        let over = state.take(|owned| !owned.reconnects);
        let now = Instant::now();
        state.left.retain(|left| left.may_be_lost(now));
        let consumers: Vec<_> = state.consumed.values().filter_map(Weak::upgrade).collect();
        drop(state);
        drop(over);
        for consumer in consumers.iter().filter(|consumer| !consumer.reconnects()) {
            consumer.fail(Failure::new("the connection that the stream came by is gone"));
        }
    }

    /// Nothing is left of any of them.
    pub(crate) fn close(&self) {
        self.forget_all();
        let unasked = std::mem::take(&mut self.state().owned);
        drop(unasked);
    }

    /// There is a connection again, to the same end.
    pub(crate) fn resume(&self, out: &Outgoing) {
        let (consumers, mut left): (Vec<_>, _) = {
            let mut state = self.state();
            state.hear_all();
            (state.consumed.values().filter_map(Weak::upgrade).collect(), std::mem::take(&mut state.left))
        };
        // Not under the lock, which what is written takes.
        left.iter_mut().for_each(|left| left.tell(out));
        self.state().left.append(&mut left);
        consumers.iter().for_each(|consumer| consumer.resume());
    }

    /// The other end is another process: every stream is over that the one before has asked for, or had. Those that nobody has asked for may be in
    /// arguments that are still to be sent.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state();
        let owned = state.take(|owned| !matches!(owned.state, Running::Not(..)));
        state.hear_all();
        state.left.clear();
        let consumed = std::mem::take(&mut state.consumed);
        drop(state);
        drop(owned);
        for consumer in consumed.into_values().filter_map(|consumer| consumer.upgrade()) {
            // Its number may be another stream's from now on.
            consumer.forget();
            consumer.fail(Failure::new("the process that the stream came from is gone"));
        }
    }

    /// How many streams there are, both ways.
    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        state.owned.len() + state.consumed.len()
    }
}

/// Never under a lock: what a stream is made of is the user's.
impl Drop for Owned {
    fn drop(&mut self) {
        if let Running::Yes(abort) = &self.state {
            abort.abort();
        }
    }
}
