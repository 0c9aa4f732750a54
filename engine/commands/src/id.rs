//! Names of operations, servers, logs and command calls.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// From the 128 bits of its UUID.
            pub fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The 128 bits of its UUID.
            pub fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map(Self).map_err(|_| InvalidId { text: text.chars().take(80).collect() })
            }
        }
    };
}

/// A text that is not the id it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid id")]
pub struct InvalidId {
    text: String,
}

uuid_id! {
    /// One operation, the same on every server and over every retry: what is de-duplicated by.
    OperationId
}
uuid_id! {
    /// One server: a process, or rather one [`Server`](crate::Server) in it.
    ServerId
}
uuid_id! {
    /// One log. Positions of different logs cannot be compared.
    LogId
}
uuid_id! {
    /// One event in the outbox.
    EventId
}

impl OperationId {
    /// A new one; later ones are larger on one server (UUID version 7), which keeps their index compact.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for OperationId {
    fn default() -> Self {
        Self::new()
    }
}

impl EventId {
    /// A new one.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for EventId {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerId {
    /// A new one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl LogId {
    /// A new one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

/// What a caller names a call by, so that its repeat is recognised: see [`Call::id`](crate::Call::id).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId(Arc<str>);

impl CommandId {
    /// The longest there may be, in bytes.
    pub const MOST_BYTES: usize = 200;

    /// From a text of 1 to [`MOST_BYTES`](Self::MOST_BYTES) bytes.
    ///
    /// # Errors
    /// [`InvalidId`] otherwise.
    pub fn new(text: impl Into<String>) -> Result<CommandId, InvalidId> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::MOST_BYTES || text.contains('\0') {
            return Err(InvalidId { text: text.chars().take(80).collect() });
        }
        Ok(CommandId(text.into()))
    }

    /// A new one that nobody else has: for callers that keep it over their own retries.
    pub fn random() -> CommandId {
        CommandId(Uuid::new_v4().to_string().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandId({:?})", &self.0)
    }
}

impl TryFrom<String> for CommandId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<CommandId, InvalidId> {
        CommandId::new(text)
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> String {
        id.0.as_ref().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_from_its_text() {
        let id = OperationId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("nonsense".parse::<OperationId>().is_err());
    }

    #[test]
    fn a_command_id_has_a_length_that_an_index_can_hold() {
        assert!(CommandId::new("").is_err());
        assert!(CommandId::new("x".repeat(200)).is_ok());
        assert!(CommandId::new("x".repeat(201)).is_err());
        assert!(serde_json::from_str::<CommandId>("\"\"").is_err());
    }
}
