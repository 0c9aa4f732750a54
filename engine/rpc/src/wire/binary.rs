//! Messages in binary frames: layout "V5", and "V5 compact" with hashes for names.

use std::borrow::Cow;

use super::frame::FrameError;
use super::message::{Head, Headers, Malformed, Message, Method};
use super::method::MethodRef;
use super::{limits, varint};

/// Reads one message from the front of a frame. After an error nobody knows where the next one begins.
pub(super) fn read<'a>(frame: &mut &'a [u8], compact: bool) -> Result<Message<'a>, Malformed> {
    let flags = take(frame, 1)?[0];
    let related_id = number(frame, varint::read)?;
    let method = if compact {
        let hash = take(frame, 4)?.first_chunk().copied().ok_or(Malformed::Short)?;
        MethodRef::Hash(u32::from_le_bytes(hash))
    } else {
        let length = length(frame, limits::METHOD)?;
        MethodRef::Name(Cow::Borrowed(string(take(frame, length)?)?))
    };
    let length = take(frame, 4)?.first_chunk().copied().map_or(0, u32::from_le_bytes) as usize;
    if length > limits::ARGUMENTS {
        return Err(Malformed::TooLarge);
    }
    let arguments = take(frame, length)?;
    let mut headers = Vec::new();
    for _ in 0..flags & HEADERS {
        let key = usize::from(take(frame, 1)?[0]);
        let key = string(take(frame, key)?)?;
        let value = self::length(frame, limits::HEADER_VALUE)?;
        headers.push((Cow::Borrowed(key), Cow::Borrowed(string(take(frame, value)?)?)));
    }
    Ok(Message { call_type: flags >> 5, related_id, method, headers: Headers(headers), arguments })
}

/// The bits of the first byte that count headers.
const HEADERS: u8 = 0x1f;

/// What is written before the arguments; where their length goes when they are there.
pub(super) fn begin(out: &mut Vec<u8>, head: &Head<'_>, compact: bool) -> Result<usize, FrameError> {
    let headers = u8::try_from(head.headers.len()).ok().filter(|count| *count <= HEADERS).ok_or(FrameError::Headers)?;
    out.push(head.call_type << 5 | headers);
    varint::write(out, head.related_id);
    let (name, hash) = match head.method {
        Method::User(method) => (method.name(), method.hash()),
        Method::System(call) => (call.name(), call.hash()),
    };
    if compact {
        out.extend_from_slice(&hash.to_le_bytes());
    } else {
        varint::write(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    Ok(at)
}

/// What is written after the arguments.
pub(super) fn end(out: &mut Vec<u8>, head: &Head<'_>, length_at: usize) -> Result<(), FrameError> {
    let length = out.len() - length_at - 4;
    // Below the limit on arguments, so below four bytes.
    out[length_at..length_at + 4].copy_from_slice(&(length as u32).to_le_bytes());
    for (key, value) in head.headers {
        let length = u8::try_from(key.len()).map_err(|_| FrameError::Headers)?;
        if value.len() > limits::HEADER_VALUE {
            return Err(FrameError::Headers);
        }
        out.push(length);
        out.extend_from_slice(key.as_bytes());
        varint::write(out, value.len() as u64);
        out.extend_from_slice(value.as_bytes());
    }
    Ok(())
}

fn take<'a>(frame: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (part, rest) = frame.split_at_checked(length).ok_or(Malformed::Short)?;
    *frame = rest;
    Ok(part)
}

fn number<T>(frame: &mut &[u8], read: fn(&mut &[u8]) -> Option<T>) -> Result<T, Malformed> {
    let before = *frame;
    read(frame).ok_or(if before.len() > 10 { Malformed::Number } else { Malformed::Short })
}

fn length(frame: &mut &[u8], most: usize) -> Result<usize, Malformed> {
    let length = number(frame, varint::read_u32)? as usize;
    if length > most { Err(Malformed::TooLarge) } else { Ok(length) }
}

fn string(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)
}
