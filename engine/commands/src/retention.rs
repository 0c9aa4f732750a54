//! How long things are kept, and who removes them.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::spread;
use crate::catch::caught;
use crate::event::EventQueue;
use crate::log::OperationLog;
use crate::store::Store;
use crate::store_error::{StoreError, StoreErrorKind};

/// How long things are kept, by the database's clock. Every server sees to it, each at times of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Operations: a server that was asleep for longer loses coverage. Half an hour by default.
    pub log: Duration,
    /// Results of named commands: a repeat after that does the command again. A day by default.
    pub journal: Duration,
    /// Events that are done: their keys de-duplicate until then. An hour by default.
    pub events: Duration,
    /// How often it is seen to; a quarter of an hour by default, give or take a tenth.
    pub period: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Retention { log: minutes(30), journal: minutes(24 * 60), events: minutes(60), period: minutes(15) }
    }
}

impl Retention {
    /// Removes what is old, once in a period, for ever: each kind by itself, so that one that fails does not keep the others.
    pub(crate) async fn run<S: Store>(self, store: Arc<S>, logs: Vec<Arc<dyn OperationLog>>, events: Arc<dyn EventQueue>) {
        loop {
            tokio::time::sleep(spread(self.period)).await;
            for log in &logs {
                tell("operations", caught(|| log.trim(self.log)).await);
            }
            tell("results", caught(|| store.trim_journal(self.journal)).await);
            tell("events", caught(|| events.trim(self.events)).await);
        }
    }
}

fn tell(what: &str, removed: Result<Result<u64, StoreError>, String>) {
    match removed.map_err(|message| StoreError::with(StoreErrorKind::Other, "trimming", format!("it panicked: {message}"))).flatten() {
        Ok(count) => tracing::debug!(target: "wellspring", what, count, "removed what was old"),
        Err(error) => tracing::warn!(target: "wellspring", what, %error, "what is old could not be removed; tried again in a period"),
    }
}
