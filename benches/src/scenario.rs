//! What is measured. Each module documents the conditions of its rows.

use crate::{Plan, Row};

pub mod bounded;
pub mod caches;
pub mod compute;
pub mod evict;
pub mod fusion;
pub mod handle;
pub mod hit;
pub mod many;
pub mod memory;
pub mod oplog;
pub mod promise;
pub mod redis;
pub mod rpc;
pub mod salsa;
pub mod signals;
pub mod spare;
pub mod storm;
pub mod sweep;
pub mod timers;
pub mod watch;

/// Said of a row whose peer this build does not contain.
pub const NOT_BUILT: &str = "not built (add --features peers)";

/// Something that can be measured on its own.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name; rows carry it or extend it.
    pub name: &'static str,
    /// Measures it.
    pub run: fn(&str, Plan) -> Vec<Row>,
}

/// Whether a scenario asks how many bytes are in use, and so needs a process whose allocator counts them.
pub fn counts_bytes(name: &str) -> bool {
    name.starts_with("memory/") || name.starts_with(bounded::MEMORY)
}

/// Every scenario, in the order of the report.
pub fn scenarios() -> Vec<Scenario> {
    [
        hit::SCENARIOS,
        many::SCENARIOS,
        handle::SCENARIOS,
        caches::SCENARIOS,
        compute::SCENARIOS,
        sweep::SCENARIOS,
        salsa::SCENARIOS,
        signals::SCENARIOS,
        memory::SCENARIOS,
        storm::SCENARIOS,
        watch::SCENARIOS,
        evict::SCENARIOS,
        bounded::SCENARIOS,
        promise::SCENARIOS,
        spare::SCENARIOS,
        timers::SCENARIOS,
        fusion::SCENARIOS,
        redis::SCENARIOS,
        oplog::SCENARIOS,
        rpc::SCENARIOS,
    ]
    .concat()
}
