//! How a failure ends that says nothing of a value.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::end::End;
use crate::remote::{CallError, Connected, Remote};

/// Until a value is asked for again of which nothing was said: it was stale before it had come each time, the other end has given up, what came could not be
/// read, or there was no way to ask.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no value, and what ends that before its time.
#[derive(Debug)]
pub(crate) struct Unsaid {
    pub(crate) error: CallError,
    pub(crate) sooner: Option<Arc<End>>,
}

impl From<CallError> for Unsaid {
    fn from(error: CallError) -> Unsaid {
        Unsaid { error, sooner: None }
    }
}

/// Where it is waited until such a failure ends, and for which connection.
#[derive(Clone)]
pub(crate) struct Later {
    pub(crate) runtime: Handle,
    /// None if there are several.
    pub(crate) connected: Option<watch::Receiver<Connected>>,
}

impl Later {
    pub(crate) fn of(remote: &Remote) -> Later {
        Later { runtime: remote.runtime().clone(), connected: Some(remote.connected()) }
    }

    /// Runs something in a while, or when there is a connection, if that is what was lacking; not if there will be none. Not at once: whoever follows the
    /// value would ask in a circle.
    ///
    /// What may end it sooner is kept until then.
    pub(crate) fn then(&self, error: &CallError, sooner: Option<Arc<End>>, run: impl FnOnce() + Send + 'static) {
        let connected = self.connected.clone();
        match (error, &connected) {
            (CallError::Unreachable, Some(connected)) if *connected.borrow() == Connected::Never => return,
            _ => {}
        }
        let lacks_connection = matches!(error, CallError::NotConnected(_));
        self.runtime.spawn(async move {
            let comes = async {
                match connected {
                    Some(mut connected) if lacks_connection => _ = connected.wait_for(|state| *state == Connected::Yes).await,
                    _ => std::future::pending().await,
                }
            };
            // Over either way.
            let _ = tokio::time::timeout(PAUSE, comes).await;
            drop(sooner);
            run();
        });
    }
}
