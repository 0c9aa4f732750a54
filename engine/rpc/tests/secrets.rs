//! What is said to a log, at its most talkative, and what is not: whoever reads it can take nobody's place, and learns nothing of what is called with.

mod support;

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::near::soon;
use support::pipe::{Client, Wire};
use support::script::{Link, Links, Script};
use support::services::World;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_rpc::web::{self, WebAddress};
use wellspring_rpc::wire::{Arguments, Format, Frame, Guid, Handshake, Head, MethodId, Proof, System};
use wellspring_rpc::{Cache, CallOptions, Connected, Failure, RedbCache, Refusal, Remote, Remoted, Service, Visitor};
use wellspring_tests::rpc::Cut;

/// Everything that is said, of whatever level.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }
}

impl Log {
    fn line(&self, name: &str, fields: impl FnOnce(&mut Line<'_>)) {
        let mut line = format!("{name}:");
        fields(&mut Line(&mut line));
        let mut said = self.0.lock().expect("no panic");
        said.push_str(&line);
        said.push('\n');
    }

    /// What was said until now. Nothing of that is secret.
    fn has_none(&self, secrets: &[&str]) -> String {
        let said = self.0.lock().expect("no panic").clone();
        for secret in secrets {
            assert!(secret.len() > 5 && !said.contains(secret), "{secret} is in\n{said}");
        }
        said
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.line(span.metadata().name(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        self.line("recorded", |line| values.record(line));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.line(event.metadata().target(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

async fn is(remote: &Remote, so: impl Fn(Connected) -> bool) {
    let mut state = remote.connected();
    soon(state.wait_for(|state| so(*state))).await.expect("it lives");
}

const SESSION: &str = "session-of-ann";
const STRANGER: &str = "session-of-nobody";
const ARGUMENT: &str = "argument-4711";
const HEADER: &str = "header-4711";

/// One thread, so that all of it is heard.
#[tokio::test]
async fn a_log_of_both_ends_has_nothing_by_which_or_with_which_anybody_calls() {
    let log = Log::default();
    let _heard = tracing::subscriber::set_default(log.clone());
    let visitors = Arc::<Mutex<Vec<Visitor>>>::default();
    let come = visitors.clone();
    let world = World::with(|builder| {
        let builder = builder.authenticate(move |visitor| {
            let query = visitor.request.as_ref().and_then(|request| request.uri.query()).unwrap_or_default();
            let known = query.split('&').any(|part| part == format!("session={SESSION}"));
            come.lock().expect("no panic").push(visitor);
            std::future::ready(if known { Ok(SESSION.to_owned()) } else { Err(Refusal::unauthorized("log in first")) })
        });
        builder.authorize(|_, method| if method == "IDemo.Fail:2" { Err(Failure::new("not you")) } else { Ok(()) })
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = web::router(world.hub.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let to = |session: &str| WebAddress::new(format!("ws://user:{HEADER}@{address}/rpc/ws?session={session}")).expect("an address");

    // Whoever is refused.
    let pause = Duration::from_millis(10);
    let stranger = Remote::builder(to(STRANGER)).backoff(pause, pause).connect();
    is(&stranger, |state| matches!(state, Connected::Again(_))).await;

    // Whoever is not, and comes again.
    let cut = Cut::new();
    let options = CallOptions::new().header("token", HEADER);
    let remote = Remote::builder(cut.over(to(SESSION))).backoff(pause, pause).options(options.clone()).connect();
    let calls = async || {
        let echoed = remote.call::<String>(&method("IDemo.EchoAny:2"), (ARGUMENT,)).await;
        assert_eq!(echoed.as_deref(), Ok(ARGUMENT));
        remote.call::<String>(&method("IDemo.Slow:3"), (ARGUMENT, 1)).await.expect("a result");
        remote.call::<()>(&method("IDemo.Fail:2"), (ARGUMENT,)).await.expect_err("it may not");
        remote.call::<i64>(&method("IDemo.Add:3"), (ARGUMENT, ARGUMENT)).await.expect_err("no numbers");
        remote.call::<()>(&method("IDemo.Missing:2"), (ARGUMENT,)).await.expect_err("it is not there");
        remote.compute::<i64>(&method("IOdd.Unwritable:2"), (ARGUMENT,)).await.expect_err("it cannot be sent");
        remote.tell(&method("IDemo.Ping:2"), (ARGUMENT,)).expect("told");
        remote.compute::<i64>(&method("ICounter.Get:2"), (ARGUMENT,)).await.expect("a value").into_value()
    };
    soon(calls()).await;
    cut.now();
    is(&remote, |state| state != Connected::Yes).await;
    is(&remote, |state| state == Connected::Yes).await;
    soon(calls()).await;
    let all = visitors.lock().expect("no panic").clone();
    let (id, proof) =
        all.iter().find_map(|visitor| Some((visitor.client_id.clone(), visitor.proof.clone()?))).expect("it has proved itself");

    // Whoever takes its place without a proof, or with one of its own making.
    let mut thief = Visitor::new(id.clone(), Format::Msgpack6c);
    thief.proof = Some(Proof { counter: "9".to_owned(), code: "proof-of-nobody".to_owned() });
    world.hub.admit(&mut thief).await.expect_err("it is somebody else");

    // What is shown of those who are concerned.
    tracing::info!(?remote, ?options, address = ?to(SESSION), hub = ?world.hub, ?all, ?thief, ?proof, "all there is");
    let refused = WebAddress::new(format!("http://{address}/?session={SESSION}")).expect_err("no WebSocket");
    tracing::info!(%refused, error = ?refused);

    let said = log.has_none(&[SESSION, STRANGER, ARGUMENT, HEADER, &id, &proof.code, "proof-of-nobody"]);
    for expected in
        ["no connection: trying again", "401", "a call that may not be made", "a result cannot be sent", "call: method=", "all there is"]
    {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}

/// A server that says what it is told to, and a client that is connected to it.
async fn connected(secret: &str) -> (Remote, Links, Link) {
    let (script, mut links) = Script::new();
    let pause = Duration::from_millis(10);
    let remote = Remote::builder(script).backoff(pause, pause).connect();
    let mut link = links.next().await;
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(9));
    let hello = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: Some(secret.into()) };
    tracing::info!(?hello, "a handshake");
    link.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
    link.system(System::Handshake).await;
    (remote, links, link)
}

#[tokio::test(start_paused = true)]
async fn a_log_has_nothing_of_what_cannot_be_read() {
    let log = Log::default();
    let _heard = tracing::subscriber::set_default(log.clone());
    let (secret, item) = ("secret-of-a-server", "item-4711");
    // At a client: the secret by which it proves itself, and system calls with something else in the place of a number.
    let (remote, mut links, mut link) = connected(secret).await;
    for call in System::all() {
        link.say(&Head::system(call, 1), |out| out.value(item));
        let mut frame = Frame::new(Format::Msgpack6c);
        frame.push(&Head::system(call, 1).with(&[("~p", item)]), |out| out.value(&[item])).expect("written");
        link.send(frame.take());
    }
    link.send([b"\xff".as_slice(), item.as_bytes()].concat());
    link.cut();
    let link = links.next().await;
    let proof = link.visitor.proof.clone().expect("it has a secret");
    tracing::info!(?remote, ?proof, visitor = ?link.visitor, "all there is");

    // At a server.
    let world = World::new();
    let mut client = Client::connect(&world.hub, Visitor::new("client-4711", Format::Msgpack6c));
    let hello = Handshake { peer: Guid::from_u128(1), versions: None, hub: Guid::from_u128(9), protocol: 2, index: 1, secret: None };
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
    let theirs = client.expect("a handshake", |got| got.call == System::Handshake).await;
    let theirs: Handshake<'_> = Arguments::new(Format::Msgpack6c, &theirs.arguments).read().expect("a handshake");
    for call in System::all() {
        client.say(&Head::system(call, 1), |out| out.value(item));
    }
    client.say(&Head::call(0, 1, &method("IDemo.Nothing:1")), |_| Ok(()));
    client.expect("an answer", |got| got.call == System::Ok && got.id == 1).await;
    tracing::info!(hub = ?world.hub, hello = ?theirs);

    let ours = theirs.secret.expect("a server has one");
    let said = log.has_none(&[secret, item, &proof.code, &ours, "client-4711"]);
    for expected in ["a system call cannot be read", "a message cannot be read", "all there is"] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}

/// A value that is cached, and not of the type that it is read as.
#[tokio::test(start_paused = true)]
async fn a_log_has_nothing_of_what_was_cached_and_cannot_be_read() {
    let log = Log::default();
    let _heard = tracing::subscriber::set_default(log.clone());
    let (secret, asked) = ("result-4711", Engine::new());
    let get = asked.function("get", move |_: &Cx, _: &String| secret.to_owned()).expect("registered");
    let service = Service::new("ISecret").compute("Get:2", move |(key,): (String,)| std::future::ready(get.computed(&asked, &key)));
    let world = World::with(|builder| builder.service(service).expect("a service"));
    let directory = tempfile::tempdir().expect("a directory");
    let store = RedbCache::open(directory.path().join("cache"), 1 << 20).expect("a store");
    let cache = Cache::new(store, "server", "1").expect("a thread");
    let (engine, key) = (Engine::new(), (ARGUMENT.to_owned(),));
    let define = || Remote::builder(Wire::to(&world.hub)).connect();
    let text: AsyncFunction<(String,), Remoted<String>> =
        define().define("text", &method("ISecret.Get:2")).cache(&cache).function(&engine).expect("registered");
    assert_eq!(soon(text.get(&engine, &key)).await.expect("read").as_ref().map(String::as_str), Ok(secret));
    cache.flush();
    let number: AsyncFunction<(String,), Remoted<i64>> =
        define().define("number", &method("ISecret.Get:2")).cache(&cache).function(&engine).expect("registered");
    assert!(soon(number.get(&engine, &key)).await.expect("read").is_err());
    let said = log.has_none(&[secret, ARGUMENT]);
    assert!(said.contains("a cached result cannot be read"), "{said}");
}
