//! What was recorded of the peer's own client and server, line by line.

use serde_json::Value;
use wellspring_rpc::wire::{Arguments, Format, Guid, MethodRef, Raw, StreamRef, System};

use super::frame_of;
use super::loose::Loose;
use super::pipe::each;

/// The formats that were recorded.
pub const RECORDED: [Format; 3] = [Format::Json5np, Format::Msgpack6, Format::Msgpack6c];

/// A message of a frame: with the method's name, also where only its hash was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub name: String,
    pub call_type: u8,
    pub id: u64,
    pub arguments: Vec<u8>,
}

impl Said {
    pub fn system(&self) -> Option<System> {
        System::all().find(|call| call.name() == self.name)
    }

    /// A batch of a stream as the items that it is of.
    fn each(self, format: Format) -> Vec<Said> {
        if self.system() != Some(System::Batch) {
            return vec![self];
        }
        let item = |item: super::pipe::Received| Said { name: System::Item.name().to_owned(), arguments: item.arguments, ..self.clone() };
        each(format, self.id, &self.arguments).into_iter().map(item).collect()
    }
}

/// Methods of the recorded conversations that the recorder knew by their hashes alone.
pub const UNNAMED: [&str; 3] = ["INope.Nope:1", "IClientSide.Hello:2", "IClientSide.Boom:1"];

/// The messages of a frame, with batches taken apart.
pub fn said(format: Format, frame: &[u8], names: &[&str]) -> Vec<Said> {
    let messages = wellspring_rpc::wire::Messages::new(format, frame).map(|message| message.expect("a message"));
    let hash = |name: &str| wellspring_rpc::wire::MethodId::new(name).expect("short").hash();
    let named = messages.map(|message| {
        let name = match &message.method {
            MethodRef::Name(name) => name.to_string(),
            MethodRef::Hash(wanted) => {
                let mut all: Vec<&str> = System::all().map(System::name).collect();
                all.extend(names.iter().copied().chain(UNNAMED).filter(|name| !name.starts_with('<')));
                let found = all.into_iter().find(|name| hash(name) == *wanted);
                found.unwrap_or_else(|| panic!("{wanted:08x} is none of {names:?}")).to_owned()
            }
        };
        Said { name, call_type: message.call_type, id: message.related_id, arguments: message.arguments.to_vec() }
    });
    named.flat_map(|said| said.each(format)).collect()
}

/// All names of methods in a recording.
pub fn names(lines: &[Value]) -> Vec<&str> {
    lines.iter().flat_map(|line| line["msgs"].as_array().into_iter().flatten()).filter_map(|message| message["method"].as_str()).collect()
}

/// The messages of a recorded frame.
pub fn said_in(format: Format, line: &Value, names: &[&str]) -> Vec<Said> {
    said(format, &frame_of(line), names)
}

/// What the address of a recorded connection says.
pub fn asked<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    let (_, query) = line["url"].as_str().expect("an address").split_once('?').expect("a query");
    query.split('&').filter_map(|part| part.split_once('=')).find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// A frame with another owner of streams in the place of those who are in it: texts of the same length, in all formats.
pub fn addressed(mut frame: Vec<u8>, theirs: &[&str], ours: Option<Guid>) -> Vec<u8> {
    let Some(ours) = ours.map(|ours| ours.to_string()) else { return frame };
    for theirs in theirs {
        while let Some(at) = frame.windows(theirs.len()).position(|part| part == theirs.as_bytes()) {
            frame[at..at + theirs.len()].copy_from_slice(ours.as_bytes());
        }
    }
    frame
}

/// Whether two results, or two arguments, say the same: the same bytes, or the same value to JavaScript, in which the recorded ends were written.
pub fn is_same(format: Format, ours: &[u8], theirs: &[u8]) -> bool {
    let raw = |bytes: &[u8]| Arguments::new(format, bytes).read::<Raw>().expect("a value");
    let loose = |bytes: &[u8]| Arguments::new(format, bytes).read::<Loose>().ok();
    let stream =
        |bytes: &[u8]| Arguments::new(format, bytes).read::<StreamRef>().ok().map(|stream| StreamRef { host: Guid::NONE, ..stream });
    raw(ours) == raw(theirs)
        || (loose(ours).is_some() && loose(ours) == loose(theirs))
        || (stream(ours).is_some() && stream(ours) == stream(theirs))
}

/// Each argument of a message.
pub fn each_argument(format: Format, arguments: &[u8]) -> Vec<Vec<u8>> {
    if format.is_text() {
        let parts = arguments.split(|byte| *byte == 0x1f).map(<[u8]>::to_vec);
        return parts.filter(|_| !arguments.is_empty()).collect();
    }
    let (mut all, mut rest) = (Vec::new(), arguments);
    while !rest.is_empty() {
        let raw = Arguments::new(format, rest).read::<Raw>().expect("a value");
        rest = &rest[raw.bytes().len()..];
        all.push(raw.bytes().to_vec());
    }
    all
}

/// The index of an item, or of an end, of a stream, and what follows it.
pub fn indexed<'a, T: serde::Deserialize<'a>>(format: Format, arguments: &'a [u8]) -> (u64, T) {
    let mut arguments = Arguments::new(format, arguments);
    (arguments.read().expect("an index"), arguments.read().expect("what follows the index"))
}

/// What an application of the recorded client saw, as it was written down.
pub fn loose(value: &Value) -> Loose {
    match value {
        Value::Null => Loose::Nothing,
        Value::Bool(value) => Loose::Bool(*value),
        Value::Number(value) => Loose::Number(value.as_f64().expect("a number")),
        Value::String(value) => Loose::Text(value.clone()),
        Value::Array(items) => Loose::List(items.iter().map(loose).collect()),
        Value::Object(_) if value["$undefined"] == true => Loose::Nothing,
        Value::Object(map) => match value["$bin"].as_str() {
            Some(hex) => Loose::Bytes((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()),
            None => Loose::Map(map.iter().map(|(key, value)| (key.clone(), loose(value))).collect()),
        },
    }
}
