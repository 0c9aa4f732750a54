//! A message, as it is read and as it is to be written.

use std::borrow::Cow;

use thiserror::Error;

use super::method::{MethodId, MethodRef};
use super::system::System;

/// A message that was read. It borrows the frame it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// 0 for ordinary calls and all replies, 1 for compute calls; others are not known.
    pub call_type: u8,
    /// The id of the call, or of the call or stream that the message is about. 0 if there is none.
    pub related_id: u64,
    /// What is called.
    pub method: MethodRef<'a>,
    /// Usually none.
    pub headers: Headers<'a>,
    /// The arguments, in the connection's format: see [`Arguments`](super::Arguments).
    pub arguments: &'a [u8],
}

/// The headers of a message: texts by short keys.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Headers<'a>(pub(super) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Headers<'_> {
    /// Of the result a caller has, or of the one it gets; empty where it asks for that.
    pub const HASH: &'static str = "#";
    /// The W3C trace context's `traceparent`.
    pub const TRACE_PARENT: &'static str = "~p";
    /// The W3C trace context's `tracestate`.
    pub const TRACE_STATE: &'static str = "~s";

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All of a message to be written but its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub(super) call_type: u8,
    pub(super) related_id: u64,
    pub(super) method: Method<'a>,
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method<'a> {
    User(&'a MethodId),
    System(System),
}

impl<'a> Head<'a> {
    /// Of a call: its type, and its id, which is 0 if no answer is expected.
    ///
    /// # Panics
    /// If the type is above 7, for which there is no room in a message.
    pub const fn call(call_type: u8, id: u64, method: &'a MethodId) -> Head<'a> {
        assert!(call_type < 8);
        Head { call_type, related_id: id, method: Method::User(method), headers: &[] }
    }

    /// Of a system call about a call or a stream, or 0.
    pub const fn system(call: System, related_id: u64) -> Head<'a> {
        Head { call_type: 0, related_id, method: Method::System(call), headers: &[] }
    }

    /// Which system call it is, if it is one.
    pub fn system_call(&self) -> Option<System> {
        match self.method {
            Method::User(_) => None,
            Method::System(call) => Some(call),
        }
    }

    /// The first value of a header.
    pub fn header(&self, key: &str) -> Option<&'a str> {
        self.headers.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    /// With headers.
    #[must_use]
    pub const fn with(self, headers: &'a [(&'a str, &'a str)]) -> Head<'a> {
        Head { headers, ..self }
    }
}

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends before it is complete, or says a length beyond its frame.
    #[error("a message goes on behind the end of its frame")]
    Short,
    /// A part is larger than it may be.
    #[error("a part of a message is larger than it may be")]
    TooLarge,
    /// A number that is none.
    #[error("a number in a message has too many bits")]
    Number,
    /// A name or a header that is no text.
    #[error("a name in a message is not UTF-8")]
    NotText,
    /// A text message whose envelope is not the JSON object that it should be.
    #[error("the envelope of a message cannot be read")]
    Envelope,
}
