//! A world whose time and tasks move only when the test says so: a manual clock, and an executor that polls what was woken.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use wellspring::{Engine, ManualClock, Spawner};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks, polled in the order in which they were woken and only inside [`run`](Tasks::run).
#[derive(Default)]
pub struct Tasks {
    woken: Arc<Mutex<VecDeque<usize>>>,
    tasks: Mutex<HashMap<usize, Task>>,
    next: Mutex<usize>,
}

struct Woken {
    queue: Arc<Mutex<VecDeque<usize>>>,
    id: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        let mut queue = lock(&self.queue);
        if !queue.contains(&self.id) {
            queue.push_back(self.id);
        }
    }
}

impl Tasks {
    /// Polls what was woken until nothing is.
    pub fn run(&self) {
        loop {
            let Some(id) = lock(&self.woken).pop_front() else { return };
            let Some(mut task) = lock(&self.tasks).remove(&id) else { continue };
            let waker = Waker::from(Arc::new(Woken { queue: self.woken.clone(), id }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                lock(&self.tasks).insert(id, task);
            }
        }
    }

    /// Tasks that have not ended.
    pub fn left(&self) -> usize {
        lock(&self.tasks).len()
    }

    /// Adds a task, polled at the next run.
    pub fn add(&self, future: impl Future<Output = ()> + Send + 'static) {
        let id = {
            let mut next = lock(&self.next);
            *next += 1;
            *next
        };
        lock(&self.tasks).insert(id, Box::pin(future));
        lock(&self.woken).push_back(id);
    }

    /// Adds a task and keeps its result.
    pub fn result<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Arc<Mutex<Option<T>>> {
        let result = Arc::new(Mutex::new(None));
        let place = result.clone();
        self.add(async move {
            let value = future.await;
            *lock(&place) = Some(value);
        });
        result
    }
}

impl Spawner for Tasks {
    fn spawn(&self, future: Task) {
        self.add(future);
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// An engine on a manual clock, and the tasks around it.
#[derive(Debug)]
pub struct Stepping {
    /// The clock.
    pub clock: Arc<ManualClock>,
    /// The engine.
    pub engine: Engine,
    /// The tasks. The engine does not know of them unless it was made by [`with_spawner`](Stepping::with_spawner).
    pub tasks: Arc<Tasks>,
}

impl Default for Stepping {
    fn default() -> Stepping {
        Stepping::new()
    }
}

impl Stepping {
    /// An engine without a spawner.
    pub fn new() -> Stepping {
        let clock = Arc::new(ManualClock::new());
        Stepping { clock: clock.clone(), engine: Engine::builder().clock(clock).build(), tasks: Arc::default() }
    }

    /// An engine whose spawner the tasks are.
    pub fn with_spawner() -> Stepping {
        let (clock, tasks) = (Arc::new(ManualClock::new()), Arc::new(Tasks::default()));
        let engine = Engine::builder().clock(clock.clone()).spawner(tasks.clone()).build();
        Stepping { clock, engine, tasks }
    }

    /// Lets the tasks run, then time pass millisecond by millisecond, the tasks running after each.
    pub fn advance(&self, by: Duration) {
        self.tasks.run();
        for _ in 0..by.as_millis() {
            self.clock.advance(Duration::from_millis(1));
            self.tasks.run();
        }
    }
}

/// Open or closed; those who pass wait until it is open.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// A closed one.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets everybody through, from now on.
    pub fn open(&self) {
        let waiting = {
            let mut state = lock(&self.0);
            state.open = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Holds up who comes from now on.
    pub fn close(&self) {
        lock(&self.0).open = false;
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        std::future::poll_fn(|cx| {
            let mut state = lock(&self.0);
            if state.open {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
