//! The calls that one peer has made and that are not over.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::outgoing::{Outgoing, Pushed};
use crate::wire::{FrameError, Head, MethodId, Packed, ReadError, System, limits, pack, unpack};

/// By this end's ids, which go on through all connections.
#[derive(Debug, Default)]
pub(crate) struct Outbound(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    calls: HashMap<u64, Made, ahash::RandomState>,
    /// Those that wait to be sent, in order.
    queue: VecDeque<u64>,
    /// The call by which the other end was asked what it knows, if it has not answered, and of which calls, in order.
    asked: Option<(u64, Vec<u64>)>,
    /// Whether something that the other end may know of was forgotten while nobody could tell it.
    untold: bool,
    /// Nothing is called any more.
    over: bool,
}

/// A call that was made.
#[derive(Debug)]
struct Made {
    call_type: u8,
    method: MethodId,
    arguments: Box<[u8]>,
    /// Whether it was given to a connection, whatever became of it there.
    sent: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Waiting(oneshot::Sender<Reply>),
    /// The result has come, and its end is waited for.
    Live(Arc<End>),
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A result, or a failure, and of a compute call its end.
    Answer { call: System, arguments: Box<[u8]>, end: Option<Arc<End>> },
    /// A compute call was stale before its result had come.
    Cancelled,
}

/// The end of a value at the other end.
#[derive(Default)]
pub(crate) struct End {
    has_come: AtomicBool,
    come: Notify,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("has_come", &self.has_come()).finish_non_exhaustive()
    }
}

impl End {
    pub(crate) fn has_come(&self) -> bool {
        // Acquire, with the release of whoever says so: what it knew is known to who asks.
        self.has_come.load(Ordering::Acquire)
    }

    /// Runs something when it comes, or now if it has come. One thing: another takes its place.
    pub(crate) fn then(&self, run: impl FnOnce() + Send + 'static) {
        let mut then = self.then.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_come() {
            *then = Some(Box::new(run));
            return;
        }
        drop(then);
        run();
    }

    /// No lock is held: what runs then may make calls.
    fn tell(&self) {
        // Before it looks for what is to run, which is put there by who has not seen this.
        self.has_come.store(true, Ordering::Release);
        self.come.notify_waiters();
        let then = self.then.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(run) = then {
            run();
        }
    }

    pub(crate) async fn wait(&self) {
        let come = self.come.notified();
        let mut come = std::pin::pin!(come);
        // Counted among the waiters before it looks.
        come.as_mut().enable();
        if !self.has_come() {
            come.await;
        }
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

    /// Makes a call, which is sent now or when there is a connection.
    pub(crate) fn call(
        &self,
        out: &Outgoing,
        call_type: u8,
        method: &MethodId,
        arguments: Box<[u8]>,
    ) -> Result<(u64, oneshot::Receiver<Reply>), FrameError> {
        if arguments.len() > limits::ARGUMENTS {
            return Err(FrameError::TooLarge(arguments.len()));
        }
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.last += 1;
        let id = state.last;
        if state.over {
            // Its sender is dropped, which says so.
            return Ok((id, receiver));
        }
        let mut made = Made { call_type, method: method.clone(), arguments, sent: false, stage: Stage::Waiting(sender) };
        // Behind those that wait.
        if !state.queue.is_empty() || !made.send(out, id)? {
            state.queue.push_back(id);
        }
        state.calls.insert(id, made);
        Ok((id, receiver))
    }

    /// Nobody waits for a call any more, or for the end of what it has brought.
    pub(crate) fn forget(&self, out: &Outgoing, id: u64) {
        let mut state = self.state();
        let Some(made) = state.calls.remove(&id) else { return };
        if made.sent && !matches!(out.push(&Head::system(System::Cancel, id), |_| Ok(())), Ok(Pushed::Queued)) {
            // It is told when it is asked what it knows: what is not listed is over.
            state.untold = true;
        }
        drop(state);
        drop(made);
    }

    /// An answer has come.
    pub(crate) fn answered(&self, out: &Outgoing, id: u64, call: System, arguments: &[u8]) {
        let mut state = self.state();
        if state.asked.as_ref().is_some_and(|(asked, _)| *asked == id)
            && let Some((_, of)) = state.asked.take()
        {
            let over = state.told(out, &of, call, arguments);
            drop(state);
            return over.into_iter().for_each(Made::end);
        }
        // Late answers are of calls that nobody waits for.
        let Some(made) = state.calls.remove(&id) else { return };
        let Stage::Waiting(sender) = made.stage else {
            // A second answer, given again by a server that could not know of the first.
            state.calls.insert(id, made);
            return;
        };
        let end = (made.call_type == 1).then(Arc::<End>::default);
        if let Some(end) = &end {
            state.calls.insert(id, Made { arguments: Box::default(), stage: Stage::Live(end.clone()), ..made });
        }
        drop(state);
        let answer = Reply::Answer { call, arguments: arguments.into(), end };
        if sender.send(answer).is_err() {
            // It was given up just now.
            self.forget(out, id);
        }
    }

    /// What a compute call has brought is stale.
    pub(crate) fn ended(&self, id: u64) {
        let mut state = self.state();
        let over = match state.calls.get(&id) {
            Some(made) if made.call_type == 1 => state.take(&[id]),
            _ => return,
        };
        drop(state);
        over.into_iter().for_each(Made::end);
    }

    /// There is a connection again, and messages may be sent: what is not sent yet is sent, and the other end is asked what it knows of the rest.
    pub(crate) fn resume(&self, out: &Outgoing, met: Met, index: i32) {
        // Under this lock: a call that is sent on the new connection must not be taken for one of those that it is asked for.
        let mut state = self.state();
        out.open();
        state.asked = None;
        state.queue.clear();
        let (mut waiting, mut live, mut unsent) = (Vec::new(), Vec::new(), Vec::new());
        for (id, made) in &state.calls {
            match made.stage {
                _ if !made.sent => unsent.push(*id),
                Stage::Waiting(_) => waiting.push(*id),
                Stage::Live(_) => live.push(*id),
            }
        }
        let again = [&mut waiting, &mut live, &mut unsent];
        again.into_iter().for_each(|ids| ids.sort_unstable());
        let _cork = out.cork();
        let mut over = Vec::new();
        if met == Met::Other {
            over = state.take(&live);
            state.send(out, &waiting);
        } else if !waiting.is_empty() || !live.is_empty() || state.untold {
            state.ask(out, index, &waiting, &live);
        }
        state.untold = false;
        state.send(out, &unsent);
        drop(state);
        over.into_iter().for_each(Made::end);
    }

    /// There is room again for what waits.
    pub(crate) fn pump(&self, out: &Outgoing) {
        let mut state = self.state();
        if !state.queue.is_empty() {
            state.pump(out);
        }
    }

    /// No call is answered any more.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.over = true;
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        for made in calls.into_values() {
            if let Stage::Live(end) = made.stage {
                end.tell();
            }
        }
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
    fn told(&mut self, out: &Outgoing, asked: &[u64], call: System, arguments: &[u8]) -> Vec<Made> {
        let unknown = match call {
            System::Ok => self::unknown(out, asked, arguments).unwrap_or_else(|_| asked.to_vec()),
            _ => asked.to_vec(),
        };
        let (live, waiting): (Vec<u64>, Vec<u64>) =
            unknown.into_iter().partition(|id| matches!(self.calls.get(id), Some(Made { stage: Stage::Live(_), .. })));
        self.send(out, &waiting);
        self.take(&live)
    }

    /// Sends calls, or has them wait for room.
    fn send(&mut self, out: &Outgoing, ids: &[u64]) {
        for id in ids {
            if let Some(made) = self.calls.get_mut(id) {
                made.sent = false;
            }
        }
        self.queue.extend(ids);
        self.pump(out);
    }

    /// Sends of those that wait as many as there is room for.
    fn pump(&mut self, out: &Outgoing) {
        while let Some(id) = self.queue.front() {
            match self.calls.get_mut(id).map(|made| made.send(out, *id)) {
                Some(Ok(false)) => return,
                Some(Err(error)) => {
                    // Its caller hears that it is not answered.
                    tracing::warn!(target: "wellspring::rpc", %error, "a call cannot be sent");
                    let id = *id;
                    self.calls.remove(&id);
                }
                Some(Ok(true)) | None => {}
            }
            self.queue.pop_front();
        }
    }

    fn take(&mut self, ids: &[u64]) -> Vec<Made> {
        ids.iter().filter_map(|id| self.calls.remove(id)).collect()
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

impl Made {
    /// Gives it to the connection, if there is one with room for it. So calls of this end's never wait in such numbers that the connection is given up.
    fn send(&mut self, out: &Outgoing, id: u64) -> Result<bool, FrameError> {
        if out.is_high() {
            return Ok(false);
        }
        let pushed = out.push(&Head::call(self.call_type, id, &self.method), |out| {
            out.raw_all(&self.arguments);
            Ok(())
        })?;
        self.sent = pushed == Pushed::Queued;
        Ok(self.sent)
    }

    /// Its value is stale, or it is stale before it has come.
    fn end(self) {
        match self.stage {
            Stage::Live(end) => end.tell(),
            Stage::Waiting(sender) if self.call_type == 1 => {
                // It may be given up.
                let _ = sender.send(Reply::Cancelled);
            }
            Stage::Waiting(_) => {}
        }
    }
}
