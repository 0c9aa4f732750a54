//! WebSocket frames (RFC 6455) over a stream of bytes, both halves, of both ends.
//!
//! Rejected: the halves of tungstenite. A connection of its that waits holds 137 KiB, and 800 KiB after it has carried one message of 300; it makes
//! room for a frame by what the frame says of its length; and a server and a client of axum's needed a pair of halves each.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use crate::inbox::Inbox;
use crate::transport::{Close, FrameReader, FrameWriter, Incoming};
use crate::wire::limits;

const CONTINUED: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// In the first byte: the last frame of its message.
const LAST: u8 = 0x80;
/// In the second: what follows is masked.
const MASKED: u8 = 0x80;
/// Bytes of what a control frame says.
const CONTROL: usize = 125;
/// Bytes of answers to pings that wait for a writer. Whoever asks for more is not answered to each: the last one is enough, and goes out always.
const PONGS: usize = 1_024;
/// Messages that are written at once: more than the writer of a connection gives.
const MESSAGES: usize = 16;

/// Which end this is. A client's frames are masked, so that no proxy takes what a page says for a request; a server's are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Server,
    Client,
}

/// The half of a connection that frames come from.
pub struct WebReader<R = ReadHalf<TokioIo<Upgraded>>, W = WriteHalf<TokioIo<Upgraded>>> {
    end: End,
    inbox: Inbox<R>,
    /// What has come of a message that comes in several frames, and what it is of.
    begun: Option<(u8, BytesMut)>,
    /// Bytes of a message: few before the first one has come.
    most: usize,
    closed: bool,
    outbox: Arc<Mutex<Outbox<W>>>,
}

/// The half of a connection that frames go to.
pub struct WebWriter<W = WriteHalf<TokioIo<Upgraded>>> {
    end: End,
    outbox: Arc<Mutex<Outbox<W>>>,
}

/// What is written to: by the writer, and by the reader if it has a ping to answer and the writer is not at work.
struct Outbox<W> {
    stream: W,
    /// A message is written, or was in part when its writer was dropped: then nothing that is written now could be understood.
    busy: bool,
    /// Answers to pings that wait.
    pongs: BytesMut,
    /// Bytes of the last one of them.
    newest: usize,
    /// What the connection is closed with, whoever closes it: the other end has said what nobody says who speaks this.
    owed: Option<Close<'static>>,
}

impl<R, W> fmt::Debug for WebReader<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebReader").field("end", &self.end).field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

impl<W> fmt::Debug for WebWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebWriter").field("end", &self.end).finish_non_exhaustive()
    }
}

/// Both halves of what was upgraded.
pub(super) fn halves(end: End, upgraded: Upgraded) -> (WebReader, WebWriter) {
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    over(end, reader, writer)
}

pub(super) fn over<R, W>(end: End, reader: R, writer: W) -> (WebReader<R, W>, WebWriter<W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outbox = Arc::new(Mutex::new(Outbox { stream: writer, busy: false, pongs: BytesMut::new(), newest: 0, owed: None }));
    let inbox = Inbox::new(reader);
    let reader = WebReader { end, inbox, begun: None, most: limits::FIRST_FRAME, closed: false, outbox: outbox.clone() };
    (reader, WebWriter { end, outbox })
}

/// A message that should be text is none.
const NO_TEXT: Close<'static> = Close { code: 1007, reason: "" };

/// A frame that has come.
struct Come {
    code: u8,
    last: bool,
    said: BytesMut,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> WebReader<R, W> {
    /// The other end says what nobody says who speaks this, and is told so.
    fn strange(&self, what: &'static str, close: Close<'static>) -> io::Error {
        lock(&self.outbox).owed = Some(close);
        io::Error::other(what)
    }

    /// A frame that has come whole.
    fn take(&mut self) -> io::Result<Option<Come>> {
        let [first, second, rest @ ..] = &*self.inbox.buffer else { return Ok(None) };
        let (code, last, masked) = (first & 0x0f, first & LAST != 0, second & MASKED != 0);
        if first & 0x70 != 0 {
            return Err(self.strange("a frame of an extension that was not agreed upon", Close::PROTOCOL));
        }
        if masked != (self.end == End::Server) {
            return Err(self.strange("a client's frame that is not masked, or a server's that is", Close::PROTOCOL));
        }
        let (length, extended) = match second & !MASKED {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            length => (u64::from(length), 0),
        };
        let most = match code {
            CONTINUED | TEXT | BINARY => self.most - self.begun.as_ref().map_or(0, |(_, begun)| begun.len()),
            CLOSE | PING | PONG if last && length <= CONTROL as u64 => CONTROL,
            _ => return Err(self.strange("a frame of no kind, or one for control that is long or in parts", Close::PROTOCOL)),
        };
        let length = match usize::try_from(length) {
            Ok(length) if length <= most => length,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes, and there may be {most}"))),
        };
        let mask = match rest.get(extended..).and_then(<[u8]>::first_chunk::<4>) {
            Some(mask) if masked => Some(*mask),
            None if masked => return Ok(None),
            _ => None,
        };
        let head = 2 + extended + if masked { 4 } else { 0 };
        let Some(mut said) = self.inbox.take(head, length) else { return Ok(None) };
        if let Some(mask) = mask {
            xor(&mut said, mask);
        }
        Ok(Some(Come { code, last, said }))
    }

    /// What a frame makes: a whole message, or the end.
    fn put(&mut self, Come { code, last, said }: Come) -> io::Result<Option<Incoming>> {
        let (of, whole) = match (code, self.begun.take()) {
            (PING, begun) => {
                self.begun = begun;
                self.answer(&said);
                return Ok(None);
            }
            (PONG, begun) => {
                self.begun = begun;
                return Ok(None);
            }
            (CLOSE, _) => {
                self.closed = true;
                // 1005: it has said none.
                return Ok(Some(Incoming::Closed(said.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))));
            }
            (CONTINUED, Some((of, mut begun))) => {
                begun.extend_from_slice(&said);
                (of, begun)
            }
            (TEXT | BINARY, None) => (code, said),
            _ => return Err(self.strange("a message within a message, or the rest of none", Close::PROTOCOL)),
        };
        if !last {
            self.begun = Some((of, whole));
            return Ok(None);
        }
        self.most = limits::FRAME;
        if of == BINARY {
            return Ok(Some(Incoming::Binary(whole.freeze())));
        }
        match str::from_utf8(&whole) {
            Ok(_) => Ok(Some(Incoming::Text(whole.freeze()))),
            Err(_) => Err(self.strange("text that is none", NO_TEXT)),
        }
    }

    /// Answers a ping, now if nobody is writing: the writer may have nothing to say for long. It must not be waited for here, as whoever does not read
    /// would then not be read from.
    fn answer(&self, said: &[u8]) {
        let mut outbox = lock(&self.outbox);
        let outbox = &mut *outbox;
        let before = outbox.pongs.len();
        if before >= PONGS {
            // In place of the one before, of which nothing was written yet: there are others in front of it.
            outbox.pongs.truncate(before - outbox.newest);
        }
        let kept = outbox.pongs.len();
        push(&mut outbox.pongs, self.end, PONG, said);
        outbox.newest = outbox.pongs.len() - kept;
        if !outbox.busy {
            // What cannot be written at once goes out before the next message. Nobody else waits to be woken then.
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(())) = outbox.poll_pongs(&mut cx) {
                let _ = Pin::new(&mut outbox.stream).poll_flush(&mut cx);
            }
        }
    }
}

impl<R, W> FrameReader for WebReader<R, W>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        while !self.closed {
            match self.take()? {
                Some(come) => {
                    if let Some(incoming) = self.put(come)? {
                        return Ok(Some(incoming));
                    }
                }
                None if !self.inbox.more().await? => break,
                None => {}
            }
        }
        Ok(None)
    }

    fn heard(&self) -> u64 {
        self.inbox.heard
    }
}

fn lock<W>(outbox: &Mutex<Outbox<W>>) -> MutexGuard<'_, Outbox<W>> {
    // A stream that has panicked is as broken as it is.
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    fn poll_pongs(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pongs.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.pongs))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pongs.advance(written);
        }
        // No room is kept for what seldom comes.
        self.pongs = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> WebWriter<W> {
    /// Sends all of it, in one system call if there is room for it.
    async fn send(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        {
            let mut outbox = lock(&self.outbox);
            if outbox.busy {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            outbox.busy = true;
        }
        // Pings are answered before a message or after it, never within.
        let mut begun = false;
        poll_fn(|cx| {
            let mut outbox = lock(&self.outbox);
            if !begun {
                ready!(outbox.poll_pongs(cx))?;
                begun = true;
            }
            IoSlice::advance_slices(&mut parts, 0);
            while !parts.is_empty() {
                let written = ready!(Pin::new(&mut outbox.stream).poll_write_vectored(cx, parts))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                IoSlice::advance_slices(&mut parts, written);
            }
            ready!(outbox.poll_pongs(cx))?;
            ready!(Pin::new(&mut outbox.stream).poll_flush(cx))?;
            outbox.busy = false;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Messages of a client's are copied to be masked.
    async fn send_masked(&mut self, messages: &[Bytes], code: u8) -> io::Result<()> {
        let mut packed = BytesMut::with_capacity(messages.iter().map(|message| 14 + message.len()).sum());
        for message in messages {
            push(&mut packed, self.end, code, message);
        }
        self.send(&mut [IoSlice::new(&packed)]).await
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameWriter for WebWriter<W> {
    async fn write(&mut self, frames: &[Bytes], text: bool) -> io::Result<()> {
        let code = if text { TEXT } else { BINARY };
        let vectored = lock(&self.outbox).stream.is_write_vectored();
        for frames in frames.chunks(MESSAGES) {
            if self.end == End::Client || !vectored {
                self.send_masked(frames, code).await?;
                continue;
            }
            let mut heads = [([0; 10], 0); MESSAGES];
            for (at, frame) in heads.iter_mut().zip(frames) {
                *at = head(code, frame.len(), 0);
            }
            let mut parts = [IoSlice::new(&[]); 2 * MESSAGES];
            for ((parts, (head, length)), frame) in parts.chunks_exact_mut(2).zip(&heads).zip(frames) {
                (parts[0], parts[1]) = (IoSlice::new(&head[..*length]), IoSlice::new(frame));
            }
            self.send(&mut parts[..2 * frames.len()]).await?;
        }
        Ok(())
    }

    async fn close(&mut self, close: Close<'_>) {
        let close = lock(&self.outbox).owed.unwrap_or(close);
        let reason = &close.reason.as_bytes()[..close.reason.floor_char_boundary(CONTROL - 2)];
        let said = Bytes::from([&close.code.to_be_bytes(), reason].concat());
        // It may be closed already.
        let _ = self.send_masked(&[said], CLOSE).await;
        let _ = poll_fn(|cx| Pin::new(&mut lock(&self.outbox).stream).poll_shutdown(cx)).await;
    }
}

/// What comes before a message of one frame, and how many bytes that is.
fn head(code: u8, length: usize, masked: u8) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    head[0] = LAST | code;
    let size = match length {
        0..126 => {
            head[1] = length as u8;
            2
        }
        126..=0xffff => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    head[1] |= masked;
    (head, size)
}

/// Adds a message of one frame.
fn push(to: &mut BytesMut, end: End, code: u8, said: &[u8]) {
    let (head, size) = head(code, said.len(), if end == End::Client { MASKED } else { 0 });
    to.extend_from_slice(&head[..size]);
    if end == End::Server {
        return to.extend_from_slice(said);
    }
    // Guessed by nobody who writes what is masked: a program that is no browser does not run strangers' pages.
    let mask = fastrand::u32(..).to_ne_bytes();
    to.extend_from_slice(&mask);
    let at = to.len();
    to.extend_from_slice(said);
    xor(&mut to[at..], mask);
}

/// Masks, or takes the mask off.
fn xor(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(fuzzing)]
impl<R, W> crate::fuzzing::Held for WebReader<R, W>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    fn held(&self, waits: bool) {
        let begun = self.begun.as_ref().map_or(0, |(_, begun)| begun.len());
        self.inbox.held(waits, 14 + self.most - begun);
        assert!(begun <= self.most);
        assert!(lock(&self.outbox).pongs.len() <= PONGS + 2 * (6 + CONTROL));
    }
}

#[cfg(test)]
mod tests;
