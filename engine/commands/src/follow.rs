//! The follower: reads the log whenever there may be something new, and sees to it that what it says is stale here.
//!
//! Nothing depends on hints. They are heard before each reading, so that one that comes during it leads to another; and when none
//! come, the log is read once in a period all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::apply::Applier;
use crate::backoff::{Pause, spread};
use crate::catch::caught;
use crate::log::{Head, OperationLog, Reading};
use crate::notice::{Notice, Notices};
use crate::position::Cursor;
use crate::refill::Refill;
use crate::store_error::{StoreError, StoreErrorKind};
use crate::wakeup::Hints;

/// Operations read, and swept, at once.
const MOST: usize = 1024;

/// Reads one log for one engine.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) log: Arc<dyn OperationLog>,
    pub(crate) applier: Arc<Applier>,
    pub(crate) notices: Notices,
    /// Somebody waits for an operation: read now.
    pub(crate) nudge: Arc<Notify>,
    pub(crate) check: Duration,
    pub(crate) pause: Pause,
    pub(crate) reads: Arc<Reads>,
    pub(crate) refill: Option<Refill>,
    /// The refill under way: it ends with the follower.
    pub(crate) refilling: JoinSet<()>,
}

/// How reading goes.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) failures: AtomicU64,
    /// Whether the last reading failed.
    failing: std::sync::atomic::AtomicBool,
}

impl Follower {
    /// Follows the log from its head, for ever.
    pub(crate) async fn run(mut self, head: Head, mut hints: Hints) {
        let mut cursor = head.cursor;
        let mut failing: Option<(Instant, u32)> = None;
        loop {
            // A log of the user's may panic: that is a failure as others are, and not the end of all freshness.
            let caught_up = caught(|| self.catch_up(&mut cursor)).await.unwrap_or_else(|message| {
                Err(StoreError::with(StoreErrorKind::Other, "reading the log", format!("it panicked: {message}")))
            });
            match caught_up {
                Ok(()) => {
                    if let Some((since, _)) = failing.take() {
                        self.reads.failing.store(false, Ordering::Relaxed);
                        self.notices.tell(&Notice::LogReadable { after: since.elapsed() });
                    }
                    tokio::select! {
                        biased;
                        () = hints.next() => {}
                        () = self.nudge.notified() => {}
                        () = tokio::time::sleep(spread(self.check)) => {}
                    }
                }
                Err(error) => {
                    let (since, attempts) = failing.map_or((Instant::now(), 1), |(since, attempts)| (since, attempts.saturating_add(1)));
                    failing = Some((since, attempts));
                    self.reads.failures.fetch_add(1, Ordering::Relaxed);
                    self.reads.failing.store(true, Ordering::Relaxed);
                    self.notices.tell(&Notice::LogUnreadable { error: error.to_string(), attempts });
                    tokio::time::sleep(self.pause.after(attempts)).await;
                }
            }
        }
    }

    /// Reads to the log's present end. The cursor is never ahead of what is applied.
    async fn catch_up(&mut self, cursor: &mut Cursor) -> Result<(), StoreError> {
        loop {
            match self.log.read(cursor, MOST).await? {
                Reading::Entries { entries, cursor: next, horizon, more } => {
                    self.applier.apply(entries, horizon);
                    *cursor = next;
                    if !more {
                        return Ok(());
                    }
                }
                Reading::Lost { reason, .. } => {
                    // The head first, then everything stale: what is computed later is made from what the head has seen.
                    let head = self.log.head().await?;
                    self.applier.start_over(&head, reason);
                    *cursor = head.cursor;
                    if let Some(refill) = &self.refill {
                        refill.start(&mut self.refilling);
                    }
                }
            }
        }
    }
}

impl Reads {
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}
