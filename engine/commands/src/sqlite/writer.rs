//! The thread that writes.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use super::connect::Opener;
use super::fault;
use super::group::{Group, Pass};
use super::job::{End, Job, Request, Work};
use super::watch::Signal;
use crate::store_error::{StoreError, StoreErrorKind};

/// The queue into the writer thread. Dropping it ends the thread after what is queued.
pub(crate) struct Writer {
    queue: Option<Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    transactions: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn start(connection: Connection, opener: Arc<Opener>, most: usize, signal: Signal) -> Result<Writer, StoreError> {
        const STARTING: &str = "starting the writer";
        let (queue, jobs) = channel();
        let transactions = Arc::new(AtomicU64::new(0));
        let group = Group::new(connection, opener.busy_timeout, transactions.clone()).map_err(fault::doing(STARTING))?;
        let turner = Turner { group: Some(group), opener, most, signal, transactions: transactions.clone() };
        let thread = thread::Builder::new()
            .name("wellspring-sqlite".into())
            .spawn(move || turner.run(&jobs))
            .map_err(|error| fault::unavailable(STARTING, error))?;
        Ok(Writer { queue: Some(queue), thread: Some(thread), transactions })
    }

    pub(crate) fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    /// Queues a job; gives it back if the thread is gone.
    pub(crate) fn queue(&self, job: Box<dyn Job>) -> Result<(), Box<dyn Job>> {
        match &self.queue {
            Some(queue) => queue.send(job).map_err(|refused| refused.0),
            None => Err(job),
        }
    }

    /// Writes, in a savepoint of a transaction with others. Once queued it is done, whether or not the future is kept.
    pub(crate) async fn write<T: Send + 'static>(&self, doing: &'static str, work: Work<T>) -> Result<T, StoreError> {
        let (request, answer) = Request::new(doing, work);
        if let Err(request) = self.queue(Box::new(request)) {
            request.end(End::Failed(gone(doing)));
        }
        answer.await.unwrap_or_else(|_| Err(gone(doing)))
    }
}

/// The writer thread has ended; nothing that it had not answered was committed.
pub(crate) fn gone(doing: &'static str) -> StoreError {
    StoreError::with(StoreErrorKind::Unavailable, doing, "the writer thread has ended")
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        let Some(thread) = self.thread.take() else { return };
        // The last handle may go with a closure or a task that the thread itself lets go of.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the writer thread had panicked");
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What the thread has.
struct Turner {
    /// None: to be opened again.
    group: Option<Group>,
    opener: Arc<Opener>,
    most: usize,
    signal: Signal,
    transactions: Arc<AtomicU64>,
}

impl Turner {
    fn run(mut self, queue: &Receiver<Box<dyn Job>>) {
        let mut jobs = VecDeque::with_capacity(self.most);
        while let Ok(first) = queue.recv() {
            jobs.push_back(first);
            // Those that came while the last group was on its way to the disk. Waiting for more would only add to their latency.
            jobs.extend(queue.try_iter().take(self.most - 1));
            while !jobs.is_empty() {
                let pass = catch_unwind(AssertUnwindSafe(|| self.pass(&mut jobs)));
                if pass.is_err() {
                    // Dropping the connection rolls back, and dropping the jobs tells those who wait.
                    tracing::error!("the writer panicked, and begins anew");
                    self.group = None;
                    jobs.clear();
                }
            }
        }
    }

    fn pass(&mut self, jobs: &mut VecDeque<Box<dyn Job>>) {
        let group = match &mut self.group {
            Some(group) => group,
            None => match self.open() {
                Ok(group) => self.group.insert(group),
                Err(error) => {
                    for job in jobs.drain(..) {
                        job.end(End::Failed(fault::shared("opening the database again", &error)));
                    }
                    return;
                }
            },
        };
        let Pass { operations, broken } = group.pass(jobs);
        if broken {
            self.group = None;
        }
        if operations {
            self.signal.committed();
        }
    }

    fn open(&self) -> rusqlite::Result<Group> {
        Group::new(self.opener.writer()?, self.opener.busy_timeout, self.transactions.clone())
    }
}
