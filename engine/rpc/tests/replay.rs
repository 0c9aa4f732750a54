//! Conversations that were recorded between the peer's own client and server: our server answers the client's frames as theirs did.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::loose::Loose;
use support::pipe::{Client, Received};
use support::services::World;
use support::{fixture, frame_of};
use wellspring_rpc::Visitor;
use wellspring_rpc::wire::{Arguments, ErrorInfo, Format, Guid, Handshake, Messages, Packed, Raw, StreamRef, System};

const RECORDED: [Format; 3] = [Format::Json5np, Format::Msgpack6, Format::Msgpack6c];

/// Whether two results say the same: the same bytes, or the same value to JavaScript, in which the recorded server was written.
fn is_same(format: Format, ours: &[u8], theirs: &[u8]) -> bool {
    let raw = |bytes: &[u8]| Arguments::new(format, bytes).read::<Raw>().expect("a value");
    let loose = |bytes: &[u8]| Arguments::new(format, bytes).read::<Loose>().ok();
    let stream =
        |bytes: &[u8]| Arguments::new(format, bytes).read::<StreamRef>().ok().map(|stream| StreamRef { host: Guid::NONE, ..stream });
    raw(ours) == raw(theirs)
        || (loose(ours).is_some() && loose(ours) == loose(theirs))
        || (stream(ours).is_some() && stream(ours) == stream(theirs))
}

/// Whether two items of a stream are.
fn is_same_item(format: Format, ours: &[u8], theirs: &[u8]) -> bool {
    let both = |bytes: &[u8]| {
        let mut arguments = Arguments::new(format, bytes);
        (arguments.read::<u64>().expect("an index"), arguments.read::<Loose>().expect("an item"))
    };
    both(ours) == both(theirs)
}

/// The owner of the recorded server's streams.
const THEIRS: &str = "5e5e5e5e-1111-4222-8333-444444444444";

/// A frame with the owner that ours are of: a text of the same length.
fn addressed(mut frame: Vec<u8>, ours: Option<Guid>) -> Vec<u8> {
    let Some(ours) = ours.map(|ours| ours.to_string()) else { return frame };
    while let Some(at) = frame.windows(THEIRS.len()).position(|part| part == THEIRS.as_bytes()) {
        frame[at..at + THEIRS.len()].copy_from_slice(ours.as_bytes());
    }
    frame
}

/// Says what the client said, and waits for what the server said, in no order but that of each call. What is not so in ours, a test says by its
/// mark.
async fn replay(world: &World, format: Format, scenario: &str, is_ours: impl Fn(&str) -> bool) {
    let mut client: Option<Client> = None;
    let mut mark = String::new();
    let (mut heard, mut ours) = (0, None);
    for line in fixture(format, scenario) {
        if let Some(text) = line["mark"].as_str() {
            mark = text.to_owned();
            if mark.starts_with("server drops the socket") {
                client.as_mut().expect("connected").drop_connection().await;
            }
            continue;
        }
        if line["event"] == "connect" {
            client = Some(Client::connect(&world.hub, Visitor::new("client", format)));
        }
        if line["event"] == "closed" && line["code"] == 1005 {
            let mut client = client.take().expect("connected");
            // Whatever else is said now was not expected.
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.hear_all();
            // Of a stream that its reader has left, as much as its window let through.
            client.pool.retain(|got| got.call != System::Item);
            assert_eq!(client.pool, [], "{format} {scenario}: {mark}");
            client.leave().await;
        }
        let Some(dir) = line["dir"].as_str() else { continue };
        let client = client.as_mut().expect("connected");
        let frame = frame_of(&line);
        if dir == "c2s" {
            client.send(addressed(frame, ours));
            continue;
        }
        for message in Messages::new(format, &frame) {
            let message = message.expect("recorded");
            let Some(call) = System::of(&message.method) else { panic!("{}", message.method) };
            if call == System::KeepAlive {
                continue;
            }
            let what = format!("{format} {scenario}: {mark}: {} {}", call.name(), message.related_id);
            let as_theirs = !is_ours(&mark);
            let mut calls = vec![(call, message.arguments.to_vec())];
            if call == System::Batch {
                calls = support::pipe::each(format, message.related_id, message.arguments)
                    .into_iter()
                    .map(|one| (one.call, one.arguments))
                    .collect();
            }
            for (call, theirs) in calls {
                let got = client.expect(&what, |got: &Received| got.id == message.related_id && (got.call == call || !as_theirs)).await;
                heard += 1;
                match call {
                    _ if !as_theirs => {}
                    System::Handshake => {
                        ours = Arguments::new(format, &got.arguments).read::<Handshake<'_>>().ok().map(|handshake| handshake.peer)
                    }
                    System::Item => assert!(is_same_item(format, &got.arguments, &theirs), "{what}: {got:?}"),
                    System::Ok => assert!(is_same(format, &got.arguments, &theirs), "{what}: {got:?}"),
                    System::Error => {
                        let error: ErrorInfo<'_> = Arguments::new(format, &got.arguments).read().expect("a failure");
                        assert!(!error.is_none() && !error.type_ref.is_empty(), "{what}");
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
async fn a_call_that_is_not_known_is_named() {
    let format = Format::Msgpack6c;
    let world = World::new();
    let mut client = Client::connect(&world.hub, Visitor::new("client", format));
    for line in fixture(format, "reconnect-unknown-call").iter().filter(|line| line["dir"] == "c2s" && line["conn"] == 2).take(2) {
        client.send(frame_of(line));
    }
    // The recorded client had its second connection there, and this one has its first.
    let refused = client.expect("an answer", |got| got.id == 3).await;
    assert_eq!(refused.call, System::Error);
    client.drop_connection().await;
    let mut client = Client::connect(&world.hub, Visitor::new("client", format));
    for line in fixture(format, "reconnect-unknown-call").iter().filter(|line| line["dir"] == "c2s" && line["conn"] == 2).take(2) {
        client.send(frame_of(line));
    }
    let answer = client.expect("an answer", |got| got.call == System::Ok && got.id == 3).await;
    let unknown: Packed<'_> = Arguments::new(format, &answer.arguments).read().expect("packed");
    assert_eq!(unknown.ids().collect::<Result<Vec<_>, _>>(), Ok(vec![1, 2]));
}
