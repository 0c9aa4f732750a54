//! The calls that one peer has made and that are not over.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::Notify;

use crate::call_options::Sent;
use crate::end::End;
use crate::numbered::Numbered;
use crate::outgoing::{Outgoing, Pushed};
use crate::wire::{FrameError, Head, MethodId, Packed, ReadError, System, limits, pack, unpack};

/// By this end's ids, which go on through all connections.
///
/// The notice is for who waits until the other end has said what it knows.
#[derive(Debug, Default)]
pub(crate) struct Outbound(Mutex<State>, Notify);

#[derive(Debug, Default)]
struct State {
    last: u64,
    calls: Numbered<Made>,
    /// Those that wait to be sent, in order.
    queue: VecDeque<u64>,
    /// The call by which the other end was asked what it knows, until what it has answered is told here, and of which calls, in order.
    asked: Option<(u64, Vec<u64>)>,
    /// Whether something that the other end may know of was forgotten while nobody could tell it.
    untold: bool,
    /// Nothing is called any more.
    over: bool,
}

/// A call that was made.
struct Made {
    call_type: u8,
    method: MethodId,
    headers: Sent,
    /// Its arguments, then its answer: one buffer for each call.
    bytes: Vec<u8>,
    /// Whether it was given to a connection, whatever became of it there.
    sent: bool,
    /// Whether it was so ever, also if it has to be sent again.
    was_sent: bool,
    stage: Stage,
}

enum Stage {
    /// For its answer: whoever waits for that.
    Waiting(Option<Waker>),
    /// The answer has come, and was not taken yet. Of a compute call its end may come first.
    Answered(System, Option<Arc<End>>),
    /// The result was taken, and its end is waited for.
    Live(Arc<End>),
    /// A compute call was stale before its result had come.
    Cancelled,
}

impl fmt::Debug for Made {
    /// Without what is sent and what has come, which is not for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("method", &self.method).field("sent", &self.sent).finish_non_exhaustive()
    }
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A result, or a failure, and of a compute call its end.
    Answer { call: System, arguments: Vec<u8>, end: Option<Arc<End>> },
    /// A compute call was stale before its result had come.
    Cancelled,
    /// There is no answer, and there will be none.
    Never,
}

/// What is to be done for those who wait, when no lock is held.
#[derive(Default)]
#[must_use]
struct Told {
    wakers: Vec<Waker>,
    ends: Vec<Arc<End>>,
}

impl Told {
    fn tell(self) {
        self.ends.iter().for_each(|end| end.tell());
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

/// Whether the other end is the one that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    First,
    Same,
    Other,
}

impl Outbound {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call, which is sent now or when there is a connection. Whoever waits for it is woken when
    /// [`Outbound::reply`] has something new. None if nothing is called any more.
    pub(crate) fn call(
        &self,
        out: &Outgoing,
        call_type: u8,
        method: &MethodId,
        headers: Sent,
        arguments: Vec<u8>,
        waker: Waker,
    ) -> Result<Option<u64>, FrameError> {
        if arguments.len() > limits::ARGUMENTS {
            return Err(FrameError::TooLarge(arguments.len()));
        }
        let mut state = self.state();
        if state.over {
            return Ok(None);
        }
        let id = state.last + 1;
        // Behind those that wait.
        let sent = state.queue.is_empty() && send(out, call_type, id, method, &headers, &arguments)?;
        if !sent {
            state.queue.push_back(id);
        }
        state.last = id;
        let stage = Stage::Waiting(Some(waker));
        state.calls.push(id, Made { call_type, method: method.clone(), headers, bytes: arguments, sent, was_sent: sent, stage });
        Ok(Some(id))
    }

    /// What has come of a call. Once: what is over is not known any more.
    pub(crate) fn reply(&self, id: u64, waker: &Waker) -> Poll<Reply> {
        let mut state = self.state();
        let Some(made) = state.calls.get_mut(id) else { return Poll::Ready(Reply::Never) };
        match &mut made.stage {
            Stage::Waiting(Some(known)) if known.will_wake(waker) => return Poll::Pending,
            Stage::Waiting(known) => {
                let before = known.replace(waker.clone());
                drop(state);
                // Not under the lock: it is the executor's.
                drop(before);
                return Poll::Pending;
            }
            // Whoever has the result waits for its end.
            Stage::Live(_) => return Poll::Pending,
            Stage::Answered(_, Some(end)) if !end.has_come() => {}
            Stage::Answered(..) | Stage::Cancelled => {
                // Taken out where it is: moved as a whole it would be read in other parts than it was just written in.
                let (bytes, stage) = (std::mem::take(&mut made.bytes), std::mem::replace(&mut made.stage, Stage::Cancelled));
                // What is left is our own.
                state.calls.delete(id);
                drop(state);
                return Poll::Ready(match stage {
                    Stage::Answered(call, end) => Reply::Answer { call, arguments: bytes, end },
                    _ => Reply::Cancelled,
                });
            }
        }
        let Stage::Answered(call, Some(end)) = &made.stage else { return Poll::Pending };
        let (call, end) = (*call, end.clone());
        made.stage = Stage::Live(end.clone());
        Poll::Ready(Reply::Answer { call, arguments: std::mem::take(&mut made.bytes), end: Some(end) })
    }

    /// Nobody waits for a call any more, or for the end of what it has brought.
    pub(crate) fn forget(&self, out: &Outgoing, id: u64) {
        let mut state = self.state();
        let Some(made) = state.calls.remove(id) else { return };
        let is_over = match &made.stage {
            Stage::Waiting(_) | Stage::Live(_) => false,
            Stage::Answered(_, end) => end.as_ref().is_none_or(|end| end.has_come()),
            Stage::Cancelled => true,
        };
        if made.sent && !is_over && !matches!(out.push(&Head::system(System::Cancel, id), |_| Ok(())), Ok(Pushed::Queued)) {
            // It is told when it is asked what it knows: what is not listed is over.
            state.untold = true;
        }
        drop(state);
        drop(made);
    }

    /// Takes a call back that the other end cannot know of. False if it may know of it: then the call goes on.
    pub(crate) fn withdraw(&self, id: u64) -> bool {
        let mut state = self.state();
        let is_ours = state.calls.get(id).is_some_and(|made| !made.was_sent);
        // What is in the queue without being here is passed over there.
        let made = is_ours.then(|| state.calls.remove(id));
        drop(state);
        made.is_some()
    }

    /// An answer has come.
    pub(crate) fn answered(&self, out: &Outgoing, id: u64, call: System, arguments: &[u8]) {
        let mut state = self.state();
        if let Some((asked, of)) = &mut state.asked
            && *asked == id
        {
            let of = std::mem::take(of);
            let told = state.told(out, &of, call, arguments);
            drop(state);
            told.tell();
            // Not before: whoever finds that the other end has said what it knows reads nothing that has ended by that.
            let mut state = self.state();
            // There may be another connection already, on which it was asked again.
            state.asked.take_if(|(asked, _)| *asked == id);
            drop(state);
            return self.1.notify_waiters();
        }
        // Late answers are of calls that nobody waits for; a second one is given again by a server that could not know of the first.
        let Some(made) = state.calls.get_mut(id) else { return };
        let Stage::Waiting(waker) = &mut made.stage else { return };
        let waker = waker.take();
        made.headers = Sent::default();
        made.bytes.clear();
        made.bytes.extend_from_slice(arguments);
        made.stage = Stage::Answered(call, (made.call_type == 1).then(Arc::default));
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What a compute call has brought is stale.
    pub(crate) fn ended(&self, id: u64) {
        let mut told = Told::default();
        let mut state = self.state();
        if state.calls.get(id).is_some_and(|made| made.call_type == 1) {
            state.end(id, &mut told);
        }
        drop(state);
        told.tell();
    }

    /// There is a connection again, and messages may be sent: what is not sent yet is sent, and the other end is asked what it knows of the rest.
    pub(crate) fn resume(&self, out: &Outgoing, met: Met, index: i32) {
        // Under this lock: a call that is sent on the new connection must not be taken for one of those that it is asked for.
        let mut state = self.state();
        out.open();
        state.asked = None;
        state.queue.clear();
        let (mut waiting, mut live, mut unsent) = (Vec::new(), Vec::new(), Vec::new());
        for (id, made) in state.calls.iter() {
            match &made.stage {
                _ if !made.sent => unsent.push(id),
                Stage::Waiting(_) => waiting.push(id),
                Stage::Live(_) => live.push(id),
                Stage::Answered(_, Some(end)) if !end.has_come() => live.push(id),
                // Nothing of it is waited for.
                Stage::Answered(..) | Stage::Cancelled => {}
            }
        }
        let again = [&mut waiting, &mut live, &mut unsent];
        again.into_iter().for_each(|ids| ids.sort_unstable());
        let _cork = out.cork();
        let mut told = Told::default();
        if met == Met::Other {
            live.iter().for_each(|id| state.end(*id, &mut told));
            told.wakers = state.send(out, &waiting);
        } else if !waiting.is_empty() || !live.is_empty() || state.untold {
            state.ask(out, index, &waiting, &live);
        }
        state.untold = false;
        told.wakers.extend(state.send(out, &unsent));
        drop(state);
        told.tell();
        self.1.notify_waiters();
    }

    /// Whether the other end has said what it knows of the calls of before the present connection, and what has ended meanwhile.
    pub(crate) fn is_reconciled(&self) -> bool {
        self.state().asked.is_none()
    }

    /// Waits until it has.
    pub(crate) async fn reconciled(&self) {
        loop {
            let mut reconciled = std::pin::pin!(self.1.notified());
            // Counted among those who wait before it looks.
            reconciled.as_mut().enable();
            if self.is_reconciled() {
                return;
            }
            reconciled.await;
        }
    }

    /// There is room again for what waits.
    pub(crate) fn pump(&self, out: &Outgoing) {
        let mut state = self.state();
        if !state.queue.is_empty() {
            let wakers = state.pump(out);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// No call is answered any more. What was answered can be taken.
    pub(crate) fn close(&self) {
        let mut told = Told::default();
        let mut state = self.state();
        state.over = true;
        let over = state.calls.take_if(|made| matches!(made.stage, Stage::Waiting(_) | Stage::Live(_)));
        told.ends.extend(state.calls.iter().filter_map(|(_, made)| match &made.stage {
            Stage::Answered(_, end) => end.clone(),
            _ => None,
        }));
        drop(state);
        for made in over {
            match made.stage {
                Stage::Waiting(waker) => told.wakers.extend(waker),
                Stage::Live(end) => told.ends.push(end),
                Stage::Answered(..) | Stage::Cancelled => {}
            }
        }
        told.tell();
    }

    pub(crate) fn len(&self) -> usize {
        self.state().calls.len()
    }
}

impl State {
    fn ask(&mut self, out: &Outgoing, index: i32, waiting: &[u64], live: &[u64]) {
        self.last += 1;
        let packed = |ids: &[u64]| Packed(Cow::Owned(pack(ids.iter().copied())));
        let stages = [(0_u32, waiting), (1, live)].into_iter().filter(|(_, ids)| !ids.is_empty());
        let stages: BTreeMap<u32, Packed<'_>> = stages.map(|(stage, ids)| (stage, packed(ids))).collect();
        let asked = out.push(&Head::system(System::Reconnect, self.last), |out| {
            out.value(&index)?;
            out.value(&stages)
        });
        if matches!(asked, Ok(Pushed::Queued)) {
            let mut of = [waiting, live].concat();
            of.sort_unstable();
            self.asked = Some((self.last, of));
        }
    }

    /// The other end says which calls it does not know; or that it does not say. Those that are over.
    ///
    /// Whatever it says, it is of the calls that it was asked of: those that were sent since are on their way.
    fn told(&mut self, out: &Outgoing, asked: &[u64], call: System, arguments: &[u8]) -> Told {
        let unknown = match call {
            System::Ok => self::unknown(out, asked, arguments).unwrap_or_else(|_| asked.to_vec()),
            _ => asked.to_vec(),
        };
        let (waiting, live): (Vec<u64>, Vec<u64>) =
            unknown.into_iter().partition(|id| matches!(self.calls.get(*id), Some(Made { stage: Stage::Waiting(_), .. })));
        let mut told = Told { wakers: self.send(out, &waiting), ends: Vec::new() };
        live.into_iter().for_each(|id| self.end(id, &mut told));
        told
    }

    /// The value of a compute call is stale, or it is stale before it has come.
    fn end(&mut self, id: u64, told: &mut Told) {
        let Some(made) = self.calls.get_mut(id) else { return };
        match &mut made.stage {
            Stage::Waiting(waker) => {
                told.wakers.extend(waker.take());
                made.stage = Stage::Cancelled;
            }
            // It is taken with its end.
            Stage::Answered(_, end) => told.ends.extend(end.clone()),
            Stage::Live(end) => {
                told.ends.push(end.clone());
                self.calls.remove(id);
            }
            Stage::Cancelled => {}
        }
    }

    /// Sends calls, or has them wait for room.
    fn send(&mut self, out: &Outgoing, ids: &[u64]) -> Vec<Waker> {
        for id in ids {
            if let Some(made) = self.calls.get_mut(*id) {
                made.sent = false;
            }
        }
        self.queue.extend(ids);
        self.pump(out)
    }

    /// Sends of those that wait as many as there is room for. Whose calls cannot be sent.
    fn pump(&mut self, out: &Outgoing) -> Vec<Waker> {
        let mut unsendable = Vec::new();
        while let Some(&id) = self.queue.front() {
            match self.calls.get_mut(id).map(|made| made.send(out, id)) {
                Some(Ok(false)) => break,
                Some(Err(error)) => {
                    // Its caller hears that it is not answered.
                    tracing::warn!(target: "wellspring::rpc", %error, "a call cannot be sent");
                    if let Some(Made { stage: Stage::Waiting(waker), .. }) = self.calls.remove(id) {
                        unsendable.extend(waker);
                    }
                }
                Some(Ok(true)) | None => {}
            }
            self.queue.pop_front();
        }
        unsendable
    }
}

/// Those of the calls that were asked of which are not known, each once.
fn unknown(out: &Outgoing, asked: &[u64], arguments: &[u8]) -> Result<Vec<u64>, ReadError> {
    let packed: Packed<'_> = crate::wire::Arguments::new(out.format(), arguments).read()?;
    let mut unknown = Vec::new();
    for id in unpack(&packed.0) {
        let id = id.map_err(|error| ReadError::new(error.to_string()))?;
        if unknown.last() != Some(&id) && asked.binary_search(&id).is_ok() {
            unknown.push(id);
        }
    }
    Ok(unknown)
}

/// Gives a call to the connection, if there is one with room for it. So calls of this end's never wait in such numbers that the connection is given up.
fn send(out: &Outgoing, call_type: u8, id: u64, method: &MethodId, headers: &Sent, arguments: &[u8]) -> Result<bool, FrameError> {
    let headers = headers.borrowed();
    out.push_if_room(&Head::call(call_type, id, method).with(&headers), |out| {
        out.raw_all(arguments);
        Ok(())
    })
}

impl Made {
    /// As [`send`], unless it was cancelled before it was sent.
    fn send(&mut self, out: &Outgoing, id: u64) -> Result<bool, FrameError> {
        if !matches!(self.stage, Stage::Waiting(_)) {
            return Ok(true);
        }
        self.sent = send(out, self.call_type, id, &self.method, &self.headers, &self.bytes)?;
        self.was_sent |= self.sent;
        Ok(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Format, Messages};

    /// What is called, and what has gone out since.
    struct Bench {
        made: Arc<Outbound>,
        out: Outgoing,
        method: MethodId,
    }

    impl Bench {
        fn new() -> Bench {
            let bench = Bench {
                made: Arc::default(),
                out: Outgoing::new(Format::Msgpack6),
                method: MethodId::new("IDemo.Get:2").expect("a short name"),
            };
            bench.made.resume(&bench.out, Met::First, 0);
            bench
        }

        fn call(&self, call_type: u8) -> u64 {
            let called = self.made.call(&self.out, call_type, &self.method, Sent::default(), vec![7], Waker::noop().clone());
            called.expect("a small call").expect("calls are made")
        }

        fn reply(&self, id: u64) -> Poll<Reply> {
            self.made.reply(id, Waker::noop())
        }

        fn answer(&self, id: u64, value: u8) {
            self.made.answered(&self.out, id, System::Ok, &[value]);
        }

        /// The other end says which of the calls that it was asked of it does not know.
        fn unknown<const N: usize>(&self, ids: [u64; N]) {
            let (asked, mut unknown) = (self.made.state().last, Vec::new());
            crate::wire::Writer::new(Format::Msgpack6, &mut unknown).value(&Packed(Cow::Owned(pack(ids)))).expect("written");
            self.made.answered(&self.out, asked, System::Ok, &unknown);
        }

        /// The names of what was sent.
        fn sent(&self) -> Vec<String> {
            let frames = self.out.close();
            self.out.open();
            let messages = frames.iter().flat_map(|frame| Messages::new(Format::Msgpack6, frame).flatten());
            messages.map(|message| message.method.to_string()).collect()
        }
    }

    #[test]
    fn an_answer_that_nobody_took_yet_is_there_after_the_end_of_the_remote() {
        let bench = Bench::new();
        let (answered, waiting) = (bench.call(0), bench.call(0));
        bench.answer(answered, 9);
        bench.made.close();
        assert!(matches!(bench.reply(answered), Poll::Ready(Reply::Answer { arguments, .. }) if arguments == [9]));
        assert!(matches!(bench.reply(answered), Poll::Ready(Reply::Never)), "once");
        assert!(matches!(bench.reply(waiting), Poll::Ready(Reply::Never)));
    }

    #[test]
    fn a_value_that_is_stale_before_it_is_taken_is_taken_with_its_end() {
        let bench = Bench::new();
        let id = bench.call(1);
        bench.answer(id, 9);
        bench.made.ended(id);
        assert!(matches!(bench.reply(id), Poll::Ready(Reply::Answer { end: Some(end), .. }) if end.has_come()));
        assert_eq!(bench.made.len(), 0);
        // Nor is the other end told of what it has said itself.
        bench.made.forget(&bench.out, id);
        assert_eq!(bench.sent(), ["IDemo.Get:2"]);
    }

    #[test]
    fn a_value_that_is_given_up_before_it_is_taken_is_said_to_be() {
        let bench = Bench::new();
        let (live, regular) = (bench.call(1), bench.call(0));
        bench.answer(live, 9);
        bench.answer(regular, 9);
        bench.made.forget(&bench.out, regular);
        bench.made.forget(&bench.out, live);
        assert_eq!(bench.sent(), ["IDemo.Get:2", "IDemo.Get:2", "$sys.Cancel:0"]);
        assert_eq!(bench.made.len(), 0);
    }

    #[test]
    fn a_value_that_nobody_took_yet_is_asked_for_on_the_next_connection() {
        let bench = Bench::new();
        let id = bench.call(1);
        bench.answer(id, 9);
        bench.sent();
        bench.made.resume(&bench.out, Met::Same, 2);
        assert_eq!(bench.sent(), ["$sys.Reconnect:3"]);
        // Another process knows nothing of it.
        bench.made.resume(&bench.out, Met::Other, 3);
        assert!(matches!(bench.reply(id), Poll::Ready(Reply::Answer { end: Some(end), .. }) if end.has_come()));
    }

    #[test]
    fn nobody_takes_the_other_end_for_caught_up_until_what_has_ended_is_told() {
        let bench = Bench::new();
        let id = bench.call(1);
        bench.answer(id, 9);
        let Poll::Ready(Reply::Answer { end: Some(end), .. }) = bench.reply(id) else { panic!("an answer") };
        let (made, caught_up) = (bench.made.clone(), Arc::<Mutex<Vec<bool>>>::default());
        let seen = caught_up.clone();
        end.then(move || seen.lock().expect("no panic").push(made.is_reconciled()));
        bench.made.resume(&bench.out, Met::Same, 2);
        assert!(!bench.made.is_reconciled());
        bench.unknown([id]);
        assert_eq!(*caught_up.lock().expect("no panic"), [false]);
        assert!(bench.made.is_reconciled());
    }

    #[test]
    fn a_call_that_was_given_to_a_connection_once_is_not_taken_back_also_where_it_waits_to_be_sent_again() {
        let bench = Bench::new();
        let sent = bench.call(0);
        assert!(!bench.made.withdraw(sent));
        // The other end does not know of it, and there is no connection to send it by.
        bench.sent();
        bench.made.resume(&bench.out, Met::Same, 2);
        bench.out.close();
        bench.unknown([sent]);
        assert!(bench.made.state().calls.get(sent).is_some_and(|made| !made.sent));
        assert!(!bench.made.withdraw(sent));
        let unsent = bench.call(0);
        assert!(bench.made.withdraw(unsent));
        assert!(matches!(bench.reply(unsent), Poll::Ready(Reply::Never)));
        bench.made.resume(&bench.out, Met::Same, 3);
        assert_eq!(bench.sent(), ["IDemo.Get:2"], "what was taken back is not sent");
    }

    #[test]
    fn a_second_answer_does_not_replace_the_first() {
        let bench = Bench::new();
        let id = bench.call(0);
        bench.answer(id, 9);
        bench.answer(id, 8);
        assert!(matches!(bench.reply(id), Poll::Ready(Reply::Answer { arguments, .. }) if arguments == [9]));
    }
}
