//! The one place that asks for the time: what a clock is, the system's, and one that is moved by hand.

use std::time::Duration;
#[cfg(not(any(loom, shuttle)))]
use std::time::Instant;

use crate::graph::Graph;
use crate::sync::{Arc, Mutex, Weak, lock};

/// Where an engine gets its time from: every delay, expiry and retry of the engine follows this clock alone.
pub trait Clock: Send + Sync + 'static {
    /// Time since the clock's own zero. Never goes back.
    fn now(&self) -> Duration;

    /// Takes an engine's alarm, to be rung whenever its time has come; `false` leaves that to a thread of the engine's own,
    /// which sleeps until then. A clock that does not run by itself says `true`.
    fn attach(&self, alarm: Alarm) -> bool {
        drop(alarm);
        false
    }
}

/// What a clock rings when time has passed: see [`Clock::attach`].
#[derive(Debug)]
pub struct Alarm(pub(crate) Weak<Graph>);

impl Alarm {
    /// When there is something to do next, by the engine's clock; `None` if nothing is armed or the engine is gone.
    pub fn next(&self) -> Option<Duration> {
        self.0.upgrade()?.timers.next()
    }

    /// Does on this thread what is due by now. `false` once the engine is gone.
    pub fn ring(&self) -> bool {
        match self.0.upgrade() {
            Some(graph) => {
                graph.ring();
                true
            }
            None => false,
        }
    }
}

/// The system's monotonic clock, from the moment the engine was made.
#[derive(Debug)]
pub(crate) struct SystemClock(Moment);

impl SystemClock {
    pub(crate) fn new() -> SystemClock {
        SystemClock(Moment::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.nanos_ago())
    }
}

/// A clock that stands still until it is moved: for tests and simulations. What becomes due runs inside [`advance`](ManualClock::advance),
/// in order, each at its own time.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use wellspring::{Cx, Engine, ManualClock};
/// let clock = Arc::new(ManualClock::new());
/// let engine = Engine::builder().clock(clock.clone()).build();
/// let rate = engine.define("rate").expire_after(Duration::from_secs(60)).function(|_: &Cx, _: &u8| 4_u64)?;
/// rate.get(&engine, &0)?;
/// clock.advance(Duration::from_secs(59));
/// assert!(rate.existing(&0).is_some());
/// clock.advance(Duration::from_secs(1));
/// assert!(rate.existing(&0).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<Duration>,
    alarms: Mutex<Vec<Arc<Alarm>>>,
}

impl ManualClock {
    /// A clock at zero.
    pub fn new() -> ManualClock {
        ManualClock::default()
    }

    /// Moves time on, stopping at every moment at which an attached engine has something to do.
    pub fn advance(&self, by: Duration) {
        let target = self.now().saturating_add(by);
        loop {
            let alarms = lock(&self.alarms).clone();
            let next = alarms.iter().filter_map(|alarm| alarm.next()).min().filter(|&next| next <= target);
            {
                let mut now = lock(&self.now);
                *now = next.unwrap_or(target).max(*now);
            }
            for alarm in alarms {
                if !alarm.ring() {
                    lock(&self.alarms).retain(|other| !Arc::ptr_eq(other, &alarm));
                }
            }
            if next.is_none() {
                return;
            }
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *lock(&self.now)
    }

    fn attach(&self, alarm: Alarm) -> bool {
        lock(&self.alarms).push(Arc::new(alarm));
        true
    }
}

/// A moment on the system's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    #[cfg(not(any(loom, shuttle)))]
    at: Instant,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        Moment {
            #[cfg(not(any(loom, shuttle)))]
            at: Instant::now(),
        }
    }

    pub(crate) fn nanos_ago(self) -> u64 {
        #[cfg(not(any(loom, shuttle)))]
        return u64::try_from(self.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        #[cfg(any(loom, shuttle))]
        return 0;
    }
}
