//! `IInspection`, which is not on the page: what the server's hub has open, for who looks for leaks from outside.

use std::future::ready;
use std::sync::{OnceLock, Weak};

use wellspring_rpc::{Failure, Hub, Service};

/// Of a hub that is made when its services are there. A hub keeps its services, so they do not keep it.
pub(super) fn service(hub: &Weak<OnceLock<Hub>>) -> Service {
    let count = |count: fn(&Hub) -> usize| {
        let hub = hub.clone();
        move |()| ready(Ok::<_, Failure>(hub.upgrade().and_then(|hub| hub.get().map(count)).unwrap_or_default()))
    };
    Service::new("IInspection")
        .method("OpenCalls:0", count(Hub::open_calls))
        .method("OpenStreams:0", count(Hub::open_streams))
        .method("Clients:0", count(Hub::clients))
}
