//! What nobody says who keeps to the protocol, said to a client of ours, and to a server. What a server makes of the recorded frames of this kind is
//! in `replay.rs`, and of how a connection may begin in `server.rs`.

mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;

use support::greeted::hello;
use support::near::soon;
use support::pipe::{Client, Sent};
use support::recorded::{RECORDED, Said};
use support::script::{Link, Links, Script};
use support::services::{World, is_missing};
use support::{fixture, frame_of};
use tokio::task::JoinHandle;
use wellspring_rpc::transport::{Close, Incoming};
use wellspring_rpc::wire::{
    Arguments, ErrorInfo, Format, Frame, Guid, Handshake, Head, Messages, MethodId, MethodRef, Raw, System, limits,
};
use wellspring_rpc::{CallError, Connected, Remote, Visitor};

const ADD: &str = "IDemo.Add:3";

/// A frame with one handshake.
fn greeting(format: Format, handshake: &Handshake<'_>) -> Frame {
    let mut frame = Frame::new(format);
    frame.push(&Head::system(System::Handshake, 0), |out| out.value(handshake)).expect("written");
    frame
}

/// A greeting that has as many bytes as are said, with an answer to no call in the same frame.
fn large_greeting(format: Format, bytes: usize) -> Vec<u8> {
    let with = |text: &str| {
        let mut frame = greeting(format, &hello(1, 1));
        frame.push(&Head::system(System::Ok, 999), |out| out.value(text)).expect("written");
        frame.take()
    };
    // Long enough for all such texts to be written alike.
    let some = 1_000;
    let frame = with(&"x".repeat(some + bytes - with(&"x".repeat(some)).len()));
    assert_eq!(frame.len(), bytes);
    frame
}

fn adding(remote: &Remote) -> JoinHandle<Result<i64, CallError>> {
    let remote = remote.clone();
    tokio::spawn(async move { remote.call(&MethodId::new(ADD).expect("short"), (40, 2)).await })
}

fn as_is(format: Format, frame: Vec<u8>) -> Incoming {
    if format.is_text() { Incoming::Text(frame.into()) } else { Incoming::Binary(frame.into()) }
}

fn of_the_wrong_kind(format: Format, frame: Vec<u8>) -> Incoming {
    if format.is_text() { Incoming::Binary(frame.into()) } else { Incoming::Text(frame.into()) }
}

/// A client, and who plays its server.
struct Play {
    remote: Remote,
    links: Links,
}

impl Play {
    fn new(format: Format) -> Play {
        let (script, links) = Script::new();
        Play { remote: Remote::builder(script).format(format).connect(), links }
    }

    async fn next(&mut self) -> Link {
        let mut link = self.links.next().await;
        link.names = vec![ADD.to_owned()];
        link
    }

    /// The next connection, on which both have said who they are.
    async fn greeted(&mut self, index: i32) -> Link {
        let mut link = self.next().await;
        link.greet(1, index).await;
        link
    }

    /// The next connection is as any other, and a call that waited for one is answered.
    async fn goes_on(&mut self, call: JoinHandle<Result<i64, CallError>>, index: i32, what: &str) {
        let mut link = self.greeted(index).await;
        let asked = link.call(ADD).await;
        link.say(&Head::system(System::Ok, asked.id), |out| out.value(&42));
        assert_eq!(soon(call).await.expect("no panic"), Ok(42), "{what}");
        assert_eq!((*self.remote.connected().borrow(), self.remote.open_calls()), (Connected::Yes, 0), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_leaves_a_server_that_does_not_begin_with_a_handshake_and_comes_again() {
    for format in RECORDED {
        let call = |call: System, related: u64| {
            let mut frame = Frame::new(format);
            frame.push(&Head::system(call, related), |out| out.value(&[0_u64; 0])).expect("written");
            as_is(format, frame.take())
        };
        let says = |handshake: Handshake<'_>| as_is(format, greeting(format, &handshake).take());
        // As the array of five that any format has, with too many versions or too long ones.
        let versions = |versions: &str| {
            let mut frame = Frame::new(format);
            let handshake = |out: &mut wellspring_rpc::wire::Writer<'_>| match format.is_text() {
                true => out.value(&serde_json::json!({
                    "RemotePeerId": Guid::from_u128(1).to_string(), "RemoteApiVersionSet": { "value": versions },
                    "RemoteHubId": Guid::from_u128(9).to_string(), "ProtocolVersion": 2, "Index": 1,
                })),
                false => out.value(&(Guid::from_u128(1), (versions,), Guid::from_u128(9), 2, 1)),
            };
            frame.push(&Head::system(System::Handshake, 0), handshake).expect("written");
            as_is(format, frame.take())
        };
        let table = [
            ("version 1", says(Handshake { protocol: 1, ..hello(1, 1) }), Close::PROTOCOL),
            ("version 3", says(Handshake { protocol: 3, ..hello(1, 1) }), Close::PROTOCOL),
            ("a sign of life", call(System::KeepAlive, 0), Close::PROTOCOL),
            ("an answer", call(System::Ok, 1), Close::PROTOCOL),
            ("a handshake that is a list of nothing", call(System::Handshake, 0), Close::PROTOCOL),
            ("garbage", as_is(format, b"\xff{{{ none".to_vec()), Close::PROTOCOL),
            ("nothing", as_is(format, Vec::new()), Close::PROTOCOL),
            ("versions of 17 scopes", versions(&["s=1"; limits::VERSION_SCOPES + 1].join(",")), Close::PROTOCOL),
            ("versions of 513 characters", versions(&"v".repeat(limits::VERSIONS + 1)), Close::PROTOCOL),
            ("a frame of 16,385 bytes", as_is(format, large_greeting(format, limits::FIRST_FRAME + 1)), Close::TOO_LARGE),
            ("the wrong kind", of_the_wrong_kind(format, greeting(format, &hello(1, 1)).take()), Close::KIND),
        ];
        for (what, frame, close) in table {
            let (mut play, what) = (Play::new(format), format!("{format}: {what}"));
            let call = adding(&play.remote);
            let mut link = play.next().await;
            link.system(System::Handshake).await;
            link.send_as(frame);
            assert_eq!(link.gone().await, Some(close.code), "{what}");
            play.goes_on(call, 1, &what).await;
        }
        for frame in [
            as_is(format, large_greeting(format, limits::FIRST_FRAME)),
            versions(&["s=1"; limits::VERSION_SCOPES].join(",")),
            versions(&"v".repeat(limits::VERSIONS)),
        ] {
            let mut play = Play::new(format);
            let link = play.next().await;
            link.send_as(frame);
            let mut state = play.remote.connected();
            soon(state.wait_for(|state| *state == Connected::Yes)).await.expect("as large as it may be");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_leaves_a_connection_with_frames_that_nobody_sends_and_its_call_goes_on_with_the_next() {
    for format in RECORDED {
        let table = [
            ("the wrong kind", of_the_wrong_kind(format, Vec::new()), Close::KIND),
            ("a byte too large", as_is(format, vec![b' '; limits::FRAME + 1]), Close::TOO_LARGE),
        ];
        for (what, frame, close) in table {
            let (mut play, what) = (Play::new(format), format!("{format}: {what}"));
            let mut link = play.greeted(1).await;
            let call = adding(&play.remote);
            link.call(ADD).await;
            link.send_as(frame);
            assert_eq!(link.gone().await, Some(close.code), "{what}");
            let mut link = play.greeted(2).await;
            let asked = link.system(System::Reconnect).await;
            // It knows of nothing that is waited for.
            link.say(&Head::system(System::Error, asked.id), |out| out.value(&ErrorInfo::new(ErrorInfo::RPC, "no")));
            let again = link.call(ADD).await;
            link.say(&Head::system(System::Ok, again.id), |out| out.value(&42));
            assert_eq!(soon(call).await.expect("no panic"), Ok(42), "{what}");
        }
    }
}

/// The recorded client was driven by hand: what it said to do harm a client of ours is told, and what the server answered as well. Calls of ours have
/// the ids of those that were answered.
#[tokio::test(start_paused = true)]
async fn what_was_recorded_to_do_harm_takes_nothing_from_a_client_either() {
    for format in RECORDED {
        let mut play = Play::new(format);
        let mut link = play.next().await;
        let mut calls = Vec::new();
        for id in 1..=62 {
            let (remote, add) = (play.remote.clone(), MethodId::new(ADD).expect("short"));
            calls.push(tokio::spawn(async move { remote.call::<Raw>(&add, (1, 2)).await }));
            tokio::task::yield_now().await;
            assert_eq!(play.remote.open_calls(), id);
        }
        // A system call that is not known is ignored where it has a name; a hash alone may be anything's.
        let unknown = (format == Format::Msgpack6c).then_some(1);
        let (mut answers, mut asked) = (BTreeMap::new(), Vec::from_iter(unknown));
        for line in fixture(format, "malformed").iter().filter(|line| line["dir"].is_string()) {
            let frame = frame_of(line);
            let is_theirs = line["dir"] == "c2s";
            for message in Messages::new(format, &frame).filter_map(Result::ok) {
                let is_add = match &message.method {
                    MethodRef::Name(name) => name == ADD,
                    MethodRef::Hash(hash) => *hash == MethodId::new(ADD).expect("short").hash(),
                };
                if is_theirs && is_add {
                    asked.push(message.related_id);
                } else if System::of(&message.method) == Some(System::Ok) {
                    answers.entry(message.related_id).or_insert_with(|| message.arguments.to_vec());
                }
            }
            link.send(frame);
        }
        for id in 1..=62 {
            let call = &mut calls[id as usize - 1];
            match answers.remove(&id) {
                None => assert!(!call.is_finished(), "{format}: {id}"),
                Some(answer) => {
                    let got = soon(call).await.expect("no panic").expect("a value");
                    assert_eq!(got, Arguments::new(format, &answer).read::<Raw>().expect("a value"), "{format}: {id}");
                }
            }
        }
        assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [999], "{format}: that nobody waits for");
        // There is nothing here to be called, which it hears of each call that can be read; and of the stream that it is not there.
        let disowned = link.system(System::Disconnect).await;
        assert_eq!(Arguments::new(format, &disowned.arguments).read::<Vec<u64>>(), Ok(vec![77]), "{format}");
        for id in asked {
            let failed = link.expect("a failure", |said| said.system() == Some(System::Error) && said.id == id).await;
            assert!(is_missing(&Arguments::new(format, &failed.arguments).read().expect("a failure")), "{format}: {id}");
        }
        link.system(System::Handshake).await;
        for _ in &calls {
            link.call(ADD).await;
        }
        assert_eq!((link.hear_all(), *play.remote.connected().borrow()), ([].as_slice(), Connected::Yes), "{format}");
        calls.iter().for_each(JoinHandle::abort);
    }
}

/// A call is answered after something else was said.
async fn is_answered_after(link: &mut Link, remote: &Remote, what: &str, frames: impl FnOnce(u64) -> Vec<Vec<u8>>) {
    let call = adding(remote);
    let asked: Said = link.call(ADD).await;
    frames(asked.id).into_iter().for_each(|frame| link.send(frame));
    link.say(&Head::system(System::Ok, asked.id), |out| out.value(&42));
    assert_eq!(soon(call).await.expect("no panic"), Ok(42), "{what}");
}

#[tokio::test(start_paused = true)]
async fn messages_that_cannot_be_read_take_nothing_from_a_client_but_themselves() {
    for format in RECORDED {
        let mut play = Play::new(format);
        let mut link = play.greeted(1).await;
        // Each system call, with arguments that are none of its own: of the call that is waited for, and of nothing.
        for call in System::all().filter(|call| !matches!(call, System::Ok | System::Error | System::Match)) {
            for related in [Some(0), None, Some(u64::MAX)] {
                let of = |related: u64, write: fn(&mut wellspring_rpc::wire::Writer<'_>)| {
                    let mut frame = Frame::new(format);
                    let written = frame.push(&Head::system(call, related), |out| {
                        write(out);
                        Ok(())
                    });
                    written.expect("written");
                    frame.take()
                };
                let what = format!("{format}: {} {related:?}", call.name());
                let frames = |waiting: u64| {
                    let related = related.unwrap_or(waiting);
                    vec![
                        of(related, |_| ()),
                        of(related, |out| out.value("text").expect("written")),
                        of(related, |out| out.raw(b"\xc1\xff{")),
                    ]
                };
                is_answered_after(&mut link, &play.remote, &what, frames).await;
            }
        }
        let garbage = [b"not json at all".to_vec(), vec![0xff; 8], vec![0; 1], b"\n\x1e\n\x1e".to_vec(), Vec::new(), vec![0x80; 64]];
        is_answered_after(&mut link, &play.remote, "garbage", |_| garbage.to_vec()).await;
        assert_eq!((*play.remote.connected().borrow(), play.remote.open_calls()), (Connected::Yes, 0), "{format}");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_behind_an_answer_takes_nothing_from_it() {
    for format in RECORDED {
        let mut play = Play::new(format);
        let mut link = play.greeted(1).await;
        let call = adding(&play.remote);
        let asked = link.call(ADD).await;
        let mut frame = Frame::new(format);
        frame.push(&Head::system(System::Ok, asked.id), |out| out.value(&42)).expect("written");
        let mut frame = frame.take();
        frame.extend_from_slice(if format.is_text() { b"\n\x1e{{{" } else { b"\xff" });
        link.send(frame);
        assert_eq!(soon(call).await.expect("no panic"), Ok(42), "{format}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_hear_a_second_handshake() {
    for format in RECORDED {
        let mut play = Play::new(format);
        let mut link = play.greeted(1).await;
        let strange = [
            hello(1, 1),
            hello(2, 7),
            Handshake { protocol: 1, ..hello(3, 1) },
            Handshake { secret: Some(Cow::Borrowed("another one's")), ..hello(1, 1) },
        ];
        let frames = strange.map(|strange| greeting(format, &strange).take());
        is_answered_after(&mut link, &play.remote, "handshakes", |_| frames.to_vec()).await;
        assert_eq!(link.hear_all(), [], "{format}: no answer to those");
        // It has taken nothing of them for true: the server is the one that it was, and has given no secret.
        let call = adding(&play.remote);
        link.call(ADD).await;
        link.cut();
        let mut link = play.greeted(2).await;
        assert_eq!(link.visitor.proof, None, "{format}");
        link.system(System::Reconnect).await;
        call.abort();
    }
}

/// A text message, with so many headers.
fn with_headers(envelope: &str, count: usize, arguments: &str) -> Vec<u8> {
    let headers = vec![r#""k","v""#; count].join(",");
    format!("{{{envelope},\"Headers\":[{headers}]}}\n{arguments}").into_bytes()
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_read_an_answer_with_more_than_31_headers() {
    let mut play = Play::new(Format::Json5np);
    let mut link = play.greeted(1).await;
    let call = adding(&play.remote);
    let asked = link.call(ADD).await;
    let ok = format!(r#""Method":"$sys.Ok:1","RelatedId":{}"#, asked.id);
    link.send(with_headers(&ok, limits::HEADERS + 1, "1"));
    link.send(with_headers(&ok, limits::HEADERS, "2"));
    assert_eq!(soon(call).await.expect("no panic"), Ok(2));
}

/// A client that says what it is told to, and has said who it is.
async fn client(world: &World, format: Format) -> Client {
    let mut client = Client::connect(&world.hub, Visitor::new("client", format));
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(1, 1)));
    client.expect("a handshake", |got| got.call == System::Handshake).await;
    client
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_read_a_call_with_more_than_31_headers() {
    let world = World::new();
    let mut client = client(&world, Format::Json5np).await;
    let add = |id: u64| format!(r#""Method":"{ADD}","RelatedId":{id}"#);
    client.send(with_headers(&add(1), limits::HEADERS + 1, "1\u{1f}2"));
    client.send(with_headers(&add(2), limits::HEADERS, "3\u{1f}4"));
    let answer = client.expect("an answer", |_| true).await;
    assert_eq!((answer.call, answer.id, answer.arguments.as_slice()), (System::Ok, 2, b"7".as_slice()));
    client.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_hear_a_second_handshake() {
    for format in RECORDED {
        let world = World::new();
        let mut client = client(&world, format).await;
        client.say(&Head::call(1, 1, &MethodId::new("ICounter.Get:2").expect("short")), |out| out.value("k"));
        client.expect("a value", |got| got.call == System::Ok && got.id == 1).await;
        // It is nobody else for that, and its calls are what they were.
        for strange in [hello(1, 1), hello(2, 7), Handshake { protocol: 1, ..hello(3, 1) }] {
            client.send(greeting(format, &strange).take());
        }
        client.say(&Head::call(0, 2, &MethodId::new("ICounter.Set:3").expect("short")), |out| out.value("k").and_then(|()| out.value(&5)));
        let mut heard = [client.expect("a result", |_| true).await, client.expect("an end", |_| true).await].map(|got| (got.call, got.id));
        heard.sort_by_key(|(_, id)| *id);
        assert_eq!(heard, [(System::Invalidate, 1), (System::Ok, 2)], "{format}");
        // And the one that it was when it comes back.
        client.drop_connection().await;
        let mut client = Client::connect(&world.hub, Visitor::new("client", format));
        client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(1, 2)));
        let Sent::Frame(frame) = client.hear().await else { panic!("no handshake") };
        let theirs = wellspring_rpc::wire::Messages::new(format, &frame).next().expect("a message").expect("read");
        let theirs: Handshake<'_> = wellspring_rpc::wire::Arguments::new(format, theirs.arguments).read().expect("a handshake");
        assert_eq!((theirs.index, world.hub.clients()), (2, 1), "{format}");
    }
}
