//! How a fuzzer reads, and writes: see `fuzzing` of sockets and of WebSockets, which are not part of the interface.
//!
//! Bytes come piece by piece. At each pause the reader is asked what it holds, and its future is dropped.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join;

use crate::transport::{Close, FrameReader, FrameWriter, Incoming};

/// What has come, and how it has ended.
pub(crate) type Come = (Vec<Incoming>, Result<(), io::ErrorKind>);

/// A reader that holds no more than it may.
pub(crate) trait Held: FrameReader {
    /// Panics otherwise. While it waits that is less.
    fn held(&self, waits: bool);
}

/// Reads until the end.
pub(crate) fn read(reader: &mut impl Held) -> Come {
    let mut all = Vec::new();
    loop {
        let read = reader.read().now_or_never();
        reader.held(read.is_none());
        match read {
            None => {}
            Some(Ok(Some(incoming))) => all.push(incoming),
            Some(Ok(None)) => return (all, Ok(())),
            Some(Err(error)) => return (all, Err(error.kind())),
        }
    }
}

/// What one end reads of what the other writes, and closes with.
pub(crate) fn across(mut writer: impl FrameWriter, mut reader: impl FrameReader, frames: &[Bytes], text: bool, close: Close<'_>) -> Come {
    let writing = async {
        let written = writer.write(frames, text).await;
        writer.close(close).await;
        written.map_err(|error| error.kind())
    };
    let reading = async {
        let mut all = Vec::new();
        while let Some(incoming) = reader.read().await.map_err(|error| error.kind())? {
            all.push(incoming);
        }
        Ok(all)
    };
    match done(join(writing, reading)) {
        (Ok(()), Ok(all)) => (all, Ok(())),
        (Err(end), _) | (_, Err(end)) => (Vec::new(), Err(end)),
    }
}

/// What a future that waits for nobody but itself comes to.
pub(crate) fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..1 << 22 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
    panic!("it waits for somebody");
}
