//! Update delayers: how long a state waits between the end of its value and its next update.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::sync::Arc;
use crate::timer::Timer;

/// No ordinary wait is shorter: two frames of a screen.
pub(crate) const FLOOR: Duration = Duration::from_millis(32);
/// What [`NextTick`] waits for.
const TICK: Duration = Duration::from_millis(15);

/// A wait before an update. Dropping it forgets it.
pub type Delay = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long a state waits between the end of its value and its next update.
///
/// ```
/// # use std::time::Duration;
/// # use wellspring::{Delay, Timer, UpdateDelayer};
/// /// Once a second, on the second.
/// struct OnTheSecond;
/// impl UpdateDelayer for OnTheSecond {
///     fn delay(&self, timer: &Timer, _retries: u32) -> Delay {
///         let into = Duration::from_nanos(timer.now().subsec_nanos().into());
///         Box::pin(timer.sleep(Duration::from_secs(1) - into))
///     }
/// }
/// ```
///
/// It runs within the state's update loop: one that panics ends it.
pub trait UpdateDelayer: Send + Sync + 'static {
    /// A wait that begins now, on the engine's clock. `retries` transient errors came in a row; 0 after anything else.
    fn delay(&self, timer: &Timer, retries: u32) -> Delay;
}

impl<D: UpdateDelayer + ?Sized> UpdateDelayer for Box<D> {
    fn delay(&self, timer: &Timer, retries: u32) -> Delay {
        (**self).delay(timer, retries)
    }
}

impl<D: UpdateDelayer + ?Sized> UpdateDelayer for Arc<D> {
    fn delay(&self, timer: &Timer, retries: u32) -> Delay {
        (**self).delay(timer, retries)
    }
}

/// Waits between retries that grow: the first is the least, each next one is longer by the square root of two, up to the most.
///
/// ```
/// # use std::time::Duration;
/// # use wellspring::Backoff;
/// let backoff = Backoff::default();                                     // 1 s to 60 s
/// assert_eq!(backoff.delay(0), Duration::ZERO);
/// assert_eq!(backoff.delay(1), Duration::from_secs(1));
/// assert_eq!(backoff.delay(3), Duration::from_secs(2));
/// assert_eq!(backoff.delay(1_000), Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    spread: f64,
    seed: u64,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

impl Backoff {
    /// From the least to the most, without randomness.
    pub fn new(least: Duration, most: Duration) -> Backoff {
        Backoff { least, most: most.max(least), spread: 0.0, seed: 0 }
    }

    /// Each wait is longer or shorter by up to this part of it (0 to 1), so that clients that failed together do not come back
    /// together. The same seed gives the same waits.
    pub fn spread(mut self, part: f64, seed: u64) -> Backoff {
        self.spread = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
        self.seed = seed;
        self
    }

    /// The shortest wait, without its spread.
    pub fn least(&self) -> Duration {
        self.least
    }

    /// The wait before the retry of this number, counted from 1; none before number 0.
    pub fn delay(&self, retries: u32) -> Duration {
        if retries == 0 {
            return Duration::ZERO;
        }
        // 2^500 is beyond everything, and still a number.
        let steps = i32::try_from(retries - 1).unwrap_or(i32::MAX).min(1_000);
        let delay = scaled(self.least, std::f64::consts::SQRT_2.powi(steps)).min(self.most);
        if self.spread == 0.0 {
            return delay;
        }
        // Between -1 and 1: the top 53 bits as a fraction.
        let off = (mix(self.seed ^ u64::from(retries)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        scaled(delay, 1.0 + off * self.spread)
    }
}

fn scaled(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// One step of splitmix64.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Always the same wait; after transient errors the retry's instead, if that is longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FixedDelay {
    delay: Duration,
    backoff: Backoff,
}

impl FixedDelay {
    /// This long, but no less than 32 ms: a state that is invalidated all the time must not keep a core busy.
    pub fn new(delay: Duration) -> FixedDelay {
        FixedDelay::without_floor(delay.max(FLOOR))
    }

    /// This long, also if that is nothing: then a state follows every change as fast as it can compute.
    pub fn without_floor(delay: Duration) -> FixedDelay {
        FixedDelay { delay, backoff: Backoff::default() }
    }

    /// Waits so after transient errors, in place of 1 s to 60 s.
    pub fn backoff(mut self, backoff: Backoff) -> FixedDelay {
        self.backoff = backoff;
        self
    }
}

impl UpdateDelayer for FixedDelay {
    fn delay(&self, timer: &Timer, retries: u32) -> Delay {
        Box::pin(timer.sleep(self.delay.max(self.backoff.delay(retries))))
    }
}

/// Until the next tick of 15 ms, by the engine's clock: states that end together are updated together. After transient errors as
/// [`FixedDelay`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NextTick {
    backoff: Backoff,
}

impl NextTick {
    /// With waits of 1 s to 60 s after transient errors.
    pub fn new() -> NextTick {
        NextTick::default()
    }

    /// Waits so after transient errors.
    pub fn backoff(mut self, backoff: Backoff) -> NextTick {
        self.backoff = backoff;
        self
    }
}

impl UpdateDelayer for NextTick {
    fn delay(&self, timer: &Timer, retries: u32) -> Delay {
        let into = timer.now().as_nanos() % TICK.as_nanos();
        let left = TICK - Duration::from_nanos(u64::try_from(into).unwrap_or(0));
        Box::pin(timer.sleep(left.max(self.backoff.delay(retries))))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn waits_between_retries_grow_by_the_root_of_two_up_to_the_most() {
        let backoff = Backoff::default();
        for n in 1..200 {
            let (now, next) = (backoff.delay(n), backoff.delay(n + 1));
            let grown = now.as_secs_f64() * std::f64::consts::SQRT_2;
            assert!((next.as_secs_f64() - grown.min(60.0)).abs() < 1e-6, "{n}: {now:?} then {next:?}");
        }
        assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(60));
        assert_eq!(Backoff::new(Duration::MAX, Duration::ZERO).delay(9), Duration::MAX);
    }

    #[test]
    fn a_spread_is_the_seeds_and_stays_within_its_part() {
        let spread = |seed| Backoff::default().spread(0.1, seed);
        let waits = |seed| (1..50).map(|n| spread(seed).delay(n)).collect::<Vec<_>>();
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
        for n in 1..50 {
            let (exact, off) = (Backoff::default().delay(n).as_secs_f64(), spread(7).delay(n).as_secs_f64());
            assert!((off / exact - 1.0).abs() <= 0.1, "{n}");
        }
        assert_eq!(Backoff::default().spread(f64::NAN, 1).delay(1), Duration::from_secs(1));
    }
}
