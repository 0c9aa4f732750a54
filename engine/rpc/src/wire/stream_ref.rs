//! A stream where it stands in a value.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::guid::Guid;

/// What stands for a stream in a result or an argument. Its items come by [system calls](super::System) once somebody asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRef {
    /// The owner: the [`peer`](super::Handshake::peer) of its handshake.
    pub host: Guid,
    /// Its number among those of the owner.
    pub id: u64,
    /// After how many items that were used the consumer says so.
    pub ack_period: u32,
    /// How many items may be under way beyond what the consumer has said.
    pub ack_advance: u32,
    /// Whether it goes on after a connection was made again.
    pub reconnects: bool,
    /// Whether the owner may leave items out that a slow consumer has not got yet.
    pub real_time: bool,
}

impl StreamRef {
    /// [`ack_period`](StreamRef::ack_period), if nobody says otherwise.
    pub const ACK_PERIOD: u32 = 30;
    /// [`ack_advance`](StreamRef::ack_advance), if nobody says otherwise.
    pub const ACK_ADVANCE: u32 = 61;

    /// One of the usual windows.
    pub fn new(host: Guid, id: u64) -> StreamRef {
        let (ack_period, ack_advance) = (StreamRef::ACK_PERIOD, StreamRef::ACK_ADVANCE);
        StreamRef { host, id, ack_period, ack_advance, reconnects: true, real_time: false }
    }

    fn from_text(text: &str) -> Option<StreamRef> {
        let mut parts = text.split(',');
        let (host, id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (ack_period, ack_advance) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let flag = |part: Option<&str>, otherwise| match part {
            Some("1") => Some(true),
            Some("0") => Some(false),
            Some(_) => None,
            None => Some(otherwise),
        };
        let (reconnects, real_time) = (flag(parts.next(), true)?, flag(parts.next(), false)?);
        let read = StreamRef { host, id, ack_period, ack_advance, reconnects, real_time };
        (parts.next().is_none() && read.is_possible()).then_some(read)
    }

    fn is_possible(&self) -> bool {
        self.ack_period > 0 && self.ack_advance > 0
    }
}

impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StreamRef { host, id, ack_period, ack_advance, reconnects, real_time } = *self;
        write!(f, "{host},{id},{ack_period},{ack_advance},{},{}", u8::from(reconnects), u8::from(real_time))
    }
}

impl Serialize for StreamRef {
    /// A text, or a map.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let mut map = serializer.serialize_struct("RpcStream", 5)?;
        map.serialize_field("AckPeriod", &self.ack_period)?;
        map.serialize_field("AckAdvance", &self.ack_advance)?;
        map.serialize_field("SerializedId", &(self.host, self.id))?;
        map.serialize_field("AllowReconnect", &self.reconnects)?;
        map.serialize_field("IsRealTime", &self.real_time)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for StreamRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StreamRef, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = StreamRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a stream")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StreamRef, E> {
                StreamRef::from_text(text).ok_or_else(|| E::custom("a text that is no stream"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<StreamRef, A::Error> {
                let mut read = StreamRef::new(Guid::NONE, 0);
                let mut found = false;
                while let Some(name) = parts.next_key::<&str>()? {
                    match name {
                        "AckPeriod" => read.ack_period = parts.next_value()?,
                        "AckAdvance" => read.ack_advance = parts.next_value()?,
                        "SerializedId" => ((read.host, read.id), found) = (parts.next_value()?, true),
                        "AllowReconnect" => read.reconnects = parts.next_value()?,
                        "IsRealTime" => read.real_time = parts.next_value()?,
                        _ => drop(parts.next_value::<IgnoredAny>()?),
                    }
                }
                if !found || !read.is_possible() {
                    return Err(de::Error::custom("a map that is no stream"));
                }
                Ok(read)
            }
        }

        if deserializer.is_human_readable() {
            return deserializer.deserialize_str(Parts);
        }
        deserializer.deserialize_map(Parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Arguments, Format, Writer};

    #[test]
    fn a_stream_comes_back_in_every_format() {
        let stream = StreamRef { reconnects: false, real_time: true, ..StreamRef::new(Guid::from_u128(7), 3) };
        for format in Format::ALL {
            let mut out = Vec::new();
            Writer::new(format, &mut out).value(&stream).expect("written");
            assert_eq!(Arguments::new(format, &out).read(), Ok(stream), "{format}");
        }
    }

    #[test]
    fn a_text_has_four_parts_at_least_and_windows_above_zero() {
        let host = Guid::from_u128(7);
        assert_eq!(StreamRef::from_text(&format!("{host},3,30,61")), Some(StreamRef::new(host, 3)));
        for text in ["", "x,3,30,61", "3,30,61"].map(str::to_owned).into_iter().chain(
            ["3,30", "3,0,61", "3,30,0", "-3,30,61", "3,30,61,2", "3,30,61,1,0,1", "3,30,99999999999"].map(|rest| format!("{host},{rest}")),
        ) {
            assert_eq!(StreamRef::from_text(&text), None, "{text}");
        }
    }
}
