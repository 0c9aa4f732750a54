//! What the other end says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::Peer;
use crate::call::{Asks, Call};
use crate::calling::{Calling, Under};
use crate::calls::{Entry, Of, State};
use crate::failure::Failure;
use crate::method_limits::Place;
use crate::service::Kind;
use crate::slots::{Body, Slots};
use crate::streams::owned::MOST as MOST_STREAMS;
use crate::wire::{Arguments, AtMost, ErrorInfo, Guid, Head, Headers, Message, ReadError, System, limits};

/// Of an item that is marked as of some .NET type, for example. To pass it over would be to wait for it for ever.
const UNREADABLE: &str = "an item of the stream cannot be read";

impl Peer {
    /// One message of the other end, within whose values this is; which system call it is, if it is one.
    pub(crate) fn receive(self: &Arc<Peer>, message: &Message<'_>, slots: &mut Slots) -> Option<System> {
        let system = System::of(&message.method);
        match system {
            Some(call) => {
                if self.receive_system(call, message).is_err() {
                    // Without the reason, which may quote what was sent.
                    tracing::debug!(target: "wellspring::rpc", method = call.name(), "a system call cannot be read");
                }
            }
            None => {
                self.dispatch(message, slots);
                // What settles itself from now on is written down. Serials begin at one.
                self.inline.store(0, Ordering::Release);
            }
        }
        system
    }

    fn dispatch(self: &Arc<Peer>, message: &Message<'_>, slots: &mut Slots) {
        if message.method.service().is_some_and(|service| service == "$sys" || service == "$sys-c") {
            return tracing::debug!(target: "wellspring::rpc", method = %message.method, "a system call that is not known: ignored");
        }
        let found = self.offer.methods.find(&message.method, self.backend);
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
        let verified = found.is_some_and(|(_, method)| method.verified);
        let asks = Asks { push: is_compute, verified, hash: message.headers.get(Headers::HASH).map(Box::from) };
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
        let calling = Calling::new(self, method, &message.headers);
        let under = match calling.enter(message.arguments.len()) {
            Ok(under) => under,
            Err(failure) => return call().fail(&failure),
        };
        let scope = under.as_ref().map(Under::scope);
        let started =
            catch_unwind(AssertUnwindSafe(|| method.start(&calling, Arguments::new(self.format, message.arguments), call(), slots)));
        match started {
            Ok(Ok(())) => {}
            Ok(Err((error, call))) => {
                return call.fail(&Failure::typed(ErrorInfo::ARGUMENT, format!("The arguments cannot be read: {error}.")));
            }
            // What is put in last is what was there before, which is over.
            Err(_) => return call().fail(&Failure::new("the method panicked")),
        }
        // Most are over at once: then nothing is written down of them.
        match catch_unwind(AssertUnwindSafe(|| slots.poll(&mut Context::from_waker(Waker::noop())))) {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => {
                self.inline.store(0, Ordering::Release);
                let of = Of { method: Some((number, message.call_type)), connection: self.connection() };
                drop(scope);
                let Some(body) = slots.take() else { return };
                let body = match under {
                    None => body,
                    Some(under) => Body::new(under.run(body, call())),
                };
                self.run(id, serial, of, body);
            }
            Err(_) => {
                call().fail(&Failure::new("the method panicked"));
                drop(slots.take());
            }
        }
    }

    /// Goes on in a task of its own.
    fn run(self: &Arc<Peer>, id: u64, serial: u64, of: Of, body: Body) {
        let place = Place::add(&self.other.running);
        let body = async move {
            let _place = place;
            body.await;
        };
        if id == 0 {
            tokio::spawn(body);
            return;
        }
        // Before it can be over, and not in one step with the spawning: a runtime that is ending drops the body at once, which asks.
        self.calls().insert(id, of, State::Running(serial, None));
        let abort = tokio::spawn(body).abort_handle();
        match self.calls().get_mut(id).map(|entry| &mut entry.state) {
            Some(State::Running(running, task)) if *running == serial => *task = Some(abort),
            // It is over, or everything was forgotten.
            _ => abort.abort(),
        }
    }

    /// Whether a call with this id is known. It is joined if it is the same, and ignored if it is another.
    fn is_known(&self, id: u64, called: Option<(u32, u8)>) -> bool {
        let connection = self.connection();
        let mut calls = self.calls();
        let Some(entry) = calls.get_mut(id) else { return false };
        if called.is_none() || entry.of.method.is_some_and(|known| Some(known) != called) {
            tracing::debug!(target: "wellspring::rpc", id, "a call has the id of another one: ignored");
            return true;
        }
        let is_stale = matches!(entry.state, State::Stale { .. });
        let given = match (&entry.state, entry.answer()) {
            (State::Running(..), _) => false,
            (_, Some(answer)) => self.give(id, answer),
            // It was answered, and the answer is not there any more: it is cheap to find again.
            (_, None) => {
                let over = calls.remove(id);
                drop(calls);
                // What was given out is the user's.
                drop(over);
                return false;
            }
        };
        entry.of.connection = connection;
        if given {
            calls.given(id);
        }
        drop(calls);
        if is_stale {
            self.is_stale(id);
        }
        true
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
                let AtMost::<u64, MOST_STREAMS>(streams) = arguments.read()?;
                self.disown(&self.streams().kept(&streams));
            }
            System::Ack => {
                let id = message.related_id;
                let known = match (arguments.read(), arguments.read()) {
                    (Ok(next), Ok(host)) => self.streams().acknowledged(self, id, next, host),
                    // An index that no stream has.
                    _ => false,
                };
                if !known {
                    self.streams().released(id);
                    self.disown(&[id]);
                }
            }
            System::AckEnd => {
                let host: Guid = arguments.read()?;
                // One of a process before this may be of a stream that had the number then.
                if host == self.id || host.is_none() {
                    self.streams().released(message.related_id);
                } else {
                    self.disown(&[message.related_id]);
                }
            }
            System::Item => {
                let (index, item) = (arguments.read()?, arguments.raw());
                if let Some(stream) = self.streams().consumer(message.related_id) {
                    match item {
                        Ok(item) if arguments.is_over() => stream.take(index, std::iter::once(item)),
                        _ => stream.fail(Failure::new(UNREADABLE)),
                    }
                }
            }
            System::Batch => {
                let (index, items) = (arguments.read()?, arguments.raw_list::<{ limits::BATCH }>());
                if let Some(stream) = self.streams().consumer(message.related_id) {
                    match items {
                        Ok(items) => stream.take(index, items.into_iter()),
                        Err(_) => stream.fail(Failure::new(UNREADABLE)),
                    }
                }
            }
            System::End => {
                let (index, info): (u64, ErrorInfo<'_>) = (arguments.read()?, arguments.read()?);
                let failure = (!info.is_none()).then(|| Failure::typed(info.type_ref.into_owned(), info.message.into_owned()));
                if let Some(stream) = self.streams().consumer(message.related_id) {
                    stream.end(index, failure);
                }
            }
            System::Disconnect => {
                let AtMost::<u64, MOST_STREAMS>(ids) = arguments.read()?;
                for stream in ids.into_iter().filter_map(|id| self.streams().consumer(id)) {
                    stream.fail(Failure::new("the stream is not there any more"));
                }
            }
            System::Reconnect => self.reconcile(message.related_id, &mut arguments),
            System::Ok | System::Error | System::Match => self.made.answered(&self.out, message.related_id, call, message.arguments),
            System::Invalidate => self.made.ended(message.related_id),
            // Repeated handshakes.
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
}
