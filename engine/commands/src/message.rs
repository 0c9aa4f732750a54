//! What travels through a stream: operations in batches, as JSON.

use serde::{Deserialize, Serialize};

use crate::id::LogId;
use crate::position::Place;
use crate::record::Entry;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The log that the places are of. A reader that was opened for another one refuses it, so that two outboxes that publish to one
    /// stream by mistake are found out.
    #[serde(rename = "o")]
    pub log: LogId,
    /// Operations, in order; none in a message that only moves the horizon.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// Every operation at a place below this one is in this message or one before it, or was lost and said to be.
    ///
    /// After a relay has published something again it may be smaller than it was; the largest one since the last loss is true.
    /// A loss begins it anew: after a failover or a restored backup the places of a log may have gone back.
    #[serde(rename = "h", default)]
    pub horizon: Place,
    /// Operations are missing here, and nobody can say what they have made stale: why.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

impl Message {
    /// As JSON.
    pub fn to_json(&self) -> String {
        // Texts and numbers: there is nothing in it that JSON could refuse.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From JSON.
    ///
    /// # Errors
    /// When it is not such a message.
    pub fn from_json(json: &[u8]) -> Result<Message, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// How large messages may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Entries in a message.
    pub(crate) entries: usize,
    /// Bytes at which a message is not added to.
    pub(crate) wanted_bytes: usize,
    /// Bytes that no message may have more of.
    pub(crate) most_bytes: usize,
}

/// Room for a message without entries. A reason for a loss is cut so that it fits.
const FRAME_BYTES: usize = 1024;
/// Room for an entry without its body: two UUIDs, two numbers, the names of the fields.
const ENTRY_BYTES: usize = 256;
/// Characters, of which JSON may make six bytes each.
const REASON_CHARS: usize = 128;

/// Entries as messages. Entries too large for any message become a loss at their place in the order; how many.
pub(crate) fn pack(log: LogId, entries: Vec<Entry>, horizon: Place, limits: Limits) -> (Vec<Message>, u64) {
    // What is not given out yet bounds what may be said to be.
    let mut horizons = vec![horizon; entries.len()];
    let mut least = horizon;
    for (at, entry) in entries.iter().enumerate().rev() {
        horizons[at] = least;
        least = least.min(entry.place);
    }
    let mut messages = Vec::new();
    let mut open = moved(log, Place::default());
    let (mut bytes, mut oversized) = (FRAME_BYTES, 0);
    for (entry, horizon) in entries.into_iter().zip(horizons) {
        let size = ENTRY_BYTES + json_bytes(&entry.body);
        let full = open.entries.len() >= limits.entries || bytes + size > limits.wanted_bytes;
        let too_large = FRAME_BYTES + size > limits.most_bytes;
        if !open.entries.is_empty() && (full || too_large) {
            messages.push(std::mem::replace(&mut open, moved(log, Place::default())));
            bytes = FRAME_BYTES;
        }
        if too_large {
            oversized += 1;
            let reason = format!(
                "operation {} of {size} bytes does not fit into a message of the stream, which has at most {} bytes",
                entry.operation, limits.most_bytes
            );
            tracing::error!(operation = %entry.operation, bytes = size, most = limits.most_bytes, "an operation is too large to be relayed: every follower drops all it holds");
            messages.push(loss(log, &reason, horizon));
            continue;
        }
        bytes += size;
        open.entries.push(entry);
        open.horizon = horizon;
    }
    if !open.entries.is_empty() {
        messages.push(open);
    }
    (messages, oversized)
}

/// A message that says that operations are missing.
pub(crate) fn loss(log: LogId, reason: &str, horizon: Place) -> Message {
    Message { lost: Some(reason.chars().take(REASON_CHARS).collect()), ..moved(log, horizon) }
}

/// A message that only moves the horizon.
pub(crate) fn moved(log: LogId, horizon: Place) -> Message {
    Message { log, entries: Vec::new(), horizon, lost: None }
}

/// How long a text becomes as a JSON string, at most.
fn json_bytes(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            0..=0x1f => 6,
            _ => 1,
        })
        .sum::<usize>()
        + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{OperationId, ServerId};

    fn entry(place: Place, body: &str) -> Entry {
        Entry { place, operation: OperationId::new(), origin: ServerId::random(), body: body.to_owned() }
    }

    const LIMITS: Limits = Limits { entries: 4, wanted_bytes: 20_000, most_bytes: 40_000 };

    #[test]
    fn a_horizon_never_promises_what_a_later_message_brings() {
        // Places that overtake each other, and a horizon that a long transaction holds back.
        let places = [3, 9, 4, 7, 5, 6, 8];
        let entries: Vec<_> = places.iter().map(|major| entry(Place::new(*major, 0), "{}")).collect();
        let (messages, oversized) = pack(LogId::from_u128(1), entries.clone(), Place::new(6, 0), LIMITS);
        assert_eq!(oversized, 0);
        assert_eq!(messages.iter().flat_map(|message| message.entries.clone()).collect::<Vec<_>>(), entries);
        for (at, message) in messages.iter().enumerate() {
            for later in messages[at + 1..].iter().flat_map(|message| &message.entries) {
                assert!(message.horizon <= later.place);
            }
        }
        assert_eq!(messages.last().map(|message| message.horizon), Some(Place::new(6, 0)));
    }

    #[test]
    fn no_message_is_longer_than_it_may_be() {
        let bodies =
            ["\"".repeat(9000), "\u{1}".repeat(6000), "x".repeat(15_000), "ä".repeat(19_000), "\\".repeat(30_000), "{}".to_owned()];
        let entries: Vec<_> = bodies.iter().zip(1..).map(|(body, place)| entry(Place::new(place, u64::MAX), body)).collect();
        let (messages, oversized) = pack(LogId::from_u128(1), entries, Place::new(u64::MAX, u64::MAX), LIMITS);
        assert_eq!(oversized, 1);
        assert!(messages.iter().all(|message| message.to_json().len() <= LIMITS.most_bytes));
        assert_eq!(messages.iter().filter(|message| message.lost.is_some()).count(), 1);
        assert_eq!(messages.iter().map(|message| message.entries.len()).sum::<usize>(), 5);
    }

    #[test]
    fn a_message_comes_back_from_its_json() {
        let entries = vec![entry(Place::new(1, 2), "{\"c\":\"x\"}")];
        let message = Message { entries, ..moved(LogId::random(), Place::new(2, 0)) };
        assert_eq!(Message::from_json(message.to_json().as_bytes()).ok(), Some(message));
        assert!(Message::from_json(b"hello").is_err());
    }
}
