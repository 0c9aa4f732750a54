//! The log: what was committed, in the order in which it was.

use std::time::Duration;

use crate::id::LogId;
use crate::log::{BoxFuture, Head, OperationLog, Reading};
use crate::memory::{Memory, State};
use crate::position::{Cursor, Place};
use crate::store_error::{StoreError, StoreErrorKind};

fn cursor(sequence: u64) -> Cursor {
    Cursor::new(sequence.to_string())
}

impl State {
    fn after(&self, sequence: u64, most: usize) -> Reading {
        let (first, last) = (self.trimmed, self.last());
        if sequence < first || sequence > last {
            return Reading::lost(format!("read to {sequence}, and the log has {} to {last}", first + 1));
        }
        let start = (sequence - first) as usize;
        let entries: Vec<_> = self.entries.iter().skip(start).take(most).map(|(entry, _)| entry.clone()).collect();
        let next = sequence + entries.len() as u64;
        Reading::Entries { entries, cursor: cursor(next), horizon: Place::new(next + 1, 0), more: next < last }
    }
}

impl OperationLog for Memory {
    fn id(&self) -> LogId {
        self.0.id
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        let last = self.state().last();
        let head = Head { cursor: cursor(last), horizon: Place::new(last + 1, 0), recent: Vec::new() };
        Box::pin(std::future::ready(Ok(head)))
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        let unknown = |_| StoreError::new(StoreErrorKind::Corrupt, format!("reading from cursor `{}`", since.as_str()));
        let reading = since.as_str().parse().map_err(unknown).map(|sequence| self.state().after(sequence, most));
        Box::pin(std::future::ready(reading))
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        let mut state = self.state();
        let before = state.entries.len();
        while state.entries.front().is_some_and(|(_, at)| at.elapsed() >= keep) {
            state.entries.pop_front();
            state.trimmed += 1;
        }
        Box::pin(std::future::ready(Ok((before - state.entries.len()) as u64)))
    }
}
