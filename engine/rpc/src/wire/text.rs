//! Messages in text frames: a JSON envelope, a line feed, the arguments.

use serde::Deserialize;

use super::borrowed::Text;
use super::frame::FrameError;
use super::limits;
use super::message::{Head, Headers, Malformed, Message, Method};
use super::method::MethodRef;

/// Between an envelope and the arguments, and first of the two bytes between messages.
const LF: u8 = 0x0a;
/// Second of the two bytes between messages. No JSON has it within.
const RS: u8 = 0x1e;
/// How many bytes there are between messages.
pub(super) const SEPARATOR: usize = 2;
/// Between arguments. Nor this one.
pub(super) const US: u8 = 0x1f;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    #[serde(default)]
    call_type: u8,
    #[serde(default)]
    related_id: u64,
    #[serde(borrow, default)]
    method: Option<Text<'a>>,
    #[serde(borrow, default)]
    headers: Option<Vec<Text<'a>>>,
}

/// Takes the next message off a frame, if there is one. An error is of that message alone.
pub(super) fn next<'a>(frame: &mut &'a [u8]) -> Option<Result<Message<'a>, Malformed>> {
    // Older peers write a separator before the first.
    while let [LF | RS, rest @ ..] = *frame {
        *frame = rest;
    }
    if frame.is_empty() {
        return None;
    }
    let message = match frame.iter().position(|byte| *byte == RS) {
        Some(at) => {
            let message = &frame[..at];
            *frame = &frame[at + 1..];
            message.strip_suffix(&[LF]).unwrap_or(message)
        }
        None => std::mem::take(frame),
    };
    Some(read(message))
}

fn read(message: &[u8]) -> Result<Message<'_>, Malformed> {
    // A message without arguments may lack the line feed, by a peer that is lax.
    let (envelope, arguments) = match message.iter().position(|byte| *byte == LF) {
        Some(at) => (&message[..at], &message[at + 1..]),
        None => (message, &message[message.len()..]),
    };
    if envelope.len() > limits::ENVELOPE || arguments.len() > limits::ARGUMENTS {
        return Err(Malformed::TooLarge);
    }
    let envelope: Envelope<'_> = serde_json::from_slice(envelope).map_err(|_| Malformed::Envelope)?;
    let method = envelope.method.ok_or(Malformed::Envelope)?.0;
    let flat = envelope.headers.unwrap_or_default();
    let too_large = |text: &Text<'_>, most| text.0.len() > most;
    if envelope.call_type > 7 || !flat.len().is_multiple_of(2) {
        return Err(Malformed::Envelope);
    }
    if method.len() > limits::METHOD || flat.len() > 2 * limits::HEADERS {
        return Err(Malformed::TooLarge);
    }
    let mut headers = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
        if too_large(&key, limits::HEADER_KEY) || too_large(&value, limits::HEADER_VALUE) {
            return Err(Malformed::TooLarge);
        }
        headers.push((key.0, value.0));
    }
    let (call_type, related_id) = (envelope.call_type, envelope.related_id);
    Ok(Message { call_type, related_id, method: MethodRef::Name(method), headers: Headers(headers), arguments })
}

/// What is written before the arguments, in the order of the TypeScript peer, which says the type of all that is answered.
pub(super) fn begin(out: &mut Vec<u8>, head: &Head<'_>, first: bool) -> Result<(), FrameError> {
    if !first {
        out.extend_from_slice(&[LF, RS]);
    }
    out.extend_from_slice(b"{\"Method\":");
    let (is_users, is_call) = match head.method {
        Method::User(method) => {
            out.extend_from_slice(method.json().as_bytes());
            (true, head.related_id != 0)
        }
        Method::System(call) => {
            write_string(out, call.name());
            (false, call == super::System::Reconnect)
        }
    };
    if is_users || head.related_id != 0 {
        out.extend_from_slice(b",\"RelatedId\":");
        write_number(out, head.related_id);
    }
    if is_call || head.call_type != 0 {
        out.extend_from_slice(b",\"CallType\":");
        out.push(b'0' + head.call_type);
    }
    if !head.headers.is_empty() {
        if head.headers.len() > limits::HEADERS {
            return Err(FrameError::Headers);
        }
        out.extend_from_slice(b",\"Headers\":[");
        for (number, (key, value)) in head.headers.iter().enumerate() {
            if key.len() > limits::HEADER_KEY || value.len() > limits::HEADER_VALUE {
                return Err(FrameError::Headers);
            }
            if number > 0 {
                out.push(b',');
            }
            write_string(out, key);
            out.push(b',');
            write_string(out, value);
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// A JSON string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes everything, and a string is always JSON");
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(out, &number).expect("a vector takes everything, and a number is always JSON");
}
