//! Proof that a connection is made by the client that has made the one before.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a server gives a client in the handshake, and never says again.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What a client shows at a later connection: how many it has tried, and a code over its id and that number.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// `c` in the connection's address.
    pub counter: String,
    /// `p` there.
    pub code: String,
}

impl Secret {
    /// A new one, of 256 bits that nobody can guess.
    ///
    /// # Panics
    /// If the system has no random numbers to give.
    pub fn random() -> Secret {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("random numbers of the system");
        Secret(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// One that was given.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// As it travels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The proof of a connection attempt, the first of which is number one.
    pub fn prove(&self, client_id: &str, counter: u64) -> Proof {
        let counter = counter.to_string();
        let code = URL_SAFE_NO_PAD.encode(self.code(client_id, &counter).finalize().into_bytes());
        Proof { counter, code }
    }

    /// The number of a proof that is right. It says nothing of whether that number was used before.
    pub fn check(&self, client_id: &str, proof: &Proof) -> Option<u64> {
        let digits = !proof.counter.is_empty() && proof.counter.bytes().all(|byte| byte.is_ascii_digit());
        let counter = proof.counter.parse().ok().filter(|counter| digits && *counter > 0)?;
        let code = URL_SAFE_NO_PAD.decode(&proof.code).ok()?;
        // In constant time.
        self.code(client_id, &proof.counter).verify_slice(&code).ok()?;
        Some(counter)
    }

    fn code(&self, client_id: &str, counter: &str) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("a key of any length");
        code.update(client_id.as_bytes());
        code.update(b"\n");
        code.update(counter.as_bytes());
        code
    }
}

impl fmt::Debug for Secret {
    /// Without the secret: it must not get into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

impl fmt::Debug for Proof {
    /// Without the code: who reads it in a log could use it first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("counter", &self.counter).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_secret_one_client_and_one_number() {
        let secret = Secret::random();
        assert_eq!(secret.as_str().len(), 43);
        let proof = secret.prove("client", 7);
        assert_eq!(secret.check("client", &proof), Some(7));
        assert_eq!(secret.check("another", &proof), None);
        assert_eq!(Secret::random().check("client", &proof), None);
        for counter in ["8", "07", "+7", " 7", "7 ", "", "x", "18446744073709551616"] {
            let forged = Proof { counter: counter.to_owned(), ..proof.clone() };
            assert_eq!(secret.check("client", &forged), None, "{counter}");
        }
        assert_eq!(secret.check("client", &secret.prove("client", 0)), None);
        assert!(!format!("{secret:?} {proof:?}").contains(&proof.code));
    }
}
