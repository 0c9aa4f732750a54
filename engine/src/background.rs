//! Where the engine runs user code that nobody waits for: the user's executor, or else one thread of its own.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use crate::flight::drop_quietly;
use crate::graph::Graph;
use crate::sync::{Arc, Condvar, Mutex, lock};

/// Something to do. It holds the graph weakly, and copes with being dropped undone.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The engine's background thread: started by the first work, ended with the engine.
pub(crate) struct Background(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    bell: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    started: bool,
    closed: bool,
}

impl Background {
    pub(crate) fn new() -> Background {
        Background(Arc::new(Shared { queue: Mutex::new(Queue::default()), bell: Condvar::new() }))
    }

    fn push(&self, work: Work) {
        let start = {
            let mut queue = lock(&self.0.queue);
            queue.waiting.push_back(work);
            !std::mem::replace(&mut queue.started, true)
        };
        if !start {
            self.0.bell.notify_one();
        } else if !thread::start(self.0.clone()) {
            // Work that is dropped undone says so to whom it concerns; the next one tries again.
            let undone = {
                let mut queue = lock(&self.0.queue);
                queue.started = false;
                std::mem::take(&mut queue.waiting)
            };
            drop_quietly(undone);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let undone = {
            let mut queue = lock(&self.0.queue);
            queue.closed = true;
            std::mem::take(&mut queue.waiting)
        };
        self.0.bell.notify_all();
        drop_quietly(undone);
    }
}

impl Graph {
    /// Polls the work to its end, soon and not on this stack. No lock may be held: an executor is the user's code.
    pub(crate) fn in_background(&self, work: Work) {
        match &self.spawner {
            Some(spawner) => spawner.spawn(work),
            None => self.background.push(work),
        }
    }
}

#[cfg(not(any(loom, shuttle)))]
mod thread {
    use super::{Arc, Shared, lock};
    use crate::flight::block_on;
    use crate::sync::wait;

    /// `false` if the system has no thread to give.
    pub(super) fn start(shared: Arc<Shared>) -> bool {
        let run = move || {
            loop {
                let work = {
                    let mut queue = lock(&shared.queue);
                    loop {
                        if queue.closed {
                            return;
                        }
                        if let Some(work) = queue.waiting.pop_front() {
                            break work;
                        }
                        queue = wait(&shared.bell, queue);
                    }
                };
                // What unwinds here are `Drop` and `Hash` of keys; the next work is another's.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(work)));
            }
        };
        std::thread::Builder::new().name("wellspring-merge".into()).spawn(run).is_ok()
    }
}

#[cfg(any(loom, shuttle))]
mod thread {
    //! Under the checkers nothing is consolidated.
    pub(super) fn start(_: super::Arc<super::Shared>) -> bool {
        true
    }
}
