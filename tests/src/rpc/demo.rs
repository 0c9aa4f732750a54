//! `IDemo`: one method of every kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream;
use wellspring_rpc::wire::Raw;
use wellspring_rpc::{Failure, RpcStream, Service};

use super::done;

/// How often bodies have run.
#[derive(Debug, Default)]
pub struct Runs {
    /// `IDemo.Slow`
    pub slow: AtomicUsize,
    /// `ICounter.Slow`
    pub slow_compute: AtomicUsize,
    /// `ICounter.Get`
    pub get: AtomicUsize,
    /// `IDemo.Ping`
    pub pings: AtomicUsize,
}

/// The service. `IDemo.Slow` and `IDemo.Ping` are counted.
pub fn demo(runs: &Arc<Runs>) -> Service {
    let (runs, pinged) = (runs.clone(), runs.clone());
    Service::new("IDemo")
        .method("Add:3", |(a, b): (i64, i64)| async move { sum([a, b]) })
        .method("EchoAny:2", |(value,): (Raw,)| async move { Ok::<_, Failure>(value) })
        .method("Nothing:1", |()| async { done() })
        .method("Fail:2", |(text,): (String,)| async move { Err::<(), _>(Failure::new(text)) })
        .no_wait("Ping:2", move |(_,): (String,)| {
            pinged.pings.fetch_add(1, Ordering::SeqCst);
            async {}
        })
        .method("Slow:3", move |(text, pause): (String, u64)| {
            runs.slow.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, Failure>(text)
            }
        })
        .method("Count:4", |(count, period, advance): (i64, u32, u32)| async move {
            let stream = RpcStream::new(stream::iter((0..count).map(|number| number * 10)));
            Ok::<_, Failure>(if period == 0 { stream } else { stream.window(period, advance) })
        })
        .method("CountThenFail:2", |(count,): (u32,)| async move {
            let items = (0..count).map(|number| Ok(format!("item-{number}")));
            Ok::<_, Failure>(RpcStream::try_new(stream::iter(items.chain([Err(Failure::new("source failed"))]))))
        })
}

/// Of numbers that a stranger chooses.
pub(super) fn sum<const N: usize>(numbers: [i64; N]) -> Result<i64, Failure> {
    let sum = numbers.into_iter().try_fold(0_i64, i64::checked_add);
    sum.ok_or_else(|| Failure::typed("System.OverflowException, System.Private.CoreLib", "the sum is too large"))
}
