//! A stream of bytes for tests: what takes what is written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// What takes what is written: so many bytes at a time, and pauses when it has taken so many.
#[derive(Debug)]
pub(crate) struct Taking {
    pub(crate) taken: Vec<u8>,
    pub(crate) calls: usize,
    pub(crate) at_once: usize,
    pub(crate) most: usize,
    pub(crate) vectored: bool,
    pub(crate) over: bool,
}

impl Taking {
    pub(crate) fn new() -> Taking {
        Taking { taken: Vec::new(), calls: 0, at_once: usize::MAX, most: usize::MAX, vectored: true, over: false }
    }
}

impl AsyncWrite for Taking {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, _: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let room = self.at_once.min(self.most - self.taken.len());
        if room == 0 {
            return Poll::Pending;
        }
        self.calls += 1;
        let before = self.taken.len();
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).take(room).collect();
        self.taken.extend(bytes);
        Poll::Ready(Ok(self.taken.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.over = true;
        Poll::Ready(Ok(()))
    }
}
