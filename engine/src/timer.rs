//! Time in the engine: one wheel, one thread (or a clock moved by hand), and who is told when a tick has come.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slotmap::{DefaultKey, SlotMap};

use crate::clock::{Alarm, Clock};
use crate::graph::Graph;
use crate::sync::{Arc, Condvar, Mutex, Weak, lock};
use crate::wheel::Wheel;

/// Length of a tick. Nothing is early; what is due is late by at most one.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// When a tick begins, by the clock.
fn moment(tick: u64) -> Duration {
    Duration::from_millis(tick)
}

/// What a tick brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Something of this node's is due: see [`crate::expire`].
    Node { slot: u32 },
    /// A function's stamp moves on: see [`crate::evict`].
    Stamp { function: u32 },
    /// A sleeper is to be woken.
    Sleeper(DefaultKey),
}

pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

struct State {
    wheel: Wheel<Due>,
    sleepers: SlotMap<DefaultKey, Option<Waker>>,
    /// Who rings: nobody yet, the engine's thread or the clock.
    driven: bool,
    /// The tick the thread sleeps until.
    until: u64,
    closed: bool,
    graph: Weak<Graph>,
}

impl Timers {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Timers {
        let state =
            State { wheel: Wheel::new(0), sleepers: SlotMap::new(), driven: false, until: u64::MAX, closed: false, graph: Weak::new() };
        Timers { clock, shared: Arc::new(Shared { state: Mutex::new(state), bell: Condvar::new() }) }
    }

    /// Called once, when the graph is shared: a clock that rings by itself takes the alarm.
    pub(crate) fn attach(&self, graph: &Arc<Graph>) {
        let driven = self.clock.attach(Alarm(Arc::downgrade(graph)));
        let now = self.now();
        let mut state = lock(&self.shared.state);
        state.wheel = Wheel::new(now);
        state.driven = driven;
        state.graph = Arc::downgrade(graph);
    }

    /// Whole ticks since the clock's zero.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The first tick at which the delay is over.
    pub(crate) fn after(&self, delay: Duration) -> u64 {
        let at = self.clock.now().saturating_add(delay);
        u64::try_from(at.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX)
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        lock(&self.shared.state).wheel.next().map(moment)
    }

    /// Entries in the wheel, stale ones included.
    pub(crate) fn armed(&self) -> usize {
        lock(&self.shared.state).wheel.len()
    }

    /// Arms `what` if `wanted`, which is asked under the wheel's lock, still says so.
    pub(crate) fn arm_if(&self, at: u64, what: Due, wanted: impl FnOnce() -> bool) {
        let mut state = lock(&self.shared.state);
        if wanted() {
            state.wheel.insert(at, what);
            self.see_to(&mut state, at);
        }
    }

    pub(crate) fn arm(&self, at: u64, what: Due) {
        self.arm_if(at, what, || true);
    }

    /// Runs `then` under the wheel's lock.
    pub(crate) fn while_held<T>(&self, then: impl FnOnce() -> T) -> T {
        let _state = lock(&self.shared.state);
        then()
    }

    /// Somebody must be awake at the given tick.
    fn see_to(&self, state: &mut State, at: u64) {
        if !state.driven {
            // Without a thread to be had nothing ends by itself: the next timer tries again.
            state.driven = thread::start(self.clock.clone(), self.shared.clone());
        } else if at < state.until {
            self.shared.bell.notify_all();
        }
    }

    /// Wakes at the tick. The key is to be given to [`forget`](Timers::forget) in the end.
    pub(crate) fn sleeper(&self, at: u64, waker: &Waker) -> DefaultKey {
        // A waker's clone and drop are an executor's code: not under the lock.
        let waker = waker.clone();
        let mut state = lock(&self.shared.state);
        let key = state.sleepers.insert(Some(waker));
        state.wheel.insert(at, Due::Sleeper(key));
        self.see_to(&mut state, at);
        key
    }

    /// A sleeper is awake, or shall not be woken.
    pub(crate) fn forget(&self, key: DefaultKey) {
        let gone = lock(&self.shared.state).sleepers.remove(key);
        drop(gone);
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        let sleepers = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            std::mem::take(&mut state.sleepers)
        };
        self.shared.bell.notify_all();
        drop(sleepers);
    }
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timers").field("armed", &self.armed()).finish_non_exhaustive()
    }
}

impl Graph {
    /// Does what is due by now, on this thread: nodes first, in one commit, then sleepers.
    pub(crate) fn ring(self: &Arc<Graph>) {
        let now = self.timers.now();
        let (mut due, mut wakers) = (Vec::new(), Vec::new());
        {
            let mut state = lock(&self.timers.shared.state);
            let State { wheel, sleepers, .. } = &mut *state;
            wheel.advance(now, |at, what| match what {
                Due::Sleeper(key) => wakers.extend(sleepers.get_mut(key).and_then(Option::take)),
                other => due.push((at, other)),
            });
        }
        self.fall_due(due, now);
        for waker in wakers {
            // A waker is an executor's code; should it panic, the others are still woken.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
        self.collector.reap();
    }
}

#[cfg(not(any(loom, shuttle)))]
mod thread {
    use super::{Arc, Clock, Condvar, Shared, Weak, lock, moment};

    /// The engine's timer thread: asleep until the next occupied slot of the wheel, so that any number of armed timers cost
    /// nothing in between. It ends with the engine, which it does not hold while it sleeps.
    pub(super) fn start(clock: Arc<dyn Clock>, shared: Arc<Shared>) -> bool {
        let run = move || {
            loop {
                // The clock may be the user's: it is asked with no lock held.
                let now = clock.now();
                let mut state = lock(&shared.state);
                if state.closed {
                    return;
                }
                let next = state.wheel.next();
                state.until = next.unwrap_or(u64::MAX);
                match next.map(|tick| moment(tick).saturating_sub(now)) {
                    Some(wait) if wait.is_zero() => {
                        let graph = state.graph.clone();
                        drop(state);
                        let Some(graph) = Weak::upgrade(&graph) else { return };
                        // What is the user's in there (a spawner, a clock) must not end time for everybody else.
                        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| graph.ring()));
                    }
                    Some(wait) => drop(wait_timeout(&shared.bell, state, wait)),
                    None => drop(crate::sync::wait(&shared.bell, state)),
                }
            }
        };
        std::thread::Builder::new().name("wellspring-time".into()).spawn(run).is_ok()
    }

    fn wait_timeout<'a>(
        bell: &Condvar,
        state: std::sync::MutexGuard<'a, super::State>,
        wait: std::time::Duration,
    ) -> std::sync::MutexGuard<'a, super::State> {
        match bell.wait_timeout(state, wait) {
            Ok((guard, _)) => guard,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

#[cfg(any(loom, shuttle))]
mod thread {
    //! Under the checkers time moves only when a model rings.
    use super::{Arc, Clock, Shared};
    pub(super) fn start(_: Arc<dyn Clock>, _: Arc<Shared>) -> bool {
        true
    }
}

/// An engine's clock, to ask for the time and to wait on: see [`Engine::timer`](crate::Engine::timer). It does not keep the engine's
/// functions.
#[derive(Clone, Debug)]
pub struct Timer(Arc<Graph>);

impl Timer {
    pub(crate) fn new(graph: Arc<Graph>) -> Timer {
        Timer(graph)
    }

    /// Time since the clock's zero.
    pub fn now(&self) -> Duration {
        self.0.timers.clock().now()
    }

    /// As [`Engine::sleep`](crate::Engine::sleep).
    pub fn sleep(&self, delay: Duration) -> Sleep {
        Sleep::new(self.0.clone(), delay)
    }
}

/// A wait on the engine's clock: see [`Engine::sleep`](crate::Engine::sleep). Dropping it forgets it.
#[derive(Debug)]
#[must_use = "a wait does nothing until it is awaited"]
pub struct Sleep {
    graph: Arc<Graph>,
    at: u64,
    key: Option<DefaultKey>,
}

impl Sleep {
    pub(crate) fn new(graph: Arc<Graph>, delay: Duration) -> Sleep {
        let at = graph.timers.after(delay);
        Sleep { graph, at, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timers = &self.graph.timers;
        if timers.now() >= self.at {
            return Poll::Ready(());
        }
        match self.key {
            Some(key) => {
                let waker = cx.waker().clone();
                let old = match lock(&timers.shared.state).sleepers.get_mut(key) {
                    Some(Some(old)) => Some(std::mem::replace(old, waker)),
                    // Fired since the look at the clock.
                    Some(None) | None => None,
                };
                if old.is_none() {
                    return Poll::Ready(());
                }
            }
            None => {
                self.key = Some(timers.sleeper(self.at, cx.waker()));
                // A clock moved by hand may have rung in between, and rings no more by itself.
                if self.graph.timers.now() >= self.at {
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.graph.timers.forget(key);
        }
    }
}
