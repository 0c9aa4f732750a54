//! A clock that several processes on one machine read the same time from.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since the machine was started.
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative, nor the second ever a billion.
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
