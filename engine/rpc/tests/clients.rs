//! Which client a connection is of, and until when it is remembered.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::greeted::{FORMAT, NONE, args, call, greeted, index, ok, read, reconnect};
use support::pipe::{Client, Received, Sent};
use support::services::World;
use wellspring_rpc::wire::{Arguments, Format, Handshake, Proof, Secret};
use wellspring_rpc::{Refusal, Visitor};

fn not_proved() -> Refusal {
    Refusal::forbidden("the client has not proved that it is the one that was connected before")
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
