//! The commands.

use serde::{Deserialize, Serialize};
use wellspring_commands::Command;

use super::change::Refused;

/// Groups of rows that are summed up.
pub const GROUPS: u32 = 6;
/// Rows of a group.
pub const ROWS: u32 = 6;
/// Rows that one caller each sets to ever larger numbers.
pub const LANES: u32 = 8;

/// A row of a group.
pub fn group_key(group: u32, row: u32) -> String {
    format!("g{group}/{row}")
}

/// A caller's own row.
pub fn lane_key(lane: u32) -> String {
    format!("lane{lane}")
}

/// All of them.
pub fn every_key() -> impl Iterator<Item = String> {
    let groups = (0..GROUPS).flat_map(|group| (0..ROWS).map(move |row| group_key(group, row)));
    groups.chain((0..LANES).map(lane_key))
}

macro_rules! command {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),* }

        impl Command for $name {
            const NAME: &'static str = stringify!($name);
            /// A number that the handler draws and writes beside the rows: a result that tells one run from another.
            type Output = i64;
            type Error = Refused;
        }
    };
}

command! {
    /// Sets a row.
    Put {
        /// Which.
        key: String,
        /// To what.
        value: i64,
        /// How long its log entry is made, in bytes.
        bulk: usize
    }
}
command! {
    /// Reads a row and writes back more: lost if two of them do not see each other, doubled if one is done twice.
    Add {
        /// Which.
        key: String,
        /// How much.
        by: i64
    }
}
command! {
    /// Takes from one row what it gives to another.
    Move {
        /// From where.
        from: String,
        /// To where.
        to: String,
        /// How much.
        by: i64
    }
}
command! {
    /// Writes, and then fails.
    Fail {
        /// What it writes to.
        key: String,
        /// In the write itself or after it.
        late: bool
    }
}
command! {
    /// Changes how the writing connection behaves, by a statement before all others of the transaction.
    Setting {
        /// The statement.
        sql: String
    }
}

/// One of the commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// See there.
    Put(Put),
    /// See there.
    Add(Add),
    /// See there.
    Move(Move),
    /// See there.
    Fail(Fail),
    /// See there.
    Setting(Setting),
}

impl Job {
    /// Sets a row.
    pub fn put(key: impl Into<String>, value: i64) -> Job {
        Job::Put(Put { key: key.into(), value, bulk: 0 })
    }

    /// Adds to a row.
    pub fn add(key: impl Into<String>, by: i64) -> Job {
        Job::Add(Add { key: key.into(), by })
    }

    /// A statement before all others.
    pub fn setting(sql: impl Into<String>) -> Job {
        Job::Setting(Setting { sql: sql.into() })
    }

    /// A command on the rows of groups that does not fail.
    pub fn random(random: &mut fastrand::Rng) -> Job {
        let key = |random: &mut fastrand::Rng| group_key(random.u32(..GROUPS), random.u32(..ROWS));
        let by = random.i64(-9..10);
        match random.u32(..3) {
            0 => Job::put(key(random), random.i64(0..1000)),
            1 => Job::add(key(random), by),
            _ => {
                let from = key(random);
                let to = loop {
                    let to = key(random);
                    if to != from {
                        break to;
                    }
                };
                Job::Move(Move { from, to, by })
            }
        }
    }

    /// The rows that are stale by it.
    pub fn keys(&self) -> Vec<String> {
        match self {
            Job::Put(Put { key, .. }) | Job::Add(Add { key, .. }) | Job::Fail(Fail { key, .. }) => vec![key.clone()],
            Job::Move(Move { from, to, .. }) => vec![from.clone(), to.clone()],
            Job::Setting(_) => Vec::new(),
        }
    }

    /// What a row is after it. The same for the database and for whoever checks it.
    pub fn value_after(&self, key: &str, before: Option<i64>) -> i64 {
        let before = before.unwrap_or(0);
        match self {
            Job::Put(Put { value, .. }) => *value,
            Job::Add(Add { by, .. }) => before + by,
            Job::Move(Move { from, by, .. }) if from == key => before - by,
            Job::Move(Move { by, .. }) => before + by,
            Job::Fail(_) | Job::Setting(_) => before,
        }
    }
}
