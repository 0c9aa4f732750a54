//! Notifiers: the engine's own threads, on which watched values are brought up to date and callbacks run. A commit only puts its
//! watchers here, at the price of a push each.
//!
//! A job that is stuck keeps its thread. So whoever takes a job while others wait sees to it that another thread is awake for
//! those, up to the bound, and at most [`SPARE`] threads wait for work: progress is told by jobs that are taken, never by time.

use std::collections::VecDeque;

use crate::flight::drop_quietly;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Arc, Condvar, Mutex, fault, lock, wait};

/// Threads at most, unless the builder says otherwise: that many callbacks may be stuck at once before the others wait for them.
pub(crate) const DEFAULT_THREADS: usize = 16;

/// Threads that may wait for work; one more ends.
const SPARE: usize = 2;

/// Something that runs on a notifier thread, never twice at the same time.
pub(crate) trait Job: Send + Sync {
    fn turn(&self) -> &Turn;
    fn run(self: Arc<Self>) -> Ran;
    /// Whether it brings a value up to date: what the validator waits for.
    fn is_update(&self) -> bool;
}

/// What came of a job's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    Over,
    /// It is to run again, after those who wait already.
    Again,
    /// It goes on elsewhere: whoever ends it calls [`Notifier::ended`].
    Elsewhere,
}

/// Where a job stands: at most once in the queue and at most once on a thread, whatever it is asked.
#[derive(Debug)]
pub(crate) struct Turn(AtomicU8);

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const RUNNING_AGAIN: u8 = 3;

impl Turn {
    pub(crate) fn new() -> Turn {
        Turn(AtomicU8::new(IDLE))
    }

    /// Asks for a run that begins after this; whether the caller has to put the job into the queue.
    pub(crate) fn ask(&self) -> bool {
        let next = |now| match now {
            IDLE => Some(QUEUED),
            RUNNING if fault!("turn_forgets") => None,
            RUNNING => Some(RUNNING_AGAIN),
            // It will begin later than now. Written as it is, so that the run sees what the asker did before.
            other => Some(other),
        };
        // Release: what was done before the run was asked for is seen by it (Acquire in `begin` and `end`).
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok_and(|was| was == IDLE)
    }

    fn begin(&self) {
        // Acquire: see `ask`. Nobody else moves a queued job on.
        self.0.swap(RUNNING, Ordering::AcqRel);
    }

    /// Whether it must be queued once more.
    fn end(&self, again: bool) -> bool {
        let next = |now| Some(if again || now == RUNNING_AGAIN { QUEUED } else { IDLE });
        // AcqRel: the next run, on whichever thread, sees what this one did.
        let was = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        again || was == Ok(RUNNING_AGAIN)
    }
}

/// The queue and its threads. The threads hold this and never the graph, so that they keep nothing alive.
pub(crate) struct Notifier {
    desk: Mutex<Desk>,
    work: Condvar,
    quiet: Condvar,
    most: usize,
}

#[derive(Default)]
struct Desk {
    jobs: VecDeque<Arc<dyn Job>>,
    /// Threads, those that have not arrived yet included.
    threads: usize,
    /// Started and not at work yet: one at a time, so that a burst of short jobs does not start them all.
    starting: bool,
    idle: usize,
    /// Updates in the queue or on a thread.
    updates: usize,
    closed: bool,
}

impl Notifier {
    pub(crate) fn new(most: usize) -> Notifier {
        Notifier { desk: Mutex::new(Desk::default()), work: Condvar::new(), quiet: Condvar::new(), most: most.max(1) }
    }

    /// Asks for a run of the job.
    pub(crate) fn ask(self: &Arc<Notifier>, job: Arc<dyn Job>) {
        if job.turn().ask() {
            self.push(vec![job]);
        }
    }

    /// Queues jobs whose [`Turn::ask`] said so. Runs nothing, and nothing of the user's.
    pub(crate) fn push(self: &Arc<Notifier>, jobs: Vec<Arc<dyn Job>>) {
        let updates = jobs.iter().filter(|job| job.is_update()).count();
        let mut desk = lock(&self.desk);
        if !desk.closed {
            desk.updates += updates;
            desk.jobs.extend(jobs);
            self.see_to(desk);
            return;
        }
        drop(desk);
        drop_quietly(jobs);
    }

    /// Somebody must be awake for what is in the queue.
    fn see_to(self: &Arc<Notifier>, mut desk: crate::sync::MutexGuard<'_, Desk>) {
        if desk.jobs.is_empty() {
            return;
        }
        if desk.idle > 0 {
            drop(desk);
            self.work.notify_one();
        } else if desk.threads < self.most && !desk.starting {
            desk.starting = true;
            desk.threads += 1;
            drop(desk);
            if !threads::start(self) {
                // No thread to be had: those at work go on, and the next push tries again.
                let mut desk = lock(&self.desk);
                desk.starting = false;
                desk.threads -= 1;
            }
        }
    }

    /// A run that went on elsewhere, or has just ended, is over.
    pub(crate) fn ended(self: &Arc<Notifier>, job: Arc<dyn Job>, again: bool) {
        if job.turn().end(again) {
            self.push(vec![job]);
        } else {
            drop_quietly(job);
        }
    }

    /// The engine is gone: nothing runs from now on but what is running, and the threads end.
    pub(crate) fn close(&self) {
        let jobs = {
            let mut desk = lock(&self.desk);
            desk.closed = true;
            desk.updates = 0;
            std::mem::take(&mut desk.jobs)
        };
        self.work.notify_all();
        self.quiet.notify_all();
        drop_quietly(jobs);
    }

    /// Waits until every value in the queue has been brought up to date. Callbacks may still run.
    pub(crate) fn settle(&self) {
        let mut desk = lock(&self.desk);
        while desk.updates > 0 && !desk.closed {
            desk = wait(&self.quiet, desk);
        }
    }

    fn run(self: &Arc<Notifier>) {
        lock(&self.desk).starting = false;
        while let Some(job) = self.take() {
            let update = job.is_update();
            job.turn().begin();
            let ran = {
                let job = job.clone();
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run())).unwrap_or(Ran::Over)
            };
            match ran {
                Ran::Elsewhere => drop_quietly(job),
                Ran::Over | Ran::Again => self.ended(job, ran == Ran::Again),
            }
            if update {
                let mut desk = lock(&self.desk);
                // Closing has counted them all.
                desk.updates = desk.updates.saturating_sub(1);
                if desk.updates == 0 {
                    drop(desk);
                    self.quiet.notify_all();
                }
            }
        }
    }

    /// The next job; `None` is the thread's end.
    fn take(self: &Arc<Notifier>) -> Option<Arc<dyn Job>> {
        let mut desk = lock(&self.desk);
        loop {
            if let Some(job) = desk.jobs.pop_front() {
                self.see_to(desk);
                return Some(job);
            }
            if desk.closed || desk.idle >= SPARE || threads::END_WHEN_IDLE {
                desk.threads -= 1;
                return None;
            }
            desk.idle += 1;
            desk = wait(&self.work, desk);
            desk.idle -= 1;
        }
    }
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(not(any(loom, shuttle)))]
mod threads {
    use super::{Arc, Notifier};

    pub(super) const END_WHEN_IDLE: bool = false;

    pub(super) fn start(notifier: &Arc<Notifier>) -> bool {
        let notifier = notifier.clone();
        std::thread::Builder::new().name("wellspring-notify".into()).spawn(move || notifier.run()).is_ok()
    }
}

#[cfg(any(loom, shuttle))]
mod threads {
    //! Under the checkers a thread ends when there is nothing to do: a model must come to its end.
    use super::{Arc, Notifier};

    pub(super) const END_WHEN_IDLE: bool = true;

    pub(super) fn start(notifier: &Arc<Notifier>) -> bool {
        let notifier = notifier.clone();
        #[cfg(loom)]
        loom::thread::spawn(move || notifier.run());
        #[cfg(not(loom))]
        shuttle::thread::spawn(move || notifier.run());
        true
    }
}
