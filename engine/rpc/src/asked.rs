//! What a connection's address says: who wants to connect, and how. The query of a WebSocket's address, or the same text where there is none.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::hub::Visitor;
use crate::session::Refusal;
use crate::transport::Close;
use crate::wire::{Format, Proof, UnknownFormat};

/// Why whoever asks is not let in.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It cannot be read, or says something twice.
    Unreadable,
    /// The format is not spoken here.
    Format(UnknownFormat),
    /// By who looks at who it is.
    Turned(Refusal),
}

impl Refused {
    /// The code and the reason that a connection is closed with, where it has to be made to say so.
    pub(crate) fn close(&self) -> (u16, String) {
        match self {
            Refused::Unreadable => (Close::PROTOCOL.code, "nobody asks like this".to_owned()),
            Refused::Format(unknown) => (Close::FORMAT, unknown.to_string()),
            Refused::Turned(refusal) => (refusal.code(), refusal.reason().to_owned()),
        }
    }
}

/// Who asks, by the text of a query.
pub(crate) fn visitor(query: &str) -> Result<Visitor, Refused> {
    let Asked { client_id, format, counter, code } = Asked::read(query).ok_or(Refused::Unreadable)?;
    let client_id = client_id.unwrap_or_default();
    if client_id.len() > Visitor::LONGEST {
        return Err(Refused::Unreadable);
    }
    let format = match format.unwrap_or_default().as_str() {
        "" => Format::default(),
        key => key.parse().map_err(Refused::Format)?,
    };
    let mut visitor = Visitor::new(client_id, format);
    visitor.proof = match (counter, code) {
        (None, None) => None,
        (Some(counter), Some(code)) => Some(Proof { counter, code }),
        _ => return Err(Refused::Turned(Refusal::not_proved())),
    };
    Ok(visitor)
}

/// What stands for itself in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The query by which a visitor asks.
pub(crate) fn query(visitor: &Visitor) -> String {
    let mut query = format!("clientId={}&f={}", utf8_percent_encode(&visitor.client_id, PLAIN), visitor.format);
    if let Some(Proof { counter, code }) = &visitor.proof {
        query.push_str(&format!("&c={}&p={}", utf8_percent_encode(counter, PLAIN), utf8_percent_encode(code, PLAIN)));
    }
    query
}

#[derive(Default)]
struct Asked {
    client_id: Option<String>,
    format: Option<String>,
    counter: Option<String>,
    code: Option<String>,
}

impl Asked {
    /// None if it says one thing twice.
    fn read(query: &str) -> Option<Asked> {
        let mut asked = Asked::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match name {
                "clientId" => &mut asked.client_id,
                "f" => &mut asked.format,
                "c" => &mut asked.counter,
                "p" => &mut asked.code,
                _ => continue,
            };
            if place.replace(decoded(value)?).is_some() {
                return None;
            }
        }
        Some(asked)
    }
}

/// Without the percent signs. One that is not followed by two digits is not taken for itself: two readers could then see two clients.
fn decoded(value: &str) -> Option<String> {
    let is_hex = |rest: &str| rest.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if !value.split('%').skip(1).all(is_hex) {
        return None;
    }
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_read_as_it_was_written() {
        for id in ["", "a", "AAAAAAAAAECAAAAAAAAAAQ", "a&b=c+d %zz\u{1F600}\n/?#"] {
            for proof in [None, Some(Proof { counter: "12".to_owned(), code: "A-_&p=x".to_owned() })] {
                let mut asking = Visitor::new(id, Format::Msgpack6);
                asking.proof = proof;
                let read = visitor(&query(&asking)).expect("read");
                assert_eq!((read.client_id, read.format, read.proof), (asking.client_id, asking.format, asking.proof));
                assert!(!read.backend);
            }
        }
    }

    #[test]
    fn what_is_not_said_is_not_there_and_what_is_unknown_is_not_seen() {
        let read = visitor("session=x&&f=&backend=true&clientId").expect("read");
        assert_eq!((read.client_id.as_str(), read.format, read.proof, read.backend), ("", Format::Json5np, None, false));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_code_of_its_reason() {
        let long = format!("clientId={}", "x".repeat(Visitor::LONGEST + 1));
        let table = [
            ("clientId=%zz", 1002),
            ("clientId=%", 1002),
            ("clientId=%2", 1002),
            ("clientId=%ff", 1002),
            ("f=json5&f=json5", 1002),
            (&long, 1002),
            ("f=mempack6", Close::FORMAT),
            ("c=1", Close::NOT_PROVED),
            ("p=x", Close::NOT_PROVED),
        ];
        for (query, code) in table {
            let refusal = visitor(query).expect_err(query);
            assert_eq!(refusal.close().0, code, "{query}");
        }
    }
}
