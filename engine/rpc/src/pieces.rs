//! A stream of bytes for tests, and for a fuzzer: what comes in pieces.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes as they come: piece by piece, with a pause before each.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) pieces: VecDeque<Vec<u8>>,
    pub(crate) paused: bool,
    pub(crate) open: bool,
}

impl Pieces {
    pub(crate) fn of(pieces: impl IntoIterator<Item = Vec<u8>>) -> Pieces {
        Pieces { pieces: pieces.into_iter().collect(), ..Pieces::default() }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused || (self.pieces.is_empty() && self.open) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(into.remaining()));
            into.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}
