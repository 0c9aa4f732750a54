//! Who comes in.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tower_service::Service;

use super::entered::{Entered, Stop};
use crate::hub::Hub;
use crate::socket;

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Entrance {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(socket::UnixEntrance),
    Memory(mpsc::Receiver<DuplexStream>),
}

/// A connection as it has come.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    Memory(DuplexStream),
}

/// What connections come out of.
pub(super) trait Accept: Send + 'static {
    /// The next one, and the address that it comes from; none if there can be no more.
    fn accept(&mut self) -> impl Future<Output = io::Result<Option<(Stream, Option<SocketAddr>)>>> + Send;
}

impl Accept for Entrance {
    async fn accept(&mut self) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
        match self {
            Entrance::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok(Some((Stream::Tcp(stream), Some(from))))
            }
            #[cfg(unix)]
            Entrance::Unix(entrance) => Ok(Some((Stream::Unix(entrance.accept().await?), None))),
            Entrance::Memory(streams) => Ok(streams.recv().await.map(|stream| (Stream::Memory(stream), None))),
        }
    }
}

/// What a connection comes in by.
pub(super) struct Door {
    pub(super) hub: Hub,
    pub(super) backend: bool,
    /// What is done for WebSockets, where they are spoken.
    pub(super) router: Option<Router>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<tokio_rustls::TlsAcceptor>,
}

/// How long to wait when no connection can be accepted, for want of descriptors mostly: at first, and after that again and again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Lets in whoever comes, until it is to stop.
pub(super) async fn accept(mut entrance: impl Accept, door: Arc<Door>, mut stopped: watch::Receiver<Stop>) {
    let stop = stopped.clone();
    let accepting = async {
        let mut pause = PAUSE.0;
        loop {
            match entrance.accept().await {
                Ok(Some((stream, from))) => {
                    pause = PAUSE.0;
                    match door.hub.seat(from.map(|from| from.ip())) {
                        Some(seat) => _ = tokio::spawn(door.clone().let_in(stream, Entered::by(seat, from, stop.clone()))),
                        None => tracing::debug!(target: "wellspring::rpc", "there is no room for another connection: turned away"),
                    }
                }
                Ok(None) => return,
                Err(error) if is_of_one(&error) => {}
                // It would say so again at once, and what is missing is given back by connections that end.
                Err(error) => {
                    tracing::warn!(target: "wellspring::rpc", %error, "no connection can be accepted");
                    sleep(pause).await;
                    pause = (2 * pause).min(PAUSE.1);
                }
            }
        }
    };
    tokio::select! {
        biased;
        // An error is that nobody waits for its end any more.
        _ = stopped.wait_for(|stop| *stop != Stop::No) => {}
        () = accepting => {}
    }
    // Before `stopped`, as whoever waits for the end of that expects that nobody listens then.
    drop(entrance);
}

/// Whether it is of the one connection that was to be accepted.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A stream that can be read and written at once.
trait Halves: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    fn halves(self) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static);
}

impl Halves for TcpStream {
    fn halves(self) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static) {
        self.into_split()
    }
}

#[cfg(unix)]
impl Halves for tokio::net::UnixStream {
    fn halves(self) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static) {
        self.into_split()
    }
}

impl Halves for DuplexStream {
    fn halves(self) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static) {
        tokio::io::split(self)
    }
}

#[cfg(feature = "tls")]
impl<S: Halves> Halves for tokio_rustls::server::TlsStream<S> {
    fn halves(self) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static) {
        tokio::io::split(self)
    }
}

impl Door {
    async fn let_in(self: Arc<Door>, stream: Stream, entered: Entered) {
        match stream {
            Stream::Tcp(stream) => {
                // It is only slower.
                let _ = stream.set_nodelay(true);
                self.secure(stream, entered).await;
            }
            #[cfg(unix)]
            Stream::Unix(stream) => self.secure(stream, entered).await,
            Stream::Memory(stream) => self.secure(stream, entered).await,
        }
    }

    // The branches that few take are boxed: every connection has room for all of them.
    async fn secure(&self, stream: impl Halves, entered: Entered) {
        let deadline = Instant::now() + self.hub.timings().handshake;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let accepted = Box::pin(entered.unless_stopped(timeout_at(deadline, tls.accept(stream)))).await;
            match accepted {
                Some(Ok(Ok(stream))) => Box::pin(self.speak(stream, deadline, entered)).await,
                Some(Ok(Err(error))) => tracing::debug!(target: "wellspring::rpc", %error, "TLS was not agreed upon"),
                Some(Err(_)) | None => {}
            }
            return;
        }
        self.speak(stream, deadline, entered).await;
    }

    async fn speak(&self, stream: impl Halves, deadline: Instant, entered: Entered) {
        match &self.router {
            None => {
                let (reader, writer) = stream.halves();
                socket::serve(&self.hub, reader, writer, self.backend, deadline, entered).await;
            }
            Some(router) => Box::pin(self.http(stream, router.clone(), deadline, entered)).await,
        }
    }

    /// Until a WebSocket was made of it, which has the seat from then on.
    async fn http(&self, stream: impl Halves, router: Router, deadline: Instant, entered: Entered) {
        let handshake = self.hub.timings().handshake;
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(handshake);
        let connection = http.serve_connection(TokioIo::new(stream), Routed { router, entered: entered.clone() });
        // Finding out who asks may take a handshake more. Whoever asks for something else again and again, or does not read what it is answered, has no
        // longer than that either. What is wrong with it, hyper has told whoever has asked.
        let _ = entered.unless_stopped(timeout_at(deadline + handshake, connection.with_upgrades())).await;
    }
}

/// The router, as hyper calls it: with what has come in.
struct Routed {
    router: Router,
    entered: Entered,
}

impl hyper::service::Service<Request<Incoming>> for Routed {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<Body>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.entered.clone());
        // It is ready at all times.
        self.router.clone().call(request.map(Body::new))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::caps::Caps;
    use crate::web::{self, Origins};

    fn door(hub: Hub, router: Option<Router>) -> Arc<Door> {
        Arc::new(Door {
            hub,
            backend: false,
            router,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// Has no descriptors for a while, and then a connection.
    struct Short {
        asked: Arc<AtomicUsize>,
        until: Instant,
        there: Option<DuplexStream>,
    }

    impl Accept for Short {
        async fn accept(&mut self) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            if Instant::now() < self.until {
                // Every other one is of a client that has left already.
                let kind = if asked.is_multiple_of(2) { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::Other };
                return Err(kind.into());
            }
            match self.there.take() {
                Some(stream) => Ok(Some((Stream::Memory(stream), None))),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_descriptors_it_waits_and_goes_on_when_there_are_some() {
        let (mut near, far) = tokio::io::duplex(1_024);
        let asked = Arc::<AtomicUsize>::default();
        let entrance = Short { asked: asked.clone(), until: Instant::now() + Duration::from_secs(10), there: Some(far) };
        let (stop, stopped) = watch::channel(Stop::No);
        let accepting = tokio::spawn(accept(entrance, door(Hub::builder().build(), None), stopped));
        let mut code = [0; 6];
        near.write_all(b"nonsense").await.expect("written");
        near.read_exact(&mut code).await.expect("refused");
        assert_eq!((code[0], u16::from_be_bytes([code[4], code[5]])), (4, 1002));
        let asked = asked.load(Ordering::SeqCst);
        assert!((10..50).contains(&asked), "{asked} times in ten seconds");
        stop.send_replace(Stop::Soon);
        accepting.await.expect("no panic");
    }

    /// A hub with one seat, and a client that has it and is to ask for a WebSocket.
    fn web() -> (Hub, DuplexStream, watch::Sender<Stop>) {
        let (near, far) = tokio::io::duplex(1_024);
        let caps = Caps { connections: 1, ..Caps::default() };
        let hub = Hub::builder().caps(caps).build();
        let entrance = Short { asked: Arc::default(), until: Instant::now(), there: Some(far) };
        let router = web::router_for(hub.clone(), Origins::Any);
        let (stop, stopped) = watch::channel(Stop::No);
        tokio::spawn(accept(entrance, door(hub.clone(), Some(router)), stopped));
        (hub, near, stop)
    }

    const NOTHING: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_for_no_websocket_again_and_again_gives_its_seat_back() {
        let (hub, mut near, _stop) = web();
        let asking = async {
            let mut answer = [0; 1_024];
            // Each in time for a head.
            while near.write_all(NOTHING).await.is_ok() && near.read(&mut answer).await.is_ok_and(|read| read > 0) {
                assert!(answer.starts_with(b"HTTP/1.1 404"));
                assert!(hub.seat(None).is_none());
                sleep(Duration::from_secs(9)).await;
            }
        };
        timeout(Duration::from_secs(30), asking).await.expect("it may ask for ever");
        assert!(hub.seat(None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_and_does_not_read_gives_its_seat_back() {
        let (hub, mut near, _stop) = web();
        let asking = async { while near.write_all(NOTHING).await.is_ok() {} };
        timeout(Duration::from_secs(30), asking).await.expect("it may wait for ever");
        assert!(hub.seat(None).is_some());
    }

    /// Where nobody comes. Says when it is closed whether somebody still waits for that.
    struct Quiet {
        stop: watch::Sender<Stop>,
        in_time: Arc<AtomicBool>,
    }

    impl Accept for Quiet {
        async fn accept(&mut self) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
            std::future::pending().await
        }
    }

    impl Drop for Quiet {
        fn drop(&mut self) {
            self.in_time.store(!self.stop.is_closed(), Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn nobody_listens_any_more_when_a_listener_says_that_it_has_ended() {
        let (stop, stopped) = watch::channel(Stop::No);
        let in_time = Arc::<AtomicBool>::default();
        let entrance = Quiet { stop: stop.clone(), in_time: in_time.clone() };
        let accepting = tokio::spawn(accept(entrance, door(Hub::builder().build(), None), stopped));
        stop.send_replace(Stop::Soon);
        accepting.await.expect("no panic");
        assert!(in_time.load(Ordering::SeqCst));
    }
}
