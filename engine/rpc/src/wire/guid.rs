//! Identities of peers and hubs.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error;
use uuid::Uuid;

/// An identity: of a peer, a hub, or the owner of a stream. In every format it is its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Guid(Uuid);

/// A text that is no GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the text is no GUID of 36 characters")]
pub struct NoGuid;

impl Guid {
    /// Nobody.
    pub const NONE: Guid = Guid(Uuid::nil());

    /// One that nobody else has.
    pub fn random() -> Guid {
        Guid(Uuid::new_v4())
    }

    /// From its number, the first digit of the text being the highest.
    pub const fn from_u128(number: u128) -> Guid {
        Guid(Uuid::from_u128(number))
    }

    /// Whether it is [`NONE`](Guid::NONE).
    pub const fn is_none(&self) -> bool {
        self.0.is_nil()
    }

    /// As the `clientId` of a connection's address: its bytes in .NET's order, in base64url.
    pub fn client_id(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.to_bytes_le())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = NoGuid;

    fn from_str(text: &str) -> Result<Guid, NoGuid> {
        // The only form that is on the wire, of those that could be read.
        if text.len() != 36 {
            return Err(NoGuid);
        }
        Uuid::try_parse(text).map(Guid).map_err(|_| NoGuid)
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Guid, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Guid;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a GUID")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Guid, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}
