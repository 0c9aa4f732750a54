//! What a reader makes of a stream's messages.

use crate::id::{LogId, OperationId};
use crate::message::Message;
use crate::position::Place;
use crate::record::Entry;
use crate::store_error::{StoreError, StoreErrorKind};

/// How many of the last messages a head is made of.
pub(crate) const RECENT_MESSAGES: usize = 8;

/// Messages in order, until enough is there or something is missing.
#[derive(Debug)]
pub(crate) struct Gathered {
    log: LogId,
    most: usize,
    /// How many messages were taken.
    pub(crate) taken: usize,
    pub(crate) entries: Vec<Entry>,
    pub(crate) horizon: Place,
    /// If the first message says, or leaves open, that something is missing.
    lost: Option<String>,
    /// If the first message is of another log.
    foreign: Option<LogId>,
}

impl Gathered {
    /// At a horizon that is known already.
    pub(crate) fn new(log: LogId, most: usize, horizon: Place) -> Gathered {
        Gathered { log, most, taken: 0, entries: Vec::new(), horizon, lost: None, foreign: None }
    }

    /// Takes the next message; whether there is room for another.
    pub(crate) fn take(&mut self, payload: &[u8]) -> bool {
        match Message::from_json(payload) {
            Ok(Message { log, .. }) if log != self.log => {
                self.foreign = Some(log).filter(|_| self.taken == 0);
                false
            }
            Ok(Message { entries, horizon, lost: None, .. }) => {
                self.taken += 1;
                self.entries.extend(entries);
                self.horizon = self.horizon.max(horizon);
                self.entries.len() < self.most
            }
            Ok(Message { lost: Some(reason), .. }) => self.missing(reason),
            // It cannot be skipped, as nobody knows what it makes stale, and waiting does not make it better.
            Err(error) => self.missing(format!("a message of the stream cannot be understood: {error}")),
        }
    }

    /// The next message is not there, or worth nothing. What came before it is given out first.
    pub(crate) fn missing(&mut self, reason: String) -> bool {
        if self.taken == 0 {
            self.lost = Some(reason);
        }
        false
    }

    /// Why nothing can be given out, if so.
    ///
    /// # Errors
    /// When the stream is of another log than it was opened for.
    pub(crate) fn loss(&mut self) -> Result<Option<String>, StoreError> {
        match self.foreign {
            Some(log) => {
                let doing = format!("reading a stream of log {log} as log {}", self.log);
                Err(StoreError::new(StoreErrorKind::Corrupt, doing))
            }
            None => Ok(self.lost.take()),
        }
    }
}

/// What the last messages of a stream say of its end: the horizon, and the operations at or above it.
pub(crate) fn ending<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> (Place, Vec<(Place, OperationId)>) {
    let messages: Vec<_> = payloads.filter_map(|payload| Message::from_json(payload).ok()).collect();
    let horizon = messages.iter().map(|message| message.horizon).max().unwrap_or_default();
    let entries = messages.iter().flat_map(|message| &message.entries);
    let recent = entries.filter(|entry| entry.place >= horizon).map(|entry| (entry.place, entry.operation)).collect();
    (horizon, recent)
}

/// The parts of a cursor or mark that are divided by colons.
pub(crate) fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split(':').collect::<Vec<_>>().try_into().ok()
}
