//! A log whose reader can be put to sleep, and hints that never come.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wellspring_commands::{BoxFuture, Cursor, Head, Hinter, Hints, LogId, OperationLog, Reading, StoreError, Wakeup};

/// A log that is not read while its reader sleeps.
#[derive(Debug)]
pub(crate) struct Asleep {
    log: Arc<dyn OperationLog>,
    awake: watch::Receiver<bool>,
}

impl Asleep {
    pub(crate) fn new(log: Arc<dyn OperationLog>) -> (Asleep, watch::Sender<bool>) {
        let (wake, awake) = watch::channel(true);
        (Asleep { log, awake }, wake)
    }
}

impl OperationLog for Asleep {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        self.log.head()
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        let mut awake = self.awake.clone();
        Box::pin(async move {
            loop {
                let _ = awake.wait_for(|awake| *awake).await;
                let reading = self.log.read(since, most).await;
                // One that was under way when its reader fell asleep may have seen what came after.
                if *awake.borrow() {
                    return reading;
                }
            }
        })
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.log.trim(keep)
    }
}

/// Nothing is ever hinted.
#[derive(Debug, Default)]
pub(crate) struct Silence(Hinter);

impl Wakeup for Silence {
    fn notify(&self) {}

    fn hints(&self) -> Hints {
        self.0.hints()
    }
}
