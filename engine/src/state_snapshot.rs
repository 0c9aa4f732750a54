//! What a computed state shows at one moment.

use std::future::Future;
use std::time::Duration;

use crate::computed::Computed;
use crate::state_error::StateError;
use crate::sync::Arc;
use crate::value::Value;

/// What one run of a state's closure came to: the value of its hidden function.
pub(crate) struct Made<T> {
    pub(crate) result: Result<Arc<T>, StateError>,
    /// It ends by itself after so long.
    pub(crate) lives: Option<Duration>,
    /// It will pass: a transient error, or whatever was made from a fault, which the engine does not keep.
    pub(crate) transient: bool,
}

impl<T> Made<T> {
    pub(crate) fn error(error: StateError, transient: bool) -> Made<T> {
        Made { result: Err(error), lives: None, transient }
    }
}

/// What a [`ComputedState`](crate::ComputedState) shows at one moment: its value or error, the last value before an error, and counts.
/// It never changes; the state goes on to the next.
pub struct StateSnapshot<T: Value> {
    pub(crate) made: Arc<Made<T>>,
    pub(crate) good: Option<Arc<T>>,
    /// The generation it shows; `None` before the first update and after one that ended in a fault.
    pub(crate) generation: Option<Computed<Arc<Made<T>>>>,
    pub(crate) updates: u64,
    pub(crate) errors: u64,
    pub(crate) retries: u32,
}

impl<T: Value> StateSnapshot<T> {
    pub(crate) fn initial(value: Option<T>) -> StateSnapshot<T> {
        let good = value.map(Arc::new);
        let result = good.clone().ok_or_else(StateError::initial);
        let made = Arc::new(Made { result, lives: None, transient: false });
        StateSnapshot { made, good, generation: None, updates: 0, errors: 0, retries: 0 }
    }

    /// The snapshot after this one.
    pub(crate) fn next(&self, made: Arc<Made<T>>, generation: Option<Computed<Arc<Made<T>>>>) -> StateSnapshot<T> {
        let failed = made.result.is_err();
        StateSnapshot {
            good: made.result.as_ref().ok().or(self.good.as_ref()).cloned(),
            updates: self.updates + 1,
            errors: self.errors + u64::from(failed),
            retries: if made.transient { self.retries.saturating_add(1) } else { 0 },
            made,
            generation,
        }
    }

    /// The same, verified under a newer generation.
    pub(crate) fn renewed(&self, generation: Option<Computed<Arc<Made<T>>>>) -> StateSnapshot<T> {
        let &StateSnapshot { updates, errors, retries, .. } = self;
        StateSnapshot { made: self.made.clone(), good: self.good.clone(), generation, updates, errors, retries }
    }

    /// The value.
    ///
    /// # Errors
    /// What the closure returned instead; a [`Fault`](crate::Fault) if it panicked; or that there is no value yet.
    pub fn value(&self) -> Result<&T, &StateError> {
        self.made.result.as_deref()
    }

    /// The error, if it shows one.
    pub fn error(&self) -> Option<&StateError> {
        self.made.result.as_ref().err()
    }

    /// The last value that was no error, the initial one included: this snapshot's own, if it has one.
    pub fn last_good(&self) -> Option<&T> {
        self.good.as_deref()
    }

    /// How many updates there have been. Snapshots of one state are told apart by it.
    pub fn update_count(&self) -> u64 {
        self.updates
    }

    /// How many of them ended in errors.
    pub fn error_count(&self) -> u64 {
        self.errors
    }

    /// How many transient errors came in a row, this one included; 0 after a value or any other error.
    pub fn retry_count(&self) -> u32 {
        self.retries
    }

    /// Whether there has been no update yet.
    pub fn is_initial(&self) -> bool {
        self.updates == 0
    }

    /// Whether a read of the state would return this now without computing or verifying. The initial one never is.
    pub fn is_consistent(&self) -> bool {
        self.generation.as_ref().is_some_and(Computed::is_consistent)
    }

    /// Completes at the first mark of what it shows; at once if that has come, or if there is nothing behind it to be marked.
    pub fn invalidated(&self) -> impl Future<Output = ()> + Send + use<T> {
        let invalidated = self.generation.as_ref().map(Computed::invalidated);
        async move {
            if let Some(invalidated) = invalidated {
                invalidated.await;
            }
        }
    }
}

impl<T: Value + std::fmt::Debug> std::fmt::Debug for StateSnapshot<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateSnapshot")
            .field("value", &self.value())
            .field("last_good", &self.last_good())
            .field("update_count", &self.updates)
            .field("error_count", &self.errors)
            .field("retry_count", &self.retries)
            .finish_non_exhaustive()
    }
}
