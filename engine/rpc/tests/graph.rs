//! Values of a server in the graph of a client.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::PATIENCE;
use support::near::{Near, method, set};
use support::pipe::Wire;
use support::services::World;
use wellspring::{AsyncFunction, Capacity, Engine};
use wellspring_rpc::{CallError, Remote, Remoted};

fn near(wire: &Wire, engine: Engine) -> Near {
    Near::with(engine, wire.clone(), |define| define)
}

#[tokio::test(start_paused = true)]
async fn a_function_here_follows_values_there() {
    let world = World::new();
    let near = near(&Wire::to(&world.hub), Engine::new());
    assert_eq!(near.sum().await, 0);
    for _ in 0..10 {
        assert_eq!(near.sum().await, 0);
    }
    assert_eq!((near.sums(), world.runs.get.load(Ordering::SeqCst)), (1, 2), "cached here");
    set(&near.remote, "a", 5).await;
    near.becomes(5).await;
    set(&near.remote, "b", 2).await;
    near.becomes(7).await;
    assert_eq!(world.runs.get.load(Ordering::SeqCst), 4, "only what has changed is asked for again");
    near.engine.assert_consistent();
    world.engine.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn a_value_that_nobody_caches_any_more_is_not_pushed() {
    let world = World::new();
    let near = near(&Wire::to(&world.hub), Engine::new());
    near.sum().await;
    assert_eq!((near.remote.open_calls(), world.hub.open_calls()), (2, 2));
    near.counter.invalidate(&("a".to_owned(),));
    near.sum().await;
    // What was replaced waits for its readers, and to be collected.
    tokio::time::timeout(PATIENCE, async {
        while near.remote.open_calls() > 2 {
            near.engine.collect();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is collected");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((near.remote.open_calls(), world.hub.open_calls()), (2, 2), "the one before is given up");
    let Near { engine, remote, counter, sum, .. } = near;
    drop((counter, sum, engine));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((remote.open_calls(), world.hub.open_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_there_is_cached_here_until_it_ends() {
    let world = World::new();
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    let engine = Engine::new();
    let or_fail: AsyncFunction<(String,), Remoted<i64>> =
        remote.function(&engine, "or_fail", &method("ICounter.GetOrFail:2")).expect("registered");
    let key = ("k".to_owned(),);
    for _ in 0..3 {
        let failed = or_fail.get(&engine, &key).await.expect("read");
        assert!(matches!(&*failed, Err(CallError::Failed(failure)) if failure.message() == "counter is zero"), "{failed:?}");
    }
    assert_eq!(remote.open_calls(), 1);
    let computed = or_fail.computed(&engine, &key).await.expect("read");
    set(&remote, "k", 3).await;
    tokio::time::timeout(PATIENCE, computed.invalidated()).await.expect("it ends");
    assert_eq!(or_fail.get(&engine, &key).await.expect("read").as_result(), Ok(&3));
}

#[tokio::test(start_paused = true)]
async fn what_is_evicted_here_does_not_keep_what_was_made_of_it_from_following() {
    let world = World::new();
    let capacity = |builder: wellspring::EngineBuilder| builder.capacity(Capacity::entries(16)).build();
    let near = near(&Wire::to(&world.hub), capacity(Engine::builder()));
    near.sum().await;
    let changed = Arc::<AtomicUsize>::default();
    let mut sums = near.sum.computed(&near.engine, &("a".to_owned(), "b".to_owned())).await.expect("a sum").changes();
    assert_eq!(*sums.next().await.expect("endless").expect("a sum").value(), 0);
    for round in 1..20 {
        for other in 0..40 {
            near.counter.get(&near.engine, &(format!("{round} {other}"),)).await.expect("read");
        }
        near.engine.collect();
        set(&near.remote, "a", round).await;
        let next = tokio::time::timeout(PATIENCE, async { while *sums.next().await.expect("endless").expect("a sum").value() != round {} });
        next.await.unwrap_or_else(|_| panic!("it stays behind in round {round}, after {changed:?}"));
    }
    near.engine.assert_consistent();
    assert!(near.remote.open_calls() < 100, "{} calls are open", near.remote.open_calls());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_is_not_cached() {
    let world = World::new();
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    let engine = Engine::new();
    let strange: AsyncFunction<(String,), Remoted<String>> =
        remote.function(&engine, "strange", &method("ICounter.Get:2")).expect("registered");
    for _ in 0..2 {
        let got = strange.get(&engine, &("k".to_owned(),)).await.expect("read");
        assert!(matches!(&*got, Err(CallError::Unreadable(_))), "{got:?}");
        assert_eq!(remote.open_calls(), 0);
    }
    assert!(remote.function::<(String,), i64>(&engine, "strange", &method("ICounter.Get:2")).is_err(), "the name is taken");
}

#[tokio::test(start_paused = true)]
async fn values_here_outlive_cuts_and_a_server_that_was_started_anew_makes_them_stale() {
    let (first, second) = (World::new(), World::new());
    let wire = Wire::to(&first.hub);
    let near = near(&wire, Engine::new());
    let far = Remote::builder(Wire::to(&first.hub)).connect();
    set(&far, "a", 1).await;
    assert_eq!(near.sum().await, 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    wire.set_down(true);
    set(&far, "b", 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(near.sum().await, 1, "nobody could say so");
    wire.set_down(false);
    near.becomes(2).await;
    wire.lead_to(&second.hub);
    wire.cut();
    near.becomes(0).await;
    near.engine.assert_consistent();
}
