//! Reading in the background, at a steady pace: the load a server has beside what it is asked line by line.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::error::ShopError;
use crate::keys::Keys;
use crate::readers::ask;
use crate::shop::Shop;
use crate::workload::{Call, Population};

/// How often some of what is due is read.
const TICK: Duration = Duration::from_millis(5);

/// After a pause (the machine was busy, a value took long) at most this much is read at once.
const MOST_AT_ONCE: Duration = Duration::from_millis(100);

/// The pace, and what was read.
#[derive(Debug)]
pub(crate) struct Reads {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug)]
struct Shared {
    shop: Shop,
    per_second: AtomicU32,
    read: AtomicU64,
    failed: AtomicU64,
    /// There before the pace is more than 0.
    work: OnceLock<Work>,
}

/// What is read.
#[derive(Debug)]
struct Work {
    keys: Keys,
    calls: Vec<Call>,
}

impl Reads {
    /// A thread that reads nothing yet. It runs as long as the process.
    pub(crate) fn new(shop: &Shop) -> Result<Self, ShopError> {
        let shared = Arc::new(Shared {
            shop: shop.clone(),
            per_second: AtomicU32::new(0),
            read: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            work: OnceLock::new(),
        });
        let reading = Arc::clone(&shared);
        let spawned = thread::Builder::new().name("reads".to_owned()).spawn(move || {
            loop {
                match reading.work.get() {
                    Some(work) if reading.per_second.load(Ordering::Acquire) > 0 => reading.read(work),
                    _ => thread::park(),
                }
            }
        });
        let spawned = spawned.map_err(|error| ShopError::File(format!("a thread: {error}").into()))?;
        Ok(Self { shared, thread: spawned.thread().clone() })
    }

    /// Reads so many figures a second from now on. The first time, finds out which there are.
    pub(crate) fn set(&self, per_second: u32) -> Result<(), ShopError> {
        if per_second > 0 && self.shared.work.get().is_none() {
            let keys = Keys::read(self.shared.shop.database())?;
            let calls = Population::read(self.shared.shop.database(), &keys)?.calls(&mut fastrand::Rng::new());
            // Of two who have found out at once, the first has it.
            let _ = self.shared.work.set(Work { keys, calls });
        }
        self.shared.per_second.store(per_second, Ordering::Release);
        self.thread.unpark();
        Ok(())
    }

    /// How many figures were read.
    pub(crate) fn read(&self) -> u64 {
        self.shared.read.load(Ordering::Relaxed)
    }

    /// How many could not be: a reader gets an error then, and goes on.
    pub(crate) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Reads at the pace until it is 0.
    fn read(&self, work: &Work) {
        let mut last = Instant::now();
        let mut due = 0.0;
        for call in work.calls.iter().cycle() {
            loop {
                let per_second = self.per_second.load(Ordering::Relaxed);
                if per_second == 0 {
                    return;
                }
                let most = f64::from(per_second) * MOST_AT_ONCE.as_secs_f64();
                due = (due + f64::from(per_second) * last.elapsed().as_secs_f64()).min(most.max(1.0));
                last = Instant::now();
                if due >= 1.0 {
                    break;
                }
                thread::park_timeout(TICK);
            }
            due -= 1.0;
            let counter = if one(&self.shop, &work.keys, *call).is_ok() { &self.read } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One read under a pin of its own: a value may take long to compute, and a pin that is held over many keeps memory back.
fn one(shop: &Shop, keys: &Keys, call: Call) -> Result<(), ShopError> {
    let pin = shop.engine.pin();
    std::hint::black_box(ask(shop, keys, &pin, call)?);
    Ok(())
}
