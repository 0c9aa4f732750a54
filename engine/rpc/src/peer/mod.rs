//! One end of a connection that outlives it.

mod receive;
mod reconcile;
mod settle;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::caller::OtherEnd;
use crate::calls::{Answer, Calls, Entry, Of, State};
use crate::hub::Offer;
use crate::outbound::{Met, Outbound};
use crate::outgoing::Outgoing;
use crate::remote::Connected;
use crate::streams::owned::Streams;
use crate::wire::{Format, Guid, Handshake, Headers, Messages, Secret, System};

/// This end of a connection between two processes: what is known of the calls of both, whether or not they are connected now.
///
/// Locks are taken in this order: calls, then what is going out. The others are held while nothing else is taken.
pub(crate) struct Peer {
    pub(crate) offer: Arc<Offer>,
    /// Whether the other end has to prove by our secret that it is the same again, as clients do.
    is_server: bool,
    /// Whether the other end may call what is for backends.
    backend: bool,
    pub(crate) id: Guid,
    pub(crate) format: Format,
    pub(crate) secret: Secret,
    pub(crate) born: Instant,
    pub(crate) out: Outgoing,
    pub(crate) made: Outbound,
    pub(crate) other: OtherEnd,
    streams: Streams,
    calls: Mutex<Calls>,
    /// Of the last call that was received.
    serial: AtomicU64,
    /// Of the call whose body is run by the reader just now, before anything is written down of it.
    inline: AtomicU64,
    /// Calls whose values are stale.
    stale: Mutex<Vec<u64>>,
    pub(crate) stale_come: Notify,
    /// Calls that failed without anybody knowing for how long, and when that is said to be over.
    untracked: Mutex<VecDeque<(Instant, u64)>>,
    /// How many connections there were.
    connection: AtomicU32,
    /// The other end.
    remote: Mutex<Remote>,
}

#[derive(Default)]
struct Remote {
    peer: Option<Guid>,
    /// By which this end proves itself.
    secret: Option<Secret>,
    /// Whether there was another end before that, which may know this one by another secret.
    is_another: bool,
}

impl fmt::Debug for Peer {
    /// Nothing by which a connection could be taken over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).field("format", &self.format).finish_non_exhaustive()
    }
}

impl Peer {
    pub(crate) fn new(offer: Arc<Offer>, format: Format, is_server: bool) -> Peer {
        Peer {
            offer,
            is_server,
            backend: false,
            id: Guid::random(),
            format,
            secret: Secret::random(),
            born: Instant::now(),
            out: Outgoing::new(format),
            made: Outbound::default(),
            other: OtherEnd::new(),
            streams: Streams::default(),
            calls: Mutex::default(),
            serial: AtomicU64::new(0),
            inline: AtomicU64::new(0),
            stale: Mutex::default(),
            stale_come: Notify::new(),
            untracked: Mutex::default(),
            connection: AtomicU32::new(0),
            remote: Mutex::default(),
        }
    }

    /// For a connection that came in where backends do, or not.
    pub(crate) fn for_backend(mut self, backend: bool) -> Peer {
        self.backend = backend;
        self
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Every change is whole before anything that can panic.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self) -> MutexGuard<'_, Vec<u64>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untracked(&self) -> MutexGuard<'_, VecDeque<(Instant, u64)>> {
        self.untracked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remote(&self) -> MutexGuard<'_, Remote> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this end says first on its next connection.
    pub(crate) fn greet(&self) -> Handshake<'_> {
        // Relaxed: there is one connection of a peer at a time.
        let index = self.connection.fetch_add(1, Ordering::Relaxed) + 1;
        Handshake {
            peer: self.id,
            versions: Some(Cow::Borrowed(if self.backend { "Backend=1.0" } else { "Api=1.0" })),
            hub: self.offer.id,
            protocol: Handshake::PROTOCOL,
            index: i32::try_from(index).unwrap_or(i32::MAX),
            secret: self.is_server.then(|| Cow::Borrowed(self.secret.as_str())),
        }
    }

    fn connection(&self) -> u32 {
        self.connection.load(Ordering::Relaxed)
    }

    /// The other end has said who it is: another one than before knows of no calls, and is not heard of those that it had made.
    pub(crate) fn met(&self, hello: &Handshake<'_>) {
        let met = {
            let mut remote = self.remote();
            if let Some(secret) = hello.secret.as_deref().filter(|secret| !secret.is_empty()) {
                remote.secret = Some(Secret::new(secret));
            }
            match remote.peer.replace(hello.peer) {
                None => Met::First,
                Some(before) if before == hello.peer => Met::Same,
                Some(_) => {
                    remote.is_another = true;
                    Met::Other
                }
            }
        };
        if met == Met::Other {
            self.forget_all();
        }
        self.made.resume(&self.out, met, hello.index);
        if met == Met::Same {
            self.streams.resume(&self.out);
            // What was answered without a connection.
            let mut calls = self.calls();
            calls.look_again();
            let dropped = self.drop_oldest(&mut calls);
            drop(calls);
            // What was given out is the user's.
            drop(dropped);
        }
        self.other.is_now(Connected::Yes);
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Whether the other end is a client.
    pub(crate) fn is_server(&self) -> bool {
        self.is_server
    }

    /// Whether the other end has ever said who it is.
    pub(crate) fn has_met(&self) -> bool {
        self.remote().peer.is_some()
    }

    /// By which this end proves itself, once it knows.
    pub(crate) fn remote_secret(&self) -> Option<Secret> {
        self.remote().secret.clone()
    }

    /// Nobody asks for a proof any more, as this end is to be known by another id. False if there was one other end only: then it has that secret.
    pub(crate) fn forgets_secret(&self) -> bool {
        let mut remote = self.remote();
        let is_another = std::mem::take(&mut remote.is_another);
        if is_another {
            remote.secret = None;
        }
        is_another
    }

    /// Every call of the other end is over, and every stream.
    pub(crate) fn forget_all(&self) {
        self.streams.forget_all();
        let over: Vec<Entry> = self.calls().clear().collect();
        self.stale().clear();
        self.untracked().clear();
        for entry in &over {
            if let State::Running(_, Some(abort)) = &entry.state {
                abort.abort();
            }
        }
    }

    /// This end is given up.
    pub(crate) fn close(&self) {
        self.out.close();
        self.made.close();
        self.forget_all();
        self.streams.close();
        self.other.is_now(Connected::Never);
    }

    /// The connection is gone, with what was sent last and what was not sent any more: what is answered in it is kept.
    pub(crate) fn lost(&self, recent: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let unsent = self.out.close();
        self.streams.lost();
        self.other.is_now(Connected::Connecting);
        let of = Of { method: None, connection: self.connection() };
        let mut ends = Vec::new();
        let mut calls = self.calls();
        let recent: Vec<_> = recent.into_iter().collect();
        for frame in recent.iter().map(AsRef::as_ref).chain(unsent.iter().map(Vec::as_slice)) {
            for message in Messages::new(self.format, frame).flatten() {
                let id = message.related_id;
                match System::of(&message.method) {
                    Some(call @ (System::Ok | System::Error | System::Match)) => {
                        let hash = message.headers.get(Headers::HASH).map(Box::from);
                        calls.keep(id, of, Answer { call, hash, arguments: message.arguments.into() });
                    }
                    Some(System::Invalidate) => ends.extend(calls.outlive(id, of)),
                    _ => {}
                }
            }
        }
        drop(calls);
        // What was given out is the user's.
        drop(ends);
    }

    /// The value of a call is stale. Said by whoever has committed that, so nothing is done here but to write it down.
    pub(crate) fn is_stale(&self, id: u64) {
        self.stale().push(id);
        self.stale_come.notify_one();
    }

    /// How many calls are not over.
    pub(crate) fn open_calls(&self) -> usize {
        self.calls().len()
    }
}
