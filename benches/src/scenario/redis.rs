//! A lookup in the process beside a GET over a socket.
//!
//! Conditions: our two readers look up 1,000 `String` keys shaped like redis-benchmark's under a pin renewed every 1,000 reads
//! and sum the lengths of the 3-byte values. Beside it `redis-benchmark -t get`, 50 connections, the same 1,000 keys (filled
//! first, in database 15), plain and with `-P 64`, against whatever answers on 127.0.0.1:6379; it shares the machine's cores
//! with its server as our readers share them with each other. Without a server or the tool the rows say so.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use wellspring::Engine;

use super::Scenario;
use crate::keys::{Spread, Walk, indices};
use crate::rounds::{alternate, throughput};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "vs-redis/get", run: get }];

const PORT: u16 = 6379;
const KEYS: u32 = 1_000;

/// Runs the tool and returns millions of requests a second.
fn redis_benchmark(test: &str, requests: u32, pipeline: u32) -> Result<f64, String> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &PORT.to_string(), "--dbnum", "15", "-c", "50", "--csv", "-t", test])
        .args(["-r", &KEYS.to_string(), "-n", &requests.to_string(), "-P", &pipeline.to_string()])
        .output()
        .map_err(|error| format!("redis-benchmark did not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find(|line| line.to_lowercase().starts_with(&format!("\"{test}")))
        .and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse::<f64>().ok())
        .map(|rate| rate / 1e6)
        .ok_or_else(|| format!("redis-benchmark printed no figure for {test}"))
}

/// Why there is no server to be measured.
pub(super) fn missing() -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let error = TcpStream::connect_timeout(&address, Duration::from_millis(300)).err()?;
    Some(format!("no Redis on {address} ({error})"))
}

/// Requests a second by 50 connections, each of which waits for its answer.
#[cfg(all(feature = "peers", target_os = "linux"))]
pub(super) fn get_plainly() -> Result<f64, String> {
    redis_benchmark("get", 60_000, 1).map(|millions| millions * 1e6)
}

fn get(name: &str, plan: Plan) -> Vec<Row> {
    if let Some(why) = missing() {
        return vec![Row::skipped(name, Unit::MILLIONS, "redis-benchmark GET", &why)];
    }
    beside_redis(name, plan).unwrap_or_else(|why| vec![Row::skipped(name, Unit::MILLIONS, "redis-benchmark GET", &why)])
}

fn beside_redis(name: &str, plan: Plan) -> Result<Vec<Row>, String> {
    // Fifty times as many sets as keys: every key of the range is set all but surely.
    redis_benchmark("set", KEYS * 50, 16)?;

    let names: Vec<String> = (0..KEYS).map(|key| format!("key:{key:012}")).collect();
    let engine = Engine::new();
    let function = engine.function("value", |_, _: &String| "VXK".to_owned()).expect("the name is free");
    for name in &names {
        function.get(&engine, name.as_str()).expect("the body does not fail");
    }
    let threads = plan.threads();
    let walks: Vec<_> = (0..threads as u64).map(|seed| indices(Spread::Uniform, KEYS, seed)).collect();
    let reader = |thread: usize| {
        let mut walk = Walk::new(&walks[thread]);
        let (engine, function, names) = (&engine, &function, &names);
        move || {
            let pin = engine.pin();
            let mut sum = 0u64;
            for &index in walk.slice() {
                let value = function.peek(&pin, names[index as usize].as_str()).expect("every key is cached");
                sum = sum.wrapping_add(value.len() as u64);
            }
            sum
        }
    };
    // A round of the tool takes one to two seconds; five of them say as much as fifteen.
    let rounds = if plan.quick { 3 } else { 5 };
    let mut failed = None;
    let mut tool = |requests, pipeline| {
        redis_benchmark("get", requests, pipeline).unwrap_or_else(|why| {
            failed = Some(why);
            f64::NAN
        })
    };
    let tool = std::cell::RefCell::new(&mut tool);
    let [ours, plain, pipelined] = alternate(
        rounds,
        [&mut || throughput(threads, plan.slice(), reader), &mut || tool.borrow_mut()(60_000, 1), &mut || tool.borrow_mut()(1_000_000, 64)],
    );
    if let Some(why) = failed {
        return Err(why);
    }
    let pipelined_name = format!("{name}/pipelined");
    Ok(vec![
        Row::versus(name, threads, Unit::MILLIONS, &ours, "redis-benchmark GET, 50 connections", &plain).bar(Bar::Ratio(1_150.0)),
        Row::versus(&pipelined_name, threads, Unit::MILLIONS, &ours, "redis-benchmark GET -P 64", &pipelined),
    ])
}
