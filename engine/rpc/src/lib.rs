//! Remote compute: Wellspring's functions over the network, on the ActualLab.Rpc wire.
//!
//! A [`Hub`] offers [services](Service). A client that calls a compute method gets its value, and is told once it is stale. What stands so far is
//! calls (regular, compute and no-wait) and [streams](RpcStream), of both sides, over [WebSockets](web) and [sockets](socket), with reconnection; a
//! [`Router`] over several servers; who [calls](Caller), and as whom; and [the wire](wire). A hub is a route of an axum application, or has [listeners](Listener) of its own.
//!
//! ```
//! use wellspring::Engine;
//! use wellspring_rpc::{Failure, Hub, Service};
//!
//! let engine = Engine::new();
//! let stock = engine.source("stock", |_: &String| 0_u32)?;
//! let (read, write) = (stock.clone(), stock.clone());
//! let service = Service::new("IStock")
//!     .compute("Get:2", move |(item,): (String,)| {
//!         let (engine, stock) = (engine.clone(), read.clone());
//!         async move { stock.computed(&engine, &item) }
//!     })
//!     .method("Set:3", move |(item, count): (String, u32)| {
//!         write.set(&item, count);
//!         async { Ok::<_, Failure>(()) }
//!     });
//! let hub = Hub::builder().service(service)?.build();
//! let app: axum::Router = wellspring_rpc::web::router(hub);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod arguments;
mod asked;
mod call;
mod call_options;
mod caller;
mod calling;
mod calls;
mod caps;
mod connection;
mod end;
mod failure;
mod hub;
mod inbox;
mod listener;
mod method_limits;
mod outbound;
mod outgoing;
mod peer;
#[cfg(test)]
mod pieces;
mod recent;
mod remote;
mod remote_function;
mod router;
mod service;
mod session;
pub mod socket;
mod streams;
#[cfg(feature = "tls")]
pub mod tls;
mod trace_context;
pub mod transport;
mod verified;
pub mod web;
pub mod wire;

pub use crate::arguments::{FromArguments, ToArguments};
pub use crate::call_options::CallOptions;
pub use crate::caller::Caller;
pub use crate::calling::Calling;
pub use crate::caps::Caps;
pub use crate::failure::Failure;
pub use crate::hub::{Hub, HubBuilder, Timings, Visitor};
pub use crate::listener::{Listener, Serving};
pub use crate::method_limits::MethodLimits;
pub use crate::remote::{CallError, Connected, Remote, RemoteBuilder, Replica};
pub use crate::remote_function::Remoted;
pub use crate::router::{By, Entered, Guarded, HashRing, Owned, Place, RingKey, Route, Router, RouterBuilder, Routes, Single};
pub use crate::service::{Service, ServiceError};
pub use crate::session::Refusal;
pub use crate::streams::RpcStream;
pub use crate::trace_context::TraceContext;
