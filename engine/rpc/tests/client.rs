//! A client of ours, with a server of ours, through cuts.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::PATIENCE;
use support::near::{connected, method, remote, set};
use support::pipe::Wire;
use support::services::World;
use wellspring_rpc::wire::{ErrorInfo, Format};
use wellspring_rpc::{CallError, Connected, Disconnected, Failure, Refusal, Remote, Replica, Visitor};

async fn get(remote: &Remote, key: &str) -> Replica<i64> {
    remote.compute(&method("ICounter.Get:2"), (key,)).await.expect("a value")
}

async fn ends(replica: &Replica<i64>) {
    tokio::time::timeout(PATIENCE, replica.stale()).await.expect("it is stale");
    assert!(replica.is_stale());
}

#[tokio::test(start_paused = true)]
async fn calls_have_results_failures_and_arguments_of_every_shape() {
    for format in Format::ALL {
        let world = World::new();
        let remote = Remote::builder(Wire::to(&world.hub)).format(format).connect();
        assert_eq!(remote.call(&method("IDemo.Add:3"), (40, 2)).await, Ok(42));
        assert_eq!(remote.call::<()>(&method("IDemo.Nothing:1"), ()).await, Ok(()));
        let failed = remote.call::<()>(&method("IDemo.Fail:2"), ("no luck",)).await;
        assert_eq!(failed, Err(CallError::Failed(Failure::typed(ErrorInfo::REMOTE, "no luck"))));
        let missing = remote.call::<()>(&method("IDemo.Missing:1"), ()).await.expect_err("not there");
        assert!(missing.to_string().starts_with("Endpoint not found: '"), "{missing}");
        let strange = remote.call::<String>(&method("IDemo.Add:3"), (1, 2)).await;
        assert!(matches!(strange, Err(CallError::Unreadable(_))), "{strange:?}");
        let echoed = remote.call(&method("IDemo.EchoAny:2"), (vec![Some("\u{1F600} \u{1e}\"\n"), None],)).await;
        assert_eq!(echoed, Ok(vec![Some("\u{1F600} \u{1e}\"\n".to_owned()), None]));
        assert_eq!(remote.open_calls(), 0);
        assert_eq!(remote.tell(&method("IDemo.Ping:2"), ("x",)), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_stale_when_the_server_says_so_and_others_are_not() {
    let world = World::new();
    let remote = remote(&Wire::to(&world.hub));
    let (one, two) = (get(&remote, "one").await, get(&remote, "two").await);
    assert_eq!((*one.value(), one.is_stale(), remote.open_calls()), (0, false, 2));
    set(&remote, "one", 5).await;
    ends(&one).await;
    assert!(!two.is_stale());
    let one = get(&remote, "one").await;
    assert_eq!(*one.value(), 5);
    drop((one, two));
    assert_eq!(remote.open_calls(), 0);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.hub.open_calls(), 0, "whoever drops a value is not told");
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_a_function_is_a_value_that_ends() {
    let world = World::new();
    let remote = remote(&Wire::to(&world.hub));
    let name = method("ICounter.GetOrFail:2");
    let failed: Replica<Result<i64, Failure>> = remote.try_compute(&name, ("k",)).await.expect("a value");
    assert_eq!(failed.value().as_ref().map_err(Failure::message), Err("counter is zero"));
    set(&remote, "k", 7).await;
    tokio::time::timeout(PATIENCE, failed.stale()).await.expect("stale");
    let value: Replica<i64> = remote.compute(&name, ("k",)).await.expect("a value");
    assert_eq!(*value.value(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_cancelled_at_the_server() {
    let world = World::new();
    let remote = remote(&Wire::to(&world.hub));
    let slow = method("IDemo.Slow:3");
    let call = remote.call::<String>(&slow, ("x", 10_000));
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_made_without_a_connection_wait_for_one_and_run_once() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    let remote = remote(&wire);
    let calls = futures_util::future::join_all((0..10).map(|number| {
        let remote = remote.clone();
        async move { remote.call::<String>(&method("IDemo.Slow:3"), (number.to_string(), 50)).await }
    }));
    let back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.set_down(false);
    };
    let (results, ()) = tokio::join!(calls, back);
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result, Ok(number.to_string()));
    }
    assert_eq!((world.runs.slow.load(Ordering::SeqCst), wire.connections()), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_through_cuts_and_runs_once() {
    // Before it is sent; while it runs; as it ends; after it has ended at the server.
    for cut in [0, 20, 99, 100, 101, 150] {
        let world = World::new();
        let wire = Wire::to(&world.hub);
        let remote = remote(&wire);
        connected(&remote).await;
        let slow = method("IDemo.Slow:3");
        let call = remote.call::<String>(&slow, ("x", 100));
        let cutting = async {
            tokio::time::sleep(Duration::from_millis(cut)).await;
            wire.cut();
        };
        let (result, ()) = tokio::join!(call, cutting);
        assert_eq!(result, Ok("x".to_owned()), "cut after {cut} ms");
        assert_eq!(world.runs.slow.load(Ordering::SeqCst), 1, "cut after {cut} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_outlive_cuts_and_hear_of_what_happened_meanwhile() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let (near, far) = (remote(&wire), remote(&Wire::to(&world.hub)));
    let (kept, changed) = (get(&near, "kept").await, get(&near, "changed").await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    wire.set_down(true);
    set(&far, "changed", 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!changed.is_stale(), "nobody could say so");
    wire.set_down(false);
    ends(&changed).await;
    assert!(!kept.is_stale());
    set(&far, "kept", 1).await;
    ends(&kept).await;
    assert_eq!((near.open_calls(), world.hub.open_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_started_anew_ends_replicas_and_runs_what_it_does_not_know() {
    let (first, second) = (World::new(), World::new());
    let wire = Wire::to(&first.hub);
    let remote = remote(&wire);
    let replica = get(&remote, "k").await;
    let slow = method("IDemo.Slow:3");
    let call = remote.call::<String>(&slow, ("x", 1_000));
    let restart = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        wire.lead_to(&second.hub);
        wire.cut();
        ends(&replica).await;
    };
    let (result, ()) = tokio::join!(call, restart);
    assert_eq!(result, Ok("x".to_owned()));
    assert_eq!((first.runs.slow.load(Ordering::SeqCst), second.runs.slow.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_proves_itself_at_every_connection_after_the_first() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    for connection in 1..5 {
        connected(&remote).await;
        assert_eq!(remote.call(&method("IDemo.Add:3"), (1, 2)).await, Ok(3));
        assert_eq!((wire.connections(), world.hub.clients()), (connection, 1));
        let visitor = wire.visitor();
        assert_eq!(visitor.proof.map(|proof| proof.counter), (connection > 1).then(|| (connection - 1).to_string()));
        let mut guest = Visitor::new(visitor.client_id, visitor.format);
        assert_eq!(world.hub.admit(&mut guest).await.is_err(), connection > 1, "nobody takes the place of one that has proved itself");
        guest.client_id.clear();
        assert_eq!(world.hub.admit(&mut guest).await, Ok(()));
        wire.cut();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_to_a_server_of_before_is_let_in_as_another_one_that_follows_what_it_followed() {
    let (a, b) = (World::new(), World::new());
    let wire = Wire::to(&a.hub);
    let remote = remote(&wire);
    connected(&remote).await;
    // Also where each has had it proved.
    for (round, world) in [&a, &b, &b, &a, &b, &a, &a].into_iter().enumerate() {
        let replica = get(&remote, "k").await;
        wire.lead_to(&world.hub);
        wire.cut();
        let there = Remote::builder(Wire::to(&world.hub)).connect();
        set(&there, "k", round as i64 + 1).await;
        ends(&replica).await;
        assert_eq!(*get(&remote, "k").await.value(), round as i64 + 1, "in round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_for_something_else_stays_who_it_is() {
    let refuses = Arc::<AtomicBool>::default();
    let asked = refuses.clone();
    let world = World::with(|hub| {
        hub.authenticate(move |_| {
            let refuses = asked.load(Ordering::SeqCst);
            async move { if refuses { Err(Refusal::forbidden("not now")) } else { Ok(()) } }
        })
    });
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    connected(&remote).await;
    let before = wire.visitor().client_id;
    refuses.store(true, Ordering::SeqCst);
    wire.cut();
    let mut state = remote.connected();
    let again = state.wait_for(|state| matches!(state, Connected::Again(_)));
    again.await.expect("it lives");
    assert_eq!(remote.disconnected_by(), Some(Disconnected::Broken));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let Some(Disconnected::Refused(refused)) = remote.disconnected_by() else { panic!("{:?}", remote.disconnected_by()) };
    assert_eq!(refused.reason, "not now");
    refuses.store(false, Ordering::SeqCst);
    connected(&remote).await;
    assert_eq!((wire.visitor().client_id, world.hub.clients(), remote.disconnected_by()), (before, 1, None));
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_is_dropped_is_forgotten_in_a_while() {
    let world = World::new();
    let wire = Wire::to(&world.hub);
    let remote = remote(&wire);
    connected(&remote).await;
    drop(remote);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((world.hub.clients(), wire.connections()), (1, 1));
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(world.hub.clients(), 0);
}

/// A client that sets, reads and waits, while its connection is cut at random.
#[tokio::test(start_paused = true)]
async fn whatever_is_cut_every_replica_is_equal_to_the_servers_value_in_the_end() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new();
        let (near_wire, far_wire) = (Wire::to(&world.hub), Wire::to(&world.hub));
        let (near, far) = (remote(&near_wire), remote(&far_wire));
        let keys = ["a", "b", "c"];
        let mut replicas: Vec<Option<Replica<i64>>> = keys.iter().map(|_| None).collect();
        for round in 1..60 {
            match random.u8(0..6) {
                0 => near_wire.cut(),
                1 => far_wire.cut(),
                2 => set(&far, random.choice(keys).expect("one"), round).await,
                3 => tokio::time::sleep(Duration::from_millis(random.u64(0..150))).await,
                _ => {
                    let at = random.usize(0..keys.len());
                    if replicas[at].as_ref().is_none_or(Replica::is_stale) {
                        let asked = get(&near, keys[at]);
                        // A cut in the middle.
                        let cutting = async {
                            if random.u8(0..3) == 0 {
                                tokio::task::yield_now().await;
                                near_wire.cut();
                            }
                        };
                        replicas[at] = Some(tokio::join!(asked, cutting).0);
                    }
                }
            }
        }
        for (key, replica) in keys.iter().zip(&replicas) {
            let Some(replica) = replica else { continue };
            let now = *get(&far, key).await.value();
            if *replica.value() != now {
                ends(replica).await;
            }
        }
        drop(replicas);
        // All of it is over at the server, too, once the client has been heard of again.
        connected(&near).await;
        near.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("called");
        far.call::<()>(&method("IDemo.Nothing:1"), ()).await.expect("called");
        // Whoever is not heard to ask for what it has forgotten is taken to have said so.
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!((near.open_calls(), far.open_calls()), (0, 0), "seed {seed}");
        let left = world.hub.open_calls();
        far.call::<()>(&method("ICounter.Set:3"), ("a", 1_000)).await.expect("set");
        for key in ["b", "c"] {
            far.call::<()>(&method("ICounter.Set:3"), (key, 1_000)).await.expect("set");
        }
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(world.hub.open_calls(), 0, "seed {seed}: {left} before the values ended");
    }
}
