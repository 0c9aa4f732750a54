//! Why a state has no value.

use std::error::Error;
use std::fmt;

use crate::fault::Fault;
use crate::sync::Arc;

/// Why a state has no value: an error of the user's, or the engine's [`Fault`], or no value yet or any more.
///
/// A clone is the same error. Two are equal if they are the same, not if they look alike.
///
/// ```
/// # use wellspring::StateError;
/// let error = StateError::new("no connection");
/// assert_eq!(error, error.clone());
/// assert_ne!(error, StateError::new("no connection"));
/// assert_eq!(error.to_string(), "no connection");
/// ```
#[derive(Clone)]
pub struct StateError(Repr);

#[derive(Clone)]
enum Repr {
    User(Arc<dyn Error + Send + Sync>),
    Fault(Arc<Fault>),
    /// The first update is not over.
    Initial,
    Stopped,
}

impl StateError {
    /// An error of the user's. What is a `StateError` or a [`Fault`] already stays the same.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> StateError {
        let error = match error.into().downcast::<StateError>() {
            Ok(same) => return *same,
            Err(other) => other,
        };
        match error.downcast::<Fault>() {
            Ok(fault) => StateError::from(*fault),
            Err(other) => StateError(Repr::User(Arc::from(other))),
        }
    }

    pub(crate) fn initial() -> StateError {
        StateError(Repr::Initial)
    }

    pub(crate) fn stopped() -> StateError {
        StateError(Repr::Stopped)
    }

    /// The user's error, if it is one.
    pub fn get_ref(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.0 {
            Repr::User(error) => Some(&**error),
            _ => None,
        }
    }

    /// The user's error as what it is, if it is one and of this type.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.get_ref()?.downcast_ref()
    }

    /// What went wrong with the engine's part, if that is it.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.0 {
            Repr::Fault(fault) => Some(fault),
            _ => None,
        }
    }

    /// Whether the state has had no value yet.
    pub fn is_initial(&self) -> bool {
        matches!(self.0, Repr::Initial)
    }

    /// Whether the state was stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self.0, Repr::Stopped)
    }
}

impl From<Fault> for StateError {
    fn from(fault: Fault) -> StateError {
        StateError(Repr::Fault(Arc::new(fault)))
    }
}

impl PartialEq for StateError {
    fn eq(&self, other: &StateError) -> bool {
        match (&self.0, &other.0) {
            // Addresses alone: the same error may be known under two tables of methods.
            (Repr::User(a), Repr::User(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (Repr::Fault(a), Repr::Fault(b)) => a == b,
            (Repr::Initial, Repr::Initial) | (Repr::Stopped, Repr::Stopped) => true,
            _ => false,
        }
    }
}

impl Eq for StateError {}

impl fmt::Debug for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::User(error) => f.debug_tuple("StateError").field(error).finish(),
            Repr::Fault(fault) => f.debug_tuple("StateError").field(fault).finish(),
            Repr::Initial => f.write_str("StateError(initial)"),
            Repr::Stopped => f.write_str("StateError(stopped)"),
        }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::User(error) => error.fmt(f),
            Repr::Fault(fault) => fault.fmt(f),
            Repr::Initial => f.write_str("the state has no value yet; give it an initial one, or wait for its first update"),
            Repr::Stopped => f.write_str("the state was stopped; keep a handle while it is in use"),
        }
    }
}

impl Error for StateError {
    /// What it wraps says everything itself, so this is that one's own source.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Repr::User(error) => error.source(),
            _ => None,
        }
    }
}
