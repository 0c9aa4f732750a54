//! Remote compute: Wellspring's functions over the network, on the ActualLab.Rpc wire.
//!
//! A [`Hub`] offers [services](Service). A client that calls a compute method gets its value, and is told once it is stale. What stands so far is
//! calls (regular, compute and no-wait) and [streams](RpcStream), of both sides, over [WebSockets](web) and [sockets](socket), with reconnection; a
//! [`Router`] over several servers; and [the wire](wire). A hub is a route of an axum application, or has [listeners](Listener) of its own.
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
mod calls;
mod caps;
mod client_cache;
mod connection;
mod end;
mod failure;
mod hash;
mod hub;
mod inbox;
mod listener;
mod lives;
mod outbound;
mod outgoing;
mod peer;
#[cfg(test)]
mod pieces;
mod recent;
#[cfg(feature = "redb")]
mod redb_cache;
mod remote;
mod remote_function;
mod remoted;
mod router;
mod service;
pub mod socket;
mod streams;
mod synchronize;
#[cfg(feature = "tls")]
pub mod tls;
pub mod transport;
mod verified;
pub mod web;
pub mod wire;

pub use crate::arguments::{FromArguments, ToArguments};
pub use crate::caps::Caps;
pub use crate::client_cache::{Cache, CacheError, Change, ClientCache};
pub use crate::failure::Failure;
pub use crate::hub::{Hub, HubBuilder, NotProved, Timings, Visitor};
pub use crate::listener::{Listener, Serving};
#[cfg(feature = "redb")]
pub use crate::redb_cache::RedbCache;
pub use crate::remote::{CallError, Connected, Remote, RemoteBuilder, Replica};
pub use crate::remote_function::RemoteDefine;
pub use crate::remoted::{Freshness, Remoted};
pub use crate::router::{By, Entered, Guarded, HashRing, Owned, Place, RingKey, Route, Router, RouterBuilder, Routes, Single};
pub use crate::service::{Service, ServiceError};
pub use crate::streams::RpcStream;
pub use crate::synchronize::NotSynchronized;
