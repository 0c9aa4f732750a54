//! What has come over a stream of bytes, and was not taken yet.
//!
//! A connection that waits holds next to no memory: what comes is read into a buffer on the stack first, and only what has come is kept. That is a
//! copy of at most 32 KiB at a time, all messages of which go out as slices of one buffer. Rejected: a buffer for each connection to read into (10,000
//! that wait would hold hundreds of megabytes), and one borrowed from the thread (who says half a frame keeps it).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes that are read at once, unless a frame is larger.
pub(crate) const CHUNK: usize = 32 << 10;
/// Bytes of a buffer that is kept while nothing comes.
pub(crate) const KEPT: usize = 2 << 10;

/// A stream, and the bytes of it that wait to be taken.
pub(crate) struct Inbox<R> {
    pub(crate) stream: R,
    pub(crate) buffer: BytesMut,
    /// Bytes of what has begun: so many make the next one whole.
    wanted: usize,
    /// The most that the buffer had room for since it was made.
    pub(crate) grown: usize,
    /// Bytes that have come, in all.
    pub(crate) heard: u64,
}

impl<R> fmt::Debug for Inbox<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("bytes", &self.buffer.len()).field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Unpin> Inbox<R> {
    pub(crate) fn new(stream: R) -> Inbox<R> {
        Inbox { stream, buffer: BytesMut::new(), wanted: 0, grown: 0, heard: 0 }
    }

    /// Takes what is said after a head, if all of it has come. Room for it is made as it comes, not as it says.
    pub(crate) fn take(&mut self, head: usize, length: usize) -> Option<BytesMut> {
        self.wanted = head + length;
        if self.buffer.len() < self.wanted {
            return None;
        }
        self.wanted = 0;
        self.buffer.advance(head);
        Some(self.buffer.split_to(length))
    }

    /// Reads more; false at the end, which must not be within something.
    pub(crate) async fn more(&mut self) -> io::Result<bool> {
        // Dropping it loses nothing: what has come is in the buffer.
        match poll_fn(|cx| self.poll_fill(cx)).await? {
            0 if self.buffer.is_empty() => Ok(false),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(true),
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (come, missing) = (self.buffer.len(), self.wanted.saturating_sub(self.buffer.len()));
        let read = if come >= CHUNK && missing > CHUNK {
            // As much again as has come, whatever it says that will come.
            if self.buffer.capacity() == come {
                self.buffer.reserve(missing.min(come));
            }
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => return self.wait(),
            }
        } else {
            let mut chunk = [MaybeUninit::uninit(); CHUNK];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut self.stream).poll_read(cx, &mut chunk) {
                Poll::Ready(read) => read?,
                Poll::Pending => return self.wait(),
            }
            // The room is used again if every frame that was in it has been dropped, as they have when one is run after the other.
            self.buffer.extend_from_slice(chunk.filled());
            chunk.filled().len()
        };
        self.grown = self.grown.max(self.buffer.capacity());
        self.heard += read as u64;
        Poll::Ready(Ok(read))
    }

    /// Gives back room that is not needed while nothing comes. Not only when nothing is left: whoever always leaves a byte would keep the room of its
    /// largest frame. As it is a quarter at most, what is copied has been paid for by what has come.
    fn wait(&mut self) -> Poll<io::Result<usize>> {
        if self.grown > KEPT && self.buffer.len() <= self.grown / 4 {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.grown = self.buffer.capacity();
        }
        Poll::Pending
    }
}

#[cfg(fuzzing)]
impl<R> Inbox<R> {
    /// What waits is no more than one thing that has begun, which has at most so many bytes, and what was read with its end; room is made by what has
    /// come, and given back while nothing comes.
    pub(crate) fn held(&self, waits: bool, most: usize) {
        let (bytes, room) = (self.buffer.len(), self.buffer.capacity());
        assert!(bytes <= most + CHUNK, "{bytes} bytes wait");
        assert!(room as u64 <= 2 * self.heard + 64, "room for {room}, and {} have come", self.heard);
        assert!(!waits || room <= KEPT.max(4 * bytes), "room for {room} while {bytes} wait");
    }
}
