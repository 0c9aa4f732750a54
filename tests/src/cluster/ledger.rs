//! What callers were told, and whether the database agrees.

use std::collections::BTreeMap;

use super::database::{Done, Dump};
use super::job::Job;

/// What callers were told of each command.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Told>);

/// What the caller of a command was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// That it is done, with this result.
    Done(i64),
    /// That it is not done.
    Refused,
    /// Nothing.
    Nothing,
}

impl Ledger {
    /// A command is asked for.
    pub fn asked(&mut self, id: &str) {
        self.0.entry(id.to_owned()).or_insert(Told::Nothing);
    }

    /// Its caller was told that it is done.
    pub fn done(&mut self, id: &str, token: i64) {
        self.0.insert(id.to_owned(), Told::Done(token));
    }

    /// Its caller was told that it is not, and asks no more.
    pub fn refused(&mut self, id: &str) {
        self.0.insert(id.to_owned(), Told::Refused);
    }

    /// Commands whose callers know that they are done.
    pub fn acknowledged(&self) -> usize {
        self.0.values().filter(|told| matches!(told, Told::Done(_))).count()
    }

    /// What is wrong: with what was told, with the rows, with the log unless it was trimmed.
    pub fn compare(&self, dump: &Dump, trimmed: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut found: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        let mut rows = BTreeMap::new();
        for Done { id, token, job } in &dump.done {
            found.entry(id).or_default().push(*token);
            if matches!(job, Job::Fail(_)) {
                wrong.push(format!("command {id} was to fail and has left {job:?}"));
            }
            for key in job.keys() {
                let value = job.value_after(&key, rows.get(&key).copied());
                rows.insert(key, value);
            }
        }
        for (id, told) in &self.0 {
            let tokens = found.remove(id.as_str()).unwrap_or_default();
            let right = match told {
                Told::Done(token) => tokens == [*token],
                Told::Refused => tokens.is_empty(),
                Told::Nothing => tokens.len() <= 1,
            };
            if !right {
                wrong.push(format!("command {id}: its caller was told {told:?}, and it has left {tokens:?}"));
            }
        }
        for id in found.keys() {
            wrong.push(format!("command {id} was done and never asked for"));
        }
        for key in rows.keys().chain(dump.rows.keys().filter(|key| !rows.contains_key(*key))) {
            let (is, should_be) = (dump.rows.get(key), rows.get(key));
            if is != should_be {
                wrong.push(format!("row {key} is {is:?} where the commands that were done make {should_be:?}"));
            }
        }
        let done = dump.done.len() as u64;
        if dump.journaled != done || (!trimmed && dump.operations != done) {
            let Dump { operations, journaled, .. } = dump;
            wrong.push(format!("{done} commands are done, {operations} are in the log and {journaled} in the journal"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(done: &[(&str, i64, Job)], rows: &[(&str, i64)]) -> Dump {
        let done: Vec<_> = done.iter().map(|(id, token, job)| Done { id: (*id).into(), token: *token, job: job.clone() }).collect();
        let rows = rows.iter().map(|(key, value)| ((*key).into(), *value)).collect();
        Dump { operations: done.len() as u64, journaled: done.len() as u64, rows, done }
    }

    #[test]
    fn what_is_lost_doubled_half_done_or_never_asked_for_is_found() {
        let mut ledger = Ledger::default();
        ledger.done("a", 1);
        ledger.asked("b");
        ledger.refused("c");
        let add = |id, token| (id, token, Job::add("x", 1));
        assert_eq!(ledger.compare(&dump(&[add("a", 1)], &[("x", 1)]), false), [""; 0]);
        assert_eq!(ledger.compare(&dump(&[add("a", 1), add("b", 2)], &[("x", 2)]), false), [""; 0]);
        for (why, wrong) in [
            ("lost", dump(&[], &[])),
            ("doubled", dump(&[add("a", 1), add("a", 1)], &[("x", 2)])),
            ("another result", dump(&[add("a", 2)], &[("x", 1)])),
            ("doubled, unacknowledged", dump(&[add("a", 1), add("b", 2), add("b", 3)], &[("x", 3)])),
            ("refused", dump(&[add("a", 1), add("c", 3)], &[("x", 2)])),
            ("half", dump(&[add("a", 1)], &[("x", 1), ("y", 1)])),
            ("update lost", dump(&[add("a", 1), add("b", 2)], &[("x", 1)])),
            ("not in the log", Dump { operations: 0, ..dump(&[add("a", 1)], &[("x", 1)]) }),
            ("never asked for", dump(&[add("a", 1), add("z", 1)], &[("x", 2)])),
        ] {
            assert_ne!(ledger.compare(&wrong, false), [""; 0], "{why}");
        }
    }
}
