//! A way to a server that can be cut, whatever it is.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use wellspring_rpc::Visitor;
use wellspring_rpc::transport::{Close, Connector, FrameReader, FrameWriter, Incoming};

/// What cuts connections, and keeps new ones from being made. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    down: bool,
    cuts: u64,
    connections: u64,
}

impl Cut {
    /// One that lets everything pass.
    pub fn new() -> Cut {
        Cut::default()
    }

    /// Puts itself between a client and the way it takes.
    pub fn over<C: Connector>(&self, through: C) -> Cuttable<C> {
        Cuttable { through, cut: self.clone() }
    }

    /// Cuts all connections: what is under way is lost, and nobody says good-bye.
    pub fn now(&self) {
        self.0.send_modify(|state| state.cuts += 1);
    }

    /// From now on no connection can be made, and there is none; or they can again.
    pub fn set_down(&self, down: bool) {
        self.0.send_modify(|state| {
            state.down = down;
            state.cuts += u64::from(down);
        });
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.0.borrow().connections
    }

    /// Waits until so many connections were made.
    pub async fn has_connected(&self, times: u64) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(|state| state.connections >= times).await;
    }
}

/// A way that can be cut.
#[derive(Clone, Debug)]
pub struct Cuttable<C> {
    through: C,
    cut: Cut,
}

/// Of a connection that can be cut, the half that frames come from.
#[derive(Debug)]
pub struct CutReader<R> {
    through: R,
    since: Since,
}

/// Of a connection that can be cut, the half that frames go to.
#[derive(Debug)]
pub struct CutWriter<W> {
    through: W,
    since: Since,
}

/// Whether there was a cut since a connection was made.
#[derive(Clone, Debug)]
struct Since {
    state: watch::Receiver<State>,
    cuts: u64,
}

impl Since {
    fn is_cut(&self) -> bool {
        self.state.borrow().cuts != self.cuts
    }

    async fn cut(&mut self) {
        let cuts = self.cuts;
        // If nobody can cut any more, the client is gone.
        let _ = self.state.wait_for(|state| state.cuts != cuts).await;
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut")
}

impl<C: Connector> Connector for Cuttable<C> {
    type Reader = CutReader<C::Reader>;
    type Writer = CutWriter<C::Writer>;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Self::Reader, Self::Writer)> {
        let state = self.cut.0.subscribe();
        let State { down, cuts, .. } = *state.borrow();
        let mut since = Since { state, cuts };
        if down {
            return Err(broken());
        }
        let (reader, writer) = tokio::select! {
            biased;
            () = since.cut() => return Err(broken()),
            made = self.through.connect(visitor) => made?,
        };
        self.cut.0.send_modify(|state| state.connections += 1);
        Ok((CutReader { through: reader, since: since.clone() }, CutWriter { through: writer, since }))
    }
}

impl<R: FrameReader> FrameReader for CutReader<R> {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        tokio::select! {
            biased;
            () = self.since.cut() => Err(broken()),
            frame = self.through.read() => frame,
        }
    }
}

impl<W: FrameWriter> FrameWriter for CutWriter<W> {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        if self.since.is_cut() {
            return Err(broken());
        }
        self.through.write(frames, text).await
    }

    async fn close(&mut self, close: Close<'_>) {
        if !self.since.is_cut() {
            self.through.close(close).await;
        }
    }
}
