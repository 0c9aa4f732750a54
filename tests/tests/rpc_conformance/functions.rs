//! Values of the server in the graph of a client.

use std::time::Duration;

use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_rpc::{Remote, Remoted};
use wellspring_tests::rpc::Cut;

use crate::setup::{Site, call, connected, in_time, method, set};

/// A client's own engine, in which the sum of two counters is a function.
pub(crate) struct Near {
    engine: Engine,
    pub(crate) remote: Remote,
    sum: AsyncFunction<(String, String), i64>,
}

impl Near {
    pub(crate) fn over(remote: Remote) -> Near {
        let engine = Engine::new();
        let counter: AsyncFunction<(String,), Remoted<i64>> =
            remote.function(&engine, "counter", &method("ICounter.Get:2")).expect("registered");
        let sum = engine.async_function("sum", move |cx: Cx, (one, two): (String, String)| {
            let counter = counter.clone();
            async move {
                let (one, two) = (counter.get(&cx, &(one,)).await, counter.get(&cx, &(two,)).await);
                one.expect("read").as_ref().expect("a value") + two.expect("read").as_ref().expect("a value")
            }
        });
        Near { engine, remote, sum: sum.expect("registered") }
    }

    pub(crate) async fn sum(&self) -> i64 {
        in_time("a sum", self.sum.get(&self.engine, &("a".to_owned(), "b".to_owned()))).await.expect("a sum")
    }

    /// Waits until the sum is this, asking nobody.
    pub(crate) async fn becomes(&self, expected: i64) {
        let becoming = async {
            let mut sums = self.sum.computed(&self.engine, &("a".to_owned(), "b".to_owned())).await.expect("a sum").changes();
            while *sums.next().await.expect("endless").expect("a sum").value() != expected {}
        };
        in_time(format!("the sum is {expected}"), becoming).await;
    }
}

pub(crate) async fn a_function_here_follows_values_there(site: Site) {
    let near = Near::over(site.remote());
    let far = site.remote();
    assert_eq!(near.sum().await, 0);
    for round in 1..20 {
        set(&far, "a", round).await;
        near.becomes(round + round - 1).await;
        set(&far, "b", round).await;
        near.becomes(2 * round).await;
    }
    assert_eq!(near.remote.open_calls(), 2);
    near.engine.assert_consistent();
}

pub(crate) async fn a_value_is_computed_there_once_for_all_who_read_it_here(site: Site) {
    let remote = site.remote();
    let engine = Engine::new();
    let compute: AsyncFunction<(i64, u64, u64), Remoted<i64>> =
        remote.function(&engine, "compute", &method("IReconnectMatrixTester.Compute:4")).expect("registered");
    let key = (5, 50, 3_600_000);
    let reads = (0..100).map(|_| compute.get(&engine, &key));
    for read in in_time("all reads", futures_util::future::join_all(reads)).await {
        assert_eq!(read.expect("read").as_result(), Ok(&5));
    }
    assert_eq!(compute.get(&engine, &key).await.expect("read").as_result(), Ok(&5));
    assert_eq!(call::<u32>(&remote, "IReconnectMatrixTester.GetComputeInvocationCount:2", (5,)).await, 1);
    assert_eq!(remote.open_calls(), 1);
}

pub(crate) async fn a_value_outlives_a_cut_and_is_not_asked_for_again(site: Site) {
    let cut = Cut::new();
    let near = Near::over(site.remote_over(&cut));
    let far = site.remote();
    set(&far, "a", 1).await;
    assert_eq!(near.sum().await, 1);
    let computed = near.sum.computed(&near.engine, &("a".to_owned(), "b".to_owned())).await.expect("a sum");
    for connection in 2..5 {
        cut.now();
        in_time("a connection", cut.has_connected(connection)).await;
        connected(&near.remote).await;
        // It has said what it waits for, and been told what is not known.
        call::<()>(&near.remote, "IDemo.Nothing:1", ()).await;
        assert!(computed.is_consistent(), "connection {connection}");
    }
    assert_eq!(near.remote.open_calls(), 2);
    set(&far, "b", 1).await;
    near.becomes(2).await;
}

pub(crate) async fn whatever_is_cut_a_function_comes_to_the_last_value(site: Site) {
    let cut = Cut::new();
    let near = Near::over(site.remote_over(&cut));
    let far = site.remote();
    for round in 1..=50 {
        set(&far, if round % 2 == 0 { "a" } else { "b" }, round).await;
        match round % 5 {
            0 => near.becomes(2 * round - 1).await,
            1 => cut.now(),
            2 => cut.set_down(true),
            3 => cut.set_down(false),
            _ => drop(tokio::time::timeout(Duration::from_millis(1), near.sum()).await),
        }
    }
    near.becomes(99).await;
    near.engine.assert_consistent();
}
