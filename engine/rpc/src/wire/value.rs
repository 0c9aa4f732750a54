//! Arguments and results.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

use super::bounded::First;
use super::format::Format;
use super::{json, msgpack, text};

/// A value that cannot be read: why. The words may quote the value, so they are for whoever has sent it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ReadError(Box<str>);

/// A value that cannot be written in a format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct WriteError(Box<str>);

impl ReadError {
    pub(crate) fn new(reason: impl Into<Box<str>>) -> ReadError {
        ReadError(reason.into())
    }

    pub(super) fn short() -> ReadError {
        ReadError::new("the value ends before it is complete")
    }

    pub(super) fn deep() -> ReadError {
        ReadError::new("too many values within values")
    }
}

impl WriteError {
    pub(super) fn new(reason: impl Into<Box<str>>) -> WriteError {
        WriteError(reason.into())
    }
}

/// The arguments of a message that was read, one after the other.
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    format: Format,
    rest: &'a [u8],
}

impl<'a> Arguments<'a> {
    /// Of a message in a connection's format.
    pub fn new(format: Format, arguments: &'a [u8]) -> Arguments<'a> {
        Arguments { format, rest: arguments }
    }

    /// Reads the next one. One that is missing is null, since a JavaScript caller gives as many as it likes; so is one that was
    /// undefined there.
    ///
    /// # Errors
    /// If it is not what is expected.
    pub fn read<T: Deserialize<'a>>(&mut self) -> Result<T, ReadError> {
        if self.format.is_text() {
            return json::read(self.next_text());
        }
        if self.rest.is_empty() {
            return msgpack::read(&mut &[0xc0][..]);
        }
        msgpack::read(&mut self.rest)
    }

    /// The bytes of the next one, as they are.
    ///
    /// # Errors
    /// If it is not complete.
    pub fn raw(&mut self) -> Result<&'a [u8], ReadError> {
        if self.format.is_text() {
            return Ok(self.next_text());
        }
        let mut reader = msgpack::Reader::new(self.rest);
        let raw = if self.rest.is_empty() { &[0xc0] } else { reader.skip()? };
        self.rest = reader.rest();
        Ok(raw)
    }

    /// The bytes of each value of a list: of the first so many, and of one more if there are more. Then nothing can be read after them.
    ///
    /// # Errors
    /// If it is no list, or not complete.
    pub(crate) fn raw_list<const MOST: usize>(&mut self) -> Result<Vec<&'a [u8]>, ReadError> {
        if self.format.is_text() {
            let values: First<&'a RawValue, MOST> = json::read(self.next_text())?;
            return Ok(values.0.into_iter().map(|value| value.get().as_bytes()).collect());
        }
        let mut reader = msgpack::Reader::new(self.rest);
        let mut values = Vec::new();
        for _ in 0..reader.begin_list()?.min(MOST + 1) {
            values.push(reader.skip()?);
        }
        self.rest = reader.rest();
        Ok(values)
    }

    /// Whether there is no other.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    fn next_text(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| *byte == text::US);
        let (next, rest) = match end {
            Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        if next.is_empty() { b"null" } else { next }
    }
}

/// Writes the arguments of a message, one after the other.
#[derive(Debug)]
pub struct Writer<'w> {
    format: Format,
    out: &'w mut Vec<u8>,
    any: bool,
}

impl<'w> Writer<'w> {
    /// Behind what is there.
    pub fn new(format: Format, out: &'w mut Vec<u8>) -> Writer<'w> {
        Writer { format, out, any: false }
    }

    /// The format values are written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Writes the next argument.
    ///
    /// # Errors
    /// If the format has no way to write it.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        self.separate();
        if self.format.is_text() {
            return serde_json::to_writer(&mut *self.out, value).map_err(|error| WriteError::new(error.to_string()));
        }
        msgpack::write(self.out, value)
    }

    /// The next argument as it was written before, in the same format.
    pub fn raw(&mut self, value: &[u8]) {
        self.separate();
        self.out.extend_from_slice(value);
    }

    /// The next argument: a list of values as they were written before, in the same format.
    pub(crate) fn raw_list(&mut self, values: &[&[u8]]) {
        self.separate();
        if !self.format.is_text() {
            msgpack::begin_list(self.out, values.len());
            return values.iter().for_each(|value| self.out.extend_from_slice(value));
        }
        self.out.push(b'[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(value);
        }
        self.out.push(b']');
    }

    /// All arguments, as they were written before in the same format.
    pub(crate) fn raw_all(&mut self, arguments: &[u8]) {
        self.any = true;
        self.out.extend_from_slice(arguments);
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.any, true) && self.format.is_text() {
            self.out.push(text::US);
        }
    }
}

/// Any value, as it is: for who passes values on without knowing their types. It belongs to the format it was read in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(Vec<u8>);

impl Raw {
    /// From its bytes, or the bytes of its text. Nobody looks whether they are one value: a peer that gets others breaks off.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Raw {
        Raw(bytes.into())
    }

    /// Its bytes, or the bytes of its text.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Bytes<'a>(&'a [u8]);

        impl Serialize for Bytes<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.0)
            }
        }

        if !serializer.is_human_readable() {
            return serializer.serialize_newtype_struct(msgpack::RAW, &Bytes(&self.0));
        }
        let text: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value in a format of this crate")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
        }

        if !deserializer.is_human_readable() {
            return deserializer.deserialize_newtype_struct(msgpack::RAW, Bytes);
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Raw(String::from(Box::<str>::from(text)).into_bytes()))
    }
}
