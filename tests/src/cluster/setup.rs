//! How a member is to be.

use serde::{Deserialize, Serialize};

/// How a member is to be: its only argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// See [`Backend`](super::Backend).
    pub backend: String,
    /// By how much its wall clock is wrong.
    pub skew_seconds: i64,
    /// Hints are lost, doubled and late, by this seed.
    pub moody: Option<u64>,
    /// How often it reads the log unhinted.
    pub check_ms: u64,
    /// How long the file may be, in pages.
    pub most_pages: Option<u32>,
    /// Whether it reads all the time, to have something that can be stale.
    pub reads: bool,
}

impl Setup {
    /// Nothing is wrong with it.
    pub fn of(backend: impl ToString) -> Setup {
        Setup { backend: backend.to_string(), skew_seconds: 0, moody: None, check_ms: 100, most_pages: None, reads: true }
    }
}
