//! When to look, and when to wait to be told.

use std::time::Duration;

/// How long to go on looking after anything happened. What was told can be seen only when it has reached the disk, which a slow one
/// takes its time for.
const AWAKE: Duration = Duration::from_millis(250);

/// Changes in a row that the kernel has not told of before it is not believed any more: a file system of another machine's.
const MOST_MISSED: u32 = 3;

/// Decides between looking every period and waiting for the kernel.
#[derive(Debug)]
pub(crate) struct Pace {
    period: Duration,
    quiet: Duration,
    missed: u32,
    /// Whether the last wait was for the kernel, and it had nothing to tell.
    untold: bool,
}

impl Pace {
    pub(crate) fn new(period: Duration) -> Pace {
        Pace { period, quiet: Duration::ZERO, missed: 0, untold: false }
    }

    /// After a look.
    pub(crate) fn looked(&mut self, changed: bool) {
        if changed {
            self.quiet = Duration::ZERO;
            self.missed = match self.missed {
                missed @ MOST_MISSED.. => missed,
                missed if self.untold => missed + 1,
                _ => 0,
            };
        }
        self.untold = false;
    }

    pub(crate) fn may_sleep(&self) -> bool {
        self.quiet >= AWAKE && self.missed < MOST_MISSED
    }

    /// After a wait for the kernel.
    pub(crate) fn slept(&mut self, written: bool) {
        if written {
            self.quiet = Duration::ZERO;
        }
        self.untold = !written;
    }

    /// After a period.
    pub(crate) fn paused(&mut self) {
        self.quiet = self.quiet.saturating_add(self.period);
    }

    pub(crate) fn never_sleep(&mut self) {
        self.missed = MOST_MISSED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(pace: &mut Pace) {
        for _ in 0..=AWAKE.as_millis() {
            pace.paused();
            pace.looked(false);
        }
    }

    #[test]
    fn it_sleeps_only_after_nothing_has_happened_for_a_while() {
        let mut pace = Pace::new(Duration::from_millis(1));
        assert!(!pace.may_sleep());
        quiet(&mut pace);
        assert!(pace.may_sleep());
        pace.looked(true);
        assert!(!pace.may_sleep());
        quiet(&mut pace);
        pace.slept(false);
        pace.looked(false);
        assert!(pace.may_sleep());
        pace.slept(true);
        assert!(!pace.may_sleep());
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_not_relied_on() {
        let mut pace = Pace::new(Duration::from_millis(1));
        for _ in 0..MOST_MISSED {
            quiet(&mut pace);
            assert!(pace.may_sleep());
            pace.slept(false);
            pace.looked(true);
        }
        for _ in 0..2 {
            quiet(&mut pace);
            assert!(!pace.may_sleep());
            pace.looked(true);
        }
    }

    #[test]
    fn a_change_that_was_told_of_makes_up_for_one_that_was_not() {
        let mut pace = Pace::new(Duration::from_millis(1));
        for _ in 0..10 {
            quiet(&mut pace);
            pace.slept(false);
            pace.looked(true);
            quiet(&mut pace);
            pace.slept(true);
            pace.looked(true);
        }
        quiet(&mut pace);
        assert!(pace.may_sleep());
    }
}
