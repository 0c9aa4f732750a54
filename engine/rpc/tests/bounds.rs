//! What a client can make its server keep, and how much of it.

mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use support::PATIENCE;
use support::greeted::{FORMAT, args, call, failure, greeted, hello, index, method, nothing, ok, read, reconnect, stale};
use support::pipe::Client;
use support::services::World;
use wellspring_rpc::wire::{Frame, Head, Packed, System};
use wellspring_rpc::{Timings, Visitor};

#[tokio::test(start_paused = true)]
async fn lists_that_are_longer_than_anybody_needs_are_not_read() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    let ids = |count: u64| (1..=count).collect::<Vec<_>>();
    for call in [System::KeepAlive, System::Disconnect] {
        client.say(&Head::system(call, 0), |out| out.value(&ids(65_537)));
    }
    client.say(&Head::system(System::KeepAlive, 0), |out| out.value(&ids(65_536)));
    let got = client.expect("a disconnect", |got| got.call == System::Disconnect).await;
    assert_eq!(read::<Vec<u64>>(&got), ids(65_536), "as many as there may be streams");
    nothing(&mut client);
    // Nor are there as many stages of calls.
    let stages: BTreeMap<u32, Packed<'_>> = (0..65).map(|stage| (stage, Packed(Cow::Owned(Vec::new())))).collect();
    client.say(&Head::system(System::Reconnect, 1), |out| {
        out.value(&1)?;
        out.value(&stages)
    });
    failure(&mut client, 1).await;
    assert_eq!(reconnect(&mut client, 2, 1, &[(0, &[7]), (1, &[8]), (3, &[9]), (0x1000, &[10])]).await, [7, 8, 9, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_not_answered_and_ends_by_its_silence() {
    let world = World::new();
    let mut client = Client::connect(&world.hub, Visitor::new("client", FORMAT));
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(1, 1)));
    client.expect("a handshake", |got| got.call == System::Handshake).await;
    client.stop_reading();
    let echo = method("IDemo.EchoAny:2");
    let (text, mut frame) = ("x".repeat(10_000), Frame::new(FORMAT));
    for id in 1..=1000 {
        frame.push(&Head::call(0, id, &echo), |out| out.value(&text)).expect("written");
    }
    let frame = Bytes::from(frame.take());
    for _ in 0..20 {
        client.send(frame.clone());
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    // A frame at most beyond what may wait, of the two hundred megabytes that were asked for.
    assert!(client.accepted() < 4 << 20, "{} bytes were given to the connection", client.accepted());
    let before = tokio::time::Instant::now();
    client.ended().await;
    assert!(before.elapsed() < Duration::from_secs(25), "{:?}", before.elapsed());
    // Its place is free.
    let (mut client, theirs) = greeted(&world, 1).await;
    assert_eq!(index(&theirs), 2);
    call(&client, 0, 5000, "IDemo.Add:3", args![1, 2]);
    ok(&mut client, 5000).await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_kept_for_nobody_are_bounded() {
    let world = World::with(|builder| builder.timings(Timings::default()));
    let (mut client, _) = greeted(&world, 1).await;
    let most = 4096;
    for id in 1..=most + 100 {
        call(&client, 0, id, "IDemo.Slow:3", args!["x", 50]);
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.hub.open_calls() as u64, most + 100);
    client.drop_connection().await;
    tokio::time::timeout(PATIENCE, async {
        while world.hub.open_calls() as u64 > most {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the oldest are forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_client_with_too_many_subscriptions_hears_that_its_oldest_are_stale() {
    let world = World::with(|hub| hub.subscriptions(16));
    let (mut client, _) = greeted(&world, 1).await;
    for id in 1..=16 {
        call(&client, 1, id, "ICounter.Get:2", args![format!("key {id}")]);
        ok(&mut client, id).await;
    }
    nothing(&mut client);
    call(&client, 1, 17, "ICounter.Get:2", args!["one more"]);
    ok(&mut client, 17).await;
    // An eighth of seventeen, rounded up.
    for id in 1..=3 {
        stale(&mut client, id).await;
    }
    nothing(&mut client);
    assert_eq!(world.hub.open_calls(), 14);
    // The others are as they were.
    world.counters.set(&String::from("key 4"), 1);
    stale(&mut client, 4).await;
    nothing(&mut client);
}

#[tokio::test(start_paused = true)]
async fn calls_that_run_are_no_subscriptions_however_many_they_are() {
    let world = World::with(|hub| hub.subscriptions(4));
    let (mut client, _) = greeted(&world, 1).await;
    for id in 1..=10 {
        call(&client, 0, id, "IDemo.Slow:3", args!["x", 60_000_u64]);
    }
    for id in 11..=14 {
        call(&client, 1, id, "ICounter.Get:2", args![format!("key {id}")]);
        ok(&mut client, id).await;
    }
    nothing(&mut client);
    assert_eq!(world.hub.open_calls(), 14);
}
