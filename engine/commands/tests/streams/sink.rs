//! A stream in memory, which fails when told to.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use wellspring_commands::{BoxFuture, Mark, Message, OperationId, Place, Sink, StoreError, StoreErrorKind, StreamEnd};

#[derive(Debug)]
pub struct MemorySink {
    stream: Mutex<Stream>,
    /// Whether publications are acknowledged; those that are not wait.
    pub acknowledging: watch::Sender<bool>,
    pub most_bytes: usize,
}

#[derive(Debug, Default)]
pub struct Stream {
    pub messages: Vec<Message>,
    /// What befalls the next publications.
    pub faults: VecDeque<Fault>,
    pub asked: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// So many of the messages are stored, and an error is returned.
    Stored(usize),
    /// Nothing goes wrong.
    Nothing,
}

impl MemorySink {
    pub fn new() -> MemorySink {
        MemorySink { stream: Mutex::default(), acknowledging: watch::Sender::new(true), most_bytes: 100_000 }
    }

    pub fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a reader from the beginning gets: every entry once, in the order of the first time.
    pub fn numbers(&self) -> Vec<u64> {
        let mut seen = std::collections::HashSet::new();
        let stream = self.stream();
        let entries = stream.messages.iter().flat_map(|message| &message.entries);
        entries.filter(|entry| seen.insert(entry.operation)).map(|entry| entry.place.major).collect()
    }

    pub fn losses(&self) -> Vec<String> {
        self.stream().messages.iter().filter_map(|message| message.lost.clone()).collect()
    }

    /// What is said to have been given out has been.
    pub fn check_horizons(&self) {
        let mut horizon = Place::default();
        let mut seen = std::collections::HashSet::new();
        for message in &self.stream().messages {
            for entry in &message.entries {
                assert!(!seen.insert(entry.operation) || entry.place >= horizon, "{:?} comes after {horizon:?}", entry.place);
            }
            horizon = horizon.max(message.horizon);
        }
    }
}

impl Sink for MemorySink {
    fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    fn end<'a>(&'a self, known: Option<&'a Mark>) -> BoxFuture<'a, Result<StreamEnd, StoreError>> {
        Box::pin(async move {
            let mut stream = self.stream();
            stream.asked += 1;
            let end = stream.messages.len();
            let known = known.map(|mark| mark.as_str().parse::<usize>().expect("a number"));
            let lost = known.filter(|known| *known > end).map(|known| format!("from {known} to {end}"));
            Ok(StreamEnd { mark: Mark::new(end.to_string()), empty: end == 0, lost })
        })
    }

    fn published_since<'a>(&'a self, mark: &'a Mark, most: usize) -> BoxFuture<'a, Result<Option<Vec<OperationId>>, StoreError>> {
        Box::pin(async move {
            let stream = self.stream();
            let known = mark.as_str().parse::<usize>().expect("a number");
            let since = stream.messages.get(known..).filter(|since| since.len() <= most);
            Ok(since.map(|since| since.iter().flat_map(|message| message.entries.iter().map(|entry| entry.operation)).collect()))
        })
    }

    fn publish<'a>(&'a self, after: &'a Mark, messages: &'a [Message]) -> BoxFuture<'a, Result<Mark, StoreError>> {
        Box::pin(async move {
            let end = {
                let mut stream = self.stream();
                if stream.messages.len().to_string() != after.as_str() {
                    return Err(StoreError::new(StoreErrorKind::Conflict, "publishing"));
                }
                let fault = stream.faults.pop_front().unwrap_or(Fault::Nothing);
                let stored = match fault {
                    Fault::Stored(some) => some.min(messages.len()),
                    Fault::Nothing => messages.len(),
                };
                stream.messages.extend_from_slice(&messages[..stored]);
                if fault != Fault::Nothing {
                    return Err(StoreError::new(StoreErrorKind::Unavailable, "publishing"));
                }
                stream.messages.len()
            };
            let mut acknowledging = self.acknowledging.subscribe();
            let _ = acknowledging.wait_for(|so| *so).await;
            Ok(Mark::new(end.to_string()))
        })
    }
}
