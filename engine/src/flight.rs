//! Flights: one execution of a function for a key, and those who wait for it.
//!
//! A sync flight is a call on somebody's stack; it gets a record here only when somebody else waits. An async flight is a
//! future in a record: whoever waits may drive it, and when the last waiter leaves it is dropped.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use crate::fault::Fault;
use crate::graph::Graph;
use crate::node::{DOOMED, HAS_VALUE, Head, State, WAITERS};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Condvar, Mutex, Weak, lock, sync_thread_local, wait};

pub(crate) type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

/// (slot, epoch): what makes a flight unique.
pub(crate) type FlightKey = (u32, u32);

/// How a flight ended, for those who waited.
#[derive(Clone, Default)]
pub(crate) struct Outcome {
    /// The engine's part went wrong: everybody who waited is told.
    pub(crate) fault: Option<Fault>,
    /// A result that could not be stored: only for waiters that joined at the commit the flight started at.
    pub(crate) value: Option<Arc<dyn Any + Send + Sync>>,
    /// The commit number at the flight's start.
    pub(crate) start: u64,
    /// The result is in the node under the flight's epoch.
    pub(crate) stored: bool,
    /// A commit fell into the flight: a stored result is for the same waiters only.
    pub(crate) doomed: bool,
    /// Running it again would end the same way: see [`Ended::Hopeless`](crate::graph::Ended::Hopeless).
    pub(crate) hopeless: bool,
}

/// The record of one flight that somebody waits for.
pub(crate) struct Flight {
    graph: Weak<Graph>,
    graph_id: u64,
    pub(crate) slot: u32,
    pub(crate) head: Head,
    pub(crate) start: u64,
    board: Mutex<Board>,
    /// The future of an async flight; `None` for a sync one, and once it ended. Polled by whoever gets the lock.
    future: Mutex<Option<Body>>,
}

#[derive(Default)]
struct Board {
    outcome: Option<Outcome>,
    wakers: Vec<(u64, Waker)>,
    interest: usize,
    next: u64,
    /// The last waiter left while somebody was polling: the poller drops the future.
    cancelled: bool,
}

const SHARDS: usize = if cfg!(any(loom, shuttle)) { 1 } else { 16 };

type Shard = Mutex<HashMap<FlightKey, Arc<Flight>, ahash::RandomState>>;

/// Records of waited-for flights, sharded by slot, and the waits-for graph.
pub(crate) struct Flights {
    shards: Box<[Shard]>,
    waits: Mutex<HashMap<FlightKey, Vec<FlightKey>, ahash::RandomState>>,
}

impl Flights {
    pub(crate) fn new() -> Flights {
        Flights { shards: (0..SHARDS).map(|_| Mutex::new(HashMap::default())).collect(), waits: Mutex::new(HashMap::default()) }
    }

    fn shard(&self, slot: u32) -> &Shard {
        &self.shards[slot as usize % SHARDS]
    }

    /// Records left over; zero at quiescence.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum::<usize>() + lock(&self.waits).len()
    }
}

impl Graph {
    /// Joins the flight `head` shows, unless it has ended or is doomed (a doomed one is superseded, never joined).
    pub(crate) fn join(self: &Arc<Graph>, slot: u32, head: Head) -> Option<Joined> {
        let mut shard = lock(self.flights.shard(slot));
        let mut now = self.head(slot);
        loop {
            if !now.same_flight(head) || (now.state() == State::Computing && now.has(DOOMED)) {
                return None;
            }
            if now.has(WAITERS) {
                break;
            }
            match self.swing(slot, now, now.with(WAITERS)) {
                Ok(()) => break,
                Err(other) => now = other,
            }
        }
        let key = (slot, head.epoch());
        let flight = shard.entry(key).or_insert_with(|| Arc::new(Flight::new(self, slot, head, u64::MAX, None))).clone();
        Some(Joined::new(self, flight, self.finished_commit()))
    }

    /// Starts an async flight: the head swings under the record's lock, so that nobody can wait for a flight without one.
    pub(crate) fn launch(self: &Arc<Graph>, slot: u32, from: Head, future: impl FnOnce(Head, u64) -> Body) -> Option<Arc<Flight>> {
        let head = from.next_flight(State::Computing);
        let start = self.finished_commit();
        let body = future(head, start);
        let mut shard = lock(self.flights.shard(slot));
        self.swing(slot, from, head.with(WAITERS)).ok()?;
        let flight = Arc::new(Flight::new(self, slot, head, start, Some(body)));
        shard.insert((slot, head.epoch()), flight.clone());
        drop(shard);
        if let Some(spawner) = &self.spawner {
            spawner.spawn(Box::pin(Driver(flight.clone())));
        }
        Some(flight)
    }

    /// Ends a flight's record, if anybody made one, and wakes those who wait.
    pub(crate) fn end_flight(&self, key: FlightKey, outcome: Outcome) {
        let Some(flight) = lock(self.flights.shard(key.0)).remove(&key) else { return };
        flight.post(outcome);
    }

    /// Whether anybody waits for the flight.
    pub(crate) fn is_waited_for(&self, key: FlightKey) -> bool {
        lock(self.flights.shard(key.0)).contains_key(&key)
    }

    /// Back to what the node was before a flight that stores nothing.
    pub(crate) fn abandon(&self, slot: u32, flight: Head) {
        let mut now = self.head(slot);
        while now.same_flight(flight) {
            // Relaxed: the flag is stable while the flight owns the node.
            let kept = self.warm(slot).flags.load(Ordering::Relaxed) & HAS_VALUE != 0;
            let state = if kept { State::Stale } else { State::Empty };
            match self.swing(slot, now, Head::new(state, now.version(), now.epoch())) {
                Ok(()) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Adds "the innermost of `chain` waits for `to`, each of the others for the next", unless that closes a cycle; then the
    /// functions on it.
    fn wait_for(&self, chain: &[FlightKey], to: FlightKey) -> Result<(), Fault> {
        let Some(&last) = chain.last() else { return Ok(()) };
        let mut waits = lock(&self.flights.waits);
        let mut seen = vec![(to, usize::MAX)];
        let mut at = 0;
        while at < seen.len() {
            let (flight, _) = seen[at];
            if let Some(met) = chain.iter().position(|&mine| mine == flight) {
                drop(waits);
                // met -> the rest of the chain -> to -> .. -> met.
                let mut back = Vec::new();
                let mut step = at;
                while step != usize::MAX {
                    back.push(seen[step].0);
                    step = seen[step].1;
                }
                let path = chain[met..].iter().chain(back.iter().rev());
                return Err(Fault::Cycle { functions: path.map(|&(slot, _)| self.function_name(slot)).collect() });
            }
            for &next in waits.get(&flight).into_iter().flatten() {
                if !seen.iter().any(|&(known, _)| known == next) {
                    seen.push((next, at));
                }
            }
            at += 1;
        }
        for pair in chain.windows(2) {
            waits.entry(pair[0]).or_default().push(pair[1]);
        }
        waits.entry(last).or_default().push(to);
        Ok(())
    }

    fn stop_waiting(&self, chain: &[FlightKey], to: FlightKey) {
        let Some(&last) = chain.last() else { return };
        let mut waits = lock(&self.flights.waits);
        let pairs = chain.windows(2).map(|pair| (pair[0], pair[1]));
        for (flight, target) in pairs.chain([(last, to)]) {
            if let Some(targets) = waits.get_mut(&flight) {
                if let Some(at) = targets.iter().position(|&other| other == target) {
                    targets.swap_remove(at);
                }
                if targets.is_empty() {
                    waits.remove(&flight);
                }
            }
        }
    }
}

impl Flight {
    fn new(graph: &Arc<Graph>, slot: u32, head: Head, start: u64, future: Option<Body>) -> Flight {
        Flight {
            graph: Arc::downgrade(graph),
            graph_id: graph.id,
            slot,
            head,
            start,
            board: Mutex::new(Board::default()),
            future: Mutex::new(future),
        }
    }

    fn post(&self, outcome: Outcome) {
        let wakers = {
            let mut board = lock(&self.board);
            board.outcome = Some(outcome);
            std::mem::take(&mut board.wakers)
        };
        wake(wakers.into_iter().map(|(_, waker)| waker));
    }

    /// Has the waiter woken by this waker from now on, unless the flight has ended. Who asks looks at the outcome after this.
    fn wake_with(&self, waiter: u64, waker: &Waker) {
        // A waker's clone and drop are an executor's code: not under the lock.
        let mut fresh = waker.clone();
        let mut board = lock(&self.board);
        if board.outcome.is_some() {
            drop(board);
            return;
        }
        match board.wakers.iter_mut().find(|(id, _)| *id == waiter) {
            Some((_, waker)) => std::mem::swap(waker, &mut fresh),
            None => {
                board.wakers.push((waiter, fresh));
                return;
            }
        }
        drop(board);
    }

    fn wake_all(&self) {
        let wakers: Vec<Waker> = lock(&self.board).wakers.iter().map(|(_, waker)| waker.clone()).collect();
        wake(wakers.into_iter());
    }

    fn outcome(&self) -> Option<Outcome> {
        lock(&self.board).outcome.clone()
    }

    /// Polls the future if nobody else does.
    fn drive(self: &Arc<Flight>) {
        let Ok(mut future) = self.future.try_lock() else { return };
        let Some(running) = future.as_mut() else { return };
        let waker = Waker::from(Arc::new(Everybody(Arc::downgrade(self))));
        let result = Running::within(self.graph_id, (self.slot, self.head.epoch()), true, || {
            let poll = std::panic::AssertUnwindSafe(|| running.as_mut().poll(&mut Context::from_waker(&waker)));
            std::panic::catch_unwind(poll)
        });
        let ended = match result {
            Ok(Poll::Pending) => {
                drop(future);
                return self.drop_cancelled();
            }
            Ok(Poll::Ready(())) => None,
            Err(panic) => Some(panic),
        };
        let finished = future.take();
        drop(future);
        drop_quietly(finished);
        if let Some(graph) = self.graph.upgrade() {
            let fault = ended.map(|panic| Fault::of_panic(graph.function_name(self.slot), panic));
            if fault.is_some() {
                graph.abandon(self.slot, self.head);
            }
            // Does nothing where the body's end has posted already; without that, the node was removed under the flight.
            let failed = fault.is_some();
            graph.end_flight((self.slot, self.head.epoch()), Outcome { fault, start: self.start, ..Outcome::default() });
            if failed {
                graph.function(self.slot).keep_within(&graph);
            }
        }
        if self.outcome().is_none() {
            self.post(Outcome { start: self.start, ..Outcome::default() });
        }
    }

    /// Drops the future of a cancelled flight, unless somebody polls it: then that one does.
    fn drop_cancelled(&self) {
        if lock(&self.board).cancelled
            && let Ok(mut future) = self.future.try_lock()
        {
            let future = future.take();
            drop_quietly(future);
        }
    }

    /// The last waiter left: the future is dropped and the node goes back to where it was.
    fn cancel(&self, graph: &Graph) {
        let key = (self.slot, self.head.epoch());
        {
            let mut shard = lock(graph.flights.shard(self.slot));
            // A newcomer may have joined before the shard was locked.
            if lock(&self.board).interest > 0 || !shard.get(&key).is_some_and(|flight| std::ptr::eq(&**flight, self)) {
                return;
            }
            shard.remove(&key);
            graph.abandon(self.slot, self.head);
        }
        // The body itself may be what drops its last waiter: its poll holds the future's lock, so it is only told.
        lock(&self.board).cancelled = true;
        self.drop_cancelled();
        self.post(Outcome { start: self.start, ..Outcome::default() });
    }
}

/// Wakers are an executor's code: one that panics keeps nobody else asleep.
pub(crate) fn wake(wakers: impl Iterator<Item = Waker>) {
    for waker in wakers {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
    }
}

/// Drops something of the user's; a panic in it stops here.
pub(crate) fn drop_quietly<T>(value: T) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value)));
}

/// The waker of an async flight: wakes all who wait, and whichever polls first drives it.
struct Everybody(Weak<Flight>);

impl Wake for Everybody {
    fn wake(self: Arc<Everybody>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Everybody>) {
        if let Some(flight) = self.0.upgrade() {
            flight.wake_all();
        }
    }
}

/// Drives a flight on the user's executor; takes no interest, so cancellation still follows the waiters.
struct Driver(Arc<Flight>);

impl Future for Driver {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if lock(&self.0.board).outcome.is_some() {
            return Poll::Ready(());
        }
        self.0.wake_with(u64::MAX, cx.waker());
        self.0.drive();
        if self.0.outcome().is_some() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// One waiter's share in a flight. A future of the outcome; dropping it is leaving.
pub(crate) struct Joined {
    graph: Arc<Graph>,
    pub(crate) flight: Arc<Flight>,
    /// The commit number when it joined.
    pub(crate) commit: u64,
    id: u64,
    blocked: Vec<FlightKey>,
}

impl Joined {
    fn new(graph: &Arc<Graph>, flight: Arc<Flight>, commit: u64) -> Joined {
        let id = {
            let mut board = lock(&flight.board);
            board.interest += 1;
            board.next += 1;
            board.next
        };
        Joined { graph: graph.clone(), flight, commit, id, blocked: Vec::new() }
    }

    /// The starter's own share.
    pub(crate) fn starter(graph: &Arc<Graph>, flight: Arc<Flight>) -> Joined {
        let start = flight.start;
        Joined::new(graph, flight, start)
    }

    /// Declares who is blocked by this wait; an error if that closes a cycle.
    pub(crate) fn blocking(mut self, flights: Vec<FlightKey>) -> Result<Joined, Fault> {
        self.graph.wait_for(&flights, (self.flight.slot, self.flight.head.epoch()))?;
        self.blocked = flights;
        Ok(self)
    }

    /// Waits on this thread.
    pub(crate) fn wait(self) -> Outcome {
        block_on(self)
    }
}

impl Future for Joined {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.flight.outcome() {
            return Poll::Ready(outcome);
        }
        self.flight.wake_with(self.id, cx.waker());
        self.flight.drive();
        match self.flight.outcome() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.graph.stop_waiting(&self.blocked, (self.flight.slot, self.flight.head.epoch()));
        let (last, others, gone) = {
            let mut board = lock(&self.flight.board);
            let mine = self.id;
            let gone = board.wakers.iter().position(|(id, _)| *id == mine).map(|at| board.wakers.swap_remove(at));
            board.interest -= 1;
            (board.interest == 0 && board.outcome.is_none(), board.outcome.is_none(), gone)
        };
        // A waker's drop is an executor's code: not under the lock.
        drop(gone);
        if last && self.flight.start != u64::MAX {
            self.flight.cancel(&self.graph);
            // The node came with the flight, and goes if it is one too many.
            self.graph.function(self.flight.slot).keep_within(&self.graph);
        } else if others {
            // This waiter may have been the one the future last saw; another must take over.
            self.flight.wake_all();
        }
    }
}

/// A flight whose body is on this thread's stack: a wait here blocks it. Frames are linked through the stack itself, so that a
/// body costs three stores and no allocation.
struct Frame {
    graph: u64,
    flight: FlightKey,
    asynchronous: bool,
    outer: *const Frame,
}

#[cfg(not(any(loom, shuttle)))]
sync_thread_local! {
    static INNERMOST: Cell<*const Frame> = const { Cell::new(std::ptr::null()) };
}
#[cfg(any(loom, shuttle))]
sync_thread_local! {
    static INNERMOST: Cell<*const Frame> = Cell::new(std::ptr::null());
}

/// The flights whose bodies are on this thread's stack.
pub(crate) struct Running;

impl Running {
    /// Runs `body` as the body of a flight.
    #[inline]
    pub(crate) fn within<T>(graph: u64, flight: FlightKey, asynchronous: bool, body: impl FnOnce() -> T) -> T {
        struct Leave(*const Frame);
        impl Drop for Leave {
            fn drop(&mut self) {
                INNERMOST.with(|innermost| innermost.set(self.0));
            }
        }
        let outer = INNERMOST.with(Cell::get);
        let frame = Frame { graph, flight, asynchronous, outer };
        // Dropped before the frame, also by a panic: whoever walks the list meets frames that are still on the stack.
        let _leave = Leave(outer);
        INNERMOST.with(|innermost| innermost.set(&raw const frame));
        body()
    }

    /// Innermost first.
    fn frames(mut each: impl FnMut(&Frame)) {
        let mut at = INNERMOST.with(Cell::get);
        // SAFETY: [stack-frames] `within` sets the pointer to a frame of its own and sets it back before that frame is gone; the
        // list is this thread's alone.
        while let Some(frame) = unsafe { at.as_ref() } {
            each(frame);
            at = frame.outer;
        }
    }

    /// Who would be blocked if this thread waited now, innermost last.
    pub(crate) fn here(graph: u64) -> Vec<FlightKey> {
        let mut flights = Vec::new();
        Self::frames(|frame| flights.extend((frame.graph == graph).then_some(frame.flight)));
        flights.reverse();
        flights
    }

    /// Whether an async flight is being polled on this thread.
    pub(crate) fn is_polling() -> bool {
        let mut polling = false;
        Self::frames(|frame| polling |= frame.asynchronous);
        polling
    }
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        String::from("(a panic without a message)")
    }
}

/// Runs a future to its end on this thread, which sleeps in between.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Parker {
        woken: Mutex<bool>,
        bell: Condvar,
    }
    impl Wake for Parker {
        fn wake(self: Arc<Parker>) {
            *lock(&self.woken) = true;
            self.bell.notify_one();
        }
    }
    let parker = Arc::new(Parker { woken: Mutex::new(false), bell: Condvar::new() });
    let waker = Waker::from(parker.clone());
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = lock(&parker.woken);
        while !*woken {
            woken = wait(&parker.bell, woken);
        }
        *woken = false;
    }
}
