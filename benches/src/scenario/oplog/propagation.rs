//! From a commit in one process to a stale value in another.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::child::{Child, WATCHED};
use super::site::{Backend, Ground};
use super::{clock, runtime};
use crate::rounds::median;
use crate::row::Bar;
use crate::{Plan, Row, Unit};

pub(super) fn sqlite(name: &str, plan: Plan) -> Vec<Row> {
    row(name, plan, Backend::Sqlite, Some(3.0))
}

pub(super) fn postgres(name: &str, plan: Plan) -> Vec<Row> {
    row(name, plan, Backend::Postgres, Some(5.0))
}

pub(super) fn nats(name: &str, plan: Plan) -> Vec<Row> {
    row(name, plan, Backend::Nats, None)
}

pub(super) fn redis(name: &str, plan: Plan) -> Vec<Row> {
    row(name, plan, Backend::Redis, None)
}

/// Longer than what keeps a follower awake after something was committed.
const LEAST_PAUSE_MS: u64 = 260;
const MOST_PAUSE_MS: u64 = 460;

/// Milliseconds.
#[derive(Default)]
struct Times {
    /// From the commit's begin until the value is stale in the other process.
    whole: Vec<f64>,
    /// From when the caller has its result.
    since_reported: Vec<f64>,
    /// From the commit's begin until the caller has its result.
    commit: Vec<f64>,
}

fn row(name: &str, plan: Plan, backend: Backend, bar: Option<f64>) -> Vec<Row> {
    let peer = "none: no other process without a log";
    let times = match measure(backend, if plan.quick { 8 } else { 200 }) {
        Ok(times) => times,
        Err(why) => return vec![Row::skipped(name, Unit::MILLIS, peer, &why)],
    };
    let row = Row::alone(name, 1, Unit::MILLIS, &times.whole, peer)
        .note(format!("p50 of {} commits from an idle follower; p99 {:.2} ms", times.whole.len(), percentile(&times.whole, 99)))
        .note(format!("the commit itself p50 {:.2} ms, p99 {:.2} ms", median(&times.commit), percentile(&times.commit, 99)))
        .note(format!("from its end on p50 {:.2} ms, p99 {:.2} ms", median(&times.since_reported), percentile(&times.since_reported, 99)));
    vec![match bar {
        Some(most) => row.bar(Bar::AtMost(most)),
        None => row.note("relayed from SQLite by the writer's process"),
    }]
}

fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or(f64::NAN)
}

fn measure(backend: Backend, commits: i64) -> Result<Times, String> {
    let runtime = runtime()?;
    let ground = runtime.block_on(Ground::new(backend))?;
    let writer = runtime.block_on(ground.site.join(true))?;
    let mut follower = Child::join(&ground.site)?;
    let mut times = Times::default();
    let millis = |from: u64, to: u64| (to as i64 - from as i64) as f64 / 1e6;
    // The first two prepare statements, open connections and, for a stream, begin the relay; they are not counted.
    for round in -2..commits {
        follower.watch()?;
        thread::sleep(Duration::from_millis(fastrand::u64(LEAST_PAUSE_MS..MOST_PAUSE_MS)));
        runtime.block_on(writer.server.put(WATCHED, round, None))?;
        let (reported, begun) = (clock::now(), writer.begun.load(Ordering::Relaxed));
        let stale = follower.number()?;
        if round >= 0 {
            times.whole.push(millis(begun, stale));
            times.since_reported.push(millis(reported, stale));
            times.commit.push(millis(begun, reported));
        }
    }
    drop(follower);
    runtime.block_on(writer.leave());
    runtime.block_on(ground.give_up())?;
    Ok(times)
}
