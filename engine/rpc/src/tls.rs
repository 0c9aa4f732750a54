//! Configurations of TLS: [rustls](https://docs.rs/rustls) with `ring`, whatever else the process has chosen for itself.
//!
//! These are the usual ones. Any other configuration of rustls does as well, with any provider: [`TlsAddress`](crate::socket::TlsAddress),
//! [`WebAddress::secure`](crate::web::WebAddress::secure) and [`Listener::tls`](crate::Listener::tls) take what they are given.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
pub use tokio_rustls::rustls;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why there is no configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A text is no PEM, or not of what it should be.
    #[error("the {what} cannot be read: {error}")]
    Pem {
        /// Of which.
        what: &'static str,
        /// Why.
        error: PemError,
    },
    /// There is no certificate in it.
    #[error("there is no certificate in what should have {0}")]
    None(&'static str),
    /// A certificate cannot be used.
    #[error("a certificate cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// The clients' roots cannot be used.
    #[error("the clients' roots cannot be used: {0}")]
    Roots(#[from] VerifierBuilderError),
}

/// A certificate, with those that it depends on, and its key: both in PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, and the intermediate ones after it.
    pub chain: &'a [u8],
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: &'a [u8],
}

impl fmt::Debug for Identity<'_> {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &String::from_utf8_lossy(self.chain)).finish_non_exhaustive()
    }
}

impl Identity<'_> {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(self.chain, "chain")?;
        let key = PrivateKeyDer::from_pem_slice(self.key).map_err(|error| TlsError::Pem { what: "key", error })?;
        Ok((chain, key))
    }
}

/// A server's: whoever trusts the identity's roots can connect.
///
/// # Errors
/// If something is no PEM, or the key is not the certificate's.
pub fn server(identity: Identity<'_>) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = identity.read()?;
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_no_client_auth().with_single_cert(chain, key)?))
}

/// A server's, to which only clients can connect that have a certificate by one of these roots (PEM): for [backends](crate::Listener::backend).
///
/// # Errors
/// As [`server`], or if the roots cannot be used.
pub fn server_for(identity: Identity<'_>, clients: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = identity.read()?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots(clients)?.into(), provider()).build()?;
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_client_cert_verifier(clients).with_single_cert(chain, key)?))
}

/// A client's, which trusts servers with a certificate by one of these roots (PEM); and shows its own, if it has one.
///
/// # Errors
/// If something is no PEM, or cannot be used.
pub fn client(servers: &[u8], identity: Option<Identity<'_>>) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(servers)?.into(), provider()).build()?;
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?.with_webpki_verifier(verifier);
    Ok(Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.read()?;
            config.with_client_auth_cert(chain, key)?
        }
    }))
}

/// The process may have two in its tree, and none that is the default: so it is said each time.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "roots")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| TlsError::Pem { what, error })?;
    if read.is_empty() { Err(TlsError::None(what)) } else { Ok(read) }
}
