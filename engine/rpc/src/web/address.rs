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

impl NotWeb {
    fn new(url: &str, scheme: &'static str) -> NotWeb {
        NotWeb(shown(url), scheme)
    }
}

/// What may be shown of a URL, or of what was to be one: where it leads, and not as whom.
fn shown(url: &str) -> String {
    let (place, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let host = place.find("//").map_or(0, |at| at + 2);
    let end = place[host..].find('/').map_or(place.len(), |at| host + at);
    let user = place[host..end].rfind('@').map_or(host, |at| host + at + 1);
    let more = if query.is_empty() { "" } else { "?.." };
    format!("{}{}{more}", &place[..host], &place[user..])
}

impl fmt::Debug for WebAddress {
    /// Without the query, which may have a session in it, and without who it is for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebAddress").field(&shown(&self.url.to_string())).finish()
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
        let name = parsed.host().and_then(socket::server_name).ok_or_else(|| NotWeb::new(&url, "wss://"))?;
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
    parsed.filter(|url| url.host().is_some_and(|host| !host.is_empty())).ok_or_else(|| NotWeb::new(&url, scheme))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_is_shown_where_it_leads_and_not_as_whom() {
        let table = [
            ("ws://host/rpc/ws", "ws://host/rpc/ws"),
            ("ws://host:1/rpc/ws?session=secret", "ws://host:1/rpc/ws?.."),
            ("ws://ann:secret@host:1/rpc/ws?session=secret", "ws://host:1/rpc/ws?.."),
            ("ws://[::1]:1/?secret@secret//secret", "ws://[::1]:1/?.."),
            ("ws://host?secret", "ws://host/?.."),
        ];
        for (url, shown) in table {
            let address = WebAddress::new(url).expect(url);
            assert_eq!(format!("{address:?}"), format!("WebAddress({shown:?})"));
        }
        let table = [
            ("http://host/rpc/ws?session=secret", "http://host/rpc/ws?.."),
            ("http://ann:sec@ret@host/", "http://host/"),
            ("ann:secret@host", "host"),
            ("ws://?secret", "ws://?.."),
            ("ws://host/#secret", "ws://host/?.."),
            ("", ""),
        ];
        for (url, shown) in table {
            match WebAddress::new(url) {
                Err(error) => assert_eq!(error.to_string(), format!("`{shown}` is not `ws://host..`")),
                Ok(address) => assert!(!format!("{address:?}").contains("secret"), "{url}"),
            }
        }
    }
}
