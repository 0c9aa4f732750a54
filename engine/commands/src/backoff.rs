//! How long to wait before the same is tried again.

use std::time::Duration;

/// Waits that double from `first` to `most`, each shortened by a random part of up to a third, so that servers that failed together
/// do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

impl Pause {
    /// From its two ends.
    pub const fn new(first: Duration, most: Duration) -> Pause {
        Pause { first, most }
    }

    /// The wait after that many failures, counted from 1.
    pub fn after(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(30)));
        whole(doubled.min(self.most.max(self.first)).mul_f64(1.0 - fastrand::f64() / 3.0))
    }
}

/// A period with a spread of a tenth either way, for the same reason.
pub(crate) fn spread(period: Duration) -> Duration {
    let seconds = period.as_secs_f64() * (0.9 + fastrand::f64() / 5.0);
    whole(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// In whole milliseconds, which is what timers count in: how two waits lie to each other is then the same in every run of a simulation.
fn whole(wait: Duration) -> Duration {
    match wait.as_millis() {
        0 => wait,
        millis => Duration::from_millis(millis.try_into().unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_may_be_for_ever() {
        for _ in 0..20 {
            assert!(spread(Duration::MAX) > Duration::from_secs(1 << 40));
        }
        assert!(spread(Duration::from_secs(1)).abs_diff(Duration::from_secs(1)) <= Duration::from_millis(100));
    }

    #[test]
    fn waits_double_up_to_the_most() {
        let pause = Pause::new(Duration::from_millis(30), Duration::from_millis(100));
        for (failures, most) in [(1, 30), (2, 60), (3, 100), (99, 100)] {
            let wait = pause.after(failures);
            assert!(wait <= Duration::from_millis(most) && wait >= Duration::from_millis(most * 2 / 3 - 1), "{failures}: {wait:?}");
        }
    }
}
