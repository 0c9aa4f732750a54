//! Operations becoming stale values: each exactly once, one batch one sweep.
//!
//! An operation comes here twice on the server that has committed it: by the commit itself, before its caller gets the result, and by
//! the log. Whoever comes first applies it; nobody is told that it is applied before its sweep is over.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};
use wellspring::CommitId;

use crate::id::{LogId, OperationId, ServerId};
use crate::items::Items;
use crate::log::Head;
use crate::logged::{LoggedFunctions, Unread};
use crate::notice::{Notice, Notices};
use crate::position::{LogPosition, Place};
use crate::record::{Body, Entry, LoggedKey};

/// An operation that has become stale values on this server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Applied {
    /// Where it is in the log.
    pub position: LogPosition,
    /// The server that has committed it.
    pub origin: ServerId,
    /// The outermost command's name.
    pub command: String,
    /// What its handler gave along.
    pub items: Items,
    /// The commit of this server's engine by which it is stale here.
    pub commit: CommitId,
}

/// Names of functions that are not here, told once each.
const MOST_UNKNOWN: usize = 1024;

/// Operations above the horizon that are remembered. One that is forgotten is swept once more when the log brings it.
const MOST_KNOWN: usize = 1 << 18;

/// Operations kept for whoever listens and is slow.
const BACKLOG: usize = 4096;

/// Applies operations to one engine.
#[derive(Debug)]
pub(crate) struct Applier {
    log: LogId,
    functions: LoggedFunctions,
    notices: Notices,
    /// User code that may run under this lock: `Deserialize`, `Hash` and `Eq` of keys, wakers of what the batch makes stale, and `Drop` of
    /// values that were replaced. It must not wait for operations, which nothing of that kind does.
    state: Mutex<State>,
    moved: watch::Sender<u64>,
    listeners: broadcast::Sender<Heard>,
    pub(crate) counters: Counters,
}

/// What listeners hear.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Applied(Applied),
    CoverageLost,
}

/// What was applied: all below the horizon, and what is in `places`, whose operations are the keys of `commits`.
#[derive(Default)]
struct State {
    horizon: Place,
    places: BTreeSet<(Place, OperationId)>,
    commits: HashMap<OperationId, CommitId>,
    unknown: HashSet<String>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("horizon", &self.horizon).field("above", &self.places.len()).finish()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) local: AtomicU64,
    pub(crate) foreign: AtomicU64,
    pub(crate) sweeps: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) poisoned: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// An operation to be applied, decoded.
struct Ready {
    place: Place,
    operation: OperationId,
    origin: ServerId,
    body: Body,
}

impl State {
    fn has(&self, place: Place, operation: OperationId) -> bool {
        place < self.horizon || self.commits.contains_key(&operation)
    }

    fn add(&mut self, place: Place, operation: OperationId, commit: CommitId) {
        self.places.insert((place, operation));
        self.commits.insert(operation, commit);
        // The log does not say anything, while operations of this server go on: a relay that is down.
        if self.places.len() > MOST_KNOWN
            && let Some((_, operation)) = self.places.pop_first()
        {
            self.commits.remove(&operation);
        }
    }

    /// Below the horizon nobody asks for an id.
    fn raise(&mut self, horizon: Place) {
        self.horizon = self.horizon.max(horizon);
        while let Some(&(place, operation)) = self.places.first() {
            if place >= self.horizon {
                break;
            }
            self.places.pop_first();
            self.commits.remove(&operation);
        }
    }
}

impl Applier {
    pub(crate) fn new(log: LogId, functions: LoggedFunctions, notices: Notices) -> Applier {
        Applier {
            log,
            functions,
            notices,
            state: Mutex::default(),
            moved: watch::Sender::new(0),
            listeners: broadcast::Sender::new(BACKLOG),
            counters: Counters::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Heard> {
        self.listeners.subscribe()
    }

    /// The log's end, read before the first value is computed or, as here, before all that were are made stale.
    pub(crate) fn start(&self, head: &Head) {
        let mut state = self.state();
        let engine = self.functions.engine();
        let commit = engine.invalidate_everything();
        // What was applied before and is not below the new horizon stays known: an own operation that a relay has not brought yet.
        let before = std::mem::take(&mut state.places);
        let unknown = std::mem::take(&mut state.unknown);
        *state = State { horizon: head.horizon, unknown, ..State::default() };
        let known = before.into_iter().filter(|(place, _)| *place >= head.horizon);
        for (place, operation) in known.chain(head.recent.iter().copied()) {
            state.add(place, operation, commit);
        }
        drop(state);
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// Coverage was lost: as a start, and told.
    pub(crate) fn start_over(&self, head: &Head, reason: String) {
        self.start(head);
        // Nobody listens: nobody is told.
        let _ = self.listeners.send(Heard::CoverageLost);
        self.counters.lost.fetch_add(1, Ordering::Relaxed);
        self.notices.tell(&Notice::CoverageLost { reason });
    }

    /// Applies an operation of this server, unless the log was faster.
    pub(crate) fn apply_own(&self, position: LogPosition, origin: ServerId, body: Body) -> CommitId {
        let LogPosition { place, operation, .. } = position;
        let mut state = self.state();
        if let Some(&commit) = state.commits.get(&operation) {
            return commit;
        }
        let ready = vec![Ready { place, operation, origin, body }];
        let mut poison = Vec::new();
        let commit = if place < state.horizon {
            // The log was faster and has been forgotten, or its places have gone back. Once more does no harm.
            self.make_stale(&mut state, &ready, &mut poison)
        } else {
            self.counters.local.fetch_add(1, Ordering::Relaxed);
            self.sweep(&mut state, ready, &mut poison)
        };
        drop(state);
        self.tell(poison);
        self.moved.send_modify(|moved| *moved += 1);
        commit
    }

    /// Applies what a reading of the log has found: those that are new here, in one sweep.
    pub(crate) fn apply(&self, entries: Vec<Entry>, horizon: Place) {
        let mut poison = Vec::new();
        let mut state = self.state();
        let mut ready = Vec::with_capacity(entries.len());
        let mut given = HashSet::new();
        for Entry { place, operation, origin, body } in entries {
            if state.has(place, operation) || !given.insert(operation) {
                self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let body = serde_json::from_str(&body).unwrap_or_else(|error| unreadable(operation, &error, &mut poison));
            ready.push(Ready { place, operation, origin, body });
        }
        // Whoever waits is woken by what may end the wait, and not by readings that find nothing: it asks for the next one.
        let moved = !ready.is_empty() || horizon > state.horizon;
        if !ready.is_empty() {
            self.counters.foreign.fetch_add(ready.len() as u64, Ordering::Relaxed);
            self.sweep(&mut state, ready, &mut poison);
        }
        state.raise(horizon);
        drop(state);
        self.tell(poison);
        if moved {
            self.moved.send_modify(|moved| *moved += 1);
        }
    }

    /// Tells of what could not be applied as it is; never under the lock, since whoever hears of it may call commands.
    fn tell(&self, poison: Vec<Notice>) {
        self.counters.poisoned.fetch_add(poison.len() as u64, Ordering::Relaxed);
        for notice in poison {
            self.notices.tell(&notice);
        }
    }

    fn sweep(&self, state: &mut State, ready: Vec<Ready>, poison: &mut Vec<Notice>) -> CommitId {
        let commit = self.make_stale(state, &ready, poison);
        for Ready { place, operation, origin, body } in ready {
            state.add(place, operation, commit);
            let Body { command, items, .. } = body;
            let position = LogPosition { log: self.log, place, operation };
            // Nobody listens: nobody is told.
            let _ = self.listeners.send(Heard::Applied(Applied { position, origin, command, items, commit }));
        }
        commit
    }

    fn make_stale(&self, state: &mut State, ready: &[Ready], poison: &mut Vec<Notice>) -> CommitId {
        self.counters.sweeps.fetch_add(1, Ordering::Relaxed);
        let keys = || ready.iter().flat_map(|ready| ready.body.keys.iter().map(|key| (ready.operation, key)));
        let engine = self.functions.engine();
        if keys().any(|(_, key)| key.function.is_empty()) {
            return engine.invalidate_everything();
        }
        engine.batch(|batch| {
            for (operation, key) in keys() {
                let function = &key.function;
                let reason = match self.functions.collect(batch, key) {
                    Ok(()) => continue,
                    Err(Unread::NotLogged) => format!("function `{function}` is not logged on this server; all its keys are stale instead"),
                    Err(Unread::Key(error)) => {
                        let key = key.key.as_deref().unwrap_or_default();
                        format!("key `{key}` of `{function}` cannot be read ({error}); all its keys are stale instead")
                    }
                    // A server need not have every function: told once.
                    Err(Unread::Function) if state.unknown.contains(function) || state.unknown.len() >= MOST_UNKNOWN => continue,
                    Err(Unread::Function) => {
                        state.unknown.insert(function.clone());
                        format!("there is no function `{function}` on this server; its keys are skipped")
                    }
                };
                poison.push(Notice::Poisoned { operation, reason });
            }
        })
    }

    /// Whether the operation is applied, and by which commit.
    pub(crate) fn applied(&self, position: LogPosition) -> Option<CommitId> {
        let state = self.state();
        match state.commits.get(&position.operation) {
            Some(&commit) => Some(commit),
            None if position.place < state.horizon => Some(self.functions.engine().commit()),
            None => None,
        }
    }

    /// Moves whenever something was applied.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(crate) fn log(&self) -> LogId {
        self.log
    }
}

/// What an unreadable entry has made stale nobody can say: everything, then.
fn unreadable(operation: OperationId, error: &serde_json::Error, poison: &mut Vec<Notice>) -> Body {
    let reason = format!("its body cannot be read ({error}); everything is stale instead");
    poison.push(Notice::Poisoned { operation, reason });
    Body { keys: vec![LoggedKey { function: String::new(), key: None }], ..Body::default() }
}
