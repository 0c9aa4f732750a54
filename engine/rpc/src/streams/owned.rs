//! Streams that are read at the other end.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::consumed::Consumed;
use super::{Window, Within};
use crate::failure::Failure;
use crate::outgoing::Pushed;
use crate::peer::Peer;
use crate::wire::{ErrorInfo, Format, Guid, Head, StreamRef, System};

/// Items that go into one message.
const BATCH: usize = 64;

/// A stream of which nobody has heard for so long is over.
const FORGOTTEN: Duration = Duration::from_secs(125);

/// More streams than this nobody has: a peer that has them is given up.
const MOST: usize = 65_536;

/// Where items come from, already written.
pub(crate) trait Source: Send {
    /// Writes the next item, if there is one.
    fn poll_next(&mut self, cx: &mut Context<'_>, format: Format, out: &mut Vec<u8>) -> Poll<Option<Result<(), Failure>>>;
}

/// The streams of one peer, both ways.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    owned: HashMap<u64, Owned, ahash::RandomState>,
    consumed: HashMap<u64, Weak<Consumed>, ahash::RandomState>,
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
    Yes(AbortHandle),
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("reconnects", &self.reconnects).finish_non_exhaustive()
    }
}

/// How far the other end has read.
#[derive(Debug, Default)]
struct Progress {
    acks: Mutex<Acks>,
    come: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Acks {
    next: u64,
    /// It is to be sent again from here.
    reset: bool,
}

/// What an acknowledgement leads to.
enum Heard {
    Known,
    Unknown,
}

impl Streams {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a stream known; what stands for it.
    ///
    /// Called in the middle of a message that is being written, so it says nothing by itself.
    pub(super) fn share(&self, peer: &Peer, source: Box<dyn Source>, window: Window) -> Result<StreamRef, &'static str> {
        let mut state = self.state();
        if state.owned.len() >= MOST {
            return Err("more streams than anybody reads");
        }
        state.last += 1;
        let Window { ack_period, ack_advance, reconnects } = window;
        let id = state.last;
        let owned = Owned { progress: Arc::default(), reconnects, heard: Instant::now(), state: Running::Not(source, window) };
        state.owned.insert(id, owned);
        Ok(StreamRef { ack_period, ack_advance, reconnects, ..StreamRef::new(peer.id, id) })
    }

    /// A stream of the other end.
    pub(super) fn consume(&self, peer: &Arc<Peer>, stream: StreamRef) -> Result<Arc<Consumed>, &'static str> {
        let consumed = Arc::new(Consumed::new(peer, stream));
        let mut state = self.state();
        if state.consumed.len() >= MOST {
            return Err("more streams than anybody reads");
        }
        state.consumed.insert(stream.id, Arc::downgrade(&consumed));
        Ok(consumed)
    }

    /// The consumer of a stream of the other end.
    pub(crate) fn consumer(&self, id: u64) -> Option<Arc<Consumed>> {
        self.state().consumed.get(&id).and_then(Weak::upgrade)
    }

    pub(super) fn not_consumed(&self, id: u64) {
        self.state().consumed.remove(&id);
    }

    /// Which streams of the other end are read here.
    pub(crate) fn consumed(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.state().consumed.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The other end has read to here, or asks to be sent from here on. Whether the stream is known.
    pub(crate) fn acknowledged(&self, peer: &Arc<Peer>, id: u64, next: u64, host: Guid) -> bool {
        matches!(self.hear(peer, id, next, host), Heard::Known)
    }

    fn hear(&self, peer: &Arc<Peer>, id: u64, next: u64, host: Guid) -> Heard {
        let mut state = self.state();
        let Some(owned) = state.owned.get_mut(&id) else { return Heard::Unknown };
        let reset = !host.is_none();
        let may = match &owned.state {
            Running::Not(..) => reset && next == 0,
            Running::Yes(_) => true,
        };
        if (reset && host != peer.id) || !may {
            let over = state.owned.remove(&id);
            drop(state);
            drop_owned(over);
            return Heard::Unknown;
        }
        owned.heard = Instant::now();
        if let Running::Not(..) = owned.state {
            let progress = owned.progress.clone();
            // The source goes into a task, and its handle takes the place. Nobody else hears of this stream meanwhile: it is the reader who hears. Not
            // under the lock, as a runtime that is ending drops the task at once, and what is in it is the user's.
            let begun = state.owned.remove(&id);
            drop(state);
            if let Some(Owned { state: Running::Not(source, window), reconnects, .. }) = begun {
                let sending = Sending { id, source, window, progress: progress.clone(), base: 0, items: VecDeque::new(), over: None };
                let abort = tokio::spawn(sending.run(Arc::downgrade(peer))).abort_handle();
                let owned = Owned { progress, reconnects, heard: Instant::now(), state: Running::Yes(abort) };
                self.state().owned.insert(id, owned);
            }
            return Heard::Known;
        }
        {
            let mut acks = owned.progress.acks.lock().unwrap_or_else(PoisonError::into_inner);
            if reset {
                *acks = Acks { next, reset: true };
            } else if !acks.reset {
                acks.next = acks.next.max(next);
            }
        }
        owned.progress.come.notify_one();
        Heard::Known
    }

    /// The other end has enough of a stream.
    pub(crate) fn released(&self, id: u64) {
        // In two steps, lest it be dropped under the lock.
        let over = self.state().owned.remove(&id);
        drop_owned(over);
    }

    /// The other end reads these streams; those of them that are not known.
    pub(crate) fn kept(&self, ids: &[u64]) -> Vec<u64> {
        let mut state = self.state();
        let now = Instant::now();
        let mut unknown = Vec::new();
        for id in ids {
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
        let over: Vec<u64> =
            state.owned.iter().filter(|(_, owned)| now.duration_since(owned.heard) > FORGOTTEN).map(|(id, _)| *id).collect();
        let over: Vec<_> = over.into_iter().map(|id| state.owned.remove(&id)).collect();
        drop(state);
        over.into_iter().for_each(drop_owned);
    }

    /// The connection is gone.
    pub(crate) fn lost(&self) {
        let mut state = self.state();
        let over: Vec<u64> = state.owned.iter().filter(|(_, owned)| !owned.reconnects).map(|(id, _)| *id).collect();
        let over: Vec<_> = over.into_iter().map(|id| state.owned.remove(&id)).collect();
        let consumers: Vec<_> = state.consumed.values().filter_map(Weak::upgrade).collect();
        drop(state);
        over.into_iter().for_each(drop_owned);
        for consumer in consumers.iter().filter(|consumer| !consumer.reconnects()) {
            consumer.fail(Failure::new("the connection that the stream came by is gone"));
        }
    }

    /// There is a connection again, to the same end.
    pub(crate) fn resume(&self) {
        let consumers: Vec<_> = self.state().consumed.values().filter_map(Weak::upgrade).collect();
        consumers.iter().for_each(|consumer| consumer.resume());
    }

    /// Every stream is over.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state();
        let owned = std::mem::take(&mut state.owned);
        let consumed = std::mem::take(&mut state.consumed);
        drop(state);
        owned.into_values().for_each(|owned| drop_owned(Some(owned)));
        for consumer in consumed.into_values().filter_map(|consumer| consumer.upgrade()) {
            consumer.fail(Failure::new("the process that the stream came from is gone"));
        }
    }

    /// How many streams there are, both ways.
    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        state.owned.len() + state.consumed.len()
    }
}

/// Outside of any lock: what a stream is made of is the user's.
fn drop_owned(owned: Option<Owned>) {
    if let Some(Owned { state: Running::Yes(abort), .. }) = owned {
        abort.abort();
    }
}

/// A stream that is being sent.
struct Sending {
    id: u64,
    source: Box<dyn Source>,
    window: Window,
    progress: Arc<Progress>,
    /// The index of the first that is kept: all before it were read.
    base: u64,
    /// Those that may have to be sent again.
    items: VecDeque<Box<[u8]>>,
    /// How it ends, once it has no more items.
    over: Option<Option<Failure>>,
}

impl Sending {
    async fn run(mut self, weak: Weak<Peer>) {
        // What is sent next. Nothing while there is no connection.
        let mut next = Some(0_u64);
        loop {
            let Some(peer) = weak.upgrade() else { return };
            self.hear(&mut next);
            if let Some(at) = next {
                next = self.send(&peer, at);
            }
            let wants_more = self.over.is_none() && next.is_some_and(|next| next >= self.produced() && next < self.limit());
            let format = peer.format;
            // Not kept while it waits: a peer that is gone ends its streams.
            drop(peer);
            let progress = self.progress.clone();
            tokio::select! {
                biased;
                () = progress.come.notified() => {}
                () = std::future::poll_fn(|cx| self.produce(cx, &weak, format)), if wants_more => {}
            }
        }
    }

    fn produced(&self) -> u64 {
        self.base + self.items.len() as u64
    }

    /// Up to which index may be sent.
    fn limit(&self) -> u64 {
        self.base + u64::from(self.window.ack_advance)
    }

    /// What the other end has said meanwhile.
    fn hear(&mut self, next: &mut Option<u64>) {
        let acks = {
            let mut acks = self.progress.acks.lock().unwrap_or_else(PoisonError::into_inner);
            let now = *acks;
            acks.reset = false;
            now
        };
        // What nobody has sent yet, nobody can have read.
        let read = acks.next.min(self.produced());
        if acks.reset {
            *next = Some(read);
        }
        while self.base < read && self.items.pop_front().is_some() {
            self.base += 1;
        }
    }

    /// Sends what there is from an index on, as far as the window goes; from where to go on, or nothing if there is no connection.
    fn send(&mut self, peer: &Peer, mut at: u64) -> Option<u64> {
        if at < self.base {
            let failure = Failure::new("items that are asked for again are not there any more");
            return self.end(peer, at, Some(&failure));
        }
        let _cork = peer.out.cork();
        while at < self.produced().min(self.limit()) {
            let first = (at - self.base) as usize;
            let room = (self.limit() - at) as usize;
            let some: Vec<&[u8]> = self.items.iter().skip(first).take(BATCH.min(room)).map(|item| &**item).collect();
            let call = if some.len() == 1 { System::Item } else { System::Batch };
            let sent = peer.out.push(&Head::system(call, self.id), |out| {
                out.value(&at)?;
                match some.as_slice() {
                    [one] => out.raw(one),
                    some => out.raw_list(some),
                }
                Ok(())
            });
            match sent {
                Ok(Pushed::Queued) => at += some.len() as u64,
                Ok(Pushed::Closed) => return None,
                Err(_) => {
                    let failure = Failure::new("an item cannot be sent: it is too large");
                    return self.end(peer, at, Some(&failure));
                }
            }
        }
        match &self.over {
            Some(failure) if at == self.produced() && at < self.limit() => {
                let failure = failure.clone();
                self.end(peer, at, failure.as_ref())
            }
            _ => Some(at),
        }
    }

    /// Sends the end, once.
    fn end(&self, peer: &Peer, at: u64, failure: Option<&Failure>) -> Option<u64> {
        let info = failure.map_or_else(ErrorInfo::default, Failure::info);
        let sent = peer.out.push(&Head::system(System::End, self.id), |out| {
            out.value(&at)?;
            out.value(&info)
        });
        // Behind the limit nothing is sent until somebody asks for it again.
        matches!(sent, Ok(Pushed::Queued)).then_some(u64::MAX)
    }

    /// Takes what the source has, one item at least and a batch at most.
    fn produce(&mut self, cx: &mut Context<'_>, peer: &Weak<Peer>, format: Format) -> Poll<()> {
        // An item may have a stream in it.
        let _within = peer.upgrade().map(|peer| Within::of(&peer));
        let mut any = false;
        for _ in 0..BATCH {
            if self.produced() >= self.limit() || self.over.is_some() {
                break;
            }
            let mut item = Vec::new();
            match self.source.poll_next(cx, format, &mut item) {
                Poll::Ready(Some(Ok(()))) => self.items.push_back(item.into()),
                Poll::Ready(Some(Err(failure))) => self.over = Some(Some(failure)),
                Poll::Ready(None) => self.over = Some(None),
                Poll::Pending => break,
            }
            any = true;
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    }
}
