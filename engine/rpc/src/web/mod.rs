//! WebSockets: the hub as a route of an axum application, and the way to one.

mod address;
mod route;

pub use self::address::{NotWeb, WebAddress, WebReader, WebWriter};
pub use self::route::{Origins, router, router_for};
