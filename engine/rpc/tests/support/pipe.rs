//! A connection in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use wellspring_rpc::transport::{Close, FrameReader, FrameWriter, Incoming, Refused};
use wellspring_rpc::wire::{Arguments, Format, Frame, FrameError, Head, Messages, Raw, System, WriteError, Writer};
use wellspring_rpc::{Hub, Refusal, Visitor};

/// The server's half that frames come from.
pub struct PipeReader(mpsc::UnboundedReceiver<Incoming>);

/// The server's half that frames go to.
pub struct PipeWriter {
    frames: mpsc::UnboundedSender<Sent>,
    broken: Arc<AtomicBool>,
    stalled: Arc<Stalled>,
}

/// Whether the other end does not read, and how much it was given.
#[derive(Debug, Default)]
pub struct Stalled {
    pub so: AtomicBool,
    pub bytes: std::sync::atomic::AtomicUsize,
    /// Bytes that it reads in a second, unless it reads at once.
    pub pace: std::sync::atomic::AtomicUsize,
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
                self.stalled.bytes.fetch_add(frame.len(), Ordering::SeqCst);
                if self.stalled.so.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let pace = self.stalled.pace.load(Ordering::SeqCst);
                if pace > 0 {
                    tokio::time::sleep(std::time::Duration::from_secs_f64(frame.len() as f64 / pace as f64)).await;
                }
                self.frames.send(Sent::Frame(frame.clone())).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    async fn close(&mut self, close: Close<'_>) {
        if self.stalled.so.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let _ = self.frames.send(Sent::Close(close.code, close.reason.to_owned()));
    }
}

/// A client that says what it is told to.
pub struct Client {
    pub format: Format,
    to_server: Option<mpsc::UnboundedSender<Incoming>>,
    from_server: mpsc::UnboundedReceiver<Sent>,
    broken: Arc<AtomicBool>,
    stalled: Arc<Stalled>,
    serving: tokio::task::JoinHandle<()>,
    /// Messages that came and were not asked for yet.
    pub pool: Vec<Received>,
    /// How many signs of life came, and were not waited for.
    pub alive: usize,
}

/// A message of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub call: System,
    pub id: u64,
    pub hash: Option<String>,
    pub arguments: Vec<u8>,
}

/// A batch of a stream as the items that it is of.
pub fn each(format: Format, id: u64, batch: &[u8]) -> Vec<Received> {
    let mut arguments = Arguments::new(format, batch);
    let (first, items): (u64, Vec<Raw>) = (arguments.read().expect("an index"), arguments.read().expect("items"));
    let item = |(index, item): (u64, Raw)| {
        let mut out = Vec::new();
        let mut writer = Writer::new(format, &mut out);
        writer.value(&index).and_then(|()| writer.value(&item)).expect("written");
        Received { call: System::Item, id, hash: None, arguments: out }
    };
    (first..).zip(items).map(item).collect()
}

impl Client {
    pub fn connect(hub: &Hub, visitor: Visitor) -> Client {
        let (to_server, incoming) = mpsc::unbounded_channel();
        let (outgoing, from_server) = mpsc::unbounded_channel();
        let (broken, stalled) = (Arc::new(AtomicBool::new(false)), Arc::<Stalled>::default());
        let writer = PipeWriter { frames: outgoing, broken: broken.clone(), stalled: stalled.clone() };
        let (hub, format) = (hub.clone(), visitor.format);
        let serving = tokio::spawn(async move { hub.serve(visitor, PipeReader(incoming), writer).await });
        Client { format, to_server: Some(to_server), from_server, broken, stalled, serving, pool: Vec::new(), alive: 0 }
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

    /// What the server sends from now on goes nowhere, and it waits.
    pub fn stop_reading(&self) {
        self.stalled.so.store(true, Ordering::SeqCst);
        self.stalled.bytes.store(0, Ordering::SeqCst);
    }

    /// What the server waits for is lost; it need not wait any more.
    pub fn read_on(&self) {
        self.stalled.so.store(false, Ordering::SeqCst);
    }

    /// From now on the server waits until the client has read, so many bytes in a second.
    pub fn slow_down(&self, pace: usize) {
        self.stalled.pace.store(pace, Ordering::SeqCst);
    }

    /// How many bytes the server has given to the connection since.
    pub fn accepted(&self) -> usize {
        self.stalled.bytes.load(Ordering::SeqCst)
    }

    /// Waits until the server is done with the connection.
    pub async fn ended(&mut self) {
        tokio::time::timeout(super::PATIENCE, &mut self.serving).await.expect("it goes on").expect("no panic");
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
            if call == System::Batch {
                self.pool.extend(each(self.format, message.related_id, message.arguments));
                continue;
            }
            if call == System::KeepAlive {
                self.alive += 1;
            } else {
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

    /// Waits for a sign of life.
    pub async fn sign_of_life(&mut self) {
        while self.alive == 0 {
            match tokio::time::timeout(super::PATIENCE, self.from_server.recv()).await {
                Ok(Some(Sent::Frame(frame))) => self.read(&frame),
                other => panic!("no sign of life: {other:?}"),
            }
        }
        self.alive -= 1;
    }

    /// Whatever there is to be heard now.
    pub fn hear_all(&mut self) {
        while let Ok(Sent::Frame(frame)) = self.from_server.try_recv() {
            self.read(&frame);
        }
    }
}

/// A way to a hub through memory, which can be cut.
#[derive(Clone, Debug)]
pub struct Wire(Arc<WireState>);

#[derive(Debug)]
struct WireState {
    hub: std::sync::Mutex<Hub>,
    down: AtomicBool,
    connections: std::sync::atomic::AtomicUsize,
    /// Who has connected last.
    visitor: std::sync::Mutex<Option<Visitor>>,
    /// Every frame that a client was given.
    heard: std::sync::Mutex<Vec<Bytes>>,
    /// What cuts the present connection.
    cut: std::sync::Mutex<Option<(Arc<AtomicBool>, tokio::sync::watch::Sender<bool>)>>,
}

/// A client's half.
pub struct WireReader {
    frames: mpsc::UnboundedReceiver<Sent>,
    cut: tokio::sync::watch::Receiver<bool>,
    text: bool,
    wire: Wire,
}

/// A client's half.
pub struct WireWriter {
    frames: mpsc::UnboundedSender<Incoming>,
    broken: Arc<AtomicBool>,
}

impl Wire {
    pub fn to(hub: &Hub) -> Wire {
        let hub = std::sync::Mutex::new(hub.clone());
        Wire(Arc::new(WireState {
            hub,
            down: AtomicBool::new(false),
            connections: Default::default(),
            visitor: Default::default(),
            heard: Default::default(),
            cut: Default::default(),
        }))
    }

    /// The next connection is made to another hub.
    pub fn lead_to(&self, hub: &Hub) {
        *self.0.hub.lock().expect("no panic") = hub.clone();
    }

    /// Cuts the present connection: what is under way is lost.
    pub fn cut(&self) {
        if let Some((broken, cut)) = self.0.cut.lock().expect("no panic").take() {
            broken.store(true, Ordering::SeqCst);
            cut.send_replace(true);
        }
    }

    /// No connection can be made, or again.
    pub fn set_down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
        if down {
            self.cut();
        }
    }

    /// Who has connected last.
    pub fn visitor(&self) -> Visitor {
        self.0.visitor.lock().expect("no panic").clone().expect("connected")
    }

    /// Every system call of the servers' that has come, with the bytes of its arguments.
    pub fn heard(&self) -> Vec<(System, usize)> {
        let (format, heard) = (self.visitor().format, self.0.heard.lock().expect("no panic"));
        let messages = heard.iter().flat_map(|frame| Messages::new(format, frame)).map(|message| message.expect("a message"));
        messages.filter_map(|message| Some((System::of(&message.method)?, message.arguments.len()))).collect()
    }

    /// How many of a kind.
    pub fn heard_of(&self, call: System) -> usize {
        self.heard().into_iter().filter(|(heard, _)| *heard == call).count()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::SeqCst)
    }
}

impl wellspring_rpc::transport::Connector for Wire {
    type Reader = WireReader;
    type Writer = WireWriter;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(WireReader, WireWriter)> {
        if self.0.down.load(Ordering::SeqCst) {
            return Err(io::Error::other("down"));
        }
        let hub = self.0.hub.lock().expect("no panic").clone();
        let mut visitor = visitor.clone();
        let refused = |refusal: Refusal| io::Error::from(Refused { code: refusal.code(), reason: refusal.reason().to_owned() });
        hub.admit(&mut visitor).await.map_err(refused)?;
        *self.0.visitor.lock().expect("no panic") = Some(visitor.clone());
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        let (to_server, incoming) = mpsc::unbounded_channel();
        let (outgoing, from_server) = mpsc::unbounded_channel();
        let broken = Arc::new(AtomicBool::new(false));
        let (cut, is_cut) = tokio::sync::watch::channel(false);
        *self.0.cut.lock().expect("no panic") = Some((broken.clone(), cut));
        let text = visitor.format.is_text();
        let writer = PipeWriter { frames: outgoing, broken: broken.clone(), stalled: Arc::default() };
        tokio::spawn(async move { hub.serve(visitor, PipeReader(incoming), writer).await });
        Ok((WireReader { frames: from_server, cut: is_cut, text, wire: self.clone() }, WireWriter { frames: to_server, broken }))
    }
}

impl FrameReader for WireReader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        tokio::select! {
            biased;
            _ = self.cut.wait_for(|cut| *cut) => Err(io::Error::other("cut")),
            sent = self.frames.recv() => Ok(match sent.inspect(|sent| {
                if let Sent::Frame(frame) = sent {
                    self.wire.0.heard.lock().expect("no panic").push(frame.clone());
                }
            }) {
                Some(Sent::Frame(frame)) if self.text => Some(Incoming::Text(frame)),
                Some(Sent::Frame(frame)) => Some(Incoming::Binary(frame)),
                Some(Sent::Close(code, _)) => Some(Incoming::Closed(code)),
                None => None,
            }),
        }
    }
}

impl FrameWriter for WireWriter {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("cut"));
        }
        for frame in frames.iter().cloned() {
            let frame = if text { Incoming::Text(frame) } else { Incoming::Binary(frame) };
            self.frames.send(frame).map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn close(&mut self, _: Close<'_>) {}
}
