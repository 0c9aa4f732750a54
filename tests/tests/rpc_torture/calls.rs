//! Regular calls, each of which runs once, unless the process was killed that ran it.

use std::sync::Arc;
use std::time::Duration;

use wellspring_rpc::Remote;
use wellspring_rpc::wire::Format;

use crate::storm::{Storm, method};

/// One after the other, until the storm is over.
pub(crate) async fn calls(storm: Arc<Storm>, remote: Remote, format: Format, number: u64) {
    let (rpc, count) = (method("IReconnectMatrixRpcTester.Rpc:3"), method("IReconnectMatrixRpcTester.GetInvocationCount:2"));
    // Nobody else has its keys: of so many, no two choose the same.
    let mut random = storm.random(format, "calls", number);
    while !storm.is_over() {
        let (key, pause) = (random.i64(0..1 << 50), random.u64(0..60) * u64::from(random.bool()));
        if random.u8(..8) == 0 {
            // Given up in the middle. It may have run, and leaves nothing.
            let limit = Duration::from_millis(random.u64(0..60));
            let _ = tokio::time::timeout(limit, remote.call::<i64>(&rpc, (key, pause))).await;
            storm.count("calls given up");
            continue;
        }
        let epoch = storm.epoch();
        let answer = storm.in_time("an answer", remote.call::<i64>(&rpc, (key, pause))).await;
        assert_eq!(answer, Ok(key), "{storm}");
        let runs = storm.in_time("a count", remote.call::<i64>(&count, (key,))).await;
        let runs = runs.unwrap_or_else(|error| panic!("{storm}: {error}"));
        if storm.has_lived_since(epoch) {
            assert_eq!(runs, 1, "{storm}: runs of a call");
            storm.count("calls that ran once");
        } else {
            storm.count("calls through a kill");
        }
    }
}
