//! Three ways to run a future: tokio, smol, and a thread of its own with no executor at all.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use wellspring::Spawner;
use wellspring_tests::waking::block_on;

/// How long something may take before it counts as hanging. Nothing waits for this long when all is well.
pub(crate) const HANGS: Duration = Duration::from_secs(30);

pub(crate) enum Runtime {
    Tokio(tokio::runtime::Runtime),
    Smol,
    Threads,
}

/// A spawned future's result.
pub(crate) struct Task<T>(Receiver<T>);

impl<T> Task<T> {
    /// Waits for it; fails if it panicked or hangs.
    pub(crate) fn join(self) -> T {
        self.0.recv_timeout(HANGS).expect("the task panicked or hangs")
    }
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Runtime {
    pub(crate) fn all() -> [Runtime; 3] {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        [Runtime::Tokio(tokio), Runtime::Smol, Runtime::Threads]
    }

    pub(crate) fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let (sender, receiver) = channel();
        self.run(Box::pin(async move {
            let _ = sender.send(future.await);
        }));
        Task(receiver)
    }

    fn run(&self, future: Boxed) {
        match self {
            Runtime::Tokio(tokio) => drop(tokio.spawn(future)),
            Runtime::Smol => smol::spawn(future).detach(),
            Runtime::Threads => drop(std::thread::spawn(move || block_on(future))),
        }
    }
}

impl Spawner for Runtime {
    fn spawn(&self, future: Boxed) {
        self.run(future);
    }
}
