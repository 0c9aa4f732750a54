//! How much a method may be asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the calls of a method may take. There are no limits unless they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodLimits {
    pub(crate) timeout: Option<Duration>,
    pub(crate) at_once: usize,
    pub(crate) argument_bytes: usize,
}

impl Default for MethodLimits {
    fn default() -> MethodLimits {
        MethodLimits { timeout: None, at_once: usize::MAX, argument_bytes: usize::MAX }
    }
}

impl MethodLimits {
    /// None.
    pub fn new() -> MethodLimits {
        MethodLimits::default()
    }

    /// How long a body may run: then it is dropped, and its caller gets a failure of type `System.TimeoutException`. One that does not yield is not
    /// stopped.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> MethodLimits {
        MethodLimits { timeout: Some(timeout), ..self }
    }

    /// How many bodies may run at once, of all callers. More calls fail. A value that was given out, whose end its caller waits for, is not one that
    /// runs.
    #[must_use]
    pub fn at_once(self, at_once: usize) -> MethodLimits {
        MethodLimits { at_once, ..self }
    }

    /// Bytes of the arguments, as they travel. A call with more fails before they are read.
    ///
    /// If nothing is said a call may have what a message may have, about 16 MB. What is made of that may be far larger: an empty string is one byte of
    /// MessagePack and a [`String`] of 24, so that 16 MB of them are a `Vec<String>` of 400. Where strangers call a method that takes lists of anything
    /// larger than a number, this says how much of that they can have.
    #[must_use]
    pub fn argument_bytes(self, bytes: usize) -> MethodLimits {
        MethodLimits { argument_bytes: bytes, ..self }
    }
}

/// Limits, and what counts for them.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) limits: MethodLimits,
    pub(crate) running: Arc<AtomicUsize>,
}

impl Limited {
    pub(crate) fn new(limits: MethodLimits) -> Limited {
        Limited { limits, running: Arc::default() }
    }
}

/// A place among those that run.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// One, if fewer than so many are taken.
    pub(crate) fn take(running: &Arc<AtomicUsize>, most: usize) -> Option<Place> {
        // Relaxed: only the number counts. It is too high for a moment when there is none, so that others may find none either, never too many.
        let before = running.fetch_add(1, Ordering::Relaxed);
        let place = Place(running.clone());
        (before < most).then_some(place)
    }

    /// One more.
    pub(crate) fn add(running: &Arc<AtomicUsize>) -> Place {
        // As above.
        running.fetch_add(1, Ordering::Relaxed);
        Place(running.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
