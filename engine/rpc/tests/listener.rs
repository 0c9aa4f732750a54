//! Listeners, and whoever comes to them that should not.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::PATIENCE;
use support::services::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use wellspring_rpc::socket::{TcpAddress, TlsAddress, UnixAddress};
use wellspring_rpc::tls::{self, Identity};
use wellspring_rpc::transport::Connector;
use wellspring_rpc::web::{self, Origins, WebAddress};
use wellspring_rpc::wire::{Format, Frame, Guid, Handshake, Head, MethodId, System, limits};
use wellspring_rpc::{Caps, Connected, Listener, Remote, Serving, Timings, Visitor};

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const FRAME: u8 = 3;
const CLOSE: u8 = 4;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it never happens")
}

fn unit(kind: u8, said: &[u8]) -> Vec<u8> {
    [&head(kind, said.len())[..], said].concat()
}

fn head(kind: u8, length: usize) -> [u8; 4] {
    let [_, high, middle, low] = u32::try_from(length).expect("short").to_be_bytes();
    [kind, high, middle, low]
}

fn hello(query: &str) -> Vec<u8> {
    [b"wsr1", &unit(HELLO, query.as_bytes())[..]].concat()
}

fn handshake(format: Format) -> Vec<u8> {
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(2));
    let handshake = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: None };
    let mut frame = Frame::new(format);
    frame.push(&Head::system(System::Handshake, 0), |out| out.value(&handshake)).expect("written");
    unit(FRAME, &frame.take())
}

/// A call of `IDemo.EchoAny` with a text of that size.
fn echo(size: usize) -> Vec<u8> {
    let mut frame = Frame::new(Format::Msgpack6c);
    let method = MethodId::new("IDemo.EchoAny:2").expect("short");
    frame.push(&Head::call(0, 1, &method), |out| out.value(&"x".repeat(size))).expect("written");
    unit(FRAME, &frame.take())
}

/// A client that says what it is told to, byte for byte.
struct Raw(TcpStream);

impl Raw {
    async fn connect(to: SocketAddr) -> Raw {
        Raw(soon(TcpStream::connect(to)).await.expect("connected"))
    }

    async fn from(address: &str, to: SocketAddr) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{address}:0").parse().expect("an address")).expect("bound");
        Raw(soon(socket.connect(to)).await.expect("connected"))
    }

    async fn say(&mut self, bytes: &[u8]) {
        // Whoever is refused may be hung up on.
        let _ = soon(self.0.write_all(bytes)).await;
    }

    /// The next unit; none at the end, however that comes.
    async fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 4];
        soon(self.0.read_exact(&mut head)).await.ok()?;
        let [kind, high, middle, low] = head;
        let mut said = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        soon(self.0.read_exact(&mut said)).await.ok()?;
        Some((kind, said))
    }

    /// The code and the reason that the server closes it with; none if it hangs up.
    async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match self.hear().await {
                Some((CLOSE, said)) => {
                    let (code, reason) = said.split_first_chunk().expect("a code");
                    assert_eq!(self.hear().await, None, "nothing comes after the end");
                    return Some((u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("text")));
                }
                Some(_) => {}
                None => return None,
            }
        }
    }
}

fn world(caps: Option<Caps>, handshake: Duration) -> World {
    let mut timings = Timings::default();
    (timings.handshake, timings.close) = (handshake, Duration::from_millis(200));
    World::with(|builder| builder.caps(caps.unwrap_or_default()).timings(timings))
}

fn patient() -> World {
    world(None, PATIENCE)
}

async fn tcp() -> Listener {
    Listener::tcp("127.0.0.1:0").await.expect("a port")
}

fn at(serving: &Serving) -> SocketAddr {
    serving.local_addr().expect("a port")
}

async fn is_well(address: impl Connector) {
    let remote = Remote::builder(address).backoff(Duration::from_millis(1), Duration::from_millis(1)).connect();
    assert_eq!(soon(remote.call(&MethodId::new("IDemo.Add:3").expect("short"), (40, 2))).await, Ok(42));
}

/// Waits until the hub has so many clients.
async fn knows(world: &World, clients: usize) {
    soon(async {
        while world.hub.clients() != clients {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_does_not_ask_as_it_should_is_told_so() {
    let world = patient();
    let serving = tcp().await.serve(&world.hub);
    let long = format!("f=json5&clientId={}", "x".repeat(1_100));
    let table: [(&str, Vec<u8>, u16); 12] = [
        ("http", b"GET /rpc/ws HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 1002),
        ("TLS", vec![0x16, 3, 1, 0, 200, 1], 1002),
        ("another version", b"wsr2".to_vec(), 1002),
        ("a frame first", [b"wsr1", &handshake(Format::Json5)[..]].concat(), 1002),
        ("an unknown unit", [b"wsr1", &unit(9, b"")[..]].concat(), 1002),
        ("a query that is too long", hello(&long), 1002),
        ("a length beyond all", [b"wsr1", &head(HELLO, 0xff_ff_ff)[..]].concat(), 1002),
        ("no text", [b"wsr1", &unit(HELLO, b"clientId=\xff")[..]].concat(), 1002),
        ("a bad escape", hello("clientId=%zz"), 1002),
        ("a thing twice", hello("f=json5&f=json5"), 1002),
        ("half a proof", hello("clientId=a&c=1"), 1008),
        ("a format that is not spoken", hello("f=mempack6&clientId=a"), 4001),
    ];
    for (what, said, code) in table {
        let mut raw = Raw::connect(at(&serving)).await;
        raw.say(&said).await;
        let (closed, reason) = raw.closed().await.expect(what);
        assert_eq!(closed, code, "{what}");
        assert!(code != 4001 || reason == "Unsupported RPC serialization format: 'mempack6'", "{reason}");
    }
    assert_eq!(world.hub.clients(), 0);
    is_well(TcpAddress::from(at(&serving))).await;
}

#[tokio::test]
async fn a_preamble_may_come_byte_for_byte_and_end_anywhere() {
    let world = patient();
    let serving = tcp().await.serve(&world.hub);
    let whole = hello("f=msgpack6c&clientId=slow");
    for end in 0..whole.len() {
        let mut raw = Raw::connect(at(&serving)).await;
        raw.say(&whole[..end]).await;
        raw.0.shutdown().await.expect("shut down");
        assert!(matches!(raw.closed().await, None | Some((1002, _))), "at {end}");
    }
    let mut raw = Raw::connect(at(&serving)).await;
    raw.0.set_nodelay(true).expect("set");
    for byte in &whole {
        raw.say(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.hear().await, Some((WELCOME, vec![])));
    // And everything at once.
    let mut raw = Raw::connect(at(&serving)).await;
    raw.say(&[hello("f=msgpack6c&clientId=fast"), handshake(Format::Msgpack6c), echo(10), echo(10)].concat()).await;
    assert_eq!(raw.hear().await, Some((WELCOME, vec![])));
    for _ in 0..2 {
        assert_eq!(raw.hear().await.expect("a handshake, an answer").0, FRAME);
    }
}

#[tokio::test]
async fn frames_that_are_too_large_end_the_connection_with_a_reason() {
    let world = patient();
    let serving = tcp().await.serve(&world.hub);
    let too_large = [
        head(FRAME, limits::FIRST_FRAME + 1).to_vec(),
        [&handshake(Format::Msgpack6c)[..], &head(FRAME, limits::FRAME + 1)].concat(),
        [&handshake(Format::Msgpack6c)[..], &head(FRAME, 0xff_ff_ff)].concat(),
    ];
    for said in too_large {
        let mut raw = Raw::connect(at(&serving)).await;
        raw.say(&[&hello("f=msgpack6c")[..], &said].concat()).await;
        assert_eq!(raw.closed().await.map(|(code, _)| code), Some(1009));
    }
}

#[tokio::test]
async fn a_server_survives_whatever_comes_after_a_preamble() {
    let world = patient();
    let serving = tcp().await.serve(&world.hub);
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let format = *random.choice(&Format::ALL).expect("one");
        let mut said = hello(&format!("f={format}&clientId=c{}", random.u8(0..8)));
        if random.u8(0..4) > 0 {
            said.extend(handshake(format));
        }
        for _ in 0..random.usize(0..20) {
            let body: Vec<u8> = (0..random.usize(0..600)).map(|_| random.u8(..)).collect();
            let mut unit = unit(if random.u8(0..8) == 0 { random.u8(..) } else { FRAME }, &body);
            if random.u8(0..10) == 0 {
                let at = random.usize(0..unit.len().min(4));
                unit[at] = random.u8(..);
            }
            said.extend(unit);
        }
        let mut raw = Raw::connect(at(&serving)).await;
        raw.say(&said).await;
        if random.bool() {
            let _ = raw.0.shutdown().await;
            while raw.hear().await.is_some() {}
        }
    }
    is_well(TcpAddress::from(at(&serving))).await;
    // Calls that it has understood, of methods that are not there, are kept for who may come back.
    assert!(world.hub.clients() <= 8 * Format::ALL.len() + 1);
    soon(serving.shutdown()).await;
}

#[tokio::test]
async fn whoever_says_nothing_has_no_place_for_long() {
    let (chain, key) = certificate("localhost");
    let identity = Identity { chain: chain.as_bytes(), key: key.as_bytes() };
    let mut caps = Caps::default();
    // Whoever held on to something would keep the next one out.
    caps.connections = 1;
    let world = world(Some(caps), Duration::from_millis(100));
    let get = b"GET /rpc/ws?f=json5 HTTP/1.1\r\nHost: x\r\n";
    let complete = [&get[..], b"\r\n"].concat();
    let serving = [
        tcp().await.serve(&world.hub),
        tcp().await.tls(tls::server(identity).expect("a configuration")).serve(&world.hub),
        tcp().await.web(Origins::Any).serve(&world.hub),
    ];
    let table: [(&str, usize, &[u8]); 8] = [
        ("nothing", 0, b""),
        ("half a preamble", 0, &hello("f=json5")[..7]),
        ("a preamble and no handshake", 0, &hello("f=json5")),
        ("no TLS", 1, b""),
        ("half of TLS", 1, &[0x16, 3, 1, 0]),
        ("no request", 2, b""),
        ("half a request", 2, get),
        ("a request that is answered, and no other", 2, &complete),
    ];
    for (what, door, said) in table {
        // The seat of the one before is given back a moment after it was hung up on.
        let ended = soon(async {
            loop {
                let mut raw = Raw::connect(at(&serving[door])).await;
                let began = std::time::Instant::now();
                raw.say(said).await;
                let mut rest = Vec::new();
                let _ = soon(raw.0.read_to_end(&mut rest)).await;
                if began.elapsed() >= Duration::from_millis(50) {
                    return rest;
                }
            }
        })
        .await;
        assert_eq!(ended.starts_with(b"HTTP/1.1 400"), what.starts_with("a request"), "{what}: {ended:?}");
    }
    is_well(TcpAddress::from(at(&serving[0]))).await;
}

#[tokio::test]
async fn there_is_room_for_so_many_and_no_more() {
    let mut caps = Caps::default();
    (caps.connections, caps.per_address) = (3, 2);
    let world = world(Some(caps), PATIENCE);
    let serving = tcp().await.serve(&world.hub);
    let app = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let web = app.local_addr().expect("bound");
    let router = web::router(world.hub.clone()).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(app, router).await });
    let let_in = async |from: &str| {
        let mut raw = Raw::from(from, at(&serving)).await;
        raw.say(&hello("f=json5")).await;
        (raw.hear().await == Some((WELCOME, vec![]))).then_some(raw)
    };
    let upgrade = async || {
        let mut raw = Raw::connect(web).await;
        let request = "GET /rpc/ws?f=json5 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        raw.say(request.as_bytes()).await;
        let mut status = [0; 12];
        soon(raw.0.read_exact(&mut status)).await.expect("answered");
        (String::from_utf8_lossy(&status).into_owned(), raw)
    };
    let first = let_in("127.0.0.1").await.expect("room");
    let second = upgrade().await;
    assert_eq!(second.0, "HTTP/1.1 101", "the route and the listeners have one room");
    assert!(let_in("127.0.0.1").await.is_none(), "two of one address");
    assert_eq!(upgrade().await.0, "HTTP/1.1 503", "two of one address");
    let _third = let_in("127.0.0.2").await.expect("room");
    assert!(let_in("127.0.0.3").await.is_none(), "three in all");
    drop((first, second));
    // A place is free a moment after the server has heard of it.
    soon(async { while let_in("127.0.0.3").await.is_none() {} }).await;
}

#[tokio::test]
async fn clients_that_leave_are_forgotten_at_once_while_there_are_too_many() {
    let mut caps = Caps::default();
    caps.clients = 2;
    let world = world(Some(caps), PATIENCE);
    let serving = tcp().await.serve(&world.hub);
    let mut connected = Vec::new();
    for number in 0..3 {
        let mut raw = Raw::connect(at(&serving)).await;
        raw.say(&[hello(&format!("f=msgpack6c&clientId=c{number}")), handshake(Format::Msgpack6c), echo(1)].concat()).await;
        // Welcome, handshake, answer.
        for _ in 0..3 {
            raw.hear().await.expect("served");
        }
        connected.push(raw);
    }
    assert_eq!(world.hub.clients(), 3);
    connected.pop();
    knows(&world, 2).await;
    connected.clear();
    soon(serving.shutdown()).await;
    assert_eq!(world.hub.clients(), 2, "those are remembered");
}

#[tokio::test]
async fn a_shutdown_tells_whoever_is_there_and_ends() {
    let world = patient();
    let serving = tcp().await.serve(&world.hub);
    let to = at(&serving);
    let mut asking = Raw::connect(to).await;
    asking.say(b"wsr1").await;
    let mut idle = Raw::connect(to).await;
    idle.say(&[hello("f=msgpack6c&clientId=a"), handshake(Format::Msgpack6c)].concat()).await;
    // One that asks for more than its socket holds, and does not read it.
    let mut stuck = Raw::connect(to).await;
    stuck.say(&[hello("f=msgpack6c&clientId=b"), handshake(Format::Msgpack6c)].concat()).await;
    for raw in [&mut idle, &mut stuck] {
        assert_eq!(raw.hear().await, Some((WELCOME, vec![])));
        assert_eq!(raw.hear().await.map(|(kind, _)| kind), Some(FRAME));
    }
    stuck.say(&echo(14 << 20)).await;
    soon(serving.shutdown()).await;
    assert_eq!(idle.closed().await, Some((1000, String::new())));
    assert_eq!(asking.hear().await, None);
    assert!(TcpStream::connect(to).await.is_err(), "nobody listens");
    // The port is free: the same clients go on with the next.
    let again = Listener::tcp(to).await.expect("the same port").serve(&world.hub);
    is_well(TcpAddress::from(to)).await;
    // Without a good-bye.
    let mut raw = Raw::connect(to).await;
    raw.say(&[hello("f=msgpack6c&clientId=c"), handshake(Format::Msgpack6c)].concat()).await;
    assert_eq!(raw.hear().await, Some((WELCOME, vec![])));
    drop(again);
    while raw.hear().await.is_some() {}
}

#[tokio::test]
async fn a_client_follows_a_server_that_starts_anew() {
    let world = patient();
    let serving = tcp().await.serve(&world.hub);
    let to = at(&serving);
    let remote = Remote::builder(TcpAddress::from(to)).backoff(Duration::from_millis(5), Duration::from_millis(5)).connect();
    let slow = MethodId::new("IDemo.Slow:3").expect("short");
    let call = remote.call::<String>(&slow, ("x", 300));
    let restart = async {
        soon(async {
            while world.hub.open_calls() == 0 {
                tokio::task::yield_now().await
            }
        })
        .await;
        serving.shutdown().await;
        Listener::tcp(to).await.expect("the same port").serve(&world.hub)
    };
    let (result, _serving) = soon(async { tokio::join!(call, restart) }).await;
    assert_eq!(result, Ok("x".to_owned()));
    assert_eq!(world.runs.slow.load(std::sync::atomic::Ordering::SeqCst), 1, "the hub is the same");
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_file_is_taken_over_from_whoever_is_gone_and_from_nobody_else() {
    let world = patient();
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("rpc.sock");
    // Left by a process that was killed: closing a listener leaves its file.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("listening"));
    assert!(path.exists());
    let serving = Listener::unix(&path).await.expect("taken over").serve(&world.hub);
    is_well(UnixAddress::new(&path)).await;
    let taken = Listener::unix(&path).await.expect_err("somebody listens");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    is_well(UnixAddress::new(&path)).await;
    // Somebody has put another in its place: that is not ours to remove.
    std::fs::remove_file(&path).expect("removed");
    let other = std::os::unix::net::UnixListener::bind(&path).expect("listening");
    soon(serving.shutdown()).await;
    assert!(path.exists());
    drop(other);
    let (file, link) = (place.path().join("file"), place.path().join("link"));
    std::fs::write(&file, "precious").expect("written");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    for path in [&file, &link] {
        assert!(Listener::unix(path).await.is_err());
        assert!(path.exists());
    }
    assert_eq!(std::fs::read_to_string(&file).expect("read"), "precious");
    // Many at once: one of them gets it, and it is reached.
    let all = futures_util::future::join_all((0..8).map(|_| Listener::unix(&path))).await;
    let mut all: Vec<Listener> = all.into_iter().flatten().collect();
    assert_eq!(all.len(), 1);
    let _serving = all.remove(0).serve(&world.hub);
    is_well(UnixAddress::new(&path)).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_is_not_bound_while_somebody_else_binds_one_in_its_directory() {
    use futures_util::FutureExt;
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("rpc.sock");
    // Somebody who looks whether the file that is there was left, and would find one that is bound and not listened at yet.
    let looking = std::fs::File::open(place.path()).expect("opened");
    looking.lock().expect("locked");
    let mut listening = Box::pin(Listener::unix(&path));
    assert!((&mut listening).now_or_never().is_none() && !path.exists());
    looking.unlock().expect("unlocked");
    soon(listening).await.expect("listening");
}

fn certificate(name: &str) -> (String, String) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    (cert.pem(), signing_key.serialize_pem())
}

#[tokio::test]
async fn nobody_is_trusted_without_a_certificate_of_ours() {
    let world = patient();
    let (ours, theirs) = (certificate("localhost"), certificate("localhost"));
    let identity = Identity { chain: ours.0.as_bytes(), key: ours.1.as_bytes() };
    let stranger = Identity { chain: theirs.0.as_bytes(), key: theirs.1.as_bytes() };
    let open = tcp().await.tls(tls::server(identity).expect("a configuration")).serve(&world.hub);
    let closed = tcp().await.tls(tls::server_for(identity, ours.0.as_bytes()).expect("a configuration")).backend().serve(&world.hub);
    let to = |serving: &Serving, roots: &str, identity| {
        let config = tls::client(roots.as_bytes(), identity).expect("a configuration");
        TlsAddress::new(format!("localhost:{}", at(serving).port()), config).expect("an address")
    };
    let visitor = Visitor::new("a", Format::Msgpack6c);
    is_well(to(&open, &ours.0, None)).await;
    assert!(soon(to(&open, &theirs.0, None).connect(&visitor)).await.is_err(), "another server");
    assert!(soon(to(&open, &ours.0, None).named("elsewhere").expect("a name").connect(&visitor)).await.is_err(), "another name");
    is_well(to(&closed, &ours.0, Some(identity))).await;
    for identity in [None, Some(stranger)] {
        assert!(soon(to(&closed, &ours.0, identity).connect(&visitor)).await.is_err(), "another client");
    }
    let config = tls::client(theirs.0.as_bytes(), None).expect("a configuration");
    assert!(WebAddress::secure("ws://localhost/rpc/ws", config.clone()).is_err());
    assert!(TlsAddress::new("localhost", config).is_err());
    assert!(tls::client(b"", None).is_err() && tls::client(b"-----BEGIN CERTIFICATE-----\nAAA", None).is_err());
    assert!(tls::server(Identity { key: theirs.1.as_bytes(), ..identity }).is_err(), "a key of another certificate");
    assert!(!format!("{identity:?}").contains(&ours.1));
}

#[tokio::test]
async fn a_client_gives_up_when_its_format_is_not_spoken_and_tries_again_otherwise() {
    let table: [(&[u8], bool); 5] = [
        (&unit(CLOSE, b"\x0f\xa1no"), true),
        (&unit(CLOSE, b"\x03\xf0not proved"), false),
        (&unit(CLOSE, b""), false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (b"", false),
    ];
    for (said, gives_up) in table {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("bound");
        let said = said.to_vec();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut magic = [0; 4];
                stream.read_exact(&mut magic).await.expect("a preamble");
                assert_eq!(&magic, b"wsr1");
                stream.write_all(&said).await.expect("written");
            }
        });
        let remote = Remote::builder(TcpAddress::from(to)).connect();
        let mut state = remote.connected();
        let state = *soon(state.wait_for(|state| !matches!(state, Connected::Connecting))).await.expect("it lives");
        assert_eq!(state == Connected::Never, gives_up, "{state:?}");
        server.abort();
    }
}
