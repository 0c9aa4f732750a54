//! One connection of a peer, from the handshakes to its end.
//!
//! A task reads and runs what is called, another writes. The reader does not read on while too much waits to be written: whoever does not read its
//! answers is not asked for more questions.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::peer::{Peer, Recent};
use crate::service::Slot;
use crate::transport::{Close, FrameReader, FrameWriter, Incoming};
use crate::wire::{Arguments, Format, Frame, FrameError, Handshake, Head, Messages, System, limits};

/// Serves a connection until its end, or until it is to end; the code that the other end has closed it with. Says when the handshakes are over.
pub(crate) async fn serve<R: FrameReader, W: FrameWriter>(
    peer: Arc<Peer>,
    mut reader: R,
    mut writer: W,
    replaced: watch::Receiver<bool>,
    greeted: impl FnOnce(),
) -> Option<u16> {
    let hello = match greet(&peer, &mut reader, &mut writer).await {
        Ok(hello) => hello,
        Err(Refused(close, said)) => {
            writer.close(close).await;
            return said;
        }
    };
    // It was read once, to see whether it can be.
    if let Some(handshake) = hello.read() {
        peer.met(&handshake);
    }
    greeted();
    let writing = tokio::spawn(write(peer.clone(), writer, replaced));
    let abort = writing.abort_handle();
    let reading = read(&peer, reader, &hello.frame);
    let mut writing = pin!(writing);
    let ((close, said), written) = tokio::select! {
        ended = reading => (ended, None),
        written = &mut writing => ((Close::NORMAL, None), Some(written)),
    };
    peer.out.end(close.code);
    let written = match written {
        Some(written) => written,
        None => match timeout(peer.hub.timings.close, &mut writing).await {
            Ok(written) => written,
            Err(_) => {
                abort.abort();
                writing.await
            }
        },
    };
    // A writer that was given up takes what it had sent with it: it is found again by whoever asks.
    peer.lost(written.unwrap_or_default());
    said
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
    let limit = peer.hub.timings.handshake;
    let first = timeout(limit, async {
        let mut frame = Frame::new(peer.format);
        frame.push(&Head::system(System::Handshake, 0), |out| out.value(&peer.greet())).map_err(unwritten)?;
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

fn unwritten(error: FrameError) -> io::Error {
    io::Error::other(error.to_string())
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
async fn read<R: FrameReader>(peer: &Arc<Peer>, mut reader: R, first: &Bytes) -> (Close<'static>, Option<u16>) {
    let mut slot = Slot::new(async {});
    let mut alive = Instant::now();
    // The handshake in it is known, and said once.
    run(peer, first, &mut slot, &mut alive);
    loop {
        peer.out.room().await;
        let frame = tokio::select! {
            frame = reader.read() => frame,
            () = tokio::time::sleep_until(alive + peer.hub.timings.silence) => return (Close::NORMAL, None),
            () = peer.out.overflow() => return (Close::NORMAL, None),
        };
        match frame {
            Ok(Some(Incoming::Closed(code))) => return (Close::NORMAL, Some(code)),
            Ok(Some(frame)) => match expected(frame, peer.format.is_text()) {
                Some(frame) if frame.len() > limits::FRAME => return (Close::TOO_LARGE, None),
                Some(frame) => run(peer, &frame, &mut slot, &mut alive),
                None => return (Close::KIND, None),
            },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return (Close::TOO_LARGE, None),
            Ok(None) | Err(_) => return (Close::NORMAL, None),
        }
        // A client that sends without a pause must not keep others of this thread from their turn.
        tokio::task::consume_budget().await;
    }
}

/// Runs what is called in a frame. All that is answered at once goes into one frame.
fn run(peer: &Arc<Peer>, frame: &[u8], slot: &mut Slot, alive: &mut Instant) {
    let _cork = peer.out.cork();
    for message in Messages::new(peer.format, frame) {
        match message {
            Ok(message) => {
                if System::of(&message.method) == Some(System::KeepAlive) {
                    *alive = Instant::now();
                }
                peer.receive(&message, slot);
            }
            Err(error) => tracing::debug!(target: "wellspring::rpc", %error, "a message cannot be read"),
        }
    }
}

/// Writes until the end; what was written last.
async fn write<W: FrameWriter>(peer: Arc<Peer>, mut writer: W, mut replaced: watch::Receiver<bool>) -> Vec<Bytes> {
    let text = peer.format.is_text();
    let mut recent = Recent::default();
    let mut next = Instant::now() + peer.hub.timings.keep_alive;
    let close = loop {
        let frames = tokio::select! {
            biased;
            _ = replaced.wait_for(|replaced| *replaced) => break Close::NORMAL,
            frames = peer.out.take() => match frames {
                Ok(frames) => frames,
                Err(code) => break Close { code, reason: "" },
            },
            () = peer.stale_come.notified() => {
                peer.tell_stale();
                continue;
            }
            () = tokio::time::sleep_until(next) => {
                next += peer.hub.timings.keep_alive;
                // Nothing is consumed from the other end, and a list of nothing can always be written.
                let _ = peer.out.push(&Head::system(System::KeepAlive, 0), |out| out.value(&[0_u64; 0]));
                continue;
            }
        };
        let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
        for frame in &frames {
            recent.add(frame.clone());
        }
        let written = tokio::select! {
            written = writer.write(&frames, text) => written,
            _ = replaced.wait_for(|replaced| *replaced) => break Close::NORMAL,
        };
        if written.is_err() {
            break Close::NORMAL;
        }
    };
    writer.close(close).await;
    recent.take()
}
