//! Clients of every format and a server as a process, with a way between them that cuts, delays, splits, loses and reorders, and kills of either side. In the end
//! every replica is what the server's value is, and nobody has anything open that nobody waits for.

mod calls;
mod settle;
mod storm;
mod streams;
mod values;

use std::time::Duration;

use wellspring_rpc::wire::Format;

use crate::storm::Storm;

/// How long it goes on: a few seconds, or what `WELLSPRING_TORTURE_SECONDS` says.
fn torture_time() -> Duration {
    let seconds = std::env::var("WELLSPRING_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// What random choices follow from: `WELLSPRING_SEED`, or a new one. Printed, so that a failure can be tried again.
fn seed() -> u64 {
    let seed = std::env::var("WELLSPRING_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("rpc_torture: WELLSPRING_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_on_the_way_clients_come_to_what_the_server_has_and_nothing_is_left() {
    let storm = Storm::begin(seed(), torture_time()).await;
    let mut tasks = Vec::new();
    let mut clients = Vec::new();
    for format in Format::ALL {
        let near = values::Near::over(storm.remote(format));
        tasks.extend((0..3).map(|number| tokio::spawn(values::reads_and_writes(storm.clone(), near.clone(), number))));
        let caller = storm.remote(format);
        tasks.extend((0..4).map(|number| tokio::spawn(calls::calls(storm.clone(), caller.clone(), format, number))));
        let reader = storm.remote(format);
        tasks.extend((0..3).map(|number| tokio::spawn(streams::reads(storm.clone(), reader.clone(), number))));
        tasks.push(tokio::spawn(values::come_and_go(storm.clone(), format)));
        clients.push(settle::Client { near, others: vec![caller, reader] });
    }
    storm.rage().await;
    for task in tasks {
        task.await.unwrap_or_else(|error| panic!("{storm}: {error}"));
    }
    settle::all(&storm, clients).await;
    println!("{storm}: {:?}", storm.counts());
}
