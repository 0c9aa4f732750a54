//! A connection that is made, and made again.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection;
use crate::hub::Visitor;
use crate::peer::Peer;
use crate::remote::{Connected, RemoteBuilder};
use crate::transport::{Close, Connector, Refused};
use crate::wire::Guid;

/// A connection shorter than this counts as a failed attempt.
const SHORT: Duration = Duration::from_secs(15);

/// Why there is no connection to another process, as this end sees it. For people, and for logs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Disconnected {
    /// None can be made.
    #[error("the other end cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The other end does not let this one in.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It does not answer in the time of a handshake.
    #[error("the other end does not answer in time")]
    TimedOut,
    /// The other end has closed it, with this code.
    #[error("the other end has closed the connection: {0}")]
    Closed(u16),
    /// It broke, or was silent for too long.
    #[error("the connection broke")]
    Broken,
}

impl Disconnected {
    /// What the other end says.
    fn code(&self) -> Option<u16> {
        match self {
            Disconnected::Refused(Refused { code, .. }) | Disconnected::Closed(code) => Some(*code),
            _ => None,
        }
    }
}

/// Connects, again and again.
pub(crate) async fn run<C: Connector>(how: RemoteBuilder<C>, peer: Arc<Peer>) {
    let (mut tries, mut failures) = (0, 0_u32);
    let mut visitor = Visitor::new(peer.id.client_id(), how.format);
    // Nobody replaces a client's connection but the client.
    let (_keep, replaced) = watch::channel(false);
    loop {
        peer.other.is_now(Connected::Connecting);
        visitor.proof = peer.remote_secret().map(|secret| {
            tries += 1;
            secret.prove(&visitor.client_id, tries)
        });
        let mut began = None;
        let by = match timeout(peer.offer.timings.handshake, how.connector.connect(&visitor)).await {
            Ok(Ok((reader, writer))) => {
                let greeted = || began = Some(Instant::now());
                let said = connection::serve(peer.clone(), reader, writer, replaced.clone(), greeted).await;
                if began.is_some_and(|began| began.elapsed() >= SHORT) {
                    failures = 0;
                }
                said.map_or(Disconnected::Broken, Disconnected::Closed)
            }
            Ok(Err(error)) => {
                tracing::debug!(target: "wellspring::rpc", %error, "no connection: trying again");
                Refused::of(&error).map_or_else(|| Disconnected::Unreachable(error.to_string().into()), Disconnected::Refused)
            }
            Err(_) => Disconnected::TimedOut,
        };
        let code = by.code();
        peer.other.is_disconnected_by(by);
        if code == Some(Close::FORMAT) {
            tracing::error!(target: "wellspring::rpc", format = %how.format, "the other end does not speak the format");
            peer.made.close();
            peer.other.is_now(Connected::Never);
            return;
        }
        if began.is_none() && code == Some(Close::NOT_PROVED) && visitor.proof.is_some() && peer.forgets_secret() {
            // It may be a server that was left for another one, whose secret is known now: until it has forgotten this client, it lets in nobody who cannot
            // prove to be it. What it has kept is of no use, as its calls went to the other. So this is a client that it does not know.
            visitor.client_id = Guid::random().client_id();
            continue;
        }
        let (first, most) = how.backoff;
        let pause = first.saturating_mul(1 << failures.min(16)).min(most).mul_f64(0.75 + 0.5 * fastrand::f64());
        failures = failures.saturating_add(1);
        let next = Instant::now() + pause;
        peer.other.is_now(Connected::Again(next));
        sleep_until(next).await;
    }
}
