//! The hub as a route of an axum application.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};

use crate::hub::{Hub, Visitor};
use crate::transport::{Close, FrameReader, FrameWriter, Incoming};
use crate::wire::{Format, Proof, limits};

/// Whose pages may connect. A page of anybody's could otherwise call with the cookies of whoever looks at it. What is not a browser says no
/// origin, and passes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of the host that they connect to. The peer lets in everybody unless told otherwise.
    #[default]
    Same,
    /// Of these origins: `https://example.org`.
    Listed(Vec<String>),
    /// Of all.
    Any,
}

impl Origins {
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        match self {
            Origins::Any => true,
            Origins::Listed(listed) => listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin)),
            Origins::Same => {
                let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
                let of = origin.split_once("://").map(|(_, host)| host);
                host.zip(of).is_some_and(|(host, of)| host.eq_ignore_ascii_case(of))
            }
        }
    }
}

/// A router with the hub at `/rpc/ws`, for pages of the same host. It can be merged into any other.
pub fn router(hub: Hub) -> Router {
    router_for(hub, Origins::default())
}

/// As [`router`], for other pages.
pub fn router_for(hub: Hub, origins: Origins) -> Router {
    Router::new().route("/rpc/ws", any(connect)).with_state((hub, origins))
}

async fn connect(
    State((hub, origins)): State<(Hub, Origins)>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
    request: Parts,
) -> Response {
    if !origins.admits(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(Asked { client_id, format, counter, code }) = Asked::read(query.as_deref().unwrap_or_default()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let client_id = client_id.unwrap_or_default();
    if client_id.len() > Visitor::LONGEST {
        return StatusCode::BAD_REQUEST.into_response();
    }
    // The library fills what it reads into with zeros each time, and keeps it for ever; frames are whole when they are written.
    let upgrade = upgrade.max_message_size(limits::FRAME).max_frame_size(limits::FRAME).read_buffer_size(READ).write_buffer_size(0);
    let format = match format.unwrap_or_default().as_str() {
        "" => Format::default(),
        key => match key.parse::<Format>() {
            Ok(format) => format,
            Err(unknown) => {
                // A browser does not see why a connection is refused, so it is made first.
                let refuse = async move |socket: WebSocket| {
                    let (sink, mut stream) = socket.split();
                    let close = async {
                        WebWriter(sink).close(Close { code: Close::FORMAT, reason: &unknown.to_string() }).await;
                        // What was sent meanwhile is read: a socket that is closed with something unread may take the code with it.
                        while let Some(Ok(_)) = stream.next().await {}
                    };
                    let _ = tokio::time::timeout(FAREWELL, close).await;
                };
                return upgrade.on_upgrade(refuse);
            }
        },
    };
    let mut visitor = Visitor::new(client_id, format);
    visitor.proof = match (counter, code) {
        (None, None) => None,
        (Some(counter), Some(code)) => Some(Proof { counter, code }),
        _ => return StatusCode::FORBIDDEN.into_response(),
    };
    visitor.address = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|from| from.0);
    visitor.request = Some(Box::new(request));
    if let Err(refusal) = hub.admit(&mut visitor).await {
        return (refusal.status(), refusal.reason().to_owned()).into_response();
    }
    upgrade.on_upgrade(async move |socket| {
        let (sink, stream) = socket.split();
        hub.serve(visitor, WebReader(stream), WebWriter(sink)).await;
    })
}

/// Bytes that are read at once: about what costs as much to copy as a system call, on each of very many connections.
const READ: usize = 4 << 10;

/// How long a client may take to hear that it is refused.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a connection's address says.
#[derive(Default)]
struct Asked {
    client_id: Option<String>,
    format: Option<String>,
    counter: Option<String>,
    code: Option<String>,
}

impl Asked {
    /// None if it says one thing twice.
    fn read(query: &str) -> Option<Asked> {
        let mut asked = Asked::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match name {
                "clientId" => &mut asked.client_id,
                "f" => &mut asked.format,
                "c" => &mut asked.counter,
                "p" => &mut asked.code,
                _ => continue,
            };
            if place.replace(decoded(value)?).is_some() {
                return None;
            }
        }
        Some(asked)
    }
}

/// Without the percent signs.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                bytes.push((digit()? * 16 + digit()?) as u8);
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

struct WebReader(SplitStream<WebSocket>);

impl FrameReader for WebReader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => Ok(Some(Incoming::Text(text.into()))),
                Some(Ok(Message::Binary(bytes))) => Ok(Some(Incoming::Binary(bytes))),
                // Answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                // 1005: it has said none.
                Some(Ok(Message::Close(close))) => Ok(Some(Incoming::Closed(close.map_or(1005, |close| close.code)))),
                None => Ok(None),
                Some(Err(error)) => Err(broken(error)),
            };
        }
    }
}

/// A frame that is too large is told from a connection that is broken by what the library says: it has no better name for it here.
fn broken(error: axum::Error) -> io::Error {
    let too_large = error.to_string().contains("too long") || error.to_string().contains("too big");
    let kind = if too_large { io::ErrorKind::InvalidData } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

struct WebWriter(SplitSink<WebSocket, Message>);

impl FrameWriter for WebWriter {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        for frame in frames {
            let message = match text {
                true => Message::Text(Utf8Bytes::try_from(frame.clone()).map_err(io::Error::other)?),
                false => Message::Binary(frame.clone()),
            };
            self.0.feed(message).await.map_err(io::Error::other)?;
        }
        self.0.flush().await.map_err(io::Error::other)
    }

    async fn close(&mut self, close: Close<'_>) {
        let frame = CloseFrame { code: close.code, reason: close.reason.into() };
        // It may be closed already.
        let _ = self.0.send(Message::Close(Some(frame))).await;
        let _ = self.0.close().await;
    }
}
