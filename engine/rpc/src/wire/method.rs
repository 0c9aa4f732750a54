//! Names of methods, and their hashes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use super::{limits, text};

/// A method: `Service.Method:N`, where N counts the parameters of the method as the peer's language declares them, which in .NET and
/// TypeScript includes a cancellation token that is never sent.
///
/// All that a message needs of it is made once.
#[derive(Clone)]
pub struct MethodId(Arc<Parts>);

struct Parts {
    name: String,
    hash: u32,
    json: String,
}

/// A name of more than [`limits::METHOD`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a method's full name has {0} bytes, and may have {limit}", limit = limits::METHOD)]
pub struct NameTooLong(usize);

impl MethodId {
    /// From the full name.
    ///
    /// # Errors
    /// If it is too long for a message.
    pub fn new(name: impl Into<String>) -> Result<MethodId, NameTooLong> {
        let name = name.into();
        if name.len() > limits::METHOD {
            return Err(NameTooLong(name.len()));
        }
        Ok(MethodId::of_short(name))
    }

    /// From a full name that is short enough.
    pub(crate) fn of_short(name: String) -> MethodId {
        let (hash, mut json) = (hash(&name), Vec::new());
        text::write_string(&mut json, &name);
        let json = String::from_utf8_lossy(&json).into_owned();
        MethodId(Arc::new(Parts { name, hash, json }))
    }

    /// The full name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the name is in compact formats.
    pub fn hash(&self) -> u32 {
        self.0.hash
    }

    /// The name as a JSON string.
    pub(super) fn json(&self) -> &str {
        &self.0.json
    }
}

impl fmt::Debug for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MethodId").field(&self.name()).finish()
    }
}

impl PartialEq for MethodId {
    fn eq(&self, other: &MethodId) -> bool {
        self.name() == other.name()
    }
}

impl Eq for MethodId {}

impl std::hash::Hash for MethodId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

/// How a message that was read says which method it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodRef<'a> {
    /// By its full name.
    Name(Cow<'a, str>),
    /// By the hash of it.
    Hash(u32),
}

impl MethodRef<'_> {
    /// Whether it is of the service with such a name: [`System`](super::System) methods are of `$sys` and `$sys-c`. Nobody knows this of a
    /// hash.
    pub fn service(&self) -> Option<&str> {
        match self {
            MethodRef::Name(name) => name.rsplit_once('.').map(|(service, _)| service),
            MethodRef::Hash(_) => None,
        }
    }
}

impl fmt::Display for MethodRef<'_> {
    /// As the peer calls it: a hash that nobody knows is a method of a service `Service`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MethodRef::Name(name) => f.write_str(name),
            MethodRef::Hash(hash) => write!(f, "Service.Method{hash:08x}"),
        }
    }
}

/// The low half of XXH3-64 over a product of the name's length, in four bytes, and the name.
pub(super) fn hash(name: &str) -> u32 {
    /// The peer's own factor.
    const FACTOR: u32 = 67_211;
    let mut hasher = Xxh3::new();
    hasher.update(&FACTOR.wrapping_mul(name.len() as u32).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.digest() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_message_can_carry_is_refused() {
        assert!(MethodId::new("x".repeat(limits::METHOD)).is_ok());
        assert_eq!(MethodId::new("x".repeat(limits::METHOD + 1)), Err(NameTooLong(1025)));
    }

    #[test]
    fn a_service_is_all_before_the_last_dot() {
        assert_eq!(MethodRef::Name("$sys-c.Invalidate:0".into()).service(), Some("$sys-c"));
        assert_eq!(MethodRef::Name("A.B.C:1".into()).service(), Some("A.B"));
        assert_eq!(MethodRef::Name("none".into()).service(), None);
        assert_eq!(MethodRef::Hash(0xabc).to_string(), "Service.Method00000abc");
    }
}
