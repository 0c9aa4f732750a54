//! What the tests of the relayed logs are made of.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod follower;
pub mod log;
pub mod outbox;
pub mod proxy;
pub mod server;
pub mod sink;
pub mod suite;

use std::time::Duration;

use wellspring_commands::{Entry, OperationId, Place, ServerId};

/// Longer than anything takes that is going to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A check period that never comes.
pub const NEVER: Duration = Duration::from_secs(3600);

pub fn entry(number: u64) -> Entry {
    entry_of(number, format!("{{\"c\":\"test\",\"k\":[{{\"f\":\"price\",\"k\":\"{number}\"}}]}}"))
}

pub fn entry_of(number: u64, body: String) -> Entry {
    Entry { place: Place::new(number, 0), operation: OperationId::new(), origin: ServerId::from_u128(7), body }
}

/// Asks until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}
