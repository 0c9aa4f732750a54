//! Sizes that are as large as they may be, and a byte larger, where they are read; and names that cannot be told apart.

mod support;

use std::collections::HashMap;

use support::recorded::RECORDED;
use wellspring_rpc::wire::{Format, Frame, Head, Malformed, Messages, MethodId, limits};
use wellspring_rpc::{Failure, Hub, HubBuilder, Service, ServiceError};

/// How many bytes of arguments, and headers, the only message of a frame has.
fn read(format: Format, frame: &[u8]) -> Result<(usize, usize), Malformed> {
    let messages = Messages::new(format, frame).collect::<Result<Vec<_>, _>>()?;
    let [message] = messages.as_slice() else { panic!("{} messages", messages.len()) };
    Ok((message.arguments.len(), message.headers.iter().count()))
}

/// An envelope of so many bytes, with nothing behind it.
fn envelope(bytes: usize) -> Vec<u8> {
    let mut envelope = br#"{"Method":"A.B:1","RelatedId":1"#.to_vec();
    envelope.resize(bytes - 1, b' ');
    envelope.extend_from_slice(b"}\n");
    envelope
}

#[test]
fn an_envelope_is_as_long_as_it_may_be_and_no_longer() {
    assert_eq!(limits::ENVELOPE, 244_297);
    for format in Format::ALL.into_iter().filter(|format| format.is_text()) {
        assert_eq!(read(format, &envelope(limits::ENVELOPE)), Ok((0, 0)));
        assert_eq!(read(format, &envelope(limits::ENVELOPE + 1)), Err(Malformed::TooLarge));
        // Nothing of the next message is lost by it.
        let mut frame = envelope(limits::ENVELOPE + 1);
        frame.push(0x1e);
        frame.extend(envelope(100));
        let read: Vec<_> = Messages::new(format, &frame).map(|message| message.map(|message| message.related_id)).collect();
        assert_eq!(read, [Err(Malformed::TooLarge), Ok(1)]);
    }
}

#[test]
fn arguments_that_are_read_are_as_long_as_they_may_be_and_no_longer() {
    assert_eq!(limits::ARGUMENTS, 16_252_928);
    let method = MethodId::new("A.B:1").expect("short");
    for format in RECORDED {
        let mut frame = Frame::new(format);
        let written = frame.push(&Head::call(0, 1, &method), |out| {
            out.raw(&vec![b'1'; limits::ARGUMENTS]);
            Ok(())
        });
        written.expect("as long as they may be");
        let mut frame = frame.take();
        assert_eq!(read(format, &frame), Ok((limits::ARGUMENTS, 0)), "{format}");
        frame.push(b'1');
        if !format.is_text() {
            // Before the arguments, and least byte first.
            let length = frame.len() - 1 - limits::ARGUMENTS - 4;
            frame[length..length + 4].copy_from_slice(&(limits::ARGUMENTS as u32 + 1).to_le_bytes());
        }
        assert_eq!(read(format, &frame), Err(Malformed::TooLarge), "{format}");
    }
}

#[test]
fn headers_of_a_text_that_is_read_are_as_many_and_as_long_as_they_may_be_and_no_more() {
    let (key, value) = (limits::HEADER_KEY, limits::HEADER_VALUE);
    assert_eq!((limits::HEADERS, key, value), (31, 255, 1_024));
    let table = [
        (31, key, value, Ok((1, 31))),
        (32, 1, 1, Err(Malformed::TooLarge)),
        (1, key + 1, 1, Err(Malformed::TooLarge)),
        (1, 1, value + 1, Err(Malformed::TooLarge)),
    ];
    for (count, key, value, expected) in table {
        let header = format!(r#""{}","{}""#, "k".repeat(key), "v".repeat(value));
        let headers = vec![header; count].join(",");
        let message = format!("{{\"Method\":\"A.B:1\",\"Headers\":[{headers}]}}\n1");
        assert_eq!(read(Format::Json5np, message.as_bytes()), expected, "{count} of {key} and {value}");
    }
    assert_eq!(read(Format::Json5np, b"{\"Method\":\"A.B:1\",\"Headers\":[\"k\"]}\n1"), Err(Malformed::Envelope), "a key alone");
}

/// The first two of `I.M0:0`, `I.M1:0`.. that have one hash: of 32 bits, so they are not far.
fn alike() -> (String, String) {
    let mut known = HashMap::new();
    for number in 0_u32.. {
        let hash = MethodId::new(format!("I.M{number}:0")).expect("short").hash();
        if let Some(before) = known.insert(hash, number) {
            return (format!("M{before}:0"), format!("M{number}:0"));
        }
    }
    unreachable!("there are more numbers than hashes")
}

fn with(service: Service, name: &str) -> Service {
    service.method(name, |()| async { Ok::<_, Failure>(()) })
}

#[test]
fn methods_that_compact_formats_could_not_tell_apart_are_refused() {
    let (one, other) = alike();
    let hashes = [&one, &other].map(|name| MethodId::new(format!("I.{name}")).expect("short").hash());
    assert_eq!(hashes[0], hashes[1]);
    let refused = Err(ServiceError::SameHash(format!("I.{other}"), format!("I.{one}")));
    let service = |name: &str| with(Service::new("I"), name);
    let ends = |hub: Result<HubBuilder, ServiceError>| hub.map(|_| ());
    assert_eq!(ends(Hub::builder().service(with(service(&one), &other))), refused, "of one service");
    let has_one = || Hub::builder().service(service(&one)).expect("it is alone");
    assert_eq!(ends(has_one().service(service(&other))), refused, "of two");
    assert_eq!(ends(has_one().backend_service(service(&other))), refused, "also where one of them is for backends");
    assert_eq!(ends(has_one().service(service("Another:0"))), Ok(()));
}
