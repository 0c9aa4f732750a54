//! What the peer's TypeScript tests check.

use futures_util::future::join_all;
use wellspring_rpc::RpcStream;

use crate::setup::{Site, begin, call, ends, failure, in_time, joined, until, value};

pub(crate) async fn overloads_differ_by_how_many_parameters_they_have(site: Site) {
    let remote = site.remote();
    assert_eq!(call::<i64>(&remote, "ITypeScriptTestService.Add:2", (10, 20)).await, 30);
    assert_eq!(call::<i64>(&remote, "ITypeScriptTestService.Add:3", (10, 20, 30)).await, 60);
    assert_eq!(call::<i64>(&remote, "ITypeScriptTestService.Add:2", (10, 20, 30)).await, 30);
}

pub(crate) async fn names_truths_fractions_and_echoes_are_as_they_should_be(site: Site) {
    let remote = site.remote();
    assert_eq!(call::<String>(&remote, "ITypeScriptTestService.Greet:1", ("World",)).await, "Hello, World!");
    assert!(!call::<bool>(&remote, "ITypeScriptTestService.Negate:1", (true,)).await);
    assert!(call::<bool>(&remote, "ITypeScriptTestService.Negate:1", (false,)).await);
    assert_eq!(call::<f64>(&remote, "ITypeScriptTestService.Divide:2", (10.0, 4.0)).await, 2.5);
    assert_eq!(call::<f64>(&remote, "ITypeScriptTestService.Divide:2", (10, 3)).await, 10.0 / 3.0);
    for text in [None, Some(""), Some("test"), Some("null")] {
        let echo: Option<String> = call(&remote, "ITypeScriptTestService.Echo:1", (text,)).await;
        assert_eq!(echo.as_deref(), text);
    }
}

pub(crate) async fn what_is_thrown_has_its_message_and_its_type(site: Site) {
    let remote = site.remote();
    let thrown = failure(&remote, "ITypeScriptTestService.Throw:1", ("boom",)).await;
    assert_eq!((thrown.message(), thrown.type_name()), ("boom", "System.InvalidOperationException"));
}

pub(crate) async fn a_slow_echo_is_counted_when_it_begins(site: Site) {
    let remote = site.remote();
    let count = "ITypeScriptTestService.GetSlowEchoInvocationCount:0";
    assert_eq!(call::<u32>(&remote, count, ()).await, 0);
    let echo = begin::<String, _>(&remote, "ITypeScriptTestService.SlowEcho:2", ("marker", 500));
    until("it is counted", 1, async || call::<u32>(&remote, count, ()).await).await;
    assert_eq!(joined("the echo", echo).await, "marker");
    call::<()>(&remote, "ITypeScriptTestService.ResetSlowEchoCounter:0", ()).await;
    assert_eq!(call::<u32>(&remote, count, ()).await, 0);
}

pub(crate) async fn a_counter_follows_what_is_set_and_added(site: Site) {
    let remote = site.remote();
    let get = "ITypeScriptTestComputeService.GetCounter:2";
    let before = value::<i64>(&remote, get, ("k",)).await;
    let other = value::<i64>(&remote, get, ("other",)).await;
    assert_eq!(*before.value(), 0);
    call::<()>(&remote, "ITypeScriptTestComputeService.Set:3", ("k", 42)).await;
    ends(&before).await;
    let set = value::<i64>(&remote, get, ("k",)).await;
    assert_eq!(*set.value(), 42);
    call::<()>(&remote, "ITypeScriptTestComputeService.Increment:2", ("k",)).await;
    ends(&set).await;
    assert_eq!(*value::<i64>(&remote, get, ("k",)).await.value(), 43);
    assert_eq!(call::<i64>(&remote, "ITypeScriptTestComputeService.GetCounterNonCompute:2", ("k",)).await, 43);
    assert!(!other.is_stale());
    // `ICounter` counts something else.
    assert_eq!(call::<i64>(&remote, "ICounter.Get:2", ("k",)).await, 0);
}

pub(crate) async fn what_two_clients_add_at_once_is_all_there(site: Site) {
    let (one, two) = (site.remote(), site.remote());
    let adding = (0..200).map(|number| {
        let remote = if number % 2 == 0 { &one } else { &two };
        call::<()>(remote, "ITypeScriptTestComputeService.Increment:2", ("k",))
    });
    in_time("all additions", join_all(adding)).await;
    assert_eq!(call::<i64>(&one, "ITypeScriptTestComputeService.GetCounterNonCompute:2", ("k",)).await, 200);
    assert_eq!(*value::<i64>(&two, "ITypeScriptTestComputeService.GetCounter:2", ("k",)).await.value(), 200);
}

pub(crate) async fn streams_of_integers_have_them_all(site: Site) {
    let remote = site.remote();
    for name in ["ITypeScriptTestComputeService.StreamInt32:1", "ITypeScriptTestComputeService.StreamInt32NoReconnect:1"] {
        for count in [0, 1, 5, 1_000] {
            let mut stream: RpcStream<u32> = call(&remote, name, (count,)).await;
            for expected in 0..count {
                assert_eq!(in_time("an item", stream.next()).await, Some(Ok(expected)), "{name}");
            }
            assert_eq!(in_time("the end", stream.next()).await, None, "{name}");
        }
    }
    site.has_open_streams(0).await;
}
