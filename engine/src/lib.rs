//! Computed values that stay fresh: cached functions, tracked dependencies, invalidation in one sweep.
//!
//! ```
//! use wellspring::{Cx, Engine};
//!
//! let engine = Engine::new();
//! let price = engine.source("price", |_: &u32| 100_u64)?;
//! let prices = price.clone();
//! let total = engine.function("total", move |cx: &Cx, basket: &Vec<u32>| {
//!     basket.iter().map(|id| prices.get(cx, id).unwrap_or(0)).sum::<u64>()
//! })?;
//!
//! assert_eq!(total.get(&engine, &[1, 2][..])?, 200);
//! price.set(&2, 150);                                    // every total made from product 2 is stale when this returns
//! assert_eq!(total.get(&engine, &[1, 2][..])?, 250);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - Register functions with an [`Engine`]: [`Engine::function`], [`Engine::async_function`], [`Engine::source`], or
//!   `#[compute]` on an `impl` block.
//! - Read with [`Function::get`]; on the hot path, borrow under a [`Pin`]: [`Handle::peek`], [`Handle::get_many`], [`NodeRef`].
//! - Tell the engine what changed: [`Source::set`], [`Handle::invalidate`], [`Engine::batch`].
//!
//! How it works and what it promises: `DESIGN.md` beside this crate.

mod async_handle;
mod audit;
mod background;
mod batch;
mod callback;
mod capacity;
mod changes;
mod clock;
mod collector;
mod column;
mod compute;
mod computed;
mod computed_state;
mod consolidate;
mod cut_off;
mod cx;
mod define;
mod define_state;
mod delay;
mod deps;
mod describe;
mod durable;
mod edge;
mod engine;
mod evict;
mod expire;
mod export;
mod fault;
mod feed;
mod fingerprint;
mod flight;
mod follow;
mod fresh;
mod function;
mod graph;
mod handle;
mod hit;
mod hook;
mod key;
mod level;
mod log;
mod memory;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
mod mutable_state;
mod neighbour;
mod node;
mod notify;
mod origin;

mod picture;
mod pin;
mod projection;
mod publish;
mod read;
mod refresh;
mod region;
mod section;
mod sieve;
mod signal;
mod snapshot;
mod state_error;
mod state_snapshot;
mod states;
mod stats;
mod subscription;
mod sweep;
mod sync;
mod table;
mod timer;
mod trace;
mod ui_delay;
mod untyped;
mod update_loop;
mod value;
mod verify;
mod watch;
mod wheel;
mod why;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use crate::async_handle::{AsyncFunction, GetFuture};
pub use crate::batch::Batch;
pub use crate::callback::{Watch, WatchError};
pub use crate::capacity::Capacity;
pub use crate::changes::Changes;
pub use crate::clock::{Alarm, Clock, ManualClock};
pub use crate::computed::{Computed, Invalidated};
pub use crate::computed_state::{ComputedState, StateRead, StateWait};
pub use crate::cx::{Ask, Asker, Cx};
pub use crate::define::Define;
pub use crate::define_state::DefineState;
pub use crate::delay::{Backoff, Delay, FixedDelay, NextTick, UpdateDelayer};
pub use crate::engine::{Engine, EngineBuilder, Service, Spawner};
pub use crate::expire::ErrorKind;
pub use crate::export::Export;
pub use crate::fault::{Fault, RegisterError};
pub use crate::fingerprint::MissingInvalidation;
pub use crate::function::FunctionId;
pub use crate::handle::{CommitId, Function, Handle, Source};
pub use crate::key::{Key, Lookup, Parts};
pub use crate::log::{Event, What};
pub use crate::memory::{FunctionMemory, MemoryReport};
pub use crate::mutable_state::MutableState;
pub use crate::neighbour::{Condition, NodeLabel};
pub use crate::origin::Change;
pub use crate::pin::Pin;
pub use crate::read::{NodeId, NodeRef};
pub use crate::snapshot::{Snapshot, SnapshotContended};
pub use crate::state_error::StateError;
pub use crate::state_snapshot::StateSnapshot;
pub use crate::stats::{FunctionStats, Stats};
pub use crate::subscription::Consolidated;
pub use crate::timer::{Sleep, Timer};
pub use crate::trace::{Cause, Causes};
pub use crate::ui_delay::{Action, ActionTracker, UiDelay};
pub use crate::update_loop::UpdateLoop;
pub use crate::value::{Inline, Read, Value};
pub use crate::why::{Neighbours, Why};
#[cfg(feature = "macros")]
pub use wellspring_macros::{Inline, compute};
