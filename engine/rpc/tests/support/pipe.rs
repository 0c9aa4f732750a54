//! A connection in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use wellspring_rpc::transport::{Close, FrameReader, FrameWriter, Incoming};
use wellspring_rpc::wire::{Format, Frame, FrameError, Head, Messages, System, WriteError, Writer};
use wellspring_rpc::{Hub, Visitor};

/// The server's half that frames come from.
pub struct PipeReader(mpsc::UnboundedReceiver<Incoming>);

/// The server's half that frames go to.
pub struct PipeWriter {
    frames: mpsc::UnboundedSender<Sent>,
    broken: Arc<AtomicBool>,
}

/// What the server has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Frame(Bytes),
    Close(u16, String),
}

impl FrameReader for PipeReader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        Ok(self.0.recv().await)
    }
}

impl FrameWriter for PipeWriter {
    async fn write(&mut self, frames: &[Bytes], _text: bool) -> io::Result<()> {
        // What is sent into a broken connection is lost, and nobody is told.
        if !self.broken.load(Ordering::SeqCst) {
            for frame in frames {
                self.frames.send(Sent::Frame(frame.clone())).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    async fn close(&mut self, close: Close<'_>) {
        let _ = self.frames.send(Sent::Close(close.code, close.reason.to_owned()));
    }
}

/// A client that says what it is told to.
pub struct Client {
    pub format: Format,
    to_server: Option<mpsc::UnboundedSender<Incoming>>,
    from_server: mpsc::UnboundedReceiver<Sent>,
    broken: Arc<AtomicBool>,
    serving: tokio::task::JoinHandle<()>,
    /// Messages that came and were not asked for yet.
    pub pool: Vec<Received>,
}

/// A message of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub call: System,
    pub id: u64,
    pub hash: Option<String>,
    pub arguments: Vec<u8>,
}

impl Client {
    pub fn connect(hub: &Hub, visitor: Visitor) -> Client {
        let (to_server, incoming) = mpsc::unbounded_channel();
        let (outgoing, from_server) = mpsc::unbounded_channel();
        let broken = Arc::new(AtomicBool::new(false));
        let (hub, format, writer) = (hub.clone(), visitor.format, PipeWriter { frames: outgoing, broken: broken.clone() });
        let serving = tokio::spawn(async move { hub.serve(visitor, PipeReader(incoming), writer).await });
        Client { format, to_server: Some(to_server), from_server, broken, serving, pool: Vec::new() }
    }

    pub fn send(&self, frame: impl Into<Bytes>) {
        let frame = match self.format.is_text() {
            true => Incoming::Text(frame.into()),
            false => Incoming::Binary(frame.into()),
        };
        self.send_as(frame);
    }

    pub fn send_as(&self, frame: Incoming) {
        // A server that has hung up does not hear it.
        let _ = self.to_server.as_ref().expect("connected").send(frame);
    }

    pub fn say(&self, head: &Head<'_>, write: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>) {
        let mut frame = Frame::new(self.format);
        let pushed: Result<(), FrameError> = frame.push(head, write);
        pushed.expect("written");
        self.send(frame.take());
    }

    /// Nothing that is sent from now on arrives, either way.
    pub async fn drop_connection(&mut self) {
        self.broken.store(true, Ordering::SeqCst);
        self.to_server = None;
        (&mut self.serving).await.expect("no panic");
    }

    /// Says good-bye, and waits until the server has heard it.
    pub async fn leave(mut self) {
        self.to_server = None;
        (&mut self.serving).await.expect("no panic");
    }

    /// The next thing the server says.
    pub async fn hear(&mut self) -> Sent {
        let heard = tokio::time::timeout(super::PATIENCE, self.from_server.recv()).await;
        heard.expect("the server says nothing").expect("the server is gone")
    }

    fn read(&mut self, frame: &Bytes) {
        for message in Messages::new(self.format, frame) {
            let message = message.expect("a message");
            let call = System::of(&message.method).expect("a system call");
            let hash = message.headers.get("#").map(str::to_owned);
            if call != System::KeepAlive {
                self.pool.push(Received { call, id: message.related_id, hash, arguments: message.arguments.to_vec() });
            }
        }
    }

    /// The first message that is such a one. Others stay.
    pub async fn expect(&mut self, what: &str, is: impl Fn(&Received) -> bool) -> Received {
        loop {
            if let Some(at) = self.pool.iter().position(&is) {
                return self.pool.remove(at);
            }
            let heard = tokio::time::timeout(super::PATIENCE, self.from_server.recv()).await;
            match heard {
                Ok(Some(Sent::Frame(frame))) => self.read(&frame),
                other => panic!("{what}: {other:?}, after {:?}", self.pool),
            }
        }
    }

    /// Whatever there is to be heard now.
    pub fn hear_all(&mut self) {
        while let Ok(Sent::Frame(frame)) = self.from_server.try_recv() {
            self.read(&frame);
        }
    }
}
