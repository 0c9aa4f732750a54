//! Freshness: what is changed on one server is stale on all, whatever happens in between.

use std::future::IntoFuture;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use wellspring_commands::{CommandError, CommandFault, CommandId, Notice, Store};

use crate::asleep::{Asleep, Silence};
use crate::backend::Backend;
use crate::cluster::{Cluster, Emitted, Put, Refused, emit, end, put};

pub(crate) async fn a_change_on_one_server_is_stale_on_every_other<B: Backend>(cluster: &Cluster<B>) {
    let nodes = [cluster.node().await, cluster.node().await, cluster.node().await];
    for (changed, value) in [(0, "first"), (2, "second"), (0, "third")] {
        let mut seen = Vec::new();
        for node in &nodes {
            seen.push(node.value.computed(node.server.engine(), "k").await.expect("computed"));
        }
        nodes[changed].put("k", value).await;
        for (node, seen) in nodes.iter().zip(seen) {
            seen.invalidated().await;
            assert_eq!(node.get("k").await.as_deref(), Some(value));
        }
    }
    end(nodes).await;
}

pub(crate) async fn a_caller_reads_its_own_write_and_others_after_waiting_for_its_position<B: Backend>(cluster: &Cluster<B>) {
    let [one, two] = [cluster.node().await, cluster.node().await];
    for round in 0..20 {
        let value = round.to_string();
        for node in [&one, &two] {
            node.get("k").await;
        }
        let done = one.put("k", &value).await;
        assert_eq!(one.get("k").await.as_ref(), Some(&value), "the writer's own server");
        let commit = two.server.wait_for(done.position).await.expect("the same log");
        assert!(two.server.engine().commit() >= commit);
        assert_eq!(two.get("k").await.as_ref(), Some(&value), "the other server");
    }
    end([one, two]).await;
}

pub(crate) async fn a_failed_command_leaves_nothing_behind<B: Backend>(cluster: &Cluster<B>) {
    let (node, mut done) = cluster.worker(crate::cluster::quick()).await;
    node.put("k", "before").await;
    let mut applied = node.server.applied();
    let failing = Put { fail: true, ..emit("k", Emitted::default()) };
    let failed = node.call(failing).await;
    assert!(matches!(failed, Err(CommandError::Handler(Refused(text))) if text == "as asked"));
    assert_eq!(node.get("k").await.as_deref(), Some("before"));
    let last = node.call(emit("last", Emitted::default())).await.expect("done");
    assert_eq!(applied.next().await.expect("not missed").expect("there").position, last.position, "the failed one is in the log");
    assert_eq!(done.recv().await.expect("done").key, "last", "the failed one's event was done");
    node.end().await;
}

pub(crate) async fn a_repeated_command_is_done_once_whichever_server_gets_the_repeat<B: Backend>(cluster: &Cluster<B>) {
    let [one, two] = [cluster.node().await, cluster.node().await];
    let id = CommandId::random();
    let first = one.server.call(put("k", "x")).id(id.clone()).await.expect("done");
    two.put("k", "y").await;
    let again = two.server.call(put("k", "x")).id(id.clone()).await.expect("done before");
    assert_eq!((again.position, again.repeated, again.value.as_str()), (first.position, true, "x"));
    assert_eq!(two.get("k").await.as_deref(), Some("y"), "it was done again");
    let other = one.server.call(put("k", "z")).id(id).await;
    assert!(matches!(other, Err(CommandError::Fault(CommandFault::IdReused { .. }))), "{other:?}");

    // Both at once: one waits for the other, or finds it done.
    let id = CommandId::random();
    let (left, right) =
        tokio::join!(one.server.call(put("k", "w")).id(id.clone()).into_future(), two.server.call(put("k", "w")).id(id).into_future());
    let (left, right) = (left.expect("done"), right.expect("done"));
    assert_eq!((left.position, u8::from(left.repeated) + u8::from(right.repeated)), (right.position, 1));
    end([one, two]).await;
}

pub(crate) async fn a_change_arrives_although_every_hint_is_lost<B: Backend>(cluster: &Cluster<B>) {
    let deaf = || cluster.node_with(|builder| builder.wakeup(Silence::default()).check_every(Duration::from_millis(50)));
    let [one, two] = [deaf().await, deaf().await];
    let seen = two.value.computed(two.server.engine(), "k").await.expect("computed");
    one.put("k", "x").await;
    seen.invalidated().await;
    assert_eq!(two.get("k").await.as_deref(), Some("x"));
    end([one, two]).await;
}

pub(crate) async fn a_server_that_slept_while_the_log_was_trimmed_says_so_and_holds_nothing_stale<B: Backend>(cluster: &Cluster<B>) {
    let one = cluster.node().await;
    let mut wake = None;
    let (refill, mut refilled) = tokio::sync::mpsc::unbounded_channel();
    let mut two = cluster
        .node_with(|builder| {
            let (asleep, waker) = Asleep::new(builder.followed());
            wake = Some(waker);
            builder.log(asleep).refill(Duration::from_millis(20), move || {
                let refill = refill.clone();
                async move { refill.send(()).unwrap_or_default() }
            })
        })
        .await;
    let wake = wake.expect("built");
    for key in ["a", "b"] {
        two.server.wait_for(one.put(key, "old").await.position).await.expect("the same log");
        assert_eq!(two.get(key).await.as_deref(), Some("old"));
    }
    // Everything so far has been read by the sleeper, and what comes now has reached the log before it is trimmed.
    wake.send_replace(false);
    let awake = cluster.node().await;
    // A stream keeps its last message, which says where it is.
    for (key, value) in [("a", "new"), ("c", "last")] {
        awake.server.wait_for(one.put(key, value).await.position).await.expect("the same log");
    }
    cluster.backend.trim().await;
    assert_eq!(two.get("a").await.as_deref(), Some("old"), "it does not sleep");
    let before = two.server.stats().coverage_lost;
    while two.notices.try_recv().is_ok() {}
    while refilled.try_recv().is_ok() {}
    wake.send_replace(true);
    two.notice(|notice| matches!(notice, Notice::CoverageLost { .. }).then_some(())).await;
    assert_eq!(two.get("a").await.as_deref(), Some("new"));
    assert_eq!(two.server.stats().coverage_lost, before + 1);
    refilled.recv().await.expect("it is refilled");
    // It follows on from there.
    let seen = two.value.computed(two.server.engine(), "b").await.expect("computed");
    one.put("b", "new").await;
    seen.invalidated().await;
    assert_eq!(two.get("b").await.as_deref(), Some("new"));
    end([one, two, awake]).await;
}

pub(crate) async fn a_server_starts_at_the_logs_end_and_misses_nothing_from_then_on<B: Backend>(cluster: &Cluster<B>) {
    let one = cluster.node().await;
    for round in 0..10 {
        one.put("k", "before").await;
        let two = cluster.node().await;
        assert_eq!(two.get("k").await.as_deref(), Some("before"));
        let seen = two.value.computed(two.server.engine(), "k").await.expect("computed");
        let after = format!("after {round}");
        let done = one.put("k", &after).await;
        seen.invalidated().await;
        two.server.wait_for(done.position).await.expect("the same log");
        assert_eq!(two.get("k").await.as_ref(), Some(&after));
        if !B::RELAYED {
            assert!(two.server.stats().applied_from_log <= 2, "it has read what was there before");
        }
        two.end().await;
    }
    one.end().await;
}

pub(crate) async fn a_poisoned_entry_is_told_and_the_rest_is_applied<B: Backend>(cluster: &Cluster<B>) {
    let one = cluster.node().await;
    let mut two = cluster.node().await;
    one.put("k", "x").await;
    let seen = two.value.computed(two.server.engine(), "k").await.expect("computed");
    cluster.backend.append_raw("this is no body").await;
    two.notice(|notice| matches!(notice, Notice::Poisoned { .. }).then_some(())).await;
    seen.invalidated().await;
    let seen = two.value.computed(two.server.engine(), "k").await.expect("computed");
    cluster.backend.append_raw(r#"{"c":"x","k":[{"f":"unheard of","k":"1"},{"f":"value","k":"\"k\""}]}"#).await;
    let reason = two.notice(|notice| if let Notice::Poisoned { reason, .. } = notice { Some(reason.clone()) } else { None }).await;
    assert!(reason.contains("unheard of"), "{reason}");
    seen.invalidated().await;
    let done = one.put("k", "after").await;
    two.server.wait_for(done.position).await.expect("the same log");
    assert_eq!(two.get("k").await.as_deref(), Some("after"));
    end([one, two]).await;
}

pub(crate) async fn a_caller_that_goes_at_any_point_leaves_all_or_nothing_and_never_something_stale<B: Backend>(cluster: &Cluster<B>) {
    let [one, two] = [cluster.node().await, cluster.node().await];
    for polls in 0..24 {
        let key = format!("k{polls}");
        assert_eq!((one.get(&key).await, two.get(&key).await), (None, None));
        {
            let mut call = pin!(one.server.call(put(&key, "x")).into_future());
            let mut left = polls;
            // Polled so many times, each time it asks to be, and dropped.
            std::future::poll_fn(|cx| {
                if left == 0 || call.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                left -= 1;
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        // A commit under way ends before or after this, in either case as a whole.
        let (mut row, store) = (None, cluster.backend.open().await);
        for _ in 0..3 {
            let marker = one.put("marker", &key).await;
            two.server.wait_for(marker.position).await.expect("the same log");
            row = B::get(&store, &key).await;
        }
        if row.is_some() {
            let (here, there) = (one.value.computed(one.server.engine(), &key).await, two.value.computed(two.server.engine(), &key).await);
            for computed in [here.expect("computed"), there.expect("computed")] {
                if computed.value().is_none() {
                    computed.invalidated().await;
                }
            }
        }
        assert_eq!(one.get(&key).await, row, "after {polls} polls, on its own server");
        assert_eq!(two.get(&key).await, row, "after {polls} polls, on the other server");
        drop(store);
    }
    let _ = cluster.backend.open().await.trim_journal(Duration::ZERO).await.expect("trimmed");
    end([one, two]).await;
}
