//! Streams as values.

pub(crate) mod consumed;
mod context;
pub(crate) mod owned;
mod sending;
mod unread;

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};

use self::consumed::Consumed;
pub(crate) use self::context::Within;
use self::sending::Source;
use crate::failure::Failure;
use crate::wire::{Arguments, Format, StreamRef, WriteError, Writer};

/// A stream that goes from one process to another: in a result, in an argument, or anywhere within one, both ways.
///
/// Whoever makes it gives it a [source](RpcStream::new), and sends it once. Whoever gets it reads it, and nothing is sent before that. Items are sent as far ahead as the
/// window says, a consumer that is slow slows the source. Through a reconnection it goes on where it was, unless it is made not to.
pub struct RpcStream<T> {
    window: Window,
    end: Mutex<End>,
    /// Which decoder there is to be: none is sent between threads.
    _items: PhantomData<fn() -> T>,
}

/// How a stream is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    ack_period: u32,
    ack_advance: u32,
    reconnects: bool,
    real_time: bool,
}

enum End {
    /// To be sent.
    Here(Box<dyn Source>),
    /// It was sent: this stands for it.
    Sent(StreamRef),
    /// To be read.
    There(Arc<Consumed>),
}

impl<T> fmt::Debug for RpcStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcStream").field("window", &self.window).finish_non_exhaustive()
    }
}

/// Writes the items of a stream.
struct Items<S>(Pin<Box<S>>);

impl<S, T> Source for Items<S>
where
    S: Stream<Item = Result<T, Failure>> + Send,
    T: Serialize,
{
    fn poll_next(&mut self, cx: &mut Context<'_>, format: Format, out: &mut Vec<u8>) -> Poll<Option<Result<(), Failure>>> {
        let Some(item) = ready!(self.0.as_mut().poll_next(cx)) else { return Poll::Ready(None) };
        let written = item.and_then(|item| {
            let written: Result<(), WriteError> = Writer::new(format, out).value(&item);
            written.map_err(|_| Failure::new("an item cannot be sent: it is not for this format"))
        });
        Poll::Ready(Some(written))
    }
}

impl<T: Serialize + 'static> RpcStream<T> {
    /// One that ends without a failure.
    pub fn new(source: impl Stream<Item = T> + Send + 'static) -> RpcStream<T> {
        use futures_util::StreamExt;
        RpcStream::try_new(source.map(Ok))
    }

    /// One whose first failure is its end.
    pub fn try_new(source: impl Stream<Item = Result<T, Failure>> + Send + 'static) -> RpcStream<T> {
        let window = Window { ack_period: StreamRef::ACK_PERIOD, ack_advance: StreamRef::ACK_ADVANCE, reconnects: true, real_time: false };
        RpcStream { window, end: Mutex::new(End::Here(Box::new(Items(Box::pin(source))))), _items: PhantomData }
    }
}

impl<T> RpcStream<T> {
    /// After how many items that were read the reader says so, and how many are sent ahead of that: 30 and 61 if nothing is said. Both are at least
    /// one, and a reader that said less often than items are sent ahead would wait for ever.
    ///
    /// A reader fails a stream of which more than 128 MiB wait, or 256 MiB of all streams of its connection: a stream of items of more than 2 MiB needs
    /// a smaller window.
    #[must_use]
    pub fn window(mut self, ack_period: u32, ack_advance: u32) -> RpcStream<T> {
        let ack_advance = ack_advance.max(1);
        (self.window.ack_period, self.window.ack_advance) = (ack_period.clamp(1, ack_advance), ack_advance);
        self
    }

    /// Its source is not slowed by a reader that is: of the items that come while the [window](RpcStream::window) is full only the newest is sent. What is
    /// in the window waits, also for a connection: a small one makes for fresh items.
    #[must_use]
    pub fn real_time(mut self) -> RpcStream<T> {
        self.window.real_time = true;
        self
    }

    /// It fails where the connection breaks.
    #[must_use]
    pub fn without_reconnection(mut self) -> RpcStream<T> {
        self.window.reconnects = false;
        self
    }
}

impl<T: DeserializeOwned> RpcStream<T> {
    /// The next item of a stream that was received; a failure is the last. Dropping the future loses nothing.
    ///
    /// A stream that was made here has nothing to be read.
    pub async fn next(&mut self) -> Option<Result<T, Failure>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<T: DeserializeOwned> Stream for RpcStream<T> {
    type Item = Result<T, Failure>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T, Failure>>> {
        let End::There(consumed) = &*self.end.lock().unwrap_or_else(PoisonError::into_inner) else { return Poll::Ready(None) };
        let Some(item) = ready!(consumed.poll_next(cx)) else { return Poll::Ready(None) };
        let read = |item: Box<[u8]>| {
            let read = Arguments::new(consumed.format(), &item).read();
            read.map_err(|error| consumed.leave(Failure::new(format!("an item cannot be read: {error}"))))
        };
        // Read with the peer at hand: an item may have a stream in it.
        Poll::Ready(Some(item.and_then(|item| consumed.within(|| read(item)))))
    }
}

impl<T> Serialize for RpcStream<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = match std::mem::replace(&mut *end, End::Sent(StreamRef::new(Default::default(), 0))) {
            End::Here(source) => match context::current() {
                Some(peer) => match peer.streams().share(&peer, source, self.window) {
                    Ok(stream) => stream,
                    Err(source) => {
                        *end = End::Here(source);
                        return Err(S::Error::custom("there are more streams than anybody reads"));
                    }
                },
                None => {
                    *end = End::Here(source);
                    return Err(S::Error::custom("a stream can only be sent in a call or its result"));
                }
            },
            // Written a second time, to the same end.
            End::Sent(stream) if context::current().is_some_and(|peer| peer.id == stream.host) => stream,
            End::Sent(stream) => {
                *end = End::Sent(stream);
                return Err(S::Error::custom("a stream can be sent to one end only"));
            }
            there @ End::There(_) => {
                *end = there;
                return Err(S::Error::custom("a stream that was received cannot be sent on as it is: make one of its items"));
            }
        };
        *end = End::Sent(stream);
        drop(end);
        stream.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for RpcStream<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RpcStream<T>, D::Error> {
        let stream = StreamRef::deserialize(deserializer)?;
        let peer = context::current().ok_or_else(|| serde::de::Error::custom("a stream can only come in a call or its result"))?;
        let StreamRef { ack_period, ack_advance, reconnects, real_time, .. } = stream;
        let window = Window { ack_period, ack_advance, reconnects, real_time };
        let consumed = peer.streams().consume(&peer, stream).map_err(serde::de::Error::custom)?;
        Ok(RpcStream { window, end: Mutex::new(End::There(consumed)), _items: PhantomData })
    }
}
