//! Reading in the background, at a steady pace: the load a server has beside what it is asked line by line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
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
    counters: Arc<Counters>,
    thread: thread::Thread,
}

#[derive(Debug, Default)]
struct Counters {
    per_second: AtomicU32,
    read: AtomicU64,
    failed: AtomicU64,
}

impl Reads {
    /// A thread that reads nothing yet. It runs as long as the process.
    pub(crate) fn new(shop: &Shop) -> Result<Self, ShopError> {
        let counters = Arc::new(Counters::default());
        let (shop, shared) = (shop.clone(), Arc::clone(&counters));
        let spawned = thread::Builder::new().name("reads".to_owned()).spawn(move || {
            loop {
                // Also what there is to be read is read only once somebody wants it.
                while shared.per_second.load(Ordering::Relaxed) == 0 {
                    thread::park();
                }
                if read(&shop, &shared).is_err() {
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                    thread::park_timeout(Duration::from_millis(100));
                }
            }
        });
        let spawned = spawned.map_err(|error| ShopError::File(format!("a thread: {error}").into()))?;
        Ok(Self { counters, thread: spawned.thread().clone() })
    }

    /// Reads so many figures a second from now on.
    pub(crate) fn set(&self, per_second: u32) {
        self.counters.per_second.store(per_second, Ordering::Relaxed);
        self.thread.unpark();
    }

    /// How many figures were read.
    pub(crate) fn read(&self) -> u64 {
        self.counters.read.load(Ordering::Relaxed)
    }

    /// How many could not be: a reader gets an error then, and goes on.
    pub(crate) fn failed(&self) -> u64 {
        self.counters.failed.load(Ordering::Relaxed)
    }
}

/// Reads at the pace until it is 0.
fn read(shop: &Shop, counters: &Counters) -> Result<(), ShopError> {
    let keys = Keys::read(shop.database())?;
    let calls = Population::read(shop.database(), &keys)?.calls(&mut fastrand::Rng::new());
    let mut calls = calls.iter().cycle();
    let mut last = Instant::now();
    let mut due = 0.0;
    loop {
        let per_second = counters.per_second.load(Ordering::Relaxed);
        if per_second == 0 {
            return Ok(());
        }
        due += f64::from(per_second) * last.elapsed().min(MOST_AT_ONCE).as_secs_f64();
        last = Instant::now();
        while due >= 1.0 {
            due -= 1.0;
            let Some(call) = calls.next() else { return Ok(()) };
            match one(shop, &keys, *call) {
                Ok(()) => counters.read.fetch_add(1, Ordering::Relaxed),
                Err(_) => counters.failed.fetch_add(1, Ordering::Relaxed),
            };
        }
        thread::park_timeout(TICK);
    }
}

/// One read under one pin, so that none is held while another value is computed.
fn one(shop: &Shop, keys: &Keys, call: Call) -> Result<(), ShopError> {
    let pin = shop.engine.pin();
    std::hint::black_box(ask(shop, keys, &pin, call)?);
    Ok(())
}
