//! Who is let in, as whom, and what it may call.

mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::PATIENCE;
use support::pipe::{Client, Sent, Wire};
use support::services::World;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use wellspring_rpc::web::{self, WebAddress};
use wellspring_rpc::wire::{Arguments, ErrorInfo, Format, Guid, Handshake, Head, MethodId, Packed, Secret, System, pack};
use wellspring_rpc::{CallError, Caller, Failure, HubBuilder, Refusal, Remote, Replica, Service, Visitor};

const FORMAT: Format = Format::Msgpack6c;

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

/// A user, and by which of many logins.
#[derive(Clone, Debug)]
struct User {
    name: String,
    login: u32,
}

impl PartialEq for User {
    fn eq(&self, other: &User) -> bool {
        self.name == other.name
    }
}

impl Eq for User {}

/// Who is logged in where the next visitor comes from.
type Now = Arc<Mutex<Option<User>>>;

fn log_in(now: &Now, name: &str, login: u32) {
    *now.lock().expect("no panic") = Some(User { name: name.to_owned(), login });
}

fn who() -> Service {
    Service::new("IWho").method("Who:1", |(caller,): (Caller,)| async move {
        let user = caller.session::<User>().ok_or(Failure::new("nobody"))?;
        Ok::<_, Failure>((user.name.clone(), user.login))
    })
}

/// A world that lets in whoever is logged in.
fn guarded(more: impl FnOnce(HubBuilder) -> HubBuilder) -> (World, Now) {
    let now = Now::default();
    let known = now.clone();
    let world = World::with(|builder| {
        let builder = builder.service(who()).expect("a service").authenticate(move |_| {
            let user = known.lock().expect("no panic").clone();
            std::future::ready(user.ok_or(Refusal::unauthorized("log in first")))
        });
        more(builder)
    });
    (world, now)
}

/// A client of whoever is logged in, with what the server has said first.
async fn greeted(world: &World, index: i32) -> (Client, Guid, i32) {
    greeted_as(world, "client", index).await
}

async fn greeted_as(world: &World, client_id: &str, index: i32) -> (Client, Guid, i32) {
    let mut visitor = Visitor::new(client_id, FORMAT);
    world.hub.admit(&mut visitor).await.expect("let in");
    let mut client = Client::connect(&world.hub, visitor);
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(9));
    let hello = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index, secret: None };
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
    let theirs = client.expect("a handshake", |got| got.call == System::Handshake).await;
    let theirs: Handshake<'_> = Arguments::new(FORMAT, &theirs.arguments).read().expect("a handshake");
    (client, theirs.peer, theirs.index)
}

/// Which of the calls the server does not know.
async fn unknown(client: &mut Client, id: u64, index: i32, ids: &[u64]) -> Vec<u64> {
    let stages: BTreeMap<u32, Packed<'_>> = BTreeMap::from([(0, Packed(Cow::Owned(pack(ids.iter().copied()))))]);
    client.say(&Head::system(System::Reconnect, id), |out| {
        out.value(&index)?;
        out.value(&stages)
    });
    let answer = client.expect("which are not known", |got| got.id == id).await;
    let unknown: Packed<'_> = Arguments::new(FORMAT, &answer.arguments).read().expect("packed");
    unknown.ids().collect::<Result<_, _>>().expect("ids")
}

fn slow(client: &Client, id: u64, text: &str, pause: u64) {
    client.say(&Head::call(0, id, &method("IDemo.Slow:3")), |out| {
        out.value(text)?;
        out.value(&pause)
    });
}

fn remote(wire: &Wire) -> Remote {
    Remote::builder(wire.clone()).backoff(Duration::from_millis(100), Duration::from_millis(100)).connect()
}

async fn serve(world: &World) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = web::router(world.hub.clone()).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn a_request_says_who_comes_and_whoever_does_not_say_it_is_refused_before_anything_happens() {
    let seen = Arc::new(Mutex::new(None));
    let from = seen.clone();
    let world = World::with(|builder| {
        builder.service(who()).expect("a service").authenticate(move |visitor| {
            *from.lock().expect("no panic") = visitor.address;
            let request = visitor.request.expect("it has come by HTTP");
            let header = request.headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
            let token =
                request.uri.query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("token="))).map(str::to_owned);
            async move {
                tokio::task::yield_now().await;
                match header.or(token).as_deref() {
                    Some("secret-of-ann") => Ok(User { name: "ann".to_owned(), login: 1 }),
                    Some(_) => Err(Refusal::forbidden("not you")),
                    None => Err(Refusal::unauthorized("log in first")),
                }
            }
        })
    });
    let address = serve(&world).await;
    let connect = async |token: Option<&str>| {
        let mut request = format!("ws://{address}/rpc/ws?f=msgpack6c&clientId=a").into_client_request().expect("a request");
        if let Some(token) = token {
            request.headers_mut().insert("authorization", token.parse().expect("a header"));
        }
        match connect_async(request).await {
            Ok(_) => Ok(()),
            Err(Error::Http(response)) => Err((response.status().as_u16(), response.into_body().unwrap_or_default())),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(connect(None).await, Err((401, b"log in first".to_vec())));
    assert_eq!(connect(Some("secret-of-bob")).await, Err((403, b"not you".to_vec())));
    assert_eq!((world.hub.clients(), seen.lock().expect("no panic").map(|from| from.ip())), (0, Some(address.ip())));
    assert_eq!(connect(Some("secret-of-ann")).await, Ok(()));
    let remote = Remote::builder(WebAddress::new(format!("ws://{address}/rpc/ws?token=secret-of-ann")).expect("an address")).connect();
    let called = tokio::time::timeout(PATIENCE, remote.call(&method("IWho.Who:1"), ())).await.expect("an answer");
    assert_eq!(called, Ok(("ann".to_owned(), 1)));
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_in_who_was_not_asked() {
    let (world, now) = guarded(|builder| builder);
    let mut unasked = Client::connect(&world.hub, Visitor::new("client", FORMAT));
    assert_eq!(unasked.hear().await, Sent::Close(1008, String::new()));
    let mut visitor = Visitor::new("client", FORMAT);
    assert_eq!(world.hub.admit(&mut visitor).await, Err(Refusal::unauthorized("log in first")));
    let mut refused = Client::connect(&world.hub, visitor);
    assert_eq!(refused.hear().await, Sent::Close(1008, String::new()));
    log_in(&now, "ann", 1);
    let wire = Wire::to(&world.hub);
    assert_eq!(remote(&wire).call(&method("IWho.Who:1"), ()).await, Ok(("ann".to_owned(), 1)));
    // Also one that is never known again.
    let (mut private, ..) = greeted_as(&world, "", 1).await;
    private.say(&Head::call(0, 1, &method("IWho.Who:1")), |_| Ok(()));
    let got = private.expect("an answer", |got| got.id == 1).await;
    assert_eq!(Arguments::new(FORMAT, &got.arguments).read(), Ok(("ann".to_owned(), 1)));
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_find_out_who_it_is_lets_nobody_in() {
    let endless = World::with(|builder| builder.authenticate(|_| std::future::pending::<Result<(), Refusal>>()));
    let broken = World::with(|builder| {
        builder.authenticate(|_| async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<(), Refusal>(())
        })
    });
    for world in [endless, broken] {
        let refused = world.hub.admit(&mut Visitor::new("client", FORMAT)).await.expect_err("refused");
        assert_eq!((refused.status().as_u16(), refused.code()), (503, 1008));
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_user_goes_on_where_it_was_with_its_new_session() {
    let (world, now) = guarded(|builder| builder);
    log_in(&now, "ann", 1);
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    let replica: Replica<i64> = remote.compute(&method("ICounter.Get:2"), ("k",)).await.expect("a value");
    assert_eq!(remote.call(&method("IWho.Who:1"), ()).await, Ok(("ann".to_owned(), 1)));
    let name = method("IDemo.Slow:3");
    let call = remote.call::<String>(&name, ("x", 1_000));
    let again = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        log_in(&now, "ann", 2);
        wire.cut();
    };
    assert_eq!(tokio::join!(call, again).0, Ok("x".to_owned()));
    assert_eq!(remote.call(&method("IWho.Who:1"), ()).await, Ok(("ann".to_owned(), 2)));
    assert_eq!((world.runs.slow.load(Ordering::SeqCst), replica.is_stale(), world.hub.clients()), (1, false, 1));
}

#[tokio::test(start_paused = true)]
async fn another_user_by_the_same_id_gets_nothing_of_what_the_first_has_called() {
    let (world, now) = guarded(|builder| builder);
    log_in(&now, "ann", 1);
    let (mut client, first, _) = greeted(&world, 1).await;
    // One that is over while nobody is there, and one that goes on.
    slow(&client, 1, "of ann", 10);
    slow(&client, 2, "of ann", 100_000);
    client.say(&Head::call(0, 3, &method("IDemo.Nothing:1")), |_| Ok(()));
    client.expect("an answer", |got| got.id == 3).await;
    client.drop_connection().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The last was answered so late that nobody knows whether that has arrived.
    assert_eq!(world.hub.open_calls(), 3);

    log_in(&now, "bob", 1);
    let (mut client, second, index) = greeted(&world, 2).await;
    assert_eq!((second == first, index, world.hub.open_calls(), world.hub.clients()), (false, 1, 0, 1));
    assert_eq!(unknown(&mut client, 4, 1, &[1, 2]).await, [1, 2]);
    slow(&client, 1, "of bob", 10);
    let got = client.expect("an answer", |got| got.id == 1).await;
    assert_eq!(Arguments::new(FORMAT, &got.arguments).read(), Ok("of bob".to_owned()));

    // While the other is still connected.
    log_in(&now, "ann", 2);
    let (mut back, third, _) = greeted(&world, 3).await;
    assert!(third != first && third != second, "what ann had is gone");
    assert!(matches!(client.hear().await, Sent::Close(1000, _)));
    assert_eq!(unknown(&mut back, 5, 1, &[1, 2]).await, [1, 2]);
    assert_eq!(world.hub.clients(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_logs_in_as_another_user_calls_again_as_that() {
    let (world, now) = guarded(|builder| builder);
    log_in(&now, "ann", 1);
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    let replica: Replica<i64> = remote.compute(&method("ICounter.Get:2"), ("k",)).await.expect("a value");
    for (login, name) in (2..).zip(["bob", "ann", "bob"]) {
        log_in(&now, name, login);
        wire.cut();
        assert_eq!(remote.call(&method("IWho.Who:1"), ()).await, Ok((name.to_owned(), login)));
        assert!(replica.is_stale(), "what another was told is not known to hold");
    }
    assert_eq!((wire.connections(), world.hub.clients(), world.hub.open_calls()), (4, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_logged_out_calls_nothing_more() {
    let (world, now) = guarded(|builder| builder);
    log_in(&now, "ann", 1);
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("called");
    *now.lock().expect("no panic") = None;
    wire.cut();
    let nothing = method("IDemo.Nothing:1");
    let call = remote.call::<()>(&nothing, ());
    assert!(tokio::time::timeout(Duration::from_secs(5), call).await.is_err());
    log_in(&now, "ann", 2);
    remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("called");
}

/// Lets in everybody, and ann call everything. Others may add.
fn rules(builder: HubBuilder, asked: &Arc<Mutex<Vec<String>>>) -> HubBuilder {
    let asked = asked.clone();
    builder.authorize(move |caller, method| {
        asked.lock().expect("no panic").push(method.to_owned());
        let name = caller.session::<User>().map(|user| user.name.as_str());
        match (name, method) {
            (Some("ann"), _) | (_, "IDemo.Add:3") => Ok(()),
            (Some("eve"), _) => panic!("on purpose"),
            _ => Err(Failure::typed(ErrorInfo::UNAUTHORIZED, "not for you")),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_not_be_made_fails_before_its_arguments_are_read() {
    let asked = Arc::default();
    let (world, now) = guarded(|builder| rules(builder, &asked));
    log_in(&now, "bob", 1);
    let bob = remote(&Wire::to(&world.hub));
    let denied = CallError::Failed(Failure::typed(ErrorInfo::UNAUTHORIZED, "not for you"));
    assert_eq!(bob.call(&method("IDemo.Add:3"), (1, 2)).await, Ok(3));
    assert_eq!(bob.call::<String>(&method("IDemo.Slow:3"), ("x", 1)).await, Err(denied.clone()));
    assert_eq!(bob.call::<String>(&method("IDemo.Slow:3"), (7, "what")).await, Err(denied.clone()), "not that they cannot be read");
    let value: Replica<Result<i64, Failure>> = bob.try_compute(&method("ICounter.Get:2"), ("k",)).await.expect("a failure");
    assert_eq!(value.value().as_ref().map_err(|failure| CallError::Failed(failure.clone())), Err(denied));
    tokio::time::timeout(PATIENCE, value.stale()).await.expect("it may be allowed later");
    assert_eq!((world.runs.slow.load(Ordering::SeqCst), world.runs.get.load(Ordering::SeqCst)), (0, 0));
    // A sign of life, an end, a cancelled call: nothing that anybody is asked about.
    tokio::time::sleep(Duration::from_secs(15)).await;
    drop(value);
    let methods = ["IDemo.Add:3", "IDemo.Slow:3", "IDemo.Slow:3", "ICounter.Get:2"];
    assert_eq!(*asked.lock().expect("no panic"), methods);

    log_in(&now, "ann", 1);
    let ann = remote(&Wire::to(&world.hub));
    assert_eq!(ann.call(&method("IDemo.Slow:3"), ("x", 1)).await, Ok("x".to_owned()));
    log_in(&now, "eve", 1);
    let eve = remote(&Wire::to(&world.hub));
    let unclear = Failure::new("it cannot be found out whether the call may be made");
    assert_eq!(eve.call::<()>(&method("IDemo.Nothing:1"), ()).await, Err(unclear.into()));
    assert_eq!(eve.call(&method("IDemo.Add:3"), (1, 2)).await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_is_not_run_either_if_it_may_not_be() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let note = Service::new("INote").no_wait("Note:1", move |()| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {}
    });
    let asked = Arc::default();
    let (world, now) = guarded(|builder| rules(builder, &asked).service(note).expect("a service"));
    for (name, expected) in [("bob", 0), ("ann", 1)] {
        log_in(&now, name, 1);
        let remote = remote(&Wire::to(&world.hub));
        assert_eq!(remote.call(&method("IDemo.Add:3"), (1, 2)).await, Ok(3));
        remote.tell(&method("INote.Note:1"), ()).expect("told");
        assert_eq!(remote.call(&method("IDemo.Add:3"), (1, 2)).await, Ok(3));
        assert_eq!(runs.load(Ordering::SeqCst), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_one_of_its_own_type_and_nothing_of_it_is_shown() {
    let shown = Arc::new(Mutex::new(String::new()));
    let show = shown.clone();
    let service = Service::new("IShow").method("Show:1", move |(caller,): (Caller,)| {
        *show.lock().expect("no panic") = format!("{caller:?} {:?}", caller.remote());
        async move { Ok::<_, Failure>((caller.session::<String>().is_some(), caller.session::<User>().is_some())) }
    });
    let (world, now) = guarded(|builder| builder.service(service).expect("a service"));
    log_in(&now, "ann-the-secret", 1);
    let mut visitor = Visitor::new("id-that-nobody-may-see", FORMAT);
    world.hub.admit(&mut visitor).await.expect("let in");
    let visitor = format!("{visitor:?}");
    let remote = remote(&Wire::to(&world.hub)).with(wellspring_rpc::CallOptions::new().header("token", "a-secret-too"));
    assert_eq!(remote.call(&method("IShow.Show:1"), ()).await, Ok((false, true)));
    let shown = format!("{visitor} {} {:?}", shown.lock().expect("no panic"), world.hub);
    for secret in ["ann", "secret", "nobody-may-see"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    // A hub that asks nobody has no sessions, and a client has none of its server.
    let open = World::with(|builder| builder.service(who()).expect("a service"));
    let nobody = self::remote(&Wire::to(&open.hub)).call::<(String, u32)>(&method("IWho.Who:1"), ()).await;
    assert_eq!(nobody, Err(Failure::new("nobody").into()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_cut_off_before_it_heard_that_it_is_another_user_is_let_in_again() {
    let (world, now) = guarded(|builder| builder);
    log_in(&now, "ann", 1);
    let mut visitor = Visitor::new("client", FORMAT);
    world.hub.admit(&mut visitor).await.expect("let in");
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(9));
    let hello = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: None };
    let mut client = Client::connect(&world.hub, visitor);
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
    let theirs = client.expect("a handshake", |got| got.call == System::Handshake).await;
    let theirs: Handshake<'_> = Arguments::new(FORMAT, &theirs.arguments).read().expect("a handshake");
    let secret = Secret::new(theirs.secret.as_deref().expect("a secret"));
    client.leave().await;

    log_in(&now, "bob", 1);
    for tries in 1..=3 {
        // It does not read the secret of its new peer before it is cut off, and comes back with the old one.
        let mut visitor = Visitor::new("client", FORMAT);
        visitor.proof = Some(secret.prove("client", tries));
        assert_eq!(world.hub.admit(&mut visitor).await, Ok(()), "attempt {tries}");
        let client = Client::connect(&world.hub, visitor);
        client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.leave().await;
    }
    // Who has proved itself since has to.
    let (client, ..) = greeted(&world, 5).await;
    client.leave().await;
    assert_eq!(world.hub.clients(), 1);
}
