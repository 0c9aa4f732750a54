//! Answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Peer;
use crate::call::{Asks, Ends};
use crate::calls::{self, Answer, Calls, Entry, Notice, Of, State};
use crate::failure::Failure;
use crate::hash::Hash;
use crate::outgoing::Pushed;
use crate::verified::Verified;
use crate::wire::{FrameError, Head, Headers, System, WriteError, Writer};

/// How long after a failure that nobody tracks a caller is told that it is stale.
const UNTRACKED: Duration = Duration::from_secs(1);

impl Peer {
    /// An answer once more.
    pub(super) fn give(&self, id: u64, answer: &Answer) -> bool {
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
        let hash = Hash::of(&arguments).to_string();
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
                calls.insert(id, of, State::Live { end: calls::End::Untracked, answer: None });
                self.untracked().push_back((Instant::now() + UNTRACKED, id));
                self.stale_come.notify_one();
            }
            Ends::At(mut end) => {
                over = calls::arm(&mut end, Notice { peer: Arc::downgrade(self), id });
                calls.insert(id, of, State::Live { end: calls::End::Mark(end), answer: None });
            }
            Ends::Changed(given) => {
                let verified;
                (verified, over) = Verified::watch(given, Notice { peer: Arc::downgrade(self), id });
                calls.insert(id, of, State::Live { end: calls::End::Change(Box::new(verified)), answer: None });
            }
        }
        // Before that one may be among the oldest: an answer must not outlive the end that follows it.
        if let Some(answer) = answer {
            calls.keep(id, of, answer);
        }
        // Dropped when no lock is held.
        let dropped = self.drop_oldest(&mut calls);
        if over {
            // Under the lock: whoever is told next which of its calls are known is told this before.
            self.is_stale(id);
        }
        drop(calls);
        drop(dropped);
    }

    /// The other end waits for the ends of more values than it may: of those that it has had for longest it hears that they are stale, as it may ask
    /// again for what it still needs. Without a connection nothing is dropped; when there is one again it is looked once more.
    pub(super) fn drop_oldest(&self, calls: &mut Calls) -> Vec<Entry> {
        let oldest = calls.oldest(self.offer.subscriptions);
        if oldest.is_empty() {
            return Vec::new();
        }
        let _cork = self.out.cork();
        let connection = self.connection();
        let reconciled = calls.reconciled == connection;
        let mut dropped = Vec::new();
        for id in oldest {
            // As with the stale ones: nothing is said before it has said which it still waits for. What it lists then is not known any more, which ends
            // it, too. Who never lists anything is not to have more for that.
            let may = reconciled || calls.get(id).is_some_and(|entry| entry.of.connection == connection);
            if !may || matches!(self.out.push(&Head::system(System::Invalidate, id), |_| Ok(())), Ok(Pushed::Queued)) {
                dropped.extend(calls.remove(id));
            }
        }
        dropped
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
}
