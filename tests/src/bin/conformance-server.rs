//! The services of the RPC conformance page, for whatever speaks ActualLab.Rpc: see [`wellspring_tests::rpc`].
//!
//! `conformance-server [--port PORT] [--keep-alive MILLISECONDS] [--retention MILLISECONDS] [--ends-with-input]` listens at `ws://127.0.0.1:PORT/rpc/ws`, and says `listening on PORT` when it does.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use wellspring_tests::rpc::{Options, run};

/// How it is called.
const USAGE: &str = "conformance-server [--port PORT] [--keep-alive MILLISECONDS] [--retention MILLISECONDS] [--ends-with-input]";

fn options() -> Option<Options> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--port" => options.port = arguments.next()?.parse().ok()?,
            "--keep-alive" => options.keep_alive = Some(Duration::from_millis(arguments.next()?.parse().ok()?)),
            "--retention" => options.retention = Some(Duration::from_millis(arguments.next()?.parse().ok()?)),
            "--ends-with-input" => options.ends_with_input = true,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
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
