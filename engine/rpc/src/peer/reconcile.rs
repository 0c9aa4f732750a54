//! Ends of values, and who still waits for them after a connection was made again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::Peer;
use crate::calls::{End, Entry, Notice, State};
use crate::failure::Failure;
use crate::outgoing::Pushed;
use crate::verified::{self, Given, Known};
use crate::wire::{Arguments, ErrorInfo, Head, Packed, PairsAtMost, ReadError, System, pack};

/// More calls than this nobody waits for at once.
const MOST_LISTED: usize = 1 << 20;

/// Nor are there more stages.
const MOST_STAGES: usize = 64;

impl Peer {
    /// Tells which values are stale, all in one frame. Of calls that were answered on an earlier connection only once the other end has said that it
    /// waits for them.
    pub(crate) fn tell_stale(self: &Arc<Peer>) {
        let now = Instant::now();
        // What was given out is the user's: not dropped, nor brought up to date, under the lock.
        let (mut dropped, mut ends, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        {
            let _cork = self.out.cork();
            let connection = self.connection();
            let mut calls = self.calls();
            let reconciled = calls.reconciled == connection;
            // Under the lock of the calls: whoever has that after this finds nothing taken that is not told.
            let mut stale = std::mem::take(&mut *self.stale());
            {
                let mut untracked = self.untracked();
                while untracked.front().is_some_and(|(when, _)| *when <= now) {
                    stale.extend(untracked.pop_front().map(|(_, id)| id));
                }
            }
            for id in stale {
                let Some(Entry { of, state: state @ (State::Live { .. } | State::Stale { .. }) }) = calls.get_mut(id) else { continue };
                if let State::Live { end: End::Change(verified), .. } = state {
                    match verified.ended() {
                        Known::Changed => {}
                        Known::NotYet => continue,
                        Known::ToBeAsked(given) => {
                            asked.push((id, given));
                            continue;
                        }
                    }
                }
                let may = reconciled || of.connection == connection;
                if may && matches!(self.out.push(&Head::system(System::Invalidate, id), |_| Ok(())), Ok(Pushed::Queued)) {
                    dropped.extend(calls.remove(id));
                } else {
                    ends.extend(state.outlive());
                }
            }
        }
        drop((dropped, ends));
        asked.into_iter().for_each(|(id, given)| verified::ask(self, id, given));
    }

    /// A value that may have been stale was brought up to date.
    pub(crate) fn verified(self: &Arc<Peer>, id: u64, given: &Arc<dyn Given>, mut now: Option<Arc<dyn Given>>) {
        let mut calls = self.calls();
        let (over, before) = match calls.get_mut(id).map(|entry| &mut entry.state) {
            Some(State::Live { end: End::Change(verified), .. }) => {
                verified.become_known(given, &mut now, Notice { peer: Arc::downgrade(self), id })
            }
            _ => (false, None),
        };
        if over {
            // Under the lock: whoever has that after this finds that the value is in doubt.
            self.is_stale(id);
        }
        drop(calls);
        // What is the user's is not dropped under the lock, nor what it is now, if nobody wants that.
        drop((before, now));
    }

    /// When there is something to be told next, if that is known.
    pub(crate) fn next_untracked(&self) -> Option<Instant> {
        self.untracked().front().map(|(when, _)| *when)
    }

    /// A client that has nothing to wait for does not say so. After a while it is taken to have said it: answers that it has not asked for are forgotten,
    /// and the ends of what it has forgotten do no harm.
    pub(crate) fn presume_reconciled(&self) {
        let connection = self.connection();
        let mut calls = self.calls();
        if calls.reconciled != connection {
            calls.reconciled = connection;
            let forgotten = calls.forget_answered(connection);
            let stale: Vec<u64> = calls.stale().collect();
            drop(calls);
            drop(forgotten);
            self.stale().extend(stale);
        }
    }

    /// The other end says which calls it waits for, and at which stage each is; it is told which of them are not known. If it is not told it sends all
    /// of them again, which does no harm.
    pub(super) fn reconcile(self: &Arc<Peer>, id: u64, arguments: &mut Arguments<'_>) {
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
        // What was given out is the user's: not dropped under the lock.
        let (mut dropped, mut ends) = (Vec::new(), Vec::new());
        let _cork = self.out.cork();
        {
            let mut calls = self.calls();
            if u32::try_from(index) != Ok(connection) || calls.reconciled == connection {
                drop(calls);
                return refuse("It is too late to reconnect on this connection.".to_owned());
            }
            calls.reconciled = connection;
            let doubted: HashSet<u64, ahash::RandomState> = self.stale().iter().copied().collect();
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
                        (_, Some(answer)) if !self.give(id, answer) => continue,
                        (_, Some(_)) => {}
                        // What it was answered with is not there any more, and cheap to find again.
                        (_, None) => {
                            unknown.push(id);
                            dropped.extend(calls.remove(id));
                            continue;
                        }
                    }
                }
                // To look whether a value that may be stale is takes time, and whoever has the answer to this is to have heard of every end.
                if let State::Live { end: End::Change(verified), .. } = &entry.state
                    && (!verified.holds() || doubted.contains(&id))
                {
                    ends.extend(entry.state.outlive());
                }
                if matches!(entry.state, State::Stale { .. }) {
                    stale.push(id);
                }
                // It is among what was sent last from now on, as any answer that is given on a connection.
                calls.forget_answer(id);
            }
            listed.sort_unstable();
            dropped.extend(calls.forget_unlisted(connection, &listed));
        }
        // Before the answer: whoever has that has heard of everything that ended without a connection.
        self.stale().extend(stale);
        self.tell_stale();
        unknown.sort_unstable();
        unknown.dedup();
        let unknown = Packed(Cow::Owned(pack(unknown)));
        // As above.
        let _ = self.out.push(&Head::system(System::Ok, id), |out| out.value(&unknown));
    }
}

/// Calls that are waited for: at which stage each is. None twice.
struct Stages(Vec<(u32, u64)>);

impl Stages {
    fn read(arguments: &mut Arguments<'_>) -> Result<(i32, Stages), ReadError> {
        let (index, packed): (i32, PairsAtMost<u32, Packed<'_>, MOST_STAGES>) = (arguments.read()?, arguments.read()?);
        let mut stages = Vec::new();
        for (stage, ids) in &packed.0 {
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
