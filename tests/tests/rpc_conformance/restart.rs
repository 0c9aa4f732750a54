//! A server that starts anew: because a client has asked for it, or because it was killed.

use std::time::Duration;

use wellspring_rpc::{Remote, Replica, Timings};
use wellspring_tests::rpc::Cut;

use crate::functions::Near;
use crate::setup::{Site, begin, begin_value, call, connected, disconnected, ends, get, in_time, joined, method, set, until, value};

const ECHO: &str = "ITypeScriptTestService.SlowEcho:2";
const ECHOES: &str = "ITypeScriptTestService.GetSlowEchoInvocationCount:0";

/// Why a server starts anew.
#[derive(Clone, Copy, Debug)]
enum Why {
    Asked,
    Killed,
}

const WHY: [Why; 2] = [Why::Asked, Why::Killed];

/// Until the next process listens.
async fn restart(site: &mut Site, starts: &mut u32, why: Why) {
    match why {
        Why::Asked => {
            let remote = site.remote();
            connected(&remote).await;
            *starts += 1;
            remote.tell(&method("IServerControlService.RequestRestart:0"), ()).expect("told");
            site.server.has_started(*starts).await.expect("it starts anew");
        }
        Why::Killed => {
            site.server.kill().await.expect("killed");
            *starts = 1;
            site.server.start_again().await.expect("started");
        }
    }
}

async fn value_of_counter(remote: &Remote, key: &str) -> i64 {
    call(remote, "ICounter.Get:2", (key,)).await
}

pub(crate) async fn a_server_that_starts_anew_has_forgotten_everything(mut site: Site) {
    let (remote, mut starts) = (site.remote(), 1);
    for why in WHY {
        set(&remote, "k", 5).await;
        call::<()>(&remote, "ITypeScriptTestComputeService.Set:3", ("k", 5)).await;
        call::<String>(&remote, ECHO, ("x", 0)).await;
        call::<i64>(&remote, "IReconnectMatrixRpcTester.Rpc:3", (1, 0)).await;
        let port = site.server.port();
        restart(&mut site, &mut starts, why).await;
        assert_eq!(site.server.port(), port);
        assert_eq!(value_of_counter(&remote, "k").await, 0, "{why:?}");
        assert_eq!(call::<i64>(&remote, "ITypeScriptTestComputeService.GetCounterNonCompute:2", ("k",)).await, 0, "{why:?}");
        assert_eq!(call::<u32>(&remote, ECHOES, ()).await, 0, "{why:?}");
        assert_eq!(call::<u32>(&remote, "IReconnectMatrixRpcTester.GetInvocationCount:2", (1,)).await, 0, "{why:?}");
        assert_eq!(call::<usize>(&remote, "IInspection.Clients:0", ()).await, 1, "{why:?}");
    }
}

pub(crate) async fn calls_under_way_are_run_by_the_server_that_starts_anew(mut site: Site) {
    let (remote, mut starts) = (site.remote(), 1);
    for why in WHY {
        let echoes: Vec<_> = (0..10).map(|number| begin::<String, _>(&remote, ECHO, (format!("echo {number}"), 2_000))).collect();
        until("all are under way", 10, async || call::<u32>(&remote, ECHOES, ()).await).await;
        restart(&mut site, &mut starts, why).await;
        for (number, echo) in echoes.into_iter().enumerate() {
            assert_eq!(joined("an echo", echo).await, format!("echo {number}"), "{why:?}");
        }
        assert_eq!(call::<u32>(&remote, ECHOES, ()).await, 10, "{why:?}: each once");
        call::<()>(&remote, "ITypeScriptTestService.ResetSlowEchoCounter:0", ()).await;
        assert_eq!(remote.open_calls(), 0);
    }
    site.has_open_calls(0).await;
}

pub(crate) async fn values_end_when_the_server_starts_anew(mut site: Site) {
    let (remote, mut starts) = (site.remote(), 1);
    for why in WHY {
        set(&remote, "k", 5).await;
        let mut values = Vec::new();
        for key in ["k", "other", "another"] {
            values.push(get(&remote, key).await);
        }
        let failed = in_time("a failure", remote.try_compute::<i64>(&method("ICounter.GetOrFail:2"), ("zero",))).await.expect("a value");
        restart(&mut site, &mut starts, why).await;
        for value in &values {
            ends(value).await;
        }
        ends(&failed).await;
        let now = get(&remote, "k").await;
        assert_eq!(*now.value(), 0, "{why:?}");
        set(&remote, "k", 1).await;
        ends(&now).await;
        assert_eq!(remote.open_calls(), 0, "{why:?}");
    }
    site.has_open_calls(0).await;
}

pub(crate) async fn a_value_under_way_is_computed_by_the_server_that_starts_anew(mut site: Site) {
    let (remote, mut starts) = (site.remote(), 1);
    for why in WHY {
        set(&remote, "k", 5).await;
        let slow = begin_value::<i64, _>(&remote, "ICounter.Slow:3", ("k", 2_000));
        site.has_open_calls(1).await;
        restart(&mut site, &mut starts, why).await;
        let slow = joined("the value", slow).await;
        assert_eq!(*slow.value(), 0, "{why:?}");
        assert!(!slow.is_stale(), "{why:?}");
        set(&remote, "k", 1).await;
        ends(&slow).await;
    }
}

pub(crate) async fn calls_that_are_made_while_nobody_listens_wait(mut site: Site) {
    let remote = site.remote();
    let before = get(&remote, "k").await;
    site.server.kill().await.expect("killed");
    disconnected(&remote).await;
    assert!(!before.is_stale(), "nobody can know");
    let echoes: Vec<_> = (0..10).map(|number| begin::<String, _>(&remote, ECHO, (number.to_string(), 10))).collect();
    let waiting = begin_value::<i64, _>(&remote, "ICounter.Get:2", ("k",));
    remote.tell(&method("IDemo.Ping:2"), ("nobody hears that",)).expect("told");
    site.server.start_again().await.expect("started");
    for (number, echo) in echoes.into_iter().enumerate() {
        assert_eq!(joined("an echo", echo).await, number.to_string());
    }
    let now: Replica<i64> = joined("the value", waiting).await;
    ends(&before).await;
    assert!(!now.is_stale());
    assert_eq!(call::<u32>(&remote, ECHOES, ()).await, 10, "each once");
    set(&remote, "k", 1).await;
    ends(&now).await;
    assert_eq!(*value::<i64>(&remote, "ICounter.Get:2", ("k",)).await.value(), 1);
}

pub(crate) async fn a_function_here_follows_one_server_after_the_other(mut site: Site) {
    let (near, mut starts) = (Near::over(site.remote()), 1);
    for why in [Why::Asked, Why::Killed, Why::Asked] {
        set(&near.remote, "a", 5).await;
        set(&near.remote, "b", 2).await;
        near.becomes(7).await;
        restart(&mut site, &mut starts, why).await;
        near.becomes(0).await;
    }
}

pub(crate) async fn a_server_that_hangs_is_found_out_and_found_again_when_it_goes_on(site: Site) {
    let mut timings = Timings::default();
    // The server gives a sign of life every two seconds.
    (timings.silence, timings.handshake) = (Duration::from_secs(4), Duration::from_millis(500));
    let (remote, cut) = (site.remote(), Cut::new());
    let near = site.remote_as(&cut, site.format, timings);
    let value = get(&near, "k").await;
    let echo = begin::<String, _>(&near, ECHO, ("x", 1_000));
    until("it is under way", 1, async || call::<u32>(&remote, ECHOES, ()).await).await;
    site.server.stop();
    disconnected(&near).await;
    assert!(!value.is_stale(), "nobody can know");
    site.server.go_on();
    assert_eq!(joined("the echo", echo).await, "x");
    assert!(cut.connections() > 1);
    assert_eq!(call::<u32>(&remote, ECHOES, ()).await, 1, "it runs once");
    set(&remote, "k", 1).await;
    ends(&value).await;
}
