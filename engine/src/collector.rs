//! Pins and reclamation: crossbeam's epochs for pins, [sections](crate::section) for the engine's own reads; one collector per engine.
//!
//! User `Drop` code never runs inside a pin or a sweep. What is retired waits in four places: *limbo* (just retired),
//! *sealed* (a batch that waits until every pin of its time is gone), *ready* (no pin can see it) and *passing* (until who was in a
//! section has come out): then it is dropped, after the next commit or in `collect`. Crossbeam's own deferred function only moves a batch number from one to the other.

use crate::section::Inside;
use crate::sync::{Arc, Mutex, lock};
use slotmap::{DefaultKey, SlotMap};

/// Something to drop once no pin can see it.
pub(crate) struct Retired {
    pointer: *mut (),
    drop: unsafe fn(*mut ()),
}

// SAFETY: [retire] only made from boxes of `Send` types by `Retired::boxed`.
unsafe impl Send for Retired {}

impl Retired {
    /// # Safety
    /// `pointer` came from `Box::into_raw`, and nobody reaches it after the pins of this moment are gone.
    pub(crate) unsafe fn boxed<T: Send>(pointer: *mut T) -> Retired {
        unsafe fn drop_box<T>(pointer: *mut ()) {
            // SAFETY: [retire] the contract of `boxed`; called once, from `run`.
            drop(unsafe { Box::from_raw(pointer.cast::<T>()) });
        }
        Retired { pointer: pointer.cast(), drop: drop_box::<T> }
    }

    /// # Safety
    /// As for `boxed`, with `drop` in place of the box: it may be called once with `pointer`, on any thread.
    pub(crate) unsafe fn with(pointer: *mut (), drop: unsafe fn(*mut ())) -> Retired {
        Retired { pointer, drop }
    }

    /// Runs the user's `Drop`. A panic in it is the user's; it stops here.
    fn run(self) {
        let drop = self.drop;
        let pointer = self.pointer;
        // SAFETY: [retire] `boxed`'s contract, and `self` is consumed.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { drop(pointer) }));
    }
}

type Batch = Vec<Retired>;

#[derive(Default)]
struct Waiting {
    limbo: Batch,
    sealed: SlotMap<DefaultKey, Batch>,
    ready: Vec<Batch>,
    /// Past all pins; these sections must come out yet.
    passing: Vec<(Inside, Vec<Batch>)>,
}

/// The engine's collector.
pub(crate) struct Collector {
    waiting: Arc<Mutex<Waiting>>,
    epochs: epochs::Epochs,
}

/// Retired values per sealed batch: sealing costs one deferred closure and one flush.
const BATCH: usize = if cfg!(any(loom, shuttle)) { 1 } else { 64 };

impl Collector {
    /// `number` is the engine's own.
    pub(crate) fn new(number: u64) -> Collector {
        Collector { waiting: Arc::new(Mutex::new(Waiting::default())), epochs: epochs::Epochs::new(number) }
    }

    #[inline]
    pub(crate) fn pin(&self) -> Guard {
        self.epochs.pin()
    }

    /// Protects the engine's own read of a column, for as short as a clone.
    #[inline(always)]
    pub(crate) fn section(&self) -> Section<'_> {
        self.epochs.section()
    }

    /// Hands something over; it is dropped after every pin taken before now is gone, never in here.
    pub(crate) fn retire(&self, retired: Retired) {
        let full = {
            let mut waiting = lock(&self.waiting);
            waiting.limbo.push(retired);
            waiting.limbo.len() >= BATCH
        };
        if full {
            self.seal();
        }
    }

    fn seal(&self) {
        let batch = {
            let mut waiting = lock(&self.waiting);
            if waiting.limbo.is_empty() {
                return;
            }
            let limbo = std::mem::take(&mut waiting.limbo);
            waiting.sealed.insert(limbo)
        };
        let shared = Arc::downgrade(&self.waiting);
        self.epochs.defer(move || {
            if let Some(shared) = shared.upgrade() {
                let mut waiting = lock(&shared);
                if let Some(batch) = waiting.sealed.remove(batch) {
                    waiting.ready.push(batch);
                }
            }
        });
    }

    /// Drops what nobody can see any more. Runs user `Drop` code, so it is called with no lock and no pin held.
    pub(crate) fn reap(&self) -> usize {
        let ready = {
            let mut waiting = lock(&self.waiting);
            if waiting.ready.is_empty() && waiting.passing.is_empty() {
                return 0;
            }
            std::mem::take(&mut waiting.ready)
        };
        let inside = if ready.is_empty() { None } else { self.epochs.inside() };
        let mut free = Vec::new();
        {
            let mut waiting = lock(&self.waiting);
            match inside {
                Some(inside) => waiting.passing.push((inside, ready)),
                None => waiting.ready.extend(ready),
            }
            free.extend(waiting.passing.extract_if(.., |(inside, _)| inside.is_over()).flat_map(|(_, batches)| batches));
        }
        let mut dropped = 0;
        for retired in free.into_iter().flatten() {
            retired.run();
            dropped += 1;
        }
        dropped
    }

    /// Seals, lets the epochs advance as far as pins allow, and drops what came free.
    pub(crate) fn collect(&self) -> usize {
        self.seal();
        let mut dropped = self.reap();
        loop {
            let before = self.waiting();
            // Two epochs free a batch; each advance runs a few deferred functions only, so go on while it helps.
            for _ in 0..4 {
                self.epochs.advance();
            }
            dropped += self.reap();
            let left = self.waiting();
            if left == 0 || left >= before {
                return dropped;
            }
        }
    }

    /// Retired and not yet dropped.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = lock(&self.waiting);
        let passing = waiting.passing.iter().flat_map(|(_, batches)| batches);
        waiting.limbo.len() + waiting.sealed.values().chain(&waiting.ready).chain(passing).map(Vec::len).sum::<usize>()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // No pin can be left: a pin borrows the graph. What crossbeam still holds is batch numbers.
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        let sealed = waiting.sealed.into_iter().map(|(_, batch)| batch);
        let passing = waiting.passing.into_iter().flat_map(|(_, batches)| batches);
        for retired in waiting.limbo.into_iter().chain(sealed.flatten()).chain(waiting.ready.into_iter().chain(passing).flatten()) {
            retired.run();
        }
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("waiting", &self.waiting()).finish()
    }
}

pub(crate) use epochs::{Guard, Section};

#[cfg(not(any(loom, shuttle)))]
mod epochs {
    use crate::section::{Entry, Inside, Sections};
    use crossbeam_epoch as epoch;
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;

    pub(crate) type Guard = epoch::Guard;
    pub(crate) use crate::section::Section;

    /// Crossbeam's collector, who is in a section, and a number that no other engine's ever had.
    pub(super) struct Epochs {
        collector: epoch::Collector,
        sections: Sections,
        number: u64,
    }

    /// A thread's registration with one engine.
    struct Local {
        handle: epoch::LocalHandle,
        entry: Arc<Entry>,
    }

    impl Drop for Local {
        fn drop(&mut self) {
            self.entry.leave();
        }
    }

    /// This thread's registrations, one per engine it has read; almost always one.
    struct Registered(Vec<(u64, Box<Local>)>);

    thread_local! {
        static REGISTERED: RefCell<Registered> = const { RefCell::new(Registered(Vec::new())) };
        /// The registration used last: found without a search, a borrow or a check for the thread's end.
        static LAST: Cell<(u64, *const Local)> = const { Cell::new((0, std::ptr::null())) };
    }

    impl Drop for Registered {
        fn drop(&mut self) {
            LAST.set((0, std::ptr::null()));
        }
    }

    impl Epochs {
        pub(super) fn new(number: u64) -> Epochs {
            Epochs { collector: epoch::Collector::new(), sections: Sections::new(), number }
        }

        #[inline]
        pub(super) fn pin(&self) -> Guard {
            match self.last() {
                Some(local) => local.handle.pin(),
                None => self.find(|local| local.handle.pin()),
            }
        }

        #[inline(always)]
        pub(super) fn section(&self) -> Section<'_> {
            match self.last() {
                Some(local) => self.enter(local),
                None => self.find(|local| self.enter(local)),
            }
        }

        #[inline(always)]
        fn enter(&self, local: &Local) -> Section<'_> {
            // SAFETY: [last-handle] `self.sections` owns the entry too, and drops it only once it is left and outside a section,
            // so a section may outlive the registration, as long as the engine it borrows.
            unsafe { &*Arc::as_ptr(&local.entry) }.enter()
        }

        #[inline(always)]
        fn last(&self) -> Option<&Local> {
            let (number, local) = LAST.get();
            // SAFETY: [last-handle] `LAST` names a box that `REGISTERED` owns: it is set when the box is put there, the box
            // just put there is never the one that makes room, and the list's end resets it. Numbers start at 1. The caller
            // lets go of the reference before this thread can register again.
            (number == self.number).then(|| unsafe { &*local })
        }

        #[cold]
        #[inline(never)]
        fn find<T>(&self, mut with: impl FnMut(&Local) -> T) -> T {
            let registered = REGISTERED.try_with(|registered| {
                let mut registered = registered.try_borrow_mut().ok()?;
                if let Some((_, local)) = registered.0.iter().find(|(number, _)| *number == self.number) {
                    LAST.set((self.number, &raw const **local));
                    return Some(with(local));
                }
                let local = Box::new(self.register());
                let result = with(&local);
                // Engines come and go in tests: keep the list short. A dropped registration of a live engine is made again.
                if registered.0.len() >= 16 {
                    registered.0.remove(0);
                }
                registered.0.push((self.number, local));
                if let Some((number, local)) = registered.0.last() {
                    LAST.set((*number, &raw const **local));
                }
                Some(result)
            });
            // The thread is being torn down: a registration for this once.
            registered.ok().flatten().unwrap_or_else(|| with(&self.register()))
        }

        fn register(&self) -> Local {
            Local { handle: self.collector.register(), entry: self.sections.register() }
        }

        /// Who may hold what was retired before now, other than pins.
        pub(super) fn inside(&self) -> Option<Inside> {
            self.sections.inside()
        }

        pub(super) fn defer(&self, run: impl FnOnce() + Send + 'static) {
            let guard = self.pin();
            guard.defer(run);
            guard.flush();
        }

        pub(super) fn advance(&self) {
            self.pin().flush();
        }
    }
}

#[cfg(any(loom, shuttle))]
mod epochs {
    //! The smallest collector that is right: deferred work runs when no pin is left. Swapped in under the checkers, which
    //! cannot see into crossbeam's.
    use crate::sync::{Arc, Mutex, lock};

    #[derive(Default)]
    struct Model {
        pins: usize,
        deferred: Vec<Box<dyn FnOnce() + Send>>,
    }

    pub(super) struct Epochs(Arc<Mutex<Model>>, crate::section::Sections);

    pub(crate) struct Guard(Arc<Mutex<Model>>);

    /// Sections have a model of their own; here they are pins, so that the rest has fewer interleavings.
    pub(crate) struct Section<'e>(#[expect(dead_code, reason = "held, not read")] Guard, std::marker::PhantomData<&'e ()>);

    impl Epochs {
        pub(super) fn new(_: u64) -> Epochs {
            Epochs(Arc::new(Mutex::new(Model::default())), crate::section::Sections::new())
        }
        pub(super) fn section(&self) -> Section<'_> {
            Section(self.pin(), std::marker::PhantomData)
        }
        pub(super) fn inside(&self) -> Option<crate::section::Inside> {
            self.1.inside()
        }
        pub(super) fn pin(&self) -> Guard {
            if !crate::sync::fault!("retire_ignores_pins") {
                lock(&self.0).pins += 1;
            }
            Guard(self.0.clone())
        }
        pub(super) fn defer(&self, run: impl FnOnce() + Send + 'static) {
            lock(&self.0).deferred.push(Box::new(run));
            self.advance();
        }
        pub(super) fn advance(&self) {
            let runnable = {
                let mut model = lock(&self.0);
                if model.pins == 0 { std::mem::take(&mut model.deferred) } else { Vec::new() }
            };
            for run in runnable {
                run();
            }
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let runnable = {
                let mut model = lock(&self.0);
                model.pins = model.pins.saturating_sub(1);
                if model.pins == 0 { std::mem::take(&mut model.deferred) } else { Vec::new() }
            };
            for run in runnable {
                run();
            }
        }
    }

    impl std::fmt::Debug for Guard {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Guard")
        }
    }
}
