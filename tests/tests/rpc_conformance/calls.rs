//! Calls, their failures, and those that are given up.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;

use crate::setup::{Site, begin, begin_value, call, failure, get, in_time, joined, method, set, try_call, value};

pub(crate) async fn numbers_are_added(site: Site) {
    let remote = site.remote();
    for (a, b) in [(40, 2), (-1, 1), (0, 0), (i64::MAX - 1, 1), (i64::MIN, i64::MAX)] {
        assert_eq!(call::<i64>(&remote, "IDemo.Add:3", (a, b)).await, a + b, "{a} + {b}");
    }
    if !site.format.is_text() {
        assert_eq!(call::<i64>(&remote, "IDemo.Add:3", (1.0, 2.0)).await, 3, "as JavaScript has numbers");
    }
    assert_eq!(failure(&remote, "IDemo.Add:3", (i64::MAX, 1)).await.type_name(), "System.OverflowException");
}

pub(crate) async fn a_method_without_a_result_has_none(site: Site) {
    let remote = site.remote();
    call::<()>(&remote, "IDemo.Nothing:1", ()).await;
    assert_eq!(call::<Value>(&remote, "IDemo.Nothing:1", ()).await, Value::Null);
    call::<()>(&remote, "ICounter.Set:3", ("k", 1)).await;
    call::<()>(&remote, "ITypeScriptTestService.ResetSlowEchoCounter:0", ()).await;
}

pub(crate) async fn a_failure_has_a_type_and_a_message(site: Site) {
    let remote = site.remote();
    for text in ["no luck", "", "\u{1F600} \"quoted\" \n \u{1e} \u{1f}"] {
        let failed = failure(&remote, "IDemo.Fail:2", (text,)).await;
        assert_eq!((failed.message(), failed.type_name()), (text, "ActualLab.Serialization.RemoteException"));
    }
    assert_eq!(remote.open_calls(), 0);
}

pub(crate) async fn a_method_that_is_not_there_is_a_failure_that_says_so(site: Site) {
    let remote = site.remote();
    let missing = [
        "IDemo.Missing:1",
        "IMissing.Add:3",
        "IDemo.Add:2",
        "IDemo.add:3",
        "idemo.Add:3",
        "IDemo.Add",
        "Add:3",
        "ITypeScriptTestService.Add:4",
    ];
    for name in missing {
        let failed = failure(&remote, name, (1, 2)).await;
        assert_eq!(failed.type_name(), "ActualLab.Rpc.RpcException", "{name}: {failed}");
        assert!(failed.message().starts_with("Endpoint not found: '"), "{name}: {failed}");
    }
    assert_eq!(call::<i64>(&remote, "IDemo.Add:3", (1, 2)).await, 3);
}

pub(crate) async fn arguments_that_are_missing_are_null_and_more_are_passed_over(site: Site) {
    let remote = site.remote();
    assert_eq!(call::<Option<String>>(&remote, "ITypeScriptTestService.Echo:1", ()).await, None);
    assert_eq!(call::<Value>(&remote, "IDemo.EchoAny:2", ()).await, Value::Null);
    assert_eq!(call::<i64>(&remote, "IDemo.Add:3", (1, 2, "three", 4)).await, 3);
    // Nor do they make another value of it.
    let one = value::<i64>(&remote, "ICounter.Get:2", ("k", "more")).await;
    set(&remote, "k", 1).await;
    crate::setup::ends(&one).await;
}

pub(crate) async fn arguments_of_another_type_fail_their_call_and_nothing_else(site: Site) {
    let remote = site.remote();
    let slow = begin::<String, _>(&remote, "IDemo.Slow:3", ("x", 300));
    for name in ["IDemo.Add:3", "ITypeScriptTestService.Negate:1", "ITypeScriptTestService.Divide:2"] {
        failure(&remote, name, ("one", "two")).await;
    }
    failure(&remote, "IDemo.Add:3", (1,)).await;
    failure(&remote, "ITypeScriptTestService.Greet:1", (vec![1],)).await;
    assert_eq!(joined("a call of before", slow).await, "x");
}

pub(crate) async fn a_call_that_nobody_answers_is_heard(site: Site) {
    let remote = site.remote();
    crate::setup::connected(&remote).await;
    for number in 0..100 {
        remote.tell(&method("IDemo.Ping:2"), (format!("ping {number}"),)).expect("told");
    }
    assert_eq!(remote.open_calls(), 0);
    site.has_heard_pings(100).await;
    site.has_open_calls(0).await;
}

pub(crate) async fn a_slow_call_holds_up_nobody(site: Site) {
    let remote = site.remote();
    let slow = begin::<String, _>(&remote, "IDemo.Slow:3", ("x", 3_600_000));
    site.has_open_calls(1).await;
    for number in 0..10 {
        assert_eq!(call::<i64>(&remote, "IDemo.Add:3", (number, 1)).await, number + 1);
    }
    assert!(!slow.is_finished());
    slow.abort();
}

pub(crate) async fn answers_come_when_they_are_there(site: Site) {
    let remote = site.remote();
    let pauses = [600, 0, 400, 200];
    let calls: FuturesUnordered<_> =
        pauses.iter().map(|pause| call::<String>(&remote, "IDemo.Slow:3", (pause.to_string(), *pause))).collect();
    let order: Vec<String> = in_time("all answers", calls.collect()).await;
    assert_eq!(order, ["0", "200", "400", "600"]);
}

pub(crate) async fn a_call_that_is_given_up_here_is_given_up_there(site: Site) {
    let remote = site.remote();
    let slow = begin::<String, _>(&remote, "IDemo.Slow:3", ("x", 3_600_000));
    let computed = begin_value::<i64, _>(&remote, "ICounter.Slow:3", ("k", 3_600_000));
    site.has_open_calls(2).await;
    slow.abort();
    site.has_open_calls(1).await;
    computed.abort();
    site.has_open_calls(0).await;
    assert_eq!(remote.open_calls(), 0);
    assert_eq!(call::<i64>(&remote, "IDemo.Add:3", (1, 2)).await, 3);
}

pub(crate) async fn a_thousand_calls_at_once_get_each_its_own_answer(site: Site) {
    let remote = site.remote();
    let calls = (0..1_000_i64).map(|number| {
        let remote = remote.clone();
        async move {
            // Some at once, some in a while.
            let pause = number % 7 * 5;
            let (sum, text) = tokio::join!(
                call::<i64>(&remote, "IDemo.Add:3", (number, number)),
                call::<String>(&remote, "IDemo.Slow:3", (number.to_string(), pause)),
            );
            assert_eq!((sum, text), (2 * number, number.to_string()));
        }
    });
    in_time("all answers", join_all(calls)).await;
    assert_eq!(remote.open_calls(), 0);
    site.has_open_calls(0).await;
}

pub(crate) async fn a_regular_method_cannot_be_subscribed_to(site: Site) {
    let remote = site.remote();
    let asked = in_time("an answer", remote.compute::<i64>(&method("IDemo.Add:3"), (1, 2))).await;
    let error = asked.expect_err("not a compute method").to_string();
    assert!(error.starts_with("Invalid CallTypeId:"), "{error}");
    assert_eq!(remote.open_calls(), 0);
}

pub(crate) async fn a_compute_method_can_be_called_like_any_other(site: Site) {
    let remote = site.remote();
    set(&remote, "k", 7).await;
    assert_eq!(call::<i64>(&remote, "ICounter.Get:2", ("k",)).await, 7);
    assert_eq!(call::<i64>(&remote, "ICounter.Slow:3", ("k", 10)).await, 7);
    assert_eq!(
        try_call::<i64>(&remote, "ICounter.GetOrFail:2", ("other",)).await.map_err(|error| error.to_string()),
        Err("counter is zero".into())
    );
    assert_eq!(remote.open_calls(), 0);
    site.has_open_calls(0).await;
    // A value that somebody else waits for the end of is not the call's.
    let kept = get(&remote, "k").await;
    assert_eq!(call::<i64>(&remote, "ICounter.Get:2", ("k",)).await, 7);
    site.has_open_calls(1).await;
    drop(kept);
}

pub(crate) async fn of_many_calls_that_are_given_up_the_others_are_answered(site: Site) {
    let remote = site.remote();
    let tasks: Vec<_> = (0..1_000_i64)
        .map(|number| {
            let remote = remote.clone();
            tokio::spawn(async move {
                let asked = call::<i64>(&remote, "ICounter.Slow:3", (format!("key {}", number % 10), 250 + number / 10 % 2));
                if number % 2 == 0 {
                    return tokio::time::timeout(Duration::from_millis(50), asked).await.ok();
                }
                Some(asked.await)
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let answer = joined("an answer", task).await;
        assert_eq!(answer, (number % 2 != 0).then_some(0), "call {number}");
    }
    assert_eq!(remote.open_calls(), 0);
    site.has_open_calls(0).await;
}
