//! The peer's matrix of reconnections: where a call is when its connection breaks, and where when it is back.
//!
//! The server's bodies take real time. What a test waits for is asked for over another connection wherever it can be seen from outside; a body that has
//! ended without a connection cannot, so there the test waits longer than it takes.

use std::time::Duration;

use wellspring_rpc::{Remote, Replica};
use wellspring_tests::rpc::Cut;

use crate::setup::{Site, begin, begin_value, call, connected, disconnected, ends, joined, until, value};

const COMPUTE: &str = "IReconnectMatrixTester.Compute:4";
const RPC: &str = "IReconnectMatrixRpcTester.Rpc:3";

/// Which of the server's values.
const KEY: i64 = 7;
/// Milliseconds after which a value that should not end does.
const LONG: u64 = 3_600_000;

/// A client whose connection is broken, and one that sees what happens meanwhile.
struct Pair {
    site: Site,
    cut: Cut,
    near: Remote,
    far: Remote,
}

impl Pair {
    async fn at(site: Site) -> Pair {
        let cut = Cut::new();
        let (near, far) = (site.remote_over(&cut), site.remote());
        connected(&near).await;
        connected(&far).await;
        Pair { site, cut, near, far }
    }

    async fn computed(&self) -> u32 {
        call(&self.far, "IReconnectMatrixTester.GetComputeInvocationCount:2", (KEY,)).await
    }

    async fn ended(&self) -> u32 {
        call(&self.far, "IReconnectMatrixTester.GetInvalidationCount:2", (KEY,)).await
    }

    async fn called(&self) -> u32 {
        call(&self.far, "IReconnectMatrixRpcTester.GetInvocationCount:2", (KEY,)).await
    }

    async fn has_computed(&self) {
        until("the body runs", 1, async || self.computed().await).await;
    }

    async fn has_called(&self) {
        until("the body runs", 1, async || self.called().await).await;
    }

    async fn has_ended(&self) {
        until("the value has ended there", 1, async || self.ended().await).await;
    }

    async fn lose(&self) {
        self.cut.set_down(true);
        disconnected(&self.near).await;
    }

    async fn come_back(&self) {
        let connections = self.cut.connections();
        self.cut.set_down(false);
        self.cut.has_connected(connections + 1).await;
        connected(&self.near).await;
    }

    async fn blink(&self) {
        self.lose().await;
        self.come_back().await;
    }

    /// Nothing is left of it, here or there.
    async fn end(self) {
        assert_eq!(self.near.open_calls(), 0);
        self.site.has_open_calls(0).await;
    }
}

pub(crate) async fn f1_a_value_asked_for_without_a_connection_is_computed_once(site: Site) {
    let pair = Pair::at(site).await;
    pair.lose().await;
    let asked = begin_value::<i64, _>(&pair.near, COMPUTE, (KEY, 100, 400));
    assert_eq!(pair.computed().await, 0);
    pair.come_back().await;
    let value = joined("the value", asked).await;
    assert_eq!(*value.value(), KEY);
    ends(&value).await;
    assert_eq!(pair.computed().await, 1);
    drop(value);
    pair.end().await;
}

pub(crate) async fn f2_a_value_whose_connection_is_cut_meanwhile_is_computed_once(site: Site) {
    let pair = Pair::at(site).await;
    let asked = begin_value::<i64, _>(&pair.near, COMPUTE, (KEY, 600, 400));
    pair.has_computed().await;
    pair.blink().await;
    let value = joined("the value", asked).await;
    assert_eq!(*value.value(), KEY);
    ends(&value).await;
    assert_eq!(pair.computed().await, 1);
    drop(value);
    pair.end().await;
}

pub(crate) async fn f3_a_value_that_is_there_when_the_connection_comes_back_is_given_and_ends_later(site: Site) {
    let pair = Pair::at(site).await;
    let asked = begin_value::<i64, _>(&pair.near, COMPUTE, (KEY, 500, 2_500));
    pair.has_computed().await;
    pair.lose().await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!asked.is_finished());
    pair.come_back().await;
    let value = joined("the value", asked).await;
    assert_eq!((*value.value(), value.is_stale()), (KEY, false));
    ends(&value).await;
    assert_eq!((pair.computed().await, pair.ended().await), (1, 1));
    drop(value);
    pair.end().await;
}

pub(crate) async fn f4_a_value_that_has_ended_by_then_is_given_and_is_stale(site: Site) {
    let pair = Pair::at(site).await;
    let asked = begin_value::<i64, _>(&pair.near, COMPUTE, (KEY, 500, 100));
    pair.has_computed().await;
    pair.lose().await;
    pair.has_ended().await;
    assert!(!asked.is_finished());
    pair.come_back().await;
    let first = joined("the value", asked).await;
    assert_eq!(*first.value(), KEY);
    ends(&first).await;
    let second: Replica<i64> = value(&pair.near, COMPUTE, (KEY, 500, 100)).await;
    assert_eq!((*second.value(), pair.computed().await), (KEY, 2));
    ends(&second).await;
    drop((first, second));
    pair.end().await;
}

pub(crate) async fn f5_a_value_that_ends_after_a_cut_is_stale(site: Site) {
    let pair = Pair::at(site).await;
    let value: Replica<i64> = value(&pair.near, COMPUTE, (KEY, 10, 1_500)).await;
    pair.blink().await;
    assert!(!value.is_stale());
    ends(&value).await;
    assert_eq!((pair.computed().await, pair.ended().await), (1, 1));
    drop(value);
    pair.end().await;
}

pub(crate) async fn f6_a_value_that_ends_during_a_cut_is_stale_afterwards(site: Site) {
    let pair = Pair::at(site).await;
    let (value, kept): (Replica<i64>, Replica<i64>) =
        (value(&pair.near, COMPUTE, (KEY, 10, 200)).await, value(&pair.near, COMPUTE, (KEY + 1, 10, LONG)).await);
    pair.lose().await;
    pair.has_ended().await;
    pair.come_back().await;
    ends(&value).await;
    assert_eq!(pair.computed().await, 1);
    assert!(!kept.is_stale());
    drop((value, kept));
    pair.end().await;
}

pub(crate) async fn r1_a_call_made_without_a_connection_runs_once(site: Site) {
    let pair = Pair::at(site).await;
    pair.lose().await;
    let asked = begin::<i64, _>(&pair.near, RPC, (KEY, 100));
    assert_eq!(pair.called().await, 0);
    pair.come_back().await;
    assert_eq!(joined("the answer", asked).await, KEY);
    assert_eq!(pair.called().await, 1);
    pair.end().await;
}

pub(crate) async fn r2_a_call_whose_connection_is_cut_meanwhile_runs_once(site: Site) {
    let pair = Pair::at(site).await;
    let asked = begin::<i64, _>(&pair.near, RPC, (KEY, 600));
    pair.has_called().await;
    pair.blink().await;
    assert_eq!(joined("the answer", asked).await, KEY);
    assert_eq!(pair.called().await, 1);
    pair.end().await;
}

/// The peer's own servers run it twice: they forget a result when they give it to a connection, also to one that is not there.
pub(crate) async fn r3_a_call_that_is_over_when_the_connection_comes_back_runs_once(site: Site) {
    let pair = Pair::at(site).await;
    let asked = begin::<i64, _>(&pair.near, RPC, (KEY, 500));
    pair.has_called().await;
    pair.lose().await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!asked.is_finished());
    pair.come_back().await;
    assert_eq!(joined("the answer", asked).await, KEY);
    assert_eq!(pair.called().await, 1);
    pair.end().await;
}

pub(crate) async fn calls_that_wait_through_many_cuts_run_once_each(site: Site) {
    let pair = Pair::at(site).await;
    let mut asked = Vec::new();
    for round in 0..20 {
        pair.lose().await;
        asked.push(begin::<i64, _>(&pair.near, RPC, (KEY, 50)));
        pair.come_back().await;
        asked.push(begin::<i64, _>(&pair.near, RPC, (KEY, 50)));
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for asked in asked {
        assert_eq!(joined("the answer", asked).await, KEY);
    }
    assert_eq!(pair.called().await, 40);
    pair.end().await;
}
