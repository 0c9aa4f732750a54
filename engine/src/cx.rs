//! The context a running function reads others through, and who may ask.

use std::cell::UnsafeCell;

use crate::deps::{Dep, Recorded};
use crate::fault::Fault;
use crate::flight::FlightKey;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Arc, Mutex, get_mut, lock};

/// What a running function reads others through: every read with it is recorded as a dependency.
///
/// Synchronous bodies borrow one; asynchronous bodies own one, and may clone it into the parts of a `join!`.
/// A read through a clone that outlives its computation is [`Fault::Escaped`], never a late edge.
#[derive(Debug)]
pub struct Cx(Repr);

#[derive(Debug)]
enum Repr {
    /// A sync body's: on the flight's own stack.
    Inline(CxState),
    Shared(Arc<CxState>),
}

#[derive(Debug)]
pub(crate) struct CxState {
    pub(crate) graph: u64,
    pub(crate) flight: FlightKey,
    tracked: bool,
    /// See [`Asker::held`].
    held: bool,
    /// The thread a sync body runs on, by number; [`NOWHERE`] for every other context.
    home: usize,
    /// What was read on the home thread: no lock. Other threads, to which a body may lend its context, record below.
    at_home: UnsafeCell<Recorded>,
    recorded: Mutex<Recorded>,
    flags: AtomicU8,
    /// Where faults met by an untracked view count.
    origin: Option<Arc<CxState>>,
}

// SAFETY: [home-thread] `at_home` is touched by the thread whose number is `home` alone, and by `close`, which has the context to
// itself; the rest is `Sync`.
unsafe impl Sync for CxState {}

/// The flight of a context that belongs to none: slot 0 is nobody's.
const NO_FLIGHT: FlightKey = (0, 0);

/// No thread's number. A checker's threads share one, so there every context is at home nowhere.
const NOWHERE: usize = usize::MAX;

/// A read through the context ended in a fault: the result may be made from it and is not cached.
const FAULTED: u8 = 1;
/// The flight has ended.
const ENDED: u8 = 2;
/// No flight at all: a value is computed once more to be compared, see [`crate::fingerprint`].
const CHECK: u8 = 4;

impl CxState {
    // Always: a context is made where it stays, not copied there right after its parts were written.
    #[inline(always)]
    fn new(graph: u64, flight: FlightKey, tracked: bool, held: bool, origin: Option<Arc<CxState>>) -> CxState {
        let (at_home, recorded) = (UnsafeCell::new(Recorded::default()), Mutex::new(Recorded::default()));
        CxState { graph, flight, tracked, held, home: NOWHERE, at_home, recorded, flags: AtomicU8::new(0), origin }
    }
}

impl Cx {
    /// A sync body's; `held` as its asker's.
    #[inline(always)]
    pub(crate) fn inline(graph: u64, flight: FlightKey, held: bool) -> Cx {
        let home = if cfg!(any(loom, shuttle)) { NOWHERE } else { crate::sync::thread_number() };
        Cx(Repr::Inline(CxState { home, ..CxState::new(graph, flight, true, held, None) }))
    }

    /// A context of no function's, which records for whoever asks from outside.
    pub(crate) fn outside(graph: u64, held: bool) -> Cx {
        Cx::inline(graph, NO_FLIGHT, held)
    }

    /// [`outside`](Cx::outside) for asynchronous reads.
    pub(crate) fn outside_shared(graph: u64) -> Cx {
        Cx::shared(graph, NO_FLIGHT)
    }

    pub(crate) fn shared(graph: u64, flight: FlightKey) -> Cx {
        Cx(Repr::Shared(Arc::new(CxState::new(graph, flight, true, false, None))))
    }

    /// A check's: records nothing.
    pub(crate) fn check(graph: u64, flight: FlightKey, held: bool) -> Cx {
        let state = CxState::new(graph, flight, false, held, None);
        state.set(CHECK);
        Cx(Repr::Shared(Arc::new(state)))
    }

    pub(crate) fn state(&self) -> &CxState {
        match &self.0 {
            Repr::Inline(state) => state,
            Repr::Shared(state) => state,
        }
    }

    /// Closes a sync body's context, which nobody borrows any more: what it recorded, and whether a read met a fault.
    pub(crate) fn close<R>(&mut self, with: impl FnOnce(&Recorded, bool) -> R) -> R {
        match &mut self.0 {
            Repr::Inline(state) => {
                let faulted = state.is_faulted();
                let (recorded, elsewhere) = (state.at_home.get_mut(), get_mut(&mut state.recorded));
                recorded.merge(elsewhere);
                with(recorded, faulted)
            }
            Repr::Shared(state) => {
                let recorded = state.end();
                with(&recorded, state.is_faulted())
            }
        }
    }

    /// A second handle for work that outlives the borrow; `None` for a sync body's context.
    pub(crate) fn share(&self) -> Option<Cx> {
        match &self.0 {
            Repr::Inline(_) => None,
            Repr::Shared(state) => Some(Cx(Repr::Shared(state.clone()))),
        }
    }

    /// Reads inside the closure are not recorded: a later change of what they read leaves this value as it is.
    ///
    /// ```
    /// # use wellspring::Engine;
    /// let engine = Engine::new();
    /// let rate = engine.source("rate", |_: &()| 2_u64)?;
    /// let seen = rate.clone();
    /// let once = engine.function("once", move |cx, n: &u64| cx.untracked(|cx| seen.get(cx, &())).unwrap_or(0) * n)?;
    /// assert_eq!(once.get(&engine, &10)?, 20);
    /// rate.set(&(), 3);
    /// assert_eq!(once.get(&engine, &10)?, 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn untracked<R>(&self, read: impl FnOnce(&Cx) -> R) -> R {
        let state = self.state();
        let view = Cx(Repr::Inline(CxState::new(state.graph, state.flight, false, state.held, None)));
        let result = read(&view);
        if view.state().is_faulted() {
            state.set(FAULTED);
        }
        result
    }

    /// An owned context that records nothing, for asynchronous reads. Faults it meets still keep the result uncached.
    pub fn untracked_cx(&self) -> Cx {
        let state = self.state();
        let origin = match &self.0 {
            Repr::Inline(_) => None,
            Repr::Shared(shared) => Some(shared.clone()),
        };
        Cx(Repr::Shared(Arc::new(CxState::new(state.graph, state.flight, false, false, origin))))
    }
}

impl Clone for Cx {
    /// Another handle to the same computation. A sync body's context clones into one that records nothing and has ended:
    /// sync bodies have no parts that outlive the borrow.
    fn clone(&self) -> Cx {
        self.share().unwrap_or_else(|| {
            let state = self.state();
            let detached = CxState::new(state.graph, state.flight, false, false, None);
            detached.set(ENDED);
            Cx(Repr::Shared(Arc::new(detached)))
        })
    }
}

impl CxState {
    /// The flight that a wait of this context blocks.
    pub(crate) fn blocked(&self) -> Option<FlightKey> {
        Some(self.flight).filter(|&flight| flight != NO_FLIGHT)
    }

    /// Whether reads may still be made.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        // Relaxed: the flag is re-checked under the lock when a dependency is recorded.
        let ended = self.flags.load(Ordering::Relaxed) & ENDED != 0
            || self.origin.as_ref().is_some_and(|origin| origin.flags.load(Ordering::Relaxed) & ENDED != 0);
        if ended { Err(Fault::Escaped) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn record(&self, dep: Dep) -> Result<(), Fault> {
        if !self.tracked {
            return self.check();
        }
        if self.home == crate::sync::thread_number() {
            // SAFETY: [home-thread] this is the home thread, recording runs no user code that could come back here, and a sync
            // body's context cannot have ended while it is borrowed.
            unsafe { &mut *self.at_home.get() }.record(dep);
            return Ok(());
        }
        let mut recorded = lock(&self.recorded);
        // Relaxed: set under the same lock.
        if self.flags.load(Ordering::Relaxed) & ENDED != 0 {
            return Err(Fault::Escaped);
        }
        recorded.record(dep);
        Ok(())
    }

    fn set(&self, flag: u8) {
        // Relaxed: read by the flight's owner after the reads that set it, on the same thread or behind the lock.
        self.flags.fetch_or(flag, Ordering::Relaxed);
    }

    pub(crate) fn faulted(&self) {
        self.set(FAULTED);
        if let Some(origin) = &self.origin {
            origin.faulted();
        }
    }

    pub(crate) fn is_faulted(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & FAULTED != 0
    }

    pub(crate) fn is_check(&self) -> bool {
        // Relaxed: set before anybody has the context.
        self.flags.load(Ordering::Relaxed) & CHECK != 0
    }

    /// Closes the context and takes what it recorded.
    pub(crate) fn end(&self) -> Recorded {
        let mut recorded = lock(&self.recorded);
        self.set(ENDED);
        std::mem::take(&mut *recorded)
    }
}

/// Who asks: `&Engine` from outside (nothing recorded), `&Cx` from inside a function (recorded).
pub trait Ask: sealed::Sealed {
    #[doc(hidden)]
    fn asker(&self) -> Asker<'_>;
}

/// The asker, as the engine sees it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub(crate) graph: u64,
    pub(crate) cx: Option<&'a Cx>,
    /// The asker's caller borrows an `Engine` until the read is over, so function bodies are there without counting:
    /// a borrowed engine asks itself, or a sync body does that runs within such a read.
    pub(crate) held: bool,
}

impl Asker<'_> {
    /// Notes a fault on the asking computation and hands it on.
    pub(crate) fn fault(&self, fault: Fault) -> Fault {
        if let Some(cx) = self.cx {
            cx.state().faulted();
        }
        fault
    }

    #[inline]
    pub(crate) fn record(&self, dep: Dep) -> Result<(), Fault> {
        match self.cx {
            None => Ok(()),
            Some(cx) => cx.state().record(dep).map_err(|fault| self.fault(fault)),
        }
    }
}

impl Ask for Cx {
    #[inline]
    fn asker(&self) -> Asker<'_> {
        Asker { graph: self.state().graph, cx: Some(self), held: self.state().held }
    }
}

impl<T: Ask + ?Sized> Ask for &T {
    #[inline]
    fn asker(&self) -> Asker<'_> {
        (**self).asker()
    }
}

pub(crate) mod sealed {
    /// Only the engine and its contexts may ask.
    pub trait Sealed {}
    impl Sealed for super::Cx {}
    impl<T: Sealed + ?Sized> Sealed for &T {}
}
