//! The way to a route.

use std::fmt;
use std::io;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WebError, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::hub::Visitor;
use crate::transport::{Close, Connector, FrameReader, FrameWriter, Incoming};
use crate::wire::limits;

/// Where a server listens: `ws://host:port/rpc/ws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAddress(String);

/// A text that is no address of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` does not begin with `ws://`")]
pub struct NotWeb(String);

impl WebAddress {
    /// From its text, which may have a query.
    ///
    /// # Errors
    /// If it does not begin with `ws://`.
    pub fn new(url: impl Into<String>) -> Result<WebAddress, NotWeb> {
        let url = url.into();
        if url.starts_with("ws://") { Ok(WebAddress(url)) } else { Err(NotWeb(url)) }
    }

    fn url(&self, visitor: &Visitor) -> String {
        let first = if self.0.contains('?') { '&' } else { '?' };
        let mut url = format!("{}{first}clientId={}&f={}", self.0, visitor.client_id, visitor.format);
        if let Some(proof) = &visitor.proof {
            url.push_str(&format!("&c={}&p={}", proof.counter, proof.code));
        }
        url
    }
}

/// The half of a client's connection that frames come from.
pub struct WebReader(SplitStream<WebSocketStream<MaybeTlsStream<TcpStream>>>);

/// The half of a client's connection that frames go to.
pub struct WebWriter(SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>);

impl fmt::Debug for WebReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebReader").finish_non_exhaustive()
    }
}

impl fmt::Debug for WebWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebWriter").finish_non_exhaustive()
    }
}

/// Bytes that are read at once. A client has few connections, each of which may have a lot to read.
const READ: usize = 16 << 10;

impl Connector for WebAddress {
    type Reader = WebReader;
    type Writer = WebWriter;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(WebReader, WebWriter)> {
        let config = WebSocketConfig::default().max_message_size(Some(limits::FRAME)).max_frame_size(Some(limits::FRAME));
        // The library fills what it reads into with zeros each time, and keeps it for ever; frames are whole when they are written.
        let config = config.read_buffer_size(READ).write_buffer_size(0);
        // Frames are whole when they are written: waiting for more to go with them only costs time.
        let (socket, _) = connect_async_with_config(self.url(visitor), Some(config), true).await.map_err(broken)?;
        let (sink, stream) = socket.split();
        Ok((WebReader(stream), WebWriter(sink)))
    }
}

impl FrameReader for WebReader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => Ok(Some(Incoming::Text(text.into()))),
                Some(Ok(Message::Binary(bytes))) => Ok(Some(Incoming::Binary(bytes))),
                // Answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                // 1005: it has said none.
                Some(Ok(Message::Close(close))) => Ok(Some(Incoming::Closed(close.map_or(1005, |close| close.code.into())))),
                None => Ok(None),
                Some(Err(error)) => Err(broken(error)),
            };
        }
    }
}

impl FrameWriter for WebWriter {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        for frame in frames {
            let message = match text {
                true => Message::Text(Utf8Bytes::try_from(frame.clone()).map_err(io::Error::other)?),
                false => Message::Binary(frame.clone()),
            };
            self.0.feed(message).await.map_err(broken)?;
        }
        self.0.flush().await.map_err(broken)
    }

    async fn close(&mut self, close: Close<'_>) {
        let frame = CloseFrame { code: CloseCode::from(close.code), reason: close.reason.into() };
        // It may be closed already.
        let _ = self.0.send(Message::Close(Some(frame))).await;
        let _ = self.0.close().await;
    }
}

fn broken(error: WebError) -> io::Error {
    match error {
        WebError::Io(error) => error,
        WebError::Capacity(error @ CapacityError::MessageTooLong { .. }) => io::Error::new(io::ErrorKind::InvalidData, error),
        error => io::Error::other(error),
    }
}
