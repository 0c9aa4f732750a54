//! The route, over real sockets.

mod support;

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use support::PATIENCE;
use support::services::World;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use wellspring_rpc::web::{self, Origins, WebAddress};
use wellspring_rpc::wire::{
    Arguments, Format, Frame, Guid, Handshake, Head, Messages, MethodId, Secret, System, WriteError, Writer, limits,
};
use wellspring_rpc::{Connected, Remote, Replica};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn serve(world: &World, origins: Origins) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = web::router_for(world.hub.clone(), origins);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn connect(address: SocketAddr, query: &str, origin: Option<&str>) -> Result<Socket, u16> {
    let mut request = format!("ws://{address}/rpc/ws?{query}").into_client_request().expect("a request");
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn hear(socket: &mut Socket) -> Message {
    let heard = tokio::time::timeout(PATIENCE, socket.next()).await;
    heard.expect("the server says nothing").expect("the server is gone").expect("a message")
}

async fn say(socket: &mut Socket, format: Format, head: &Head<'_>, write: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>) {
    let mut frame = Frame::new(format);
    frame.push(head, write).expect("written");
    let message = match format.is_text() {
        true => Message::text(String::from_utf8(frame.take()).expect("text")),
        false => Message::binary(frame.take()),
    };
    socket.send(message).await.expect("sent");
}

async fn hello(socket: &mut Socket, format: Format) -> Option<String> {
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(2));
    let handshake = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: None };
    say(socket, format, &Head::system(System::Handshake, 0), |out| out.value(&handshake)).await;
    let frame = hear(socket).await.into_data();
    let message = Messages::new(format, &frame).next().expect("a message").expect("read");
    let theirs: Handshake<'_> = Arguments::new(format, message.arguments).read().expect("a handshake");
    theirs.secret.map(|secret| secret.into_owned())
}

async fn close_code(socket: &mut Socket) -> (u16, String) {
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("the server says nothing") {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_calls_in_every_format() {
    let world = World::new();
    let address = serve(&world, Origins::Same).await;
    for format in Format::ALL {
        let mut socket = connect(address, &format!("f={format}&clientId=a%2Bb"), None).await.expect("connected");
        hello(&mut socket, format).await.expect("a secret");
        let add = MethodId::new("IDemo.Add:3").expect("short");
        say(&mut socket, format, &Head::call(0, 1, &add), |out| {
            out.value(&40)?;
            out.value(&2)
        })
        .await;
        let frame = hear(&mut socket).await.into_data();
        let message = Messages::new(format, &frame).next().expect("a message").expect("read");
        assert_eq!((System::of(&message.method), message.related_id), (Some(System::Ok), 1));
        assert_eq!(Arguments::new(format, message.arguments).read(), Ok(42));
    }
    assert_eq!(world.hub.clients(), 4);
}

#[tokio::test]
async fn a_format_that_is_not_spoken_is_refused_with_its_own_code() {
    let address = serve(&World::new(), Origins::Same).await;
    let mut socket = connect(address, "f=mempack6&clientId=a", None).await.expect("connected");
    assert_eq!(close_code(&mut socket).await, (4001, "Unsupported RPC serialization format: 'mempack6'".to_owned()));
}

#[tokio::test]
async fn pages_of_other_hosts_are_refused_unless_they_are_let_in() {
    let world = World::new();
    let address = serve(&world, Origins::Same).await;
    let own = format!("http://{address}");
    for (origin, status) in [(Some(own.as_str()), None), (None, None), (Some("http://elsewhere"), Some(403)), (Some("null"), Some(403))] {
        assert_eq!(connect(address, "f=msgpack6c&clientId=a", origin).await.err(), status, "{origin:?}");
    }
    let address = serve(&world, Origins::Listed(vec!["https://friend.example".to_owned()])).await;
    assert_eq!(connect(address, "f=msgpack6c", Some("https://FRIEND.example")).await.err(), None);
    assert_eq!(connect(address, "f=msgpack6c", Some("https://friend.example.evil")).await.err(), Some(403));
    let address = serve(&world, Origins::Any).await;
    assert_eq!(connect(address, "f=msgpack6c", Some("null")).await.err(), None);
}

/// The peer's cases: each policy, and a page of the host itself, of another one, of none that has a name, and what is no page.
#[tokio::test]
async fn origin_every_policy_with_every_origin() {
    let world = World::new();
    const FOREIGN: &str = "https://friend.example";
    let listed = || Origins::Listed(vec![FOREIGN.to_owned()]);
    for (origins, own, foreign, null, other) in [
        (Origins::Any, true, true, true, true),
        (Origins::Same, true, false, false, false),
        (listed(), false, true, false, false),
        (Origins::Listed(Vec::new()), false, false, false, false),
    ] {
        let address = serve(&world, origins.clone()).await;
        let host = format!("http://{address}");
        for (origin, is_let_in) in [
            (None, true),
            (Some(host.as_str()), own),
            (Some(FOREIGN), foreign),
            (Some("null"), null),
            (Some("https://friend.example:8443"), other),
            (Some("http://friend.example"), other),
            (Some("https://friend.example.evil"), other),
            (Some(""), other),
        ] {
            let connected = connect(address, "f=msgpack6c&clientId=a", origin).await;
            assert_eq!(connected.err(), (!is_let_in).then_some(403), "{origins:?} {origin:?}");
        }
    }
}

#[tokio::test]
async fn whoever_is_not_who_it_says_it_is_is_refused_before_anything_happens() {
    let world = World::new();
    let address = serve(&world, Origins::Same).await;
    let mut first = connect(address, "f=msgpack6c&clientId=a", None).await.expect("connected");
    let secret = Secret::new(hello(&mut first, Format::Msgpack6c).await.expect("a secret"));
    let proof = secret.prove("a", 1);
    for query in [
        "f=msgpack6c&clientId=a&c=1&p=AAAA".to_owned(),
        "f=msgpack6c&clientId=a&c=1".to_owned(),
        format!("f=msgpack6c&clientId=a&p={}", proof.code),
    ] {
        assert_eq!(connect(address, &query, None).await.err(), Some(403), "{query}");
    }
    assert_eq!(connect(address, "f=msgpack6c&f=json5&clientId=a", None).await.err(), Some(400));
    assert_eq!(connect(address, "f=msgpack6c&clientId=%zz", None).await.err(), Some(400));
    let query = format!("f=msgpack6c&clientId=a&c={}&p={}", proof.counter, proof.code);
    let mut second = connect(address, &query, None).await.expect("proved");
    hello(&mut second, Format::Msgpack6c).await;
    assert_eq!(close_code(&mut first).await.0, 1000, "one connection at a time");
    assert_eq!(connect(address, &query, None).await.err(), Some(403), "a number that was used");
}

#[tokio::test]
async fn frames_that_are_too_large_or_of_the_wrong_kind_end_the_connection_with_a_reason() {
    let address = serve(&World::new(), Origins::Same).await;
    let mut socket = connect(address, "f=msgpack6c&clientId=a", None).await.expect("connected");
    hello(&mut socket, Format::Msgpack6c).await;
    socket.send(Message::text("{}")).await.expect("sent");
    assert_eq!(close_code(&mut socket).await.0, u16::from(CloseCode::Unsupported));
    let mut socket = connect(address, "f=msgpack6c&clientId=b", None).await.expect("connected");
    hello(&mut socket, Format::Msgpack6c).await;
    let send = socket.send(Message::binary(vec![0; limits::FRAME + 1]));
    // The server may hang up before all is sent.
    let _ = tokio::time::timeout(PATIENCE, send).await.expect("sent or refused");
    assert_eq!(close_code(&mut socket).await.0, u16::from(CloseCode::Size));
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = serve(&World::new(), Origins::Same).await;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(b"GET /rpc/ws?f=json5np HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn whoever_speaks_another_version_hears_which_one_is_spoken() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = serve(&World::new(), Origins::Same).await;
    for (version, status) in [("8", "426"), ("14", "426"), ("13", "101")] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(asking(version).as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.expect("answered") > 0);
        }
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
        assert_eq!(answer.contains("sec-websocket-version: 13\r\n"), status == "426", "{answer}");
    }
}

fn asking(version: &str) -> String {
    format!(
        "GET /rpc/ws?f=json5np HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
}

#[tokio::test]
async fn frames_that_nobody_writes_who_speaks_this_are_told_so() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = serve(&World::new(), Origins::Same).await;
    let not_masked: &[u8] = b"\x81\x02{}";
    let no_text: &[u8] = b"\x81\x81\0\0\0\0\xff";
    for (frame, close) in [(not_masked, b"\x88\x02\x03\xea"), (no_text, b"\x88\x02\x03\xef")] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(&[asking("13").as_bytes(), frame].concat()).await.expect("sent");
        let mut all = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the server goes on").expect("closed");
        assert!(all.ends_with(close), "{}", all.escape_ascii());
    }
}

#[tokio::test]
async fn a_client_of_ours_calls_and_hears_through_sockets_in_every_format() {
    let world = World::new();
    let address = serve(&world, Origins::Same).await;
    let web = WebAddress::new(format!("ws://{address}/rpc/ws")).expect("an address");
    for format in Format::ALL {
        let remote = Remote::builder(web.clone()).format(format).connect();
        let (get, set) = (MethodId::new("ICounter.Get:2").expect("short"), MethodId::new("ICounter.Set:3").expect("short"));
        let key = format.key();
        let replica: Replica<i64> = remote.compute(&get, (key,)).await.expect("a value");
        assert_eq!(*replica.value(), 0);
        remote.call::<()>(&set, (key, 5)).await.expect("set");
        tokio::time::timeout(PATIENCE, replica.stale()).await.expect("stale");
        let large = "x".repeat(1 << 20);
        let echo = MethodId::new("IDemo.EchoAny:2").expect("short");
        assert_eq!(remote.call(&echo, (&large,)).await, Ok(large.clone()));
    }
    let elsewhere = WebAddress::new(format!("ws://{address}/rpc/ws?f=mempack6")).expect("an address");
    assert!(WebAddress::new("http://here").is_err());
    // The address says one format and the client another: the server refuses that it is said twice, and the client tries again.
    let remote = Remote::builder(elsewhere).connect();
    let mut state = remote.connected();
    let again = state.wait_for(|state| matches!(state, Connected::Again(_)));
    tokio::time::timeout(PATIENCE, again).await.expect("refused").expect("it lives");
}

#[tokio::test]
async fn our_half_and_somebody_elses_understand_each_other() {
    use axum::extract::ws::{CloseFrame, Message as Theirs, WebSocketUpgrade};
    use wellspring_rpc::Visitor;
    use wellspring_rpc::transport::{Close, Connector, FrameReader, FrameWriter, Incoming};
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let route = axum::routing::any(async move |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async move |mut socket| {
            socket.send(Theirs::Ping("anybody?".into())).await.expect("sent");
            socket.send(Theirs::Text("\u{1F600}".repeat(4_000).into())).await.expect("sent");
            while let Some(Ok(message)) = socket.recv().await {
                said.send(message.clone()).expect("heard");
                if let Theirs::Binary(bytes) = message {
                    let last = bytes.is_empty();
                    socket.send(Theirs::Binary(bytes)).await.expect("sent");
                    if last {
                        let close = CloseFrame { code: 4001, reason: "enough".into() };
                        socket.send(Theirs::Close(Some(close))).await.expect("sent");
                    }
                }
            }
        })
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/rpc/ws", route)).await });
    let to = WebAddress::new(format!("ws://{address}/rpc/ws")).expect("an address");
    let conversation = async {
        let (mut reader, mut writer) = to.connect(&Visitor::new("a", Format::Msgpack6c)).await.expect("connected");
        let frames: Vec<bytes::Bytes> = [1, 125, 126, 70_000, 0].iter().map(|size| vec![7; *size].into()).collect();
        assert_eq!(reader.read().await.expect("read"), Some(Incoming::Text("\u{1F600}".repeat(4_000).into())));
        writer.write(&frames, false).await.expect("written");
        assert_eq!(heard.recv().await, Some(Theirs::Pong("anybody?".into())));
        for frame in frames {
            assert_eq!(heard.recv().await, Some(Theirs::Binary(frame.clone())));
            assert_eq!(reader.read().await.expect("read"), Some(Incoming::Binary(frame)));
        }
        assert_eq!(reader.read().await.expect("read"), Some(Incoming::Closed(4001)));
        assert_eq!(reader.read().await.expect("read"), None);
        let (_reader, mut writer) = to.connect(&Visitor::new("b", Format::Msgpack6c)).await.expect("connected");
        writer.close(Close { code: 1000, reason: "bye" }).await;
        let close = Some(CloseFrame { code: 1000, reason: "bye".into() });
        while heard.recv().await.expect("it goes on") != Theirs::Close(close.clone()) {}
    };
    tokio::time::timeout(PATIENCE, conversation).await.expect("it goes on");
}
