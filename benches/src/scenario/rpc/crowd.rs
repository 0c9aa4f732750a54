//! Many connections, and many subscriptions.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wellspring_rpc::wire::MethodId;
use wellspring_rpc::{Remote, Replica};

use super::server::{Kind, Other, VALUES};
use super::{runtime, text};
use crate::rounds::median;
use crate::row::Bar;
use crate::{Plan, Row, Unit};

fn method(name: &str) -> Result<MethodId, String> {
    MethodId::new(format!("Bench.{name}")).map_err(text)
}

/// How many bytes the server's process has allocated.
async fn allocated(remote: &Remote) -> Result<f64, String> {
    let bytes: Option<u64> = remote.call(&method("Allocated:0")?, ()).await.map_err(text)?;
    bytes.map(|bytes| bytes as f64).ok_or_else(|| "the server does not count its bytes".to_owned())
}

/// So many clients, each of which has made a call.
async fn clients(other: &Other, count: usize) -> Result<Vec<Remote>, String> {
    /// That connect at a time.
    const ABREAST: usize = 50;
    /// Longer than it takes.
    const PATIENCE: Duration = Duration::from_secs(20);
    let add = method("Add:2")?;
    let mut connected = Vec::with_capacity(count);
    while connected.len() < count {
        let some: Vec<Remote> = (0..ABREAST.min(count - connected.len())).map(|_| other.remote()).collect();
        for remote in &some {
            // Where there are too few descriptors a remote would try again for ever.
            let called = tokio::time::timeout(PATIENCE, remote.call::<i32>(&add, (1, 2))).await;
            called.map_err(|_| format!("no more than {} connections could be made", connected.len()))?.map_err(text)?;
        }
        connected.extend(some);
    }
    Ok(connected)
}

pub(super) fn idle(name: &str, plan: Plan) -> Vec<Row> {
    vec![idle_row(name, plan).unwrap_or_else(|why| Row::skipped(name, Unit::BYTES, "", &why))]
}

fn idle_row(name: &str, plan: Plan) -> Result<Row, String> {
    let connections = if plan.quick { 1_000 } else { 10_000 };
    let runtime = runtime()?;
    let other = Other::counted(Kind::Wellspring)?;
    let bytes = runtime.block_on(async {
        let remote = other.remote();
        // What lives as long as the process is there already.
        let first = clients(&other, 100).await?;
        let before = allocated(&remote).await?;
        let more = clients(&other, connections).await?;
        let bytes = (allocated(&remote).await? - before) / connections as f64;
        drop((first, more));
        Ok::<_, String>(bytes)
    })?;
    Ok(Row::alone(name, 1, Unit::BYTES, &[bytes], "").bar(Bar::AtMost(10_240.0)).note(format!("{connections} connections")))
}

pub(super) fn fan_out(name: &str, plan: Plan) -> Vec<Row> {
    fan_out_rows(name, plan).unwrap_or_else(|why| vec![Row::skipped(name, Unit::MILLIS, "", &why)])
}

fn fan_out_rows(name: &str, plan: Plan) -> Result<Vec<Row>, String> {
    let connections = if plan.quick { 100 } else { 1_000 };
    let runtime = runtime()?;
    let other = Other::counted(Kind::Wellspring)?;
    let Told { times, bytes } = runtime.block_on(async {
        let clients = clients(&other, connections).await?;
        tell(&other.remote(), &clients, if plan.quick { 3 } else { 7 }).await
    })?;
    let note = format!("{connections} connections");
    Ok(vec![
        Row::alone(name, 1, Unit::MILLIS, &times, "").bar(Bar::AtMost(250.0)).note(&note),
        Row::alone(&format!("{name}/subscription"), 1, Unit::BYTES, &bytes, "").bar(Bar::AtMost(200.0)).note(&note),
    ])
}

pub(super) fn subscriptions(name: &str, plan: Plan) -> Vec<Row> {
    vec![subscriptions_row(name, plan).unwrap_or_else(|why| Row::skipped(name, Unit::BYTES, "", &why))]
}

fn subscriptions_row(name: &str, plan: Plan) -> Result<Row, String> {
    const SUBSCRIPTIONS: usize = 100_000;
    let runtime = runtime()?;
    let other = Other::counted(Kind::Wellspring)?;
    let Told { times, bytes } = runtime.block_on(async {
        // So many askers of one connection.
        let clients = vec![clients(&other, 1).await?.remove(0); SUBSCRIPTIONS / VALUES as usize];
        tell(&other.remote(), &clients, if plan.quick { 3 } else { 7 }).await
    })?;
    let note = format!("{SUBSCRIPTIONS} of one connection, all of which one commit tells in {:.0} ms", median(&times));
    Ok(Row::alone(name, 1, Unit::BYTES, &bytes, "").bar(Bar::AtMost(200.0)).note(note))
}

/// What it takes to tell whoever has subscribed, in each round.
struct Told {
    /// Milliseconds from the call that commits to the last who knows.
    times: Vec<f64>,
    /// That the server has allocated for each subscription.
    bytes: Vec<f64>,
}

/// In each round every client asks for every value, and one commit makes all of them stale.
async fn tell(remote: &Remote, clients: &[Remote], rounds: u64) -> Result<Told, String> {
    let mut told = Told { times: Vec::new(), bytes: Vec::new() };
    for round in 0..rounds {
        let before = allocated(remote).await?;
        let replicas = subscribe(clients).await?;
        told.bytes.push((allocated(remote).await? - before) / replicas.len() as f64);
        let begun = Instant::now();
        let heard = tokio::spawn(async move {
            for replica in &replicas {
                replica.stale().await;
            }
            begun.elapsed()
        });
        let _: () = remote.call(&method("Set:1")?, (round + 1,)).await.map_err(text)?;
        told.times.push(heard.await.map_err(text)?.as_secs_f64() * 1e3);
    }
    Ok(told)
}

/// Every client asks for every value.
async fn subscribe(clients: &[Remote]) -> Result<Vec<Replica<u64>>, String> {
    let value = method("Value:1")?;
    let mut asking = JoinSet::new();
    for remote in clients {
        let (remote, value) = (remote.clone(), value.clone());
        asking.spawn(async move {
            let mut replicas = Vec::with_capacity(VALUES as usize);
            for key in 0..VALUES {
                replicas.push(remote.compute::<u64>(&value, (key,)).await.map_err(text)?);
            }
            Ok::<_, String>(replicas)
        });
    }
    let mut all = Vec::with_capacity(clients.len() * VALUES as usize);
    while let Some(replicas) = asking.join_next().await {
        all.extend(replicas.map_err(text)??);
    }
    Ok(all)
}
