//! The shape of ActualLab.Fusion's own benchmark, in one process.
//!
//! Conditions: 1,000 `User` rows with strings in a SQLite file; an async function reads one by id and hands it out behind
//! an `Arc`, as .NET hands out a reference. 20 reader tasks per core on a tokio runtime with a worker per core, each asking
//! for uniform random ids and yielding every 1,000 calls; a mutator task rewrites a random user and invalidates it every
//! 10 ms. Beside it the same calls straight to SQLite: a connection per task, a prepared statement, the same mutator.

use super::Scenario;
use crate::{Plan, Row};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "fusion/users-1k", run: users }];

#[cfg(not(feature = "peers"))]
fn users(name: &str, _plan: Plan) -> Vec<Row> {
    vec![Row::skipped(name, crate::Unit::MILLIONS, "direct SQLite", &format!("tokio and rusqlite {}", super::NOT_BUILT))]
}

#[cfg(feature = "peers")]
fn users(name: &str, plan: Plan) -> Vec<Row> {
    peers::users(name, plan)
        .unwrap_or_else(|error| vec![Row::skipped(name, crate::Unit::MILLIONS, "direct SQLite", &format!("SQLite failed: {error}"))])
}

#[cfg(feature = "peers")]
mod peers {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use rusqlite::{Connection, params};
    use tokio::runtime::{Builder, Runtime};
    use wellspring::{AsyncFunction, Engine};

    use crate::keys::{Dice, Spread, indices};
    use crate::rounds::alternate;
    use crate::{PIN_READS, Plan, Row, Unit};

    const USERS: u32 = 1_000;
    const TASKS_A_CORE: usize = 20;

    #[derive(Clone, Debug)]
    struct User {
        id: i64,
        name: String,
        email: String,
    }

    impl User {
        /// What a caller does with it, small and impossible to leave out.
        fn weight(&self) -> u64 {
            self.id as u64 + self.name.len() as u64 + self.email.len() as u64
        }
    }

    /// A database file that goes when it is dropped.
    struct Database(PathBuf);

    impl Database {
        fn create() -> rusqlite::Result<Self> {
            let file = std::env::temp_dir().join(format!("wellspring-users-{}.db", std::process::id()));
            let this = Self(file);
            this.remove();
            let mut db = this.open()?;
            db.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                 CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL);",
            )?;
            let rows = db.transaction()?;
            for id in 0..USERS {
                rows.execute(
                    "INSERT INTO users VALUES (?1, ?2, ?3)",
                    params![id, format!("User {id}"), format!("user-{id}@shop.example")],
                )?;
            }
            rows.commit()?;
            Ok(this)
        }

        fn open(&self) -> rusqlite::Result<Connection> {
            open(&self.0)
        }

        fn remove(&self) {
            for suffix in ["", "-wal", "-shm"] {
                let mut file = self.0.clone().into_os_string();
                file.push(suffix);
                // It may not exist, and a leftover in the temporary folder harms nobody.
                let _ = std::fs::remove_file(file);
            }
        }
    }

    impl Drop for Database {
        fn drop(&mut self) {
            self.remove();
        }
    }

    fn open(file: &Path) -> rusqlite::Result<Connection> {
        let db = Connection::open(file)?;
        db.busy_timeout(Duration::from_secs(5))?;
        Ok(db)
    }

    fn load(db: &Connection, id: u32) -> rusqlite::Result<User> {
        db.prepare_cached("SELECT id, name, email FROM users WHERE id = ?1")?
            .query_row([id], |row| Ok(User { id: row.get(0)?, name: row.get(1)?, email: row.get(2)? }))
    }

    fn rename(db: &Connection, id: u32, turn: u64) -> rusqlite::Result<usize> {
        db.prepare_cached("UPDATE users SET name = ?2 WHERE id = ?1")?.execute(params![id, format!("User {turn}")])
    }

    type Users = AsyncFunction<u32, Option<Arc<User>>>;

    /// Runs 20 tasks a core and the mutator for `time`; millions of calls a second.
    fn run<R>(
        runtime: &Runtime,
        cores: usize,
        time: Duration,
        reader: impl Fn(usize, Arc<AtomicBool>) -> R,
        update: impl Fn(u32, u64) + Send + 'static,
    ) -> f64
    where
        R: Future<Output = u64> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        runtime.block_on(async {
            let begun = Instant::now();
            let readers: Vec<_> = (0..cores * TASKS_A_CORE).map(|task| tokio::spawn(reader(task, stop.clone()))).collect();
            let mutator = tokio::spawn({
                let stop = stop.clone();
                async move {
                    let mut dice = Dice::new(3);
                    let mut tick = tokio::time::interval(Duration::from_millis(10));
                    while !stop.load(Ordering::Relaxed) {
                        tick.tick().await;
                        update(dice.below(USERS), dice.roll());
                    }
                }
            });
            tokio::time::sleep(time).await;
            stop.store(true, Ordering::Relaxed);
            let mut calls = 0;
            for reader in readers {
                calls += reader.await.expect("a reader panicked");
            }
            let rate = calls as f64 / begun.elapsed().as_secs_f64() / 1e6;
            mutator.await.expect("the mutator panicked");
            rate
        })
    }

    pub(super) fn users(name: &str, plan: Plan) -> rusqlite::Result<Vec<Row>> {
        let cores = plan.threads();
        let runtime = Builder::new_multi_thread().worker_threads(cores).enable_time().build().expect("a runtime needs only threads");
        let file = Database::create()?;
        let engine = Engine::new();
        let reading = Arc::new(Mutex::new(file.open()?));
        let users: Users = engine
            .async_function("user", move |_, id: u32| {
                let db = reading.clone();
                async move {
                    let db = db.lock().unwrap_or_else(PoisonError::into_inner);
                    load(&db, id).ok().map(Arc::new)
                }
            })
            .expect("the name is free");
        let writing = Arc::new(Mutex::new(file.open()?));
        let walks: Arc<[Vec<u32>]> = (0..cores * TASKS_A_CORE).map(|task| indices(Spread::Uniform, USERS, task as u64)).collect();
        let connections: Arc<[Mutex<Connection>]> =
            (0..cores * TASKS_A_CORE).map(|_| file.open().map(Mutex::new)).collect::<rusqlite::Result<_>>()?;
        let updates = Arc::new(AtomicU64::new(0));
        let update = |invalidate: Option<Users>| {
            let (db, updates) = (writing.clone(), updates.clone());
            move |id, turn| {
                let db = db.lock().unwrap_or_else(PoisonError::into_inner);
                rename(&db, id, turn).expect("the row is there and nobody else writes");
                if let Some(users) = &invalidate {
                    users.invalidate(&id);
                    updates.fetch_add(1, Ordering::Relaxed);
                }
            }
        };

        let cached = |task: usize, stop: Arc<AtomicBool>| {
            let (engine, users, walks) = (engine.clone(), users.clone(), walks.clone());
            async move {
                let (mut calls, mut sum) = (0u64, 0u64);
                for slice in walks[task].chunks_exact(PIN_READS).cycle() {
                    for id in slice {
                        let user = users.get(&engine, id).await.expect("the body does not fail");
                        sum = sum.wrapping_add(user.expect("every user exists").weight());
                    }
                    calls += slice.len() as u64;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                std::hint::black_box(sum);
                calls
            }
        };
        // Fewer calls between two yields: each takes microseconds, and the mutator needs its turn on these cores.
        const DIRECT: usize = 50;
        let direct = |task: usize, stop: Arc<AtomicBool>| {
            let (connections, walks) = (connections.clone(), walks.clone());
            async move {
                let (mut calls, mut sum) = (0u64, 0u64);
                for slice in walks[task].chunks_exact(DIRECT).cycle() {
                    {
                        let db = connections[task].lock().unwrap_or_else(PoisonError::into_inner);
                        for &id in slice {
                            sum = sum.wrapping_add(load(&db, id).expect("every user exists").weight());
                        }
                    }
                    calls += slice.len() as u64;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                std::hint::black_box(sum);
                calls
            }
        };
        let time = plan.slice();
        let [ours, theirs] = alternate(
            plan.rounds(),
            [&mut || run(&runtime, cores, time, cached, update(Some(users.clone()))), &mut || {
                run(&runtime, cores, time, direct, update(None))
            }],
        );
        let updates = updates.load(Ordering::Relaxed);
        let note = format!("{TASKS_A_CORE} reader tasks a core, {updates} updates, values behind an Arc");
        Ok(vec![Row::versus(name, cores, Unit::MILLIONS, &ours, "direct SQLite, same calls", &theirs).note(note)])
    }
}
