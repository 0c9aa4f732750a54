//! The moment at which a value becomes stale.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::clock;

/// Waits for a future; when it was woken, by [`clock::now`], or none when it was not within the time. `listening` is called once the
/// future knows whom to wake.
///
/// The clock is read by whoever wakes, so that the time it takes this thread to run again does not count.
pub(crate) fn of<T>(future: impl Future<Output = T>, within: Duration, listening: impl FnOnce()) -> Option<Duration> {
    let alarm = Arc::new(Alarm { woken: OnceLock::new(), thread: thread::current() });
    let waker = Waker::from(Arc::clone(&alarm));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    let end = clock::now() + within;
    let mut polled = future.as_mut().poll(&mut cx);
    listening();
    loop {
        if polled.is_ready() {
            return Some(alarm.woken.get().copied().unwrap_or_else(clock::now));
        }
        let left = end.saturating_sub(clock::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
        polled = future.as_mut().poll(&mut cx);
    }
}

#[derive(Debug)]
struct Alarm {
    woken: OnceLock<Duration>,
    thread: Thread,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.woken.get_or_init(clock::now);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_waited_for_no_longer_than_said() {
        assert_eq!(of(std::future::pending::<()>(), Duration::from_millis(5), || ()), None);
    }

    #[test]
    fn the_moment_is_when_it_was_woken() {
        let before = clock::now();
        let at = of(std::future::ready(()), Duration::from_secs(60), || ()).expect("a moment");
        assert!(before <= at && at <= clock::now());
    }
}
