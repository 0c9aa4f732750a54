//! Named consumers: one at a time, and nothing missed in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};
use wellspring_commands::{Consumed, Consumer};

use crate::backend::Backend;
use crate::cluster::{Cluster, Node, end};

/// A consumer that tells the values it gets, and when it has begun.
async fn start<B: Backend>(node: &Node<B>, name: &str) -> (Consumer, mpsc::UnboundedReceiver<String>) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let consumer = consumer(node, name, tell);
    // Its first cursor is the log's end at that moment: what it hears of is what comes after.
    loop {
        node.put("start", "start").await;
        if told.try_recv().is_ok() {
            return (consumer, told);
        }
        tokio::task::yield_now().await;
    }
}

fn consumer<B: Backend>(node: &Node<B>, name: &str, tell: mpsc::UnboundedSender<String>) -> Consumer {
    node.server.consume(name, move |consumed| {
        let value = match consumed {
            Consumed::Operation(operation) => operation.items.get::<String>("value").expect("text").unwrap_or_default(),
            other => format!("{other:?}"),
        };
        std::future::ready(tell.send(value).map_err(Into::into))
    })
}

async fn next(told: &mut mpsc::UnboundedReceiver<String>) -> String {
    loop {
        let value = told.recv().await.expect("the consumer is there");
        if value != "start" {
            return value;
        }
    }
}

pub(crate) async fn of_two_consumers_with_one_name_the_second_waits_and_goes_on_where_the_first_was<B: Backend>(cluster: &Cluster<B>) {
    let [one, two] = [cluster.node().await, cluster.node().await];
    let (first, mut told) = start(&one, "books").await;
    let (tell, mut second_told) = mpsc::unbounded_channel();
    let _second = consumer(&two, "books", tell);
    for value in ["a", "b"] {
        two.put("k", value).await;
        assert_eq!(next(&mut told).await, value);
    }
    assert!(second_told.try_recv().is_err(), "both consume");
    drop(first);
    for value in ["c", "d"] {
        one.put("k", value).await;
    }
    // At least once: the last that the first had got may come again.
    let mut got = vec![next(&mut second_told).await];
    while got.last().map(String::as_str) != Some("d") {
        got.push(next(&mut second_told).await);
    }
    let from = got.iter().position(|value| value == "c").expect("nothing is missed");
    assert_eq!(got[from..], ["c", "d"]);
    assert!(got[..from].iter().all(|value| ["a", "b"].contains(&value.as_str())), "{got:?}");
    end([one, two]).await;
}

pub(crate) async fn a_consumer_that_fails_gets_the_same_operation_again_and_nothing_before_it<B: Backend>(cluster: &Cluster<B>) {
    let node = cluster.node().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let failed = Arc::new(AtomicBool::new(false));
    let (began, mut begun) = watch::channel(false);
    let once = failed.clone();
    let _consumer = node.server.consume("moody", move |consumed| {
        let Consumed::Operation(operation) = consumed else { return std::future::ready(Ok(())) };
        let value = operation.items.get::<String>("value").expect("text").unwrap_or_default();
        let fails = value == "b" && !once.swap(true, Ordering::Relaxed);
        began.send_replace(true);
        let _ = tell.send(value);
        std::future::ready(if fails { Err("not now".into()) } else { Ok(()) })
    });
    while !*begun.borrow_and_update() {
        node.put("start", "start").await;
    }
    for value in ["a", "b", "c"] {
        node.put("k", value).await;
    }
    let mut got = Vec::new();
    while got.last().map(String::as_str) != Some("c") {
        got.push(next(&mut told).await);
    }
    let firsts: Vec<_> = got.iter().map(String::as_str).collect();
    assert_eq!(firsts, ["a", "b", "b", "c"]);
    node.end().await;
}

pub(crate) async fn a_consumer_hears_of_a_gap<B: Backend>(cluster: &Cluster<B>) {
    let node = cluster.node().await;
    let (consumer, mut told) = start(&node, "slow").await;
    node.put("k", "a").await;
    assert_eq!(next(&mut told).await, "a");
    drop(consumer);
    let other = cluster.node().await;
    for value in ["b", "c"] {
        let done = node.put("k", value).await;
        other.server.wait_for(done.position).await.expect("the same log");
    }
    cluster.backend.trim().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let _consumer = self::consumer(&node, "slow", tell);
    let mut heard = next(&mut told).await;
    if heard == "a" {
        heard = next(&mut told).await;
    }
    assert!(heard.starts_with("Gap"), "{heard}");
    loop {
        node.put("k", "d").await;
        if let Ok(value) = told.try_recv() {
            assert_eq!(value, "d");
            break;
        }
        tokio::task::yield_now().await;
    }
    end([node, other]).await;
}
