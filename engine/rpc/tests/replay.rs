//! Conversations that were recorded between the peer's own client and server: our server answers the client's frames as theirs did.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use support::loose::Loose;
use support::pipe::{Client, Received, Sent};
use support::recorded::{RECORDED, addressed, asked, indexed, is_same};
use support::services::{World, is_missing};
use support::{PATIENCE, fixture, frame_of};
use tokio_tungstenite::tungstenite::Message;
use wellspring_rpc::wire::{Arguments, ErrorInfo, Format, Guid, Handshake, Head, Messages, Proof, Secret, System};
use wellspring_rpc::{Hub, Service, Timings, Visitor, web};

/// Owners of the recorded servers' streams: of the real one, and of the one that was made by hand.
const THEIRS: [&str; 2] = ["5e5e5e5e-1111-4222-8333-444444444444", "9e9e9e9e-1111-4222-8333-444444444444"];

/// What the recorded servers gave for their secret.
const SECRET: &str = "xlHGbajpOkxzI-yS7ZqjKRzncF4sC25YezNcdQD9yOI";

/// Who we were, for who they were.
#[derive(Default)]
struct Peers {
    ours: Option<Guid>,
    secret: Option<Secret>,
    known: HashMap<Guid, Guid>,
}

impl Peers {
    /// The same as before where theirs was, and another one where theirs was.
    fn meet(&mut self, format: Format, what: &str, ours: &[u8], theirs: &[u8]) {
        let read = |bytes| Arguments::new(format, bytes).read::<Handshake<'_>>().expect("a handshake");
        let (ours, theirs) = (read(ours), read(theirs));
        assert_eq!((ours.protocol, ours.index), (theirs.protocol, theirs.index), "{what}");
        let is_new = !self.known.values().any(|known| *known == ours.peer);
        let known = *self.known.entry(theirs.peer).or_insert_with(|| {
            assert!(is_new, "{what}: it is another one");
            ours.peer
        });
        assert_eq!(known, ours.peer, "{what}");
        self.ours = Some(ours.peer);
        self.secret = ours.secret.map(|secret| Secret::new(&*secret));
    }

    /// Whoever has connected there, here. With a proof where that had one, which ours alone can make.
    async fn visitor(&self, world: &World, line: &serde_json::Value, format: Format) -> Visitor {
        let client = asked(line, "clientId").expect("an id");
        assert_eq!(asked(line, "f"), Some(format.key()));
        let mut visitor = Visitor::new(client, format);
        if let Some(counter) = asked(line, "c") {
            let number = counter.parse().expect("a number");
            let recorded = Proof { counter: counter.to_owned(), code: asked(line, "p").expect("a proof").to_owned() };
            assert_eq!(Secret::new(SECRET).prove(client, number), recorded);
            visitor.proof = Some(recorded);
            assert!(world.hub.admit(&mut visitor).await.is_err(), "that is a proof of another server's secret");
            visitor.proof = self.secret.as_ref().map(|secret| secret.prove(client, number));
        }
        assert_eq!(world.hub.admit(&mut visitor).await, Ok(()), "{line}");
        visitor
    }
}

/// Says what the client said, and waits for what the server said, in no order but that of each call. What is not so in ours, a test says by its
/// mark.
async fn replay(world: &World, format: Format, scenario: &str, is_ours: impl Fn(&str) -> bool) {
    replay_on(&[world], format, scenario, is_ours).await;
}

/// As [`replay`], with a world for each connection, of which the last is that of all others.
async fn replay_on(worlds: &[&World], format: Format, scenario: &str, is_ours: impl Fn(&str) -> bool) {
    let mut client: Option<Client> = None;
    let mut mark = String::new();
    let (mut heard, mut connections, mut peers) = (0, 0, Peers::default());
    // Where the recorded server said what it should not have, ours says what is asked for: each item comes, in whatever order.
    let is_made_up = scenario == "stream-resume.derived";
    let mut items = HashSet::new();
    for line in fixture(format, scenario) {
        let world = worlds[usize::min(connections.max(1), worlds.len()) - 1];
        if let Some(text) = line["mark"].as_str() {
            mark = text.to_owned();
            // What was done to the server then, the client asks for here.
            if mark.starts_with("server forgets the stream") {
                let host = peers.ours.expect("greeted");
                client.as_ref().expect("connected").say(&Head::system(System::AckEnd, 1), |out| out.value(&host));
            } else if mark.contains("forgets call A") {
                client.as_ref().expect("connected").say(&Head::system(System::Cancel, 1), |_| Ok(()));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            continue;
        }
        if line["event"] == "connect" {
            connections += 1;
            let world = worlds[usize::min(connections, worlds.len()) - 1];
            client = Some(Client::connect(&world.hub, peers.visitor(world, &line, format).await));
            items.clear();
        }
        if line["event"] == "closed" {
            let mut client = client.take().expect("connected");
            match line["code"].as_u64() {
                Some(1006) => client.drop_connection().await,
                Some(1005) => {
                    // Whatever else is said now was not expected.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    client.hear_all();
                    // Of a stream that its reader has left, as much as its window let through.
                    client.pool.retain(|got| got.call != System::Item && !(is_made_up && got.call == System::End));
                    assert_eq!(client.pool, [], "{format} {scenario}: {mark}");
                    client.leave().await;
                }
                code => panic!("{code:?}"),
            }
            continue;
        }
        let Some(dir) = line["dir"].as_str() else { continue };
        let client = client.as_mut().expect("connected");
        let frame = frame_of(&line);
        if dir == "c2s" {
            client.send(addressed(frame, &THEIRS, peers.ours));
            continue;
        }
        for message in Messages::new(format, &frame) {
            let message = message.expect("recorded");
            let Some(call) = System::of(&message.method) else { panic!("{}", message.method) };
            if call == System::KeepAlive {
                if scenario == "keepalive" {
                    client.sign_of_life().await;
                    heard += 1;
                }
                continue;
            }
            let what = format!("{format} {scenario}: {mark}: {} {}", call.name(), message.related_id);
            let as_theirs = !is_ours(&mark);
            if call == System::Invalidate && scenario.starts_with("dotnet-shaped") {
                // It was said out of nowhere there.
                let key = if message.related_id == 10 { "a" } else { "b" };
                world.counters.set(&key.to_owned(), 9);
            }
            let mut calls = vec![(call, message.arguments.to_vec())];
            if call == System::Batch {
                calls = support::pipe::each(format, message.related_id, message.arguments)
                    .into_iter()
                    .map(|one| (one.call, one.arguments))
                    .collect();
            }
            for (call, theirs) in calls {
                let index = |arguments: &[u8]| Arguments::new(format, arguments).read::<u64>().expect("an index");
                if is_made_up && call == System::Item && !items.insert(index(&theirs)) {
                    continue;
                }
                let is = |got: &Received| {
                    got.id == message.related_id
                        && (got.call == call || !as_theirs)
                        && (!is_made_up || got.call != System::Item || index(&got.arguments) == index(&theirs))
                };
                let got = client.expect(&what, is).await;
                heard += 1;
                match call {
                    _ if !as_theirs => {}
                    System::Handshake => peers.meet(format, &what, &got.arguments, &theirs),
                    System::Item => {
                        let (ours, theirs): ((u64, Loose), (u64, Loose)) = (indexed(format, &got.arguments), indexed(format, &theirs));
                        assert_eq!(ours, theirs, "{what}");
                    }
                    System::Ok => assert!(is_same(format, &got.arguments, &theirs), "{what}: {got:?}"),
                    System::Error => {
                        let read = |bytes| Arguments::new(format, bytes).read::<ErrorInfo<'_>>().expect("a failure");
                        let (ours, theirs) = (read(&got.arguments), read(&theirs));
                        assert!(!ours.is_none() && !ours.type_ref.is_empty(), "{what}");
                        assert!(theirs.type_ref != ErrorInfo::RPC || is_missing(&ours), "{what}: {ours:?}");
                        // What is the application's own, and no text of the protocol's.
                        let is_own = ours.type_ref == ErrorInfo::REMOTE;
                        assert!(!is_own || theirs.message.ends_with(&*ours.message), "{what}: {ours:?}");
                    }
                    System::End => {
                        let (ours, theirs): ((u64, ErrorInfo<'_>), (u64, ErrorInfo<'_>)) =
                            (indexed(format, &got.arguments), indexed(format, &theirs));
                        assert_eq!((ours.0, ours.1.is_none()), (theirs.0, theirs.1.is_none()), "{what}");
                        assert!(theirs.1.message.ends_with(&*ours.1.message), "{what}: {ours:?}");
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(heard > 0, "{format} {scenario}: nothing was heard");
}

#[tokio::test(start_paused = true)]
async fn calls_are_answered_as_they_were() {
    for format in RECORDED {
        replay(&World::new(), format, "calls", |_| false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_gets_no_answer() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "cancel", |_| false).await;
        assert_eq!((world.runs.slow.load(Ordering::SeqCst), world.hub.open_calls()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn compute_calls_are_pushed_as_they_were() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "compute", |_| false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_finds_its_calls() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "reconnect-same-peer", |_| false).await;
        let runs = &world.runs;
        assert_eq!((runs.slow.load(Ordering::SeqCst), runs.slow_compute.load(Ordering::SeqCst)), (1, 1), "no body runs twice");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_sent_as_they_were() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "stream", |_| false).await;
        assert_eq!(world.hub.open_streams(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_read_as_they_were() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "stream-upload", |_| false).await;
        assert_eq!(world.hub.open_streams(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_to_harm_is_answered_and_the_rest_goes_on() {
    for format in RECORDED {
        // Theirs takes what is missing for undefined, which is nothing that can be added here.
        let stricter = |mark: &str| mark.starts_with("argument length") || mark.starts_with("too few");
        replay(&World::new(), format, "malformed", stricter).await;
    }
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_are_given_and_a_stream_that_is_not_there_is_disowned_as_it_was() {
    for format in RECORDED {
        let mut timings = Timings::default();
        timings.keep_alive = Duration::from_millis(150);
        let world = World::with(|builder| builder.timings(timings));
        replay(&world, format, "keepalive", |_| false).await;
        assert_eq!(world.hub.open_streams(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_known_is_named() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "reconnect-unknown-call", |_| false).await;
        assert_eq!(world.runs.slow.load(Ordering::SeqCst), 3, "one of two was forgotten, and run again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_nothing_runs_what_it_is_sent_again() {
    for format in RECORDED {
        let (before, after) = (World::new(), World::new());
        replay_on(&[&before, &after], format, "reconnect-new-peer", |_| false).await;
        let slow = |world: &World| world.runs.slow.load(Ordering::SeqCst);
        assert_eq!((slow(&before), slow(&after)), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_proves_itself_is_let_in() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "reconnect-proof", |_| false).await;
        assert_eq!(world.hub.clients(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_sent_again_from_where_it_is_asked_for() {
    for format in RECORDED {
        let world = World::new();
        replay(&world, format, "stream-resume.derived", |_| false).await;
        assert_eq!(world.hub.open_streams(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_answered_as_dotnet_would() {
    for format in RECORDED {
        let world = World::new();
        world.counters.set(&"a".to_owned(), 1);
        world.counters.set(&"b".to_owned(), 2);
        // An empty object is nothing there, there are no markers here, and nobody waits where it was said that one did.
        let otherwise = ["void result as .NET Unit", "polymorphic marker", "pending call, reconnect"];
        replay(&world, format, "dotnet-shaped.derived", |mark| otherwise.iter().any(|other| mark.starts_with(other))).await;
    }
}

#[tokio::test]
async fn a_format_that_is_not_spoken_is_refused_as_it_was() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = web::router(world.hub.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    for format in RECORDED {
        let lines = fixture(format, "unsupported-format");
        let find = |event: &str| lines.iter().find(|line| line["event"] == event).expect("recorded");
        // The recorded server was told not to speak the format that was asked for; ours never speaks this one.
        let ours = |text: &serde_json::Value| text.as_str().expect("a text").replace(format.key(), "mempack6");
        let url = format!("ws://{address}{}", ours(&find("connect")["url"]));
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("connected first");
        let said = tokio::time::timeout(PATIENCE, socket.next()).await.expect("nothing is said");
        let Some(Ok(Message::Close(Some(close)))) = said else { panic!("{said:?}") };
        let closed = find("closed");
        assert_eq!((Some(u64::from(u16::from(close.code))), close.reason.to_string()), (closed["code"].as_u64(), ours(&closed["reason"])));
    }
    assert_eq!(world.hub.clients(), 0);
}

/// Derived, not recorded: the hash of a result, byte for byte.
#[tokio::test(start_paused = true)]
async fn whoever_asks_for_the_hash_of_a_result_gets_the_bytes_that_were_derived() {
    let format = Format::Msgpack6;
    let all: serde_json::Value = serde_json::from_str(include_str!("fixtures/derived-vectors.json")).expect("JSON");
    let bytes = |name: &str| {
        let vectors = all["messages"].as_array().expect("an array");
        let vector = vectors.iter().find(|vector| vector["name"] == name && vector["format"] == format.key());
        frame_of(vector.unwrap_or_else(|| panic!("no {name}")))
    };
    let engine = wellspring::Engine::new();
    let function = engine.function("get", |_: &wellspring::Cx, _: &String| "a long enough cached value".to_owned()).expect("registered");
    let counter = Service::new("ICounter").compute("Get:2", move |(key,): (String,)| std::future::ready(function.computed(&engine, &key)));
    let hub = Hub::builder().service(counter).expect("a service").build();
    let mut client = Client::connect(&hub, Visitor::new("client", format));
    let handshake = fixture(format, "compute");
    client.send(frame_of(handshake.iter().find(|line| line["dir"] == "c2s").expect("recorded")));
    assert!(matches!(client.hear().await, Sent::Frame(_)), "a handshake");
    for (question, answer) in [("compute-call-asking-for-hash", "ok-with-result-hash"), ("compute-call-with-known-hash", "match")] {
        client.send(bytes(question));
        assert_eq!(client.hear().await, Sent::Frame(bytes(answer).into()), "{question}");
    }
}
