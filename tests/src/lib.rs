//! What the engine-wide tests and the fuzz targets share: random programs, an oracle that says what each of them must
//! return and how often its bodies may run, and the worlds (engine, handles, drop counters) they are compared with; and servers
//! as processes, to be killed; and the services of the RPC conformance page.
#![forbid(unsafe_code)]

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod concurrent;
pub mod expr;
pub mod lifecycle;
pub mod lifetimes;
pub mod op;
pub mod oracle;
pub mod program;
#[cfg(feature = "rpc")]
pub mod rpc;
#[cfg(feature = "rpc-peer")]
pub mod rpc_peer;
pub mod sequential;
pub mod service;
pub mod stepping;
pub mod tracked;
pub mod waking;
pub mod world;

/// The README's examples run. They are of several crates, so they are here.
#[cfg(all(doctest, feature = "rpc"))]
#[doc = include_str!("../../README.md")]
mod readme {}
