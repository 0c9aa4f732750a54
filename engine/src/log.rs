//! The event log: what ran and why, for tests and for finding failures. Off unless asked for.

use crate::graph::Graph;
use crate::sync::{Mutex, lock};

/// What happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum What {
    /// Its function's body ran and the result differs from the old value.
    Computed,
    /// Its function's body ran and the result is equal to the old value: nothing downstream will run.
    CutOff,
    /// Its dependencies were verified unchanged; no user code ran.
    Verified,
    /// It was invalidated by name.
    Invalidated,
    /// Its time was over.
    Expired,
    /// It was replaced while the old value was served.
    Refreshed,
    /// Its value was evicted.
    Evicted,
    /// A sweep marked it.
    Marked,
    /// A source got a value.
    Set,
    /// It was removed.
    Forgotten,
}

/// One entry of the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub what: What,
    /// The function of the node.
    pub function: String,
    /// The node's slot.
    pub slot: u32,
    /// The last commit that was finished then.
    pub commit: u64,
}

#[derive(Debug, Default)]
pub(crate) struct EventLog(Mutex<Vec<Event>>);

impl EventLog {
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Graph {
    #[inline(always)]
    pub(crate) fn note(&self, what: What, slot: u32) {
        if self.log.is_some() {
            self.write_note(what, slot);
        }
    }

    #[cold]
    fn write_note(&self, what: What, slot: u32) {
        if let Some(log) = &self.log {
            let event = Event { what, function: self.function_name(slot), slot, commit: self.finished_commit() };
            lock(&log.0).push(event);
        }
    }
}
