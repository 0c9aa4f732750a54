//! What a silence is, and what is not: who is alive is not cut.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use support::PATIENCE;
use support::pipe::{Client, Sent};
use support::services::World;
use tokio::time::{advance, sleep};
use wellspring_rpc::wire::{Format, Frame, Guid, Handshake, Head, MethodId, System};
use wellspring_rpc::{Failure, Service, Visitor};

const FORMAT: Format = Format::Msgpack6c;

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

fn handshake() -> Vec<u8> {
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(9));
    let mut frame = Frame::new(FORMAT);
    let hello = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: None };
    frame.push(&Head::system(System::Handshake, 0), |out| out.value(&hello)).expect("written");
    frame.take()
}

async fn greeted(world: &World) -> Client {
    let mut client = Client::connect(&world.hub, Visitor::new("client", FORMAT));
    client.send(handshake());
    client.expect("a handshake", |got| got.call == System::Handshake).await;
    client
}

fn sign_of_life(client: &Client) {
    client.say(&Head::system(System::KeepAlive, 0), |out| out.value(&[0_u64; 0]));
}

/// That a call is answered.
async fn it_lives(client: &mut Client) {
    client.say(&Head::call(0, 9_999, &method("IDemo.Add:3")), |out| {
        out.value(&1)?;
        out.value(&2)
    });
    client.expect("the last answer", |got| got.id == 9_999).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_its_answers_slowly_is_alive() {
    // In one frame the calls are waited for while it is run, in many between two of them.
    for in_a_frame in [600, 1] {
        let world = World::new();
        let mut client = greeted(&world).await;
        client.slow_down(80_000);
        let (echo, text) = (method("IDemo.EchoAny:2"), "x".repeat(10_000));
        let mut frame = Frame::new(FORMAT);
        for id in 1..=600 {
            frame.push(&Head::call(0, id, &echo), |out| out.value(&text)).expect("written");
            if id % in_a_frame == 0 {
                client.send(frame.take());
            }
        }
        // They come after what is run, or waits.
        for _ in 0..8 {
            sleep(Duration::from_secs(10)).await;
            sign_of_life(&client);
        }
        for id in 1..=600 {
            client.expect("an answer", |got| got.id == id).await;
        }
        it_lives(&mut client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_which_a_server_does_not_listen_is_no_silence() {
    let busy = Service::new("IBusy").method("Compute:1", |()| async {
        // The clock goes on while this is polled, as it does while something is computed.
        let _ = advance(Duration::from_millis(100)).now_or_never();
        Ok::<_, Failure>(1)
    });
    let world = World::with(|hub| hub.service(busy).expect("a service"));
    let mut client = greeted(&world).await;
    let (compute, mut frame) = (method("IBusy.Compute:1"), Frame::new(FORMAT));
    for id in 1..=256 {
        frame.push(&Head::call(0, id, &compute), |_| Ok(())).expect("written");
    }
    client.send(frame.take());
    client.expect("the last answer of the frame", |got| got.id == 256).await;
    // On its way still.
    sleep(Duration::from_secs(5)).await;
    sign_of_life(&client);
    sleep(Duration::from_secs(20)).await;
    it_lives(&mut client).await;
    // That it listens for so long, and hears nothing, ends it as ever.
    sleep(Duration::from_secs(6)).await;
    client.hear_all();
    client.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_too_much_to_say_is_closed_with_the_code_for_that() {
    let world = World::new();
    let mut client = greeted(&world).await;
    client.stop_reading();
    client.say(&Head::call(0, 1, &method("IDemo.Add:3")), |out| {
        out.value(&1)?;
        out.value(&2)
    });
    // The writer waits by now.
    sleep(Duration::from_secs(1)).await;
    assert!(client.accepted() > 0);
    client.read_on();
    let (slow, text) = (method("IDemo.Slow:3"), "x".repeat(1 << 20));
    for id in 2..70 {
        client.say(&Head::call(0, id, &slow), |out| {
            out.value(&text)?;
            out.value(&50)
        });
    }
    let said = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Sent::Close(code, _) = client.hear().await {
                break code;
            }
        }
    });
    assert_eq!(said.await.expect("it goes on"), 1008);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_first_is_not_held_for_as_long_as_a_connection_lasts() {
    struct Said(Vec<u8>, #[allow(dead_code, reason = "that it is there tells whether this is")] Arc<()>);
    impl AsRef<[u8]> for Said {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let (world, held) = (World::new(), Arc::new(()));
    let mut client = Client::connect(&world.hub, Visitor::new("client", FORMAT));
    client.send(Bytes::from_owner(Said(handshake(), held.clone())));
    it_lives(&mut client).await;
    assert_eq!(Arc::strong_count(&held), 1);
}
