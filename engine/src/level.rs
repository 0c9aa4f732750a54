//! A wide level of a sweep, shared between the sweeping thread and the engine's own pool.

use crate::graph::Graph;
use crate::node::State;
use crate::sweep::Found;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, lock, wait};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use self::pool::Workers;
#[cfg(any(loom, shuttle))]
pub(crate) use self::threads::Workers;

impl Graph {
    /// Gives the frontier back: its blocks are still to be spent.
    pub(crate) fn level_in_parallel(self: &Arc<Graph>, frontier: Vec<u32>, found: &mut Found) -> Vec<u32> {
        let level = Arc::new(Level { graph: self.clone(), frontier, next: AtomicU64::new(0), gathered: Mutex::new(Found::default()) });
        let done = Arc::new(Done { count: Mutex::new(0), bell: Condvar::new() });
        let helpers = self.sweeper.workers.help(&level, &done);
        level.work();
        // The caller parks here and takes no other job: a pool that steals could run a body below a held ticket.
        done.wait_for(helpers);
        found.merge(std::mem::take(&mut lock(&level.gathered)));
        Arc::try_unwrap(level).map_or_else(|level| level.frontier.clone(), |level| level.frontier)
    }
}

/// One wide level, shared between the caller and the pool.
struct Level {
    graph: Arc<Graph>,
    frontier: Vec<u32>,
    next: AtomicU64,
    gathered: Mutex<Found>,
}

/// How many helpers have let go of a level. Apart from it, because a helper must not hold the graph when it says so: the
/// last handle may be dropped right after, and values are dropped by whoever drops it.
struct Done {
    count: Mutex<usize>,
    bell: Condvar,
}

impl Done {
    fn signal(&self) {
        *lock(&self.count) += 1;
        self.bell.notify_all();
    }

    fn wait_for(&self, helpers: usize) {
        let mut count = lock(&self.count);
        while *count < helpers {
            count = wait(&self.bell, count);
        }
    }
}

/// One helper's turn at a level.
fn help(level: Arc<Level>, done: &Done) {
    level.work();
    drop(level);
    done.signal();
}

/// Lists per grab of a wide level.
const GRAB: usize = if cfg!(any(loom, shuttle)) { 1 } else { 512 };

impl Level {
    fn work(&self) {
        let mut found = Found::default();
        loop {
            // Relaxed: only hands out ranges; the results travel under the lock.
            let from = self.next.fetch_add(GRAB as u64, Ordering::Relaxed) as usize;
            if from >= self.frontier.len() {
                break;
            }
            let to = (from + GRAB).min(self.frontier.len());
            self.graph.level(&self.frontier[from..to], State::Pending, &mut found);
        }
        lock(&self.gathered).merge(found);
    }
}

#[cfg(not(any(loom, shuttle)))]
mod pool {
    use super::{Arc, Done, Level};
    use std::sync::OnceLock;

    /// The engine's own rayon pool, made when the first wide level comes. Only `spawn` is used, never `install`.
    pub(crate) struct Workers {
        threads: usize,
        pool: OnceLock<Option<rayon::ThreadPool>>,
    }

    impl Workers {
        /// `threads` counts the caller.
        pub(crate) fn new(threads: usize) -> Workers {
            Workers { threads, pool: OnceLock::new() }
        }

        pub(crate) fn any(&self) -> bool {
            self.threads > 1
        }

        /// Asks every pool thread to join in; how many were asked.
        pub(super) fn help(&self, level: &Arc<Level>, done: &Arc<Done>) -> usize {
            let build = || {
                let name = |n| format!("wellspring-sweep-{n}");
                rayon::ThreadPoolBuilder::new().num_threads(self.threads - 1).thread_name(name).build().ok()
            };
            let Some(pool) = self.pool.get_or_init(build) else { return 0 };
            for _ in 0..pool.current_num_threads() {
                let (level, done) = (level.clone(), done.clone());
                pool.spawn(move || super::help(level, &done));
            }
            pool.current_num_threads()
        }
    }
}

#[cfg(any(loom, shuttle))]
mod threads {
    use super::{Arc, Done, Level};

    /// Rayon's stand-in under the checkers: a model thread per level.
    pub(crate) struct Workers {
        threads: usize,
    }

    impl Workers {
        pub(crate) fn new(threads: usize) -> Workers {
            Workers { threads }
        }
        pub(crate) fn any(&self) -> bool {
            self.threads > 1
        }
        pub(super) fn help(&self, level: &Arc<Level>, done: &Arc<Done>) -> usize {
            let (level, done) = (level.clone(), done.clone());
            #[cfg(loom)]
            loom::thread::spawn(move || super::help(level, &done));
            #[cfg(not(loom))]
            shuttle::thread::spawn(move || super::help(level, &done));
            1
        }
    }
}
