//! One connection of a peer, from the handshakes to its end.
//!
//! A task reads and runs what is called, another writes. A server does not read on while too much waits to be written: whoever does not read its
//! answers is not asked for more questions. A client always reads, or both could wait for each other; its own calls wait for room instead.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::hub::Timings;
use crate::peer::Peer;
use crate::recent::Recent;
use crate::slots::Slots;
use crate::streams::Within;
use crate::transport::{Close, FrameReader, FrameWriter, Incoming};
use crate::wire::{Arguments, Format, Frame, Handshake, Head, Messages, System, limits};

/// Serves a connection until its end, or until it is to end; the code that the other end has closed it with. Says when the handshakes are over.
pub(crate) async fn serve<R: FrameReader, W: FrameWriter>(
    peer: Arc<Peer>,
    mut reader: R,
    mut writer: W,
    mut replaced: watch::Receiver<bool>,
    greeted: impl FnOnce(),
) -> Option<u16> {
    let hello = tokio::select! {
        hello = greet(&peer, &mut reader, &mut writer) => hello,
        _ = replaced.wait_for(|replaced| *replaced) => Err(Refused(Close::NORMAL, None)),
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(Refused(with, said)) => {
            close(&mut writer, with, &peer.offer.timings).await;
            return said;
        }
    };
    // It was read once, to see whether it can be.
    if let Some(handshake) = hello.read() {
        peer.met(&handshake);
    }
    greeted();
    let recent = Arc::new(Mutex::new(Recent::default()));
    let mut writing = tokio::spawn(write(peer.clone(), writer, replaced, recent.clone()));
    let ((close, said), written) = tokio::select! {
        ended = read(&peer, reader, hello.frame) => (ended, false),
        _ = &mut writing => ((Close::NORMAL, None), true),
    };
    peer.out.end(close.code);
    // It says good-bye by itself, if the other end lets it.
    if !written && timeout(2 * peer.offer.timings.close, &mut writing).await.is_err() {
        writing.abort();
    }
    let recent = recent.lock().unwrap_or_else(PoisonError::into_inner).take();
    peer.lost(recent);
    said
}

/// Closes a connection, unless the other end does not let it be closed.
pub(crate) async fn close<W: FrameWriter>(writer: &mut W, close: Close<'_>, timings: &Timings) {
    // The connection is gone either way.
    let _ = timeout(timings.close, writer.close(close)).await;
}

/// What the other end has said first: a frame, of which the handshake is the first message.
struct Hello {
    format: Format,
    frame: Bytes,
}

impl Hello {
    fn read(&self) -> Option<Handshake<'_>> {
        let message = Messages::new(self.format, &self.frame).next()?.ok()?;
        if System::of(&message.method) != Some(System::Handshake) {
            return None;
        }
        Arguments::new(self.format, message.arguments).read().ok()
    }
}

/// The connection is closed, like this; or was, by the other end.
struct Refused(Close<'static>, Option<u16>);

async fn greet<R: FrameReader, W: FrameWriter>(peer: &Peer, reader: &mut R, writer: &mut W) -> Result<Hello, Refused> {
    let limit = peer.offer.timings.handshake;
    let first = timeout(limit, async {
        let mut frame = Frame::new(peer.format);
        frame.push(&Head::system(System::Handshake, 0), |out| out.value(&peer.greet())).map_err(io::Error::other)?;
        writer.write(&[frame.take().into()], peer.format.is_text()).await?;
        reader.read().await
    });
    let frame = match first.await {
        Ok(Ok(Some(Incoming::Closed(code)))) => return Err(Refused(Close::NORMAL, Some(code))),
        Ok(Ok(Some(frame))) => expected(frame, peer.format.is_text()).ok_or(Refused(Close::KIND, None))?,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(Refused(Close::TOO_LARGE, None)),
        _ => return Err(Refused(Close::NORMAL, None)),
    };
    if frame.len() > limits::FIRST_FRAME {
        return Err(Refused(Close::TOO_LARGE, None));
    }
    let hello = Hello { format: peer.format, frame };
    match hello.read() {
        Some(handshake) if handshake.protocol == Handshake::PROTOCOL => Ok(hello),
        _ => Err(Refused(Close::PROTOCOL, None)),
    }
}

/// A frame of the kind that the format has.
fn expected(frame: Incoming, text: bool) -> Option<Bytes> {
    match frame {
        Incoming::Frame(frame) => Some(frame),
        Incoming::Text(frame) if text => Some(frame),
        Incoming::Binary(frame) if !text => Some(frame),
        Incoming::Text(_) | Incoming::Binary(_) | Incoming::Closed(_) => None,
    }
}

/// Reads and runs until the end, which is to be like this; or the code that the other end has said.
async fn read<R: FrameReader>(peer: &Arc<Peer>, mut reader: R, first: Bytes) -> (Close<'static>, Option<u16>) {
    let mut slots = Slots::default();
    // How long it was listened to the other end since its last sign of life. Time in which nobody listens is not its silence.
    let mut silent = Duration::ZERO;
    // The handshake in it is known, and said once.
    let mut frame = first;
    loop {
        if !run(peer, frame, &mut slots, &mut silent).await || !room(peer, &mut silent).await {
            return (Close::NORMAL, None);
        }
        frame = match next(peer, &mut reader, &mut silent).await {
            Some(Ok(Some(Incoming::Closed(code)))) => return (Close::NORMAL, Some(code)),
            Some(Ok(Some(frame))) => match expected(frame, peer.format.is_text()) {
                Some(frame) if frame.len() > limits::FRAME => return (Close::TOO_LARGE, None),
                Some(frame) => frame,
                None => return (Close::KIND, None),
            },
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return (Close::TOO_LARGE, None),
            Some(Ok(None) | Err(_)) | None => return (Close::NORMAL, None),
        };
    }
}

/// Bytes of a frame that is on its way, in the time of a silence, that are a sign of life: its sender can give no other one before it has come.
const LIVELY: u64 = 64 << 10;

/// What comes next; none if nothing is sent any more, or the other end is silent for too long.
async fn next<R: FrameReader>(peer: &Peer, reader: &mut R, silent: &mut Duration) -> Option<io::Result<Option<Incoming>>> {
    let mut heard = reader.heard();
    loop {
        let since = Instant::now();
        tokio::select! {
            biased;
            _ = peer.out.ended() => return None,
            // Before the silence: what has come is heard, however late it is looked for.
            come = reader.read() => {
                *silent += since.elapsed();
                return Some(come);
            }
            () = tokio::time::sleep(peer.offer.timings.silence.saturating_sub(*silent)) => {}
        }
        let now = reader.heard();
        if now.saturating_sub(heard) < LIVELY {
            return None;
        }
        (heard, *silent) = (now, Duration::ZERO);
    }
}

/// Waits until the other end has read enough of its answers, which is a sign of life; false if it does not.
async fn room(peer: &Peer, silent: &mut Duration) -> bool {
    if !peer.is_server() || !peer.out.is_high() {
        return true;
    }
    let has_read = timeout(peer.offer.timings.silence, peer.out.room()).await.is_ok();
    if has_read {
        *silent = Duration::ZERO;
    }
    has_read
}

/// Messages after which others get their turn, and it is seen how much waits to be sent.
const TURN: usize = 256;

/// Runs what is called in a frame; false if the connection is to end. What is answered at once goes into one frame, as far as frames go. The frame is
/// not held any longer: it may be a part of a larger buffer.
async fn run(peer: &Arc<Peer>, frame: Bytes, slots: &mut Slots, silent: &mut Duration) -> bool {
    let mut messages = Messages::new(peer.format, &frame);
    while !messages.is_over() {
        {
            let (_cork, _within) = (peer.out.cork(), Within::of(peer));
            for message in messages.by_ref().take(TURN) {
                match message {
                    Ok(message) => {
                        if peer.receive(&message, slots) == Some(System::KeepAlive) {
                            *silent = Duration::ZERO;
                            // Now and then: who only gives signs of life has no room for calls.
                            slots.rest();
                        }
                    }
                    Err(error) => tracing::debug!(target: "wellspring::rpc", %error, "a message cannot be read"),
                }
                if peer.is_server() && peer.out.is_high() {
                    break;
                }
            }
        }
        if !messages.is_over() {
            tokio::task::yield_now().await;
            // Whoever does not read its answers is not answered.
            if !room(peer, silent).await || peer.out.is_ended() {
                return false;
            }
        }
    }
    true
}

/// Writes until the end. What it has written last is there for whoever outlives it.
async fn write<W: FrameWriter>(peer: Arc<Peer>, mut writer: W, mut replaced: watch::Receiver<bool>, recent: Arc<Mutex<Recent>>) {
    let text = peer.format.is_text();
    let mut next = Instant::now() + peer.offer.timings.keep_alive;
    let with = loop {
        let untracked = peer.next_untracked().unwrap_or(next);
        // Signs of life and ends first: answers may never stop coming.
        let frames = tokio::select! {
            biased;
            _ = replaced.wait_for(|replaced| *replaced) => break Close::NORMAL,
            () = tokio::time::sleep_until(next) => {
                next += peer.offer.timings.keep_alive;
                peer.presume_reconciled();
                peer.tell_stale();
                peer.streams().expire();
                peer.out.rest();
                // Before whatever waits: on a slow link that may take longer than the other end waits for a sign of life.
                let mut frame = Frame::new(peer.format);
                let consumed = peer.streams().consumed();
                // A list of numbers can always be written.
                let _ = frame.push(&Head::system(System::KeepAlive, 0), |out| out.value(&consumed));
                Ok(vec![frame.take()])
            }
            () = peer.stale_come.notified() => {
                peer.tell_stale();
                continue;
            }
            () = tokio::time::sleep_until(untracked), if untracked < next => {
                peer.tell_stale();
                continue;
            }
            frames = peer.out.take() => frames,
        };
        let frames = match frames {
            Ok(frames) => frames,
            Err(code) => break Close { code, reason: "" },
        };
        peer.made.pump(&peer.out);
        let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
        {
            let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
            frames.iter().for_each(|frame| recent.add(frame.clone()));
        }
        let written = tokio::select! {
            written = writer.write(&frames, text) => written,
            _ = replaced.wait_for(|replaced| *replaced) => break Close::NORMAL,
            code = peer.out.ended() => break Close { code, reason: "" },
        };
        if written.is_err() {
            break Close::NORMAL;
        }
    };
    close(&mut writer, with, &peer.offer.timings).await;
}
