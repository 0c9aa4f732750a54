//! The delayer of user interfaces: patient, unless the user has just done something and waits to see it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::delay::{Backoff, Delay, FLOOR, UpdateDelayer};
use crate::engine::Engine;
use crate::signal::{Signal, first};
use crate::sync::Arc;
use crate::timer::Timer;

/// How long after an action updates still come at once.
const AFTERMATH: Duration = Duration::from_millis(300);

/// Counts what the user is doing, for a [`UiDelay`]. A clone counts the same.
///
/// ```
/// # use wellspring::{ActionTracker, Engine};
/// let actions = ActionTracker::new(&Engine::new());
/// let saving = actions.start();
/// assert!(actions.is_instant());
/// drop(saving);                                          // for 300 ms more
/// # assert!(actions.is_instant());
/// ```
#[derive(Clone)]
pub struct ActionTracker {
    timer: Timer,
    tracked: Arc<Signal<Tracked>>,
}

#[derive(Debug, Default)]
struct Tracked {
    running: usize,
    /// How many there have ever been.
    started: u64,
    last_end: Option<Duration>,
}

impl ActionTracker {
    /// Nothing has happened yet. The time is the engine's.
    pub fn new(engine: &Engine) -> ActionTracker {
        ActionTracker { timer: engine.timer(), tracked: Arc::new(Signal::new(Tracked::default())) }
    }

    /// An action begins; it ends when the guard is dropped.
    pub fn start(&self) -> Action {
        self.tracked.change(|tracked| {
            tracked.running += 1;
            tracked.started += 1;
        });
        Action(self.clone())
    }

    /// Runs a future as an action, from its first poll on.
    pub async fn run<F: Future>(&self, action: F) -> F::Output {
        let _action = self.start();
        action.await
    }

    /// How many actions run.
    pub fn running(&self) -> usize {
        self.tracked.see(|tracked| tracked.running)
    }

    /// Whether updates come at once: an action runs, or ended no more than 300 ms ago.
    pub fn is_instant(&self) -> bool {
        let now = self.timer.now();
        self.tracked.see(|tracked| tracked.running > 0 || tracked.last_end.is_some_and(|end| now.saturating_sub(end) <= AFTERMATH))
    }

    fn started(&self) -> u64 {
        self.tracked.see(|tracked| tracked.started)
    }
}

impl fmt::Debug for ActionTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionTracker").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// An action under way: see [`ActionTracker::start`].
#[derive(Debug)]
#[must_use = "the action ends when this is dropped"]
pub struct Action(ActionTracker);

impl Drop for Action {
    fn drop(&mut self) {
        let now = self.0.timer.now();
        self.0.tracked.change(|tracked| {
            tracked.running -= 1;
            tracked.last_end = tracked.last_end.max(Some(now));
        });
    }
}

/// The delayer of user interfaces: a second between updates, and 32 ms while the user waits for what an action does.
///
/// An action cuts the wait short if it runs or ended within the last 300 ms, and also if it starts during the wait. After transient
/// errors waits grow from 1 s to 60 s, and an action cuts them to the least of these.
#[derive(Clone, Debug)]
pub struct UiDelay {
    actions: ActionTracker,
    delay: Duration,
    backoff: Backoff,
}

impl UiDelay {
    /// With the defaults, for the actions counted there.
    pub fn new(actions: &ActionTracker) -> UiDelay {
        UiDelay { actions: actions.clone(), delay: Duration::from_secs(1), backoff: Backoff::default() }
    }

    /// This long between updates, but no less than 32 ms.
    pub fn every(mut self, delay: Duration) -> UiDelay {
        self.delay = delay.max(FLOOR);
        self
    }

    /// Waits so after transient errors.
    pub fn backoff(mut self, backoff: Backoff) -> UiDelay {
        self.backoff = backoff;
        self
    }
}

impl UpdateDelayer for UiDelay {
    fn delay(&self, timer: &Timer, retries: u32) -> Delay {
        let (least, whole) = match retries {
            0 => (FLOOR, self.delay),
            _ => (self.backoff.least().max(FLOOR), self.backoff.delay(retries).max(FLOOR)),
        };
        // A spread may take the whole below the least.
        let least = least.min(whole);
        // Looked at when the wait begins, not when it is first polled.
        let (actions, instant, seen) = (self.actions.clone(), self.actions.is_instant(), self.actions.started());
        let (floor, rest) = (timer.sleep(least), timer.sleep(whole));
        Box::pin(async move {
            floor.await;
            if instant || actions.is_instant() {
                return;
            }
            // One that began and ended during the floor counts as well.
            first(rest, actions.tracked.until(|tracked| (tracked.started != seen).then_some(()))).await;
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_wait_that_ends_or_is_dropped_leaves_no_waker_with_the_tracker() {
        let clock = Arc::new(ManualClock::new());
        let engine = Engine::builder().clock(clock.clone()).build();
        let actions = ActionTracker::new(&engine);
        let delayer = UiDelay::new(&actions);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut ended, mut dropped) = (delayer.delay(&engine.timer(), 0), delayer.delay(&engine.timer(), 0));
        for wait in [&mut ended, &mut dropped] {
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        clock.advance(FLOOR);
        for wait in [&mut ended, &mut dropped] {
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(actions.tracked.waiting(), 2);
        drop(dropped);
        assert_eq!(actions.tracked.waiting(), 1);
        clock.advance(Duration::from_secs(1) - FLOOR);
        assert_eq!(ended.as_mut().poll(&mut cx), Poll::Ready(()));
        assert_eq!(actions.tracked.waiting(), 0);
    }
}
