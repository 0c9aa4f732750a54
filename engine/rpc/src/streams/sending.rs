//! A stream on its way.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::sync::Notify;

use super::{Window, Within};
use crate::failure::Failure;
use crate::outgoing::Pushed;
use crate::peer::Peer;
use crate::wire::{ErrorInfo, Format, Head, System};

/// Items that go into one message.
const BATCH: usize = 64;

/// Bytes that go into one message, if they are of several items.
const BATCH_BYTES: usize = 32 << 10;

/// Where items come from, already written.
pub(crate) trait Source: Send {
    /// Writes the next item, if there is one.
    fn poll_next(&mut self, cx: &mut Context<'_>, format: Format, out: &mut Vec<u8>) -> Poll<Option<Result<(), Failure>>>;
}

/// How far the other end has read.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) acks: Mutex<Acks>,
    pub(super) come: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acks {
    pub(super) next: u64,
    /// It is to be sent again from here.
    pub(super) reset: bool,
}

/// A stream that is being sent.
pub(super) struct Sending {
    pub(super) id: u64,
    pub(super) source: Box<dyn Source>,
    pub(super) window: Window,
    pub(super) progress: Arc<Progress>,
    /// The index of the first that is kept: all before it were read.
    pub(super) base: u64,
    /// Those that may have to be sent again.
    pub(super) items: VecDeque<Box<[u8]>>,
    /// Of a real-time stream whose window is full: the last of what has come since.
    pub(super) newest: Option<Box<[u8]>>,
    /// How it ends, once it has no more items.
    pub(super) over: Option<Option<Failure>>,
}

impl Sending {
    pub(super) async fn run(mut self, weak: Weak<Peer>) {
        // What is sent next. Nothing while there is no connection.
        let mut next = Some(0_u64);
        loop {
            let Some(peer) = weak.upgrade() else { return };
            self.hear(&mut next);
            if let Some(at) = next {
                next = self.send(&peer, at);
            }
            let wants_more =
                self.over.is_none() && (self.window.real_time || next.is_some_and(|next| next >= self.produced() && next < self.limit()));
            let waits_for_room = next.is_some_and(|next| next < self.produced().min(self.limit()));
            let format = peer.format;
            let progress = self.progress.clone();
            if waits_for_room {
                // The connection's end ends this as well.
                tokio::select! {
                    () = peer.out.room() => {}
                    () = progress.come.notified() => {}
                    () = std::future::poll_fn(|cx| self.produce(cx, &weak, format)), if self.window.real_time && self.over.is_none() => {}
                }
                tokio::task::yield_now().await;
                continue;
            }
            // Not kept while it waits: a peer that is gone ends its streams.
            drop(peer);
            tokio::task::consume_budget().await;
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
        if self.produced() < self.limit() {
            self.items.extend(self.newest.take());
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
            if peer.out.is_ended() {
                return None;
            }
            if peer.out.is_high() {
                // Others wait as well: it goes on when there is room.
                return Some(at);
            }
            let first = (at - self.base) as usize;
            let room = (self.limit() - at) as usize;
            let mut bytes = 0;
            let fits = |item: &&[u8]| {
                let is_first = bytes == 0;
                bytes += item.len() + 1;
                is_first || bytes <= BATCH_BYTES
            };
            let from_here = self.items.iter().skip(first).map(|item| &**item);
            let some: Vec<&[u8]> = from_here.take(BATCH.min(room)).take_while(fits).collect();
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
            let is_full = self.produced() >= self.limit();
            if (is_full && !self.window.real_time) || self.over.is_some() {
                break;
            }
            // Items of a stream are much alike: most are written into room of just their size.
            let mut item = Vec::with_capacity(self.items.back().map_or(0, |item| item.len().min(BATCH_BYTES)));
            let source = &mut self.source;
            // A source that panicked is not asked again.
            match catch_unwind(AssertUnwindSafe(|| source.poll_next(cx, format, &mut item))) {
                Ok(Poll::Ready(Some(Ok(())))) if is_full => self.newest = Some(item.into()),
                Ok(Poll::Ready(Some(Ok(())))) => self.items.push_back(item.into()),
                Ok(Poll::Ready(Some(Err(failure)))) => self.over = Some(Some(failure)),
                Ok(Poll::Ready(None)) => self.over = Some(None),
                Ok(Poll::Pending) => break,
                Err(_) => self.over = Some(Some(Failure::new("the source of the stream panicked"))),
            }
            any = true;
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    }
}
