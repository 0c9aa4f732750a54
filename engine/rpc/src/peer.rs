//! One end of a connection that outlives it.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::call::{Asks, Call, Ends};
use crate::calls::{self, Answer, Calls, Entry, Notice, Of, State};
use crate::failure::Failure;
use crate::hub::Offer;
use crate::outbound::{Met, Outbound};
use crate::outgoing::{Outgoing, Pushed};
use crate::service::{Kind, Slot};
use crate::wire::{
    Arguments, ErrorInfo, Format, FrameError, Guid, Handshake, Head, Headers, Message, Messages, Packed, ReadError, Secret, System,
    WriteError, Writer, pack,
};

/// How long after a failure that nobody tracks a caller is told that it is stale.
const UNTRACKED: Duration = Duration::from_secs(1);

/// More calls than this nobody waits for at once.
const MOST_LISTED: usize = 1 << 20;

/// This end of a connection between two processes: what is known of the calls of both, whether or not they are connected now.
///
/// Locks are taken in this order: calls, then what is going out. The others are held while nothing else is taken.
pub(crate) struct Peer {
    pub(crate) offer: Arc<Offer>,
    /// Whether the other end has to prove by our secret that it is the same again, as clients do.
    is_server: bool,
    pub(crate) id: Guid,
    pub(crate) format: Format,
    pub(crate) secret: Secret,
    pub(crate) born: Instant,
    pub(crate) out: Outgoing,
    pub(crate) made: Outbound,
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
            id: Guid::random(),
            format,
            secret: Secret::random(),
            born: Instant::now(),
            out: Outgoing::new(format),
            made: Outbound::default(),
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
            versions: Some(Cow::Borrowed("Api=1.0")),
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
                Some(_) => Met::Other,
            }
        };
        if met == Met::Other {
            self.forget_all();
        }
        self.made.resume(&self.out, met, hello.index);
    }

    /// Whether the other end has ever said who it is.
    pub(crate) fn has_met(&self) -> bool {
        self.remote().peer.is_some()
    }

    /// By which this end proves itself, once it knows.
    pub(crate) fn remote_secret(&self) -> Option<Secret> {
        self.remote().secret.clone()
    }

    /// Every call of the other end is over.
    pub(crate) fn forget_all(&self) {
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
        let found = self.offer.methods.find(&message.method);
        let is_waited_for = found.is_none_or(|(_, method)| method.kind != Kind::NoWait);
        let (id, is_compute) = match is_waited_for {
            true if message.related_id == 0 => {
                return tracing::debug!(target: "wellspring::rpc", "a call that cannot be answered, as it has no id: ignored");
            }
            true => (message.related_id, message.call_type == 1),
            // Whatever id it has is of no meaning.
            false => (0, false),
        };
        if is_waited_for && self.is_known(id, found.map(|(number, _)| (number, message.call_type))) {
            return;
        }
        let asks = Asks { push: is_compute, hash: message.headers.get(Headers::HASH).map(Box::from) };
        // Relaxed: one reader at a time counts.
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let call = || Call::new(self.clone(), id, serial, asks.clone());
        // Release, with the acquire of whoever settles it: by this thread, in the very call below, or not at all.
        self.inline.store(serial, Ordering::Release);
        let Some((number, method)) = found else {
            return call().fail(&Failure::typed(ErrorInfo::RPC, ErrorInfo::no_such_method(&message.method).message));
        };
        if is_waited_for && (message.call_type > 1 || (is_compute && method.kind != Kind::Compute)) {
            return call().fail(&Failure::typed(ErrorInfo::RPC, format!("Invalid CallTypeId: {}.", message.call_type)));
        }
        let started = catch_unwind(AssertUnwindSafe(|| method.start(Arguments::new(self.format, message.arguments), call(), slot)));
        match started {
            Ok(Ok(())) => {}
            Ok(Err((error, call))) => {
                return call.fail(&Failure::typed(ErrorInfo::ARGUMENT, format!("The arguments cannot be read: {error}.")));
            }
            // The slot has what it had before, which is over.
            Err(_) => return call().fail(&Failure::new("the method panicked")),
        }
        // Most are over at once: then nothing is written down of them.
        match catch_unwind(AssertUnwindSafe(|| slot.poll(&mut Context::from_waker(Waker::noop())))) {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => {
                let of = Of { method: Some((number, message.call_type)), connection: self.connection() };
                self.run(id, serial, of, std::mem::replace(slot, Slot::new(async {})));
            }
            Err(_) => {
                call().fail(&Failure::new("the method panicked"));
                *slot = Slot::new(async {});
            }
        }
    }

    /// Goes on in a task of its own.
    fn run(self: &Arc<Peer>, id: u64, serial: u64, of: Of, slot: Slot) {
        if id == 0 {
            tokio::spawn(slot);
            return;
        }
        // Before it can be over, and not in one step with the spawning: a runtime that is ending drops the body at once, which asks.
        self.calls().insert(id, of, State::Running(serial, None));
        let abort = tokio::spawn(slot).abort_handle();
        match self.calls().get_mut(id).map(|entry| &mut entry.state) {
            Some(State::Running(running, task)) if *running == serial => *task = Some(abort),
            // It is over, or everything was forgotten.
            _ => abort.abort(),
        }
    }

    /// Whether a call with this id is known. It is joined if it is the same, and ignored if it is another.
    fn is_known(&self, id: u64, called: Option<(usize, u8)>) -> bool {
        let connection = self.connection();
        let mut calls = self.calls();
        let Some(entry) = calls.get_mut(id) else { return false };
        if called.is_none() || entry.of.method.is_some_and(|known| Some(known) != called) {
            tracing::debug!(target: "wellspring::rpc", id, "a call has the id of another one: ignored");
            return true;
        }
        let is_stale = matches!(entry.state, State::Stale { .. });
        match (&entry.state, entry.answer()) {
            (State::Running(..), _) => {}
            (_, Some(answer)) => _ = self.give(id, answer),
            // It was answered, and the answer is not there any more: it is cheap to find again.
            (_, None) => {
                calls.remove(id);
                return false;
            }
        }
        entry.of.connection = connection;
        drop(calls);
        if is_stale {
            self.is_stale(id);
        }
        true
    }

    /// An answer once more.
    fn give(&self, id: u64, answer: &Answer) -> bool {
        let headers = answer.hash.as_deref().map(|hash| (Headers::HASH, hash));
        let head = Head::system(answer.call, id).with(headers.as_slice());
        let given = self.out.push(&head, |out| {
            out.raw_all(&answer.arguments);
            Ok(())
        });
        matches!(given, Ok(Pushed::Queued))
    }

    pub(crate) fn is_running(&self, id: u64, serial: u64) -> bool {
        matches!(self.calls().get(id), Some(Entry { state: State::Running(running, _), .. }) if *running == serial)
    }

    /// Answers a call, and watches the value's end if that is wanted.
    pub(crate) fn answer(
        self: &Arc<Peer>,
        id: u64,
        serial: u64,
        asks: &Asks,
        call: System,
        ends: Ends,
        write: &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) {
        if id == 0 {
            return;
        }
        let Some(known) = asks.hash.as_deref().filter(|_| call == System::Ok) else {
            return self.settle(id, serial, &Head::system(call, id), ends, write);
        };
        let mut arguments = Vec::new();
        if let Err(error) = write(&mut Writer::new(self.format, &mut arguments)) {
            return self.settle(id, serial, &Head::system(call, id), ends, &|_| Err(error.clone()));
        }
        let hash = hash(&arguments);
        if *known == *hash {
            return self.settle(id, serial, &Head::system(System::Match, id), ends, &|_| Ok(()));
        }
        let headers = [(Headers::HASH, hash.as_str())];
        self.settle(id, serial, &Head::system(call, id).with(&headers), ends, &|out| {
            out.raw_all(&arguments);
            Ok(())
        });
    }

    fn settle(
        self: &Arc<Peer>,
        id: u64,
        serial: u64,
        head: &Head<'_>,
        ends: Ends,
        write: &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) {
        // Under this lock, so that a call is never found running after its answer could not be given.
        let mut calls = self.calls();
        let of = match calls.get(id) {
            Some(Entry { of, state: State::Running(running, _) }) if *running == serial => *of,
            None if self.inline.load(Ordering::Acquire) == serial => Of { method: None, connection: self.connection() },
            // It was cancelled, or is of a client that is not there any more.
            _ => return,
        };
        let (of, answer) = match self.out.push(head, write) {
            // Whoever is told by this connection can be told by it of the end.
            Ok(Pushed::Queued) => (Of { connection: self.connection(), ..of }, None),
            Ok(Pushed::Closed) => {
                let mut arguments = Vec::new();
                if let Err(error) = write(&mut Writer::new(self.format, &mut arguments)) {
                    drop(calls);
                    return self.cannot_write(id, serial, head, ends, &error.into());
                }
                let (call, hash) = (head.system_call().unwrap_or(System::Ok), head.header(Headers::HASH).map(Box::from));
                (of, Some(Answer { call, hash, arguments: arguments.into() }))
            }
            Err(error) => {
                drop(calls);
                return self.cannot_write(id, serial, head, ends, &error);
            }
        };
        calls.remove(id);
        let mut over = false;
        match ends {
            Ends::Never => {}
            Ends::Soon => {
                calls.insert(id, of, State::Live { _end: None, answer: None });
                self.untracked().push_back((Instant::now() + UNTRACKED, id));
                self.stale_come.notify_one();
            }
            Ends::At(mut end) => {
                over = calls::arm(&mut end, Notice { peer: Arc::downgrade(self), id });
                calls.insert(id, of, State::Live { _end: Some(end), answer: None });
            }
        }
        if let Some(answer) = answer {
            calls.keep(id, of, answer);
        }
        drop(calls);
        if over {
            self.is_stale(id);
        }
    }

    /// In the place of a result that cannot be sent: a failure, which ends when the result would have.
    fn cannot_write(self: &Arc<Peer>, id: u64, serial: u64, head: &Head<'_>, ends: Ends, error: &FrameError) {
        tracing::debug!(target: "wellspring::rpc", %error, "a result cannot be sent");
        if head.system_call() == Some(System::Error) {
            // Two short texts can be sent.
            return;
        }
        let failure = Failure::new("the result cannot be sent: it is too large, or not for this format");
        self.settle(id, serial, &Head::system(System::Error, id), ends, &|out| out.value(&failure.info()));
    }

    /// The value of a call is stale. Said by whoever has committed that, so nothing is done here but to write it down.
    pub(crate) fn is_stale(&self, id: u64) {
        self.stale().push(id);
        self.stale_come.notify_one();
    }

    /// Tells which values are stale, all in one frame. Of calls that were answered on an earlier connection only once the other end has said that it
    /// waits for them.
    pub(crate) fn tell_stale(&self) {
        let mut stale = std::mem::take(&mut *self.stale());
        let now = Instant::now();
        {
            let mut untracked = self.untracked();
            while untracked.front().is_some_and(|(when, _)| *when <= now) {
                stale.extend(untracked.pop_front().map(|(_, id)| id));
            }
        }
        let _cork = self.out.cork();
        let connection = self.connection();
        let mut calls = self.calls();
        let reconciled = calls.reconciled == connection;
        for id in stale {
            let Some(Entry { of, state: state @ (State::Live { .. } | State::Stale { .. }) }) = calls.get_mut(id) else { continue };
            let may = reconciled || of.connection == connection;
            if may && matches!(self.out.push(&Head::system(System::Invalidate, id), |_| Ok(())), Ok(Pushed::Queued)) {
                calls.remove(id);
            } else if let State::Live { answer, .. } = state {
                *state = State::Stale { answer: answer.take() };
            }
        }
    }

    /// When there is something to be told next, if that is known.
    pub(crate) fn next_untracked(&self) -> Option<Instant> {
        self.untracked().front().map(|(when, _)| *when)
    }

    /// A client that has nothing to wait for does not say so. After a while it is taken to have said it: the ends of what it has forgotten do no harm.
    pub(crate) fn presume_reconciled(&self) {
        let connection = self.connection();
        let mut calls = self.calls();
        if calls.reconciled != connection {
            calls.reconciled = connection;
            let stale: Vec<u64> = calls.stale().collect();
            drop(calls);
            self.stale().extend(stale);
        }
    }

    fn receive_system(self: &Arc<Peer>, call: System, message: &Message<'_>) -> Result<(), ReadError> {
        let mut arguments = Arguments::new(self.format, message.arguments);
        match call {
            System::Cancel => {
                let entry = self.calls().remove(message.related_id);
                if let Some(Entry { state: State::Running(_, Some(abort)), .. }) = entry {
                    abort.abort();
                }
            }
            System::KeepAlive => {
                let streams: Vec<u64> = arguments.read::<Option<_>>()?.unwrap_or_default();
                self.disown(&streams);
            }
            System::Ack => self.disown(&[message.related_id]),
            System::Reconnect => self.reconcile(message.related_id, &mut arguments),
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

    /// The other end says which calls it waits for, and at which stage each is; it is told which of them are not known. If it is not told it sends all
    /// of them again, which does no harm.
    fn reconcile(&self, id: u64, arguments: &mut Arguments<'_>) {
        let refuse = |why: String| {
            let failure = Failure::typed(ErrorInfo::RPC, why);
            // Two short texts can be sent, and who is not connected does not hear it.
            let _ = self.out.push(&Head::system(System::Error, id), |out| out.value(&failure.info()));
        };
        let (index, stages) = match Stages::read(arguments) {
            Ok(read) => read,
            Err(error) => return refuse(format!("The calls cannot be read: {error}.")),
        };
        let connection = self.connection();
        let (mut unknown, mut listed, mut stale) = (Vec::new(), Vec::new(), Vec::new());
        let _cork = self.out.cork();
        {
            let mut calls = self.calls();
            if u32::try_from(index) != Ok(connection) || calls.reconciled == connection {
                drop(calls);
                return refuse("It is too late to reconnect on this connection.".to_owned());
            }
            calls.reconciled = connection;
            for (stage, id) in stages.0 {
                listed.push(id);
                let Some(entry) = calls.get_mut(id) else {
                    unknown.push(id);
                    continue;
                };
                // What was answered on this connection is on its way.
                if entry.of.connection != connection && stage == 0 {
                    match (&entry.state, entry.answer()) {
                        (State::Running(..), _) => {}
                        (_, Some(answer)) => _ = self.give(id, answer),
                        // What it was answered with is not there any more, and cheap to find again.
                        (_, None) => {
                            unknown.push(id);
                            calls.remove(id);
                            continue;
                        }
                    }
                }
                if matches!(entry.state, State::Stale { .. }) {
                    stale.push(id);
                }
            }
            listed.sort_unstable();
            calls.forget_unlisted(connection, &listed);
        }
        unknown.sort_unstable();
        unknown.dedup();
        let unknown = Packed(Cow::Owned(pack(unknown)));
        // As above.
        let _ = self.out.push(&Head::system(System::Ok, id), |out| out.value(&unknown));
        self.stale().extend(stale);
        self.stale_come.notify_one();
    }

    /// How many calls are not over.
    pub(crate) fn open_calls(&self) -> usize {
        self.calls().len()
    }
}

/// Calls that are waited for: at which stage each is. None twice.
struct Stages(Vec<(u32, u64)>);

impl Stages {
    fn read(arguments: &mut Arguments<'_>) -> Result<(i32, Stages), ReadError> {
        let (index, packed): (i32, BTreeMap<u32, Packed<'_>>) = (arguments.read()?, arguments.read()?);
        let mut stages = Vec::new();
        for (stage, ids) in &packed {
            let mut last = None;
            for id in ids.ids() {
                let id = id.map_err(|error| ReadError::new(error.to_string()))?;
                if stages.len() >= MOST_LISTED {
                    return Err(ReadError::new("more calls than anybody waits for"));
                }
                if last.replace(id) != Some(id) {
                    stages.push((*stage, id));
                }
            }
        }
        Ok((index, Stages(stages)))
    }
}

/// What a result is compared by: the first 18 bytes of its SHA-256, in base64.
fn hash(arguments: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(arguments)[..18])
}
