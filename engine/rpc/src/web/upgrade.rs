//! How a request becomes a WebSocket, at both ends.

use std::io;
use std::pin::pin;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::{self, End, WebReader, WebWriter};
use crate::transport::{Close, Refused};

/// The version of the protocol.
const VERSION: &str = "13";

/// A request that asks for a WebSocket.
pub(super) struct Upgrade {
    key: HeaderValue,
    upgrade: OnUpgrade,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Upgrade, Response> {
        let headers = &parts.headers;
        let asks =
            parts.method == Method::GET && has(headers, &header::CONNECTION, "upgrade") && has(headers, &header::UPGRADE, "websocket");
        if asks && !has(headers, &header::SEC_WEBSOCKET_VERSION, VERSION) {
            let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_VERSION, VERSION)];
            return Err((StatusCode::UPGRADE_REQUIRED, headers).into_response());
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned().filter(|_| asks);
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        match (key, upgrade) {
            (Some(key), Some(upgrade)) => Ok(Upgrade { key, upgrade }),
            _ => Err(StatusCode::BAD_REQUEST.into_response()),
        }
    }
}

/// Whether a header, which may be a list, has this.
fn has(headers: &HeaderMap, name: &HeaderName, expected: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(expected))
}

/// What a server answers a key with: it speaks WebSockets, and not by accident.
pub(super) fn accepting(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

impl Upgrade {
    /// Agrees, and goes on with the WebSocket in a task of its own.
    pub(super) fn then<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl FnOnce(WebReader, WebWriter) -> F + Send + 'static,
    ) -> Response {
        let Upgrade { key, upgrade } = self;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let (reader, writer) = frames::halves(End::Server, upgraded);
                    serve(reader, writer).await;
                }
                Err(error) => tracing::debug!(target: "wellspring::rpc", %error, "no WebSocket was made of a request"),
            }
        });
        let headers = [
            (header::CONNECTION, "upgrade".to_owned()),
            (header::UPGRADE, "websocket".to_owned()),
            (header::SEC_WEBSOCKET_ACCEPT, accepting(key.as_bytes())),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}

/// Makes a WebSocket of a stream to a server.
pub(super) async fn ask<S>(stream: S, host: &str, url: Uri) -> io::Result<(WebReader, WebWriter)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
    let request = Request::get(url)
        .header(header::HOST, host)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, VERSION)
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .body(Body::empty())
        .map_err(io::Error::other)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let asking = async move {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let reason = format!("the other end answers with {status}");
            return Err(match status {
                StatusCode::FORBIDDEN => Refused { code: Close::NOT_PROVED, reason }.into(),
                _ => io::Error::new(io::ErrorKind::ConnectionRefused, reason),
            });
        }
        let headers = response.headers();
        let accepted = headers.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|said| *said == accepting(key.as_bytes()));
        if !accepted || !has(headers, &header::CONNECTION, "upgrade") || !has(headers, &header::UPGRADE, "websocket") {
            return Err(io::Error::other("the other end does not speak WebSockets"));
        }
        // Nothing was asked for.
        if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) || headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
            return Err(io::Error::other("the other end wants an extension or a protocol that it was not asked for"));
        }
        hyper::upgrade::on(response).await.map_err(io::Error::other)
    };
    // Within this future, so that nothing goes on if it is dropped.
    let connection = pin!(connection.with_upgrades());
    let upgraded: Upgraded = tokio::select! {
        biased;
        upgraded = asking => upgraded?,
        // What is wrong with it, who asks has been told.
        never = async { let _ = connection.await; std::future::pending().await } => never,
    };
    Ok(frames::halves(End::Client, upgraded))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What a client makes of an answer, which may have the right key in it.
    async fn asked(answer: &str) -> io::Result<()> {
        let (near, mut far) = tokio::io::duplex(4_096);
        let answering = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                far.read_buf(&mut request).await.expect("a request");
            }
            let request = String::from_utf8(request).expect("text");
            let key = request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
            far.write_all(answer.replace("KEY", &accepting(key.as_bytes())).as_bytes()).await.expect("answered");
        };
        let (asked, ()) = tokio::join!(ask(near, "x", Uri::from_static("/rpc/ws")), answering);
        asked.map(|_| ())
    }

    #[tokio::test]
    async fn an_answer_that_agrees_to_something_else_is_none() {
        const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n";
        let table = [
            ("Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: KEY\r\n", true),
            ("Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: KEY\r\n", true),
            ("Upgrade: websocket\r\nSec-WebSocket-Accept: KEY\r\n", false),
            ("Connection: keep-alive\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: KEY\r\n", false),
            ("Connection: upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: KEY\r\n", false),
            ("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n", false),
            (
                "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: KEY\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
                false,
            ),
            ("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: chat\r\n", false),
        ];
        for (headers, agrees) in table {
            let asked = asked(&format!("{SWITCHING}{headers}\r\n")).await;
            assert_eq!(asked.is_ok(), agrees, "{headers} {asked:?}");
        }
    }
}
