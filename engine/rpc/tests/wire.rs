//! The peer's own vectors, byte for byte, and every frame that was recorded.

use std::path::PathBuf;

use serde_json::Value;
use wellspring_rpc::wire::{
    Arguments, ErrorInfo, Format, Frame, Guid, Handshake, Head, Message, Messages, MethodId, MethodRef, Packed, Proof, Raw, Secret,
    StreamRef, System, limits, pack, unpack,
};

const RECORDED: [Format; 3] = [Format::Json5np, Format::Msgpack6, Format::Msgpack6c];

/// Methods that the recorder knew by their hashes alone.
const UNNAMED: [&str; 3] = ["INope.Nope:1", "IClientSide.Hello:2", "IClientSide.Boom:1"];

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn vectors(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(&fixture("vectors.json")).expect("JSON");
    all[name].as_array().expect("an array").clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A message as it was read, written again.
fn again(frame: &mut Frame, name: &str, message: &Message<'_>) {
    let method = MethodId::new(name).expect("short");
    let headers: Vec<_> = message.headers.iter().collect();
    let head = match System::of(&MethodRef::Name(name.into())) {
        Some(call) => Head::system(call, message.related_id),
        None => Head::call(message.call_type, message.related_id, &method),
    };
    let write = |out: &mut wellspring_rpc::wire::Writer<'_>| {
        out.raw(message.arguments);
        Ok(())
    };
    frame.push(&head.with(&headers), write).expect("written");
}

/// A recorded frame: who sent it, its bytes, and what the recorder made of it.
struct Recorded {
    from_client: bool,
    bytes: Vec<u8>,
    names: Vec<String>,
}

fn recorded(format: Format, scenario: &str) -> Vec<Recorded> {
    let lines = fixture(&format!("{format}.{scenario}.jsonl"));
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let frames = lines.filter(|line| line.get("dir").is_some());
    frames
        .map(|line| Recorded {
            from_client: line["dir"] == "c2s",
            bytes: match line["type"].as_str() {
                Some("text") => text(&line["text"]).as_bytes().to_vec(),
                _ => bytes(text(&line["hex"])),
            },
            names: line["msgs"].as_array().into_iter().flatten().map(|message| text(&message["method"]).to_owned()).collect(),
        })
        .collect()
}

const SCENARIOS: [&str; 14] = [
    "calls",
    "cancel",
    "compute",
    "dotnet-shaped.derived",
    "keepalive",
    "reconnect-new-peer",
    "reconnect-proof",
    "reconnect-same-peer",
    "reconnect-unknown-call",
    "reverse-call",
    "stream",
    "stream-resume.derived",
    "stream-upload",
    "unsupported-format",
];

#[test]
fn method_names_have_the_peers_hashes() {
    let vectors = vectors("methodHashes");
    assert!(vectors.len() > 20);
    for vector in vectors {
        let method = MethodId::new(text(&vector["name"])).expect("short");
        assert_eq!(hex(&method.hash().to_le_bytes()), text(&vector["wireLE"]), "{vector}");
        assert_eq!(Some(u64::from(method.hash())), vector["hashU32"].as_u64(), "{vector}");
        assert_eq!(Some(i64::from(method.hash() as i32)), vector["hashI32"].as_i64(), "{vector}");
    }
}

#[test]
fn the_hash_that_names_are_hashed_with_is_the_peers() {
    for vector in vectors("xxh3_64_seed0") {
        let input = match vector["input"].as_str() {
            Some(input) => input.to_owned(),
            None => text(&vector["input"]["repeat"]).repeat(vector["input"]["count"].as_u64().expect("a number") as usize),
        };
        assert_eq!(format!("{:016x}", xxhash_rust::xxh3::xxh3_64(input.as_bytes())), text(&vector["hash64"]), "{vector}");
    }
}

/// What is in the files of vectors, and which of it is not used, with the reason.
#[test]
fn no_vector_is_left_out_in_silence() {
    let keys = |name: &str| -> Vec<String> {
        let all: Value = serde_json::from_str(&fixture(name)).expect("JSON");
        let mut keys: Vec<String> = all.as_object().expect("an object").keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    let used = ["about", "clientIdFromPeerId", "increasingSeq", "messages", "methodHashes", "reconnectProofs", "xxh3_64_seed0"];
    assert_eq!(keys("vectors.json"), used);
    // Compressed variants are not offered: a client that asks for one is told so, and uses another.
    assert_eq!(keys("derived-vectors.json"), ["about", "lz4", "messages"]);
    assert!("msgpack6-lz4".parse::<Format>().is_err() && "msgpack6-lz4f".parse::<Format>().is_err());
}

#[test]
fn ids_are_packed_as_the_peer_packs_them() {
    let vectors = vectors("increasingSeq");
    assert!(vectors.len() > 10);
    for vector in vectors {
        let ids: Vec<u64> = vector["values"].as_array().expect("an array").iter().map(|id| id.as_u64().expect("a number")).collect();
        assert_eq!(hex(&pack(ids.iter().copied())), text(&vector["hex"]));
        let packed = Packed(pack(ids.iter().copied()).into());
        assert_eq!(serde_json::to_value(&packed).expect("written"), vector["base64"]);
        let written = vector["base64"].to_string();
        assert_eq!(Arguments::new(Format::Json5np, written.as_bytes()).read(), Ok(packed));
        assert_eq!(unpack(&bytes(text(&vector["hex"]))).collect::<Result<Vec<_>, _>>(), Ok(ids));
    }
}

#[test]
fn a_client_proves_itself_as_the_peers_do() {
    for vector in vectors("reconnectProofs") {
        let (secret, client) = (Secret::new(text(&vector["secret"])), text(&vector["clientId"]));
        let counter: u64 = text(&vector["counter"]).parse().expect("a number");
        let proof = Proof { counter: text(&vector["counter"]).to_owned(), code: text(&vector["proof"]).to_owned() };
        assert_eq!(secret.prove(client, counter), proof);
        assert_eq!(secret.check(client, &proof), Some(counter));
    }
    for vector in vectors("clientIdFromPeerId") {
        let peer: Guid = text(&vector["peerId"]).parse().expect("a GUID");
        assert_eq!(peer.client_id(), text(&vector["clientId"]));
    }
}

#[test]
fn messages_are_the_peers_byte_for_byte() {
    for vector in vectors("messages") {
        let name = text(&vector["message"]["Method"]);
        let number = |part: &str| vector["message"][part].as_u64().unwrap_or_default();
        let method = MethodId::new(name).expect("short");
        let head = match System::of(&MethodRef::Name(name.into())) {
            Some(call) => Head::system(call, number("RelatedId")),
            None => Head::call(number("CallType") as u8, number("RelatedId"), &method),
        };
        for format in RECORDED {
            let mut frame = Frame::new(format);
            let push = frame.push(&head, |out| {
                for argument in vector["args"].as_array().expect("an array") {
                    match name {
                        "$sys.Error:1" => out.value(&ErrorInfo::new(text(&argument["TypeRef"]), text(&argument["Message"])))?,
                        _ => out.value(argument)?,
                    }
                }
                Ok(())
            });
            push.expect("written");
            let expected = match format.is_text() {
                true => text(&vector[format.key()]).as_bytes().to_vec(),
                false => bytes(text(&vector[format.key()])),
            };
            assert_eq!(hex(frame.bytes()), hex(&expected), "{format}: {vector}");
        }
    }
}

#[test]
fn every_recorded_frame_is_read_and_written_the_same() {
    let mut count = 0;
    for format in RECORDED {
        for scenario in SCENARIOS {
            for frame in recorded(format, scenario) {
                let read = Messages::new(format, &frame.bytes).collect::<Result<Vec<_>, _>>();
                let read = read.unwrap_or_else(|error| panic!("{format} {scenario}: {error}: {}", hex(&frame.bytes)));
                let mut written = Frame::new(format);
                for (at, message) in read.iter().enumerate() {
                    let name = match &message.method {
                        MethodRef::Name(name) => name.to_string(),
                        MethodRef::Hash(hash) => {
                            let is = |name: &str| MethodId::new(name).is_ok_and(|method| method.hash() == *hash);
                            // Some the recorder did not know by their hashes; they are in the recordings of other formats.
                            let known = UNNAMED.iter().copied().chain([frame.names[at].as_str()]).find(|name| is(name));
                            known.unwrap_or_else(|| panic!("{}", frame.names[at])).to_owned()
                        }
                    };
                    again(&mut written, &name, message);
                    count += 1;
                }
                // What was made by hand says the same in other orders.
                if !format.is_text() || frame.from_client {
                    assert_eq!(written.bytes(), frame.bytes, "{format} {scenario}");
                }
            }
        }
    }
    assert!(count > 600, "only {count} messages");
}

#[test]
fn frames_that_were_made_to_harm_are_read_to_where_they_are_broken() {
    for format in RECORDED {
        let frames = recorded(format, "malformed");
        let refused = frames.iter().filter(|frame| Messages::new(format, &frame.bytes).any(|message| message.is_err())).count();
        assert!(frames.iter().all(|frame| frame.from_client || Messages::new(format, &frame.bytes).all(|message| message.is_ok())));
        assert!(refused >= 2, "{format}: {refused}");
    }
}

#[test]
fn every_handshake_that_was_recorded_is_understood() {
    for format in RECORDED {
        let mut secrets = 0;
        for scenario in SCENARIOS {
            for frame in recorded(format, scenario) {
                for message in Messages::new(format, &frame.bytes).flatten() {
                    if System::of(&message.method) != Some(System::Handshake) {
                        continue;
                    }
                    let handshake: Handshake<'_> = Arguments::new(format, message.arguments).read().expect("a handshake");
                    assert_eq!(handshake.protocol, Handshake::PROTOCOL);
                    assert!(!handshake.peer.is_none() && !handshake.hub.is_none() && handshake.index > 0);
                    assert!(frame.from_client || handshake.versions.as_deref().is_none_or(|versions| versions == "Api=1.0"));
                    secrets += usize::from(handshake.secret.is_some());
                    let mut written = Vec::new();
                    wellspring_rpc::wire::Writer::new(format, &mut written).value(&handshake).expect("written");
                    assert_eq!(Arguments::new(format, &written).read(), Ok(handshake));
                }
            }
        }
        assert!(secrets >= 2, "{format}: {secrets}");
    }
}

#[test]
fn streams_and_failures_that_were_recorded_are_understood() {
    for format in RECORDED {
        let (mut streams, mut failures) = (0, 0);
        for scenario in ["stream", "calls", "dotnet-shaped.derived"] {
            for frame in recorded(format, scenario) {
                for message in Messages::new(format, &frame.bytes).flatten() {
                    let mut arguments = Arguments::new(format, message.arguments);
                    match System::of(&message.method) {
                        Some(System::Ok) => streams += usize::from(arguments.read::<StreamRef>().is_ok()),
                        Some(System::Error) => {
                            let error: ErrorInfo<'_> = arguments.read().expect("a failure");
                            assert!(!error.is_none());
                            failures += 1;
                        }
                        Some(System::End) => {
                            let _: u64 = arguments.read().expect("an index");
                            arguments.read::<ErrorInfo<'_>>().expect("a failure, or none");
                        }
                        _ => {}
                    }
                }
            }
        }
        assert!(streams > 3 && failures > 3, "{format}: {streams} streams, {failures} failures");
    }
}

#[test]
fn derived_messages_are_read_and_written_the_same_with_their_headers() {
    let all: Value = serde_json::from_str(&fixture("derived-vectors.json")).expect("JSON");
    let (mut read, mut not_offered) = (Vec::new(), Vec::new());
    for vector in all["messages"].as_array().expect("an array") {
        let named = text(&vector["name"]);
        let Ok(format) = text(&vector["format"]).parse::<Format>() else {
            not_offered.push(format!("{}.{named}", text(&vector["format"])));
            continue;
        };
        let frame = bytes(text(&vector["hex"]));
        let messages = Messages::new(format, &frame).collect::<Result<Vec<_>, _>>();
        let messages = messages.unwrap_or_else(|error| panic!("{error}: {vector}"));
        assert_eq!(
            named.contains("hash") || named.contains("headers"),
            messages.iter().any(|message| !message.headers.is_empty()),
            "{vector}"
        );
        let mut written = Frame::new(format);
        for message in &messages {
            let name = match &message.method {
                MethodRef::Name(name) => name.to_string(),
                method => System::of(method).expect("a system call").name().to_owned(),
            };
            again(&mut written, &name, message);
        }
        assert_eq!(hex(written.bytes()), text(&vector["hex"]), "{vector}");
        read.push(format!("{format}.{named}"));
    }
    assert_eq!(read.len(), 10, "{read:?}");
    // Layouts and values of formats that are not offered: the older one, and the one whose values only .NET types can read.
    let expected = [
        "msgpack5.v4-lazy",
        "msgpack5.v4-eager",
        "mempack6.handshake",
        "mempack6.call-int-int",
        "mempack6.call-string",
        "mempack6.keep-alive",
    ];
    assert_eq!(not_offered, expected);
}

#[test]
fn a_header_is_as_long_as_it_may_be_and_no_longer() {
    let method = MethodId::new("x".repeat(limits::METHOD)).expect("as long as it may be");
    let (key, value) = ("k".repeat(limits::HEADER_KEY), "v".repeat(limits::HEADER_VALUE));
    for format in RECORDED {
        let mut frame = Frame::new(format);
        frame.push(&Head::call(0, 1, &method).with(&[(&key, &value)]), |_| Ok(())).expect("written");
        let read = Messages::new(format, frame.bytes()).next().expect("a message").expect("read");
        assert_eq!(read.headers.get(&key), Some(value.as_str()));
        // A letter more, in a frame of somebody who does not keep to that.
        let longer = |what: &str, by: &str| {
            let text = String::from_utf8(frame.bytes().to_vec()).expect("text");
            text.replacen(what, &format!("{what}{by}"), 1).into_bytes()
        };
        if format.is_text() {
            for what in [method.name(), &key, &value] {
                let frame = longer(what, &what[..1]);
                assert!(Messages::new(format, &frame).next().expect("a message").is_err(), "{} letters", what.len());
            }
        }
        let mut frame = Frame::new(format);
        assert!(frame.push(&Head::call(0, 1, &method).with(&[(&format!("{key}k"), "")]), |_| Ok(())).is_err());
        assert!(frame.push(&Head::call(0, 1, &method).with(&[("", &format!("{value}v"))]), |_| Ok(())).is_err());
    }
    // A name of 1,025 bytes, and a header value of 1,025.
    let name = [&[0, 1, 0x81, 0x08][..], &[b'x'; 1_025], &[0; 4]].concat();
    assert!(Messages::new(Format::Msgpack6, &name).next().expect("a message").is_err());
    let value = [&[1, 1, 1, b'x', 0, 0, 0, 0, 1, b'#', 0x81, 0x08][..], &[b'v'; 1_025]].concat();
    assert!(Messages::new(Format::Msgpack6, &value).next().expect("a message").is_err());
    let value = [&[1, 1, 1, b'x', 0, 0, 0, 0, 1, b'#', 0x80, 0x08][..], &[b'v'; 1_024]].concat();
    assert!(Messages::new(Format::Msgpack6, &value).next().expect("a message").is_ok());
}

#[test]
fn nothing_is_whatever_a_peer_gives_for_it_where_nothing_is_expected() {
    for given in ["", "null", "{}", "[]", "5", "\"x\"", r#"{"a":[1,{}]}"#] {
        assert_eq!(Arguments::new(Format::Json5np, given.as_bytes()).read(), Ok(()), "{given}");
    }
    for broken in ["{", "{}{}", "nul"] {
        assert!(Arguments::new(Format::Json5np, broken.as_bytes()).read::<()>().is_err(), "{broken}");
    }
    // Within a value it is what it is to everybody.
    assert!(Arguments::new(Format::Json5np, b"[{}]").read::<Vec<()>>().is_err());
}

#[test]
fn any_value_is_passed_on_as_it_is() {
    for format in RECORDED {
        for frame in recorded(format, "calls") {
            for message in Messages::new(format, &frame.bytes).flatten() {
                let mut typed = Arguments::new(format, message.arguments);
                let mut plain = typed.clone();
                let (raw, bytes) = (typed.read::<Raw>().expect("a value"), plain.raw().expect("a value"));
                assert_eq!(raw.bytes(), bytes);
                let mut out = Vec::new();
                wellspring_rpc::wire::Writer::new(format, &mut out).value(&raw).expect("written");
                assert_eq!(out, bytes);
            }
        }
    }
}

/// Values within values, and nothing in the last.
#[derive(Debug, serde::Deserialize)]
struct Nest(Vec<Nest>);

impl Nest {
    fn depth(&self) -> usize {
        1 + self.0.first().map_or(0, Nest::depth)
    }
}

#[test]
fn values_are_within_values_as_deep_as_they_may_be_and_no_deeper() {
    for format in Format::ALL {
        let nest = |depth: usize| match format.is_text() {
            true => [vec![b'['; depth], vec![b']'; depth]].concat(),
            false => [vec![0x91; depth - 1], vec![0x90]].concat(),
        };
        let read = |depth| Arguments::new(format, &nest(depth)).read::<Nest>().ok().map(|nest| nest.depth());
        // As the peers have it: 128 of them in MessagePack; in JSON the outermost one counts as the first.
        let most = if format.is_text() { 127 } else { 128 };
        assert_eq!((read(most), read(most + 1), read(4_000_000)), (Some(most), None, None), "{format:?}");
        // What is passed over, or passed on, is not gone into by recursion: whatever comes of it.
        let _ = Arguments::new(format, &nest(4_000_000)).read::<serde::de::IgnoredAny>();
        let _ = Arguments::new(format, &nest(4_000_000)).read::<Raw>();
    }
}

#[test]
fn arguments_that_are_missing_are_null_and_others_are_passed_over() {
    for format in RECORDED {
        let mut out = Vec::new();
        wellspring_rpc::wire::Writer::new(format, &mut out).value(&5).expect("written");
        let mut arguments = Arguments::new(format, &out);
        assert_eq!(arguments.read(), Ok(5_u8));
        assert_eq!(arguments.read(), Ok(None::<String>));
        assert!(arguments.read::<String>().is_err());
    }
    let mut arguments = Arguments::new(Format::Json5np, b"1\x1f\x1f\"x\"");
    assert_eq!((arguments.read(), arguments.read(), arguments.read()), (Ok(1), Ok(None::<u8>), Ok("x")));
}

#[test]
fn a_message_that_is_too_large_leaves_the_frame_as_it_was() {
    let method = MethodId::new("A.B:1").expect("short");
    for format in RECORDED {
        let mut frame = Frame::new(format);
        frame.push(&Head::call(0, 1, &method), |out| out.value(&1)).expect("written");
        let before = frame.bytes().to_vec();
        let most = "x".repeat(limits::ARGUMENTS);
        assert!(frame.push(&Head::call(0, 2, &method), |out| out.value(&most)).is_err());
        let header = "x".repeat(limits::HEADER_VALUE + 1);
        assert!(frame.push(&Head::call(0, 2, &method).with(&[("#", &header)]), |_| Ok(())).is_err());
        assert!(frame.push(&Head::call(0, 2, &method).with(&[("#", ""); 32]), |_| Ok(())).is_err());
        assert_eq!(frame.bytes(), before);
        frame.push(&Head::call(0, 2, &method).with(&[("#", ""); 31]), |_| Ok(())).expect("written");
        let read = Messages::new(format, frame.bytes()).collect::<Result<Vec<_>, _>>().expect("read");
        assert_eq!((read.len(), read[1].headers.get("#"), read[1].arguments), (2, Some(""), &b""[..]));
    }
}
