//! What a method knows of its caller, what a call may take, and calls the other way.

mod support;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::pipe::{Client, Sent, Wire};
use support::services::World;
use support::{PATIENCE, fixture, frame_of};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use wellspring::Engine;
use wellspring_rpc::wire::{Arguments, ErrorInfo, Format, Guid, Handshake, Head, Messages, MethodId, Raw, System};
use wellspring_rpc::{
    CallError, CallOptions, Caller, Connected, Failure, Hub, MethodLimits, Remote, Replica, Service, TraceContext, Visitor,
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes for ever")
}

fn with(service: Service) -> World {
    World::with(|builder| builder.service(service).expect("a service"))
}

fn client(wire: &Wire, hub: &Hub) -> Remote {
    Remote::builder(wire.clone()).hub(hub).backoff(Duration::from_millis(100), Duration::from_millis(100)).connect()
}

fn failure<T: std::fmt::Debug>(result: Result<T, CallError>) -> Failure {
    match result {
        Err(CallError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

/// What a client offers, and how often its slow method has run.
fn client_side() -> (Hub, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let service = Service::new("IClientSide")
        .method("Hello:2", |(name,): (String,)| async move { Ok::<_, Failure>(format!("client says hi to {name}")) })
        .method("Boom:1", |()| async { Err::<(), _>(Failure::new("nope")) })
        .method("Slow:2", move |(pause,): (u64,)| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, Failure>(pause)
            }
        });
    (Hub::builder().service(service).expect("a service").build(), runs)
}

/// Who was called back last.
type Known = Arc<Mutex<Option<Remote>>>;

/// A method by which a client has itself called back, and what came of the last such call.
fn calling_back() -> (Service, UnboundedReceiver<Result<u64, CallError>>, Known) {
    let (tell, told) = unbounded_channel();
    let known = Known::default();
    let kept = known.clone();
    let service = Service::new("IBack")
        .method("Hello:2", |(caller, name): (Caller, String)| async move {
            let remote = caller.remote();
            match name.as_str() {
                "" => remote.call::<String>(&method("IClientSide.Boom:1"), ()).await,
                name => remote.call(&method("IClientSide.Hello:2"), (name,)).await,
            }
            .map_err(|error| Failure::new(error.to_string()))
        })
        .no_wait("Slow:2", move |(caller, pause): (Caller, u64)| {
            let (remote, tell) = (caller.remote(), tell.clone());
            *kept.lock().expect("no panic") = Some(remote.clone());
            async move {
                let _ = tell.send(remote.call(&method("IClientSide.Slow:2"), (pause,)).await);
            }
        });
    (service, told, known)
}

/// What the server had the client asked, says the recording, is asked here by a call of the client's that was not recorded.
#[tokio::test(start_paused = true)]
async fn a_client_is_called_as_it_was() {
    for format in [Format::Json5np, Format::Msgpack6, Format::Msgpack6c] {
        let observed = Arc::new(Mutex::new(Vec::new()));
        let seen = observed.clone();
        let service = Service::new("ITest").no_wait("CallBack:1", move |(caller,): (Caller,)| {
            let seen = seen.clone();
            async move {
                let remote = caller.remote();
                let hello = remote.call::<String>(&method("IClientSide.Hello:2"), ("server",)).await;
                seen.lock().expect("no panic").push(hello);
                let boom = remote.call::<String>(&method("IClientSide.Boom:1"), ()).await;
                seen.lock().expect("no panic").push(boom);
            }
        });
        let world = with(service);
        let mut client: Option<Client> = None;
        let (mut said, mut answers) = (0, 0);
        for line in fixture(format, "reverse-call") {
            if line["event"] == "connect" {
                client = Some(Client::connect(&world.hub, Visitor::new("client", format)));
            }
            let Some(client) = client.as_mut() else { continue };
            if line["mark"] == "server -> client call" {
                client.say(&Head::call(0, 0, &method("ITest.CallBack:1")), |_| Ok(()));
            }
            match line["dir"].as_str() {
                Some("c2s") => client.send(frame_of(&line)),
                Some(_) => {
                    let frame = frame_of(&line);
                    let Sent::Frame(ours) = client.hear().await else { panic!("closed") };
                    let mut ours = Messages::new(format, &ours).map(|message| message.expect("a message"));
                    for theirs in Messages::new(format, &frame).map(|message| message.expect("recorded")) {
                        let ours = ours.next().expect("a message");
                        assert_eq!((ours.call_type, ours.related_id), (theirs.call_type, theirs.related_id), "{format}");
                        assert_eq!(ours.method, theirs.method, "{format}");
                        match System::of(&theirs.method) {
                            Some(System::Handshake) => {}
                            Some(_) => answers += 1,
                            None => said += 1,
                        }
                        if System::of(&theirs.method) != Some(System::Handshake) {
                            assert_eq!(ours.arguments, theirs.arguments, "{format}: {}", theirs.method);
                        }
                    }
                }
                None => {}
            }
        }
        assert_eq!((said, answers), (2, 1), "{format}");
        let observed = std::mem::take(&mut *observed.lock().expect("no panic"));
        assert_eq!(observed[0], Ok("client says hi to server".to_owned()));
        assert_eq!(observed[1], Err(CallError::Failed(Failure::typed(ErrorInfo::REMOTE, "TypeError: nope"))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_calls_its_client_in_every_format() {
    for format in Format::ALL {
        let (service, _, _) = calling_back();
        let world = with(service);
        let (hub, _) = client_side();
        let remote = Remote::builder(Wire::to(&world.hub)).format(format).hub(&hub).connect();
        assert_eq!(remote.call(&method("IBack.Hello:2"), ("you",)).await, Ok("client says hi to you".to_owned()));
        assert_eq!(failure(remote.call::<String>(&method("IBack.Hello:2"), ("",)).await).message(), "nope");
        assert_eq!((world.hub.open_calls(), remote.open_calls()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_called_through_cuts_and_its_body_runs_once() {
    for cut in [20, 99, 100, 101, 150] {
        let (service, mut told, known) = calling_back();
        let world = with(service);
        let (hub, runs) = client_side();
        let wire = Wire::to(&world.hub);
        let remote = client(&wire, &hub);
        remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("connected");
        remote.tell(&method("IBack.Slow:2"), (100,)).expect("told");
        tokio::time::sleep(Duration::from_millis(cut)).await;
        wire.cut();
        assert_eq!(soon(told.recv()).await, Some(Ok(100)), "cut after {cut} ms");
        assert_eq!(runs.load(Ordering::SeqCst), 1, "cut after {cut} ms");
        let back = known.lock().expect("no panic").clone().expect("called");
        assert_eq!(back.open_calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_client_that_is_away_waits_until_it_is_back() {
    let (service, mut told, known) = calling_back();
    let world = with(service);
    let (hub, runs) = client_side();
    let wire = Wire::to(&world.hub);
    let remote = client(&wire, &hub);
    remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("connected");
    remote.tell(&method("IBack.Slow:2"), (1,)).expect("told");
    assert_eq!(soon(told.recv()).await, Some(Ok(1)));
    let back = known.lock().expect("no panic").clone().expect("called");
    wire.set_down(true);
    soon(back.connected().wait_for(|state| *state == Connected::Connecting)).await.expect("remembered");
    let slow = method("IClientSide.Slow:2");
    let call = back.call::<u64>(&slow, (2,));
    let impatient = back.with(CallOptions::new().connect_timeout(Duration::ZERO));
    assert_eq!(impatient.call::<u64>(&slow, (3,)).await, Err(CallError::NotConnected(Duration::ZERO)));
    let coming = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        wire.set_down(false);
    };
    let (result, ()) = tokio::join!(call, coming);
    assert_eq!((result, runs.load(Ordering::SeqCst)), (Ok(2), 2));
    assert_eq!((*back.connected().borrow(), back.open_calls()), (Connected::Yes, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_has_values_of_its_client_that_say_when_they_are_stale() {
    let engine = Engine::new();
    let level = engine.source("level", |_: &String| 3_u32).expect("registered");
    let (asked, read) = (engine.clone(), level.clone());
    let service = Service::new("ISensor").compute("Level:2", move |(name,): (String,)| std::future::ready(read.computed(&asked, &name)));
    let hub = Hub::builder().service(service).expect("a service").build();
    let (tell, mut told) = unbounded_channel();
    let watch = Service::new("IWatch").no_wait("Watch:1", move |(caller,): (Caller,)| {
        let (tell, remote) = (tell.clone(), caller.remote());
        async move {
            let replica = remote.compute::<u32>(&method("ISensor.Level:2"), ("tank",)).await;
            let _ = tell.send(replica);
        }
    });
    let world = with(watch);
    let wire = Wire::to(&world.hub);
    let remote = client(&wire, &hub);
    remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("connected");
    remote.tell(&method("IWatch.Watch:1"), ()).expect("told");
    let replica = soon(told.recv()).await.expect("told").expect("a value");
    assert_eq!((*replica.value(), replica.is_stale()), (3, false));
    wire.set_down(true);
    soon(remote.connected().wait_for(|state| *state != Connected::Yes)).await.expect("it lives");
    level.set(&"tank".to_owned(), 4);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!replica.is_stale(), "nobody can know");
    wire.set_down(false);
    soon(replica.stale()).await;
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_client_that_is_gone_for_good_fail_and_nothing_is_left_of_it() {
    for client_id in ["client", ""] {
        let (service, mut told, known) = calling_back();
        let world = with(service);
        let mut client = Client::connect(&world.hub, Visitor::new(client_id, Format::Msgpack6c));
        let hello = Handshake {
            peer: Guid::from_u128(1),
            versions: None,
            hub: Guid::from_u128(2),
            protocol: Handshake::PROTOCOL,
            index: 1,
            secret: None,
        };
        client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
        client.say(&Head::call(0, 0, &method("IBack.Slow:2")), |out| out.value(&1));
        client.expect("a handshake", |got| got.call == System::Handshake).await;
        client.hear().await;
        client.drop_connection().await;
        // Longer than a client is remembered.
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(told.try_recv(), Ok(Err(CallError::Unreachable)), "{client_id:?}");
        let back = known.lock().expect("no panic").take().expect("called");
        assert_eq!((*back.connected().borrow(), back.open_calls(), world.hub.clients()), (Connected::Never, 0, 0));
        assert_eq!(back.call::<u64>(&method("IClientSide.Slow:2"), (1,)).await, Err(CallError::Unreachable));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_none_of_the_methods_says_so() {
    let (service, ..) = calling_back();
    let world = with(service);
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    let missing = failure(remote.call::<String>(&method("IBack.Hello:2"), ("you",)).await);
    assert!(missing.message().starts_with("Endpoint not found: '"), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn a_client_has_one_number_through_all_its_connections_and_nobody_else_has_it() {
    let service = Service::new("IWho").method("Who:1", |(caller,): (Caller,)| async move { Ok::<_, Failure>(caller.number()) });
    let world = with(service);
    let (wire, other) = (Wire::to(&world.hub), Wire::to(&world.hub));
    let (hub, _) = client_side();
    let (one, two) = (client(&wire, &hub), client(&other, &hub));
    let who = method("IWho.Who:1");
    let first: u64 = one.call(&who, ()).await.expect("a number");
    assert_ne!(two.call(&who, ()).await, Ok(first));
    wire.cut();
    assert_eq!(one.call(&who, ()).await, Ok(first));
    assert_eq!(wire.connections(), 2);
}

/// What the body of a call saw: its trace, and that of whatever it calls.
type Seen = (Option<String>, Option<String>, Option<String>);

fn trace_service() -> Service {
    Service::new("ITrace")
        .method("Seen:2", |(caller, later): (Caller, bool)| async move {
            if later {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let current = TraceContext::current();
            assert_eq!(current.as_ref(), caller.trace());
            let passed: Option<String> =
                caller.remote().call(&method("IClientTrace.Parent:1"), ()).await.map_err(|error| Failure::new(error.to_string()))?;
            assert_eq!(TraceContext::current(), current);
            let text = |trace: &TraceContext| (trace.parent().to_owned(), trace.state().map(str::to_owned));
            let (parent, state) = caller.trace().map(text).unzip();
            Ok::<Seen, Failure>((parent, state.flatten(), passed))
        })
        .method("Header:2", |(caller, key): (Caller, String)| async move { Ok::<_, Failure>(caller.header(&key).map(str::to_owned)) })
}

fn client_trace() -> Hub {
    let service = Service::new("IClientTrace")
        .method("Parent:1", |(caller,): (Caller,)| async move { Ok::<_, Failure>(caller.trace().map(|trace| trace.parent().to_owned())) });
    Hub::builder().service(service).expect("a service").build()
}

#[tokio::test(start_paused = true)]
async fn a_trace_goes_with_a_call_and_with_what_its_body_calls() {
    for format in Format::ALL {
        let world = with(trace_service());
        let remote = Remote::builder(Wire::to(&world.hub)).format(format).hub(&client_trace()).connect();
        let trace = TraceContext::new(PARENT, Some("vendor=1")).expect("well formed");
        let all = (Some(PARENT.to_owned()), Some("vendor=1".to_owned()), Some(PARENT.to_owned()));
        for later in [false, true] {
            let said = remote.with(CallOptions::new().trace(trace.clone())).call(&method("ITrace.Seen:2"), (later,)).await;
            assert_eq!(said, Ok::<Seen, _>(all.clone()), "{format}");
            let scoped = trace.clone().scope(remote.call(&method("ITrace.Seen:2"), (later,))).await;
            assert_eq!(scoped, Ok::<Seen, _>(all.clone()), "{format}");
            assert_eq!(remote.call(&method("ITrace.Seen:2"), (later,)).await, Ok::<Seen, _>((None, None, None)), "{format}");
        }
        assert_eq!(TraceContext::current(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_is_none_is_ignored_and_a_state_that_is_too_long_is_dropped() {
    let world = with(trace_service());
    let format = Format::Json5np;
    let mut client = Client::connect(&world.hub, Visitor::new("client", format));
    let hello = Handshake {
        peer: Guid::from_u128(1),
        versions: None,
        hub: Guid::from_u128(2),
        protocol: Handshake::PROTOCOL,
        index: 1,
        secret: None,
    };
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
    let long = "x".repeat(513);
    let none = [("~p", "00-nonsense")];
    let too_long = [("~p", PARENT), ("~s", &long)];
    let alone = [("~s", "vendor=1")];
    let among_others = [("other", "header"), ("~p", PARENT)];
    let cases = [(&none[..], None), (&too_long, Some(PARENT)), (&alone, None), (&among_others, Some(PARENT))];
    for (id, (headers, parent)) in (1..).zip(cases) {
        client.say(&Head::call(0, 2 * id, &method("ITrace.Header:2")).with(headers), |out| out.value("other"));
        let answer = client.expect("an answer", |got| got.id == 2 * id).await;
        let header = headers.iter().find(|(key, _)| *key == "other").map(|(_, value)| (*value).to_owned());
        assert_eq!(Arguments::new(format, &answer.arguments).read(), Ok(header));
        client.say(&Head::call(0, 2 * id + 1, &method("ITrace.Seen:2")).with(headers), |out| out.value(&false));
        let Sent::Frame(frame) = client.hear().await else { panic!("closed") };
        let asked = Messages::new(format, &frame).next().expect("a message").expect("read");
        assert_eq!((asked.headers.get("~p"), asked.headers.get("~s")), (parent, None));
    }
}

#[tokio::test(start_paused = true)]
async fn headers_go_with_calls_also_when_they_are_sent_again() {
    let world = with(trace_service());
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    let options = CallOptions::new().header("tenant", "blue \u{1F600}\n\u{1e}");
    assert!(!format!("{options:?}").contains("blue"));
    let remote = Remote::builder(wire.clone()).options(options).connect();
    let header = method("ITrace.Header:2");
    let call = remote.call(&header, ("tenant",));
    let up = async { wire.set_down(false) };
    let (tenant, ()) = tokio::join!(call, up);
    assert_eq!(tenant, Ok(Some("blue \u{1F600}\n\u{1e}".to_owned())));
    assert_eq!(remote.with(CallOptions::new()).call(&header, ("tenant",)).await, Ok(None::<String>));
    for (key, value) in [("#", ""), ("~p", PARENT), ("v", "1"), ("", "x"), ("long", &*"x".repeat(1_025)), (&*"x".repeat(256), "x")] {
        let remote = remote.with(CallOptions::new().header(key.to_owned(), value.to_owned()));
        let refused = remote.call::<Raw>(&header, (key,)).await;
        assert!(matches!(refused, Err(CallError::Unsendable(_))), "{key}: {refused:?}");
        assert!(remote.tell(&method("IDemo.Ping:2"), ("x",)).is_err(), "{key}");
    }
    assert_eq!(remote.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_for_its_caller_is_given_up_and_the_server_is_told() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let second = Duration::from_secs(1);
    let remote = Remote::builder(wire.clone()).options(CallOptions::new().timeout(second)).connect();
    let slow = method("IDemo.Slow:3");
    assert_eq!(remote.call(&slow, ("x", 900)).await, Ok("x".to_owned()));
    assert_eq!(remote.call::<String>(&slow, ("x", 1_100)).await, Err(CallError::TimedOut(second)));
    let late = remote.compute::<i64>(&method("ICounter.Slow:3"), ("k", 1_100)).await;
    assert_eq!(late.err(), Some(CallError::TimedOut(second)));
    assert_eq!(remote.with(CallOptions::new()).call(&slow, ("x", 1_100)).await, Ok("x".to_owned()));
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
    wire.set_down(true);
    soon(remote.connected().wait_for(|state| *state != Connected::Yes)).await.expect("it lives");
    let began = tokio::time::Instant::now();
    let patience = remote.with(CallOptions::new().connect_timeout(5 * second).timeout(10 * second));
    assert_eq!(patience.call::<String>(&slow, ("x", 1)).await, Err(CallError::NotConnected(5 * second)));
    assert_eq!((began.elapsed(), remote.open_calls()), (5 * second, 0));
    wire.set_down(false);
    let patience = remote.with(CallOptions::new().connect_timeout(100 * second));
    assert_eq!(patience.call(&slow, ("x", 1)).await, Ok("x".to_owned()));
}

/// How many bodies are there.
struct There(Arc<AtomicUsize>);

impl Drop for There {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Methods whose bodies wait for somebody to let them go, how many of those there are, and who lets them.
fn waiting(limits: MethodLimits) -> (Service, Arc<AtomicUsize>, Arc<Notify>) {
    let (there, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let body = {
        let (there, go) = (there.clone(), go.clone());
        move || {
            there.fetch_add(1, Ordering::SeqCst);
            let (here, go) = (There(there.clone()), go.clone());
            async move {
                go.notified().await;
                drop(here);
            }
        }
    };
    let (wait, tell) = (body.clone(), body);
    let service = Service::new("IWait")
        .method("Free:2", |(text,): (String,)| async move { Ok::<_, Failure>(text.len()) })
        .method("Wait:2", move |(_,): (String,)| {
            let body = wait();
            async move {
                body.await;
                Ok::<_, Failure>(())
            }
        })
        .limits(limits)
        .no_wait("Tell:1", move |()| tell())
        .limits(limits);
    (service, there, go)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_too_long_is_dropped_and_its_caller_hears_why() {
    let (service, there, _go) = waiting(MethodLimits::new().timeout(Duration::from_secs(2)));
    let world = with(service);
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    remote.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("connected");
    let began = tokio::time::Instant::now();
    let late = failure(remote.call::<()>(&method("IWait.Wait:2"), ("x",)).await);
    assert_eq!(late, Failure::typed(ErrorInfo::TIMEOUT, "The call of 'IWait.Wait:2' takes too long."));
    assert_eq!((began.elapsed(), there.load(Ordering::SeqCst), world.hub.open_calls()), (Duration::from_secs(2), 0, 0));
    remote.tell(&method("IWait.Tell:1"), ()).expect("told");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(there.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(there.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_compute_call_that_takes_too_long_fails_with_a_value_that_ends() {
    let world = World::with(|builder| builder.limits(MethodLimits::new().timeout(Duration::from_secs(1))));
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    let slow = method("ICounter.Slow:3");
    let late: Replica<Result<i64, Failure>> = remote.try_compute(&slow, ("k", 1_500)).await.expect("a failure");
    assert_eq!(late.value().as_ref().map_err(Failure::type_name), Err("System.TimeoutException"));
    soon(late.stale()).await;
    let value: Replica<i64> = remote.compute(&slow, ("k", 500)).await.expect("in time");
    assert_eq!((*value.value(), value.is_stale()), (0, false));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!value.is_stale(), "only the body has a limit, not the value");
}

#[tokio::test(start_paused = true)]
async fn a_method_runs_so_many_bodies_at_once_and_a_place_is_free_when_one_is_over() {
    let (service, there, go) = waiting(MethodLimits::new().at_once(2));
    let world = with(service);
    let remotes = [Remote::builder(Wire::to(&world.hub)).connect(), Remote::builder(Wire::to(&world.hub)).connect()];
    let wait = method("IWait.Wait:2");
    let mut calls: Vec<_> = remotes.iter().map(|remote| Box::pin(remote.call::<()>(&wait, ("x",)))).collect();
    for call in &mut calls {
        assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    }
    assert_eq!(there.load(Ordering::SeqCst), 2);
    let refused = failure(remotes[0].call::<()>(&wait, ("x",)).await);
    let why = "More than 2 calls of 'IWait.Wait:2' at once: try again later.";
    assert_eq!(refused, Failure::typed(ErrorInfo::INVALID_OPERATION, why));
    assert_eq!(remotes[0].call(&method("IWait.Free:2"), ("x",)).await, Ok(1));
    // One is over by itself, and one is cancelled.
    go.notify_one();
    let mut second = calls.pop().expect("two");
    assert_eq!(soon(calls.pop().expect("two")).await, Ok(()));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err());
    drop(second);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(there.load(Ordering::SeqCst), 0);
    for _ in 0..3 {
        go.notify_one();
        assert_eq!(soon(remotes[1].call::<()>(&wait, ("x",))).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_runs_so_many_bodies_at_once_whatever_they_are() {
    let (service, there, go) = waiting(MethodLimits::new());
    let world = World::with(|builder| builder.at_once(2).service(service).expect("a service"));
    let (one, other) = (Remote::builder(Wire::to(&world.hub)).connect(), Remote::builder(Wire::to(&world.hub)).connect());
    one.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("connected");
    one.tell(&method("IWait.Tell:1"), ()).expect("told");
    let wait = method("IWait.Wait:2");
    let mut first = Box::pin(one.call::<()>(&wait, ("x",)));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut first).await.is_err());
    let refused = failure(one.call::<usize>(&method("IWait.Free:2"), ("x",)).await);
    assert_eq!(refused.message(), "More than 2 calls of this client at once: try again later.");
    // What is not answered is not run either.
    one.tell(&method("IWait.Tell:1"), ()).expect("told");
    assert_eq!(other.call(&method("IWait.Free:2"), ("x",)).await, Ok(1));
    assert_eq!(there.load(Ordering::SeqCst), 2);
    go.notify_waiters();
    assert_eq!(soon(first).await, Ok(()));
    assert_eq!(one.call(&method("IWait.Free:2"), ("x",)).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn arguments_that_are_larger_than_a_method_takes_are_refused() {
    let (service, there, _go) = waiting(MethodLimits::new().argument_bytes(10));
    let world = with(service);
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    let refused = failure(remote.call::<()>(&method("IWait.Wait:2"), ("0123456789",)).await);
    assert_eq!(refused, Failure::typed(ErrorInfo::ARGUMENT, "The arguments of 'IWait.Wait:2' have 11 bytes, and may have 10."));
    assert_eq!(there.load(Ordering::SeqCst), 0);
    assert_eq!(remote.call(&method("IWait.Free:2"), ("0123456789",)).await, Ok(10));
}

#[tokio::test(start_paused = true)]
async fn a_method_is_told_its_deadline() {
    let service = Service::new("ILeft")
        .method("Left:1", |(caller,): (Caller,)| async move {
            Ok::<_, Failure>(caller.deadline().map(|deadline| deadline.duration_since(tokio::time::Instant::now()).as_secs()))
        })
        .method("Own:1", |(caller,): (Caller,)| async move { Ok::<_, Failure>(caller.deadline().is_some()) })
        .limits(MethodLimits::new());
    let world = World::with(|builder| {
        let builder = builder.limits(MethodLimits::new().timeout(Duration::from_secs(7)));
        builder.service(service).expect("a service")
    });
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    assert_eq!(remote.call(&method("ILeft.Left:1"), ()).await, Ok(Some(7)));
    assert_eq!(remote.call(&method("ILeft.Own:1"), ()).await, Ok(false), "its own limits are all that it has");
}
