//! `IInspection`, which is not on the page: what the server's hub has open, for who looks for leaks from outside, and what it has heard and does not answer.

use std::future::ready;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use wellspring_rpc::{Failure, Hub, Service};

use super::demo::Runs;

/// Of a hub that is made when its services are there. A hub keeps its services, so they do not keep it.
pub(super) fn service(hub: &Weak<OnceLock<Hub>>, runs: &Arc<Runs>) -> Service {
    let runs = runs.clone();
    let count = |count: fn(&Hub) -> usize| {
        let hub = hub.clone();
        move |()| ready(Ok::<_, Failure>(hub.upgrade().and_then(|hub| hub.get().map(count)).unwrap_or_default()))
    };
    Service::new("IInspection")
        .method("OpenCalls:0", count(Hub::open_calls))
        .method("OpenStreams:0", count(Hub::open_streams))
        .method("Clients:0", count(Hub::clients))
        .method("Pings:0", move |()| ready(Ok::<_, Failure>(runs.pings.load(Ordering::SeqCst))))
}
