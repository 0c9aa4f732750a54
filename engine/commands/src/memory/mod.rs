//! A database and a log in memory, for tests of what is built on this crate: servers that share one are a cluster in one process.
//!
//! It keeps what the others keep, in the same rules, and its time is tokio's: under a paused clock a test decides when a delay or a
//! lease is over. Nothing of it outlives the process.

mod consumers;
mod events;
mod log;
mod rows;

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::consumer::Consumers;
use crate::draft::Draft;
use crate::event::EventQueue;
use crate::id::{CommandId, LogId};
use crate::journal::JournalEntry;
use crate::log::OperationLog;
use crate::position::{LogPosition, Place};
use crate::record::Entry;
use crate::store::{CommitError, Committed, Doubt, Store, Verdict};
use crate::store_error::StoreError;
use crate::wakeup::{LocalWakeup, Wakeup};

pub use self::rows::{MemoryTx, Rows, Write};

/// A database in memory. Its clones are the same database.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    id: LogId,
    state: Mutex<State>,
    wakeup: LocalWakeup,
}

struct State {
    rows: Rows,
    /// What was committed, in order; the first has the sequence number `trimmed + 1`.
    entries: std::collections::VecDeque<(Entry, Instant)>,
    trimmed: u64,
    operations: std::collections::HashSet<crate::OperationId>,
    journal: std::collections::HashMap<CommandId, (JournalEntry, Instant)>,
    events: events::Queue,
    consumers: consumers::Table,
}

impl State {
    fn last(&self) -> u64 {
        self.trimmed + self.entries.len() as u64
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("id", &self.0.id).field("operations", &self.state().last()).finish_non_exhaustive()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty one.
    pub fn new() -> Memory {
        Memory(Arc::new(Shared {
            id: LogId::random(),
            state: Mutex::new(State {
                rows: Rows::default(),
                entries: Default::default(),
                trimmed: 0,
                operations: Default::default(),
                journal: Default::default(),
                events: Default::default(),
                consumers: Default::default(),
            }),
            wakeup: LocalWakeup::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A commit works on copies and stores them last, so a panic in a closure leaves the state as it was.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads rows, all of one moment.
    pub fn read<T>(&self, read: impl FnOnce(&Rows) -> T) -> T {
        read(&self.state().rows)
    }

    fn commit_now(&self, tx: MemoryTx, mut draft: Draft) -> Result<Committed, CommitError> {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(id) = draft.command_id()
            && state.journal.contains_key(id)
        {
            return Err(CommitError::Repeated);
        }
        if state.operations.contains(&draft.operation) {
            return Err(CommitError::Repeated);
        }
        let mut rows = state.rows.clone();
        tx.run(&mut rows, &mut draft).map_err(CommitError::Refused)?;
        let events = state.events.with(&draft.events, now)?;
        let place = Place::new(state.last() + 1, 0);
        let position = LogPosition { log: self.0.id, place, operation: draft.operation };
        if let Some(entry) = draft.journal.take() {
            let found = JournalEntry { command: entry.command, digest: entry.digest, result: entry.result, position };
            state.journal.insert(entry.id, (found, now));
        }
        let entry = Entry { place, operation: draft.operation, origin: draft.origin, body: draft.body() };
        state.operations.insert(entry.operation);
        state.entries.push_back((entry, now));
        (state.rows, state.events) = (rows, events);
        Ok(Committed { position, keys: draft.keys().to_vec() })
    }

    /// Puts an entry into the log as it is: what another program, another version or a mistake could have written.
    pub fn append_raw(&self, mut entry: Entry) -> Place {
        let mut state = self.state();
        entry.place = Place::new(state.last() + 1, 0);
        let place = entry.place;
        state.entries.push_back((entry, Instant::now()));
        drop(state);
        self.0.wakeup.notify();
        place
    }
}

impl Store for Memory {
    type Tx = MemoryTx;

    async fn begin(&self) -> Result<MemoryTx, StoreError> {
        Ok(MemoryTx::default())
    }

    async fn commit(&self, tx: MemoryTx, draft: Draft) -> Result<Committed, CommitError> {
        self.commit_now(tx, draft)
    }

    async fn verify(&self, doubt: &Doubt) -> Result<Verdict, StoreError> {
        let there = self.state().operations.contains(&doubt.position.operation);
        Ok(if there { Verdict::Committed } else { Verdict::RolledBack })
    }

    async fn journaled(&self, id: &CommandId) -> Result<Option<JournalEntry>, StoreError> {
        Ok(self.state().journal.get(id).map(|(entry, _)| entry.clone()))
    }

    fn is_transient(&self, _: &(dyn Error + 'static)) -> bool {
        false
    }

    async fn trim_journal(&self, keep: Duration) -> Result<u64, StoreError> {
        let mut state = self.state();
        let before = state.journal.len();
        state.journal.retain(|_, (_, at)| at.elapsed() < keep);
        Ok((before - state.journal.len()) as u64)
    }

    fn log(&self) -> Arc<dyn OperationLog> {
        Arc::new(self.clone())
    }

    fn wakeup(&self) -> Arc<dyn Wakeup> {
        Arc::new(self.0.wakeup.clone())
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(self.clone())
    }

    fn events(&self) -> Arc<dyn EventQueue> {
        Arc::new(self.clone())
    }
}
