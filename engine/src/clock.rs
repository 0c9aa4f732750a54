//! The one place that asks for the time.

#[cfg(not(any(loom, shuttle)))]
use std::time::Instant;

/// A moment on the monotonic clock. Only statistics use it so far; time as a rule of freshness comes with its own trait.
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
