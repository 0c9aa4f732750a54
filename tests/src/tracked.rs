//! Values that count their lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::expr::Outcome;

/// Counts the values alive.
#[derive(Clone, Debug, Default)]
pub struct Tracker(Arc<AtomicI64>);

impl Tracker {
    /// A value that is counted until it is dropped.
    pub fn track(&self, outcome: Outcome) -> Tracked {
        self.0.fetch_add(1, Ordering::AcqRel);
        Tracked { outcome, tracker: self.clone() }
    }

    /// Values made or cloned and not dropped yet.
    pub fn alive(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}

/// An outcome behind a pointer whose drops are counted.
#[derive(Debug)]
pub struct Tracked {
    /// What it stands for.
    pub outcome: Outcome,
    tracker: Tracker,
}

impl Clone for Tracked {
    fn clone(&self) -> Tracked {
        self.tracker.track(self.outcome)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let left = self.tracker.0.fetch_sub(1, Ordering::AcqRel);
        assert!(left > 0, "a value was dropped twice");
    }
}

impl PartialEq for Tracked {
    fn eq(&self, other: &Tracked) -> bool {
        self.outcome == other.outcome
    }
}

/// Errors as numbers below every result, for functions whose values are plain numbers.
pub fn to_word(outcome: Outcome) -> i64 {
    outcome.unwrap_or_else(|code| i64::MIN + i64::from(code))
}

/// The way back from [`to_word`].
pub fn from_word(word: i64) -> Outcome {
    if word < 0 { Err((word - i64::MIN) as u8) } else { Ok(word) }
}
