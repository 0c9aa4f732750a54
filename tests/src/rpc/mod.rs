//! The services of the RPC conformance page on an engine and a hub, the process that offers them, and what is done to it and to the way there.
//!
//! Whatever speaks ActualLab.Rpc can be pointed at the process, `conformance-server`. What it must do is written on the page, so bodies here are as
//! short as they can be; values that are pushed are functions of the engine, and it is the engine that ends them.

mod control;
mod counter;
mod cut;
mod demo;
mod inspection;
mod listen;
mod matrix;
mod options;
mod process;
mod proxy;
mod services;
mod typescript;

pub use self::control::Restart;
pub use self::counter::{Counters, Zero};
pub use self::cut::{Cut, CutReader, CutWriter, Cuttable};
pub use self::demo::{Runs, demo};
pub use self::listen::{PAUSE, run};
pub use self::options::Options;
pub use self::process::Server;
pub use self::proxy::Proxy;
pub use self::services::Services;

/// Any failure, for people.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure of a method that has none.
fn done() -> Result<(), wellspring_rpc::Failure> {
    Ok(())
}
