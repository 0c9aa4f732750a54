//! Streams.

use futures_util::future::join_all;
use wellspring_rpc::{Remote, RpcStream};
use wellspring_tests::rpc::Cut;

use crate::setup::{Site, call, in_time, method};

const COUNT: &str = "IDemo.Count:4";

async fn count(remote: &Remote, items: i64, ack_period: u32, ack_advance: u32) -> RpcStream<i64> {
    call(remote, COUNT, (items, ack_period, ack_advance)).await
}

async fn next(stream: &mut RpcStream<i64>) -> Option<i64> {
    in_time("an item", stream.next()).await.map(|item| item.expect("no failure"))
}

async fn has_items(stream: &mut RpcStream<i64>, items: i64) {
    for number in 0..items {
        assert_eq!(next(stream).await, Some(number * 10));
    }
    assert_eq!(next(stream).await, None);
}

pub(crate) async fn a_stream_has_all_its_items_in_their_order(site: Site) {
    let remote = site.remote();
    // Around the window's ends.
    for items in [1, 29, 30, 31, 60, 61, 62, 122, 20_000] {
        has_items(&mut count(&remote, items, 0, 0).await, items).await;
    }
    site.has_open_streams(0).await;
    assert_eq!((remote.open_streams(), remote.open_calls()), (0, 0));
}

pub(crate) async fn windows_of_any_size_lose_nothing(site: Site) {
    let remote = site.remote();
    for (ack_period, ack_advance) in [(1, 1), (1, 2), (2, 4), (3, 3), (10, 21), (500, 1_001), (100_000, 200_000)] {
        for items in [5, 25, 2_000] {
            has_items(&mut count(&remote, items, ack_period, ack_advance).await, items).await;
        }
    }
    site.has_open_streams(0).await;
}

pub(crate) async fn a_stream_of_nothing_ends(site: Site) {
    let remote = site.remote();
    has_items(&mut count(&remote, 0, 0, 0).await, 0).await;
    has_items(&mut count(&remote, -5, 2, 4).await, 0).await;
    let mut failing: RpcStream<String> = call(&remote, "IDemo.CountThenFail:2", (0,)).await;
    assert_eq!(in_time("the failure", failing.next()).await.expect("one").expect_err("a failure").message(), "source failed");
    site.has_open_streams(0).await;
}

pub(crate) async fn a_failing_stream_gives_what_it_has_and_then_its_failure(site: Site) {
    let remote = site.remote();
    for items in [1, 3, 200] {
        let mut stream: RpcStream<String> = call(&remote, "IDemo.CountThenFail:2", (items,)).await;
        for number in 0..items {
            assert_eq!(in_time("an item", stream.next()).await, Some(Ok(format!("item-{number}"))));
        }
        let failed = in_time("the failure", stream.next()).await.expect("one").expect_err("a failure");
        assert_eq!((failed.message(), failed.type_name()), ("source failed", "ActualLab.Serialization.RemoteException"));
        assert_eq!(in_time("the end", stream.next()).await, None);
    }
    site.has_open_streams(0).await;
}

pub(crate) async fn a_stream_that_is_left_is_gone_there(site: Site) {
    let remote = site.remote();
    let mut begun = count(&remote, i64::MAX / 10, 0, 0).await;
    for number in 0..100 {
        assert_eq!(next(&mut begun).await, Some(number * 10));
    }
    let unread = count(&remote, i64::MAX / 10, 0, 0).await;
    site.has_open_streams(2).await;
    drop(begun);
    site.has_open_streams(1).await;
    drop(unread);
    site.has_open_streams(0).await;
    assert_eq!(remote.open_streams(), 0);
}

pub(crate) async fn many_streams_go_on_beside_each_other(site: Site) {
    let remote = site.remote();
    let reading = (0..100_i64).map(async |number| {
        let mut stream = count(&remote, number * 7, 0, 0).await;
        has_items(&mut stream, number * 7).await;
    });
    in_time("all streams", join_all(reading)).await;
    site.has_open_streams(0).await;
}

pub(crate) async fn a_stream_goes_on_after_a_cut_where_it_was(site: Site) {
    let cut = Cut::new();
    let remote = site.remote_over(&cut);
    let mut stream = count(&remote, 5_000, 10, 25).await;
    for number in 0..5_000 {
        if number % 500 == 250 {
            cut.now();
        }
        assert_eq!(next(&mut stream).await, Some(number * 10));
    }
    assert_eq!(next(&mut stream).await, None);
    assert!(cut.connections() > 1, "it was never cut");
    site.has_open_streams(0).await;
}

pub(crate) async fn a_stream_that_must_not_go_on_fails_at_a_cut(site: Site) {
    let cut = Cut::new();
    let remote = site.remote_over(&cut);
    let items = 10_000_000_u32;
    let name = method("ITypeScriptTestComputeService.StreamInt32NoReconnect:1");
    let mut stream: RpcStream<u32> = in_time("a stream", remote.call(&name, (items,))).await.expect("a stream");
    for number in 0..100 {
        assert_eq!(in_time("an item", stream.next()).await, Some(Ok(number)));
    }
    cut.now();
    // What had come may be read.
    let mut more = 100;
    let failure = loop {
        match in_time("an item or the failure", stream.next()).await {
            Some(Ok(item)) => {
                assert_eq!(item, more);
                more += 1;
            }
            Some(Err(failure)) => break failure,
            None => panic!("it ends as if it were complete, after {more} items"),
        }
    };
    assert!(more < items, "{failure}");
    assert_eq!(in_time("the end", stream.next()).await, None);
    site.has_open_streams(0).await;
    drop(stream);
    assert_eq!(remote.open_streams(), 0);
}

pub(crate) async fn a_stream_does_not_outlive_the_server(site: Site) {
    let remote = site.remote();
    let mut stream = count(&remote, i64::MAX / 10, 0, 0).await;
    assert_eq!(next(&mut stream).await, Some(0));
    remote.tell(&method("IServerControlService.RequestRestart:0"), ()).expect("told");
    site.server.has_started(2).await.expect("it starts anew");
    let mut expected = 10;
    let failure = loop {
        match in_time("an item or the failure", stream.next()).await {
            Some(Ok(item)) => {
                assert_eq!(item, expected);
                expected += 10;
            }
            Some(Err(failure)) => break failure,
            None => panic!("it ends as if it were complete"),
        }
    };
    assert_eq!(in_time("the end", stream.next()).await, None, "after {failure}");
    drop(stream);
    has_items(&mut count(&remote, 100, 0, 0).await, 100).await;
    assert_eq!(remote.open_streams(), 0);
}
