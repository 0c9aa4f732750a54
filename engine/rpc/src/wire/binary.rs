//! Messages in binary frames: layout "V5", and "V5 compact" with hashes for names.

use std::borrow::Cow;

use super::frame::FrameError;
use super::message::{Head, Headers, Malformed, Message, Method};
use super::method::MethodRef;
use super::{limits, varint};

/// Reads one message from the front of a frame. After an error nobody knows where the next one begins.
pub(super) fn read<'a>(frame: &mut &'a [u8], compact: bool) -> Result<Message<'a>, Malformed> {
    let mut rest = *frame;
    let flags = take(&mut rest, 1)?[0];
    let related_id = number(&mut rest, varint::read)?;
    let (mut name, mut hash) = ("", 0);
    if compact {
        hash = word(&mut rest)?;
    } else {
        let length = length(&mut rest, limits::METHOD)?;
        name = string(take(&mut rest, length)?)?;
    }
    let length = word(&mut rest)? as usize;
    if length > limits::ARGUMENTS {
        return Err(Malformed::TooLarge);
    }
    let arguments = take(&mut rest, length)?;
    let mut headers = Vec::new();
    for _ in 0..flags & HEADERS {
        let key = usize::from(take(&mut rest, 1)?[0]);
        let key = string(take(&mut rest, key)?)?;
        let value = self::length(&mut rest, limits::HEADER_VALUE)?;
        headers.push((Cow::Borrowed(key), Cow::Borrowed(string(take(&mut rest, value)?)?)));
    }
    *frame = rest;
    let method = if compact { MethodRef::Hash(hash) } else { MethodRef::Name(Cow::Borrowed(name)) };
    Ok(Message { call_type: flags >> 5, related_id, method, headers: Headers(headers), arguments })
}

/// As [`read`], of what most messages are: names are hashes, and there are no headers. None if that is not what comes, or it cannot be read.
///
/// Apart, because a result that may be an error is put together in other parts than it is read in, which the processor has to wait for.
#[inline]
pub(super) fn read_plain<'a>(frame: &mut &'a [u8]) -> Option<Message<'a>> {
    let (flags, mut rest) = frame.split_first()?;
    if flags & HEADERS != 0 {
        return None;
    }
    let related_id = varint::read(&mut rest)?;
    let hash = word(&mut rest).ok()?;
    let length = word(&mut rest).ok()? as usize;
    if length > limits::ARGUMENTS {
        return None;
    }
    let (arguments, rest) = rest.split_at_checked(length)?;
    *frame = rest;
    Some(Message { call_type: flags >> 5, related_id, method: MethodRef::Hash(hash), headers: Headers::default(), arguments })
}

/// The bits of the first byte that count headers.
const HEADERS: u8 = 0x1f;

/// What is written before the arguments; where their length goes when they are there.
pub(super) fn begin(out: &mut Vec<u8>, head: &Head<'_>, compact: bool) -> Result<usize, FrameError> {
    let headers = u8::try_from(head.headers.len()).ok().filter(|count| *count <= HEADERS).ok_or(FrameError::Headers)?;
    let (name, hash) = match head.method {
        Method::User(method) => (method.name(), method.hash()),
        Method::System(call) => (call.name(), call.hash()),
    };
    // Put together here, so that there is one look at whether there is room.
    let mut start = [0; 1 + varint::MOST + 4 + 4];
    start[0] = head.call_type << 5 | headers;
    let at = 1 + varint::put(&mut start[1..], head.related_id);
    if compact {
        start[at..at + 4].copy_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&start[..at + 8]);
    } else {
        out.extend_from_slice(&start[..at]);
        varint::write(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    Ok(out.len() - 4)
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

#[inline]
fn word(frame: &mut &[u8]) -> Result<u32, Malformed> {
    let (word, rest) = frame.split_first_chunk().ok_or(Malformed::Short)?;
    *frame = rest;
    Ok(u32::from_le_bytes(*word))
}

#[inline]
fn take<'a>(frame: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (part, rest) = frame.split_at_checked(length).ok_or(Malformed::Short)?;
    *frame = rest;
    Ok(part)
}

#[inline]
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

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::super::system::System;
    use super::super::{Format, Frame};
    use super::*;

    #[test]
    fn what_is_read_the_short_way_is_what_the_long_one_reads_and_nothing_is_lost_where_it_cannot_be() {
        let mut plain = 0;
        for seed in 0..2_000 {
            let rng = &mut Rng::with_seed(seed);
            let mut frame = Frame::new(Format::Msgpack6c);
            let headers = [("~p", "some trace"), ("x", "")];
            let head = Head::system(System::Ok, rng.u64(..) >> rng.u8(0..64)).with(&headers[..[0, 0, 1, 2][rng.usize(0..4)]]);
            let arguments: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
            let written = frame.push(&head, |out| {
                out.raw_all(&arguments);
                Ok(())
            });
            assert!(written.is_ok());
            let mut bytes = frame.take();
            if rng.bool() {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            for length in 0..=bytes.len() {
                let (mut short, mut long) = (&bytes[..length], &bytes[..length]);
                let read = read(&mut long, true);
                match read_plain(&mut short) {
                    Some(message) => {
                        plain += 1;
                        assert_eq!((Ok(message), short), (read, long));
                    }
                    None => {
                        assert_eq!(short.len(), length);
                        assert!(read.is_err() || bytes[0] & HEADERS != 0);
                    }
                }
            }
        }
        assert!(plain > 500, "{plain}");
    }
}
