//! Streams that are read here.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use super::Within;
use super::unread::Unread;
use crate::failure::Failure;
use crate::peer::Peer;
use crate::wire::{Format, Guid, Head, StreamRef, System, limits};

/// Items that the other end may send ahead, whatever it says.
const MOST_AHEAD: u32 = 1 << 16;

/// A stream of the other end.
pub(crate) struct Consumed {
    peer: Weak<Peer>,
    format: Format,
    stream: StreamRef,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether anything was asked for.
    started: bool,
    /// The index of the next that is to come.
    expected: u64,
    /// Those that have come and were not read.
    items: Unread,
    /// How many were read.
    read: u64,
    /// To where the other end was told.
    told: u64,
    /// How it has ended, after the items that are there.
    over: Option<Option<Failure>>,
    /// Nothing more is said of it.
    released: bool,
    /// To be sent on is asked for when more was read.
    puts_off: bool,
    waker: Option<Waker>,
}

impl fmt::Debug for Consumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumed").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Consumed {
    /// One of a peer, by the sum of what waits of all of them.
    pub(super) fn new(peer: &Arc<Peer>, mut stream: StreamRef, all: Arc<AtomicUsize>) -> Consumed {
        // The other end says when to be told: if that were later than it sends, both would wait.
        stream.ack_advance = stream.ack_advance.min(MOST_AHEAD);
        stream.ack_period = stream.ack_period.min(stream.ack_advance);
        let state = State { items: Unread::of(all), ..State::default() };
        Consumed { peer: Arc::downgrade(peer), format: peer.format, stream, state: Mutex::new(state) }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn reconnects(&self) -> bool {
        self.stream.reconnects
    }

    /// Reads a value of the peer's.
    pub(super) fn within<R>(&self, read: impl FnOnce() -> R) -> R {
        let _within = Within::these(self.peer.upgrade());
        read()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Box<[u8]>, Failure>>> {
        let mut state = self.state();
        if !state.started {
            state.started = true;
            if state.over.is_none() {
                self.ask(0);
            }
        }
        if let Some(item) = state.items.pop() {
            state.read += 1;
            if std::mem::take(&mut state.puts_off) && state.over.is_none() {
                state.puts_off = self.is_far_ahead(&state);
                let expected = state.expected;
                if !state.puts_off {
                    drop(state);
                    self.ask(expected);
                    return Poll::Ready(Some(Ok(item)));
                }
            }
            if state.read >= state.told + u64::from(self.stream.ack_period) && state.over.is_none() {
                state.told = state.read;
                let read = state.read;
                drop(state);
                self.say(System::Ack, Some(read), Guid::NONE);
            }
            return Poll::Ready(Some(Ok(item)));
        }
        if let Some(over) = &mut state.over {
            // A failure is said once.
            return Poll::Ready(over.take().map(Err));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Items have come.
    pub(crate) fn take<'a>(&self, index: u64, items: impl ExactSizeIterator<Item = &'a [u8]>) {
        let mut state = self.state();
        if state.over.is_some() {
            return;
        }
        if items.len() > limits::BATCH {
            drop(state);
            self.give_up(Failure::new("a message has more items of a stream than it may have"));
            return;
        }
        if index > state.expected {
            let expected = state.expected;
            drop(state);
            return self.missed(expected);
        }
        // What has come before is passed over.
        let known = state.expected - index;
        for item in items.skip(usize::try_from(known).unwrap_or(usize::MAX)) {
            state.items.push(item);
            state.expected += 1;
        }
        let most = 2 * u64::from(self.stream.ack_advance) + u64::from(self.stream.ack_period);
        if state.expected > state.read.saturating_add(most) {
            drop(state);
            self.give_up(Failure::new("the other end sends more of a stream than was asked for"));
            return;
        }
        if state.items.is_too_much() {
            drop(state);
            self.give_up(Failure::new("more of the stream waits to be read than may: its reader is too slow for items of this size"));
            return;
        }
        wake(state);
    }

    /// It ends at an index.
    pub(crate) fn end(&self, index: u64, failure: Option<Failure>) {
        let mut state = self.state();
        if state.over.is_some() {
            return;
        }
        // An end with a failure may come where something is missing: nothing will come after it.
        if index > state.expected && failure.is_none() {
            let expected = state.expected;
            drop(state);
            return self.missed(expected);
        }
        state.over = Some(failure);
        wake(state);
        self.release();
    }

    /// It has ended without the other end's saying so.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut state = self.state();
        if state.over.is_none() {
            state.over = Some(Some(failure));
        }
        wake(state);
    }

    /// Fails, and tells the other end that nothing more is wanted.
    fn give_up(&self, failure: Failure) {
        self.over(Some(failure));
    }

    /// As that, when the failure has been said; the failure.
    pub(super) fn leave(&self, failure: Failure) -> Failure {
        self.over(None);
        failure
    }

    fn over(&self, failure: Option<Failure>) {
        {
            let mut state = self.state();
            state.items.clear();
            state.over = Some(failure);
            wake(state);
        }
        self.release();
    }

    /// Nothing more is said of it: there is nobody to hear it, or somebody who would take it for another.
    pub(super) fn forget(&self) {
        self.state().released = true;
    }

    /// Something between has not come.
    fn missed(&self, expected: u64) {
        if self.stream.reconnects {
            return self.ask(expected);
        }
        self.give_up(Failure::new("a part of the stream is missing"));
    }

    /// There is a connection again. To ask is to be sent a window more, whatever was read of the one before: who has read little of it asks later.
    pub(super) fn resume(&self) {
        let mut state = self.state();
        if state.started && state.over.is_none() {
            let expected = state.expected;
            state.puts_off = self.is_far_ahead(&state);
            if !state.puts_off {
                drop(state);
                self.ask(expected);
            }
        }
    }

    fn is_far_ahead(&self, state: &State) -> bool {
        state.expected - state.read > u64::from(self.stream.ack_advance)
    }

    /// Asks to be sent from an index on.
    fn ask(&self, from: u64) {
        self.say(System::Ack, Some(from), self.stream.host);
    }

    fn release(&self) {
        let Some(peer) = self.peer.upgrade() else { return };
        peer.streams().not_consumed(self.stream.id, self);
        if !std::mem::replace(&mut self.state().released, true) {
            peer.streams().leave(&peer.out, self.stream.id, self.stream.host);
        }
    }

    fn say(&self, call: System, next: Option<u64>, host: Guid) {
        let Some(peer) = self.peer.upgrade() else { return };
        // Without a connection it is said when there is one again.
        let _ = peer.out.push(&Head::system(call, self.stream.id), |out| {
            if let Some(next) = next {
                out.value(&next)?;
            }
            out.value(&host)
        });
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Drop for Consumed {
    fn drop(&mut self) {
        // One that was never asked for is given up by its owner when it is listed no more; saying so is quicker.
        self.release();
    }
}
