//! A connection that has come in: its seat, and whether it is to go.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::caps::Seat;
use crate::hub::{Hub, Visitor};
use crate::transport::{FrameReader, FrameWriter, Incoming};

/// Whether a listener stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    No,
    /// Whoever is connected is told.
    Soon,
    /// Nobody is.
    Now,
}

/// What every connection has from the moment it was accepted. The listener has ended when nobody has one of its any more.
#[derive(Clone, Debug)]
pub(crate) struct Entered {
    _seat: Arc<Seat>,
    /// Where it comes from, as far as that is known.
    pub(crate) from: Option<SocketAddr>,
    /// None of one that came in by an application's own listener.
    stop: Option<watch::Receiver<Stop>>,
}

impl Entered {
    /// By an application's listener.
    pub(crate) fn alone(seat: Seat, from: Option<SocketAddr>) -> Entered {
        Entered { _seat: Arc::new(seat), from, stop: None }
    }

    pub(super) fn by(seat: Seat, from: Option<SocketAddr>, stop: watch::Receiver<Stop>) -> Entered {
        Entered { _seat: Arc::new(seat), from, stop: Some(stop) }
    }

    /// Does it, unless the listener stops before it is done.
    pub(crate) async fn unless_stopped<T>(&self, it: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stop, Stop::Soon) => None,
            done = it => Some(done),
        }
    }

    /// Serves a visitor that was admitted until it leaves, or the listener stops.
    pub(crate) async fn serve<R: FrameReader, W: FrameWriter>(self, hub: &Hub, visitor: Visitor, reader: R, writer: W) {
        let mut stop = self.stop.clone();
        let reader = UntilStopped { reader, stop: self.stop.clone() };
        tokio::select! {
            biased;
            () = stopped(&mut stop, Stop::Now) => {}
            () = hub.serve(visitor, reader, writer) => {}
        }
    }
}

/// Waits until the listener stops so far. A listener that is gone has stopped.
async fn stopped(stop: &mut Option<watch::Receiver<Stop>>, far: Stop) {
    match stop {
        // An error is that it is gone.
        Some(stop) => _ = stop.wait_for(|stop| *stop >= far).await,
        None => std::future::pending().await,
    }
}

/// A reader whose end is the listener's, too: then the connection says good-bye.
struct UntilStopped<R> {
    reader: R,
    stop: Option<watch::Receiver<Stop>>,
}

impl<R: FrameReader> FrameReader for UntilStopped<R> {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        tokio::select! {
            biased;
            () = stopped(&mut self.stop, Stop::Soon) => Ok(None),
            frame = self.reader.read() => frame,
        }
    }

    fn heard(&self) -> u64 {
        self.reader.heard()
    }
}
