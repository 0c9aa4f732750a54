//! Remote compute: Wellspring's functions over the network, on the ActualLab.Rpc wire.
//!
//! A [`Hub`] offers [services](Service). A client that calls a compute method gets its value, and is told once it is stale. What stands so far is
//! calls (regular, compute and no-wait) and [streams](RpcStream), of both sides, over [WebSockets](web) and [sockets](socket), with reconnection; a
//! [`Router`] over several servers; who [calls](Caller), and as whom; and [the wire](wire). A hub is a route of an axum application, or has [listeners](Listener) of its own.
//!
//! A trait with [`#[rpc_service]`](macro@rpc_service) is what a server implements, and what its clients call:
//!
//! ```
//! use std::sync::Arc;
//!
//! use wellspring::{Computed, Cx, Engine, Fault, Source};
//! use wellspring_rpc::web::{self, WebAddress};
//! use wellspring_rpc::{Failure, Hub, Remote, rpc_service};
//!
//! #[rpc_service(name = "IStock")]
//! trait Stock {
//!     #[compute]
//!     async fn get(&self, item: String) -> Result<Computed<u32>, Fault>;
//!
//!     async fn set(&self, item: String, count: u32) -> Result<(), Failure>;
//! }
//!
//! struct Shop {
//!     engine: Engine,
//!     counts: Source<String, u32>,
//! }
//!
//! impl Stock for Shop {
//!     async fn get(&self, item: String) -> Result<Computed<u32>, Fault> {
//!         self.counts.computed(&self.engine, &item) // as of any function: sync or async, made by hand or by `#[compute]`
//!     }
//!
//!     async fn set(&self, item: String, count: u32) -> Result<(), Failure> {
//!         self.counts.set(&item, count);
//!         Ok(())
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // One process has the values,
//! let engine = Engine::new();
//! let counts = engine.source("counts", |_: &String| 0)?;
//! let hub = Hub::builder().service(Arc::new(Shop { engine, counts }).into_service())?.build();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! tokio::spawn(async { axum::serve(listener, web::router(hub)).await });
//!
//! // and in another a function depends on them.
//! let engine = Engine::new();
//! let remote = Remote::builder(WebAddress::new(format!("ws://{address}/rpc/ws"))?).connect();
//! let stock = StockClient::new(&engine, &remote)?;
//! let read = stock.clone();
//! let is_there = engine.async_function("is_there", move |cx: Cx, item: String| {
//!     let stock = read.clone();
//!     async move { stock.get(&cx, &item).await.map(|count| count > 0) }
//! })?;
//! let computed = is_there.computed(&engine, "apple").await?;
//! assert_eq!(*computed.value(), Ok(false));
//! stock.set("apple", 3).await?;
//! computed.when(|is_there| *is_there == Ok(true)).await?; // it was told
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What the macro makes can be written by hand, too:
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
mod client_cache;
mod connecting;
mod connection;
mod end;
mod failure;
#[cfg(fuzzing)]
mod fuzzing;
mod hash;
mod hub;
mod inbox;
mod later;
mod listener;
mod lives;
mod made;
mod method_limits;
mod numbered;
mod outbound;
mod outgoing;
mod peer;
#[cfg(any(test, fuzzing))]
mod pieces;
mod recent;
#[cfg(feature = "redb")]
mod redb_cache;
mod remote;
mod remote_function;
mod remoted;
mod router;
mod service;
mod session;
mod slots;
pub mod socket;
mod streams;
mod synchronize;
#[cfg(test)]
mod taking;
#[cfg(feature = "tls")]
pub mod tls;
mod trace_context;
pub mod transport;
mod verified;
pub mod web;
pub mod wire;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use crate::arguments::{FromArguments, ToArguments};
pub use crate::call_options::CallOptions;
pub use crate::caller::Caller;
pub use crate::calling::Calling;
pub use crate::caps::Caps;
pub use crate::client_cache::{Cache, CacheError, Change, ClientCache};
pub use crate::connecting::Disconnected;
pub use crate::failure::Failure;
pub use crate::hub::{Hub, HubBuilder, Timings, Visitor};
pub use crate::listener::{Listener, Serving};
pub use crate::method_limits::MethodLimits;
#[cfg(feature = "redb")]
pub use crate::redb_cache::RedbCache;
pub use crate::remote::{CallError, Connected, Remote, RemoteBuilder, Replica};
pub use crate::remote_function::RemoteDefine;
pub use crate::remoted::{Freshness, Remoted};
pub use crate::router::{By, Entered, Guarded, HashRing, Owned, Place, RingKey, Route, Router, RouterBuilder, Routes, Single};
pub use crate::service::{Service, ServiceError};
pub use crate::session::Refusal;
pub use crate::streams::RpcStream;
pub use crate::synchronize::NotSynchronized;
pub use crate::trace_context::TraceContext;
pub use wellspring_macros::rpc_service;
