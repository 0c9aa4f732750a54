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
    /// If the first message says, or leaves open, that something is missing; with the horizon after it, if it says so itself.
    lost: Option<(String, Option<Place>)>,
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
                // Below the horizon that was known before, an operation is one that a relay has published once more.
                self.entries.extend(entries.into_iter().filter(|entry| entry.place >= self.horizon));
                self.horizon = self.horizon.max(horizon);
                self.entries.len() < self.most
            }
            Ok(Message { lost: Some(reason), horizon, .. }) => self.gap(reason, Some(horizon)),
            // It cannot be skipped, as nobody knows what it makes stale, and waiting does not make it better.
            Err(error) => self.missing(format!("a message of the stream cannot be understood: {error}")),
        }
    }

    /// The next message is not there, or worth nothing. What came before it is given out first.
    pub(crate) fn missing(&mut self, reason: String) -> bool {
        self.gap(reason, None)
    }

    fn gap(&mut self, reason: String, after: Option<Place>) -> bool {
        if self.taken == 0 {
            self.lost = Some((reason, after));
        }
        false
    }

    /// Why nothing can be given out, if so; and the horizon after the message that says so, if one does, behind which reading goes on.
    ///
    /// # Errors
    /// When the stream is of another log than it was opened for.
    pub(crate) fn loss(&mut self) -> Result<Option<(String, Option<Place>)>, StoreError> {
        match self.foreign {
            Some(log) => {
                let doing = format!("reading a stream of log {log} as log {}", self.log);
                Err(StoreError::new(StoreErrorKind::Corrupt, doing))
            }
            None => Ok(self.lost.take()),
        }
    }
}

/// What the last messages of a stream, oldest first, say of its end, for a log: the horizon, and the operations at or above it.
///
/// Places of another log say nothing, so only what follows the last message of one counts. A loss begins the horizon anew, as the log
/// may have gone back with it.
pub(crate) fn ending<'a>(log: LogId, payloads: impl Iterator<Item = &'a [u8]>) -> (Place, Vec<(Place, OperationId)>) {
    let (mut horizon, mut entries) = (Place::default(), Vec::new());
    for message in payloads.filter_map(|payload| Message::from_json(payload).ok()) {
        if message.log != log {
            (horizon, entries) = (Place::default(), Vec::new());
            continue;
        }
        horizon = if message.lost.is_some() { message.horizon } else { horizon.max(message.horizon) };
        entries.extend(message.entries);
    }
    let recent = entries.iter().filter(|entry| entry.place >= horizon).map(|entry| (entry.place, entry.operation)).collect();
    (horizon, recent)
}

/// The operations in messages.
pub(crate) fn operations_of<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<OperationId> {
    let messages = payloads.filter_map(|payload| Message::from_json(payload).ok());
    messages.flat_map(|message| message.entries.into_iter().map(|entry| entry.operation)).collect()
}

/// The parts of a cursor or mark that are divided by colons.
pub(crate) fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split(':').collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ServerId;
    use crate::message::{loss, moved};

    fn ours() -> LogId {
        LogId::from_u128(1)
    }

    fn end_of(messages: &[Message]) -> (Place, Vec<(Place, OperationId)>) {
        let payloads: Vec<_> = messages.iter().map(Message::to_json).collect();
        ending(ours(), payloads.iter().map(String::as_bytes))
    }

    fn with_entry(place: u64, horizon: u64) -> (Message, OperationId) {
        let operation = OperationId::new();
        let entry = Entry { place: Place::new(place, 0), operation, origin: ServerId::random(), body: "{}".to_owned() };
        (Message { entries: vec![entry], ..moved(ours(), Place::new(horizon, 0)) }, operation)
    }

    #[test]
    fn a_head_takes_no_horizon_from_another_log() {
        let foreign = moved(LogId::from_u128(2), Place::new(1_000_000, 0));
        assert_eq!(end_of(std::slice::from_ref(&foreign)), (Place::default(), Vec::new()));
        let (entry, operation) = with_entry(1, 1);
        let messages = [foreign, loss(ours(), "another log was here", Place::new(1, 0)), entry];
        assert_eq!(end_of(&messages), (Place::new(1, 0), vec![(Place::new(1, 0), operation)]));
    }

    #[test]
    fn a_loss_takes_the_horizon_back_and_nothing_else_does() {
        let (before, _) = with_entry(900, 901);
        let (after, operation) = with_entry(5, 5);
        let messages = [before.clone(), loss(ours(), "the log went back", Place::new(3, 0)), after];
        let (horizon, recent) = end_of(&messages);
        assert_eq!(horizon, Place::new(5, 0));
        assert!(recent.contains(&(Place::new(5, 0), operation)));
        let (again, _) = with_entry(5, 5);
        assert_eq!(end_of(&[before, again]), (Place::new(901, 0), Vec::new()));
    }
}
