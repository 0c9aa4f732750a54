//! Events: done at least once, by one server at a time.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use wellspring_commands::{CommandError, CommandFault, EventOptions, Notice, Store};

use crate::backend::Backend;
use crate::cluster::{Cluster, Emitted, Put, emit, end, join, quick};

fn once(key: &str, rule: char) -> Emitted {
    Emitted { once: Some((key.into(), rule)), ..Emitted::default() }
}

pub(crate) async fn an_event_is_there_if_and_only_if_its_operation_is<B: Backend>(cluster: &Cluster<B>) {
    let (node, mut done) = cluster.worker(quick()).await;
    node.call(Put { fail: true, ..emit("failed", Emitted::default()) }).await.expect_err("it fails");
    for key in ["a", "b"] {
        node.call(emit(key, Emitted::default())).await.expect("done");
        assert_eq!(done.recv().await.expect("done").key, key);
    }
    node.end().await;
}

pub(crate) async fn an_event_is_done_by_one_server_and_by_another_when_that_one_is_gone<B: Backend>(cluster: &Cluster<B>) {
    let writer = cluster.node().await;
    writer.call(emit("k", Emitted::default())).await.expect("done");
    // A server takes the event and is not heard of again.
    let queue = cluster.backend.open().await.events();
    let kinds = ["WasPut".to_owned()];
    let lease = Duration::from_secs(3);
    let taken = queue.claim(&kinds, 10, lease).await.expect("claimed");
    assert_eq!((taken.events.len(), taken.events[0].attempt), (1, 1));
    let again = queue.claim(&kinds, 10, lease).await.expect("asked");
    assert!(again.events.is_empty(), "it was given out twice");
    assert!(again.next.is_some_and(|next| next <= lease), "{:?}", again.next);
    let (node, mut done) = cluster.worker(quick()).await;
    assert_eq!(done.recv().await.expect("done").key, "k");
    node.server.shutdown().await;
    assert!(!queue.complete(&taken.events[0]).await.expect("asked"), "a lease that has run out was good");
    assert!(queue.claim(&kinds, 10, lease).await.expect("asked").events.is_empty(), "it is to be done again");
    end([writer, node]).await;
}

pub(crate) async fn a_partition_is_done_in_order<B: Backend>(cluster: &Cluster<B>) {
    let writer = cluster.node().await;
    for number in 0..12 {
        let partition = Some(format!("p{}", number % 2));
        let value = if number == 4 { "bad" } else { "good" };
        let emitted = Emitted { partition, ..Emitted::default() };
        writer.call(Put { value: value.into(), ..emit(&number.to_string(), emitted) }).await.expect("done");
    }
    let (tell, mut done) = mpsc::unbounded_channel();
    let (one, two) = (cluster.worker_to(quick(), tell.clone()).await, cluster.worker_to(quick(), tell).await);
    let mut order = Vec::new();
    while order.len() < 11 {
        order.push(done.recv().await.expect("done").key.parse::<u32>().expect("a number"));
    }
    for partition in 0..2 {
        let of: Vec<_> = order.iter().copied().filter(|number| number % 2 == partition).collect();
        assert!(of.is_sorted(), "{of:?}");
        assert_eq!(of.len(), if partition == 0 { 5 } else { 6 });
    }
    let dead = one.server.dead_events(10).await.expect("listed");
    assert_eq!((dead.len(), dead[0].attempts), (1, 2));
    end([writer, one, two]).await;
}

pub(crate) async fn a_delayed_event_is_not_done_before_its_time<B: Backend>(cluster: &Cluster<B>) {
    let (node, mut done) = cluster.worker(quick()).await;
    let began = Instant::now();
    node.call(emit("later", Emitted { delay_ms: 700, ..Emitted::default() })).await.expect("done");
    node.call(emit("now", Emitted::default())).await.expect("done");
    assert_eq!(done.recv().await.expect("done").key, "now");
    assert_eq!(done.recv().await.expect("done").key, "later");
    // The database's clock counts milliseconds, and its transaction began before this one's.
    assert!(began.elapsed() >= Duration::from_millis(690), "{:?}", began.elapsed());
    node.end().await;
}

pub(crate) async fn a_duplicate_fails_is_skipped_or_updates_as_asked<B: Backend>(cluster: &Cluster<B>) {
    let writer = cluster.node().await;
    let with = |value: &str, emitted: Emitted| Put { value: value.into(), ..emit("k", emitted) };
    writer.call(with("first", once("key", 'f'))).await.expect("there was none");
    let twice = writer.call(with("second", once("key", 'f'))).await;
    assert!(matches!(twice, Err(CommandError::Fault(CommandFault::Store { .. }))), "{twice:?}");
    assert_eq!(writer.get("k").await.as_deref(), Some("first"), "the operation was done without its event");
    writer.call(with("skipped", once("key", 's'))).await.expect("skipped");
    assert_eq!(writer.get("k").await.as_deref(), Some("skipped"));
    let later = Emitted { delay_ms: 50, ..once("key", 'u') };
    writer.call(with("updated", later)).await.expect("updated");
    writer.call(with("other", once("another key", 'f'))).await.expect("another key");
    let (node, mut done) = cluster.worker(quick()).await;
    let mut values = vec![done.recv().await.expect("done").value, done.recv().await.expect("done").value];
    values.sort_unstable();
    assert_eq!(values, ["other", "updated"]);
    // Done, and remembered.
    let again = writer.call(with("again", once("key", 'u'))).await;
    assert!(again.is_err(), "an event that was done was updated");
    writer.call(with("skipped again", once("key", 's'))).await.expect("skipped");
    node.server.shutdown().await;
    cluster.backend.open().await.events().trim(Duration::ZERO).await.expect("trimmed");
    writer.call(with("new", once("key", 'f'))).await.expect("forgotten by now");
    end([writer, node]).await;
}

pub(crate) async fn of_many_who_skip_duplicates_none_fails_and_one_event_is_done<B: Backend>(cluster: &Cluster<B>) {
    let nodes = [std::sync::Arc::new(cluster.node().await), std::sync::Arc::new(cluster.node().await)];
    let calls = (0..8).map(|number| {
        let node = nodes[number % 2].clone();
        tokio::spawn(async move { node.call(emit(&format!("k{number}"), once("daily", 's'))).await.map(drop) })
    });
    for call in calls.collect::<Vec<_>>() {
        join(call).await.expect("none fails");
    }
    let (node, mut done) = cluster.worker(quick()).await;
    assert!(done.recv().await.is_some());
    node.call(emit("last", Emitted::default())).await.expect("done");
    assert_eq!(done.recv().await.expect("done").key, "last", "a duplicate was done");
    let nodes = nodes.map(|node| std::sync::Arc::into_inner(node).expect("all calls are over"));
    end(nodes).await;
    node.end().await;
}

pub(crate) async fn a_dead_event_is_listed_and_can_be_requeued<B: Backend>(cluster: &Cluster<B>) {
    let (mut node, _done) = cluster.worker(EventOptions { attempts: 1, ..quick() }).await;
    node.call(Put { value: "bad".into(), ..emit("k", Emitted::default()) }).await.expect("done");
    let dead = |notice: &Notice| if let Notice::EventDead { event, .. } = notice { Some(*event) } else { None };
    let event = node.notice(dead).await;
    let listed = node.server.dead_events(10).await.expect("listed");
    assert_eq!((listed.len(), listed[0].id, listed[0].error.as_str()), (1, event, "it is bad"));
    assert!(node.server.requeue(event).await.expect("requeued"));
    assert_eq!(node.notice(dead).await, event, "it was not tried again");
    node.end().await;
}
