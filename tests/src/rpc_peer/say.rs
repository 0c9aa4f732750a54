//! What the other end says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use wellspring_rpc::wire::{
    ErrorInfo, Format, Frame, Guid, Handshake, Head, Headers, MethodId, Packed, StreamRef, System, WriteError, Writer, pack,
};

use super::line::{Known, Line};
use super::offer::METHODS;

type Written = std::result::Result<(), WriteError>;

/// One of the few that anybody is.
fn guid(u: &mut Unstructured<'_>, known: &Known) -> Result<Guid> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Guid::NONE,
        1..=4 => known.peer.unwrap_or(Guid::NONE),
        number => Guid::from_u128(number),
    })
}

/// Of a call or a stream: mostly a small one, which there is.
fn id(u: &mut Unstructured<'_>) -> Result<u64> {
    if u.ratio(15, 16)? { u.int_in_range(0..=9) } else { u.arbitrary() }
}

fn ids(u: &mut Unstructured<'_>) -> Result<Vec<u64>> {
    let mut ids = (0..u.int_in_range(0..=6)?).map(|_| id(u)).collect::<Result<Vec<_>>>()?;
    if u.ratio(7, 8)? {
        ids.sort_unstable();
    }
    Ok(ids)
}

fn stream(u: &mut Unstructured<'_>, known: &Known) -> Result<StreamRef> {
    let mut stream = StreamRef::new(if u.ratio(1, 4)? { guid(u, known)? } else { Guid::from_u128(u.int_in_range(5..=7)?) }, id(u)?);
    if u.arbitrary()? {
        (stream.ack_period, stream.ack_advance) = (u.int_in_range(0..=40)?, u.int_in_range(0..=40)?);
    }
    if u.ratio(1, 8)? {
        (stream.ack_period, stream.ack_advance) = (u.arbitrary()?, u.arbitrary()?);
    }
    stream.reconnects = u.ratio(3, 4)?;
    Ok(stream)
}

fn value(u: &mut Unstructured<'_>, known: &Known, out: &mut Writer<'_>) -> Result<Written> {
    Ok(match u.int_in_range(0..=6)? {
        0 => out.value(&u.arbitrary::<i64>()?),
        1 | 2 => out.value(&u.int_in_range(0..=5_u8)?),
        3 => out.value(&stream(u, known)?),
        4 => out.value(&[stream(u, known)?, stream(u, known)?]),
        5 => out.value(&u.arbitrary::<Option<String>>()?),
        _ => {
            let bytes: Vec<u8> = (0..u.int_in_range(0..=8)?).map(|_| u.arbitrary()).collect::<Result<_>>()?;
            out.raw(&bytes);
            Ok(())
        }
    })
}

/// Says hello, as most do.
pub(super) fn hello(u: &mut Unstructured<'_>, line: &Line) -> Result<()> {
    let mut frame = Frame::new(line.format);
    let handshake = Handshake {
        peer: Guid::from_u128(if u.ratio(7, 8)? { 5 } else { u.int_in_range(5..=7)? }),
        versions: None,
        hub: Guid::from_u128(9),
        protocol: if u.ratio(15, 16)? { Handshake::PROTOCOL } else { u.arbitrary()? },
        index: u.int_in_range(0..=4)?,
        secret: if u.arbitrary()? { Some(Cow::Borrowed("secret")) } else { None },
    };
    let pushed = frame.push(&Head::system(System::Handshake, 0), |out| out.value(&handshake));
    pushed.expect("a small message");
    line.send(frame.take(), u.arbitrary()?);
    Ok(())
}

/// A call or a system call.
fn message(u: &mut Unstructured<'_>, known: &Known, frame: &mut Frame) -> Result<()> {
    let mut pushed = Ok(());
    let mut system = |call: System, id: u64, write: &mut dyn FnMut(&mut Writer<'_>) -> Result<Written>| {
        let mut drawn = Ok(());
        // What cannot be written is not said.
        let _ = frame.push(&Head::system(call, id), |out| {
            write(out).unwrap_or_else(|error| {
                drawn = Err(error);
                Ok(())
            })
        });
        pushed = drawn;
    };
    match u.int_in_range(0..=19)? {
        0..=4 => {
            let (at, id) = (u.choose_index(METHODS.len())?, id(u)?);
            let method = MethodId::new(METHODS[at]).expect("short");
            let call_type = if u.ratio(15, 16)? { u8::from(u.arbitrary::<bool>()?) } else { u.int_in_range(0..=7)? };
            let hash: &[(&str, &str)] = if u.ratio(1, 6)? { &[(Headers::HASH, "AAAA")] } else { &[] };
            let right = u.ratio(7, 8)?;
            let mut drawn = Ok(());
            let _ = frame.push(&Head::call(call_type, id, &method).with(hash), |out| {
                let written = if right { arguments(u, known, METHODS[at], out) } else { value(u, known, out) };
                written.unwrap_or_else(|error| {
                    drawn = Err(error);
                    Ok(())
                })
            });
            pushed = drawn;
        }
        5 => {
            let (index, mut stages) = (u.int_in_range(0..=4_i32)?, BTreeMap::new());
            for stage in 0..u.int_in_range(0..=3_u32)? {
                let ids = ids(u)?;
                let packed = if ids.is_sorted() { pack(ids) } else { ids.into_iter().map(|id| id.to_be_bytes()[7]).collect() };
                stages.insert(stage, Packed(Cow::Owned(packed)));
            }
            system(System::Reconnect, id(u)?, &mut |out| Ok(out.value(&index).and_then(|()| out.value(&stages))));
        }
        6 | 7 => system(System::Ok, id(u)?, &mut |out| value(u, known, out)),
        8 => system(System::Error, id(u)?, &mut |out| Ok(out.value(&ErrorInfo::new(ErrorInfo::REMOTE, "no")))),
        9 => system(if u.arbitrary()? { System::Cancel } else { System::Match }, id(u)?, &mut |_| Ok(Ok(()))),
        10 => {
            let ids = ids(u)?;
            system(if u.ratio(3, 4)? { System::KeepAlive } else { System::Disconnect }, 0, &mut |out| Ok(out.value(&ids)));
        }
        11..=13 => {
            let next = if u.arbitrary()? { 0 } else { id(u)? };
            let host = guid(u, known)?;
            system(System::Ack, id(u)?, &mut |out| Ok(out.value(&next).and_then(|()| out.value(&host))));
        }
        14 => {
            let host = guid(u, known)?;
            system(System::AckEnd, id(u)?, &mut |out| Ok(out.value(&host)));
        }
        15 => {
            let index = id(u)?;
            system(System::Item, id(u)?, &mut |out| Ok(out.value(&index).and(value(u, known, out)?)));
        }
        16 => {
            let (index, count) = (id(u)?, u.int_in_range(0..=40_u16)?);
            let items: Vec<i64> = (0..i64::from(count)).collect();
            system(System::Batch, id(u)?, &mut |out| Ok(out.value(&index).and_then(|()| out.value(&items))));
        }
        17 => {
            let (index, info) = (id(u)?, if u.arbitrary()? { ErrorInfo::default() } else { ErrorInfo::new(ErrorInfo::REMOTE, "no") });
            system(System::End, id(u)?, &mut |out| Ok(out.value(&index).and_then(|()| out.value(&info))));
        }
        _ => system(System::Invalidate, id(u)?, &mut |_| Ok(Ok(()))),
    }
    pushed
}

/// What a method takes.
fn arguments(u: &mut Unstructured<'_>, known: &Known, method: &str, out: &mut Writer<'_>) -> Result<Written> {
    Ok(match method {
        "I.Get:2" | "I.GetOrFail:2" => out.value(&u.int_in_range(0..=3_u8)?),
        "I.Slow:2" => out.value(&u.arbitrary::<u16>()?),
        "I.Later:2" => out.value(&u.int_in_range(0..=3_u8)?).and(out.value(&u.int_in_range(0..=2_000_u16)?)),
        "I.Count:4" => {
            let (period, advance) = (u.int_in_range(0..=20_u16)?, u.int_in_range(0..=20_u16)?);
            out.value(&u.int_in_range(0..=300_u16)?).and(out.value(&period)).and(out.value(&advance))
        }
        "I.Sum:2" => out.value(&stream(u, known)?),
        "I.Drop:2" => out.value(&[stream(u, known)?, stream(u, known)?]),
        "I.Fail:2" => out.value("on purpose"),
        "I.Nested:1" | "I.Big:1" | "I.Hang:1" => Ok(()),
        _ => value(u, known, out)?,
    })
}

/// A frame of a few messages, which is spoilt now and then.
pub(super) fn frame(u: &mut Unstructured<'_>, line: &Line) -> Result<()> {
    let mut frame = Frame::new(line.format);
    let known = line.heard.known();
    for _ in 0..=u.int_in_range(0..=6)? {
        message(u, &known, &mut frame)?;
    }
    let mut bytes = frame.take();
    if u.ratio(1, 8)? && !bytes.is_empty() {
        for _ in 0..=u.int_in_range(0..=3)? {
            let at = u.choose_index(bytes.len())?;
            bytes[at] ^= u.arbitrary::<u8>()?;
        }
        if u.ratio(1, 4)? {
            bytes.truncate(u.choose_index(bytes.len())?);
        }
    }
    line.send(bytes, u.arbitrary()?);
    Ok(())
}

/// One that is no frame at all.
pub(super) fn noise(u: &mut Unstructured<'_>, line: &Line) -> Result<()> {
    let bytes = (0..u.int_in_range(0..=40)?).map(|_| u.arbitrary()).collect::<Result<Vec<u8>>>()?;
    line.send(bytes, true);
    Ok(())
}

/// What is spoken.
pub(super) fn format(u: &mut Unstructured<'_>) -> Result<Format> {
    Ok(Format::ALL[u.choose_index(Format::ALL.len())?])
}
