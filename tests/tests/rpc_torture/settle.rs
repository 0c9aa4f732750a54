//! After the storm: what is to be true then, with a limit to how long it takes, and what is missing if it does not come.

use std::time::Duration;

use wellspring_rpc::Remote;

use crate::storm::{PATIENCE, Storm, method};
use crate::values::{KEYS, Near, key};

/// One that has lived through it, in a format.
pub(crate) struct Client {
    pub(crate) near: Near,
    /// Others of its format, that wait for nothing any more.
    pub(crate) others: Vec<Remote>,
}

pub(crate) async fn all(storm: &Storm, clients: Vec<Client>) {
    let inspector = storm.inspector().await;
    let get = method("ICounter.Get:2");
    let mut truth = Vec::new();
    for number in 0..KEYS {
        let value = storm.in_time("a counter of the server", inspector.call::<i64>(&get, (key(number),))).await;
        truth.push(value.unwrap_or_else(|error| panic!("{storm}: {error}")));
    }
    for Client { near, .. } in &clients {
        follow(storm, near, &truth).await;
    }
    // What the engine has replaced is given up when it is collected.
    let replicas = |clients: &[Client]| -> Vec<usize> {
        clients.iter().map(|Client { near, .. }| (near.engine.collect(), near.remote.open_calls()).1).collect()
    };
    until(storm, "calls and replicas of clients", vec![KEYS; clients.len()], async || (read(&clients).await, replicas(&clients)).1).await;
    let others = || clients.iter().flat_map(|client| &client.others);
    until(storm, "calls of clients that call", 0, async || others().map(Remote::open_calls).sum()).await;
    until(storm, "streams of clients", 0, async || {
        others().chain(clients.iter().map(|client| &client.near.remote)).map(Remote::open_streams).sum()
    })
    .await;
    let ask = async |name: &str| inspector.call::<usize>(&method(name), ()).await.unwrap_or_else(|error| panic!("{storm}: {error}"));
    // Those that went are forgotten after a while.
    let living = others().count() + clients.len() + 1;
    until(storm, "clients of the server", living, async || ask("IInspection.Clients:0").await).await;
    until(storm, "streams of the server", 0, async || ask("IInspection.OpenStreams:0").await).await;
    until(storm, "subscriptions of the server", KEYS * clients.len(), async || {
        read(&clients).await;
        ask("IInspection.OpenCalls:0").await
    })
    .await;
    // Nobody has the values any more.
    let mut remotes = Vec::new();
    for Client { near, others } in clients {
        near.engine.assert_consistent();
        remotes.extend(others);
        remotes.push(near.remote.clone());
    }
    until(storm, "calls of clients without values", 0, async || remotes.iter().map(Remote::open_calls).sum()).await;
    until(storm, "calls of the server", 0, async || ask("IInspection.OpenCalls:0").await).await;
}

/// Reads all values, for who has found out just now that its connection led to a process that is gone: what was the server's value by chance may end then.
async fn read(clients: &[Client]) {
    for Client { near, .. } in clients {
        for number in 0..KEYS {
            let _ = near.counter.get(&near.engine, &(key(number),)).await;
        }
    }
}

/// Waits until the client's values are the server's: each is told by its end that there is another.
async fn follow(storm: &Storm, near: &Near, truth: &[i64]) {
    for (number, expected) in truth.iter().enumerate() {
        let key = key(number);
        let read = storm.in_time("a value", near.counter.computed(&near.engine, &(key.clone(),))).await.expect("a value or none");
        let follows = read.when(|value| value.as_ref() == Ok(expected));
        let seen = tokio::time::timeout(PATIENCE, follows).await;
        let last = near.counter.get(&near.engine, &(key.clone(),));
        if seen.is_err() {
            panic!("{storm}: {key} is {:?} for a client ({:?}) and {expected} for the server", last.await, near.remote);
        }
    }
    let sum = storm.in_time("a sum", near.sum.computed(&near.engine, &())).await.expect("a sum or none");
    let expected = Some(truth.iter().sum());
    storm.in_time("the sum of all", sum.when(move |sum| *sum == expected)).await.expect("a sum or none");
}

/// Asks until the answer is as it should be. Nobody says by himself that he has forgotten something.
async fn until<T: PartialEq + std::fmt::Debug>(storm: &Storm, what: &str, expected: T, mut ask: impl AsyncFnMut() -> T) {
    let mut last = None;
    let asking = async {
        while last.as_ref() != Some(&expected) {
            last = Some(ask().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, asking).await.is_err() {
        panic!("{storm}: {what}: {last:?} and not {expected:?} within {PATIENCE:?}; {:?}", storm.counts());
    }
}
