//! The calls that one peer has received and that are not over.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::AbortHandle;
use wellspring::Invalidated;

use crate::peer::Peer;
use crate::verified::Verified;
use crate::wire::System;

/// Answers that are kept for who may not have got them: more, and the oldest are forgotten. A caller that comes back for one of those has its call
/// run again.
const MOST_KEPT: usize = 4_096;
/// Bytes of them.
const MOST_KEPT_BYTES: usize = 4 << 20;

/// By the caller's ids.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The last connection on which the other end has told, or is taken to have told, which calls it waits for.
    pub(crate) reconciled: u32,
    /// There are too many only if there are more than this: so they are seldom counted.
    look_above: usize,
    map: HashMap<u64, Entry, ahash::RandomState>,
    kept: std::collections::VecDeque<u64>,
    kept_bytes: usize,
}

/// A call that is not over.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) of: Of,
    pub(crate) state: State,
}

/// What was called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of {
    /// Which method, by its number, and the type of the call. None where only the answer is known.
    pub(crate) method: Option<(u32, u8)>,
    /// On which connection of the peer it came, counted from one; or was answered, where only that is known.
    pub(crate) connection: u32,
}

/// Most are values that were given out, of which there may be very many: what those need not is in boxes.
#[derive(Debug)]
pub(crate) enum State {
    /// Its body runs: which of all calls it is, and the task, once there is one.
    Running(u64, Option<AbortHandle>),
    /// It is over, and the answer could not be given, or may have been lost on its way.
    Answered(Box<Answer>),
    /// It was answered with a value, whose end is to be told, and is waited for as long as this is there. The answer, if it may have been lost.
    Live { end: End, answer: Option<Box<Answer>> },
    /// The value is stale, and nobody was there to be told.
    Stale { answer: Option<Box<Answer>> },
}

/// The end of a value that was given out.
#[derive(Debug)]
pub(crate) enum End {
    /// Nobody knows it: it is said in a while.
    Untracked,
    /// When the value may be stale.
    Mark(#[expect(dead_code, reason = "it is waited for as long as it is there")] Invalidated),
    /// When the value has changed.
    Change(Box<Verified>),
}

/// An answer, to be given again.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) call: System,
    pub(crate) hash: Option<Box<str>>,
    pub(crate) arguments: Box<[u8]>,
}

impl std::fmt::Debug for Answer {
    /// Without what it says, which is not for a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("call", &self.call).field("bytes", &self.arguments.len()).finish()
    }
}

impl Answer {
    fn size(&self) -> usize {
        self.arguments.len() + 64
    }
}

impl Calls {
    pub(crate) fn get(&self, id: u64) -> Option<&Entry> {
        self.map.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Entry> {
        self.map.get_mut(&id)
    }

    /// A call that is not known.
    pub(crate) fn insert(&mut self, id: u64, of: Of, state: State) {
        debug_assert!(!self.map.contains_key(&id), "call {id} is known");
        self.map.insert(id, Entry { of, state });
    }

    /// Takes a call out, with all that is kept of it.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.map.remove(&id)?;
        if let Some(answer) = entry.answer() {
            self.kept_bytes -= answer.size();
            self.kept.retain(|kept| *kept != id);
        }
        if self.map.is_empty() {
            self.map.shrink_to(64);
        }
        Some(entry)
    }

    /// Keeps the answer of a call, unless it is known and has one. One that is not known is over with its answer.
    pub(crate) fn keep(&mut self, id: u64, of: Of, answer: Answer) {
        let (size, answer) = (answer.size(), Box::new(answer));
        match self.map.get_mut(&id).map(|entry| &mut entry.state) {
            Some(State::Live { answer: kept @ None, .. } | State::Stale { answer: kept @ None }) => *kept = Some(answer),
            Some(_) => return,
            None => self.insert(id, of, State::Answered(answer)),
        }
        self.kept_bytes += size;
        self.kept.push_back(id);
        while self.kept.len() > MOST_KEPT || self.kept_bytes > MOST_KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.forget_answer(oldest);
        }
    }

    /// The value of a call is stale, and whether the other end has heard of it nobody knows. The end that nobody waits for any more.
    #[must_use = "what is the user's is dropped under no lock"]
    pub(crate) fn outlive(&mut self, id: u64, of: Of) -> Option<End> {
        match self.map.get_mut(&id) {
            Some(entry) => entry.state.outlive(),
            None => {
                self.insert(id, of, State::Stale { answer: None });
                None
            }
        }
    }

    /// Those that are stale, and were not said to be.
    pub(crate) fn stale(&self) -> impl Iterator<Item = u64> {
        self.map.iter().filter(|(_, entry)| matches!(entry.state, State::Stale { .. })).map(|(id, _)| *id)
    }

    /// If there are more values given out than so many, whose ends were not told: those that were given out first, as ids grow, an eighth of them
    /// at least and all that are too many. After it has looked it looks again when there are an eighth more.
    pub(crate) fn oldest(&mut self, most: usize) -> Vec<u64> {
        if self.map.len() <= most.max(self.look_above) {
            return Vec::new();
        }
        let given = self.map.iter().filter(|(_, entry)| matches!(entry.state, State::Live { .. } | State::Stale { .. })).map(|(id, _)| *id);
        let mut given: Vec<u64> = given.collect();
        if given.len() <= most {
            given.clear();
        }
        let some = given.len().div_ceil(8).max(given.len().saturating_sub(most));
        if some < given.len() {
            given.select_nth_unstable(some);
            given.truncate(some);
        }
        self.look_above = self.map.len() - given.len() + most / 8;
        given
    }

    /// It looks at the next opportunity, however many there are more.
    pub(crate) fn look_again(&mut self) {
        self.look_above = 0;
    }

    /// What is kept of an answer is not needed any more.
    pub(crate) fn forget_answer(&mut self, id: u64) {
        let Some(entry) = self.map.get_mut(&id) else { return };
        let size = entry.answer().map(Answer::size);
        match &mut entry.state {
            State::Answered(_) => drop(self.map.remove(&id)),
            State::Live { answer, .. } | State::Stale { answer } => *answer = None,
            State::Running(..) => {}
        }
        self.kept_bytes -= size.unwrap_or_default();
    }

    /// What was kept of an answer is on its way again: if it is lost, it is among what was sent last.
    pub(crate) fn given(&mut self, id: u64) {
        self.forget_answer(id);
        self.kept.retain(|kept| *kept != id);
    }

    /// All, after which there are none.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Entry> + use<> {
        (self.kept, self.kept_bytes) = Default::default();
        std::mem::take(&mut self.map).into_values()
    }

    /// Answers of earlier connections are not asked for any more.
    #[must_use = "what is the user's is dropped under no lock"]
    pub(crate) fn forget_answered(&mut self, connection: u32) -> Vec<Entry> {
        self.forget(|_, entry| entry.of.connection < connection && matches!(entry.state, State::Answered(_)))
    }

    /// Those of earlier connections, but for the ones that are listed, are over: whoever called has forgotten them. Running ones go on.
    #[must_use = "what is the user's is dropped under no lock"]
    pub(crate) fn forget_unlisted(&mut self, connection: u32, listed: &[u64]) -> Vec<Entry> {
        self.forget(|id, entry| {
            entry.of.connection < connection && !matches!(entry.state, State::Running(..)) && listed.binary_search(&id).is_err()
        })
    }

    /// At once: one by one would look through all that are kept for each.
    fn forget(&mut self, which: impl Fn(u64, &Entry) -> bool) -> Vec<Entry> {
        let forgotten: Vec<Entry> = self.map.extract_if(|id, entry| which(*id, entry)).map(|(_, entry)| entry).collect();
        self.kept_bytes -= forgotten.iter().filter_map(Entry::answer).map(Answer::size).sum::<usize>();
        self.kept.retain(|id| self.map.get(id).is_some_and(|entry| entry.answer().is_some()));
        forgotten
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

impl State {
    /// The value is stale, and has to be said to be, unless its call runs. The end that nobody waits for any more.
    #[must_use = "what is the user's is dropped under no lock"]
    pub(crate) fn outlive(&mut self) -> Option<End> {
        let (now, end) = match std::mem::replace(self, State::Stale { answer: None }) {
            State::Answered(answer) => (State::Stale { answer: Some(answer) }, None),
            State::Live { answer, end } => (State::Stale { answer }, Some(end)),
            other => (other, None),
        };
        *self = now;
        end
    }
}

impl Entry {
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match &self.state {
            State::Answered(answer) => Some(answer),
            State::Live { answer, .. } | State::Stale { answer } => answer.as_deref(),
            State::Running(..) => None,
        }
    }
}

/// Says to a peer that the value of a call is stale.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) peer: Weak<Peer>,
    pub(crate) id: u64,
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        // A peer that is gone has nobody to tell.
        if let Some(peer) = self.peer.upgrade() {
            peer.is_stale(self.id);
        }
    }
}

/// Sees to it that a notice is given at a value's end; whether that has come already.
pub(crate) fn arm(end: &mut Invalidated, notice: Notice) -> bool {
    let waker = Waker::from(Arc::new(notice));
    pin!(end).poll(&mut Context::from_waker(&waker)) == Poll::Ready(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of = Of { method: None, connection: 1 };

    /// One that counts as so many bytes.
    fn answer(size: usize) -> Answer {
        let answer = Answer { call: System::Ok, hash: None, arguments: vec![0; size - 64].into() };
        assert_eq!(answer.size(), size);
        answer
    }

    fn kept(calls: &Calls) -> Vec<u64> {
        let mut kept: Vec<u64> = calls.map.iter().filter(|(_, entry)| entry.answer().is_some()).map(|(id, _)| *id).collect();
        kept.sort_unstable();
        assert_eq!(calls.kept_bytes, calls.map.values().filter_map(Entry::answer).map(Answer::size).sum::<usize>());
        kept
    }

    #[test]
    fn answers_of_four_mebibytes_are_kept_and_of_more_the_last() {
        let mut calls = Calls::default();
        let quarter = MOST_KEPT_BYTES / 4;
        for id in 1..=4 {
            calls.keep(id, OF, answer(quarter));
        }
        assert_eq!((kept(&calls), calls.kept_bytes), (vec![1, 2, 3, 4], 4 << 20));
        calls.keep(5, OF, answer(64));
        assert_eq!(kept(&calls), [2, 3, 4, 5]);
        calls.keep(6, OF, answer(2 * quarter));
        assert_eq!((kept(&calls), calls.len()), (vec![4, 5, 6], 3), "what is over with its answer is forgotten with it");
        calls.given(6);
        assert_eq!((kept(&calls), calls.kept_bytes), (vec![4, 5], quarter + 64));
        calls.keep(7, OF, answer(MOST_KEPT_BYTES + 1));
        assert_eq!((kept(&calls), calls.kept_bytes), (Vec::new(), 0), "one that is larger by itself is not kept");
    }

    #[test]
    fn a_value_whose_answer_is_forgotten_for_the_room_of_others_has_its_end_told_all_the_same() {
        let mut calls = Calls::default();
        calls.insert(1, OF, State::Live { end: End::Untracked, answer: None });
        calls.keep(1, OF, answer(MOST_KEPT_BYTES));
        calls.keep(2, OF, answer(64));
        assert_eq!(kept(&calls), [2]);
        assert!(matches!(calls.get(1).map(|entry| &entry.state), Some(State::Live { answer: None, .. })));
    }
}
