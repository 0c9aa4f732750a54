//! A stand-alone listener: a hub without an application around it.

mod accept;
mod entered;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use self::accept::{Door, Entrance};
pub(crate) use self::entered::Entered;
use self::entered::Stop;
use crate::hub::Hub;
use crate::socket::MemoryAddress;
use crate::web::{self, Origins};

/// Where a hub is listened for, and what is spoken there: [frames over sockets](crate::socket) unless [`Listener::web`] says otherwise.
///
/// ```no_run
/// # async fn run(hub: wellspring_rpc::Hub, interrupted: impl Future<Output = ()>) -> std::io::Result<()> {
/// use wellspring_rpc::Listener;
/// use wellspring_rpc::web::Origins;
///
/// let pages = Listener::tcp("0.0.0.0:7070").await?.web(Origins::Same).serve(&hub);
/// let servers = Listener::unix("/run/shop/rpc.sock").await?.backend().serve(&hub);
/// interrupted.await;
/// pages.shutdown().await;
/// servers.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// Whoever connects has [`Timings::handshake`](crate::Timings::handshake) for TLS and for saying who it is, then as long for the protocol's own
/// handshake, and [caps](crate::Caps) are kept to.
pub struct Listener {
    entrance: Entrance,
    backend: bool,
    web: Option<Origins>,
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { entrance, backend, web, .. } = self;
        f.debug_struct("Listener").field("at", entrance).field("backend", backend).field("web", web).finish_non_exhaustive()
    }
}

impl Listener {
    fn at(entrance: Entrance) -> Listener {
        Listener {
            entrance,
            backend: false,
            web: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// At a TCP port.
    ///
    /// # Errors
    /// If the address cannot be listened at.
    pub async fn tcp(address: impl tokio::net::ToSocketAddrs) -> io::Result<Listener> {
        Ok(Listener::at(Entrance::Tcp(TcpListener::bind(address).await?)))
    }

    /// At a Unix socket. A file that was left there by a server that is gone is taken over; any other is not touched. Its permissions are those of its
    /// directory and of the process's mask. It is removed at the end.
    ///
    /// # Errors
    /// If the path cannot be listened at, or somebody listens there.
    #[cfg(unix)]
    pub async fn unix(path: impl Into<PathBuf>) -> io::Result<Listener> {
        Ok(Listener::at(Entrance::Unix(crate::socket::UnixEntrance::bind(path.into()).await?)))
    }

    /// Within the process, for tests: with the way to it.
    pub fn memory() -> (MemoryAddress, Listener) {
        let (address, at) = MemoryAddress::new();
        (address, Listener::at(Entrance::Memory(at)))
    }

    /// WebSockets are spoken: at `/rpc/ws`, or at `/backend/rpc/ws` by a listener for [backends](Listener::backend), whatever origins are said. For more
    /// than that there is the hub's [route](crate::web::router).
    #[must_use]
    pub fn web(mut self, origins: Origins) -> Listener {
        self.web = Some(origins);
        self
    }

    /// Whoever comes in here may call [backend services](crate::HubBuilder::backend_service). Nobody else may be able to come in here: that is for the
    /// network, the permissions of a socket, or certificates of clients to see to.
    #[must_use]
    pub fn backend(mut self) -> Listener {
        self.backend = true;
        self
    }

    /// With TLS. See [`tls`](crate::tls) for configurations.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: Arc<tokio_rustls::rustls::ServerConfig>) -> Listener {
        self.tls = Some(config.into());
        self
    }

    /// The port that was bound, if it is one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.entrance {
            Entrance::Tcp(listener) => listener.local_addr().ok(),
            _ => None,
        }
    }

    /// Lets whoever comes into the hub, until [shutdown](Serving::shutdown).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn serve(self, hub: &Hub) -> Serving {
        let local = self.local_addr();
        let router: Option<Router> = self.web.map(|origins| match self.backend {
            true => web::backend_router(hub.clone()),
            false => web::router_for(hub.clone(), origins),
        });
        let door = Arc::new(Door {
            hub: hub.clone(),
            backend: self.backend,
            router,
            #[cfg(feature = "tls")]
            tls: self.tls,
        });
        let (stop, stopped) = watch::channel(Stop::No);
        tokio::spawn(accept::accept(self.entrance, door, stopped));
        Serving { stop, hub: hub.clone(), local }
    }
}

/// A listener that is served. When it is dropped, all its connections end at once; [shutdown](Serving::shutdown) says good-bye.
#[derive(Debug)]
#[must_use = "dropping it ends all its connections"]
pub struct Serving {
    stop: watch::Sender<Stop>,
    hub: Hub,
    local: Option<SocketAddr>,
}

impl Serving {
    /// The port that was bound, if it is one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Takes no more connections, ends those that there are, and waits until they have ended: about [`Timings::close`](crate::Timings::close), twice
    /// that if somebody does not let itself be told.
    ///
    /// Calls under way are not answered: a client keeps them, and asks whoever it is connected to next. Dropping the future ends all at once.
    pub fn shutdown(self) -> impl Future<Output = ()> + Send {
        // From now on, not from when it is awaited: several listeners can be stopped together.
        self.stop.send_replace(Stop::Soon);
        async move {
            if timeout(2 * self.hub.timings().close, self.stop.closed()).await.is_err() {
                self.stop.send_replace(Stop::Now);
                self.stop.closed().await;
            }
        }
    }
}
