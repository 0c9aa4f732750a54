//! `wellspring-shop serve`: one server of several on one database.
//!
//! The conversations are plain threads, because what they ask is answered by plain functions over blocking connections; only the
//! operation log and the network have asynchronous runtimes.

mod command;
mod desk;
mod methods;
mod moment;
mod network;
mod page;
mod protocol;
mod reads;
mod session;

use std::collections::HashSet;
use std::io::{BufReader, IsTerminal, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::data::Data;
use crate::database::{Address, Database};
use crate::error::ShopError;
use crate::figure::Figure;
use crate::shop::Shop;
use crate::watch::watch;

use desk::Desk;
use reads::Reads;
use session::Session;

pub use network::Listen;
pub(crate) use protocol::MOST_READS;

/// What a server says first, before the address of its TCP port.
pub(crate) const LISTENING: &str = "listening on ";

/// Each conversation is a thread.
const MOST_CONVERSATIONS: usize = 256;

/// How long after an error until the next connection is accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// How to be a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The database that all servers share.
    pub address: Address,
    /// What to fill a new one with; the fixture when not said.
    pub data: Option<Data>,
    /// The TCP port of 127.0.0.1; 0 for one that is free.
    pub port: u16,
    /// Where it can be looked at, and called over the network.
    pub listen: Listen,
    /// Figures of which every change is printed.
    pub watch: Vec<Figure>,
}

/// A running server.
#[derive(Debug)]
struct Service {
    shop: Shop,
    desk: Box<dyn Desk>,
    reads: Reads,
    started: Instant,
    /// What was asked for by name, and so may be cached although it is of no row. Grows no further than the cache does.
    asked: Mutex<HashSet<Figure>>,
    conversations: AtomicUsize,
}

impl Service {
    /// A figure that fails to be added by one who panics is not in it, and the set is whole.
    fn asked(&self) -> MutexGuard<'_, HashSet<Figure>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serve {
    /// Serves until standard input ends.
    ///
    /// # Errors
    /// The database, its operation log or the port cannot be opened. Once it runs, what fails is told to whoever has asked for it.
    pub fn run(&self) -> Result<(), ShopError> {
        let bound = self.listen.bind()?;
        let shop = Shop::new(Database::open_at(&self.address, self.data.as_ref())?)?;
        let desk = desk::open(&self.address, &shop)?;
        let service = Arc::new(Service {
            reads: Reads::new(&shop)?,
            shop,
            desk,
            started: Instant::now(),
            asked: Mutex::new(self.watch.iter().cloned().collect()),
            conversations: AtomicUsize::new(0),
        });
        let failed = |error: std::io::Error| ShopError::File(format!("port {}: {error}", self.port).into());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        let page = bound.as_ref().map(|bound| format!("{bound}\n")).unwrap_or_default();
        let network = bound.map(|bound| bound.serve(&service)).transpose()?;
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        crate::say(&format!("{LISTENING}{at}\n{page}{}", if terminal { "help tells what can be asked\n" } else { "" }))?;

        let accepting = Arc::clone(&service);
        thread::spawn(move || accept(&listener, &accepting));
        if !self.watch.is_empty() {
            let (watching, figures) = (Arc::clone(&service), self.watch.clone());
            thread::spawn(move || watch_for_ever(&watching, &figures, terminal));
        }
        let conversed = Session { service: &service, port: false, prompt: terminal }.converse(std::io::stdin().lock(), std::io::stdout());
        if let Some(network) = network {
            network.shutdown_background();
        }
        service.desk.close();
        conversed
    }
}

/// Prints changes until nobody reads them.
fn watch_for_ever(service: &Service, figures: &[Figure], terminal: bool) {
    let tell = |line: &str| match terminal {
        // Over the prompt, and a new one after it.
        true => crate::say(&format!("\r{line}\n{}", session::PROMPT)),
        false => crate::say(&format!("{line}\n")),
    };
    if let Err(error) = watch(&service.shop, figures, service.started, &AtomicBool::new(false), tell) {
        eprintln!("wellspring-shop: --watch ends: {error}");
    }
}

/// Holds a conversation with each who connects, for as long as the process runs.
fn accept(listener: &TcpListener, service: &Arc<Service>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // One was gone before the connection was made; or there are too many open files, and then the next try fails at once too.
            thread::sleep(PAUSE);
            continue;
        };
        let Some(place) = Place::take(service) else {
            let _ = writeln!(&stream, "error: {MOST_CONVERSATIONS} conversations are all there may be");
            continue;
        };
        // Without a thread the connection is dropped, and so its place is free again.
        let spawned = thread::Builder::new().name("conversation".to_owned()).spawn(move || {
            // Dropped in this order, so that the place is free before the other side sees the end.
            let (place, stream) = &(place, stream);
            // Whoever hangs up ends the conversation and nothing else.
            let _ = talk(&place.0, stream);
        });
        if spawned.is_err() {
            thread::sleep(PAUSE);
        }
    }
}

/// A place among the conversations there may be. It is free again when this is dropped, also by a panic.
struct Place(Arc<Service>);

impl Place {
    /// None if all are taken. Only the one who accepts takes any, so the count is never more than there may be.
    fn take(service: &Arc<Service>) -> Option<Self> {
        // Relaxed (both): a count that guards no data.
        let free = service.conversations.load(Ordering::Relaxed) < MOST_CONVERSATIONS;
        free.then(|| {
            service.conversations.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(service))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.conversations.fetch_sub(1, Ordering::Relaxed);
    }
}

fn talk(service: &Service, stream: &TcpStream) -> Result<(), ShopError> {
    // Answers are short, and waited for.
    let _ = stream.set_nodelay(true);
    Session { service, port: true, prompt: false }.converse(BufReader::new(stream), stream)
}
