//! What waits to be sent: one buffer that everybody writes into, and one writer task that takes it away whole.
//!
//! So a message costs its bytes and a lock that is held while they are written, and however many there are by the time the writer is back make one
//! frame. A queue of messages, one allocation each, was rejected.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::wire::{Format, Frame, FrameError, Head, WriteError, Writer, limits};

/// At which size a frame is not added to.
const FULL: usize = 32 << 10;
/// Bytes that are worth a frame: about what costs as much to write as a system call.
const WORTH: usize = 8 << 10;
/// How often others get their turn before that.
const TURNS: usize = 8;
/// Bytes that wait above which nothing more is read from the other end, which should read first.
const HIGH: usize = 1 << 20;
/// Bytes that are written before anything else is seen to.
const SLICE: usize = 256 << 10;
/// Bytes that wait above which nothing is added and the connection is given up.
const MOST: usize = 64 << 20;

/// The messages that wait for one peer's connection.
pub(crate) struct Outgoing {
    state: Mutex<State>,
    /// For the writer: there is something, or an end.
    filled: Notify,
    /// For the reader, and for streams: there is room again.
    emptied: Notify,
    /// For both: it is over.
    over: Notify,
}

struct State {
    /// Whether there is a connection, on which the handshakes are over.
    open: bool,
    /// Nothing is sent any more; the code that the connection is closed with.
    ended: Option<u16>,
    frame: Frame,
    full: VecDeque<Vec<u8>>,
    /// In `full`.
    bytes: usize,
    /// How many are not done yet with what goes into one frame.
    corks: usize,
}

/// The code of a connection whose other end does not read what it has asked for.
const OVERFLOW: u16 = 1008;

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Outgoing").field("open", &state.open).field("bytes", &state.bytes).finish_non_exhaustive()
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    /// There is no connection: nothing was written.
    Closed,
}

impl Outgoing {
    pub(crate) fn new(format: Format) -> Outgoing {
        let state = State { open: false, ended: None, frame: Frame::new(format), full: VecDeque::new(), bytes: 0, corks: 0 };
        Outgoing { state: Mutex::new(state), filled: Notify::new(), emptied: Notify::new(), over: Notify::new() }
    }

    pub(crate) fn format(&self) -> Format {
        self.state().frame.format()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A message that could not be written whole is taken out again, also when that is by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages are taken from now on.
    pub(crate) fn open(&self) {
        let mut state = self.state();
        (state.open, state.ended) = (true, None);
    }

    /// No message is taken from now on; those that were not sent yet.
    pub(crate) fn close(&self) -> Vec<Vec<u8>> {
        let mut state = self.state();
        (state.open, state.bytes) = (false, 0);
        state.ended.get_or_insert(1000);
        let mut unsent = Vec::from(std::mem::take(&mut state.full));
        if !state.frame.is_empty() {
            unsent.push(state.frame.take());
        }
        drop(state);
        self.wake_all();
        unsent
    }

    fn wake_all(&self) {
        self.filled.notify_one();
        self.emptied.notify_waiters();
        self.over.notify_waiters();
    }

    /// Adds a message.
    pub(crate) fn push<W>(&self, head: &Head<'_>, arguments: W) -> Result<Pushed, FrameError>
    where
        W: FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    {
        self.add(self.state(), head, arguments)
    }

    /// Adds a message that can wait, unless there is no connection or so much waits already that it should; whether it did.
    pub(crate) fn push_if_room<W>(&self, head: &Head<'_>, arguments: W) -> Result<bool, FrameError>
    where
        W: FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    {
        let state = self.state();
        Ok(!state.is_high() && self.add(state, head, arguments)? == Pushed::Queued)
    }

    fn add<W>(&self, mut state: MutexGuard<'_, State>, head: &Head<'_>, arguments: W) -> Result<Pushed, FrameError>
    where
        W: FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    {
        if !state.open {
            return Ok(Pushed::Closed);
        }
        let (was_empty, full) = (state.frame.is_empty() && state.full.is_empty(), state.full.len());
        let before = state.frame.bytes().len();
        state.frame.push(head, arguments)?;
        let now = state.frame.bytes().len();
        if now > limits::FRAME && before > 0 {
            // It is of the size of a frame by itself.
            let last = state.frame.split_last(before);
            state.rotate();
            state.frame = last;
        }
        if state.frame.bytes().len() >= FULL {
            state.rotate();
        }
        // A full frame is not held back by those who fill the next one.
        let wake = state.full.len() > full || (state.corks == 0 && was_empty);
        if state.bytes > MOST {
            // What comes from now on has nowhere to go.
            state.open = false;
            state.ended.get_or_insert(OVERFLOW);
            drop(state);
            self.wake_all();
            return Ok(Pushed::Queued);
        }
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(Pushed::Queued)
    }

    /// Until it is dropped, what is added is not sent: more comes that belongs into the same frame.
    pub(crate) fn cork(&self) -> Cork<'_> {
        self.state().corks += 1;
        Cork(self)
    }

    /// The writer is to end, and to say this, if it is not about to say why already. What is added from now on is not sent by it.
    pub(crate) fn end(&self, code: u16) {
        self.state().ended.get_or_insert(code);
        self.wake_all();
    }

    /// Waits until there is something to be sent, and takes it; the code at the end.
    pub(crate) async fn take(&self) -> Result<Vec<Vec<u8>>, u16> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.state();
                if let Some(code) = state.ended {
                    return Err(code);
                }
                if state.corks == 0 && !state.frame.is_empty() {
                    state.rotate();
                }
                if !state.full.is_empty() {
                    let taken = state.some();
                    drop(state);
                    self.emptied.notify_waiters();
                    return Ok(taken);
                }
            }
            filled.await;
            self.gather().await;
        }
    }

    /// Lets those run who are about to, as they may have something to add: a runtime runs what was woken last first, so that without this every call
    /// would be a frame by itself. As long as it becomes more, and is worth more: whoever is alone waits for nobody. Not for long: where each of them takes
    /// its time, what is there would wait for all.
    async fn gather(&self) {
        let mut before = 0;
        for _ in 0..TURNS {
            let now = {
                let state = self.state();
                if state.ended.is_some() { WORTH } else { state.bytes + state.frame.bytes().len() }
            };
            if now >= WORTH || now == before {
                return;
            }
            before = now;
            tokio::task::yield_now().await;
        }
    }

    /// Waits until nothing is sent any more; the code that is said then.
    pub(crate) async fn ended(&self) -> u16 {
        let mut over = std::pin::pin!(self.over.notified());
        // Counted among those who wait before it looks.
        over.as_mut().enable();
        if let Some(code) = self.state().ended {
            return code;
        }
        over.await;
        self.state().ended.unwrap_or(1000)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state().ended.is_some()
    }

    /// Gives back the room that was made for much to say, if there is nothing to be said.
    pub(crate) fn rest(&self) {
        let mut state = self.state();
        if state.frame.is_empty() && state.full.is_empty() {
            state.frame = Frame::new(state.frame.format());
            state.full = VecDeque::new();
        }
    }

    /// Whether so much waits that nothing more should be asked for.
    pub(crate) fn is_high(&self) -> bool {
        self.state().is_high()
    }

    /// Waits until the other end has read enough of what it has asked for.
    pub(crate) async fn room(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            // Counted among those who wait before it looks.
            emptied.as_mut().enable();
            {
                let state = self.state();
                if state.bytes < HIGH || state.ended.is_some() {
                    return;
                }
            }
            emptied.await;
        }
    }
}

impl State {
    fn is_high(&self) -> bool {
        self.bytes >= HIGH || self.ended.is_some()
    }

    /// The first frames, of about so many bytes as are written before it is time to look around.
    fn some(&mut self) -> Vec<Vec<u8>> {
        let (mut bytes, mut count) = (0, 0);
        while bytes < SLICE && count < self.full.len() {
            bytes += self.full[count].len();
            count += 1;
        }
        self.bytes -= bytes;
        self.full.drain(..count).collect()
    }

    fn rotate(&mut self) {
        let frame = self.frame.take();
        if frame.len() >= FULL {
            // There is a lot to say: the next one will be as large.
            self.frame.reserve(FULL + FULL / 4);
        }
        self.bytes += frame.len();
        self.full.push_back(frame);
    }
}

/// See [`Outgoing::cork`].
#[derive(Debug)]
pub(crate) struct Cork<'a>(&'a Outgoing);

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.corks -= 1;
        let any = state.corks == 0 && (!state.frame.is_empty() || !state.full.is_empty());
        drop(state);
        if any {
            self.0.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::wire::System;

    fn add(out: &Outgoing, bytes: usize) {
        let pushed = out.push(&Head::system(System::Ok, 1), |out| {
            out.raw(&vec![0xc0; bytes]);
            Ok(())
        });
        assert!(matches!(pushed, Ok(Pushed::Queued)));
    }

    #[test]
    fn a_full_frame_is_not_held_back_by_who_fills_the_next() {
        let out = Outgoing::new(Format::Msgpack6c);
        out.open();
        let _cork = out.cork();
        let mut taking = std::pin::pin!(out.take());
        let cx = &mut Context::from_waker(Waker::noop());
        add(&out, 10);
        assert!(taking.as_mut().poll(cx).is_pending(), "more comes that belongs into it");
        add(&out, FULL);
        add(&out, 10);
        let Poll::Ready(Ok(taken)) = taking.as_mut().poll(cx) else { panic!("it is full") };
        assert_eq!(taken.len(), 1);
        assert!(taken[0].len() > FULL);
        let mut taking = std::pin::pin!(out.take());
        assert!(taking.as_mut().poll(cx).is_pending(), "the next one is not");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_many_tasks_add_at_once_goes_out_in_few_frames() {
        let out = Arc::new(Outgoing::new(Format::Msgpack6c));
        out.open();
        // On the worker, whose last woken task is the next to run: the writer, each time that something is added.
        let frames = tokio::spawn(async move {
            let writer = tokio::spawn({
                let out = out.clone();
                async move {
                    let mut frames = 0;
                    while let Ok(taken) = out.take().await {
                        frames += taken.len();
                    }
                    frames
                }
            });
            // Nobody waits for each of them: that would be woken last.
            let (done, all) = (Arc::new(Notify::new()), 1_000);
            let added = Arc::new(AtomicUsize::new(0));
            for _ in 0..all {
                let (out, added, done) = (out.clone(), added.clone(), done.clone());
                tokio::spawn(async move {
                    assert!(matches!(out.push(&Head::system(System::Cancel, 1), |_| Ok(())), Ok(Pushed::Queued)));
                    // Relaxed: they are all run by one thread.
                    if added.fetch_add(1, Ordering::Relaxed) + 1 == all {
                        done.notify_one();
                    }
                });
            }
            done.notified().await;
            out.end(1000);
            writer.await
        });
        let frames = frames.await.expect("no panic").expect("no panic");
        assert!(frames <= 50, "{frames} frames");
    }

    #[tokio::test]
    async fn that_there_is_too_much_to_say_is_not_overwritten_by_who_ends_because_of_it() {
        let out = Outgoing::new(Format::Msgpack6c);
        out.open();
        let much = "x".repeat(1 << 20);
        while !out.is_ended() {
            assert!(matches!(out.push(&Head::system(System::Ok, 1), |to| to.value(&much)), Ok(Pushed::Queued)));
        }
        out.end(1000);
        assert_eq!(out.take().await.map(|frames| frames.len()), Err(OVERFLOW));
    }
}
