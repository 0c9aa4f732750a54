//! A way to a server that can be cut, closed, and made to lose what is sent on it.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// It lasts as long as the process.
pub(crate) struct Proxy {
    at: SocketAddr,
    way: Arc<Way>,
}

struct Way {
    to: Mutex<SocketAddr>,
    closed: AtomicBool,
    loses: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("its address");
        let way =
            Arc::new(Way { to: Mutex::new(to), closed: AtomicBool::new(false), loses: AtomicBool::new(false), streams: Mutex::default() });
        let serving = Arc::clone(&way);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serving.open(client);
            }
        });
        Self { at, way }
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }

    /// From now on connections lead to another place: a server that was started again has another port, since nobody would keep the old one for it.
    pub(crate) fn lead(&self, to: SocketAddr) {
        *self.way.to.lock().expect("a place") = to;
    }

    /// Ends every connection, and makes none until it is [opened](Proxy::open).
    pub(crate) fn cut(&self) {
        self.way.closed.store(true, Ordering::SeqCst);
        for stream in self.way.streams.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn open(&self) {
        self.way.loses.store(false, Ordering::SeqCst);
        self.way.closed.store(false, Ordering::SeqCst);
    }

    /// From now on nothing that clients send arrives.
    pub(crate) fn lose(&self) {
        self.way.loses.store(true, Ordering::SeqCst);
    }
}

impl Way {
    fn open(self: &Arc<Self>, client: TcpStream) {
        let mut streams = self.streams.lock().expect("streams");
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        let to = *self.to.lock().expect("a place");
        let Ok(server) = TcpStream::connect(to) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a stream");
        streams.extend([copy(&client), copy(&server)]);
        let (way, from, to) = (Arc::clone(self), copy(&client), copy(&server));
        thread::spawn(move || forward(from, to, || way.loses.load(Ordering::SeqCst)));
        thread::spawn(move || forward(server, client, || false));
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, loses: impl Fn() -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !loses() && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
