//! Any log as an outbox.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::consumer::{Consumers, Hold};
use crate::id::LogId;
use crate::log::{BoxFuture, OperationLog, Reading};
use crate::outbox::{Outbox, OutboxHold, Outgoing, Sent};
use crate::position::Cursor;
use crate::store_error::{StoreError, StoreErrorKind};

/// The log of a store as an outbox: nothing is deleted by it, it only reads on from a durable cursor.
///
/// The relay is a named consumer. Its first holder ever finds no cursor: it starts at the log's head, and says so to the stream as a
/// [loss](Outgoing::Lost). So the operations that were committed before are not in the stream, and a follower that may have seen values
/// from before them drops what it holds. Starting at the log's beginning instead would relay a history whose first part may have been
/// trimmed; asking the user to start the relay before the first operation would lose operations silently wherever that is forgotten.
///
/// The log is read as it becomes visible ([`OperationLog::read`]), not [settled](OperationLog::read_settled): the stream puts it in one
/// order for all anyway, and an operation need not wait for a stranger's long transaction.
///
/// Keep operations in the store's log for as long as the stream may be down: what is trimmed before it was relayed is a loss too.
#[derive(Debug, Clone)]
pub struct LogOutbox {
    log: Arc<dyn OperationLog>,
    consumers: Arc<dyn Consumers>,
    name: Arc<str>,
}

impl LogOutbox {
    /// Of a log and its durable cursors, which should be of the same database. The name is one for all relays of the log to one stream.
    pub fn new(log: Arc<dyn OperationLog>, consumers: Arc<dyn Consumers>, name: impl Into<String>) -> LogOutbox {
        LogOutbox { log, consumers, name: name.into().into() }
    }
}

impl Outbox for LogOutbox {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn hold(&self) -> BoxFuture<'_, Result<Box<dyn OutboxHold>, StoreError>> {
        Box::pin(async move {
            let hold = self.consumers.hold(&self.name).await?;
            let (mut saved, mut begins) = (None, FIRST.to_owned());
            if let Some(cursor) = hold.cursor().await? {
                match (serde_json::from_str(cursor.as_str()), serde_json::from_str::<Map<String, Value>>(cursor.as_str())) {
                    (Ok(read), _) => saved = Some(read),
                    // A relay's, of another version. To begin anew costs the followers a refill; not to begin, everything.
                    (Err(error), Ok(_)) => begins = format!("where the relay was cannot be read ({error}); it starts here"),
                    (Err(error), Err(_)) => {
                        let doing = format!("reading where the relay `{}` was: the name may be another consumer's", self.name);
                        return Err(StoreError::with(StoreErrorKind::Corrupt, doing, error));
                    }
                }
            }
            let place = Mutex::new(Reach { saved, begins, next: None });
            Ok(Box::new(LogHold { log: self.log.clone(), hold, place }) as Box<dyn OutboxHold>)
        })
    }
}

/// Why the first relay ever publishes a loss.
const FIRST: &str = "the relay starts here: operations before are not in the stream";

struct LogHold {
    log: Arc<dyn OperationLog>,
    hold: Box<dyn Hold>,
    place: Mutex<Reach>,
}

/// How far has been sent, and how far will have been when what was given out last is.
#[derive(Debug)]
struct Reach {
    saved: Option<Saved>,
    /// Why it begins at the log's head, if nothing is saved.
    begins: String,
    next: Option<Cursor>,
}

/// What the relay's cursor in the store is: the log's own cursor, and what the next relay has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    #[serde(rename = "c")]
    cursor: Cursor,
    #[serde(rename = "s")]
    sent: Sent,
}

impl fmt::Debug for LogHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHold").field("hold", &self.hold).field("place", &self.place).finish_non_exhaustive()
    }
}

impl LogHold {
    fn saved(&self) -> Option<Saved> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).saved.clone()
    }

    fn given(&self, next: Cursor) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).next = Some(next);
    }

    async fn start_over(&self, reason: String) -> Result<Outgoing, StoreError> {
        let head = self.log.head().await?;
        self.given(head.cursor);
        Ok(Outgoing::Lost { reason, horizon: head.horizon, recent: head.recent })
    }
}

impl OutboxHold for LogHold {
    fn last_sent(&self) -> BoxFuture<'_, Result<Option<Sent>, StoreError>> {
        Box::pin(async move { Ok(self.saved().map(|saved| saved.sent)) })
    }

    fn unsent(&self, most: usize) -> BoxFuture<'_, Result<Outgoing, StoreError>> {
        Box::pin(async move {
            let Some(Saved { cursor, .. }) = self.saved() else {
                let begins = self.place.lock().unwrap_or_else(PoisonError::into_inner).begins.clone();
                return self.start_over(begins).await;
            };
            match self.log.read(&cursor, most).await? {
                Reading::Entries { entries, cursor, horizon, more } => {
                    self.given(cursor);
                    Ok(Outgoing::Entries { entries, horizon, more })
                }
                Reading::Lost { reason, .. } => self.start_over(format!("the relay came too late: {reason}")).await,
            }
        })
    }

    fn sent<'a>(&'a self, sent: &'a Sent) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let next = self.place.lock().unwrap_or_else(PoisonError::into_inner).next.clone();
            let Some(cursor) = next.or_else(|| self.saved().map(|saved| saved.cursor)) else { return Ok(()) };
            let saved = Saved { cursor, sent: sent.clone() };
            let text = serde_json::to_string(&saved)
                .map_err(|error| StoreError::with(StoreErrorKind::Other, "writing where the relay is", error))?;
            self.hold.save(&Cursor::new(text)).await?;
            self.place.lock().unwrap_or_else(PoisonError::into_inner).saved = Some(saved);
            Ok(())
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        self.hold.lost()
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(cursor: &Cursor) -> Option<Cursor> {
    let saved: Saved = serde_json::from_str(cursor.as_str()).ok()?;
    serde_json::to_string(&saved).ok().map(Cursor::new)
}
