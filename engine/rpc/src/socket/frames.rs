//! Frames over a stream of bytes, both halves.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::inbox::Inbox;
use crate::transport::{Close, FrameReader, FrameWriter, Incoming};
use crate::wire::limits;

/// Bytes before what a unit says.
const HEAD: usize = 4;
/// Frames that are written at once: more than the writer of a connection gives.
const FRAMES: usize = 16;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Welcome = 2,
    Frame = 3,
    Close = 4,
}

impl Kind {
    fn of(byte: u8) -> io::Result<Kind> {
        match byte {
            1 => Ok(Kind::Hello),
            2 => Ok(Kind::Welcome),
            3 => Ok(Kind::Frame),
            4 => Ok(Kind::Close),
            _ => Err(strange()),
        }
    }

    fn head(self, length: usize) -> [u8; HEAD] {
        let [_, high, middle, low] = (length as u32).to_be_bytes();
        [self as u8, high, middle, low]
    }
}

/// Bytes of what a client says of itself.
const HELLO: usize = 1_024;
/// Bytes of a close code and its reason.
const CLOSE: usize = 125;

/// The other end says what nobody says who speaks this.
pub(super) fn strange() -> io::Error {
    io::Error::other("the other end does not speak this protocol")
}

/// The half of a connection that frames come from.
#[derive(Debug)]
pub struct SocketReader<R> {
    inbox: Inbox<R>,
    /// Bytes of a frame: few before the first one has come.
    most: usize,
    closed: bool,
}

impl<R: AsyncRead + Unpin + Send> SocketReader<R> {
    pub(super) fn new(stream: R) -> SocketReader<R> {
        SocketReader { inbox: Inbox::new(stream), most: limits::FIRST_FRAME, closed: false }
    }

    /// Reads what has to be next, byte for byte. Whoever begins otherwise is not heard to the end.
    pub(super) async fn expect(&mut self, expected: &[u8]) -> io::Result<()> {
        loop {
            let come = self.inbox.buffer.len().min(expected.len());
            if self.inbox.buffer[..come] != expected[..come] {
                return Err(strange());
            }
            if come == expected.len() {
                self.inbox.buffer.advance(come);
                return Ok(());
            }
            if !self.inbox.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next unit; none at the end. Dropping the future loses nothing.
    pub(super) async fn unit(&mut self) -> io::Result<Option<(Kind, Bytes)>> {
        loop {
            if let Some(unit) = self.take()? {
                return Ok(Some(unit));
            }
            if !self.inbox.more().await? {
                return Ok(None);
            }
        }
    }

    /// A unit that has come whole.
    fn take(&mut self) -> io::Result<Option<(Kind, Bytes)>> {
        let Some(first) = self.inbox.buffer.first() else { return Ok(None) };
        let kind = Kind::of(*first)?;
        let Some([_, high, middle, low]) = self.inbox.buffer.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let most = match kind {
            Kind::Hello => HELLO,
            Kind::Welcome => 0,
            Kind::Frame => self.most,
            Kind::Close => CLOSE,
        };
        if length > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes, and there may be {most}")));
        }
        let Some(said) = self.inbox.take(HEAD, length) else { return Ok(None) };
        if kind == Kind::Frame {
            self.most = limits::FRAME;
        }
        Ok(Some((kind, said.freeze())))
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> FrameReader for SocketReader<R> {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        if self.closed {
            return Ok(None);
        }
        match self.unit().await? {
            None => Ok(None),
            Some((Kind::Frame, frame)) => Ok(Some(Incoming::Frame(frame))),
            Some((Kind::Close, said)) => {
                self.closed = true;
                Ok(Some(Incoming::Closed(close_of(&said).0)))
            }
            Some(_) => Err(strange()),
        }
    }

    fn heard(&self) -> u64 {
        self.inbox.heard
    }
}

/// What a close unit says: the code, 1005 if there is none, and the reason.
pub(super) fn close_of(said: &[u8]) -> (u16, String) {
    match said.split_first_chunk() {
        Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
        None => (1005, String::new()),
    }
}

/// The half of a connection that frames go to.
pub struct SocketWriter<W> {
    stream: W,
    /// A unit may have been written in part: nothing that is written now could be understood.
    torn: bool,
}

impl<W> fmt::Debug for SocketWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketWriter").field("torn", &self.torn).finish_non_exhaustive()
    }
}

impl<W: AsyncWrite + Unpin + Send> SocketWriter<W> {
    pub(super) fn new(stream: W) -> SocketWriter<W> {
        SocketWriter { stream, torn: false }
    }

    /// Sends one unit, after what comes before it.
    pub(super) async fn say(&mut self, before: &[u8], kind: Kind, said: &[u8]) -> io::Result<()> {
        self.send(&mut [IoSlice::new(before), IoSlice::new(&kind.head(said.len())), IoSlice::new(said)]).await
    }

    /// Sends all of it, in one system call if there is room for it.
    async fn send(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        if self.torn {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.torn = true;
        if self.stream.is_write_vectored() {
            // What is empty is not there.
            IoSlice::advance_slices(&mut parts, 0);
            while !parts.is_empty() {
                let written = poll_fn(|cx| Pin::new(&mut self.stream).poll_write_vectored(cx, parts)).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                IoSlice::advance_slices(&mut parts, written);
            }
        } else {
            let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            self.stream.write_all(&whole).await?;
        }
        self.stream.flush().await?;
        self.torn = false;
        Ok(())
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameWriter for SocketWriter<W> {
    async fn write(&mut self, frames: &[Bytes], _text: bool) -> io::Result<()> {
        if let Some(frame) = frames.iter().find(|frame| frame.len() > limits::FRAME) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a frame of {} bytes", frame.len())));
        }
        for frames in frames.chunks(FRAMES) {
            let mut heads = [[0; HEAD]; FRAMES];
            for (head, frame) in heads.iter_mut().zip(frames) {
                *head = Kind::Frame.head(frame.len());
            }
            let mut parts = [IoSlice::new(&[]); 2 * FRAMES];
            for ((parts, head), frame) in parts.chunks_exact_mut(2).zip(&heads).zip(frames) {
                (parts[0], parts[1]) = (IoSlice::new(head), IoSlice::new(frame));
            }
            self.send(&mut parts[..2 * frames.len()]).await?;
        }
        Ok(())
    }

    async fn close(&mut self, close: Close<'_>) {
        let mut said = Vec::with_capacity(CLOSE);
        said.extend_from_slice(&close.code.to_be_bytes());
        said.extend_from_slice(&close.reason.as_bytes()[..close.reason.floor_char_boundary(CLOSE - 2)]);
        // The connection is gone either way.
        let _ = self.say(&[], Kind::Close, &said).await;
        let _ = self.stream.shutdown().await;
    }
}

#[cfg(fuzzing)]
impl<R: AsyncRead + Unpin + Send + 'static> crate::fuzzing::Held for SocketReader<R> {
    fn held(&self, waits: bool) {
        self.inbox.held(waits, HEAD + self.most);
    }
}

#[cfg(test)]
mod tests;
