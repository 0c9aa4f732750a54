//! What a fuzzer is let in to of WebSockets. Not part of the interface.

use std::io;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::http::Uri;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, DuplexStream, duplex, join};
use tokio::sync::mpsc;
use tower_service::Service;

use super::frames::{End, over};
use super::upgrade::{Upgrade, accepting, ask};
use crate::fuzzing::{self, Come, done};
use crate::pieces::Pieces;
use crate::transport::Close;

fn end(client: bool) -> End {
    if client { End::Client } else { End::Server }
}

/// What an end reads, and what it answers meanwhile as far as there is room for it.
pub fn read(client: bool, pieces: Vec<Vec<u8>>, room: usize) -> (Come, Vec<u8>) {
    let (near, far) = duplex(room);
    let (mut reader, writer) = over(end(client), Pieces::of(pieces), near);
    let come = fuzzing::read(&mut reader);
    drop((reader, writer));
    (come, rest(far))
}

fn rest(mut from: DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    done(from.read_to_end(&mut all)).expect("memory does not fail");
    all
}

/// What one end reads of what the other writes, over a stream that has room for so much.
pub fn across(client: bool, frames: &[Bytes], text: bool, close: Close<'_>, room: usize) -> Come {
    let (near, far) = duplex(room);
    let ((unread, near), (far, unwritten)) = (tokio::io::split(near), tokio::io::split(far));
    let ((_reader, writer), (reader, _writer)) = (over(end(client), unread, near), over(end(!client), far, unwritten));
    fuzzing::across(writer, reader, frames, text, close)
}

/// The seed of the keys of clients.
const SEED: u64 = 5;

/// What a client that asks [here](answered) has to be answered with.
pub fn accepts() -> &'static str {
    static ACCEPTS: OnceLock<String> = OnceLock::new();
    ACCEPTS.get_or_init(|| {
        fastrand::seed(SEED);
        let (near, far) = duplex(4_096);
        let silent = Pieces { open: true, ..Pieces::default() };
        assert!(ask(join(silent, near), "x", Uri::from_static("/")).now_or_never().is_none(), "nobody answers");
        let request = String::from_utf8(rest(far)).expect("text");
        accepting(request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key").as_bytes())
    })
}

/// What a client makes of the answer to its request; and what it reads after that.
pub fn answered(pieces: Vec<Vec<u8>>) -> Result<Come, io::ErrorKind> {
    fastrand::seed(SEED);
    let (near, _far) = duplex(1 << 20);
    let asked = done(ask(join(Pieces::of(pieces), near), "x", Uri::from_static("/")));
    asked.map(|(mut reader, _)| fuzzing::read(&mut reader)).map_err(|error| error.kind())
}

/// What a server reads after the first request, if it makes a WebSocket of that. In a tokio runtime. What it answers to half a head is hyper's to say, and
/// depends on how that comes.
pub async fn asked(pieces: Vec<Vec<u8>>) -> Option<Come> {
    let (near, _far) = duplex(1 << 20);
    let (come, mut coming) = mpsc::unbounded_channel();
    let router = Router::new()
        .fallback(async move |upgrade: Upgrade| upgrade.then(async move |mut reader, _writer| _ = come.send(fuzzing::read(&mut reader))));
    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| router.clone().call(request.map(Body::new)));
    let stream = TokioIo::new(join(Pieces::of(pieces), near));
    let connection = hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(stream, service);
    let _ = connection.with_upgrades().await;
    drop(router);
    coming.recv().await
}
