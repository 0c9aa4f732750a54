//! What the tests of connections share: a pipe for a network, the services of the recorded conversations, and a client that says what it is told
//! to.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod cluster;
pub mod greeted;
pub mod loose;
pub mod near;
pub mod pipe;
pub mod recorded;
pub mod script;
pub mod services;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use wellspring_rpc::wire::Format;

/// Longer than anything takes that is going to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn fixture(format: Format, scenario: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{format}.{scenario}.jsonl"));
    let lines = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub fn frame_of(line: &Value) -> Vec<u8> {
    match line["text"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => {
            let hex = line["hex"].as_str().expect("a frame");
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
        }
    }
}
