//! WebSockets: the hub as a route of an axum application, and the way to one.

mod address;
mod frames;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod route;
mod upgrade;

pub use self::address::{NotWeb, WebAddress};
pub use self::frames::{WebReader, WebWriter};
pub use self::route::{Origins, backend_router, router, router_for};
