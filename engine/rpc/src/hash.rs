//! What results are compared by.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The first 18 bytes of the SHA-256 of a result, as it is in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash([u8; Hash::BYTES]);

impl Hash {
    pub(crate) const BYTES: usize = 18;

    pub(crate) fn of(arguments: &[u8]) -> Hash {
        let mut hash = [0; Hash::BYTES];
        hash.copy_from_slice(&Sha256::digest(arguments)[..Hash::BYTES]);
        Hash(hash)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Hash {
    /// As it travels: base64, which needs no padding for 18 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}
