//! The network: the page at `/` and the functions at `/rpc/ws`, on one port.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use tokio::runtime::Runtime;

use super::{Service, methods, page};
use crate::error::ShopError;

/// Where the first server on a machine is found, if nothing else is said. Whoever reaches it can set prices, so it is this machine only.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// How many answers are computed at once: each may hold a connection to the database.
const MOST_AT_ONCE: usize = 16;

/// Where a server listens for pages and other clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Listen {
    /// At 127.0.0.1:7070; the second server of a machine finds that taken, and takes a port that is free.
    #[default]
    Usual,
    /// There, and nowhere else; port 0 is one that is free.
    At(SocketAddr),
    /// Nowhere.
    Nowhere,
}

/// A port that is ours.
#[derive(Debug)]
pub(super) struct Bound {
    listener: TcpListener,
    at: SocketAddr,
    /// Whether the usual one was taken.
    instead: bool,
}

impl Listen {
    /// Takes the port. Who connects now is answered once it is [served](Bound::serve).
    pub(super) fn bind(self) -> Result<Option<Bound>, ShopError> {
        let (listener, instead) = match self {
            Self::Nowhere => return Ok(None),
            Self::At(address) => (TcpListener::bind(address).map_err(|error| refused(address, &error))?, false),
            Self::Usual => match TcpListener::bind(USUAL) {
                Ok(listener) => (listener, false),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    let free = SocketAddr::new(USUAL.ip(), 0);
                    (TcpListener::bind(free).map_err(|error| refused(free, &error))?, true)
                }
                Err(error) => return Err(refused(USUAL, &error)),
            },
        };
        let at = listener.local_addr().map_err(failed)?;
        Ok(Some(Bound { listener, at, instead }))
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> ShopError {
    let advice = "say another with --listen (port 0 is one that is free), or --no-listen";
    ShopError::File(format!("cannot listen on {address}: {error}; {advice}").into())
}

fn failed(error: io::Error) -> ShopError {
    ShopError::File(format!("the network: {error}").into())
}

impl fmt::Display for Bound {
    /// As it is announced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page on http://{}/", self.at)?;
        if self.instead { write!(f, " ({USUAL} is taken)") } else { Ok(()) }
    }
}

impl Bound {
    /// Serves, until the runtime is shut down: then connections end without a word, so that clients come again to whoever listens next.
    pub(super) fn serve(self, service: &Arc<Service>) -> Result<Runtime, ShopError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(MOST_AT_ONCE)
            .thread_name("network")
            .enable_all()
            .build()
            .map_err(failed)?;
        let mut app = page::router().merge(wellspring_rpc::web::router(methods::hub(service)?));
        if self.at.ip().is_loopback() {
            app = app.layer(middleware::from_fn(of_this_machine));
        }
        self.listener.set_nonblocking(true).map_err(failed)?;
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(failed)?;
        drop(entered);
        // Answers are short, and waited for.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        runtime.spawn(axum::serve(listener, app).into_future());
        Ok(runtime)
    }
}

/// Refuses who calls this machine by a name of his own. A page of anybody's can have its name point here, and would be of the same origin then.
async fn of_this_machine(request: Request, next: Next) -> Response {
    if names_this_machine(request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "this server answers to localhost and addresses only\n").into_response()
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok() || bare.is_some_and(|name| name.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_localhost_with_a_port_or_without() {
        let admitted = |host: &'static str| names_this_machine(&HeaderMap::from_iter([(header::HOST, host.parse().expect("a value"))]));
        for host in ["127.0.0.1", "127.0.0.1:7070", "localhost", "LocalHost:1", "[::1]", "[::1]:7070"] {
            assert!(admitted(host), "{host}");
        }
        for host in ["", "example.org", "example.org:7070", "localhost.example.org", "127.0.0.1.example.org:7070", "::1", "[::1", "a:b"] {
            assert!(!admitted(host), "{host}");
        }
        assert!(!names_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn a_second_server_of_the_machine_takes_a_free_port_and_says_so() {
        let taken = Listen::At(SocketAddr::new(USUAL.ip(), 0)).bind().expect("bound").expect("a port");
        let refused = Listen::At(taken.at).bind().expect_err("taken").to_string();
        assert!(refused.contains(&taken.at.to_string()) && refused.contains("--listen") && refused.contains("--no-listen"), "{refused}");
        assert!(Listen::Nowhere.bind().expect("nothing").is_none());
        assert_eq!(taken.to_string(), format!("page on http://{}/", taken.at));
        let instead = Bound { instead: true, ..taken };
        assert!(instead.to_string().ends_with("/ (127.0.0.1:7070 is taken)"));
    }
}
