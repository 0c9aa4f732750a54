//! Hints on their way: dying beside them, and losing, doubling, delaying them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use wellspring_commands::{Hinter, Hints, Wakeup};

use super::kill::{Step, Switch};

/// Hints as they are, except that the process may die beside giving one.
#[derive(Clone, Debug)]
pub struct Hinting {
    inner: Arc<dyn Wakeup>,
    switch: Switch,
}

impl Hinting {
    /// Around a source of hints.
    pub fn new(inner: Arc<dyn Wakeup>, switch: Switch) -> Hinting {
        Hinting { inner, switch }
    }
}

impl Wakeup for Hinting {
    fn notify(&self) {
        self.switch.reach(Step::BeforeNotify);
        self.inner.notify();
        self.switch.reach(Step::AfterNotify);
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }
}

/// Hints of which, in both directions, a third is lost and a third comes late, after others that were given later; some of them
/// twice, and some that nobody gave.
#[derive(Debug)]
pub struct Moody {
    hinter: Hinter,
    given: mpsc::UnboundedSender<Duration>,
    random: Mutex<fastrand::Rng>,
}

impl Moody {
    /// Around a source of hints, on the present runtime, with whims that follow from a seed.
    pub fn new(inner: Arc<dyn Wakeup>, seed: u64) -> Moody {
        let hinter = Hinter::new();
        let (given, mut to_give) = mpsc::unbounded_channel();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut heard = inner.hints();
        let listeners = hinter.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = heard.next() => {}
                    // Out of nothing.
                    () = tokio::time::sleep(Duration::from_millis(random.u64(50..500))) => {}
                }
                for delay in whim(&mut random) {
                    let listeners = listeners.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        listeners.hint();
                    });
                }
            }
        });
        tokio::spawn(async move {
            while let Some(delay) = to_give.recv().await {
                let inner = inner.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    inner.notify();
                });
            }
        });
        Moody { hinter, given, random: Mutex::new(fastrand::Rng::with_seed(seed ^ 1)) }
    }
}

/// When a hint arrives, as often as it does.
fn whim(random: &mut fastrand::Rng) -> Vec<Duration> {
    match random.u32(..6) {
        0 | 1 => Vec::new(),
        2 => vec![Duration::ZERO; 2],
        3 => vec![Duration::ZERO],
        _ => vec![Duration::from_millis(random.u64(..60))],
    }
}

impl Wakeup for Moody {
    fn notify(&self) {
        let delays = whim(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner));
        for delay in delays {
            // Its task ends with the runtime.
            let _ = self.given.send(delay);
        }
    }

    fn hints(&self) -> Hints {
        self.hinter.hints()
    }
}
