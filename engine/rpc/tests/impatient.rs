//! Calls that do not wait for a connection, or not for long: what there is of the peer's execution modes.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use wellspring_rpc::{CallError, CallOptions, Connected, Remote};

use self::support::near::{connected, method, remote, soon};
use self::support::pipe::Wire;
use self::support::services::World;

/// A client, with a connection, whose calls wait so long for one.
async fn client(wire: &Wire, waits: Duration) -> Remote {
    let remote = remote(wire);
    connected(&remote).await;
    remote.with(CallOptions::new().connect_timeout(waits))
}

/// Takes the connection away, and waits until the client knows.
async fn take_away(wire: &Wire, remote: &Remote) {
    wire.set_down(true);
    soon(remote.connected().wait_for(|state| *state != Connected::Yes)).await.expect("it goes on");
}

/// A call whose body takes so many milliseconds.
async fn slow(remote: &Remote, millis: u64) -> Result<String, CallError> {
    remote.call::<String>(&method("IDemo.Slow:3"), ("x", millis)).await
}

fn runs(world: &World) -> usize {
    world.runs.slow.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_no_connection_is_like_any_other_while_there_is_one() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = client(&wire, Duration::ZERO).await;
    assert_eq!(slow(&remote, 100).await, Ok("x".to_owned()));
    assert_eq!((runs(&world), remote.open_calls(), world.hub.open_calls()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_it_fails_at_once_and_is_never_run() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = client(&wire, Duration::ZERO).await;
    take_away(&wire, &remote).await;
    let began = tokio::time::Instant::now();
    assert_eq!(slow(&remote, 100).await, Err(CallError::NotConnected(Duration::ZERO)));
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    wire.set_down(false);
    // The next one goes out behind whatever waits.
    connected(&remote).await;
    assert_eq!(slow(&remote, 100).await, Ok("x".to_owned()));
    assert_eq!((runs(&world), remote.open_calls(), world.hub.open_calls()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_sent_goes_on_through_a_cut_and_runs_once() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = client(&wire, Duration::ZERO).await;
    let cutting = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        take_away(&wire, &remote).await;
        // Over when its body is.
        tokio::time::sleep(Duration::from_millis(500)).await;
        wire.set_down(false);
    };
    let (result, ()) = tokio::join!(slow(&remote, 100), cutting);
    assert_eq!((result, runs(&world)), (Ok("x".to_owned()), 1));
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_while_is_sent_if_there_is_a_connection_by_then_and_else_never() {
    for comes_after in [Duration::from_secs(4), Duration::from_secs(6)] {
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let limit = Duration::from_secs(5);
        let remote = client(&wire, limit).await;
        take_away(&wire, &remote).await;
        let coming = async {
            tokio::time::sleep(comes_after).await;
            wire.set_down(false);
            connected(&remote).await;
        };
        let (result, ()) = tokio::join!(slow(&remote, 100), coming);
        let expected = if comes_after < limit { (Ok("x".to_owned()), 1) } else { (Err(CallError::NotConnected(limit)), 0) };
        // Behind whatever waits.
        assert_eq!(remote.call::<()>(&method("IDemo.Nothing:1"), ()).await, Ok(()));
        assert_eq!((result, runs(&world)), expected, "after {comes_after:?}");
        assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn of_fifty_while_the_connection_comes_and_goes_those_that_have_not_failed_have_run_and_each_once() {
    let (mut values, mut failures) = (0, 0);
    for seed in 0..10 {
        let rng = &mut Rng::with_seed(seed);
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let remote = client(&wire, Duration::ZERO).await;
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let (remote, begins, takes) = (remote.clone(), rng.u64(0..3_000), rng.u64(0..200));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(begins)).await;
                    slow(&remote, takes).await
                })
            })
            .collect();
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(rng.u64(0..250))).await;
            match rng.bool() {
                true => wire.cut(),
                false => wire.set_down(true),
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(0..250))).await;
            wire.set_down(false);
        }
        let mut ran = 0;
        for call in calls {
            match soon(call).await.expect("no panic") {
                Ok(value) => {
                    assert_eq!(value, "x");
                    ran += 1;
                }
                Err(error) => {
                    assert_eq!(error, CallError::NotConnected(Duration::ZERO));
                    failures += 1;
                }
            }
        }
        values += ran;
        assert_eq!(runs(&world), ran, "seed {seed}");
        assert_eq!(remote.open_calls(), 0, "seed {seed}");
        // A client that has asked for nothing is taken to wait for nothing in a while.
        let forgotten = async {
            while world.hub.open_calls() != 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(forgotten).await;
    }
    assert!(values > 50 && failures > 50, "{values} values, {failures} failures");
}
