//! What carries frames.

use std::future::Future;
use std::io;

use bytes::Bytes;
use thiserror::Error;

/// A frame that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Of a transport that tells text from bytes: text.
    Text(Bytes),
    /// Of such a transport: bytes.
    Binary(Bytes),
    /// Of one that does not.
    Frame(Bytes),
    /// The other end has closed the connection, and said this code. The last that comes.
    Closed(u16),
}

/// A way to get to the other end.
pub trait Connector: std::fmt::Debug + Send + Sync + 'static {
    /// The half that frames come from.
    type Reader: FrameReader;
    /// The half that frames go to.
    type Writer: FrameWriter;

    /// Makes a connection, as a [visitor](crate::Visitor) of the other end.
    ///
    /// # Errors
    /// When the other end cannot be reached, or refuses: it is tried again later.
    fn connect(&self, visitor: &crate::Visitor) -> impl Future<Output = io::Result<(Self::Reader, Self::Writer)>> + Send;
}

/// Why a connection is closed by this end: the code and the reason of a WebSocket's close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// The code.
    pub code: u16,
    /// For people; at most 123 bytes.
    pub reason: &'a str,
}

impl Close<'_> {
    /// There is nothing more to say.
    pub const NORMAL: Close<'static> = Close { code: 1000, reason: "" };
    /// The other end does not keep to the protocol.
    pub const PROTOCOL: Close<'static> = Close { code: 1002, reason: "" };
    /// A frame is of the wrong kind.
    pub const KIND: Close<'static> = Close { code: 1003, reason: "" };
    /// The other end may not do what it wants to do.
    pub const POLICY: Close<'static> = Close { code: 1008, reason: "" };
    /// A frame is larger than it may be.
    pub const TOO_LARGE: Close<'static> = Close { code: 1009, reason: "" };
    /// The format is not spoken here. The client gives up.
    pub const FORMAT: u16 = 4001;
    /// The client has not proved that it is who it says it is. Over WebSockets this is HTTP status 403 instead, which a [`Connector`] gives as this code.
    pub const NOT_PROVED: u16 = 1008;
}

/// The other end has refused a connection, with the code and the reason of a close. Within the [`io::Error`] of a [`Connector`]: a client gives up at
/// [`Close::FORMAT`], and tries again at all others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the other end refuses the connection: {code} {reason}")]
pub struct Refused {
    /// The code.
    pub code: u16,
    /// For people.
    pub reason: String,
}

impl Refused {
    /// The one within an error, if it is one.
    pub(crate) fn of(error: &io::Error) -> Option<Refused> {
        error.get_ref()?.downcast_ref().cloned()
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionRefused, refused)
    }
}

/// The half of a connection that frames come from.
pub trait FrameReader: Send + 'static {
    /// The next frame; none at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection is broken. [`io::ErrorKind::InvalidData`] for a frame that is larger than it may be.
    fn read(&mut self) -> impl Future<Output = io::Result<Option<Incoming>>> + Send;

    /// Bytes that have come since the connection was made, also those of a frame of which the rest has not. By this a large frame that takes long is told
    /// from a silence; who does not know says 0, and is cut if a frame takes longer than [`Timings::silence`](crate::Timings::silence).
    fn heard(&self) -> u64 {
        0
    }
}

/// The half of a connection that frames go to.
pub trait FrameWriter: Send + 'static {
    /// Sends frames, text or not, and waits until they are on their way.
    ///
    /// # Errors
    /// When the connection is broken.
    fn write(&mut self, frames: &[Bytes], text: bool) -> impl Future<Output = io::Result<()>> + Send;

    /// Closes it.
    fn close(&mut self, close: Close<'_>) -> impl Future<Output = ()> + Send;
}
