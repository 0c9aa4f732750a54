//! Frames: messages, one after the other.

use std::fmt;

use thiserror::Error;

use super::format::Format;
use super::message::{Head, Malformed, Message};
use super::value::{WriteError, Writer};
use super::{binary, limits, text};

/// The messages of a frame that was read, each or why it could not be read. After a binary one that cannot be read the rest is not given out, as
/// nobody knows where the next one begins; after a text one it goes on with the next.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    format: Format,
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Of a frame.
    pub fn new(format: Format, frame: &'a [u8]) -> Messages<'a> {
        Messages { format, rest: frame }
    }

    /// Whether nothing is left: there may be bytes left that are no message.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.format.is_text() {
            return text::next(&mut self.rest);
        }
        if self.rest.is_empty() {
            return None;
        }
        let compact = self.format.is_compact();
        if compact && let Some(message) = binary::read_plain(&mut self.rest) {
            return Some(Ok(message));
        }
        let message = binary::read(&mut self.rest, compact);
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

/// A frame to be sent.
#[derive(Clone)]
pub struct Frame {
    format: Format,
    bytes: Vec<u8>,
}

/// Why a message cannot be sent. The frame is as it was before.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The arguments have more than [`limits::ARGUMENTS`] bytes, or would not fit into any frame.
    #[error("the arguments of a message have {0} bytes, and may have {limit}", limit = limits::ARGUMENTS)]
    TooLarge(usize),
    /// Too many headers, or one that is too long.
    #[error("the headers of a message are too many or too long")]
    Headers,
    /// An argument cannot be written in this format.
    #[error(transparent)]
    Value(#[from] WriteError),
}

impl fmt::Debug for Frame {
    /// Without what is in it, which is not for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("format", &self.format).field("bytes", &self.bytes.len()).finish()
    }
}

impl Frame {
    /// An empty one.
    pub fn new(format: Format) -> Frame {
        Frame { format, bytes: Vec::new() }
    }

    /// The format of all its messages.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes what is to be sent away.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Makes room for so many bytes.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }

    /// Takes the messages from a place on, at which one begins, into a frame of their own.
    pub(crate) fn split_last(&mut self, at: usize) -> Frame {
        let mut bytes = self.bytes.split_off(at);
        if self.format.is_text() {
            bytes.drain(..text::SEPARATOR);
        }
        Frame { format: self.format, bytes }
    }

    /// Adds a message. Its arguments are written by a function, which is called once.
    ///
    /// # Errors
    /// If the message is larger than it may be, or the function fails. A frame that has other messages already may become larger than [`limits::FRAME`]:
    /// whoever adds to it sees to it that it is sent long before.
    pub fn push<W>(&mut self, head: &Head<'_>, arguments: W) -> Result<(), FrameError>
    where
        W: FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    {
        let mut undo = Undo { before: self.bytes.len(), frame: self };
        undo.frame.try_push(head, arguments)?;
        undo.before = undo.frame.bytes.len();
        Ok(())
    }

    fn try_push<W>(&mut self, head: &Head<'_>, arguments: W) -> Result<(), FrameError>
    where
        W: FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    {
        let out = &mut self.bytes;
        if self.format.is_text() {
            let first = out.is_empty();
            text::begin(out, head, first)?;
            let begin = out.len();
            arguments(&mut Writer::new(self.format, out))?;
            return within(out.len() - begin);
        }
        let length_at = binary::begin(out, head, self.format.is_compact())?;
        let begin = out.len();
        arguments(&mut Writer::new(self.format, out))?;
        within(out.len() - begin)?;
        binary::end(out, head, length_at)
    }
}

/// Takes a message out again that is not whole, also when whatever writes its arguments panics.
struct Undo<'f> {
    before: usize,
    frame: &'f mut Frame,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.frame.bytes.truncate(self.before);
    }
}

fn within(length: usize) -> Result<(), FrameError> {
    if length > limits::ARGUMENTS { Err(FrameError::TooLarge(length)) } else { Ok(()) }
}
