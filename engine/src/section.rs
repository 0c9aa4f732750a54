//! Sections: the engine's own short reads of what may be retired, such as the clone behind a `get`.
//!
//! A pin announces itself to the collector with a locked instruction, which costs more than the lookup it protects. A section
//! announces itself with a plain store; whoever wants to free something makes every thread of the process pass a barrier first
//! (`membarrier`, one system call a batch of 64) and then looks who is inside. Where the system has no such call, a section
//! carries the fence itself.
//!
//! The argument, both ways: a reader stores its turn and then loads a pointer; a reaper's pointer was replaced, the barrier passed
//! and then the turn is loaded. If the store came before the barrier the reaper sees it and waits; if after, the reader loads
//! the new pointer. Known as asymmetric fences: Dice, Huang & Yang, 2001; liburcu's `memb` flavour.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, fault, lock};

/// One thread's turns in one engine: odd while it is inside. On lines of its own: the thread writes it at each section.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Entry {
    turn: AtomicU64,
    /// The thread has no more use for it.
    left: AtomicBool,
    /// The reader must fence itself.
    fenced: bool,
}

/// Every thread's entry. One is dropped only after its thread has left it, and outside a section.
#[derive(Debug)]
pub(crate) struct Sections {
    entries: Mutex<Vec<Arc<Entry>>>,
    fenced: bool,
}

/// Who was inside at some moment: empty once all of them have come out.
#[derive(Debug)]
pub(crate) struct Inside(Vec<(Arc<Entry>, u64)>);

/// Being inside. What was in a column when it began is not freed before it is dropped.
#[derive(Debug)]
pub(crate) struct Section<'s> {
    entry: &'s Entry,
    /// The turn when it is over. Sections nest (a value's `Clone` may read others): an inner one leaves the turn as it was.
    after: u64,
}

impl Sections {
    pub(crate) fn new() -> Sections {
        Sections { entries: Mutex::new(Vec::new()), fenced: !barrier::is_offered() }
    }

    /// An entry for the calling thread. Entries that were left are dropped when their number has doubled since the last time.
    pub(crate) fn register(&self) -> Arc<Entry> {
        let entry = Arc::new(Entry { turn: AtomicU64::new(0), left: AtomicBool::new(false), fenced: self.fenced });
        let mut entries = lock(&self.entries);
        if entries.len() == entries.capacity() {
            entries.retain(|entry| entry.is_used().is_some());
        }
        entries.push(entry.clone());
        entry
    }

    /// Who is inside and may hold what was retired before the call. `None`: the system would not say; nothing may be freed.
    pub(crate) fn inside(&self) -> Option<Inside> {
        if fault!("sections_ignored") {
            return Some(Inside(Vec::new()));
        }
        if !barrier::heavy(self.fenced) {
            return None;
        }
        let mut inside = Vec::new();
        lock(&self.entries).retain(|entry| {
            let used = entry.is_used();
            inside.extend(used.filter(|turn| turn & 1 == 1).map(|turn| (entry.clone(), turn)));
            used.is_some()
        });
        Some(Inside(inside))
    }
}

impl Inside {
    /// Whether all have come out since.
    pub(crate) fn is_over(&mut self) -> bool {
        // Acquire: as in `inside`.
        self.0.retain(|(entry, turn)| entry.turn.load(Ordering::Acquire) == *turn);
        self.0.is_empty()
    }
}

impl Entry {
    /// Only the entry's own thread enters.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Section<'_> {
        // Relaxed (both): written by this thread alone; ordered before the reads of the section by the light side of the
        // barrier. No branch, and no second load at the end: each would show in every `get`.
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn | 1, Ordering::Relaxed);
        barrier::light(self.fenced);
        Section { entry: self, after: turn + ((!turn & 1) << 1) }
    }

    /// Its turn, unless its thread has left it and is outside.
    fn is_used(&self) -> Option<u64> {
        // Acquire (both): the reads of a section that has ended come before what follows here. `left` first: a thread that is seen
        // to have left has entered for the last time before, so that a turn read after it shows whether that time is over.
        let left = self.left.load(Ordering::Acquire);
        let turn = self.turn.load(Ordering::Acquire);
        (!left || turn & 1 == 1).then_some(turn)
    }

    /// The thread will not enter again.
    pub(crate) fn leave(&self) {
        // Release: after every section of the thread.
        self.left.store(true, Ordering::Release);
    }
}

impl Drop for Section<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: the reads of the section before the turn that says they are over.
        self.entry.turn.store(self.after, Ordering::Release);
    }
}

#[cfg(not(any(loom, shuttle)))]
mod barrier {
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    /// Keeps the compiler from moving the section's reads before its turn; the processor is kept from it by `heavy`.
    #[inline(always)]
    pub(super) fn light(fenced: bool) {
        if fenced {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// `false` if the system refuses what it has offered: a filter came later, or the process was restored elsewhere.
    pub(super) fn heavy(fenced: bool) -> bool {
        // A full fence of our own in any case: the call is not one for the caller by its documentation.
        fence(Ordering::SeqCst);
        fenced || call(PRIVATE_EXPEDITED) || (call(REGISTER_PRIVATE_EXPEDITED) && call(PRIVATE_EXPEDITED))
    }

    const PRIVATE_EXPEDITED: i32 = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;

    /// Whether the system has the call. Asked once a process, which it is a registration of.
    pub(super) fn is_offered() -> bool {
        static OFFERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *OFFERED.get_or_init(|| call(REGISTER_PRIVATE_EXPEDITED) && call(PRIVATE_EXPEDITED))
    }

    #[cfg(target_os = "linux")]
    fn call(command: i32) -> bool {
        // SAFETY: [membarrier] the call takes numbers and touches no memory.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn call(_: i32) -> bool {
        false
    }
}

#[cfg(any(loom, shuttle))]
mod barrier {
    //! A fence on both sides, which is what the asymmetric pair amounts to.
    #[cfg(loom)]
    use loom::sync::atomic::{Ordering, fence};
    #[cfg(not(loom))]
    use shuttle::sync::atomic::{Ordering, fence};

    pub(super) fn light(_: bool) {
        fence(Ordering::SeqCst);
    }
    pub(super) fn heavy(_: bool) -> bool {
        fence(Ordering::SeqCst);
        true
    }
    pub(super) fn is_offered() -> bool {
        true
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_inside_is_waited_for_and_nobody_else() {
        let sections = Sections::new();
        let (one, two) = (sections.register(), sections.register());
        let section = one.enter();
        let nested = one.enter();
        let mut inside = sections.inside().expect("offered");
        assert!(!inside.is_over());
        drop(nested);
        assert!(!inside.is_over(), "the outermost section counts");
        let _later = two.enter();
        drop(section);
        assert!(inside.is_over(), "one that began later holds nothing of that time");
    }

    #[test]
    fn an_entry_is_forgotten_once_its_thread_has_left_it_and_is_outside() {
        let sections = Sections::new();
        let entry = sections.register();
        let section = entry.enter();
        entry.leave();
        sections.inside().expect("offered");
        assert_eq!(lock(&sections.entries).len(), 1, "still inside");
        drop(section);
        sections.inside().expect("offered");
        assert!(lock(&sections.entries).is_empty());
    }

    #[test]
    fn entries_of_threads_that_ended_do_not_pile_up_where_nothing_is_retired() {
        let sections = Sections::new();
        for _ in 0..1_000 {
            sections.register().leave();
        }
        assert!(lock(&sections.entries).len() < 16);
    }
}
