//! Every transport, from end to end: what a client does is the same over all of them.

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use support::PATIENCE;
use support::services::World;
use tokio::sync::watch;
use tokio::time::timeout;
use wellspring_rpc::socket::{TcpAddress, TlsAddress, UnixAddress};
use wellspring_rpc::tls::{self, Identity};
use wellspring_rpc::transport::{Close, Connector, FrameReader, Incoming};
use wellspring_rpc::web::{Origins, WebAddress};
use wellspring_rpc::wire::{Format, MethodId};
use wellspring_rpc::{CallError, Connected, Failure, Hub, Listener, Remote, Replica, RpcStream, Service, Serving, Visitor};

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it never happens")
}

/// A way whose connections can be cut, and that knows who has gone it.
#[derive(Clone, Debug)]
struct Way<C> {
    to: C,
    cut: watch::Sender<u32>,
    visitors: Arc<Mutex<Vec<Visitor>>>,
}

impl<C> Way<C> {
    fn new(to: C) -> Way<C> {
        Way { to, cut: watch::Sender::new(0), visitors: Arc::default() }
    }

    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

struct WayReader<R> {
    reader: R,
    cut: watch::Receiver<u32>,
}

impl<C: Connector> Connector for Way<C> {
    type Reader = WayReader<C::Reader>;
    type Writer = C::Writer;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Self::Reader, Self::Writer)> {
        let cut = self.cut.subscribe();
        let (reader, writer) = self.to.connect(visitor).await?;
        self.visitors.lock().expect("no panic").push(visitor.clone());
        Ok((WayReader { reader, cut }, writer))
    }
}

impl<R: FrameReader> FrameReader for WayReader<R> {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        tokio::select! {
            biased;
            _ = self.cut.changed() => Err(io::Error::other("cut")),
            frame = self.reader.read() => frame,
        }
    }
}

/// All of what a client does.
async fn all_of_it<C: Connector + Clone>(world: &World, to: C) {
    for format in Format::ALL {
        let way = Way::new(to.clone());
        let remote = Remote::builder(way.clone()).format(format).backoff(Duration::from_millis(1), Duration::from_millis(1)).connect();
        let key = format.key();
        // Calls, small and larger than any buffer.
        assert_eq!(soon(remote.call(&method("IDemo.Add:3"), (40, 2))).await, Ok(42));
        let large = "x".repeat(3 << 20);
        assert_eq!(soon(remote.call(&method("IDemo.EchoAny:2"), (&large,))).await, Ok(large));
        let add = method("IDemo.Add:3");
        let calls = (0..500).map(|number| remote.call::<i64>(&add, (number, number)));
        let sums = soon(futures_util::future::join_all(calls)).await;
        assert!(sums.into_iter().zip(0..).all(|(sum, number)| sum == Ok(2 * number)));
        // A value that is pushed.
        let get = method("ICounter.Get:2");
        let replica: Replica<i64> = soon(remote.compute(&get, (key,))).await.expect("a value");
        soon(remote.call::<()>(&method("ICounter.Set:3"), (key, 5))).await.expect("set");
        soon(replica.stale()).await;
        // Streams, both ways.
        let counted: RpcStream<i64> = soon(remote.call(&method("IDemo.Count:4"), (300, 0, 0))).await.expect("a stream");
        let counted: Vec<_> = soon(counted.map(|item| item.expect("an item")).collect()).await;
        assert_eq!(counted, (0..300).map(|number| number * 10).collect::<Vec<i64>>());
        let numbers = RpcStream::new(stream::iter(0..100_i64));
        assert_eq!(soon(remote.call(&method("ISum.Sum:2"), (numbers,))).await, Ok(4_950));
        // It comes back, proves itself, and what it holds is still told.
        let replica: Replica<i64> = soon(remote.compute(&get, (key,))).await.expect("a value");
        assert_eq!(*replica.value(), 5);
        let mut state = remote.connected();
        way.cut();
        soon(state.wait_for(|state| *state != Connected::Yes)).await.expect("it lives");
        soon(state.wait_for(|state| *state == Connected::Yes)).await.expect("it lives");
        assert!(!replica.is_stale());
        soon(remote.call::<()>(&method("ICounter.Set:3"), (key, 6))).await.expect("set");
        soon(replica.stale()).await;
        let visitors = std::mem::take(&mut *way.visitors.lock().expect("no panic"));
        let proofs: Vec<_> = visitors.iter().map(|visitor| visitor.proof.as_ref().map(|proof| proof.counter.as_str())).collect();
        assert_eq!(proofs, [None, Some("1")]);
        // Who has not proved it is not let in.
        let guest = Visitor::new(visitors[0].client_id.clone(), format);
        let refused = soon(to.connect(&guest)).await.err().expect("refused");
        let code =
            refused.get_ref().and_then(|inner| inner.downcast_ref::<wellspring_rpc::transport::Refused>()).map(|refused| refused.code);
        assert!(code == Some(Close::NOT_PROVED) || refused.to_string().contains("403"), "{refused}");
    }
    assert_eq!(world.hub.clients(), Format::ALL.len());
}

/// A certificate for these names, by itself.
fn certificate(names: &[&str]) -> (String, String) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (cert.pem(), signing_key.serialize_pem())
}

fn port(serving: &Serving) -> u16 {
    serving.local_addr().expect("a port").port()
}

async fn tcp() -> Listener {
    Listener::tcp("127.0.0.1:0").await.expect("a port")
}

#[tokio::test]
async fn everything_goes_over_memory() {
    let world = World::new();
    let (address, listener) = Listener::memory();
    let serving = listener.serve(&world.hub);
    all_of_it(&world, address).await;
    soon(serving.shutdown()).await;
}

#[tokio::test]
async fn everything_goes_over_tcp() {
    let world = World::new();
    let serving = tcp().await.serve(&world.hub);
    all_of_it(&world, TcpAddress::new(format!("localhost:{}", port(&serving)))).await;
    soon(serving.shutdown()).await;
}

#[cfg(unix)]
#[tokio::test]
async fn everything_goes_over_unix_sockets() {
    let world = World::new();
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("rpc.sock");
    let serving = Listener::unix(&path).await.expect("listening").serve(&world.hub);
    all_of_it(&world, UnixAddress::new(&path)).await;
    soon(serving.shutdown()).await;
    assert!(!path.exists(), "the file is removed");
}

#[tokio::test]
async fn everything_goes_over_tls() {
    let world = World::new();
    let (chain, key) = certificate(&["localhost", "127.0.0.1"]);
    let identity = Identity { chain: chain.as_bytes(), key: key.as_bytes() };
    let serving = tcp().await.tls(tls::server(identity).expect("a configuration")).serve(&world.hub);
    let config = tls::client(chain.as_bytes(), None).expect("a configuration");
    let address = TlsAddress::new(format!("127.0.0.1:{}", port(&serving)), config).expect("an address");
    all_of_it(&world, address).await;
    soon(serving.shutdown()).await;
}

#[tokio::test]
async fn everything_goes_over_websockets_of_a_listener() {
    let world = World::new();
    let serving = tcp().await.web(Origins::Same).serve(&world.hub);
    all_of_it(&world, WebAddress::new(format!("ws://127.0.0.1:{}/rpc/ws", port(&serving))).expect("an address")).await;
    soon(serving.shutdown()).await;
}

#[tokio::test]
async fn everything_goes_over_secure_websockets() {
    let world = World::new();
    let (chain, key) = certificate(&["localhost"]);
    let identity = Identity { chain: chain.as_bytes(), key: key.as_bytes() };
    let serving = tcp().await.web(Origins::Same).tls(tls::server(identity).expect("a configuration")).serve(&world.hub);
    let config = tls::client(chain.as_bytes(), None).expect("a configuration");
    let url = format!("wss://localhost:{}/rpc/ws?session=x", port(&serving));
    all_of_it(&world, WebAddress::secure(url, config).expect("an address")).await;
    soon(serving.shutdown()).await;
}

/// A hub with a service for backends, and one for all, by the same name but for a letter.
fn guarded() -> Hub {
    let open = Service::new("IOpen").method("Who:0", |()| async { Ok::<_, Failure>("anybody".to_owned()) });
    let closed = Service::new("IClosed").method("Who:0", |()| async { Ok::<_, Failure>("a backend".to_owned()) });
    let builder = Hub::builder().service(open).and_then(|builder| builder.backend_service(closed));
    builder.expect("services").build()
}

async fn asks<C: Connector>(to: C, format: Format, name: &str) -> Result<String, CallError> {
    let remote = Remote::builder(to).format(format).connect();
    soon(remote.call(&method(name), ())).await
}

#[tokio::test]
async fn backend_services_are_there_for_backends_alone() {
    let hub = guarded();
    let (front, front_listener) = Listener::memory();
    let (back, back_listener) = Listener::memory();
    let serving = [
        front_listener.serve(&hub),
        back_listener.backend().serve(&hub),
        tcp().await.web(Origins::Any).serve(&hub),
        tcp().await.web(Origins::Any).backend().serve(&hub),
    ];
    let web = |at: usize, path: &str| WebAddress::new(format!("ws://127.0.0.1:{}{path}", port(&serving[at]))).expect("an address");
    let (web_front, web_back) = (web(2, "/rpc/ws?backend=true"), web(3, "/backend/rpc/ws"));
    for format in Format::ALL {
        assert_eq!(asks(front.clone(), format, "IOpen.Who:0").await.as_deref(), Ok("anybody"));
        assert_eq!(asks(back.clone(), format, "IOpen.Who:0").await.as_deref(), Ok("anybody"));
        assert_eq!(asks(back.clone(), format, "IClosed.Who:0").await.as_deref(), Ok("a backend"));
        assert_eq!(asks(web_back.clone(), format, "IClosed.Who:0").await.as_deref(), Ok("a backend"));
        // As if it were not there.
        for answer in [asks(front.clone(), format, "IClosed.Who:0").await, asks(web_front.clone(), format, "IClosed.Who:0").await] {
            let missing = asks(front.clone(), format, "IMissin.Who:0").await;
            let (Err(CallError::Failed(hidden)), Err(CallError::Failed(missing))) = (answer, missing) else { panic!("it is there") };
            assert_eq!(hidden.type_name(), missing.type_name());
            // A compact format has a hash for the name.
            if !format.is_compact() {
                assert_eq!(hidden.message(), missing.message().replace("IMissin", "IClosed"));
            }
            assert!(hidden.message().starts_with("Endpoint not found: '"), "{hidden}");
        }
    }
    // A route is of one kind.
    for elsewhere in [web(2, "/backend/rpc/ws"), web(3, "/rpc/ws")] {
        let visitor = Visitor::new("x", Format::Msgpack6c);
        assert!(soon(elsewhere.connect(&visitor)).await.is_err());
    }
}

#[tokio::test]
async fn a_client_of_one_kind_does_not_take_the_place_of_one_of_the_other() {
    let hub = guarded();
    let (front, front_listener) = Listener::memory();
    let (back, back_listener) = Listener::memory();
    let _serving = [front_listener.serve(&hub), back_listener.backend().serve(&hub)];
    let way = Way::new(back);
    let remote = Remote::builder(way.clone()).connect();
    assert_eq!(soon(remote.call(&method("IClosed.Who:0"), ())).await, Ok("a backend".to_owned()));
    let mut visitor = way.visitors.lock().expect("no panic")[0].clone();
    // Whatever it says of itself.
    visitor.backend = true;
    let _taken = soon(front.connect(&visitor)).await.expect("let in, as somebody else");
    assert_eq!(soon(remote.call(&method("IClosed.Who:0"), ())).await, Ok("a backend".to_owned()));
    assert_eq!(way.visitors.lock().expect("no panic").len(), 1, "it was not disturbed");
}
