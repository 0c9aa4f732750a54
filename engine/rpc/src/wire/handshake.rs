//! Who is there.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error, Serialize, SerializeStruct, SerializeTuple, Serializer};

use super::borrowed::Text;
use super::guid::Guid;
use super::limits;

/// What each end says of itself, first of all, on every connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// The sender's peer. Who is connected again knows by it whether the other end still knows of its calls.
    pub peer: Guid,
    /// Versions of what the sender offers and uses, as a comma list of `scope=version`.
    pub versions: Option<Cow<'a, str>>,
    /// The sender's process.
    pub hub: Guid,
    /// [`PROTOCOL`](Handshake::PROTOCOL), or the other end breaks off.
    pub protocol: i32,
    /// How many connections of this peer the sender has had, this one included.
    pub index: i32,
    /// What a client proves by that a connection is its own: from a server only.
    pub secret: Option<Cow<'a, str>>,
}

impl fmt::Debug for Handshake<'_> {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handshake { peer, versions, hub, protocol, index, secret: _ } = self;
        let mut out = f.debug_struct("Handshake");
        out.field("peer", peer).field("versions", versions).field("hub", hub).field("protocol", protocol).field("index", index);
        out.finish_non_exhaustive()
    }
}

impl Handshake<'_> {
    /// The only version of the protocol that is spoken.
    pub const PROTOCOL: i32 = 2;
}

/// A version set where it is an object or an array of one text.
struct Versions<'a>(Cow<'a, str>);

impl Serialize for Handshake<'_> {
    /// An object in camel case, or an array in order; of six members.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let versions = self.versions.as_ref().map(|versions| Versions(Cow::Borrowed(versions)));
        if serializer.is_human_readable() {
            let mut object = serializer.serialize_struct("Handshake", 6)?;
            object.serialize_field("remotePeerId", &self.peer)?;
            object.serialize_field("remoteApiVersionSet", &versions)?;
            object.serialize_field("remoteHubId", &self.hub)?;
            object.serialize_field("protocolVersion", &self.protocol)?;
            object.serialize_field("index", &self.index)?;
            object.serialize_field("secret", &self.secret)?;
            return object.end();
        }
        let mut array = serializer.serialize_tuple(6)?;
        array.serialize_element(&self.peer)?;
        array.serialize_element(&versions)?;
        array.serialize_element(&self.hub)?;
        array.serialize_element(&self.protocol)?;
        array.serialize_element(&self.index)?;
        array.serialize_element(&self.secret)?;
        array.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Handshake<'a> {
    /// Of any member order and of both casings, with or without the last.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Handshake<'a>, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Handshake<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a handshake")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Handshake<'de>, A::Error> {
                let (Some(peer), Some(versions), Some(hub), Some(protocol), Some(index)) = (
                    parts.next_element()?,
                    parts.next_element::<Option<Versions<'de>>>()?,
                    parts.next_element()?,
                    parts.next_element()?,
                    parts.next_element()?,
                ) else {
                    return Err(de::Error::custom("a handshake has five parts at least"));
                };
                let secret = parts.next_element::<Option<Text<'de>>>()?.flatten().map(|text| text.0);
                while parts.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Handshake { peer, versions: versions.map(|versions| versions.0), hub, protocol, index, secret })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Handshake<'de>, A::Error> {
                let (mut peer, mut hub, mut secret, mut versions) = (None, None, None, None);
                // What is missing is zero to the peer, and no version that is spoken.
                let (mut protocol, mut index) = (0, 0);
                while let Some(Text(name)) = parts.next_key::<Text<'de>>()? {
                    match &*name {
                        "RemotePeerId" | "remotePeerId" => peer = Some(parts.next_value()?),
                        "RemoteApiVersionSet" | "remoteApiVersionSet" => versions = parts.next_value::<Option<Versions<'de>>>()?,
                        "RemoteHubId" | "remoteHubId" => hub = Some(parts.next_value()?),
                        "ProtocolVersion" | "protocolVersion" => protocol = parts.next_value()?,
                        "Index" | "index" => index = parts.next_value()?,
                        "Secret" | "secret" => secret = parts.next_value::<Option<Text<'de>>>()?,
                        _ => drop(parts.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Handshake {
                    peer: peer.ok_or_else(|| de::Error::missing_field("RemotePeerId"))?,
                    versions: versions.map(|versions| versions.0),
                    hub: hub.unwrap_or_default(),
                    protocol,
                    index,
                    secret: secret.map(|text| text.0),
                })
            }
        }

        deserializer.deserialize_struct("Handshake", &[], Parts)
    }
}

impl Serialize for Versions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !fits(&self.0) {
            return Err(S::Error::custom("the version set is too long"));
        }
        if serializer.is_human_readable() {
            let mut object = serializer.serialize_struct("VersionSet", 1)?;
            object.serialize_field("value", &self.0)?;
            return object.end();
        }
        (&self.0,).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Versions<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Versions<'de>, D::Error> {
        #[derive(serde::Deserialize)]
        struct VersionSet<'a> {
            #[serde(rename = "value", alias = "Value", borrow)]
            value: Option<Text<'a>>,
        }
        let text = VersionSet::deserialize(deserializer)?.value.map_or(Cow::Borrowed(""), |text| text.0);
        if fits(&text) { Ok(Versions(text)) } else { Err(de::Error::custom("the version set is too long")) }
    }
}

fn fits(versions: &str) -> bool {
    versions.len() <= limits::VERSIONS && versions.split(',').count() <= limits::VERSION_SCOPES
}
