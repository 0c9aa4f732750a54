//! One door to atomics, locks and threads, so that the same modules run under std, loom and shuttle.
//!
//! Logic never says `cfg(loom)`: only this file and the constants that shrink under a checker do.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use self::real::*;
#[cfg(loom)]
pub(crate) use self::under_loom::*;
#[cfg(all(shuttle, not(loom)))]
pub(crate) use self::under_shuttle::*;

#[cfg(not(any(loom, shuttle)))]
mod real {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic;
    pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
    pub(crate) use std::thread::yield_now;
}

#[cfg(loom)]
mod under_loom {
    pub(crate) use loom::sync::atomic;
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
    // loom has no `Weak`; reference counts are not what the models check.
    pub(crate) use std::sync::{Arc, Weak};
    pub(crate) fn spin_loop() {
        loom::thread::yield_now();
    }
}

#[cfg(all(shuttle, not(loom)))]
mod under_shuttle {
    pub(crate) use shuttle::sync::atomic;
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::yield_now;
    pub(crate) use std::sync::{Arc, Weak};
    pub(crate) fn spin_loop() {
        shuttle::thread::yield_now();
    }
}

/// Locks a mutex whose critical sections run no user code, so poisoning carries no information.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Sleeps on a condition variable; poisoning is taken as in [`lock`].
pub(crate) fn wait<'a, T>(bell: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    match bell.wait(guard) {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// What is in a mutex that nobody else can lock.
pub(crate) fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    match mutex.get_mut() {
        Ok(inner) => inner,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Said between two SeqCst accesses whose place in the one total order matters. loom takes SeqCst accesses for AcqRel and
/// knows the order of fences only; elsewhere the accesses themselves are enough.
#[inline(always)]
pub(crate) fn in_total_order() {
    #[cfg(loom)]
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}

/// Waits a little longer at each turn: spins first, then gives the core away.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn wait(&mut self) {
        if self.0 < 6 && !cfg!(any(loom, shuttle)) {
            for _ in 0..1 << self.0 {
                spin_loop();
            }
            self.0 += 1;
        } else {
            self.0 = self.0.saturating_add(1);
            yield_now();
        }
    }

    /// Whether the wait has been long enough to be worth sleeping.
    pub(crate) fn is_long(&self) -> bool {
        self.0 > 64
    }
}

/// A dense number for the calling thread, used to pick a counter shard.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn thread_number() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) }; }
    NUMBER.with(|number| {
        let mut mine = number.get();
        if mine == usize::MAX {
            // Relaxed: only uniqueness matters.
            mine = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(mine);
        }
        mine
    })
}

#[cfg(any(loom, shuttle))]
pub(crate) fn thread_number() -> usize {
    0
}

/// `true` when the named fault is seeded: `--cfg wellspring_fault="name"` builds it in, `--cfg wellspring_fault="any"` builds
/// them all and lets `WELLSPRING_FAULT=name` choose at run time. A constant `false` otherwise. DESIGN.md has the table.
macro_rules! fault {
    ($name:literal) => {
        cfg!(wellspring_fault = $name) || (cfg!(wellspring_fault = "any") && $crate::sync::is_seeded($name))
    };
}
pub(crate) use fault;

/// Whether the environment asks for this fault.
pub(crate) fn is_seeded(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("WELLSPRING_FAULT").unwrap_or_default()) == name
}

#[cfg(loom)]
pub(crate) use loom::thread_local as sync_thread_local;
#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::thread_local as sync_thread_local;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::thread_local as sync_thread_local;
