//! The peer's own cases of remote compute and of reconnection, by their names in `tests/PEER_TESTS.md`.

mod support;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use support::PATIENCE;
use support::near::{connected, method, remote, soon};
use support::pipe::Wire;
use support::script::Script;
use support::services::World;
use tokio::time::{Instant, sleep, timeout};
use wellspring::{AsyncFunction, Computed, Cx, Engine};
use wellspring_rpc::wire::{ErrorInfo, Format, Head, System};
use wellspring_rpc::{CallError, Connected, Failure, Remote, Remoted, Service};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

async fn is(remote: &Remote, what: &str, so: impl Fn(Connected) -> bool) {
    let mut state = remote.connected();
    timeout(PATIENCE, state.wait_for(|state| so(*state))).await.unwrap_or_else(|_| panic!("never {what}")).expect("it lives");
}

type Key = (String, u64, u64);

/// The peer's matrix: a function that takes its time, and whose values end a while after that; here, and how often it has run there.
struct Matrix {
    runs: Arc<AtomicUsize>,
    world: World,
    wire: Wire,
    engine: Engine,
    remote: Remote,
    function: AsyncFunction<Key, Remoted<String>>,
}

impl Matrix {
    async fn new() -> Matrix {
        let matrix = Matrix::unconnected();
        connected(&matrix.remote).await;
        matrix
    }

    fn unconnected() -> Matrix {
        let runs = Arc::<AtomicUsize>::default();
        let (there, counted) = (Engine::new(), runs.clone());
        let own: Arc<OnceLock<AsyncFunction<Key, String>>> = Arc::default();
        let ends = own.clone();
        let body = there.async_function("compute", move |_: Cx, key: Key| {
            counted.fetch_add(1, Ordering::SeqCst);
            let (ends, of) = (ends.clone(), key.clone());
            tokio::spawn(async move {
                sleep(ms(of.1 + of.2)).await;
                ends.get().expect("set").invalidate(&of);
            });
            async move {
                sleep(ms(key.1)).await;
                key.0
            }
        });
        let body = body.expect("registered");
        own.set(body.clone()).map_err(drop).expect("once");
        let tester = Service::new("IReconnectMatrixTester").compute("Compute:4", move |key: Key| {
            let (body, there) = (body.clone(), there.clone());
            async move { body.computed(&there, &key).await }
        });
        let world = World::with(|builder| builder.service(tester).expect("a service"));
        let wire = Wire::to(&world.hub);
        let (remote, engine) = (remote(&wire), Engine::new());
        let function = remote.function(&engine, "compute", &method("IReconnectMatrixTester.Compute:4")).expect("registered");
        Matrix { runs, world, wire, engine, remote, function }
    }

    async fn get(&self, delay: u64, ends: u64) -> Computed<Remoted<String>> {
        let computed = soon(self.function.computed(&self.engine, &("k".to_owned(), delay, ends))).await.expect("computed");
        assert_eq!(computed.value().as_result().map(String::as_str), Ok("k"));
        computed
    }

    /// No connection from one time to another.
    async fn away(&self, from: u64, to: u64) {
        sleep(ms(from)).await;
        self.wire.set_down(true);
        sleep(ms(to - from)).await;
        self.wire.set_down(false);
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Nothing is left of a value that has ended.
    async fn is_over(&self) {
        soon(async {
            while self.remote.open_calls() + self.world.hub.open_calls() > 0 {
                self.engine.collect();
                sleep(ms(10)).await;
            }
        })
        .await;
    }
}

/// Whether two are one value that came once.
fn is_one(one: &Computed<Remoted<String>>, other: &Computed<Remoted<String>>) -> bool {
    std::ptr::eq(one.value().as_result().expect("a value"), other.value().as_result().expect("a value"))
}

#[tokio::test(start_paused = true)]
async fn f1_a_compute_call_that_waits_for_a_connection_runs_once() {
    let matrix = Matrix::new().await;
    matrix.wire.set_down(true);
    sleep(ms(10)).await;
    let (computed, ()) = tokio::join!(matrix.get(50, 300), matrix.away(0, 500));
    assert_eq!(matrix.runs(), 1);
    soon(computed.invalidated()).await;
    drop(computed);
    matrix.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn f2_a_compute_call_that_runs_through_an_outage_runs_once() {
    let matrix = Matrix::new().await;
    let (computed, ()) = tokio::join!(matrix.get(500, 300), matrix.away(50, 100));
    assert_eq!(matrix.runs(), 1);
    soon(computed.invalidated()).await;
    assert_eq!(matrix.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn f3_a_value_that_came_in_an_outage_is_given_after_it_and_ends_later() {
    let matrix = Matrix::new().await;
    let (computed, ()) = tokio::join!(matrix.get(100, 1_000), matrix.away(50, 300));
    assert!(computed.is_consistent());
    soon(computed.invalidated()).await;
    assert_eq!(matrix.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn f4_a_value_that_came_and_ended_in_an_outage_is_given_and_the_next_read_asks_again() {
    let matrix = Matrix::new().await;
    let (computed, ()) = tokio::join!(matrix.get(100, 100), matrix.away(50, 500));
    soon(computed.invalidated()).await;
    assert_eq!(matrix.runs(), 1);
    let next = matrix.get(100, 100).await;
    assert_eq!(matrix.runs(), 2);
    soon(next.invalidated()).await;
}

#[tokio::test(start_paused = true)]
async fn f5_a_value_that_was_given_before_an_outage_ends_after_it() {
    let matrix = Matrix::new().await;
    let computed = matrix.get(10, 1_000).await;
    matrix.away(50, 300).await;
    connected(&matrix.remote).await;
    sleep(ms(100)).await;
    assert!(computed.is_consistent());
    soon(computed.invalidated()).await;
    assert_eq!(matrix.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn f6_a_value_that_was_given_before_an_outage_and_ends_in_it_is_said_to_have_ended() {
    let matrix = Matrix::new().await;
    let computed = matrix.get(10, 200).await;
    matrix.away(50, 500).await;
    soon(computed.invalidated()).await;
    assert_eq!(matrix.runs(), 1);
}

/// A regular call through an outage, and how often it has run.
async fn regular(takes: u64, from: u64, to: u64) -> usize {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    connected(&remote).await;
    let slow = method("IDemo.Slow:3");
    let call = async {
        if from == 0 {
            sleep(ms(10)).await;
        }
        remote.call::<String>(&slow, ("x", takes)).await
    };
    let outage = async {
        sleep(ms(from)).await;
        wire.set_down(true);
        sleep(ms(to - from)).await;
        wire.set_down(false);
    };
    let (result, ()) = tokio::join!(soon(call), outage);
    assert_eq!(result, Ok("x".to_owned()));
    assert_eq!(remote.open_calls(), 0);
    world.runs.slow.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn r1_a_regular_call_that_waits_for_a_connection_runs_once() {
    assert_eq!(regular(50, 0, 300).await, 1);
}

#[tokio::test(start_paused = true)]
async fn r2_a_regular_call_that_runs_through_an_outage_runs_once() {
    assert_eq!(regular(500, 50, 100).await, 1);
}

/// The peer forgets the answer, and runs it twice.
#[tokio::test(start_paused = true)]
async fn r3_a_regular_call_that_ends_in_an_outage_runs_once() {
    assert_eq!(regular(100, 50, 500).await, 1);
}

#[tokio::test(start_paused = true)]
async fn reconnection_cases_1_to_3_a_cut_before_within_or_after_a_call_changes_nothing_of_its_value_or_its_end() {
    for cut in [50, 290, 301, 350] {
        let matrix = Matrix::new().await;
        let began = Instant::now();
        let cutting = async {
            sleep(ms(cut)).await;
            matrix.wire.cut();
        };
        let (computed, ()) = tokio::join!(matrix.get(300, 1_000), cutting);
        let before = Instant::now();
        let again = matrix.get(300, 1_000).await;
        assert_eq!(before.elapsed(), Duration::ZERO, "it is cached");
        assert!(is_one(&again, &computed));
        soon(computed.invalidated()).await;
        assert!(began.elapsed() >= ms(1_300) && began.elapsed() <= ms(1_600), "{:?} after a cut at {cut}", began.elapsed());
        assert_eq!(matrix.runs(), 1);
        drop((computed, again));
        matrix.is_over().await;
    }
}

#[tokio::test(start_paused = true)]
async fn reconnection_case_4_a_value_outlives_a_cut_and_is_not_asked_for_again() {
    let matrix = Matrix::new().await;
    let computed = matrix.get(10, 60_000).await;
    for _ in 0..3 {
        matrix.wire.cut();
        is(&matrix.remote, "cut", |state| state != Connected::Yes).await;
        connected(&matrix.remote).await;
        assert!(is_one(&matrix.get(10, 60_000).await, &computed));
    }
    assert_eq!((matrix.runs(), computed.is_consistent()), (1, true));
}

#[tokio::test(start_paused = true)]
async fn reconnection_case_5_changes_and_cuts_at_once_lose_nothing() {
    let world = World::new();
    let (wire, engine) = (Wire::to(&world.hub), Engine::new());
    let near = remote(&wire);
    let get: AsyncFunction<(String,), Remoted<i64>> = near.function(&engine, "get", &method("ICounter.Get:2")).expect("registered");
    let key = ("k".to_owned(),);
    let mut random = fastrand::Rng::with_seed(5);
    for round in 1..=50 {
        get.get(&engine, &key).await.expect("read");
        world.counters.set(&key.0, round);
        sleep(ms(random.u64(0..3))).await;
        wire.cut();
        sleep(ms(random.u64(0..150))).await;
    }
    soon(async {
        let mut values = get.computed(&engine, &key).await.expect("read").changes();
        while values.next().await.expect("endless").expect("read").value().as_result() != Ok(&50) {}
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reconnection_test_workers_get_results_whatever_happens_to_the_connection() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    let until = Instant::now() + Duration::from_secs(10);
    let workers = join_all((0..8).map(|seed| {
        let remote = remote.clone();
        async move {
            let (mut random, mut done) = (fastrand::Rng::with_seed(seed), 0);
            let slow = method("IDemo.Slow:3");
            while Instant::now() < until {
                let text = random.u32(..).to_string();
                let call = remote.call::<String>(&slow, (&text, random.u64(0..100)));
                match timeout(ms(500), call).await {
                    Ok(result) => assert_eq!(result, Ok(text)),
                    // It was given up.
                    Err(_) => continue,
                }
                done += 1;
            }
            done
        }
    }));
    let disruptor = async {
        let mut random = fastrand::Rng::with_seed(99);
        while Instant::now() < until {
            sleep(ms(random.u64(1..300))).await;
            wire.set_down(random.bool());
        }
        wire.set_down(false);
    };
    let (done, ()) = tokio::join!(workers, disruptor);
    assert!(done.iter().all(|done| *done > 10), "{done:?}");
    // What was given up without a connection is forgotten there in a while.
    sleep(Duration::from_secs(15)).await;
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn open_calls_are_counted_at_both_ends_until_values_end() {
    let matrix = Matrix::new().await;
    let computed = matrix.get(20, 480).await;
    assert_eq!((matrix.remote.open_calls(), matrix.world.hub.open_calls()), (1, 1));
    timeout(Duration::from_secs(2), computed.invalidated()).await.expect("it ends");
    drop(computed);
    matrix.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn peer_monitor_whoever_looks_sees_connections_come_and_go() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    for _ in 0..2 {
        connected(&remote).await;
        wire.set_down(true);
        is(&remote, "cut", |state| matches!(state, Connected::Again(at) if at > Instant::now())).await;
        wire.set_down(false);
    }
    connected(&remote).await;
}

#[tokio::test(start_paused = true)]
async fn cancellation_what_the_server_gives_up_is_told_by_its_name_and_what_the_client_gives_up_is_over() {
    let gives_up =
        Service::new("IGivesUp").method("Now:1", |()| async { Err::<(), _>(Failure::typed(ErrorInfo::CANCELED, "A task was canceled.")) });
    let world = World::with(|builder| builder.service(gives_up).expect("a service"));
    let remote = remote(&Wire::to(&world.hub));
    let given_up = remote.call::<()>(&method("IGivesUp.Now:1"), ()).await;
    assert!(matches!(&given_up, Err(CallError::Failed(failure)) if failure.type_name() == "System.OperationCanceledException"));
    let slow = method("IDemo.Slow:3");
    assert!(timeout(ms(100), remote.call::<String>(&slow, ("x", 10_000))).await.is_err());
    sleep(ms(10)).await;
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn concurrent_cancel_half_of_a_thousand_callers_leave_and_the_others_get_their_values() {
    let matrix = Matrix::new().await;
    let began = Instant::now();
    let calls = join_all((0..1_000).map(|number: u64| {
        let matrix = &matrix;
        async move {
            let key = ((number % 10).to_string(), 250, 60_000);
            let read = matrix.function.get(&matrix.engine, &key);
            if number % 20 >= 10 { timeout(ms(50), read).await.ok() } else { Some(read.await) }
        }
    }));
    for (number, result) in soon(calls).await.into_iter().enumerate() {
        assert_eq!(result.is_some(), number % 20 < 10);
        if let Some(read) = result {
            assert_eq!(read.expect("read").as_result(), Ok(&(number % 10).to_string()));
        }
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((matrix.runs(), matrix.remote.open_calls(), matrix.world.hub.open_calls()), (10, 10, 10));
}

#[derive(Clone, Debug, PartialEq)]
struct GivenUp;

impl From<GivenUp> for Failure {
    fn from(_: GivenUp) -> Failure {
        Failure::typed("System.Threading.Tasks.TaskCanceledException, System.Private.CoreLib", "A task was canceled.")
    }
}

#[tokio::test(start_paused = true)]
async fn reprocess_cancel_a_value_that_the_server_gives_up_for_a_moment_is_asked_for_again() {
    let (there, value) = (Engine::new(), Arc::<AtomicI64>::default());
    let until = Arc::new(std::sync::Mutex::new(Instant::now()));
    let own: Arc<OnceLock<wellspring::Function<(), Result<i64, GivenUp>>>> = Arc::default();
    let (ends, now, closed) = (own.clone(), value.clone(), until.clone());
    let function = there.function("value", move |_: &Cx, _: &()| {
        let until = *closed.lock().expect("no panic");
        if Instant::now() >= until {
            return Ok(now.load(Ordering::SeqCst));
        }
        let ends = ends.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            ends.get().expect("set").invalidate(&());
        });
        Err(GivenUp)
    });
    let function = function.expect("registered");
    own.set(function.clone()).map_err(drop).expect("once");
    let (read, engine) = (function.clone(), there.clone());
    let service = Service::new("IWindows").try_compute("Value:1", move |()| std::future::ready(read.computed(&engine, &())));
    let world = World::with(|builder| builder.service(service).expect("a service"));
    let remote = remote(&Wire::to(&world.hub));
    let near = Engine::new();
    let here: AsyncFunction<(), Remoted<i64>> = remote.function(&near, "value", &method("IWindows.Value:1")).expect("registered");
    for number in 1..=10 {
        let before = here.computed(&near, &()).await.expect("read");
        value.store(number, Ordering::SeqCst);
        *until.lock().expect("no panic") = Instant::now() + ms(50);
        function.invalidate(&());
        soon(before.invalidated()).await;
        assert_eq!(soon(here.get(&near, &())).await.expect("read").as_result(), Ok(&number));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_gives_up_for_good_is_told_and_asked_for_again_a_second_later() {
    let (script, mut links) = Script::new();
    let (remote, engine) = (Remote::builder(script).format(Format::Json5np).connect(), Engine::new());
    let get: AsyncFunction<(String,), Remoted<i64>> = remote.function(&engine, "get", &method("ICounter.Get:2")).expect("registered");
    let mut link = links.next().await;
    link.greet(7, 1).await;
    let key = ("k".to_owned(),);
    let began = Instant::now();
    let (read, calls) = tokio::join!(soon(get.get(&engine, &key)), link.gives_up("ICounter.Get:2", 3));
    let read = read.expect("read");
    assert!(matches!(read.as_result(), Err(CallError::Failed(failure)) if failure.type_name() == "System.OperationCanceledException"));
    assert!(began.elapsed() >= ms(100), "it is not asked for at once: {:?}", began.elapsed());
    for call in calls {
        // Nobody waits to hear of the end of any.
        link.expect("a cancellation", |said| said.system() == Some(System::Cancel) && said.id == call.id).await;
    }
    assert_eq!(remote.open_calls(), 0);
    // Unlike the peer's, which asks at once: whoever follows the value would ask in a circle.
    let (read, since) = (soon(get.computed(&engine, &key)).await.expect("read"), Instant::now());
    assert!(read.value().is_err() && remote.open_calls() == 0, "{read:?}");
    soon(read.invalidated()).await;
    assert_eq!(since.elapsed(), ms(1_000));
    let again = async {
        let call = link.call("ICounter.Get:2").await;
        link.say(&Head::system(System::Ok, call.id), |out| out.value(&5));
    };
    let (read, ()) = tokio::join!(soon(get.get(&engine, &key)), again);
    assert_eq!(read.expect("read").as_result(), Ok(&5));
}

#[tokio::test(start_paused = true)]
async fn call_type_downgrade_a_compute_method_that_is_called_as_another_leaves_nothing_behind() {
    let world = World::new();
    let remote = remote(&Wire::to(&world.hub));
    for number in 0..10 {
        world.counters.set(&"k".to_owned(), number);
        assert_eq!(remote.call(&method("ICounter.Get:2"), ("k",)).await, Ok(number));
        assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn unsent_call_what_waits_for_a_connection_runs_once_whatever_becomes_of_the_connections() {
    let (first, second) = (World::new(), World::new());
    let wire = Wire::to(&first.hub);
    let remote = remote(&wire);
    connected(&remote).await;
    wire.set_down(true);
    let slow = method("IDemo.Slow:3");
    let call = remote.call::<String>(&slow, ("x", 30));
    let churn = async {
        for _ in 0..20 {
            sleep(ms(130)).await;
            // It is there for a moment, perhaps.
            wire.set_down(false);
            sleep(ms(20)).await;
            wire.set_down(true);
        }
        wire.set_down(false);
    };
    let (result, ()) = tokio::join!(soon(call), churn);
    assert_eq!((result, first.runs.slow.load(Ordering::SeqCst)), (Ok("x".to_owned()), 1));
    // The process is another one when there is a connection again.
    wire.set_down(true);
    let call = remote.call::<String>(&slow, ("y", 30));
    let change = async {
        sleep(ms(50)).await;
        wire.lead_to(&second.hub);
        wire.set_down(false);
    };
    let (result, ()) = tokio::join!(soon(call), change);
    assert_eq!(result, Ok("y".to_owned()));
    assert_eq!((first.runs.slow.load(Ordering::SeqCst), second.runs.slow.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn first_handshake_a_call_that_was_made_before_any_connection_is_run_after_the_handshake() {
    let (script, mut links) = Script::new();
    let remote = Remote::builder(script).format(Format::Json5np).connect();
    let add = method("IDemo.Add:3");
    let call = remote.call::<i64>(&add, (1, 2));
    let serve = async {
        let mut link = links.next().await;
        sleep(ms(200)).await;
        // Nothing but who it is.
        assert!(link.hear_all().iter().all(|said| said.system() == Some(System::Handshake)));
        link.greet(7, 1).await;
        let call = link.call("IDemo.Add:3").await;
        link.say(&Head::system(System::Ok, call.id), |out| out.value(&3));
    };
    let (result, ()) = tokio::join!(soon(call), serve);
    assert_eq!(result, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn cancellation_race_a_result_and_a_caller_that_leaves_at_the_same_time_leave_nothing_behind() {
    let world = World::new();
    let remote = remote(&Wire::to(&world.hub));
    connected(&remote).await;
    let slow = method("IDemo.Slow:3");
    let mut results = 0;
    for round in 0..500 {
        let takes = round % 5;
        let call = timeout(ms(takes), remote.call::<String>(&slow, ("x", takes)));
        results += usize::from(call.await.is_ok());
    }
    sleep(ms(50)).await;
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0), "{results} had results");
}

#[tokio::test(start_paused = true)]
async fn keep_alive_a_client_leaves_a_connection_on_which_nothing_is_heard() {
    let (script, mut links) = Script::new();
    let remote = Remote::builder(script).backoff(ms(100), ms(100)).connect();
    let mut link = links.next().await;
    link.greet(7, 1).await;
    let began = Instant::now();
    // Signs of life keep it, nothing else does.
    for _ in 0..5 {
        sleep(Duration::from_secs(20)).await;
        link.say(&Head::system(System::KeepAlive, 0), |out| out.value(&[0_u64; 0]));
    }
    let alive = Instant::now();
    for _ in 0..3 {
        sleep(Duration::from_secs(5)).await;
        link.say(&Head::system(System::Ok, 1_000), |out| out.value(&()));
    }
    soon(link.gone()).await;
    assert_eq!((alive.elapsed().as_secs(), began.elapsed().as_secs()), (25, 125));
    let mut link = links.next().await;
    link.greet(7, 2).await;
    connected(&remote).await;
}

#[tokio::test(start_paused = true)]
async fn limits_a_hundred_calls_are_nothing_and_more_streams_than_anybody_has_are_refused() {
    use wellspring_rpc::RpcStream;
    let many = Service::new("IMany").method("Streams:2", |(count,): (usize,)| async move {
        Ok::<_, Failure>((0..count).map(|_| RpcStream::new(futures_util::stream::iter([1_u8]))).collect::<Vec<_>>())
    });
    let world = World::with(|builder| builder.service(many).expect("a service"));
    let remote = remote(&Wire::to(&world.hub));
    let slow = method("IDemo.Slow:3");
    let calls = join_all((0..100).map(|_| remote.call::<String>(&slow, ("x", 100))));
    assert!(soon(calls).await.iter().all(Result::is_ok));
    let streams = method("IMany.Streams:2");
    let some: Vec<RpcStream<u8>> = remote.call(&streams, (1_000,)).await.expect("streams");
    // The peer is reset there. Here what asked for them fails, and all others go on.
    let more = remote.call::<Vec<RpcStream<u8>>>(&streams, (65_536,)).await;
    assert!(matches!(more, Err(CallError::Failed(_))), "{:?}", more.err());
    for mut stream in some {
        assert_eq!(soon(stream.next()).await, Some(Ok(1)));
    }
    // What nobody ever hears of is forgotten.
    sleep(Duration::from_secs(200)).await;
    assert_eq!((world.hub.open_streams(), remote.open_streams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn error_response_a_failure_has_its_type_and_one_that_says_nothing_is_one_all_the_same() {
    for format in Format::ALL {
        let (script, mut links) = Script::new();
        let remote = Remote::builder(script).format(format).connect();
        let mut link = links.next().await;
        link.greet(7, 1).await;
        let nothing = method("IDemo.Nothing:1");
        link.names = vec![nothing.name().to_owned()];
        for (info, expected) in [
            (ErrorInfo::new("My.Own.Exception, Mine", "no luck"), Failure::typed("My.Own.Exception, Mine", "no luck")),
            (ErrorInfo::new("", "no luck"), Failure::typed(ErrorInfo::RPC, "no luck")),
            (ErrorInfo::default(), Failure::typed(ErrorInfo::RPC, "the other end does not say why")),
        ] {
            let fail = async {
                let call = link.call("IDemo.Nothing:1").await;
                link.say(&Head::system(System::Error, call.id), |out| out.value(&info));
            };
            let (result, ()) = tokio::join!(soon(remote.call::<()>(&nothing, ())), fail);
            assert_eq!(result, Err(CallError::Failed(expected)));
        }
    }
}
