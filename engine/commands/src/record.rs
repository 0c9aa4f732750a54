//! What an operation leaves in the log: data, never code.
//!
//! Keys are JSON texts under their function's name. JSON, because the row outlives the program that wrote it: a server of the
//! next version reads a `u64` where a `u32` was written, a person reads it in `psql`, and another language can write it.

use serde::{Deserialize, Serialize};

use crate::id::{OperationId, ServerId};
use crate::items::Items;
use crate::position::Place;

/// A key that an operation has made stale.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LoggedKey {
    /// The function's name, which is the same in every process.
    #[serde(rename = "f")]
    pub function: String,
    /// The arguments as JSON; none for all keys of the function.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What an entry's body says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The outermost command's name.
    #[serde(rename = "c", default)]
    pub command: String,
    /// What is stale, each once.
    #[serde(rename = "k", default)]
    pub keys: Vec<LoggedKey>,
    /// What the handler gave along.
    #[serde(rename = "i", default, skip_serializing_if = "Items::is_empty")]
    pub items: Items,
}

/// An entry as a log gives it out. The body is decoded where it is applied, so that one that cannot be harms nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the order.
    pub place: Place,
    /// The operation.
    pub operation: OperationId,
    /// The server that has committed it.
    pub origin: ServerId,
    /// [`Body`] as JSON.
    pub body: String,
}
