//! A server that says what it is told to.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;
use wellspring_rpc::Visitor;
use wellspring_rpc::transport::{Close, Connector, FrameReader, FrameWriter, Incoming};
use wellspring_rpc::wire::{ErrorInfo, Format, Frame, Head, System, WriteError, Writer};

use super::PATIENCE;
use super::greeted::hello;
use super::pipe::Sent;
use super::recorded::{Said, said};

/// A way to a test that plays the server.
#[derive(Clone, Debug)]
pub struct Script(mpsc::UnboundedSender<Link>);

/// Who connects to it, one after the other.
#[derive(Debug)]
pub struct Links(mpsc::UnboundedReceiver<Link>);

/// A connection, as the server has it.
#[derive(Debug)]
pub struct Link {
    pub visitor: Visitor,
    to_client: Option<mpsc::UnboundedSender<Incoming>>,
    from_client: mpsc::UnboundedReceiver<Sent>,
    /// Messages that came and were not asked for yet.
    pub pool: Vec<Said>,
    /// Whose hashes may come.
    pub names: Vec<String>,
}

/// The client's half.
pub struct ScriptReader(mpsc::UnboundedReceiver<Incoming>);

/// The client's half.
pub struct ScriptWriter(mpsc::UnboundedSender<Sent>);

impl Script {
    pub fn new() -> (Script, Links) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Script(sender), Links(receiver))
    }
}

impl Connector for Script {
    type Reader = ScriptReader;
    type Writer = ScriptWriter;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(ScriptReader, ScriptWriter)> {
        let (to_client, frames) = mpsc::unbounded_channel();
        let (to_server, from_client) = mpsc::unbounded_channel();
        let link = Link { visitor: visitor.clone(), to_client: Some(to_client), from_client, pool: Vec::new(), names: Vec::new() };
        self.0.send(link).map_err(io::Error::other)?;
        Ok((ScriptReader(frames), ScriptWriter(to_server)))
    }
}

impl FrameReader for ScriptReader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        Ok(self.0.recv().await)
    }
}

impl FrameWriter for ScriptWriter {
    async fn write(&mut self, frames: &[Bytes], _text: bool) -> io::Result<()> {
        frames.iter().try_for_each(|frame| self.0.send(Sent::Frame(frame.clone()))).map_err(io::Error::other)
    }

    async fn close(&mut self, close: Close<'_>) {
        // A test that has dropped its end does not hear it.
        let _ = self.0.send(Sent::Close(close.code, close.reason.to_owned()));
    }
}

impl Links {
    /// The next one.
    pub async fn next(&mut self) -> Link {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("nobody connects").expect("the client lives")
    }
}

impl Link {
    fn format(&self) -> Format {
        self.visitor.format
    }

    /// Says a frame, as it is.
    pub fn send(&self, frame: Vec<u8>) {
        let text = self.format().is_text();
        self.send_as(if text { Incoming::Text(frame.into()) } else { Incoming::Binary(frame.into()) });
    }

    pub fn send_as(&self, frame: Incoming) {
        // A client that has hung up does not hear it.
        let _ = self.to_client.as_ref().expect("connected").send(frame);
    }

    /// Says one message.
    pub fn say(&self, head: &Head<'_>, write: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>) {
        let mut frame = Frame::new(self.format());
        frame.push(head, write).expect("written");
        self.send(frame.take());
    }

    /// Says who it is, by its number, and hears who the client is.
    pub async fn greet(&mut self, peer: u128, index: i32) -> Said {
        self.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(peer, index)));
        self.system(System::Handshake).await
    }

    /// The client hears nothing any more, and is told so.
    pub fn cut(&mut self) {
        self.to_client = None;
    }

    pub fn is_cut(&self) -> bool {
        self.to_client.is_none()
    }

    fn read(&mut self, frame: &Bytes) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.pool.extend(said(self.format(), frame, &names));
    }

    /// The first message that is such a one. Others stay.
    pub async fn expect(&mut self, what: &str, is: impl Fn(&Said) -> bool) -> Said {
        loop {
            if let Some(at) = self.pool.iter().position(&is) {
                return self.pool.remove(at);
            }
            match tokio::time::timeout(PATIENCE, self.from_client.recv()).await {
                Ok(Some(Sent::Frame(frame))) => self.read(&frame),
                other => panic!("{what}: {other:?}, after {:?}", self.pool),
            }
        }
    }

    /// The next message, however long that takes; none when the client has hung up.
    pub async fn next(&mut self) -> Option<Said> {
        while self.pool.is_empty() {
            match self.from_client.recv().await? {
                Sent::Frame(frame) => self.read(&frame),
                Sent::Close(..) => return None,
            }
        }
        Some(self.pool.remove(0))
    }

    /// The next of such system calls.
    pub async fn system(&mut self, call: System) -> Said {
        self.expect(call.name(), |said| said.system() == Some(call)).await
    }

    /// The next call of a method.
    pub async fn call(&mut self, name: &str) -> Said {
        self.expect(name, |said| said.name == name).await
    }

    /// Gives up the next calls of a method, as a .NET server does that shuts down.
    pub async fn gives_up(&mut self, name: &str, times: usize) -> Vec<Said> {
        let mut calls = Vec::new();
        for _ in 0..times {
            let call = self.call(name).await;
            let failure = ErrorInfo::new(ErrorInfo::CANCELED, "A task was canceled.");
            self.say(&Head::system(System::Error, call.id), |out| out.value(&failure));
            calls.push(call);
        }
        calls
    }

    /// Whatever there is to be heard now, but for signs of life.
    pub fn hear_all(&mut self) -> &[Said] {
        while let Ok(Sent::Frame(frame)) = self.from_client.try_recv() {
            self.read(&frame);
        }
        self.pool.retain(|said| said.system() != Some(System::KeepAlive));
        &self.pool
    }

    /// Waits until the client has hung up: the code that it has said, if it has said one.
    pub async fn gone(&mut self) -> Option<u16> {
        let gone = async {
            let mut code = None;
            while let Some(sent) = self.from_client.recv().await {
                if let Sent::Close(said, _) = sent {
                    code = Some(said);
                }
            }
            code
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("the client stays")
    }
}
