//! The services of the RPC conformance page, for whatever speaks ActualLab.Rpc: see [`wellspring_tests::rpc`].
//!
//! `conformance-server [--port PORT]` listens at `ws://127.0.0.1:PORT/rpc/ws`, and says `listening on PORT` when it does. For what else it can do see
//! [`Options`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use wellspring_tests::rpc::{Options, run};

fn main() -> ExitCode {
    let Some(options) = Options::read(std::env::args().skip(1)) else {
        eprintln!("{}", Options::USAGE);
        return ExitCode::FAILURE;
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the server cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}
