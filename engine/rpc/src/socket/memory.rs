//! A listener within the process.

use std::io;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::preamble;
use super::{SocketReader, SocketWriter};
use crate::hub::Visitor;
use crate::transport::Connector;

/// The way to a [`Listener::memory`](crate::Listener::memory). All that sockets have is between them, but for the sockets.
#[derive(Clone, Debug)]
pub struct MemoryAddress(mpsc::Sender<DuplexStream>);

/// Bytes on the way in one direction.
const ON_THE_WAY: usize = 64 << 10;

impl MemoryAddress {
    pub(crate) fn new() -> (MemoryAddress, mpsc::Receiver<DuplexStream>) {
        // Who connects waits for the listener, as in a backlog.
        let (to, at) = mpsc::channel(128);
        (MemoryAddress(to), at)
    }
}

impl Connector for MemoryAddress {
    type Reader = SocketReader<ReadHalf<DuplexStream>>;
    type Writer = SocketWriter<WriteHalf<DuplexStream>>;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Self::Reader, Self::Writer)> {
        let (near, far) = tokio::io::duplex(ON_THE_WAY);
        self.0.send(far).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let (reader, writer) = tokio::io::split(near);
        preamble::connect(reader, writer, visitor).await
    }
}
