//! What the peer's TypeScript tests call.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream;
use wellspring::{Cx, Engine};
use wellspring_rpc::wire::ErrorInfo;
use wellspring_rpc::{Failure, RpcStream, Service};

use super::counter::{read, refused};
use super::demo::sum;
use super::done;

/// `ITypeScriptTestService`: overloads, and what is no integer.
pub(super) fn plain() -> Service {
    let counted = Arc::<AtomicUsize>::default();
    let (count, reset) = (counted.clone(), counted.clone());
    Service::new("ITypeScriptTestService")
        .method("Add:2", |(a, b): (i64, i64)| async move { sum([a, b]) })
        .method("Add:3", |(a, b, c): (i64, i64, i64)| async move { sum([a, b, c]) })
        .method("Greet:1", |(name,): (String,)| async move { Ok::<_, Failure>(format!("Hello, {name}!")) })
        .method("Negate:1", |(value,): (bool,)| async move { Ok::<_, Failure>(!value) })
        .method("Divide:2", |(a, b): (f64, f64)| async move { Ok::<_, Failure>(a / b) })
        .method("Echo:1", |(text,): (Option<String>,)| async move { Ok::<_, Failure>(text) })
        .method("Throw:1", |(text,): (String,)| async move { Err::<String, _>(Failure::typed(ErrorInfo::INVALID_OPERATION, text)) })
        .method("SlowEcho:2", move |(marker, pause): (String, u64)| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, Failure>(marker)
            }
        })
        .method("GetSlowEchoInvocationCount:0", move |()| ready(Ok::<_, Failure>(count.load(Ordering::SeqCst))))
        .method("ResetSlowEchoCounter:0", move |()| {
            reset.store(0, Ordering::SeqCst);
            ready(done())
        })
}

/// `ITypeScriptTestComputeService`: counters of its own, and streams.
pub(super) fn computed(engine: &Engine) -> Service {
    let values = engine.define("typescript_counter").source(|_: &String| 0_i64).expect("a free name");
    let count = values.clone();
    let counter = engine.function("typescript_get", move |cx: &Cx, key: &String| read(&count, cx, key)).expect("a free name");
    let asked = engine.clone();
    // Whoever adds to a counter reads it first: nobody else writes in between.
    let writing = Arc::<Mutex<()>>::default();
    let (set, set_alone) = (values.clone(), writing.clone());
    let (add, add_alone, add_to) = (values.clone(), writing, engine.clone());
    let (plain, plain_of) = (values, engine.clone());
    Service::new("ITypeScriptTestComputeService")
        .compute("GetCounter:2", move |(key,): (String,)| ready(counter.computed(&asked, &key)))
        .method("Set:3", move |(key, value): (String, i64)| {
            let _alone = set_alone.lock().unwrap_or_else(PoisonError::into_inner);
            ready(set.try_set(&key, value).map(|_| ()).map_err(refused))
        })
        .method("Increment:2", move |(key,): (String,)| {
            let _alone = add_alone.lock().unwrap_or_else(PoisonError::into_inner);
            let set = |value| add.try_set(&key, sum([value, 1])?).map_err(refused);
            ready(add.get(&add_to, &key).map_err(refused).and_then(set).map(|_| ()))
        })
        .method("GetCounterNonCompute:2", move |(key,): (String,)| ready(plain.get(&plain_of, &key).map_err(refused)))
        .method("StreamInt32:1", |(count,): (u32,)| ready(Ok::<_, Failure>(RpcStream::new(stream::iter(0..count)))))
        .method("StreamInt32NoReconnect:1", |(count,): (u32,)| {
            ready(Ok::<_, Failure>(RpcStream::new(stream::iter(0..count)).without_reconnection()))
        })
}
