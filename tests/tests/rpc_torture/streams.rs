//! Streams, short and long, with small windows and large ones: what comes of one is its beginning, and all of it unless the process was killed.

use std::sync::Arc;

use wellspring_rpc::{CallError, Remote, RpcStream};

use crate::storm::{Storm, method};

/// One after the other, until the storm is over.
pub(crate) async fn reads(storm: Arc<Storm>, remote: Remote, number: u64) {
    let mut random = storm.random(wellspring_rpc::wire::Format::Json5, "streams", number);
    let (count, fragile) = (method("IDemo.Count:4"), method("ITypeScriptTestComputeService.StreamInt32NoReconnect:1"));
    while !storm.is_over() {
        let items = if random.bool() { random.i64(0..70) } else { random.i64(100..6_000) };
        let may_fail = random.u8(..4) == 0;
        let epoch = storm.epoch();
        let called: Result<RpcStream<i64>, CallError> = if may_fail {
            storm.in_time("a stream", remote.call(&fragile, (items,))).await
        } else {
            let advance = random.u32(1..200);
            storm.in_time("a stream", remote.call(&count, (items, random.u32(0..=advance), advance))).await
        };
        let mut stream = called.unwrap_or_else(|error| panic!("{storm}: {error}"));
        let step = if may_fail { 1 } else { 10 };
        let left_at = if random.u8(..4) == 0 { random.i64(0..=items) } else { i64::MAX };
        let mut expected = 0;
        while expected < left_at {
            match storm.in_time("an item", stream.next()).await {
                Some(Ok(item)) => assert_eq!(item, expected * step, "{storm}"),
                Some(Err(failure)) => {
                    assert!(may_fail || !storm.has_lived_since(epoch), "{storm}: {failure} after {expected} of {items}");
                    storm.count("streams that failed");
                    break;
                }
                None => {
                    assert_eq!(expected, items, "{storm}: a stream ends");
                    storm.count("streams read to the end");
                    break;
                }
            }
            expected += 1;
        }
    }
}
