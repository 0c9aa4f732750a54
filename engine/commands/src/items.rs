//! What a handler gives along with its operation.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Named values that travel with an operation to whoever listens to it on any server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Items(BTreeMap<String, serde_json::Value>);

/// An item that cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// It cannot be written as JSON, or not be read back as the type asked for.
    #[error("item `{name}` is not what was expected: {error}")]
    Json {
        /// The item.
        name: String,
        /// Why.
        error: serde_json::Error,
    },
    /// All items of an operation together are too large; give along a reference instead.
    #[error("item `{name}` would bring the operation's items to {bytes} bytes, more than {limit}")]
    TooLarge {
        /// The item.
        name: String,
        /// What it would come to.
        bytes: usize,
        /// What there may be.
        limit: usize,
    },
}

impl Items {
    /// What all items of an operation may come to, in bytes of JSON: a log row is read by every server.
    pub const MOST_BYTES: usize = 64 << 10;

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Sets an item.
    ///
    /// # Errors
    /// [`ItemError`]; the items are as they were.
    pub fn set(&mut self, name: impl Into<String>, value: &impl Serialize) -> Result<(), ItemError> {
        let name = name.into();
        let value = match serde_json::to_value(value) {
            Ok(value) => value,
            Err(error) => return Err(ItemError::Json { name, error }),
        };
        let size = |name: &str, value: &serde_json::Value| name.len() + value.to_string().len();
        let others: usize = self.0.iter().filter(|(other, _)| **other != name).map(|(name, value)| size(name, value)).sum();
        let bytes = others + size(&name, &value);
        if bytes > Self::MOST_BYTES {
            return Err(ItemError::TooLarge { name, bytes, limit: Self::MOST_BYTES });
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// An item, if it was set.
    ///
    /// # Errors
    /// [`ItemError::Json`] if it is of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ItemError> {
        let read = |value: &serde_json::Value| T::deserialize(value);
        self.0.get(name).map(read).transpose().map_err(|error| ItemError::Json { name: name.to_owned(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_comes_back_as_it_was() {
        let mut items = Items::default();
        items.set("old", &Some(7_u32)).expect("kept");
        assert_eq!(items.get::<u64>("old").expect("a number"), Some(7));
        assert_eq!(items.get::<u64>("new").expect("nothing"), None);
        assert!(items.get::<String>("old").is_err());
    }

    #[test]
    fn items_that_are_too_large_are_refused_and_change_nothing() {
        let mut items = Items::default();
        items.set("a", &"x".repeat(40_000)).expect("kept");
        assert!(matches!(items.set("b", &"x".repeat(40_000)), Err(ItemError::TooLarge { .. })));
        items.set("a", &1).expect("replaced");
        items.set("b", &"x".repeat(40_000)).expect("there is room now");
    }
}
