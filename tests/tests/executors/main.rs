//! Async functions on tokio, on smol and with no executor: one flight per key, whoever waits for it and however it ends.
#![forbid(unsafe_code)]

mod cancellation;
mod flights;
mod gate;
mod recording;
mod runtime;
mod spawned;
