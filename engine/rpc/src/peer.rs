//! One end of a connection that outlives it.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;
use wellspring::Invalidated;

use crate::call::{Asks, Call};
use crate::calls::{self, Answer, Calls, Entry, Notice, Of, State};
use crate::failure::Failure;
use crate::hub::Shared;
use crate::outbound::{Met, Outbound};
use crate::outgoing::{Outgoing, Pushed};
use crate::service::{Kind, Slot};
use crate::wire::{
    Arguments, ErrorInfo, Format, FrameError, Guid, Handshake, Head, Headers, Message, Messages, Packed, ReadError, Secret, System,
    WriteError, Writer, pack,
};

/// How long after a failure that nobody tracks a caller is told that it is stale.
const UNTRACKED: Duration = Duration::from_secs(1);

/// This end of a connection between two processes: what is known of the calls of both, whether or not they are connected now.
pub(crate) struct Peer {
    pub(crate) hub: Arc<Shared>,
    /// Whether the other end has to prove by our secret that it is the same again, as clients do.
    is_server: bool,
    pub(crate) id: Guid,
    pub(crate) format: Format,
    pub(crate) secret: Secret,
    pub(crate) born: Instant,
    pub(crate) out: Outgoing,
    pub(crate) made: Outbound,
    calls: Mutex<Calls>,
    /// Calls whose values are stale.
    stale: Mutex<Vec<u64>>,
    pub(crate) stale_come: Notify,
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
    /// The connection on which it has told which calls it waits for.
    reconciled: u32,
}

impl fmt::Debug for Peer {
    /// Nothing by which a connection could be taken over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).field("format", &self.format).finish_non_exhaustive()
    }
}

impl Peer {
    pub(crate) fn new(hub: Arc<Shared>, format: Format, is_server: bool) -> Peer {
        Peer {
            hub,
            is_server,
            id: Guid::random(),
            format,
            secret: Secret::random(),
            born: Instant::now(),
            out: Outgoing::new(format),
            made: Outbound::default(),
            calls: Mutex::default(),
            stale: Mutex::default(),
            stale_come: Notify::new(),
            connection: AtomicU32::new(0),
            remote: Mutex::default(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Every change is whole before anything that can panic.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self) -> MutexGuard<'_, Vec<u64>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remote(&self) -> MutexGuard<'_, Remote> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this end says first on its next connection.
    pub(crate) fn greet(&self) -> Handshake<'_> {
        // Ordered by the hub, which has one connection of a peer at a time.
        let index = self.connection.fetch_add(1, Ordering::Relaxed) + 1;
        Handshake {
            peer: self.id,
            versions: Some(Cow::Borrowed("Api=1.0")),
            hub: self.hub.id,
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
                Some(_) => Met::Other,
            }
        };
        if met == Met::Other {
            self.forget_all();
        }
        self.made.resume(&self.out, met, hello.index);
    }

    /// By which this end proves itself, once it knows.
    pub(crate) fn remote_secret(&self) -> Option<Secret> {
        self.remote().secret.clone()
    }

    /// Every call is over.
    pub(crate) fn forget_all(&self) {
        let over: Vec<Entry> = self.calls().clear().collect();
        self.stale().clear();
        for entry in &over {
            if let State::Running(abort) = &entry.state {
                abort.abort();
            }
        }
    }

    /// The connection is gone, with what was sent last and what was not sent any more: what is answered in it is kept.
    pub(crate) fn lost(&self, recent: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let unsent = self.out.close();
        let of = Of { method: None, connection: self.connection() };
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
                    Some(System::Invalidate) => calls.outlive(id, of),
                    _ => {}
                }
            }
        }
    }

    /// One message of the other end.
    pub(crate) fn receive(self: &Arc<Peer>, message: &Message<'_>, slot: &mut Slot) {
        if let Some(call) = System::of(&message.method) {
            if let Err(error) = self.receive_system(call, message) {
                tracing::debug!(target: "wellspring::rpc", method = call.name(), %error, "a system call cannot be read");
            }
            return;
        }
        if message.method.service().is_some_and(|service| service == "$sys" || service == "$sys-c") {
            return tracing::debug!(target: "wellspring::rpc", method = %message.method, "a system call that is not known: ignored");
        }
        let Some((number, method)) = self.hub.methods.find(&message.method) else {
            let asks = Asks { push: message.call_type == 1, hash: None };
            let failure = Failure::typed(ErrorInfo::RPC, ErrorInfo::no_such_method(&message.method).message);
            return Call::new(self.clone(), message.related_id, asks).fail(&failure);
        };
        let (id, is_compute) = (message.related_id, message.call_type == 1);
        if method.kind != Kind::NoWait {
            if self.is_known(id, number, message.call_type) {
                return;
            }
            if message.call_type > 1 || (is_compute && method.kind != Kind::Compute) {
                let failure = Failure::typed(ErrorInfo::RPC, format!("Invalid CallTypeId: {}.", message.call_type));
                return Call::new(self.clone(), id, Asks { push: is_compute, hash: None }).fail(&failure);
            }
        }
        let hash = message.headers.get(Headers::HASH).map(Box::from);
        let asks = Asks { push: is_compute, hash };
        let call = Call::new(self.clone(), if method.kind == Kind::NoWait { 0 } else { id }, asks.clone());
        let started = catch_unwind(AssertUnwindSafe(|| method.start(Arguments::new(self.format, message.arguments), call, slot)));
        match started {
            Ok(Ok(())) => {}
            Ok(Err((error, call))) => {
                return call.fail(&Failure::typed(ErrorInfo::ARGUMENT, format!("The arguments cannot be read: {error}.")));
            }
            // The slot has what it had before, which is over.
            Err(_) => return Call::new(self.clone(), id, asks).fail(&Failure::new("the method panicked")),
        }
        // Most are over at once: then nothing is written down of them.
        let mut cx = Context::from_waker(Waker::noop());
        match catch_unwind(AssertUnwindSafe(|| slot.poll(&mut cx))) {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => self.run(id, number, message.call_type, std::mem::replace(slot, Slot::new(async {}))),
            Err(_) => {
                *slot = Slot::new(async {});
                Call::new(self.clone(), id, asks).fail(&Failure::new("the method panicked"));
            }
        }
    }

    /// A task of its own.
    fn run(self: &Arc<Peer>, id: u64, method: usize, call_type: u8, slot: Slot) {
        if id == 0 {
            tokio::spawn(slot);
            return;
        }
        // Before it can be over.
        let mut calls = self.calls();
        let abort = tokio::spawn(slot).abort_handle();
        calls.insert(id, Of { method: Some((method, call_type)), connection: self.connection() }, State::Running(abort));
    }

    /// Whether a call with this id is known. It is joined if it is the same, and ignored if it is another.
    fn is_known(self: &Arc<Peer>, id: u64, method: usize, call_type: u8) -> bool {
        let mut calls = self.calls();
        let Some(entry) = calls.get(id) else { return false };
        if entry.of.method.is_some_and(|known| known != (method, call_type)) {
            tracing::debug!(target: "wellspring::rpc", id, "a call has the id of another one: ignored");
            return true;
        }
        match (&entry.state, entry.answer()) {
            (State::Running(_), _) => {}
            (_, Some(answer)) => _ = self.give(id, answer),
            // It was answered, and the answer is not there any more: it is cheap to find again.
            (_, None) => {
                calls.remove(id);
                return false;
            }
        }
        true
    }

    /// An answer once more.
    fn give(&self, id: u64, answer: &Answer) -> bool {
        let headers = answer.hash.as_deref().map(|hash| (Headers::HASH, hash));
        let head = Head::system(answer.call, id).with(headers.as_slice());
        let given = self.out.push(&head, |out| {
            out.raw(&answer.arguments);
            Ok(())
        });
        matches!(given, Ok(Pushed::Queued))
    }

    pub(crate) fn is_running(&self, id: u64) -> bool {
        matches!(self.calls().get(id), Some(Entry { state: State::Running(_), .. }))
    }

    /// Answers a call, and watches the value's end if that is wanted.
    pub(crate) fn answer(
        self: &Arc<Peer>,
        id: u64,
        asks: &Asks,
        call: System,
        end: Option<Invalidated>,
        write: &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) {
        if id == 0 {
            return;
        }
        if let Some(known) = asks.hash.as_deref().filter(|_| call == System::Ok) {
            let mut arguments = Vec::new();
            if let Err(error) = write(&mut Writer::new(self.format, &mut arguments)) {
                return self.cannot_write(id, &error.into());
            }
            let hash = hash(&arguments);
            let answer = match *known == *hash {
                true => Answer { call: System::Match, hash: None, arguments: Box::default() },
                false => Answer { call, hash: Some(hash.into()), arguments: arguments.into() },
            };
            let headers = answer.hash.as_deref().map(|hash| (Headers::HASH, hash));
            let head = Head::system(answer.call, id).with(headers.as_slice());
            return self.settle(id, &head, end, &|out| {
                if answer.call == System::Ok {
                    out.raw(&answer.arguments);
                }
                Ok(())
            });
        }
        self.settle(id, &Head::system(call, id), end, write);
    }

    fn settle(
        self: &Arc<Peer>,
        id: u64,
        head: &Head<'_>,
        end: Option<Invalidated>,
        write: &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) {
        // Under this lock, so that a call is never found running after its answer could not be given.
        let mut calls = self.calls();
        let pushed = self.out.push(head, write);
        let before = calls.remove(id).map(|entry| entry.of);
        let of = before.unwrap_or_else(|| Of { method: None, connection: self.connection() });
        let answer = match pushed {
            Ok(Pushed::Queued) => None,
            Ok(Pushed::Closed) => {
                let mut arguments = Vec::new();
                if let Err(error) = write(&mut Writer::new(self.format, &mut arguments)) {
                    drop(calls);
                    return self.cannot_write(id, &error.into());
                }
                let (call, hash) = (head.system_call().unwrap_or(System::Ok), head.header(Headers::HASH).map(Box::from));
                Some(Answer { call, hash, arguments: arguments.into() })
            }
            Err(error) => {
                drop(calls);
                return self.cannot_write(id, &error);
            }
        };
        let mut over = false;
        if let Some(mut end) = end {
            over = calls::arm(&mut end, Notice { peer: Arc::downgrade(self), id });
            calls.insert(id, of, State::Live { _end: Some(end), answer: None });
        }
        if let Some(answer) = answer {
            calls.keep(id, of, answer);
        }
        drop(calls);
        if over {
            self.is_stale(id);
        }
    }

    fn cannot_write(self: &Arc<Peer>, id: u64, error: &FrameError) {
        tracing::warn!(target: "wellspring::rpc", %error, "a result cannot be sent");
        let failure = Failure::new(format!("The result cannot be sent: {error}."));
        self.answer(id, &Asks::default(), System::Error, None, &|out| out.value(&failure.info()));
    }

    /// A failure that nobody knows the end of is over in a while.
    pub(crate) fn tell_later(self: &Arc<Peer>, id: u64) {
        let peer = Arc::downgrade(self);
        {
            let mut calls = self.calls();
            if calls.get(id).is_none() {
                let of = Of { method: None, connection: self.connection() };
                calls.insert(id, of, State::Live { _end: None, answer: None });
            }
        }
        tokio::spawn(async move {
            tokio::time::sleep(UNTRACKED).await;
            if let Some(peer) = peer.upgrade() {
                peer.is_stale(id);
            }
        });
    }

    /// The value of a call is stale. Said by whoever has committed that, so nothing is done here but to write it down.
    pub(crate) fn is_stale(&self, id: u64) {
        self.stale().push(id);
        self.stale_come.notify_one();
    }

    /// Tells which values are stale, all in one frame. Of calls that came on an earlier connection only if the other end has said that it waits.
    pub(crate) fn tell_stale(&self) {
        let stale = std::mem::take(&mut *self.stale());
        let reconciled = self.remote().reconciled == self.connection();
        let _cork = self.out.cork();
        let mut calls = self.calls();
        for id in stale {
            let Some(Entry { of, state: state @ (State::Live { .. } | State::Stale { .. }) }) = calls.get_mut(id) else { continue };
            let may = reconciled || of.connection == self.connection();
            if may && matches!(self.out.push(&Head::system(System::Invalidate, id), |_| Ok(())), Ok(Pushed::Queued)) {
                calls.remove(id);
            } else if let State::Live { answer, .. } = state {
                *state = State::Stale { answer: answer.take() };
            }
        }
    }

    fn receive_system(self: &Arc<Peer>, call: System, message: &Message<'_>) -> Result<(), ReadError> {
        let mut arguments = Arguments::new(self.format, message.arguments);
        match call {
            System::Cancel => {
                let entry = self.calls().remove(message.related_id);
                if let Some(Entry { state: State::Running(abort), .. }) = entry {
                    abort.abort();
                }
            }
            System::KeepAlive => {
                let streams: Vec<u64> = arguments.read::<Option<_>>()?.unwrap_or_default();
                self.disown(&streams);
            }
            System::Ack => self.disown(&[message.related_id]),
            System::Reconnect => {
                let (index, stages): (i32, BTreeMap<u32, Packed<'_>>) = (arguments.read()?, arguments.read()?);
                self.reconcile(message.related_id, index, &stages)?;
            }
            System::Ok | System::Error | System::Match => self.made.answered(&self.out, message.related_id, call, message.arguments),
            System::Invalidate => self.made.ended(message.related_id),
            // Repeated handshakes, and what is about streams that are not known.
            _ => {}
        }
        Ok(())
    }

    /// Streams that are not ours, or not any more.
    fn disown(&self, streams: &[u64]) {
        if !streams.is_empty() {
            // Without a connection there is nobody to tell.
            let _ = self.out.push(&Head::system(System::Disconnect, 0), |out| out.value(streams));
        }
    }

    /// The other end says which calls it waits for, and at which stage each is; it is told which of them are not known.
    fn reconcile(self: &Arc<Peer>, id: u64, index: i32, stages: &BTreeMap<u32, Packed<'_>>) -> Result<(), ReadError> {
        let connection = self.connection();
        let reply = Call::new(self.clone(), id, Asks::default());
        {
            let mut remote = self.remote();
            if u32::try_from(index) != Ok(connection) || remote.reconciled == connection {
                drop(remote);
                reply.fail(&Failure::typed(ErrorInfo::RPC, "It is too late to reconnect on this connection."));
                return Ok(());
            }
            remote.reconciled = connection;
        }
        let _cork = self.out.cork();
        let (mut unknown, mut listed, mut stale) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut calls = self.calls();
            for (stage, ids) in stages {
                for id in ids.ids() {
                    let Ok(id) = id else { break };
                    listed.push(id);
                    let Some(entry) = calls.get(id) else {
                        unknown.push(id);
                        continue;
                    };
                    match (&entry.state, stage) {
                        (State::Live { answer: None, .. } | State::Stale { answer: None }, 0) => {
                            // What it was answered with is not there any more, and cheap to find again.
                            unknown.push(id);
                            calls.remove(id);
                            continue;
                        }
                        (State::Answered(answer), 0)
                        | (State::Live { answer: Some(answer), .. } | State::Stale { answer: Some(answer) }, 0) => {
                            self.give(id, answer);
                        }
                        _ => {}
                    }
                    if matches!(entry.state, State::Stale { .. }) {
                        stale.push(id);
                    }
                }
            }
            listed.sort_unstable();
            calls.forget_unlisted(connection, &listed);
        }
        unknown.sort_unstable();
        unknown.dedup();
        reply.answer(|out| out.value(&Packed(Cow::Owned(pack(unknown.iter().copied())))));
        self.stale().extend(stale);
        self.stale_come.notify_one();
        Ok(())
    }

    /// How many calls are not over.
    pub(crate) fn open_calls(&self) -> usize {
        self.calls().len()
    }
}

/// What a result is compared by: the first 18 bytes of its SHA-256, in base64.
fn hash(arguments: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(arguments)[..18])
}

/// The frames that were sent last, of which nobody knows whether they have arrived: those of the last second, and not more than 256 KiB.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    frames: VecDeque<(Instant, bytes::Bytes)>,
    bytes: usize,
}

impl Recent {
    /// Longer ago than this, what was sent counts as received.
    const AGE: Duration = Duration::from_secs(1);
    /// More than this is not kept.
    const BYTES: usize = 256 << 10;

    pub(crate) fn add(&mut self, frame: bytes::Bytes) {
        let now = Instant::now();
        self.bytes += frame.len();
        self.frames.push_back((now, frame));
        while let Some((sent, frame)) = self.frames.front()
            && (self.bytes > Recent::BYTES || now.duration_since(*sent) > Recent::AGE)
        {
            self.bytes -= frame.len();
            self.frames.pop_front();
        }
    }

    pub(crate) fn take(&mut self) -> Vec<bytes::Bytes> {
        let now = Instant::now();
        self.bytes = 0;
        self.frames.drain(..).filter(|(sent, _)| now.duration_since(*sent) <= Recent::AGE).map(|(_, frame)| frame).collect()
    }
}
