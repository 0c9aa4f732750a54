//! Clocks that mean the same in two processes.

use rustix::time::{ClockId, clock_gettime};

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Nanoseconds on the clock that all processes of this host share and nobody sets.
pub(super) fn now() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Nanoseconds that this process has run on any core, in all its threads, also those that are gone.
pub(super) fn processor() -> u64 {
    nanos(ClockId::ProcessCPUTime)
}
