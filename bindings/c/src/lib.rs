//! Wellspring for C: the engine's functions, sources, reads and sweeps behind opaque handles and byte strings.
//!
//! A C program registers functions by callback; a callback reads other functions through the context it is handed, so
//! the engine knows what was made from what. The header is `include/wellspring.h`, generated from the doc comments of
//! this crate by the test `header`; its first comment is the contract of every entry, and is not repeated on each.
//!
//! How the rules are kept:
//! - a handle is a number dressed as a pointer and is looked up, never followed (`handle.rs`); a freed or foreign
//!   handle is therefore an answer, not undefined behaviour;
//! - no panic crosses into C: every entry runs under `catch_unwind` (`error.rs`);
//! - values are reference-counted byte strings, so a buffer handed to C is a reference to the cached bytes, not a copy;
//! - the allocator is the system's, so that valgrind, sanitizers and heap profilers see what they expect.
#![allow(clippy::missing_safety_doc, reason = "one contract covers every entry; the header's first comment states it")]

pub mod batch;
pub mod buffer;
pub mod callback;
pub mod context;
pub mod engine;
pub mod error;
pub mod function;
mod handle;
mod outcome;
pub mod read;
pub mod source;
