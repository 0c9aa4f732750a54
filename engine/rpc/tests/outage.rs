//! Calls of a client whose connection breaks, as its server has them.

mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use support::greeted::{FORMAT, NONE, args, call, failure, greeted, hello, index, nothing, ok, read, reconnect, stale};
use support::pipe::Client;
use support::services::World;
use wellspring_rpc::Visitor;
use wellspring_rpc::wire::{Head, Packed, System, pack};

#[tokio::test(start_paused = true)]
async fn a_regular_call_runs_once_through_an_outage_whenever_it_ends() {
    // R1: before it is sent there is nothing to find. R2 and R3: the body ends after and within the outage. The last: the answer was sent just
    // before, and did not arrive.
    for (body, away) in [(300, 100), (100, 300), (50, 60)] {
        let world = World::new();
        let (mut client, _) = greeted(&world, 1).await;
        call(&client, 0, 1, "IDemo.Slow:3", args!["x", body]);
        tokio::time::sleep(Duration::from_millis(if body == 50 { 55 } else { 20 })).await;
        client.drop_connection().await;
        tokio::time::sleep(Duration::from_millis(away)).await;
        let (mut client, theirs) = greeted(&world, 1).await;
        assert_eq!(index(&theirs), 2);
        assert_eq!(reconnect(&mut client, 2, 2, &[(0, &[1])]).await, NONE);
        assert_eq!(read::<String>(&ok(&mut client, 1).await), "x");
        assert_eq!(world.runs.slow.load(Ordering::SeqCst), 1, "{body} {away}");
        client.drop_connection().await;
        let (mut client, _) = greeted(&world, 1).await;
        assert_eq!(reconnect(&mut client, 3, 3, &[]).await, NONE);
        assert_eq!(world.hub.open_calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_given_again_is_kept_no_longer_and_is_not_lost_either() {
    for asks in [true, false] {
        let world = World::new();
        let (mut client, _) = greeted(&world, 1).await;
        call(&client, 0, 1, "IDemo.Slow:3", args!["x", 100]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.drop_connection().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (mut client, _) = greeted(&world, 1).await;
        match asks {
            true => assert_eq!(reconnect(&mut client, 2, 2, &[(0, &[1])]).await, NONE),
            false => call(&client, 0, 1, "IDemo.Slow:3", args!["x", 100]),
        }
        ok(&mut client, 1).await;
        assert_eq!(world.hub.open_calls(), 0, "on a connection that lives");
        // It did not arrive after all.
        client.drop_connection().await;
        let (mut client, _) = greeted(&world, 1).await;
        assert_eq!(reconnect(&mut client, 3, 3, &[(0, &[1])]).await, NONE);
        assert_eq!(read::<String>(&ok(&mut client, 1).await), "x");
        assert_eq!((world.runs.slow.load(Ordering::SeqCst), world.hub.open_calls()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_compute_call_runs_once_through_an_outage_and_its_end_is_told() {
    // F2, F3: the body ends after the outage, and within it.
    for (body, away) in [(300, 100), (100, 300)] {
        let world = World::new();
        let (mut client, _) = greeted(&world, 1).await;
        call(&client, 1, 1, "ICounter.Slow:3", args!["k", body]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.drop_connection().await;
        tokio::time::sleep(Duration::from_millis(away)).await;
        let (mut client, _) = greeted(&world, 1).await;
        assert_eq!(reconnect(&mut client, 2, 2, &[(0, &[1])]).await, NONE);
        assert_eq!(read::<i64>(&ok(&mut client, 1).await), 0);
        nothing(&mut client);
        call(&client, 0, 3, "ICounter.Set:3", args!["k", 5]);
        stale(&mut client, 1).await;
        assert_eq!((world.runs.slow_compute.load(Ordering::SeqCst), world.hub.open_calls()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_came_and_went_in_an_outage_is_given_and_then_taken_back() {
    // F4.
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 1, 1, "ICounter.Slow:3", args!["k", 100]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.drop_connection().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut other = Client::connect(&world.hub, Visitor::new("other", FORMAT));
    other.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(2, 1)));
    call(&other, 0, 1, "ICounter.Set:3", args!["k", 5]);
    ok(&mut other, 1).await;
    let (mut client, _) = greeted(&world, 1).await;
    assert_eq!(reconnect(&mut client, 2, 2, &[(0, &[1])]).await, NONE);
    let got = client.expect("the value", |got| got.id == 1).await;
    assert_eq!((got.call, read::<i64>(&got)), (System::Ok, 0));
    stale(&mut client, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_ended_in_an_outage_is_told_so_and_one_that_did_not_later() {
    // F5 and F6.
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    for (id, key) in [(1, "stays"), (2, "goes")] {
        call(&client, 1, id, "ICounter.Get:2", args![key]);
        ok(&mut client, id).await;
    }
    // Long enough for what was said to have arrived.
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.drop_connection().await;
    let mut other = Client::connect(&world.hub, Visitor::new("other", FORMAT));
    other.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(2, 1)));
    call(&other, 0, 1, "ICounter.Set:3", args!["goes", 5]);
    ok(&mut other, 1).await;
    let (mut client, _) = greeted(&world, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    nothing(&mut client);
    // A third one that the server never had, and a first one whose answer did not arrive: both are asked for again.
    assert_eq!(reconnect(&mut client, 9, 2, &[(0, &[3]), (1, &[1, 2])]).await, [3]);
    stale(&mut client, 2).await;
    nothing(&mut client);
    call(&other, 0, 2, "ICounter.Set:3", args!["stays", 5]);
    stale(&mut client, 1).await;
    assert_eq!(world.runs.get.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_told_into_the_void_is_told_again() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 1, 1, "ICounter.Get:2", args!["k"]);
    ok(&mut client, 1).await;
    call(&client, 0, 2, "ICounter.Set:3", args!["k", 5]);
    stale(&mut client, 1).await;
    // As if neither had arrived.
    client.drop_connection().await;
    let (mut client, _) = greeted(&world, 1).await;
    assert_eq!(reconnect(&mut client, 3, 2, &[(1, &[1])]).await, NONE);
    stale(&mut client, 1).await;
    client.drop_connection().await;
    let (mut client, _) = greeted(&world, 1).await;
    assert_eq!(reconnect(&mut client, 4, 3, &[]).await, NONE);
    assert_eq!(world.hub.open_calls(), 0, "whoever does not ask has forgotten");
}

#[tokio::test(start_paused = true)]
async fn single_shot_calls_are_asked_for_once_a_connection_and_again_on_the_next() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 0, 1, "IDemo.Slow:3", args!["x", 10_000]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    for connection in 2..5 {
        client.drop_connection().await;
        client = greeted(&world, 1).await.0;
        // Of another connection than this one nobody is answered, and that does not count.
        for index in [0, connection - 1, connection + 1, -1] {
            client.say(&Head::system(System::Reconnect, 50), |out| {
                out.value(&index)?;
                out.value(&BTreeMap::<u32, Packed<'_>>::new())
            });
            failure(&mut client, 50).await;
        }
        assert_eq!(reconnect(&mut client, 51, connection, &[(0, &[1, 7, 9])]).await, [7, 9]);
        client.say(&Head::system(System::Reconnect, 52), |out| {
            out.value(&connection)?;
            out.value(&BTreeMap::<u32, Packed<'_>>::new())
        });
        failure(&mut client, 52).await;
    }
    assert_eq!(read::<String>(&ok(&mut client, 1).await), "x");
    assert_eq!(world.runs.slow.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_returning_client_was_given_again_is_not_kept_any_longer() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 0, 1, "IDemo.Slow:3", args!["x", 50]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.drop_connection().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.hub.open_calls(), 1);
    for connection in 2..5 {
        client = greeted(&world, 1).await.0;
        assert_eq!(reconnect(&mut client, 2, connection, &[(0, &[1])]).await, NONE);
        ok(&mut client, 1).await;
        assert_eq!(world.hub.open_calls(), 0);
        // And is there all the same if it was lost on its way, as is what the client has asked.
        client.drop_connection().await;
        assert_eq!(world.hub.open_calls(), 2);
    }
    assert_eq!(world.runs.slow.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_failed_in_an_outage_is_asked_again_in_a_while() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 1, 1, "IOdd.Late:2", args![100]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.drop_connection().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (mut client, _) = greeted(&world, 1).await;
    assert_eq!(reconnect(&mut client, 2, 2, &[(0, &[1])]).await, NONE);
    failure(&mut client, 1).await;
    stale(&mut client, 1).await;
    assert_eq!(world.hub.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_a_call_again_without_asking_hears_of_its_end_all_the_same() {
    for settled in [false, true] {
        let world = World::new();
        let (mut client, _) = greeted(&world, 1).await;
        call(&client, 1, 1, "ICounter.Slow:3", args!["k", 100]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.drop_connection().await;
        if settled {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let (mut client, _) = greeted(&world, 1).await;
        // It was told that it is too late, perhaps.
        call(&client, 1, 1, "ICounter.Slow:3", args!["k", 100]);
        assert_eq!(read::<i64>(&ok(&mut client, 1).await), 0);
        call(&client, 0, 2, "ICounter.Set:3", args!["k", 1]);
        stale(&mut client, 1).await;
        assert_eq!(world.runs.slow_compute.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_calls_that_cannot_be_read_is_refused() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    client.say(&Head::system(System::Reconnect, 1), |out| out.value("nonsense"));
    client.say(&Head::system(System::Reconnect, 2), |out| {
        out.value(&1)?;
        out.value(&BTreeMap::from([(0, Packed(Cow::Owned(vec![1, 0x80])))]))
    });
    let much = Packed(Cow::Owned(vec![1; (1 << 20) + 1]));
    client.say(&Head::system(System::Reconnect, 3), |out| {
        out.value(&1)?;
        out.value(&BTreeMap::from([(0, much)]))
    });
    for id in [1, 2, 3] {
        failure(&mut client, id).await;
    }
    // None of them counts.
    assert_eq!(reconnect(&mut client, 4, 1, &[(0, &[7, 7, 9])]).await, [7, 9]);
}

#[tokio::test(start_paused = true)]
async fn what_ended_without_a_connection_is_said_before_a_returning_client_is_answered() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    for (id, key) in [(1, "a"), (2, "b"), (3, "c")] {
        call(&client, 1, id, "ICounter.Get:2", args![key]);
        ok(&mut client, id).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.drop_connection().await;
    let mut other = Client::connect(&world.hub, Visitor::new("other", FORMAT));
    other.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(2, 1)));
    other.expect("a handshake", |got| got.call == System::Handshake).await;
    for (id, key) in [(1, "a"), (2, "c")] {
        call(&other, 0, id, "ICounter.Set:3", args![key, 1]);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut client, theirs) = greeted(&world, 1).await;
    let stages = BTreeMap::from([(1, Packed(Cow::Owned(pack([1, 2, 3]))))]);
    client.say(&Head::system(System::Reconnect, 4), |out| {
        out.value(&index(&theirs))?;
        out.value(&stages)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.hear_all();
    let said: Vec<_> = client.pool.iter().map(|got| (got.call, got.id)).collect();
    assert_eq!(said, [(System::Invalidate, 1), (System::Invalidate, 3), (System::Ok, 4)]);
}

#[tokio::test(start_paused = true)]
async fn ends_that_a_returning_client_does_not_ask_for_are_told_in_a_while_and_forgotten() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 1, 1, "ICounter.Get:2", args!["k"]);
    ok(&mut client, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.drop_connection().await;
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 0, 2, "ICounter.Set:3", args!["k", 1]);
    ok(&mut client, 2).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    nothing(&mut client);
    stale(&mut client, 1).await;
    assert_eq!(world.hub.open_calls(), 0);
}
