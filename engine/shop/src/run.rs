//! One run: open, warm, let readers and the writer loose, check.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use wellspring::{Capacity, Engine, MemoryReport, Stats};

use crate::check::Check;
use crate::database::Database;
use crate::error::ShopError;
use crate::keys::Keys;
use crate::options::Options;
use crate::progress::Progress;
use crate::readers::{self, Shared, Tally};
use crate::shop::Shop;
use crate::watch;
use crate::workload::{Call, Population};
use crate::writer::{self, Written};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long opening and loading the database took.
    pub loading: Duration,
    /// How long computing every value once took.
    pub warming: Duration,
    /// How long readers and the writer ran.
    pub time: Duration,
    /// Calls per second through the service, all readers together.
    pub lookups_per_s: f64,
    /// Calls per second in direct SQL, all readers together.
    pub sql_lookups_per_s: f64,
    /// What the readers did, together.
    pub read: Tally,
    /// What the writer did.
    pub written: Written,
    /// What the engine did while they ran.
    pub work: Work,
    /// The engine's figures at the end of the run, before the check.
    pub stats: Stats,
    /// Where the engine's memory was then.
    pub memory: MemoryReport,
    /// Memory of the whole process in bytes, where the system tells.
    pub process_bytes: Option<u64>,
    /// The proof.
    pub check: Check,
}

/// What the engine did between two looks at its figures.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Nodes marked.
    pub marked: u64,
    /// Values computed.
    pub computed: u64,
    /// Values found still right because nothing they read had really changed: computations saved.
    pub saved: u64,
}

/// Runs the service as the options say.
pub fn run(options: &Options) -> Result<Outcome, ShopError> {
    let mut progress = Progress::new(options.time);
    let began = Instant::now();
    let database = Database::open(options.db.as_deref(), options.data.as_ref())?;
    let keys = Keys::read(&database)?;
    let population = Population::read(&database, &keys)?;
    let loading = began.elapsed();
    let engine = match options.capacity {
        Some(entries) => Engine::builder().capacity(Capacity::entries(entries)).build(),
        None => Engine::new(),
    };
    let shop = Shop::on(engine, database)?;
    let began = Instant::now();
    shop.warm(&keys)?;
    let warming = began.elapsed();
    let before = shop.engine.stats();
    progress.note(&format!(
        "{} baskets loaded in {:.2} s, {} values computed in {:.2} s",
        keys.baskets.len(),
        loading.as_secs_f64(),
        before.computes,
        warming.as_secs_f64()
    ));

    let mut random = fastrand::Rng::with_seed(options.seed);
    let calls: Vec<Vec<Call>> = (0..options.readers).map(|_| population.calls(&mut random)).collect();
    let shared = Shared {
        shop: &shop,
        keys: &keys,
        started: Instant::now(),
        stop: AtomicBool::new(false),
        written: AtomicBool::new(false),
        lookups: AtomicU64::new(0),
        sql_calls: AtomicU64::new(0),
        updates: AtomicU64::new(0),
    };
    progress.start();
    let progress = Mutex::new(progress);
    // Where the table goes, or beside the JSON object, which stays alone.
    let tell = |line: &str| {
        let mut progress = lock(&progress);
        if !options.json {
            return progress.print(line);
        }
        progress.note(line);
        Ok(())
    };
    let (tallies, written) = thread::scope(|scope| {
        let readers: Vec<_> = calls.iter().map(|calls| scope.spawn(|| readers::read(&shared, calls))).collect();
        let writer = scope.spawn(|| writer::write(&shared, &population, options, random));
        let watcher =
            (!options.watch.is_empty()).then(|| scope.spawn(|| watch::watch(&shop, &options.watch, shared.started, &shared.written, tell)));
        let failed = || {
            let watcher_failed = watcher.as_ref().is_some_and(ScopedJoinHandle::is_finished);
            writer.is_finished() || watcher_failed || readers.iter().any(ScopedJoinHandle::is_finished)
        };
        wait(&shared, options.time, &progress, failed);
        shared.stop.store(true, Ordering::Relaxed);
        writer.thread().unpark();
        // All are waited for before the first error is looked at.
        let written = writer.join();
        let tallies: Vec<_> = readers.into_iter().map(ScopedJoinHandle::join).collect();
        shared.written.store(true, Ordering::Release);
        let watched = watcher.map(|watcher| {
            watcher.thread().unpark();
            watcher.join()
        });
        watched.transpose().map_err(|_| ShopError::Worker("watcher"))?.transpose()?;
        let written = written.map_err(|_| ShopError::Worker("writer"))??;
        let tallies = tallies.into_iter().map(|tally| tally.map_err(|_| ShopError::Worker("reader"))?);
        Ok::<_, ShopError>((tallies.collect::<Result<Vec<_>, _>>()?, written))
    })?;
    let time = shared.started.elapsed();
    let (stats, memory) = (shop.engine.stats(), shop.engine.memory_report());
    let work =
        Work { marked: stats.marked - before.marked, computed: stats.computes - before.computes, saved: stats.verified - before.verified };
    let process_bytes = process_bytes();
    lock(&progress).note(if shop.is_bounded() { "checking every value, cached or not" } else { "checking every cached value" });
    let check = Check::run(&shop, &keys)?;

    let mut read = Tally::default();
    for tally in &tallies {
        read.service.merge(&tally.service);
        read.sql.merge(&tally.sql);
    }
    Ok(Outcome {
        loading,
        warming,
        time,
        lookups_per_s: read.service.rate() * options.readers as f64,
        sql_lookups_per_s: read.sql.rate() * options.readers as f64,
        read,
        written,
        work,
        stats,
        memory,
        process_bytes,
        check,
    })
}

/// Waits until the time is over, or a worker has ended early because it failed.
fn wait(shared: &Shared<'_>, total: Duration, progress: &Mutex<Progress>, failed: impl Fn() -> bool) {
    let end = shared.started + total;
    while Instant::now() < end && !failed() {
        let tick = lock(progress).next().min(end).min(Instant::now() + Duration::from_millis(100));
        thread::sleep(tick.saturating_duration_since(Instant::now()));
        lock(progress).tick(shared, total);
    }
    lock(progress).end();
}

/// The display has no state that a panic could leave half done.
fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The resident memory of this process, where the system tells it in a file.
fn process_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
