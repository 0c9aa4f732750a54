//! What one client can make a server hold, whatever it does.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::greeted::{FORMAT, args, call, failure, greeted, hello, index, method, ok, reconnect};
use support::pipe::{Client, Received};
use support::services::World;
use tokio::sync::Notify;
use wellspring_rpc::wire::{Format, Frame, Guid, Head, StreamRef, System};
use wellspring_rpc::{Failure, RpcStream, Service, Visitor};

/// Asks for a value of its own, to be told of its end.
async fn subscribe(client: &mut Client, id: u64) {
    call(client, 1, id, "ICounter.Get:2", args![format!("key {id}")]);
    ok(client, id).await;
}

fn ended(client: &mut Client) -> Vec<u64> {
    client.hear_all();
    client.pool.iter().filter(|got: &&Received| got.call == System::Invalidate).map(|got| got.id).collect()
}

/// A connection for nine seconds at a time: as long as that it is not taken to have said which of its calls it waits for.
#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_what_it_waits_for_has_no_more_subscriptions_for_that() {
    let world = World::with(|hub| hub.subscriptions(16));
    for round in 0..30 {
        let (mut client, _) = greeted(&world, 1).await;
        for id in 1 + 4 * round..=4 + 4 * round {
            subscribe(&mut client, id).await;
        }
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(ended(&mut client), [0_u64; 0], "who was not asked about them is told nothing");
        // It looks again when there are an eighth more.
        assert!(world.hub.open_calls() <= 18, "{} in round {round}", world.hub.open_calls());
        client.drop_connection().await;
    }
    // What was dropped ends by not being known, and the rest is as it was.
    let (mut client, theirs) = greeted(&world, 1).await;
    let all: Vec<u64> = (1..=120).collect();
    let gone = reconnect(&mut client, 1 << 40, index(&theirs), &[(1, &all)]).await;
    assert_eq!(gone, (1..=120 - world.hub.open_calls() as u64).collect::<Vec<_>>());
    world.counters.set(&String::from("key 120"), 1);
    client.expect("a notice", |got| (got.call, got.id) == (System::Invalidate, 120)).await;
}

#[tokio::test(start_paused = true)]
async fn values_whose_ends_could_not_be_told_are_subscriptions_as_well() {
    let world = World::with(|hub| hub.subscriptions(16));
    for round in 0..30 {
        let (mut client, _) = greeted(&world, 1).await;
        for id in 1 + 4 * round..=4 + 4 * round {
            subscribe(&mut client, id).await;
        }
        client.drop_connection().await;
        for id in 1 + 4 * round..=4 + 4 * round {
            world.counters.set(&format!("key {id}"), 1);
        }
        assert!(world.hub.open_calls() <= 18, "{} in round {round}", world.hub.open_calls());
    }
}

/// Nobody is there to be told anything while they come to their ends.
#[tokio::test(start_paused = true)]
async fn values_that_came_without_a_connection_are_subscriptions_as_well() {
    let world = World::with(|hub| hub.subscriptions(16));
    for round in 0..10 {
        let (mut client, _) = greeted(&world, 1).await;
        assert!(world.hub.open_calls() <= 16, "{} in round {round}", world.hub.open_calls());
        for id in 1 + 20 * round..=20 + 20 * round {
            client.say(&Head::call(1, id, &method("ICounter.Slow:3")), |out| {
                out.value(&format!("key {id}"))?;
                out.value(&500_u64)
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.drop_connection().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_large_items_that_nobody_reads_is_given_up_and_its_reader_hears_why() {
    let go = Arc::new(Notify::new());
    let read = {
        let go = go.clone();
        Service::new("ISlow").method("Read:2", move |(mut texts,): (RpcStream<String>,)| {
            let go = go.clone();
            async move {
                go.notified().await;
                while let Some(text) = texts.next().await {
                    text?;
                }
                Ok::<_, Failure>(())
            }
        })
    };
    let world = World::with(|hub| hub.service(read).expect("a service"));
    let (mut client, _) = greeted(&world, 1).await;
    client.say(&Head::call(0, 1, &method("ISlow.Read:2")), |out| out.value(&StreamRef::new(Guid::from_u128(1), 5)));
    let text = "x".repeat(1 << 20);
    // Of which it takes 152 by their count, although it has not asked for any.
    for index in 0..127_u64 {
        client.say(&Head::system(System::Item, 5), |out| {
            out.value(&index)?;
            out.value(&text)
        });
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.hear_all();
    assert_eq!(client.pool, []);
    assert_eq!(world.hub.open_streams(), 1);
    client.say(&Head::system(System::Item, 5), |out| {
        out.value(&127)?;
        out.value(&text)
    });
    client.expect("that it is not wanted", |got| (got.call, got.id) == (System::AckEnd, 5)).await;
    assert_eq!(world.hub.open_streams(), 0);
    go.notify_one();
    assert!(failure(&mut client, 1).await.message.contains("waits to be read"));
}

#[tokio::test(start_paused = true)]
async fn a_client_has_a_quarter_of_a_million_bodies_running_and_no_more() {
    let most = 1 << 18;
    let wait = Service::new("IWait").method("Wait:1", |()| std::future::pending::<Result<(), Failure>>());
    let world = World::with(|hub| hub.service(wait).expect("a service"));
    let (mut client, _) = greeted(&world, 1).await;
    let (wait, mut frame) = (method("IWait.Wait:1"), Frame::new(FORMAT));
    for id in 1..=most {
        frame.push(&Head::call(0, id, &wait), |_| Ok(())).expect("written");
    }
    client.send(frame.take());
    for id in [most + 1, most + 2] {
        client.say(&Head::call(0, id, &wait), |_| Ok(()));
        assert_eq!(failure(&mut client, id).await.message, "More than 262144 calls of this client at once: try again later.");
    }
    client.say(&Head::system(System::Cancel, 7), |_| Ok(()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.say(&Head::call(0, most + 3, &wait), |_| Ok(()));
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.hear_all();
    assert_eq!(client.pool, []);
    assert_eq!(world.hub.open_calls() as u64, most);
}

#[tokio::test(start_paused = true)]
async fn an_argument_that_is_too_deep_fails_its_call_and_nothing_else() {
    for format in Format::ALL {
        let world = World::new();
        let mut client = Client::connect(&world.hub, Visitor::new("", format));
        client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(1, 1)));
        client.expect("a handshake", |got| got.call == System::Handshake).await;
        let deep = if format.is_text() { b"[" } else { &[0x91] }.repeat(1_000_000);
        client.say(&Head::call(0, 1, &method("IDemo.EchoAny:2")), |out| {
            out.raw(&deep);
            Ok(())
        });
        assert_eq!(client.expect("an answer", |got| got.id == 1).await.call, System::Error);
        client.say(&Head::call(0, 2, &method("IDemo.Nothing:1")), |_| Ok(()));
        assert_eq!(client.expect("an answer", |got| got.id == 2).await.call, System::Ok);
    }
}
