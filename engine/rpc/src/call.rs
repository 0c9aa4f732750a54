//! A call that was received, until it is answered.

use std::sync::Arc;

use wellspring::Invalidated;

use crate::failure::Failure;
use crate::peer::Peer;
use crate::wire::{System, WriteError, Writer};

/// A call under way. Whoever has it answers it, once; one that is dropped unanswered (a body that panicked) is answered with a failure.
#[derive(Debug)]
pub(crate) struct Call {
    peer: Option<Arc<Peer>>,
    pub(crate) id: u64,
    pub(crate) asks: Asks,
}

/// What the caller asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks {
    /// To be told when the value is stale.
    pub(crate) push: bool,
    /// For the hash of the result, and which one it has.
    pub(crate) hash: Option<Box<str>>,
}

impl Call {
    pub(crate) fn new(peer: Arc<Peer>, id: u64, asks: Asks) -> Call {
        Call { peer: Some(peer), id, asks }
    }

    /// With a result.
    pub(crate) fn answer(mut self, write: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) {
        if let Some(peer) = self.peer.take() {
            peer.answer(self.id, &self.asks, System::Ok, None, &write);
        }
    }

    /// With a failure, of which nobody can say when it is stale: a caller that wants to know is told so a second later.
    pub(crate) fn fail(mut self, failure: &Failure) {
        if let Some(peer) = self.peer.take() {
            Call::failed(&peer, self.id, &self.asks, failure);
        }
    }

    /// With a result, until it is stale.
    pub(crate) fn push(mut self, end: Invalidated, write: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) {
        if let Some(peer) = self.peer.take() {
            let end = self.asks.push.then_some(end);
            peer.answer(self.id, &self.asks, System::Ok, end, &write);
        }
    }

    /// With a failure, until it is stale.
    pub(crate) fn push_failure(mut self, end: Invalidated, failure: &Failure) {
        if let Some(peer) = self.peer.take() {
            let end = self.asks.push.then_some(end);
            peer.answer(self.id, &self.asks, System::Error, end, &|out| out.value(&failure.info()));
        }
    }

    fn failed(peer: &Arc<Peer>, id: u64, asks: &Asks, failure: &Failure) {
        if id == 0 {
            return;
        }
        peer.answer(id, asks, System::Error, None, &|out| out.value(&failure.info()));
        if asks.push {
            peer.tell_later(id);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A call that was cancelled is not known any more, so nothing is said to who does not want to hear it.
        if let Some(peer) = self.peer.take()
            && peer.is_running(self.id)
        {
            Call::failed(&peer, self.id, &self.asks, &Failure::new("the call was given up by the server"));
        }
    }
}
