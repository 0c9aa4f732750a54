//! How a member is to be.

use std::path::PathBuf;

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
    /// No hint ever reaches it.
    pub deaf: bool,
    /// Whether it may relay, if there is a stream.
    pub relays: bool,
    /// How often it reads the log unhinted.
    pub check_ms: u64,
    /// Connections that are opened while there is this file cannot write.
    pub read_only_while: Option<PathBuf>,
    /// Whether it reads all the time, to have something that can be stale.
    pub reads: bool,
}

impl Setup {
    /// Nothing is wrong with it.
    pub fn of(backend: impl ToString) -> Setup {
        Setup {
            backend: backend.to_string(),
            skew_seconds: 0,
            moody: None,
            deaf: false,
            relays: true,
            check_ms: 100,
            read_only_while: None,
            reads: true,
        }
    }
}
