//! Order: each operation once, and in an order that respects real time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use wellspring_commands::{Consumed, OperationId};

use crate::backend::Backend;
use crate::cluster::{Cluster, Node, SharedNode, end, join};

const TASKS: usize = 6;
const EACH: usize = 15;

/// When an operation began and ended, by a counter all tasks share.
type Spans = HashMap<OperationId, (u64, u64)>;

async fn many<B: Backend>(nodes: &[SharedNode<B>]) -> Spans {
    let clock = Arc::new(AtomicU64::new(0));
    let tasks = (0..TASKS).map(|task| {
        let (node, clock) = (nodes[task % nodes.len()].clone(), clock.clone());
        tokio::spawn(async move {
            let mut spans = Vec::new();
            for round in 0..EACH {
                let began = clock.fetch_add(1, Ordering::SeqCst);
                let done = node.put(&format!("k{}", round % 4), &format!("{task} {round}")).await;
                spans.push((done.position.operation, (began, clock.fetch_add(1, Ordering::SeqCst))));
            }
            spans
        })
    });
    let mut spans = Spans::new();
    for task in tasks.collect::<Vec<_>>() {
        spans.extend(join(task).await);
    }
    spans
}

async fn shared<B: Backend>(cluster: &Cluster<B>, count: usize) -> Vec<SharedNode<B>> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Arc::new(cluster.node().await));
    }
    nodes
}

async fn done<B: Backend>(nodes: Vec<SharedNode<B>>) {
    let alone = |node: SharedNode<B>| -> Node<B> { Arc::into_inner(node).expect("all tasks are over") };
    end(nodes.into_iter().map(alone)).await;
}

/// What a node applies, until all of it was.
async fn applied_order<B: Backend>(node: &SharedNode<B>, count: usize) -> tokio::task::JoinHandle<Vec<OperationId>> {
    let mut applied = node.server.applied();
    tokio::spawn(async move {
        let mut order = Vec::new();
        while order.len() < count {
            order.push(applied.next().await.expect("not missed").expect("there").position.operation);
        }
        order
    })
}

pub(crate) async fn every_operation_is_applied_exactly_once_on_every_server<B: Backend>(cluster: &Cluster<B>) {
    let nodes = shared(cluster, 3).await;
    let mut orders = Vec::new();
    for node in &nodes {
        orders.push(applied_order(node, TASKS * EACH).await);
    }
    let spans = many(&nodes).await;
    for (node, order) in nodes.iter().zip(orders) {
        let order = join(order).await;
        let once: HashSet<_> = order.iter().copied().collect();
        assert_eq!(once.len(), TASKS * EACH, "some came twice");
        assert!(spans.keys().all(|operation| once.contains(operation)), "some came never");
        // One more of each server's own: whatever was left over would be applied before it.
        let last = node.put("last", "x").await;
        for other in &nodes {
            other.server.wait_for(last.position).await.expect("the same log");
        }
    }
    for node in &nodes {
        let stats = node.server.stats();
        assert_eq!(stats.applied_own + stats.applied_from_log, (TASKS * EACH + nodes.len()) as u64);
    }
    done(nodes).await;
}

fn respects_real_time(order: &[OperationId], spans: &Spans) {
    let place: HashMap<_, _> = order.iter().enumerate().map(|(place, operation)| (operation, place)).collect();
    for (first, (_, ended)) in spans {
        for (second, (began, _)) in spans {
            assert!(ended >= began || place[first] < place[second], "{second} was applied before {first}, which had ended before it began");
        }
    }
}

pub(crate) async fn what_was_committed_before_another_began_is_applied_before_it<B: Backend>(cluster: &Cluster<B>) {
    let nodes = shared(cluster, 2).await;
    let watcher = Arc::new(cluster.node().await);
    let order = applied_order(&watcher, TASKS * EACH).await;
    let spans = many(&nodes).await;
    respects_real_time(&join(order).await, &spans);
    done(nodes.into_iter().chain([watcher]).collect()).await;
}

pub(crate) async fn consumers_on_all_servers_see_one_order<B: Backend>(cluster: &Cluster<B>) {
    let nodes = shared(cluster, 3).await;
    let (mut heard, mut consumers) = (Vec::new(), Vec::new());
    for (number, node) in nodes.iter().enumerate() {
        let (tell, told) = mpsc::unbounded_channel();
        let (ready, started) = tokio::sync::watch::channel(false);
        let consumer = node.server.consume(format!("observer {number}"), move |consumed| {
            if let Consumed::Operation(operation) = consumed {
                match operation.items.get::<String>("value") {
                    Ok(Some(value)) if value == "start" => drop(ready.send_replace(true)),
                    _ => drop(tell.send(operation.position.operation)),
                }
            }
            std::future::ready(Ok(()))
        });
        // Its cursor is the log's end when it first holds its name: from the first it hears of, it hears of all.
        while !*started.borrow() {
            node.put("start", "start").await;
        }
        heard.push(told);
        consumers.push(consumer);
    }
    let spans = many(&nodes).await;
    let mut orders = Vec::new();
    for told in &mut heard {
        let mut order = Vec::new();
        while order.len() < spans.len() {
            let operation = told.recv().await.expect("the consumer is there");
            if spans.contains_key(&operation) {
                order.push(operation);
            }
        }
        orders.push(order);
    }
    respects_real_time(&orders[0], &spans);
    assert!(orders.iter().all(|order| *order == orders[0]), "the orders differ");
    drop(consumers);
    done(nodes).await;
}

pub(crate) async fn many_operations_at_once_take_few_sweeps<B: Backend>(cluster: &Cluster<B>) {
    let writer = cluster.node().await;
    let mut wake = None;
    let reader = cluster
        .node_with(|builder| {
            let (asleep, waker) = crate::asleep::Asleep::new(builder.followed());
            wake = Some(waker);
            builder.log(asleep)
        })
        .await;
    let wake = wake.expect("built");
    reader.server.wait_for(writer.put("k", "first").await.position).await.expect("the same log");
    wake.send_replace(false);
    let before = reader.server.stats();
    let mut last = writer.put("k", "0").await;
    for round in 1..100 {
        last = writer.put("k", &round.to_string()).await;
    }
    let awake = cluster.node().await;
    awake.server.wait_for(last.position).await.expect("the same log");
    wake.send_replace(true);
    reader.server.wait_for(last.position).await.expect("the same log");
    let after = reader.server.stats();
    assert_eq!(after.applied_from_log - before.applied_from_log, 100);
    // What the reading that it fell asleep in had asked for, and then all that there was.
    assert!(after.sweeps - before.sweeps <= 3, "{} sweeps", after.sweeps - before.sweeps);
    assert_eq!(reader.get("k").await.as_deref(), Some("99"));
    end([writer, reader, awake]).await;
}
