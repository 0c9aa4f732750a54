//! Where the servers are that some tests need.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The address of a service: from the environment, else the usual one if something listens there. `None`: it is not there, which is said.
///
/// # Panics
/// If it is not there and `CI` is set: CI must not skip.
pub fn service(variable: &str, usual: &str, port: u16) -> Option<String> {
    if let Ok(url) = std::env::var(variable) {
        return Some(url);
    }
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let there = TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "{variable} is not set, and nothing listens on {address}: CI must not skip");
    if !there {
        println!("skipped: {variable} is not set, and nothing listens on {address}");
    }
    there.then(|| usual.to_owned())
}
