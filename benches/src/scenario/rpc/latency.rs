//! One call after the other.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wellspring_rpc::wire::MethodId;

use super::server::{Kind, Other};
use super::{runtime, text};
use crate::rounds::alternate;
use crate::row::Bar;
use crate::{Plan, Row, Unit};

pub(super) fn rows(name: &str, plan: Plan) -> Vec<Row> {
    measure(name, plan).unwrap_or_else(|why| vec![Row::skipped(name, Unit::MICROS, "one byte over TCP", &why)])
}

/// The median and the 99th percentile, in microseconds.
fn percentiles(mut all: Vec<f64>) -> (f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

fn measure(name: &str, plan: Plan) -> Result<Vec<Row>, String> {
    let calls = if plan.quick { 2_000 } else { 20_000 };
    let runtime = runtime()?;
    let (ours, raw) = (Other::start(Kind::Wellspring)?, Other::start(Kind::Echo)?);
    let remote = runtime.block_on(async { ours.remote() });
    let add = MethodId::new("Bench.Add:2").map_err(text)?;
    let mut socket = Some(runtime.block_on(TcpStream::connect(("127.0.0.1", raw.port))).map_err(text)?);
    if let Some(socket) = &socket {
        socket.set_nodelay(true).map_err(text)?;
    }
    let (mut ours_all, mut raw_all) = (Vec::new(), Vec::new());
    // On the worker, as a server's own code is.
    let mut ours = || {
        let (remote, add) = (remote.clone(), add.clone());
        let times = runtime.block_on(runtime.spawn(async move {
            let mut times = Vec::with_capacity(calls);
            for count in 0..calls as i32 {
                let begun = Instant::now();
                let sum: i32 = remote.call(&add, (count, 1)).await.expect("it is answered");
                times.push(begun.elapsed().as_secs_f64() * 1e6);
                assert_eq!(sum, count + 1);
            }
            times
        }));
        let (median, tail) = percentiles(times.expect("no panic"));
        ours_all.push(tail);
        median
    };
    let mut bare = || {
        let mut connection = socket.take().expect("it is put back");
        let times = runtime.block_on(runtime.spawn(async move {
            let mut times = Vec::with_capacity(calls);
            for _ in 0..calls {
                let begun = Instant::now();
                connection.write_all(&[7]).await.expect("it is sent");
                connection.read_exact(&mut [0]).await.expect("it comes back");
                times.push(begun.elapsed().as_secs_f64() * 1e6);
            }
            (times, connection)
        }));
        let (times, connection) = times.expect("no panic");
        socket = Some(connection);
        let (median, tail) = percentiles(times);
        raw_all.push(tail);
        median
    };
    let [medians, bare_medians] = alternate(plan.rounds(), [&mut ours, &mut bare]);
    // The first of each warmed up.
    let (tails, bare_tails) = (ours_all.split_off(1), raw_all.split_off(1));
    let row =
        |of: &str, ours: &[f64], theirs: &[f64]| Row::versus(&format!("{name}/{of}"), 1, Unit::MICROS, ours, "one byte over TCP", theirs);
    Ok(vec![row("p50", &medians, &bare_medians).bar(Bar::Ratio(0.5)), row("p99", &tails, &bare_tails)])
}
