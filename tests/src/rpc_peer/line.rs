//! A connection, as whoever decides what comes by it sees it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use wellspring_rpc::transport::{Close, FrameReader, FrameWriter, Incoming};
use wellspring_rpc::wire::{Arguments, Format, Guid, Handshake, Messages, System, limits};

/// What was heard of a peer, on all its connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Known>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Who it is.
    pub(super) peer: Option<Guid>,
    pub(super) secret: Option<String>,
    /// Bytes that it has said.
    pub(super) bytes: usize,
}

impl Heard {
    pub(super) fn known(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whatever it says can be read, and is no larger than it may be.
    fn hear(&self, format: Format, frame: &[u8]) {
        assert!(frame.len() <= limits::FRAME, "a frame of {} bytes", frame.len());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.bytes += frame.len();
        for message in Messages::new(format, frame) {
            let message = message.expect("what goes out can be read");
            if System::of(&message.method) == Some(System::Handshake) {
                let hello: Handshake<'_> = Arguments::new(format, message.arguments).read().expect("a handshake");
                known.peer = Some(hello.peer);
                known.secret = hello.secret.map(|secret| secret.into_owned()).or(known.secret.take());
            }
        }
    }
}

/// The other end of one.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) format: Format,
    pub(super) heard: Heard,
    to: mpsc::UnboundedSender<Incoming>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Nothing is taken of what the peer says.
    stalled: bool,
    broken: bool,
}

/// The peer's half.
#[derive(Debug)]
pub(super) struct LineReader {
    from: mpsc::UnboundedReceiver<Incoming>,
    state: watch::Receiver<State>,
}

/// The peer's half.
#[derive(Debug)]
pub(super) struct LineWriter {
    format: Format,
    heard: Heard,
    state: watch::Receiver<State>,
}

impl Line {
    pub(super) fn new(format: Format, heard: &Heard) -> (Line, LineReader, LineWriter) {
        let (to, from) = mpsc::unbounded_channel();
        let (state, watched) = watch::channel(State::default());
        let writer = LineWriter { format, heard: heard.clone(), state: watched.clone() };
        (Line { format, heard: heard.clone(), to, state }, LineReader { from, state: watched }, writer)
    }

    pub(super) fn send(&self, frame: Vec<u8>, as_it_is: bool) {
        let frame = match (as_it_is, self.format.is_text()) {
            (true, _) => Incoming::Frame(frame.into()),
            (false, true) => Incoming::Text(frame.into()),
            (false, false) => Incoming::Binary(frame.into()),
        };
        self.send_as(frame);
    }

    pub(super) fn send_as(&self, frame: Incoming) {
        // A peer that has hung up does not hear it.
        let _ = self.to.send(frame);
    }

    pub(super) fn stall(&self, stalled: bool) {
        self.state.send_modify(|state| state.stalled = stalled);
    }

    pub(super) fn cut(&self) {
        self.state.send_modify(|state| state.broken = true);
    }

    /// Whether the peer has let go of it.
    pub(super) fn is_over(&self) -> bool {
        self.state.is_closed()
    }
}

impl FrameReader for LineReader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        tokio::select! {
            biased;
            // One that nobody has the other end of any more ends by itself.
            Ok(_) = self.state.wait_for(|state| state.broken) => Err(io::ErrorKind::ConnectionReset.into()),
            frame = self.from.recv() => Ok(frame),
        }
    }
}

impl FrameWriter for LineWriter {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        assert_eq!(text, self.format.is_text());
        let state = self.state.wait_for(|state| state.broken || !state.stalled).await.map(|state| *state);
        if state.is_ok_and(|state| state.broken) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for frame in frames {
            self.heard.hear(self.format, frame);
        }
        Ok(())
    }

    async fn close(&mut self, _: Close<'_>) {
        let _ = self.state.wait_for(|state| state.broken || !state.stalled).await;
    }
}
