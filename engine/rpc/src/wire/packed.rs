//! Ascending ids, packed: each as its difference to the one before, in LEB128.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error;

use super::varint;

/// Bytes that are no packed ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("these bytes are no packed ids")]
pub struct Broken;

/// Packs ids, which are in ascending order.
///
/// # Panics
/// In debug builds, if they are not.
pub fn pack(ids: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), 0);
    for id in ids {
        debug_assert!(id >= last, "{id} comes after {last}");
        varint::write(&mut out, id.wrapping_sub(last));
        last = id;
    }
    out
}

/// Unpacks them, one by one: what a peer says of its calls is not stored before it is looked at.
pub fn unpack(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, Broken>> {
    let mut last = Some(0_u64);
    std::iter::from_fn(move || {
        let before = last?;
        if bytes.is_empty() {
            return None;
        }
        last = varint::read(&mut bytes).and_then(|step| before.checked_add(step));
        Some(last.ok_or(Broken))
    })
}

/// Packed ids as an argument: bytes, or their base64 in text formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed<'a>(pub Cow<'a, [u8]>);

impl Packed<'_> {
    /// The ids.
    pub fn ids(&self) -> impl Iterator<Item = Result<u64, Broken>> {
        unpack(&self.0)
    }
}

impl Serialize for Packed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(&STANDARD.encode(&self.0));
        }
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Packed<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Packed<'de>, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Packed<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("packed ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Packed<'de>, E> {
                STANDARD.decode(text).map(|bytes| Packed(bytes.into())).map_err(E::custom)
            }

            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Packed<'de>, E> {
                Ok(Packed(bytes.into()))
            }
        }

        if deserializer.is_human_readable() {
            return deserializer.deserialize_str(Bytes);
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_over_the_end_is_refused_once() {
        let found: Vec<_> = unpack(&[5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 3]).collect();
        assert_eq!(found, [Ok(5), Err(Broken)]);
        assert_eq!(unpack(&[1, 0x80]).collect::<Vec<_>>(), [Ok(1), Err(Broken)]);
    }
}
