//! The way to a route.

use std::fmt;
use std::io;
#[cfg(feature = "tls")]
use std::sync::Arc;

use axum::http::Uri;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
#[cfg(feature = "tls")]
use tokio_rustls::rustls::{ClientConfig, pki_types::ServerName};

use super::upgrade;
use super::{WebReader, WebWriter};
use crate::asked;
use crate::hub::Visitor;
use crate::socket;
use crate::transport::Connector;

/// Where a server listens: `ws://host:port/rpc/ws`, or `wss://..` with TLS.
#[derive(Clone)]
pub struct WebAddress {
    url: Uri,
    #[cfg(feature = "tls")]
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

/// A text that is no address of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not `{1}host..`")]
pub struct NotWeb(String, &'static str);

impl fmt::Debug for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebAddress").field(&self.url).finish()
    }
}

impl PartialEq for WebAddress {
    /// The same URL; with the very same configuration, if it has one.
    fn eq(&self, other: &WebAddress) -> bool {
        #[cfg(feature = "tls")]
        let same = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some((name, config)), Some((others, other))) => name == others && Arc::ptr_eq(config, other),
            _ => false,
        };
        #[cfg(not(feature = "tls"))]
        let same = true;
        same && self.url == other.url
    }
}

impl Eq for WebAddress {}

impl WebAddress {
    /// From its text, which may have a query.
    ///
    /// # Errors
    /// If it is no URL, or does not begin with `ws://`.
    pub fn new(url: impl Into<String>) -> Result<WebAddress, NotWeb> {
        Ok(WebAddress {
            url: parsed(url.into(), "ws://")?,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// From its text, for TLS. The server's certificate has to be for its host. See [`tls`](crate::tls) for configurations.
    ///
    /// # Errors
    /// If it is no URL, or does not begin with `wss://`.
    #[cfg(feature = "tls")]
    pub fn secure(url: impl Into<String>, config: Arc<ClientConfig>) -> Result<WebAddress, NotWeb> {
        let url = url.into();
        let parsed = parsed(url.clone(), "wss://")?;
        let name = parsed.host().and_then(socket::server_name).ok_or(NotWeb(url, "wss://"))?;
        Ok(WebAddress { url: parsed, tls: Some((name, config)) })
    }

    fn target(&self, visitor: &Visitor) -> String {
        let asked = asked::query(visitor);
        match self.url.query() {
            Some(query) => format!("{}?{query}&{asked}", self.url.path()),
            None => format!("{}?{asked}", self.url.path()),
        }
    }

    async fn dial(&self) -> io::Result<Box<dyn ByteStream>> {
        let host = self.url.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let usual = if self.url.scheme_str() == Some("wss") { 443 } else { 80 };
        let stream = socket::dial((host, self.url.port_u16().unwrap_or(usual))).await?;
        #[cfg(feature = "tls")]
        if let Some((name, config)) = &self.tls {
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            return Ok(Box::new(connector.connect(name.clone(), stream).await?));
        }
        Ok(Box::new(stream))
    }
}

fn parsed(url: String, scheme: &'static str) -> Result<Uri, NotWeb> {
    let parsed = url.starts_with(scheme).then(|| url.parse::<Uri>().ok()).flatten();
    parsed.filter(|url| url.host().is_some_and(|host| !host.is_empty())).ok_or(NotWeb(url, scheme))
}

/// With TLS or without.
trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

impl Connector for WebAddress {
    type Reader = WebReader;
    type Writer = WebWriter;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(WebReader, WebWriter)> {
        let path = self.target(visitor).parse().map_err(io::Error::other)?;
        let host = self.url.authority().map_or("", |authority| authority.as_str());
        // Nobody else need know who it is.
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        upgrade::ask(self.dial().await?, host, path).await
    }
}
