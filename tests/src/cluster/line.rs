//! What driver and member say to each other, a line of JSON each.

use serde::{Deserialize, Serialize};
use wellspring_commands::LogPosition;

use super::job::Job;
use super::kill::Step;

/// A line to a member. Answers come in any order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// Comes back with the answer.
    pub number: u64,
    /// What is wanted.
    pub ask: Ask,
}

/// What a member does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Runs a command under an id.
    Run {
        /// The id.
        id: String,
        /// The command.
        job: Job,
    },
    /// Reads a row through the cache.
    Row {
        /// Its key.
        key: String,
    },
    /// Watches a row until it has a value: without asking anybody for news.
    Until {
        /// Its key.
        key: String,
        /// The value.
        value: Option<i64>,
    },
    /// Waits until an operation is applied.
    Wait {
        /// Where it is.
        position: LogPosition,
    },
    /// Compares all that is cached with direct SQL.
    Check,
    /// What the server has counted.
    Stats,
    /// Kills itself at the next time it comes to a step.
    Arm {
        /// The step.
        step: Step,
        /// For steps that take a while: how long after their beginning.
        micros: u64,
    },
    /// Holds up handlers that have written a row, in the midst of their transaction; or none any more.
    Hold {
        /// The row's key.
        key: Option<String>,
    },
    /// Waits until one is held up.
    Held,
    /// Trims the log.
    Trim {
        /// What is younger stays.
        keep_ms: u64,
    },
    /// Becomes a named consumer, which tells [`News::Consumed`].
    Consume {
        /// The name.
        name: String,
    },
    /// Ends well.
    Quit,
}

/// A line from a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Line {
    /// It serves.
    Ready,
    /// To a question.
    Answer {
        /// The question's.
        number: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Unasked.
    News(News),
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The command is done.
    Done {
        /// What its handler returned.
        token: i64,
        /// Where it is.
        position: LogPosition,
        /// Whether it had been done before.
        repeated: bool,
    },
    /// The command is not done.
    Refused {
        /// Why.
        error: String,
        /// The kind of the store's failure, if it was one.
        kind: Option<String>,
        /// Whether it is sure that nothing was written.
        certain: bool,
    },
    /// A row's value.
    Value(Option<i64>),
    /// What was compared.
    Checked {
        /// How many values were cached and believed to be fresh.
        cached: usize,
        /// What differs.
        wrong: Vec<String>,
    },
    /// Counts.
    Stats(Figures),
    /// It is so now.
    Well,
    /// It went wrong.
    Failed(String),
}

/// What a server has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Operations of its own applied before the log brought them.
    pub applied_own: u64,
    /// Operations the log brought.
    pub applied_from_log: u64,
    /// Operations that came once more.
    pub duplicates: u64,
    /// Entries that could not be applied as they are.
    pub poisoned: u64,
    /// Times operations were lost.
    pub coverage_lost: u64,
    /// Readings that failed.
    pub failed_reads: u64,
    /// Whether the last one did.
    pub is_blind: bool,
}

/// What a member tells unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Coverage was lost.
    Lost(String),
    /// An entry was poisoned.
    Poisoned(String),
    /// Another notice.
    Notice(String),
    /// A consumer got an operation.
    Consumed {
        /// The operation.
        operation: String,
        /// The command's name.
        command: String,
    },
    /// A consumer got something else.
    ConsumedOther(String),
}
