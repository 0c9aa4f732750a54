//! What a server does beyond the recorded conversations.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use support::greeted::{FORMAT, args, call, failure, greeted, hello, method, nothing, ok, read, stale};
use support::pipe::{Client, Sent};
use support::services::{World, is_missing};
use wellspring_rpc::Visitor;
use wellspring_rpc::transport::{Close, Incoming};
use wellspring_rpc::wire::{ErrorInfo, Frame, Handshake, Head, System};

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_begin_with_a_handshake_is_closed() {
    let world = World::new();
    let mut wrong = Frame::new(FORMAT);
    wrong.push(&Head::call(0, 1, &method("IDemo.Nothing:1")), |_| Ok(())).expect("written");
    let mut old = Frame::new(FORMAT);
    old.push(&Head::system(System::Handshake, 0), |out| out.value(&Handshake { protocol: 1, ..hello(1, 1) })).expect("written");
    for (frame, code) in [
        (Incoming::Binary(wrong.take().into()), Close::PROTOCOL.code),
        (Incoming::Binary(old.take().into()), Close::PROTOCOL.code),
        (Incoming::Binary(Bytes::new()), Close::PROTOCOL.code),
        (Incoming::Binary(vec![0; 16_385].into()), Close::TOO_LARGE.code),
        (Incoming::Text(Bytes::new()), Close::KIND.code),
    ] {
        let mut client = Client::connect(&world.hub, Visitor::new("", FORMAT));
        assert!(matches!(client.hear().await, Sent::Frame(_)));
        client.send_as(frame);
        assert_eq!(client.hear().await, Sent::Close(code, String::new()));
    }
    let mut silent = Client::connect(&world.hub, Visitor::new("", FORMAT));
    assert!(matches!(silent.hear().await, Sent::Frame(_)));
    let before = tokio::time::Instant::now();
    assert_eq!(silent.hear().await, Sent::Close(1000, String::new()));
    assert_eq!(before.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn only_signs_of_life_keep_a_connection() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    let alive = tokio::time::Instant::now();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(12)).await;
        call(&client, 0, 1, "IDemo.Add:3", args![1, 2]);
        ok(&mut client, 1).await;
    }
    loop {
        if matches!(client.hear().await, Sent::Close(1000, _)) {
            break;
        }
    }
    assert_eq!(alive.elapsed().as_secs(), 25);
    let (mut client, _) = greeted(&world, 1).await;
    for _ in 0..20 {
        client.say(&Head::system(System::KeepAlive, 0), |out| out.value(&[0_u64; 0]));
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    call(&client, 0, 1, "IDemo.Add:3", args![1, 2]);
    assert_eq!(read::<i64>(&ok(&mut client, 1).await), 3);
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_not_there_are_disowned() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    client.say(&Head::system(System::KeepAlive, 0), |out| out.value(&[3_u64, 300]));
    let got = client.expect("a disconnect", |got| got.call == System::Disconnect).await;
    assert_eq!(read::<Vec<u64>>(&got), [3, 300]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_fails_its_call_and_nothing_else() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 0, 1, "IDemo.Panic:1", args![]);
    call(&client, 0, 2, "IDemo.PanicLater:1", args![]);
    call(&client, 0, 3, "IDemo.Add:3", args![1, 2]);
    for id in [1, 2] {
        let error = failure(&mut client, id).await;
        assert!(!error.message.contains("on purpose"), "{error:?}");
    }
    assert_eq!(read::<i64>(&ok(&mut client, 3).await), 3);
    assert_eq!(world.hub.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_called_is_an_error_and_a_compute_call_of_it_is_over_soon() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 0, 1, "IDemo.Missing:1", args![]);
    assert!(is_missing(&failure(&mut client, 1).await));
    call(&client, 0, 2, "IDemo.Add:3", args!["one", 2]);
    assert_eq!(failure(&mut client, 2).await.type_ref, ErrorInfo::ARGUMENT);
    call(&client, 1, 3, "IDemo.Add:3", args![1, 2]);
    assert!(failure(&mut client, 3).await.message.starts_with("Invalid CallTypeId:"));
    for (id, name) in [(4, "IOdd.Broken:1"), (5, "IOdd.Nobody:1"), (6, "IOdd.Missing:1")] {
        call(&client, 1, id, name, args![]);
        assert!(!failure(&mut client, id).await.message.contains("on purpose"));
        stale(&mut client, id).await;
    }
    stale(&mut client, 3).await;
    assert_eq!(world.hub.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_the_result_is_told_that_it_is_right() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    let (get, key) = (method("ICounter.Get:2"), |out: &mut wellspring_rpc::wire::Writer<'_>| out.value("k"));
    client.say(&Head::call(1, 1, &get).with(&[("#", "")]), key);
    let first = ok(&mut client, 1).await;
    let hash = first.hash.clone().expect("a hash");
    assert_eq!((read::<i64>(&first), hash.len()), (0, 24));
    client.say(&Head::call(1, 2, &get).with(&[("#", &hash)]), key);
    let second = client.expect("a match", |got| got.id == 2).await;
    assert_eq!((second.call, second.arguments.len()), (System::Match, 0));
    call(&client, 0, 3, "ICounter.Set:3", args!["k", 5]);
    for id in [1, 2] {
        stale(&mut client, id).await;
    }
    client.say(&Head::call(1, 4, &get).with(&[("#", &hash)]), key);
    let third = ok(&mut client, 4).await;
    assert_eq!(read::<i64>(&third), 5);
    assert_ne!(third.hash, Some(hash));
}

#[tokio::test(start_paused = true)]
async fn a_batch_tells_its_notices_in_one_frame() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    for id in 1..=100 {
        call(&client, 1, id, "ICounter.Get:2", args!["k"]);
        ok(&mut client, id).await;
    }
    assert_eq!((world.hub.open_calls(), world.runs.get.load(Ordering::SeqCst)), (100, 1));
    call(&client, 0, 101, "ICounter.Set:3", args!["k", 1]);
    ok(&mut client, 101).await;
    // With the answer, or in the next frame; not in two.
    if client.pool.is_empty() {
        let first = client.expect("notices", |_| true).await;
        client.pool.push(first);
    }
    assert_eq!((client.pool.len(), world.hub.open_calls()), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_sent_twice_runs_once() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    for _ in 0..100 {
        call(&client, 0, 1, "IDemo.Slow:3", args!["x", 50]);
    }
    // Of another method with the same id nobody hears anything.
    call(&client, 0, 1, "IDemo.Add:3", args![1, 2]);
    assert_eq!(read::<String>(&ok(&mut client, 1).await), "x");
    tokio::time::sleep(Duration::from_secs(1)).await;
    nothing(&mut client);
    assert_eq!(world.runs.slow.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_written_is_a_failure_that_ends_with_it() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 1, 1, "IOdd.Unwritable:2", args!["k"]);
    call(&client, 0, 2, "IOdd.Panics:1", args![]);
    call(&client, 0, 3, "IOdd.PanicsLater:1", args![]);
    call(&client, 0, 4, "IDemo.Add:3", args![1, 2]);
    for id in [1, 2, 3] {
        assert!(!failure(&mut client, id).await.message.contains("on purpose"));
    }
    assert_eq!(read::<i64>(&ok(&mut client, 4).await), 3);
    assert_eq!(world.hub.open_calls(), 1);
    call(&client, 0, 5, "ICounter.Set:3", args!["k", 1]);
    stale(&mut client, 1).await;
    assert_eq!(world.hub.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_that_nobody_waits_for_leave_nothing_behind_whatever_their_ids_are() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    for _ in 0..10 {
        call(&client, 0, 7, "IOdd.SlowPing:1", args![]);
        call(&client, 1, 7, "IOdd.SlowPing:1", args![]);
    }
    call(&client, 0, 0, "IDemo.Add:3", args![1, 2]);
    call(&client, 0, 7, "IDemo.Add:3", args![1, 2]);
    assert_eq!(read::<i64>(&ok(&mut client, 7).await), 3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    nothing(&mut client);
    assert_eq!(world.hub.open_calls(), 0);
}
