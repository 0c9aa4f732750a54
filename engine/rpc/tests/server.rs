//! What a server does beyond the recorded conversations.

mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use support::PATIENCE;
use support::pipe::{Client, Received, Sent};
use support::services::{World, is_missing};
use wellspring_rpc::transport::{Close, Incoming};
use wellspring_rpc::wire::{Arguments, ErrorInfo, Format, Frame, Guid, Handshake, Head, MethodId, Packed, Proof, Secret, System, pack};
use wellspring_rpc::{Refusal, Timings, Visitor};

const FORMAT: Format = Format::Msgpack6c;
const NONE: [u64; 0] = [];

fn not_proved() -> Refusal {
    Refusal::forbidden("the client has not proved that it is the one that was connected before")
}

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

fn hello(peer: u128, index: i32) -> Handshake<'static> {
    let (peer, hub) = (Guid::from_u128(peer), Guid::from_u128(9));
    Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index, secret: None }
}

/// A client that has said who it is, with what the server has said.
async fn greeted(world: &World, peer: u128) -> (Client, Received) {
    let mut client = Client::connect(&world.hub, Visitor::new("client", FORMAT));
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(peer, 1)));
    let theirs = client.expect("a handshake", |got| got.call == System::Handshake).await;
    (client, theirs)
}

fn call(client: &Client, kind: u8, id: u64, name: &str, arguments: &[&dyn Fn(&mut wellspring_rpc::wire::Writer<'_>)]) {
    client.say(&Head::call(kind, id, &method(name)), |out| {
        arguments.iter().for_each(|argument| argument(out));
        Ok(())
    });
}

macro_rules! args {
    ($($value:expr),*) => {
        &[$(&|out: &mut wellspring_rpc::wire::Writer<'_>| out.value(&$value).expect("written")),*]
    };
}

fn read<T: serde::de::DeserializeOwned>(got: &Received) -> T {
    Arguments::new(FORMAT, &got.arguments).read().unwrap_or_else(|error| panic!("{error}: {got:?}"))
}

fn index(theirs: &Received) -> i32 {
    Arguments::new(FORMAT, &theirs.arguments).read::<Handshake<'_>>().expect("a handshake").index
}

/// Which of the calls the server does not know, by stage.
async fn reconnect(client: &mut Client, id: u64, index: i32, stages: &[(u32, &[u64])]) -> Vec<u64> {
    let stages: BTreeMap<u32, Packed<'_>> =
        stages.iter().map(|(stage, ids)| (*stage, Packed(Cow::Owned(pack(ids.iter().copied()))))).collect();
    client.say(&Head::system(System::Reconnect, id), |out| {
        out.value(&index)?;
        out.value(&stages)
    });
    let answer = client.expect("which are not known", |got| got.id == id).await;
    assert_eq!(answer.call, System::Ok, "{answer:?}");
    let unknown: Packed<'_> = Arguments::new(FORMAT, &answer.arguments).read().expect("packed");
    unknown.ids().collect::<Result<_, _>>().expect("ids")
}

async fn ok(client: &mut Client, id: u64) -> Received {
    let got = client.expect("an answer", |got| got.id == id).await;
    assert_eq!(got.call, System::Ok, "{got:?}");
    got
}

async fn failure(client: &mut Client, id: u64) -> ErrorInfo<'static> {
    let got = client.expect("a failure", |got| got.id == id).await;
    assert_eq!(got.call, System::Error, "{got:?}");
    let error: ErrorInfo<'_> = Arguments::new(FORMAT, &got.arguments).read().expect("a failure");
    ErrorInfo::new(error.type_ref.into_owned(), error.message.into_owned())
}

async fn stale(client: &mut Client, id: u64) {
    let got = client.expect("a notice", |got| got.id == id).await;
    assert_eq!(got.call, System::Invalidate, "{got:?}");
}

fn nothing(client: &mut Client) {
    client.hear_all();
    assert_eq!(client.pool, []);
}

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
async fn another_client_by_the_same_id_finds_nothing_of_the_one_before() {
    let world = World::new();
    let (mut client, theirs) = greeted(&world, 1).await;
    call(&client, 1, 1, "ICounter.Get:2", args!["k"]);
    ok(&mut client, 1).await;
    call(&client, 0, 2, "IDemo.Slow:3", args!["x", 100_000]);
    client.drop_connection().await;
    assert_eq!(world.hub.open_calls(), 2);
    let (mut client, again) = greeted(&world, 2).await;
    assert_eq!(reconnect(&mut client, 3, 2, &[(0, &[1, 2])]).await, [1, 2]);
    assert_eq!(world.hub.open_calls(), 0);
    let id = |got: &Received| Arguments::new(FORMAT, &got.arguments).read::<Handshake<'_>>().map(|handshake| handshake.peer);
    assert_eq!(id(&theirs), id(&again), "the server's end is the same");
}

#[tokio::test(start_paused = true)]
async fn a_second_connection_takes_the_place_of_the_first() {
    let world = World::new();
    let (mut first, _) = greeted(&world, 1).await;
    call(&first, 0, 1, "IDemo.Slow:3", args!["x", 100]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (mut second, theirs) = greeted(&world, 1).await;
    assert_eq!((first.hear().await, index(&theirs)), (Sent::Close(1000, String::new()), 2));
    assert_eq!(reconnect(&mut second, 2, 2, &[(0, &[1])]).await, NONE);
    assert_eq!(read::<String>(&ok(&mut second, 1).await), "x");
    assert_eq!((world.runs.slow.load(Ordering::SeqCst), world.hub.clients()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stays_away_is_forgotten_and_its_calls_with_it() {
    let world = World::new();
    let (mut client, _) = greeted(&world, 1).await;
    call(&client, 1, 1, "ICounter.Get:2", args!["k"]);
    ok(&mut client, 1).await;
    client.drop_connection().await;
    tokio::time::sleep(Duration::from_secs(179)).await;
    assert_eq!((world.hub.clients(), world.hub.open_calls()), (1, 1));
    // It comes back in time, and leaves again: the first leave counts no more.
    let (client, _) = greeted(&world, 1).await;
    client.leave().await;
    tokio::time::sleep(Duration::from_secs(179)).await;
    assert_eq!(world.hub.clients(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((world.hub.clients(), world.hub.open_calls()), (0, 0));
    let (_, theirs) = greeted(&world, 1).await;
    assert_eq!(index(&theirs), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_proved_itself_once_has_to_from_then_on() {
    let world = World::new();
    let visitor = |proof: Option<Proof>| {
        let mut visitor = Visitor::new("client", FORMAT);
        visitor.proof = proof;
        visitor
    };
    assert_eq!(world.hub.admit(&mut visitor(None)).await, Ok(()), "nobody is known by that id");
    let (mut client, theirs) = greeted(&world, 1).await;
    let handshake: Handshake<'_> = Arguments::new(FORMAT, &theirs.arguments).read().expect("a handshake");
    let secret = Secret::new(handshake.secret.expect("a secret"));
    assert_eq!(world.hub.admit(&mut visitor(None)).await, Ok(()), "a browser without the means");
    let forged = Proof { code: Secret::random().prove("client", 5).code, ..secret.prove("client", 5) };
    assert_eq!(world.hub.admit(&mut visitor(Some(forged))).await, Err(not_proved()));
    assert_eq!(world.hub.admit(&mut visitor(Some(secret.prove("other", 5)))).await, Err(not_proved()));
    assert_eq!(world.hub.admit(&mut visitor(Some(secret.prove("client", 5)))).await, Ok(()));
    for used in [5, 4] {
        assert_eq!(world.hub.admit(&mut visitor(Some(secret.prove("client", used)))).await, Err(not_proved()), "{used}");
    }
    assert_eq!(world.hub.admit(&mut visitor(None)).await, Err(not_proved()));
    assert_eq!(world.hub.admit(&mut visitor(Some(secret.prove("client", 6)))).await, Ok(()));
    // A guest that was let in before that was known, and has waited for the place.
    let mut guest = Client::connect(&world.hub, visitor(None));
    assert_eq!(guest.hear().await, Sent::Close(1000, String::new()));
    call(&client, 0, 1, "IDemo.Add:3", args![1, 2]);
    ok(&mut client, 1).await;
}

/// The peer's cases of its proof, but for those of halves and of HTTP, which are in `web.rs`.
#[tokio::test(start_paused = true)]
async fn reconnect_proof_whoever_is_refused_changes_nothing() {
    let world = World::new();
    let visitor = |proof: Option<Proof>| {
        let mut visitor = Visitor::new("client", FORMAT);
        visitor.proof = proof;
        visitor
    };
    let admitted = async |proof: Option<Proof>| world.hub.admit(&mut visitor(proof)).await.is_ok();
    // Nobody is known: everybody is let in, whatever is shown, and nothing is made of it.
    let strange = Secret::random();
    assert!(admitted(None).await && admitted(Some(strange.prove("client", 7))).await);
    assert!(admitted(Some(Proof { counter: "x".to_owned(), code: "?".to_owned() })).await);
    assert_eq!(world.hub.clients(), 0);
    let (mut client, theirs) = greeted(&world, 1).await;
    let handshake: Handshake<'_> = Arguments::new(FORMAT, &theirs.arguments).read().expect("a handshake");
    let secret = Secret::new(handshake.secret.expect("a secret"));
    let right = secret.prove("client", 9);
    let as_counter = |counter: &str| Proof { counter: counter.to_owned(), ..right.clone() };
    let as_code = |code: &str| Proof { code: code.to_owned(), ..right.clone() };
    let refused = [
        strange.prove("client", 9),
        secret.prove("another", 9),
        secret.prove("", 9),
        secret.prove("client", 0),
        as_counter("10"),
        as_counter("09"),
        as_counter("+9"),
        as_counter("-9"),
        as_counter(" 9"),
        as_counter("9 "),
        as_counter("9.0"),
        as_counter("0x9"),
        as_counter("\u{0669}"),
        as_counter(""),
        as_counter("18446744073709551616"),
        as_code(""),
        as_code("?"),
        as_code(&right.code[..42]),
        as_code(&format!("{}=", right.code)),
        as_code(&right.code.to_lowercase()),
        as_code(&strange.prove("client", 9).code),
    ];
    for proof in refused {
        assert!(!admitted(Some(proof.clone())).await, "{proof:?}");
        // Nobody who was refused takes anything away: neither the place, nor a number, nor the right of who has proved nothing yet.
        assert!(admitted(None).await);
    }
    call(&client, 0, 1, "IDemo.Add:3", args![1, 2]);
    ok(&mut client, 1).await;
    // The next number, one that is left out, and none that was used.
    for (counter, is_admitted) in [(1, true), (1, false), (2, true), (9, true), (9, false), (8, false), (3, false), (10, true)] {
        assert_eq!(admitted(Some(secret.prove("client", counter))).await, is_admitted, "{counter}");
    }
    assert!(!admitted(None).await, "once proved, always to be proved");
    assert!(!admitted(Some(strange.prove("client", u64::MAX))).await, "and nothing but the right secret burns numbers");
    assert!(admitted(Some(secret.prove("client", u64::MAX))).await);
    // Others by the same id: of another format it is another client. And whoever was forgotten is nobody again.
    assert_eq!(world.hub.admit(&mut Visitor::new("client", Format::Json5)).await, Ok(()));
    assert_eq!(world.hub.clients(), 1);
    client.drop_connection().await;
    assert!(!admitted(None).await, "it is remembered");
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert!(admitted(None).await);
    assert_eq!(world.hub.clients(), 0);
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

/// So that whoever has the answer knows of everything that it was not told.
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

/// The other end reads nothing of what it has asked for.
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
