//! For how long a server remembers a client that is not connected.

mod support;

use std::time::Duration;

use support::pipe::Client;
use support::services::World;
use wellspring_rpc::Visitor;
use wellspring_rpc::wire::{Format, Guid, Handshake, Head, System};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A client that is connected for so long, and goes.
async fn stays(world: &World, index: i32, time: Duration) {
    let mut client = Client::connect(&world.hub, Visitor::new("client", Format::Msgpack6c));
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(9));
    let hello = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index, secret: None };
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
    client.expect("a handshake", |got| got.call == System::Handshake).await;
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        client.say(&Head::system(System::KeepAlive, 0), |out| out.value(&[0_u64; 0]));
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + seconds(10))).await;
    }
    client.leave().await;
}

/// It is remembered for so long, and no longer.
async fn is_remembered(world: &World, time: Duration, what: &str) {
    tokio::time::sleep(time - seconds(1)).await;
    assert_eq!(world.hub.clients(), 1, "{what}: forgotten within {time:?}");
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(world.hub.clients(), 0, "{what}: remembered after {time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_remembered_for_a_third_of_its_age_but_for_three_minutes_at_least_and_fifteen_at_most() {
    for (age, kept) in [(0, 180), (540, 180), (600, 200), (1_800, 600), (2_700, 900), (2_760, 900), (86_400, 900)] {
        let world = World::new();
        stays(&world, 1, seconds(age)).await;
        is_remembered(&world, seconds(kept), &format!("a client of {age} s")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_client_is_counted_from_when_it_was_first_there() {
    let world = World::new();
    stays(&world, 1, seconds(600)).await;
    tokio::time::sleep(seconds(150)).await;
    stays(&world, 2, seconds(150)).await;
    is_remembered(&world, seconds(300), "a client that was away for a while").await;
    // Forgotten, it begins anew.
    stays(&world, 1, seconds(150)).await;
    is_remembered(&world, seconds(180), "a client that was forgotten").await;
}
