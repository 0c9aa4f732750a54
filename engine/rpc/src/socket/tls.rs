//! TLS over TCP, as a client.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::preamble;
use super::tcp::dial;
use super::{SocketReader, SocketWriter};
use crate::hub::Visitor;
use crate::transport::Connector;

/// Where a server listens for frames over TLS: `host:port`.
#[derive(Clone)]
pub struct TlsAddress {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// No certificate can be for such a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` does not begin with the name or the number of a host")]
pub struct NotNamed(String);

impl fmt::Debug for TlsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAddress").field("address", &self.address).field("name", &self.name).finish_non_exhaustive()
    }
}

impl TlsAddress {
    /// From its text, the host of which the server's certificate has to be for.
    ///
    /// # Errors
    /// If the text is not `host:port`.
    pub fn new(address: impl Into<String>, config: Arc<ClientConfig>) -> Result<TlsAddress, NotNamed> {
        let address = address.into();
        match address.rsplit_once(':').and_then(|(host, _)| server_name(host)) {
            Some(name) => Ok(TlsAddress { address, name, config }),
            None => Err(NotNamed(address)),
        }
    }

    /// The server's certificate has to be for this host instead.
    ///
    /// # Errors
    /// If it is the name of none.
    pub fn named(mut self, host: &str) -> Result<TlsAddress, NotNamed> {
        self.name = server_name(host).ok_or_else(|| NotNamed(host.to_owned()))?;
        Ok(self)
    }
}

/// Of a host as addresses have it.
pub(crate) fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

impl Connector for TlsAddress {
    type Reader = SocketReader<ReadHalf<TlsStream<TcpStream>>>;
    type Writer = SocketWriter<WriteHalf<TlsStream<TcpStream>>>;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Self::Reader, Self::Writer)> {
        let stream = dial(&self.address).await?;
        let stream = TlsConnector::from(self.config.clone()).connect(self.name.clone(), stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        preamble::connect(reader, writer, visitor).await
    }
}
