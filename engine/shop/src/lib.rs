//! The runnable example of `wellspring`: a retail service over SQLite, with four weeks of real baskets.
//!
//! Prices and basket lines are rows; totals by basket, household, store and department and the best sellers are
//! [functions] over them. The program lets readers and a writer loose on the service, measures the reads
//! beside the same calls in plain SQL, and at the end checks every cached value against the database.
//!
//! [`serve`] is one server of several on one database (SQLite or PostgreSQL): what one changes is stale on all. [`cluster`] starts
//! several, measures how soon, and has each check itself. A server offers its functions over the network too, to the page that comes with it
//! and to [`remote_watch`].
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

pub mod check;
mod clock;
pub mod cluster;
pub mod connection;
pub mod cut;
pub mod data;
pub mod database;
pub mod error;
pub mod figure;
mod fill;
pub mod functions;
pub mod keys;
pub mod latency;
pub mod line;
mod names;
pub mod options;
pub mod peer;
mod postgres_schema;
mod progress;
mod readers;
pub mod remote_watch;
pub mod report;
pub mod run;
mod schema;
mod search;
pub mod serve;
pub mod shop;
mod watch;
pub mod why;
pub mod workload;
mod writer;

pub use error::ShopError;
pub use shop::Shop;

use cluster::Cluster;
use options::{Command, Options};

/// The program, given its arguments without its own name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match options::parse(arguments).and_then(execute) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wellspring-shop: {error}");
            ExitCode::from(2)
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, ShopError> {
    match command {
        Command::Help => say(options::HELP)?,
        Command::Why(explain) => say(&format!("{}\n", explain.run()?))?,
        Command::Cut(cut) => say(&format!("{}\n", cut.run()?))?,
        Command::Run(options) => return run_alone(&options),
        Command::Serve(serve) => serve.run()?,
        Command::Cluster(cluster) => return run_cluster(&cluster),
        Command::Watch(watch) => watch.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_alone(options: &Options) -> Result<ExitCode, ShopError> {
    let outcome = run::run(options)?;
    for stale in &outcome.check.stale {
        eprintln!("stale: {stale}");
    }
    if options.json {
        eprintln!("{}", outcome.check);
        say(&report::json(options, &outcome))?;
    } else {
        say(&format!("{}\n{}\n", report::table(options, &outcome), outcome.check))?;
    }
    Ok(if outcome.check.stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn run_cluster(cluster: &Cluster) -> Result<ExitCode, ShopError> {
    let outcome = cluster.run()?;
    for wrong in outcome.stale.iter().chain(&outcome.lost).chain(&outcome.trouble) {
        eprintln!("{wrong}");
    }
    if cluster.json {
        eprintln!("{}", outcome.line());
        say(&outcome.json(cluster))?;
    } else {
        say(&format!("{}{}\n", outcome.table(), outcome.line()))?;
    }
    Ok(if outcome.is_right() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Prints to standard output, where a closed pipe is an error and not a panic.
fn say(text: &str) -> Result<(), ShopError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| ShopError::File(format!("standard output: {error}").into()))
}
