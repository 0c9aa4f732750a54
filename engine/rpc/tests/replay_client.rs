//! Conversations that were recorded between the peer's own client and server: our client does as theirs did, and understands what their server says,
//! also what was made by hand after the .NET sources.
//!
//! The test plays the server: it says the recorded frames as they are, and has the client make the recorded calls. Numbers of calls are those of the
//! recording, as both ends count from one.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream;
use serde_json::Value;
use support::loose::Loose;
use support::recorded::{RECORDED, Said, addressed, asked, each_argument, indexed, is_same, loose, names, said_in};
use support::script::{Link, Links, Script};
use support::{PATIENCE, fixture, frame_of};
use tokio::task::JoinHandle;
use wellspring_rpc::transport::Incoming;
use wellspring_rpc::wire::{Arguments, ErrorInfo, Format, Guid, Handshake, MethodId, Packed, Proof, Raw, Secret, System};
use wellspring_rpc::{CallError, Connected, Failure, Hub, Remote, Replica, RpcStream, Service, Timings};

/// What the recorded servers gave for their secret.
const SECRET: &str = "xlHGbajpOkxzI-yS7ZqjKRzncF4sC25YezNcdQD9yOI";

/// The owner of the recorded client's streams.
const THEIRS: [&str; 1] = ["c1c1c1c1-1111-4222-8333-444444444444"];

/// What came of a call: a value, as JavaScript has it if it can have it, or why there is none.
#[derive(Debug)]
enum Outcome {
    Value(Option<Loose>),
    Failed(CallError),
    Stream,
}

/// What comes of a call.
enum Running {
    Value(JoinHandle<Result<Option<Loose>, CallError>>),
    Computed(JoinHandle<Result<Replica<Result<Loose, Failure>>, CallError>>),
    Stream(JoinHandle<Result<RpcStream<Loose>, CallError>>),
}

/// What is read of a stream.
#[derive(Default)]
struct Items {
    items: Vec<Result<Loose, Failure>>,
    over: bool,
}

struct Play {
    format: Format,
    scenario: &'static str,
    mark: String,
    remote: Remote,
    links: Links,
    link: Option<Link>,
    names: Vec<String>,
    us: Option<Guid>,
    running: HashMap<u64, Running>,
    outcomes: Vec<(u64, Outcome)>,
    replicas: HashMap<u64, Replica<Result<Loose, Failure>>>,
    streams: Vec<Arc<Mutex<Items>>>,
    readers: Vec<JoinHandle<RpcStream<Loose>>>,
    compared: usize,
}

fn loosely(format: Format, raw: &Raw) -> Option<Loose> {
    Arguments::new(format, raw.bytes()).read().ok()
}

/// Runs the clock until something is so.
async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let so = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("never: {what}"));
}

impl Play {
    fn new(format: Format, scenario: &'static str, lines: &[Value]) -> Play {
        let (script, links) = Script::new();
        let mut timings = Timings::default();
        if scenario == "keepalive" {
            timings.keep_alive = Duration::from_millis(150);
        }
        // What the recorded client offered.
        let offered = Service::new("IClientSide")
            .method("Hello:2", |(name,): (String,)| async move { Ok::<_, Failure>(format!("client says hi to {name}")) })
            .method("Boom:1", |()| async { Err::<(), _>(Failure::new("TypeError: nope")) });
        let hub = Hub::builder().timings(timings).service(offered).expect("a service").build();
        let pause = Duration::from_millis(100);
        let remote = Remote::builder(script).format(format).hub(&hub).backoff(pause, pause).connect();
        let names = names(lines).into_iter().map(str::to_owned).collect();
        Play {
            format,
            scenario,
            mark: String::new(),
            remote,
            links,
            link: None,
            names,
            us: None,
            running: HashMap::new(),
            outcomes: Vec::new(),
            replicas: HashMap::new(),
            streams: Vec::new(),
            readers: Vec::new(),
            compared: 0,
        }
    }

    fn what(&self) -> String {
        format!("{} {}: {}", self.format, self.scenario, self.mark)
    }

    /// Has the client make a call, as the recorded one was made.
    fn start(&mut self, call: &Said) {
        let method = MethodId::new(call.name.clone()).expect("short");
        let (remote, format) = (self.remote.clone(), self.format);
        let mut arguments = Arguments::new(format, &call.arguments);
        macro_rules! read {
            ($($of:ty),*) => { ($(arguments.read::<$of>().expect("recorded"),)*) };
        }
        macro_rules! value {
            ($of:ty, $arguments:expr, $into:expr) => {{
                let arguments = $arguments;
                Running::Value(tokio::spawn(async move { remote.call::<$of>(&method, arguments).await.map($into) }))
            }};
        }
        let number = |number: i64| Some(Loose::Number(number as f64));
        let running = match (call.name.as_str(), call.call_type) {
            ("IDemo.Ping:2", _) => return self.remote.tell(&method, read!(String)).expect("written"),
            (name, 1) => {
                let remote = remote.clone();
                let slow = name == "ICounter.Slow:3";
                let (key, pause) = (read!(String).0, if slow { read!(u64).0 } else { 0 });
                Running::Computed(tokio::spawn(async move {
                    if slow { remote.try_compute(&method, (key, pause)).await } else { remote.try_compute(&method, (key,)).await }
                }))
            }
            ("IDemo.Add:3", _) => value!(i64, read!(i64, i64), number),
            ("IDemo.Nothing:1", _) => value!((), (), |()| Some(Loose::Nothing)),
            ("IDemo.EchoAny:2" | "IDemo.Missing:2", _) => value!(Raw, read!(Raw), move |raw| loosely(format, &raw)),
            ("IDemo.Fail:2", _) => value!((), read!(String), |()| Some(Loose::Nothing)),
            ("INope.Nope:1", _) => value!((), (), |()| Some(Loose::Nothing)),
            ("IDemo.Slow:3", _) => value!(String, read!(String, u64), |text| Some(Loose::Text(text))),
            ("ICounter.Get:2", _) => value!(i64, read!(String), number),
            ("ICounter.Set:3", _) => value!((), read!(String, i64), |()| Some(Loose::Nothing)),
            ("ISum.Sum:2", _) => {
                let numbers = RpcStream::new(stream::iter(1..=5_i64)).window(2, 3);
                value!(i64, (numbers,), number)
            }
            ("IDemo.Count:4", _) => {
                let arguments = read!(i64, u32, u32);
                Running::Stream(tokio::spawn(async move { remote.call(&method, arguments).await }))
            }
            ("IDemo.CountThenFail:2" | "IDemo.Batches:2", _) => {
                let arguments = read!(u32);
                Running::Stream(tokio::spawn(async move { remote.call(&method, arguments).await }))
            }
            other => panic!("nobody knows how to call {other:?}"),
        };
        self.running.insert(call.id, running);
    }

    /// Reads a stream in the way that its reader did: to its end, unless the recording says that it left.
    fn read(&mut self, mut stream: RpcStream<Loose>) {
        let items = Arc::<Mutex<Items>>::default();
        let most = if self.mark.contains("leaves after 3 items") { 3 } else { usize::MAX };
        let read = items.clone();
        self.streams.push(items);
        self.readers.push(tokio::spawn(async move {
            for _ in 0..most {
                let Some(item) = stream.next().await else { break };
                read.lock().unwrap_or_else(PoisonError::into_inner).items.push(item);
            }
            read.lock().unwrap_or_else(PoisonError::into_inner).over = true;
            // Whoever has read it all may hold it for a while.
            stream
        }));
    }

    /// What came of a call, which is what the recorded answer says.
    async fn outcome(&mut self, answer: &Said) {
        let (what, format) = (format!("{}: {answer:?}", self.what()), self.format);
        // A call that was given up, or one that only the recorded client could make.
        let Some(running) = self.running.remove(&answer.id) else { return };
        macro_rules! joined {
            ($task:expr) => {
                tokio::time::timeout(PATIENCE, $task).await.unwrap_or_else(|_| panic!("{what}: no answer")).expect("no panic")
            };
        }
        let outcome = match running {
            Running::Value(task) => joined!(task).map_or_else(Outcome::Failed, Outcome::Value),
            Running::Computed(task) => match joined!(task) {
                Ok(replica) => {
                    let outcome = match replica.value() {
                        Ok(value) => Outcome::Value(Some(value.clone())),
                        Err(failure) => Outcome::Failed(failure.clone().into()),
                    };
                    self.replicas.insert(answer.id, replica);
                    outcome
                }
                Err(error) => Outcome::Failed(error),
            },
            Running::Stream(task) => {
                self.read(joined!(task).unwrap_or_else(|error| panic!("{what}: {error}")));
                Outcome::Stream
            }
        };
        match (&outcome, answer.system()) {
            (Outcome::Value(value), Some(System::Ok)) => {
                let recorded = Arguments::new(format, &answer.arguments).read::<Loose>().ok();
                // An empty object is nothing where nothing is expected.
                let is_nothing = *value == Some(Loose::Nothing) && recorded == Some(Loose::Map(BTreeMap::new()));
                assert!(is_nothing || *value == recorded, "{what}: {outcome:?}");
            }
            (Outcome::Failed(CallError::Failed(failure)), Some(System::Error)) => {
                let recorded: ErrorInfo<'_> = Arguments::new(format, &answer.arguments).read().expect("a failure");
                let failure = (Some(failure.type_name()), failure.message());
                assert_eq!(failure, (recorded.type_ref.split(',').next(), &*recorded.message), "{what}");
            }
            // A value that is marked as of some type: neither client takes it.
            (Outcome::Failed(CallError::Unreadable(_)), Some(System::Ok)) => assert!(self.mark.starts_with("polymorphic marker"), "{what}"),
            (Outcome::Stream, Some(System::Ok)) => {}
            other => panic!("{what}: {other:?}"),
        }
        self.compared += 1;
        self.outcomes.push((answer.id, outcome));
    }

    async fn connected(&mut self, line: &Value) {
        let mut link = self.links.next().await;
        let visitor = &link.visitor;
        assert_eq!(asked(line, "f"), Some(visitor.format.key()), "{}", self.what());
        if let Some(us) = self.us {
            assert_eq!(visitor.client_id, us.client_id());
        }
        let proof = asked(line, "c").map(|counter| {
            let number = counter.parse().expect("a number");
            let code = asked(line, "p").expect("a proof");
            assert_eq!(Secret::new(SECRET).prove(asked(line, "clientId").expect("an id"), number).code, code);
            Proof { counter: counter.to_owned(), code: Secret::new(SECRET).prove(&visitor.client_id, number).code }
        });
        assert_eq!(visitor.proof, proof, "{}", self.what());
        link.names.clone_from(&self.names);
        self.link = Some(link);
    }

    /// The client is to say what the recorded one said.
    async fn is_said(&mut self, theirs: Said) {
        let (what, format) = (format!("{}: {theirs:?}", self.what()), self.format);
        let call = theirs.system();
        if call == Some(System::Reconnect) && self.mark.starts_with("deliberate second") {
            // No client does that, and the recorded one was made to.
            return;
        }
        if call == Some(System::Cancel) {
            // Whoever waits for it does so no more.
            match self.running.remove(&theirs.id) {
                Some(Running::Value(task)) => task.abort(),
                Some(_) => panic!("{what}"),
                None => drop(self.replicas.remove(&theirs.id).unwrap_or_else(|| panic!("{what}: nobody has it"))),
            }
        }
        if call.is_none() && !self.is_started(theirs.id) {
            self.start(&theirs);
        }
        let us = self.us;
        let link = self.link.as_mut().expect("connected");
        if call == Some(System::KeepAlive) {
            let ids = |said: &Said| Arguments::new(format, &said.arguments).read::<Vec<u64>>().expect("ids");
            link.expect(&what, |said| said.system() == call && ids(said) == ids(&theirs)).await;
            self.compared += 1;
            return;
        }
        // Acknowledgements of one stream are told by how far they go; those that are passed over come when they will.
        let next = |said: &Said| Arguments::new(format, &said.arguments).read::<u64>().expect("an index");
        let is_indexed = matches!(call, Some(System::Ack | System::Item | System::End));
        let is = |said: &Said| said.name == theirs.name && said.id == theirs.id && (!is_indexed || next(said) == next(&theirs));
        let ours = link.expect(&what, is).await;
        self.compared += 1;
        assert_eq!(ours.call_type, theirs.call_type, "{what}");
        match call {
            Some(System::Handshake) => {
                let read = |said| Arguments::new(format, said).read::<Handshake<'_>>().expect("a handshake");
                let (ours, theirs) = (read(&ours.arguments), read(&theirs.arguments));
                assert_eq!((ours.protocol, ours.index, &ours.secret), (theirs.protocol, theirs.index, &theirs.secret), "{what}");
                assert!(us.is_none_or(|us| us == ours.peer), "{what}: it is another one");
                assert_eq!(link.visitor.client_id, ours.peer.client_id());
                self.us = Some(ours.peer);
            }
            Some(System::Reconnect) => {
                type Asked<'a> = (i32, BTreeMap<u32, Packed<'a>>);
                let read = |said: &Said| -> (i32, BTreeMap<u32, Vec<u64>>) {
                    let mut arguments = Arguments::new(format, &said.arguments);
                    let (index, stages): Asked<'_> = (arguments.read().expect("an index"), arguments.read().expect("stages"));
                    let ids = |packed: &Packed<'_>| packed.ids().collect::<Result<_, _>>().expect("ids");
                    (index, stages.iter().map(|(stage, packed)| (*stage, ids(packed))).collect())
                };
                let ((index, mut stages), theirs) = (read(&ours), read(&theirs));
                // The recorded client gives up whatever it has at a cut. Ours, as .NET's, asks whether it is still so.
                let mut held: Vec<u64> = self.replicas.keys().copied().collect();
                held.sort_unstable();
                assert_eq!(stages.remove(&1).unwrap_or_default(), held, "{what}");
                assert_eq!((index, stages), theirs, "{what}");
            }
            Some(System::Ok) => assert!(is_same(format, &ours.arguments, &theirs.arguments), "{what}: {ours:?}"),
            Some(System::Error) => {
                let read = |said| Arguments::new(format, said).read::<ErrorInfo<'_>>().expect("a failure");
                assert_eq!(read(&ours.arguments), read(&theirs.arguments), "{what}");
            }
            Some(System::Ack | System::AckEnd | System::Cancel) => assert_eq!(ours.arguments, theirs.arguments, "{what}"),
            Some(System::Item) => {
                let (ours, theirs): ((u64, Loose), (u64, Loose)) = (indexed(format, &ours.arguments), indexed(format, &theirs.arguments));
                assert_eq!(ours, theirs, "{what}");
            }
            Some(System::End) => {
                let (ours, theirs): ((u64, ErrorInfo<'_>), (u64, ErrorInfo<'_>)) =
                    (indexed(format, &ours.arguments), indexed(format, &theirs.arguments));
                assert_eq!(ours, theirs, "{what}");
            }
            Some(other) => panic!("{what}: nobody knows how to compare {other:?}"),
            None => {
                let (ours, theirs) = (each_argument(format, &ours.arguments), each_argument(format, &theirs.arguments));
                assert_eq!(ours.len(), theirs.len(), "{what}");
                assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| is_same(format, ours, theirs)), "{what}: {ours:?}");
            }
        }
    }

    fn is_started(&self, id: u64) -> bool {
        id != 0 && (self.running.contains_key(&id) || self.outcomes.iter().any(|(known, _)| *known == id))
    }

    /// The server says what the recorded one said.
    async fn say(&mut self, line: &Value) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let said = said_in(self.format, line, &names);
        self.link.as_ref().expect("connected").send(addressed(frame_of(line), &THEIRS, self.us));
        for said in said {
            match said.system() {
                Some(System::Ok | System::Error) => self.outcome(&said).await,
                Some(System::Invalidate) => {
                    let what = self.what();
                    let replica = self.replicas.remove(&said.id).unwrap_or_else(|| panic!("{what}: nobody waits for it"));
                    tokio::time::timeout(PATIENCE, replica.stale()).await.unwrap_or_else(|_| panic!("{what}: it is not stale"));
                    self.compared += 1;
                }
                _ => {}
            }
        }
    }

    /// What the application on the client saw.
    async fn is_seen(&mut self, name: &str, value: &Value) {
        let what = format!("{}: {name} {value}", self.what());
        let items = |at: usize| self.streams[at].lock().unwrap_or_else(PoisonError::into_inner);
        match name {
            // What the recorder asked the server, or had it ask the client, whose answers are compared where they are said.
            "Hello" | "Boom (threw)" | "server saw pings" | "executions of Slow" | "server-side executions of Slow (regular, compute)" => {
                return;
            }
            "clientId" => assert_eq!(self.link.as_ref().map(|link| &link.visitor.client_id), self.us.map(|us| us.client_id()).as_ref()),
            // Each invalidation that comes is waited for; and who has another peer finds all of them.
            "invalidated" | "Slow invalidated" => assert_eq!(value, true, "{what}"),
            "peerChanged events" => assert_eq!(value, 1, "{what}"),
            "old computed consistent" => {
                let old = self.replicas.remove(&1).expect("it is held");
                assert!(tokio::time::timeout(PATIENCE, old.stale()).await.is_ok(), "{what}");
            }
            // Different, on purpose: it was not given up at the cut, and the server has not said that it is stale.
            "old Get('k') computed still consistent" => assert!(!self.replicas[&1].is_stale(), "{what}"),
            "2nd Reconnect (threw)" => return,
            "client stopped; unsupportedFormat event" => {
                let mut state = self.remote.connected();
                let stopped = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state == Connected::Never)).await;
                stopped.expect("it goes on").expect("it lives");
                let call = self.remote.call::<()>(&MethodId::new("IDemo.Nothing:1").expect("short"), ()).await;
                assert_eq!(call, Err(CallError::Unreachable));
            }
            "Slow (threw)" => assert!(self.mark.contains("aborted by the caller"), "{what}"),
            "first item" => {
                eventually(&what, || !items(0).items.is_empty()).await;
                assert_eq!(items(0).items, [Ok(loose(value))], "{what}");
            }
            "iterator threw" => {
                eventually(&what, || items(0).over).await;
                assert!(matches!(items(0).items.as_slice(), [Ok(_), Err(_)]), "{what}");
                drop(self.readers.pop().expect("a reader").await.expect("no panic"));
            }
            "items" => {
                let last = self.streams.len() - 1;
                eventually(&what, || items(last).over).await;
                let seen = items(last).items.clone();
                let recorded = value.as_array().expect("a list");
                assert_eq!(seen.len(), recorded.len(), "{what}: {seen:?}");
                for (seen, recorded) in seen.iter().zip(recorded) {
                    match seen {
                        Ok(item) => assert_eq!(*item, loose(recorded), "{what}"),
                        Err(failure) => {
                            let failure = (Some(failure.type_name()), Some(failure.message()));
                            assert_eq!(failure, (recorded["name"].as_str(), recorded["message"].as_str()), "{what}");
                        }
                    }
                }
                drop(self.readers.pop().expect("a reader").await.expect("no panic"));
            }
            name if name.ends_with("(threw)") => match self.outcomes.last().expect("a call") {
                (_, Outcome::Failed(CallError::Failed(failure))) => {
                    let failure = (Some(failure.type_name()), Some(failure.message()));
                    assert_eq!(failure, (value["typeName"].as_str(), value["message"].as_str()), "{what}");
                }
                (_, Outcome::Failed(CallError::Unreadable(_))) => {
                    assert!(value["message"].as_str().expect("a text").contains("polymorphic"), "{what}");
                }
                other => panic!("{what}: {other:?}"),
            },
            _ => {
                let recorded = loose(value);
                let is = |outcome: &Outcome| match outcome {
                    // What JavaScript has no value for, the recorder had none either.
                    Outcome::Value(None) => recorded == Loose::Map(BTreeMap::new()),
                    Outcome::Value(Some(Loose::Nothing)) => {
                        recorded == Loose::Nothing || (recorded == Loose::Map(BTreeMap::new()) && self.mark.starts_with("void result"))
                    }
                    Outcome::Value(Some(value)) => *value == recorded,
                    _ => false,
                };
                assert!(self.outcomes.iter().rev().take(4).any(|(_, outcome)| is(outcome)), "{what}: {:?}", self.outcomes.last());
            }
        }
        self.compared += 1;
    }

    /// The recorded client has left: ours has said all of what that said, and nothing else.
    async fn left(&mut self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Of a stream that the server has forgotten, ours says as .NET's does that it is done with it; and of one that it was done with just before the
        // connection broke it says so once more on the next.
        let says_so_again = matches!(self.scenario, "keepalive" | "dotnet-shaped.derived");
        let what = self.what();
        let link = self.link.as_mut().expect("connected");
        let left: Vec<&Said> = link.hear_all().iter().collect();
        let is_expected = |said: &Said| says_so_again && said.system() == Some(System::AckEnd);
        assert!(left.iter().all(|said| is_expected(said)), "{what}: {left:?}");
        assert_eq!(self.remote.open_streams(), 0, "{what}");
        assert_eq!(self.remote.open_calls(), self.replicas.len(), "{what}");
    }
}

async fn play(format: Format, scenario: &'static str) {
    let lines = fixture(format, scenario);
    let mut play = Play::new(format, scenario, &lines);
    let names: Vec<String> = play.names.clone();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (at, line) in lines.iter().enumerate() {
        match (line["event"].as_str(), line["dir"].as_str()) {
            (Some("connect"), _) => play.connected(line).await,
            (Some("closed"), _) => match line["code"].as_u64() {
                Some(1006) => play.link.as_mut().expect("connected").cut(),
                Some(1005) => play.left().await,
                // Said before the client was seen to stop.
                Some(4001) => {}
                code => panic!("{code:?}"),
            },
            (_, Some("c2s")) => {
                for said in said_in(format, line, &names) {
                    play.is_said(said).await;
                }
            }
            (_, Some(_)) => play.say(line).await,
            _ => {}
        }
        if let Some(mark) = line["mark"].as_str() {
            play.mark = mark.to_owned();
            if mark.starts_with("server drops the socket") {
                play.link.as_mut().expect("connected").cut();
            }
            if mark.ends_with("while disconnected is queued") {
                eventually("it knows", || *play.remote.connected().borrow() != Connected::Yes).await;
                let next = lines[at..].iter().filter(|line| line["dir"] == "c2s").flat_map(|line| said_in(format, line, &names));
                let call = next.into_iter().find(|said| said.system().is_none() && !play.is_started(said.id)).expect("a call");
                play.start(&call);
            }
        }
        if let Some(seen) = line["observed"].as_str() {
            if scenario == "unsupported-format" {
                let close = lines.iter().find(|line| line["event"] == "closed").expect("recorded");
                let code = u16::try_from(close["code"].as_u64().expect("a code")).expect("a code");
                play.link.as_ref().expect("connected").send_as(Incoming::Closed(code));
            }
            play.is_seen(seen, &line["value"]).await;
        }
    }
    // Every message of the recorded client's was waited for, but for the one that no client sends; and more was looked at.
    let theirs = lines.iter().filter(|line| line["dir"] == "c2s").map(|line| said_in(format, line, &names).len()).sum::<usize>();
    let is_odd = usize::from(scenario == "reconnect-same-peer");
    assert!(play.compared + is_odd >= theirs && play.compared > 0, "{}: {} of {theirs}", play.what(), play.compared);
}

macro_rules! plays {
    ($($(#[$doc:meta])* $name:ident: $scenario:literal,)*) => {$(
        $(#[$doc])*
        #[tokio::test(start_paused = true)]
        async fn $name() {
            for format in RECORDED {
                play(format, $scenario).await;
            }
        }
    )*};
}

plays! {
    results_failures_and_values_of_every_shape_are_understood: "calls",
    a_call_that_is_given_up_is_cancelled: "cancel",
    values_end_when_the_server_says_so_and_are_given_up_here: "compute",
    streams_are_read_and_acknowledged_as_they_were: "stream",
    a_stream_goes_up_as_it_did: "stream-upload",
    streams_that_are_read_are_listed_until_they_are_gone: "keepalive",
    calls_go_on_through_a_cut: "reconnect-same-peer",
    a_call_that_the_server_has_forgotten_is_made_again: "reconnect-unknown-call",
    another_server_is_sent_what_is_not_over: "reconnect-new-peer",
    the_second_connection_is_proved_by_the_secret_of_the_first: "reconnect-proof",
    a_client_whose_format_is_not_spoken_stops: "unsupported-format",
    what_the_server_calls_is_answered_while_it_is_called: "reverse-call",
    what_dotnet_says_is_understood: "dotnet-shaped.derived",
    a_stream_with_gaps_and_repeats_is_whole: "stream-resume.derived",
}

/// Every recording has its tests: with a client of ours here or in `malformed.rs`, and with a server of ours in `replay.rs` or `callers.rs`.
#[test]
fn no_recording_is_left_out() {
    let clients = [include_str!("replay_client.rs"), include_str!("malformed.rs")];
    let servers = [include_str!("replay.rs"), include_str!("callers.rs")];
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).expect("recordings");
    let mut count = 0;
    for file in files {
        let name = file.expect("a file").file_name().into_string().expect("text");
        let Some(scenario) = name.strip_suffix(".jsonl").and_then(|name| name.split_once('.')).map(|(_, scenario)| scenario) else {
            continue;
        };
        count += 1;
        let quoted = format!("\"{scenario}\"");
        for tests in [clients, servers] {
            assert!(tests.iter().any(|tests| tests.contains(&quoted)), "{name}");
        }
    }
    assert_eq!(count, 3 * 15);
}
