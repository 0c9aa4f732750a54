//! `IServerControlService`: a client can have the server start anew.

use std::sync::Arc;

use tokio::sync::Notify;
use wellspring_rpc::Service;

/// That somebody has asked the server to start anew.
#[derive(Clone, Debug, Default)]
pub struct Restart(Arc<Notify>);

impl Restart {
    /// Waits until somebody has asked.
    pub async fn requested(&self) {
        self.0.notified().await;
    }

    pub(super) fn service(&self) -> Service {
        let asked = self.clone();
        Service::new("IServerControlService").no_wait("RequestRestart:0", move |()| {
            asked.0.notify_one();
            async {}
        })
    }
}
