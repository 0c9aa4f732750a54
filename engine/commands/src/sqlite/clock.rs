//! The host's wall clock, in milliseconds: what times in the tables are.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that can be replaced, since tests must see what a wrong one does.
#[derive(Clone)]
pub(crate) struct Clock(pub(crate) Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The host's, which all processes on the file share. SQLite's own `now` would be the same one, only coarser to replace.
    pub(crate) fn host() -> Clock {
        Clock(Arc::new(SystemTime::now))
    }

    pub(crate) fn now(&self) -> i64 {
        match (self.0)().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        }
    }

    /// In a while from now.
    pub(crate) fn after(&self, delay: Duration) -> i64 {
        self.now().saturating_add(millis(delay))
    }

    /// A while ago.
    pub(crate) fn before(&self, age: Duration) -> i64 {
        self.now().saturating_sub(millis(age))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Whole milliseconds, rounded up: what is due in a fraction of one is not due at once.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// How long it is from one time to a later one; nothing if it has passed.
pub(crate) fn until(now: i64, then: i64) -> Duration {
    Duration::from_millis(u64::try_from(then.saturating_sub(now)).unwrap_or(0))
}
