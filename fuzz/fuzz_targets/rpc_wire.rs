//! Frames of a stranger's: nothing panics, nothing is allocated for by what it says of its size, and what was understood is the same when it
//! is written again and read.
//!
//! The first byte chooses the format.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wellspring_rpc::wire::{
    Arguments, ErrorInfo, Format, Frame, Handshake, Head, Message, Messages, MethodId, MethodRef, Raw, StreamRef, System, Writer, pack,
    unpack,
};

fn written<T: Serialize>(format: Format, value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(format, &mut out).value(value).expect("what was read can be written");
    out
}

/// Read as a type, if it is one: then it comes back.
fn typed<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(format: Format, arguments: &[u8]) {
    let Ok(value) = Arguments::new(format, arguments).read::<T>() else { return };
    let out = written(format, &value);
    assert_eq!(Arguments::new(format, &out).read::<T>().expect("what was written can be read"), value);
}

fn arguments(format: Format, arguments: &[u8]) {
    typed::<serde_json::Value>(format, arguments);
    typed::<(u8, Option<i64>, String)>(format, arguments);
    typed::<Vec<u64>>(format, arguments);
    typed::<std::collections::BTreeMap<i32, Option<bool>>>(format, arguments);
    typed::<Result<u32, [String; 2]>>(format, arguments);
    typed::<StreamRef>(format, arguments);
    if let Ok(handshake) = Arguments::new(format, arguments).read::<Handshake<'_>>() {
        let out = written(format, &handshake);
        assert_eq!(Arguments::new(format, &out).read::<Handshake<'_>>().expect("what was written can be read"), handshake);
    }
    if let Ok(error) = Arguments::new(format, arguments).read::<ErrorInfo<'_>>() {
        let out = written(format, &error);
        assert_eq!(Arguments::new(format, &out).read::<ErrorInfo<'_>>().expect("what was written can be read"), error);
    }
    let (mut by_bytes, mut by_type) = (Arguments::new(format, arguments), Arguments::new(format, arguments));
    for _ in 0..4 {
        let (Ok(bytes), Ok(raw)) = (by_bytes.raw(), by_type.read::<Raw>()) else { break };
        if !format.is_text() {
            assert_eq!(bytes, raw.bytes());
            assert_eq!(written(format, &raw), bytes);
        }
    }
    if let Ok(ids) = unpack(arguments).collect::<Result<Vec<_>, _>>() {
        assert_eq!(unpack(&pack(ids.iter().copied())).collect::<Result<Vec<_>, _>>(), Ok(ids));
    }
}

/// Writes a message whose method's name is known; whether it is.
fn again(frame: &mut Frame, message: &Message<'_>) -> bool {
    let headers: Vec<_> = message.headers.iter().collect();
    let mut push = |head: Head<'_>| {
        let write = |out: &mut Writer<'_>| {
            out.raw(message.arguments);
            Ok(())
        };
        frame.push(&head.with(&headers), write).expect("what was read can be written");
    };
    match (System::of(&message.method), &message.method) {
        (Some(call), _) if message.call_type == 0 => push(Head::system(call, message.related_id)),
        (None, MethodRef::Name(name)) => {
            push(Head::call(message.call_type, message.related_id, &MethodId::new(&**name).expect("short")));
        }
        _ => return false,
    }
    true
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((kind, bytes)) = data.split_first() else { return Corpus::Reject };
    let format = Format::ALL[usize::from(*kind) % Format::ALL.len()];
    let (mut frame, mut kept) = (Frame::new(format), Vec::new());
    for message in Messages::new(format, bytes).flatten() {
        arguments(format, message.arguments);
        if again(&mut frame, &message) {
            kept.push(message);
        }
    }
    let read = Messages::new(format, frame.bytes()).collect::<Result<Vec<_>, _>>().expect("what was written can be read");
    assert_eq!(read, kept);
    Corpus::Keep
});
