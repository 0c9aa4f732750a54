//! TCP.

use std::io;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::preamble;
use super::{SocketReader, SocketWriter};
use crate::hub::Visitor;
use crate::transport::Connector;

/// Where a server listens for frames over TCP: `host:port`. Whoever can see the packets sees everything: beyond a network of one's own,
/// `TlsAddress`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpAddress(String);

impl TcpAddress {
    /// From its text. The name is looked up at every connection.
    pub fn new(address: impl Into<String>) -> TcpAddress {
        TcpAddress(address.into())
    }
}

impl From<std::net::SocketAddr> for TcpAddress {
    fn from(address: std::net::SocketAddr) -> TcpAddress {
        TcpAddress(address.to_string())
    }
}

impl Connector for TcpAddress {
    type Reader = SocketReader<OwnedReadHalf>;
    type Writer = SocketWriter<OwnedWriteHalf>;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Self::Reader, Self::Writer)> {
        let (reader, writer) = dial(&self.0).await?.into_split();
        preamble::connect(reader, writer, visitor).await
    }
}

/// A socket that sends at once: frames are whole when they are written, so waiting for more to go with them only costs time.
pub(crate) async fn dial(address: impl tokio::net::ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
