//! An operation before it is committed.

use std::collections::{HashMap, HashSet};

use crate::event::NewEvent;
use crate::id::{CommandId, OperationId, ServerId};
use crate::items::Items;
use crate::journal::NewJournalEntry;
use crate::record::{Body, LoggedKey};

/// Keys of one function in one operation before the function is recorded as stale as a whole: every server decodes them all, and a
/// row that large is a hint that a key of its own ("the list") is missing.
pub const MOST_KEYS: usize = 4096;

/// What will be appended to the log, collected while the handler runs.
#[derive(Debug)]
pub struct Draft {
    /// The operation: the same over every retry of the command.
    pub operation: OperationId,
    /// The server it is committed on.
    pub origin: ServerId,
    /// The outermost command's name.
    pub command: String,
    /// What the handler gave along.
    pub items: Items,
    /// What goes into the outbox.
    pub events: Vec<NewEvent>,
    /// What a repeat of the command will get, if its caller named it.
    pub journal: Option<NewJournalEntry>,
    keys: Vec<LoggedKey>,
    /// Function to its keys; `None` once it is stale as a whole.
    known: HashMap<String, Option<HashSet<String>>>,
}

impl Draft {
    /// Of a command that is about to run.
    pub fn new(operation: OperationId, origin: ServerId, command: impl Into<String>) -> Draft {
        Draft {
            operation,
            origin,
            command: command.into(),
            items: Items::default(),
            events: Vec::new(),
            journal: None,
            keys: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Adds a key, once; the function as a whole if there are too many.
    pub fn add_key(&mut self, key: LoggedKey) {
        let LoggedKey { function, key } = key;
        let known = self.known.entry(function.clone()).or_insert_with(|| Some(HashSet::new()));
        let Some(keys) = known else { return };
        match key {
            Some(key) if keys.contains(&key) => {}
            Some(key) if keys.len() < MOST_KEYS => {
                keys.insert(key.clone());
                self.keys.push(LoggedKey { function, key: Some(key) });
            }
            _ => {
                *known = None;
                self.keys.retain(|other| other.function != function);
                self.keys.push(LoggedKey { function, key: None });
            }
        }
    }

    /// Adds an event. Of two of one operation with the same de-duplication key, the last stands.
    pub fn add_event(&mut self, event: NewEvent) {
        if let Some(key) = &event.key {
            self.events.retain(|other| other.kind != event.kind || other.key.as_ref() != Some(key));
        }
        self.events.push(event);
    }

    /// What is stale by it.
    pub fn keys(&self) -> &[LoggedKey] {
        &self.keys
    }

    /// The body of its log entry, as JSON.
    pub fn body(&self) -> String {
        let body = Body { command: self.command.clone(), keys: self.keys.clone(), items: self.items.clone() };
        // Texts and JSON values under text keys: there is nothing in it that JSON could refuse.
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// The caller's name for the command, if there is one.
    pub fn command_id(&self) -> Option<&CommandId> {
        self.journal.as_ref().map(|entry| &entry.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewEvent;

    fn draft() -> Draft {
        Draft::new(OperationId::new(), ServerId::random(), "test")
    }

    fn key(function: &str, key: impl ToString) -> LoggedKey {
        LoggedKey { function: function.into(), key: Some(key.to_string()) }
    }

    #[test]
    fn a_key_is_recorded_once() {
        let mut draft = draft();
        for n in [1, 2, 1] {
            draft.add_key(key("f", n));
        }
        assert_eq!(draft.keys(), [key("f", 1), key("f", 2)]);
    }

    #[test]
    fn too_many_keys_of_a_function_become_the_function() {
        let mut draft = draft();
        draft.add_key(key("g", 1));
        for n in 0..=MOST_KEYS {
            draft.add_key(key("f", n));
        }
        draft.add_key(key("f", 1));
        assert_eq!(draft.keys(), [key("g", 1), LoggedKey { function: "f".into(), key: None }]);
    }

    #[test]
    fn the_body_comes_back_from_its_text() {
        let mut draft = draft();
        draft.add_key(key("f", "[1,\"x\"]"));
        draft.items.set("a", &1).expect("kept");
        let body: Body = serde_json::from_str(&draft.body()).expect("a body");
        assert_eq!((body.command.as_str(), body.keys.as_slice(), &body.items), ("test", draft.keys(), &draft.items));
    }

    #[test]
    fn of_two_events_of_one_name_the_last_stands() {
        let mut draft = draft();
        let event = |payload: &str| NewEvent { key: Some("daily".into()), ..NewEvent::new("report", payload) };
        draft.add_event(event("1"));
        draft.add_event(NewEvent::new("report", "free"));
        draft.add_event(event("2"));
        let payloads: Vec<_> = draft.events.iter().map(|event| event.payload.as_str()).collect();
        assert_eq!(payloads, ["free", "2"]);
    }
}
