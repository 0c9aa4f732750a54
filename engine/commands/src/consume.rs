//! Named consumers at work: every operation, in one order for all, with a cursor that outlives the process.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backoff::{Pause, spread};
use crate::catch::caught;
use crate::consumer::{Consumers, Hold};
use crate::id::{LogId, OperationId, ServerId};
use crate::items::Items;
use crate::log::{OperationLog, Reading};
use crate::notice::{Notice, Notices};
use crate::position::LogPosition;
use crate::record::{Body, Entry, LoggedKey};
use crate::wakeup::Hints;

type BoxError = Box<dyn Error + Send + Sync>;

/// Operations read, and acknowledged, at once.
const MOST: usize = 64;

/// Checks without anything new after which the cursor is saved all the same.
const IDLE_CHECKS: u32 = 60;

/// What a named consumer gets.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Consumed {
    /// An operation.
    Operation(Operation),
    /// Operations are missing, which this consumer will never get: trimmed before it had read them, or lost by a stream. It goes on with
    /// what the log can still give after them, or from the log's present end if it cannot say what that is.
    Gap {
        /// What the log knows of it.
        reason: String,
    },
    /// An entry that cannot be read.
    Unreadable {
        /// The operation.
        operation: OperationId,
        /// Why.
        error: String,
    },
}

/// An operation in the log.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Operation {
    /// Where it is.
    pub position: LogPosition,
    /// The server that has committed it.
    pub origin: ServerId,
    /// The outermost command's name.
    pub command: String,
    /// What is stale by it.
    pub keys: Vec<LoggedKey>,
    /// What its handler gave along.
    pub items: Items,
}

impl Consumed {
    fn from_entry(log: LogId, entry: Entry) -> Consumed {
        let Entry { place, operation, origin, body } = entry;
        match serde_json::from_str::<Body>(&body) {
            Ok(Body { command, keys, items }) => {
                Consumed::Operation(Operation { position: LogPosition { log, place, operation }, origin, command, keys, items })
            }
            Err(error) => Consumed::Unreadable { operation, error: error.to_string() },
        }
    }
}

/// A named consumer under way. Dropping it ends it, at its next point of waiting.
#[derive(Debug)]
#[must_use = "dropping a consumer ends it"]
pub struct Consumer(pub(crate) JoinHandle<()>);

impl Consumer {
    /// Ends it, and waits until its name is free for others.
    pub async fn stop(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a consumer needs.
pub(crate) struct Consuming<H> {
    pub(crate) name: String,
    pub(crate) log: Arc<dyn OperationLog>,
    pub(crate) consumers: Arc<dyn Consumers>,
    pub(crate) notices: Notices,
    pub(crate) check: Duration,
    pub(crate) pause: Pause,
    pub(crate) handler: H,
}

impl<H> fmt::Debug for Consuming<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consuming").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<H, F> Consuming<H>
where
    H: Fn(Consumed) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send,
{
    pub(crate) async fn run(self, mut hints: Hints, mut closing: watch::Receiver<bool>) {
        let mut failures = 0;
        while !*closing.borrow() {
            let ended = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return,
                ended = self.hold(&mut hints, &mut failures) => ended,
            };
            if let Err(error) = ended {
                failures += 1;
                self.notices.tell(&Notice::ConsumerFailed { name: self.name.clone(), error: error.to_string() });
            }
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return,
                () = tokio::time::sleep(self.pause.after(failures.max(1))) => {}
            }
        }
    }

    /// Consumes until the name is lost, or something fails.
    async fn hold(&self, hints: &mut Hints, failures: &mut u32) -> Result<(), BoxError> {
        let hold = self.consumers.hold(&self.name).await?;
        tokio::select! {
            biased;
            () = hold.lost() => Err(format!("the name `{}` was lost; it is taken again", self.name).into()),
            ended = self.consume(&*hold, hints, failures) => ended,
        }
    }

    async fn consume(&self, hold: &dyn Hold, hints: &mut Hints, failures: &mut u32) -> Result<(), BoxError> {
        let mut cursor = match hold.cursor().await? {
            Some(cursor) => cursor,
            None => {
                let head = self.log.head().await?.cursor;
                hold.save(&head).await?;
                head
            }
        };
        let mut saved = Instant::now();
        loop {
            match self.log.read_settled(&cursor, MOST).await? {
                Reading::Entries { entries, cursor: next, more, .. } => {
                    // Saving may be an operation of the database's that moves the cursor by itself: an idle consumer saves seldom, and only
                    // lest its cursor be older than what is trimmed.
                    let due = !entries.is_empty() || saved.elapsed() >= self.check.saturating_mul(IDLE_CHECKS);
                    for entry in entries {
                        self.give(Consumed::from_entry(self.log.id(), entry)).await;
                    }
                    if next != cursor && due {
                        hold.save(&next).await?;
                        saved = Instant::now();
                    }
                    cursor = next;
                    *failures = 0;
                    if more {
                        continue;
                    }
                }
                Reading::Lost { reason, next } => {
                    // The end of the log before the handler hears of the gap: what is committed while it makes up for it comes later.
                    let more = next.is_some();
                    let next = match next {
                        Some(next) => next,
                        None => self.log.head().await?.cursor,
                    };
                    self.give(Consumed::Gap { reason }).await;
                    hold.save(&next).await?;
                    cursor = next;
                    if more {
                        continue;
                    }
                }
            }
            tokio::select! {
                biased;
                () = hints.next() => {}
                () = tokio::time::sleep(spread(self.check)) => {}
            }
        }
    }

    /// Gives it to the handler until that has done it: nothing else comes before.
    async fn give(&self, consumed: Consumed) {
        for failures in 1.. {
            let handled = caught(|| (self.handler)(consumed.clone())).await;
            let error = match handled {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(message) => format!("it panicked: {message}"),
            };
            self.notices.tell(&Notice::ConsumerFailed { name: self.name.clone(), error });
            tokio::time::sleep(self.pause.after(failures)).await;
        }
    }
}
