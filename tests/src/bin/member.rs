//! One server as a process: see [`wellspring_tests::cluster`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use wellspring_tests::cluster::{Setup, serve};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let Some(Ok(setup)) = std::env::args().nth(1).map(|text| serde_json::from_str::<Setup>(&text)) else {
        eprintln!("a member needs its setup as JSON");
        return ExitCode::FAILURE;
    };
    match serve(setup).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the member cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}
