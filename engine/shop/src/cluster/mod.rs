//! `wellspring-shop cluster`: several servers on one database, under load, and the proof that none serves what is stale.

mod fleet;
mod line;
mod outcome;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use wellspring_commands::OperationId;

use crate::connection::Value;
use crate::data::Data;
use crate::database::{Address, Database};
use crate::error::ShopError;
use crate::keys::Keys;
use crate::line::UnitPrice;
use crate::options::Fault;
use crate::workload::Population;

use fleet::Fleet;
use writer::{Writer, Written};

pub use outcome::{Outcome, Proof};

/// How often a server is killed, where servers are.
const KILL_EVERY: Duration = Duration::from_secs(1);

/// How to run a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// How many servers.
    pub servers: usize,
    /// How long they are read from and written to.
    pub time: Duration,
    /// Updates per second, all servers together.
    pub updates: u32,
    /// Reads per second and server.
    pub reads: u32,
    /// Of the choice of updates.
    pub seed: u64,
    /// The database; a temporary SQLite file when not said.
    pub address: Option<Address>,
    /// What to fill a new one with; the fixture when not said.
    pub data: Option<Data>,
    /// Whether the servers start with an empty cache, and not with every value there is.
    pub cold: bool,
    /// Whether servers are killed and replaced meanwhile.
    pub kill: bool,
    /// One JSON object instead of the table.
    pub json: bool,
    /// What to break on purpose.
    pub fault: Option<Fault>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            servers: 4,
            time: Duration::from_secs(10),
            updates: 50,
            reads: 5_000,
            seed: 1,
            address: None,
            data: None,
            cold: false,
            kill: false,
            json: false,
            fault: None,
        }
    }
}

impl Cluster {
    /// Starts the servers, lets them be read from and written to, waits until all have applied everything, and has each check itself.
    ///
    /// # Errors
    /// The database cannot be opened, a server does not start, or one refuses what it is asked.
    pub fn run(&self) -> Result<Outcome, ShopError> {
        // Opened here first: so it is filled once, and a temporary file is there until the servers are gone.
        let (database, address) = self.open()?;
        let keys = Keys::read(&database)?;
        let population = Population::read(&database, &keys)?;
        let lines_before = lines(&database)?;
        note(&format!("starting {} servers on {}", self.servers, outcome::place(&address)));
        let began = Instant::now();
        let fleet = Fleet::start(address.clone(), self.servers, self.reads, !self.cold)?;
        note(&format!(
            "they were ready in {:.2} s; reading and writing for {:.1} s",
            began.elapsed().as_secs_f64(),
            self.time.as_secs_f64()
        ));

        let load = self.load(&fleet, &population, &keys.products)?;
        note("waiting until every server has applied everything, and comparing every cached value with the database");
        for server in 0..fleet.size() {
            fleet.ask(server, "load 0")?;
            for position in load.written.iter().flat_map(|written| written.positions.values()) {
                fleet.ask(server, &format!("wait {position}"))?;
            }
        }
        let Load { written, kills, time, reads, reading } = load;
        let mut outcome = Outcome { servers: self.servers, time, kills, reads, reading, ..Outcome::new(&address, written) };
        outcome.lost = lost(&database, &outcome, lines(&database)? - lines_before)?;
        if self.fault == Some(Fault::SkipInvalidation) {
            write_behind(&fleet, &database, &keys)?;
        }
        for server in 0..fleet.size() {
            let (stats, check) = (fleet.ask(server, "stats")?, fleet.ask(server, "check")?);
            let proof = Proof {
                read: stats.field("reads")?,
                failed_reads: stats.field("failed_reads")?,
                poisoned: stats.field("poisoned")?,
                coverage_lost: stats.field("coverage_lost")?,
                checked: check.field("checked")?,
                served: check.field("served")?,
                cached: check.field("cached")?,
            };
            outcome.stale.extend(check.details.iter().map(|stale| format!("server {server}: {stale}")));
            outcome.add(server, proof, !self.cold && kills == 0);
        }
        Ok(outcome)
    }

    fn open(&self) -> Result<(Database, Address), ShopError> {
        let Some(address) = &self.address else {
            let database = Database::open(None, self.data.as_ref())?;
            let path = database.path().map(ToOwned::to_owned).unwrap_or_default();
            return Ok((database, Address::Sqlite(path)));
        };
        Ok((Database::open_at(address, self.data.as_ref())?, address.clone()))
    }

    /// Reading goes on in the servers by itself; here are the writers, and the one who kills.
    fn load(&self, fleet: &Fleet, population: &Population, products: &[u32]) -> Result<Load, ShopError> {
        let stop = AtomicBool::new(false);
        let run = OperationId::new().to_string();
        let pace = Duration::from_secs(1) * u32::try_from(self.servers).unwrap_or(u32::MAX) / self.updates;
        let counting = Instant::now();
        let before = reads(fleet)?;
        let started = Instant::now();
        thread::scope(|scope| {
            let writers: Vec<_> = (0..self.servers)
                .map(|home| {
                    let writer = Writer::new(fleet, home, population, products, self.seed, &run);
                    scope.spawn(|| writer.run(pace, &stop))
                })
                .collect();
            let killer = self.kill.then(|| scope.spawn(|| kill(fleet, &stop)));
            let failed = || {
                let killer_failed = killer.as_ref().is_some_and(ScopedJoinHandle::is_finished);
                killer_failed || writers.iter().any(ScopedJoinHandle::is_finished)
            };
            while started.elapsed() < self.time && !failed() {
                thread::sleep(Duration::from_millis(20).min(self.time.saturating_sub(started.elapsed())));
            }
            let time = started.elapsed();
            stop.store(true, Ordering::Relaxed);
            writers.iter().for_each(|writer| writer.thread().unpark());
            // All are waited for before the first error is looked at.
            let written: Vec<_> = writers.into_iter().map(ScopedJoinHandle::join).collect();
            let killed = killer.map(|killer| {
                killer.thread().unpark();
                killer.join()
            });
            let kills = killed.transpose().map_err(|_| ShopError::Worker("killer"))?.transpose()?.unwrap_or(0);
            let written = written.into_iter().map(|written| written.map_err(|_| ShopError::Worker("writer"))?);
            let written = written.collect::<Result<_, ShopError>>()?;
            // One that was killed has begun to count anew.
            let after = reads(fleet)?;
            let reading = counting.elapsed();
            let counted = after.into_iter().zip(before).map(|(after, before)| after.checked_sub(before).unwrap_or(after));
            Ok(Load { written, kills, time, reads: counted.sum(), reading })
        })
    }
}

/// What came of the time under load.
struct Load {
    written: Vec<Written>,
    kills: u64,
    time: Duration,
    /// Figures read in the time of reading, which is longer: the last updates are waited for. No server was counted for longer.
    reads: u64,
    reading: Duration,
}

/// What each server has read so far.
fn reads(fleet: &Fleet) -> Result<Vec<u64>, ShopError> {
    (0..fleet.size()).map(|server| fleet.ask(server, "stats")?.field("reads")).collect()
}

/// Kills one server after the other, each when the last is back.
fn kill(fleet: &Fleet, stop: &AtomicBool) -> Result<u64, ShopError> {
    let mut kills = 0;
    let mut next = Instant::now() + KILL_EVERY;
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() < next {
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
            continue;
        }
        fleet.replace(kills as usize % fleet.size())?;
        kills += 1;
        next = Instant::now().max(next + KILL_EVERY);
    }
    Ok(kills)
}

fn lines(database: &Database) -> Result<i64, ShopError> {
    let counted = database.connect()?.rows("SELECT COUNT(*) FROM lines", &[], |row| row.get::<i64>(0))?;
    Ok(counted.into_iter().sum())
}

/// What was answered and is not in the database, or is there twice.
fn lost(database: &Database, outcome: &Outcome, added: i64) -> Result<Vec<String>, ShopError> {
    let mut lost = Vec::new();
    if u64::try_from(added) != Ok(outcome.lines) {
        lost.push(format!("{} lines were added, and {added} are there", outcome.lines));
    }
    let mut connection = database.connect()?;
    for (product, price) in &outcome.prices {
        let now: Vec<i64> =
            connection.rows("SELECT millicents FROM prices WHERE product_id = $1", &[Value::from(*product)], |row| row.get(0))?;
        if now != [price.0] {
            lost.push(format!("price:{product} was set to {price}, and the database says {now:?} thousandths of a cent"));
        }
    }
    Ok(lost)
}

/// Changes a row behind the back of all servers, that each of them has just read: the check must find it.
fn write_behind(fleet: &Fleet, database: &Database, keys: &Keys) -> Result<(), ShopError> {
    let product = keys.products[0];
    for server in 0..fleet.size() {
        fleet.ask(server, &format!("get price:{product}"))?;
    }
    let other = UnitPrice(database.price(product)?.map_or(0, |price| price.0) + 100_000);
    database.set_price(product, other)
}

/// Says how the run goes, beside what it prints.
fn note(text: &str) {
    eprintln!("{text}");
}
