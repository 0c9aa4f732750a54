//! Texts that come back from a database, a stream or a caller, whatever became of them there: read or refused, and what is read is
//! written as something that is read as the same.
//!
//! The first byte chooses the kind of text.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::{Corpus, fuzz_target};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wellspring_commands::{Body, CommandId, Entry, EventId, Items, LogId, LogPosition, LoggedKey, Message, OperationId, ServerId};
use wellspring_commands::{Cursor, fuzzing};

fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("what was written can be read"), value);
}

fn id<T: std::str::FromStr + ToString + PartialEq + Debug>(text: &str) {
    if let Ok(id) = text.parse::<T>() {
        assert_eq!(id.to_string().parse().ok(), Some(id));
    }
}

fn message(bytes: &[u8]) {
    if let Ok(message) = Message::from_json(bytes) {
        assert_eq!(Message::from_json(message.to_json().as_bytes()).expect("its own text"), message);
    }
}

/// Of every kind of log: a cursor is saved by one process and read by the next.
fn cursors(text: &str) {
    for (kind, cursor) in fuzzing::cursors(text).into_iter().enumerate() {
        let Some(cursor) = cursor else { continue };
        assert_eq!(fuzzing::cursors(cursor.as_str())[kind].as_ref(), Some(&cursor));
    }
    for (kind, mark) in fuzzing::marks(text).into_iter().enumerate() {
        let Some(mark) = mark else { continue };
        assert_eq!(fuzzing::marks(mark.as_str())[kind].as_ref(), Some(&mark));
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((kind, rest)) = data.split_first() else { return Corpus::Reject };
    match kind % 6 {
        0 => json::<Body>(rest),
        1 => message(rest),
        2 => {
            json::<Entry>(rest);
            json::<LoggedKey>(rest);
            json::<Items>(rest);
        }
        3 => {
            json::<LogPosition>(rest);
            json::<CommandId>(rest);
            json::<Cursor>(rest);
        }
        4 => {
            let Ok(text) = std::str::from_utf8(rest) else { return Corpus::Reject };
            cursors(text);
        }
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return Corpus::Reject };
            id::<OperationId>(text);
            id::<ServerId>(text);
            id::<LogId>(text);
            id::<EventId>(text);
            if let Ok(id) = CommandId::new(text) {
                assert_eq!(id.as_str(), text);
            }
        }
    }
    Corpus::Keep
});
