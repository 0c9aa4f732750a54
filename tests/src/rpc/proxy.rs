//! A way over TCP with a weather: connections on it are late, slow, in pieces, half dead, and cut, and what is said of one end of them reaches the other
//! long after, when there is another connection already.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wellspring_rpc::web::WebAddress;

/// A proxy. What happens to a connection follows from the seed and its number. It ends, with all connections, when this is dropped.
pub struct Proxy {
    at: SocketAddr,
    way: Arc<Way>,
    task: JoinHandle<()>,
}

struct Way {
    /// The port of this machine's where it leads.
    to: AtomicU16,
    seed: u64,
    made: AtomicU64,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Whether there is a weather at all.
    stormy: bool,
    cuts: u64,
    over: bool,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("at", &self.at).field("state", &*self.way.state.borrow()).finish_non_exhaustive()
    }
}

impl Proxy {
    /// One to a port of this machine's, with a storm on it.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub async fn to(port: u16, seed: u64) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let state = watch::Sender::new(State { stormy: true, cuts: 0, over: false });
        let way = Arc::new(Way { to: AtomicU16::new(port), seed, made: AtomicU64::new(0), state });
        let (at, serving) = (listener.local_addr()?, way.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = serving.made.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serving.clone().connection(client, Rng::with_seed(serving.seed.wrapping_add(number))));
            }
        });
        Ok(Proxy { at, way, task })
    }

    /// Where it is, as a client of a server that speaks through it wants it.
    pub fn address(&self) -> WebAddress {
        WebAddress::new(format!("ws://{}/rpc/ws", self.at)).expect("an address of a WebSocket")
    }

    /// Connections lead to another port from now on, and those there are are cut: a server that is started again has another one, since nobody would keep
    /// the old one for it.
    pub fn lead(&self, port: u16) {
        self.way.to.store(port, Ordering::SeqCst);
        self.cut();
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.way.state.send_modify(|state| state.cuts += 1);
    }

    /// From now on everything that comes is passed on as it comes, and connections that were to end have ended.
    pub fn calm(&self) {
        self.way.state.send_modify(|state| state.stormy = false);
    }

    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        self.way.made.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.way.state.send_modify(|state| state.over = true);
    }
}

impl Way {
    async fn connection(self: Arc<Way>, client: TcpStream, mut random: Rng) {
        let mut state = self.state.subscribe();
        let seen = *state.borrow();
        if seen.stormy {
            // So that they come in another order than they were made in.
            pause(&mut random, 0..40).await;
            if random.u8(..10) == 0 {
                return;
            }
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to.load(Ordering::SeqCst))).await else { return };
        for stream in [&client, &server] {
            // Pieces would be put together again.
            let _ = stream.set_nodelay(true);
            if random.bool() {
                // The end of half of them is a reset.
                let _ = stream.set_zero_linger();
            }
        }
        let life = if seen.stormy { Duration::from_millis(random.u64(5..1_200)) } else { Duration::MAX };
        let mut weather = || seen.stormy.then(|| random.fork());
        let (up, down) = (forward(&client, &server, weather()), forward(&server, &client, weather()));
        let mut cut = async || {
            // Nobody says so any more when the proxy is gone.
            let _ = state.wait_for(|state| state.over || state.cuts != seen.cuts || state.stormy != seen.stormy).await;
        };
        tokio::select! {
            // One direction that has ended is the end of the other: nobody speaks to who has hung up.
            _ = up => return,
            _ = down => return,
            () = cut() => {}
            () = tokio::time::sleep(life) => {}
        }
        match random.u8(..4) {
            // Both ends hear of it at once.
            0 => {}
            // The client hears of it, and the server long after: it may have the client's next connection by then.
            1 => {
                drop(client);
                pause(&mut random, 20..300).await;
            }
            // The other way round: the client takes a dead connection for a living one.
            2 => {
                drop(server);
                pause(&mut random, 20..300).await;
            }
            // For a while nothing that is said reaches anybody, and it is lost.
            _ => {
                tokio::select! {
                    _ = swallow(&client) => {}
                    _ = swallow(&server) => {}
                    () = pause(&mut random, 20..300) => {}
                }
            }
        }
    }
}

async fn pause(random: &mut Rng, milliseconds: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.u64(milliseconds))).await;
}

async fn swallow(from: &TcpStream) -> io::Result<()> {
    let mut bytes = [0; 4_096];
    while read(from, &mut bytes).await? > 0 {}
    Ok(())
}

/// What comes from one end goes to the other, until either has hung up: late and in pieces, if there is a weather.
async fn forward(from: &TcpStream, to: &TcpStream, mut weather: Option<Rng>) -> io::Result<()> {
    let mut bytes = [0; 8_192];
    loop {
        let most = weather.as_mut().map_or(bytes.len(), |random| random.usize(1..=bytes.len()));
        let count = read(from, &mut bytes[..most]).await?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let piece = match &mut weather {
                Some(random) => {
                    if random.u8(..8) == 0 {
                        pause(random, 0..6).await;
                    }
                    // Small ones are most likely to end within something.
                    if random.bool() { random.usize(1..=rest.len()) } else { random.usize(1..=rest.len().min(16)) }
                }
                None => rest.len(),
            };
            to.writable().await?;
            match to.try_write(&rest[..piece]) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn read(from: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}
