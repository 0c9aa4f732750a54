//! A thousand calls at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use wellspring_rpc::wire::MethodId;

use super::server::{Kind, Other};
use super::{User, echo, grpc, runtime, tarpc, text};
use crate::rounds::alternate;
use crate::row::Bar;
use crate::scenario::redis;
use crate::{Plan, Row, Unit};

/// Calls that are on their way.
const IN_FLIGHT: u32 = 1_000;

/// Has so many tasks make calls, each one after the other, for a while; how many a second were answered.
fn throughput<F>(runtime: &Runtime, time: Duration, caller: impl Fn(u32, Arc<AtomicBool>) -> F) -> f64
where
    F: Future<Output = u32> + Send + 'static,
{
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let callers: Vec<_> = (0..IN_FLIGHT).map(|number| runtime.spawn(caller(number, stop.clone()))).collect();
    runtime.block_on(async {
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let mut all = 0_u64;
        for caller in callers {
            all += u64::from(caller.await.expect("a call is answered"));
        }
        all as f64 / begun.elapsed().as_secs_f64()
    })
}

/// Calls again and again, with what the task has for that; how often.
async fn until(stop: Arc<AtomicBool>, mut call: impl AsyncFnMut(u32)) -> u32 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        call(count).await;
        count += 1;
    }
    count
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Add,
    User,
}

pub(super) fn add(name: &str, plan: Plan) -> Vec<Row> {
    measure(name, plan, What::Add).unwrap_or_else(|why| vec![Row::skipped(name, Unit::RATE, "a raw echo", &why)])
}

pub(super) fn user(name: &str, plan: Plan) -> Vec<Row> {
    measure(name, plan, What::User).unwrap_or_else(|why| vec![Row::skipped(name, Unit::RATE, "a raw echo", &why)])
}

/// Bytes of a message to the server and back, as `msgpack6c` has them: what the raw echo sends is as large both ways as the sum of them, halved.
fn echoed(what: What) -> usize {
    match what {
        What::Add => 17,
        What::User => 70,
    }
}

fn measure(name: &str, plan: Plan, what: What) -> Result<Vec<Row>, String> {
    let runtime = runtime()?;
    let (ours, raw) = (Other::start(Kind::Wellspring)?, Other::start(Kind::Echo)?);
    let (tarpc, tonic) = (Other::start(Kind::Tarpc)?, Other::start(Kind::Tonic)?);
    let remote = runtime.block_on(async { ours.remote() });
    let raw = runtime.block_on(echo::Echo::connect(raw.port, IN_FLIGHT, echoed(what))).map(|echo| (echo, raw)).map_err(text)?;
    let rpc = runtime.block_on(tarpc::connect(tarpc.port))?;
    let grpc = runtime.block_on(grpc::connect(tonic.port))?;
    let (add, user) = (MethodId::new("Bench.Add:2").map_err(text)?, MethodId::new("Bench.User:1").map_err(text)?);
    let time = plan.slice() * 2;

    let ours = &mut || {
        throughput(&runtime, time, |caller, stop| {
            let (remote, add, user) = (remote.clone(), add.clone(), user.clone());
            until(stop, async move |count| match what {
                What::Add => {
                    let sum: i32 = remote.call(&add, (caller as i32, count as i32)).await.expect("it is answered");
                    assert_eq!(sum, (caller + count) as i32);
                }
                What::User => {
                    let user: User = remote.call(&user, (u64::from(count),)).await.expect("it is answered");
                    assert_eq!(user.id, u64::from(count));
                }
            })
        })
    };
    let echoing = &mut || {
        throughput(&runtime, time, |caller, stop| {
            let echo = raw.0.clone();
            until(stop, async move |_| echo.call(caller).await)
        })
    };
    let tarpc = &mut || {
        throughput(&runtime, time, |caller, stop| {
            let rpc = rpc.clone();
            until(stop, async move |count| tarpc::call(&rpc, what == What::Add, caller, count).await)
        })
    };
    let tonic = &mut || {
        throughput(&runtime, time, |caller, stop| {
            let mut client = grpc::client(&grpc);
            until(stop, async move |count| grpc::call(&mut client, what == What::Add, caller, count).await)
        })
    };
    let mut missing = redis::missing();
    let tool = &mut || match &missing {
        Some(_) => f64::NAN,
        None => redis::get_plainly().unwrap_or_else(|why| {
            missing = Some(why);
            f64::NAN
        }),
    };
    // A round of the tool takes a second; five of them say as much as fifteen.
    let [ours, echo, tarpc, tonic, redis] = alternate(if plan.quick { 3 } else { 7 }, [ours, echoing, tarpc, tonic, tool]);
    let row = |of: &str, peer: &str, theirs: &[f64], least: f64| {
        Row::versus(&format!("{name}/{of}"), 1, Unit::RATE, &ours, peer, theirs).bar(Bar::Ratio(least))
    };
    Ok(vec![
        row("ceiling", "a raw echo of tokio tasks in batches", &echo, 0.5).note("the goal is 2M calls a second"),
        row("tarpc", "tarpc, TCP, bincode", &tarpc, 5.0),
        row("tonic", "tonic, prost", &tonic, 15.0),
        match missing {
            None => row("redis", "redis-benchmark GET, 50 connections", &redis, 20.0).note("the goal is 34x"),
            Some(why) => Row::alone(&format!("{name}/redis"), 1, Unit::RATE, &ours, "redis-benchmark GET").note(why),
        },
    ])
}
