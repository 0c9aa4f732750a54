//! What a fuzzer is let in to: how texts that come back from a database or a stream are read. Not part of the interface.

use crate::position::Cursor;
use crate::sink::Mark;

/// A cursor of each kind of log, as that log would write what it has read in the text.
pub fn cursors(text: &str) -> [Option<Cursor>; 5] {
    let cursor = Cursor::new(text);
    [
        crate::sqlite::reread(&cursor),
        crate::postgres::reread(&cursor),
        crate::nats::reread(&cursor),
        crate::redis::reread(&cursor),
        crate::log_outbox::reread(&cursor),
    ]
}

/// A mark of each kind of stream, likewise.
pub fn marks(text: &str) -> [Option<Mark>; 2] {
    let mark = Mark::new(text);
    [crate::nats::reread_mark(&mark), crate::redis::reread_mark(&mark)]
}
