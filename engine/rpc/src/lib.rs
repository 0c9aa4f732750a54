//! Remote compute: Wellspring's functions over the network, on the ActualLab.Rpc wire.
//!
//! What stands so far is the wire itself, [`wire`]: formats, frames, messages, the values of system calls, and the data formats of
//! arguments and results.
#![forbid(unsafe_code)]

pub mod wire;
