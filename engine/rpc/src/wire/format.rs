//! The formats a connection can speak.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How a connection writes frames, method names and values. The client chooses it, in the connection's address.
///
/// `mempack6`, .NET's own default, is not offered: its values can only be read by who has the .NET types. .NET clients can be told to use
/// `msgpack6c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Format {
    /// Text frames, JSON values. What TypeScript clients speak unless told otherwise.
    #[default]
    Json5np,
    /// The same for everything but polymorphic values, which there are none of here.
    Json5,
    /// Binary frames, full method names, MessagePack values.
    Msgpack6,
    /// Binary frames, hashes of method names, MessagePack values: the fastest.
    Msgpack6c,
}

/// A format that is not spoken here. A server closes the connection with code 4001 and this text, upon which a client gives up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Unsupported RPC serialization format: '{0}'")]
pub struct UnknownFormat(String);

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Json5np, Format::Json5, Format::Msgpack6, Format::Msgpack6c];

    /// Its name in a connection's address.
    pub const fn key(self) -> &'static str {
        match self {
            Format::Json5np => "json5np",
            Format::Json5 => "json5",
            Format::Msgpack6 => "msgpack6",
            Format::Msgpack6c => "msgpack6c",
        }
    }

    /// Whether its frames are text.
    pub const fn is_text(self) -> bool {
        matches!(self, Format::Json5np | Format::Json5)
    }

    /// Whether methods are named by their hash.
    pub const fn is_compact(self) -> bool {
        matches!(self, Format::Msgpack6c)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(key: &str) -> Result<Format, UnknownFormat> {
        // What a stranger has sent goes into a close frame, which has room for 123 bytes.
        let unknown = || UnknownFormat(key.chars().take(16).collect());
        Format::ALL.into_iter().find(|format| format.key() == key).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_found_by_its_key_and_no_other_is() {
        for format in Format::ALL {
            assert_eq!(format.key().parse(), Ok(format));
        }
        for key in ["", "json5NP", "mempack6", "msgpack6c-lz4", "njson5"] {
            assert!(key.parse::<Format>().is_err(), "{key}");
        }
        let error = "\u{1F600}".repeat(99).parse::<Format>().expect_err("none");
        assert!(error.to_string().len() <= 123);
    }
}
