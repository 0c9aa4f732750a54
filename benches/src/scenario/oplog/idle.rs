//! What a server that has nothing to do costs.

use std::thread;
use std::time::{Duration, Instant};

use super::child::Child;
use super::runtime;
use super::site::{Backend, Ground};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// What starts up has settled by then: a follower of SQLite sleeps after a quarter of a second.
const SETTLING: Duration = Duration::from_secs(1);

pub(super) fn rows(name: &str, plan: Plan) -> Vec<Row> {
    let idle = Duration::from_secs(if plan.quick { 3 } else { 10 });
    Backend::ALL.into_iter().map(|backend| row(&format!("{name}/{}", backend.name()), backend, idle)).collect()
}

fn row(name: &str, backend: Backend, idle: Duration) -> Row {
    let peer = "none: nobody does nothing";
    match load(backend, idle) {
        Ok(load) => {
            let row = Row::alone(name, 1, Unit::LOAD, &[load], peer).bar(Bar::AtMost(0.5));
            row.note(format!("of a core, over {} s; the log is read once a second all the same", idle.as_secs()))
        }
        Err(why) => Row::skipped(name, Unit::LOAD, peer, &why),
    }
}

fn load(backend: Backend, idle: Duration) -> Result<f64, String> {
    let runtime = runtime()?;
    let ground = runtime.block_on(Ground::new(backend))?;
    let mut server = Child::join(&ground.site)?;
    thread::sleep(SETTLING);
    let (before, begun) = (server.processor()?, Instant::now());
    thread::sleep(idle);
    let busy = server.processor()? - before;
    let load = 100.0 * busy as f64 / begun.elapsed().as_nanos() as f64;
    drop(server);
    runtime.block_on(ground.give_up())?;
    Ok(load)
}
