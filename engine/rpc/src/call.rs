//! A call that was received, until it is answered.

use std::sync::Arc;

use wellspring::{Computed, Invalidated, Value};

use crate::failure::Failure;
use crate::peer::Peer;
use crate::streams::Within;
use crate::verified::Given;
use crate::wire::{System, WriteError, Writer};

/// A call under way. Whoever has it answers it, once. One that is dropped unanswered (its body panicked) is answered with a failure, if it is known
/// to run.
#[derive(Debug)]
pub(crate) struct Call {
    peer: Option<Arc<Peer>>,
    pub(crate) id: u64,
    /// Which of all calls it is: ids come again, with another client or after a cancellation.
    pub(crate) serial: u64,
    pub(crate) asks: Asks,
}

/// What the caller asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks {
    /// To be told when the value is stale.
    pub(crate) push: bool,
    /// That only once it has changed, where the method is so.
    pub(crate) verified: bool,
    /// For the hash of the result, and which one it has.
    pub(crate) hash: Option<Box<str>>,
}

/// When an answer is stale.
pub(crate) enum Ends {
    /// Nobody asks.
    Never,
    /// Nobody knows, so it is said in a while.
    Soon,
    At(Invalidated),
    /// When it has changed.
    Changed(Arc<dyn Given>),
}

impl Call {
    pub(crate) fn new(peer: Arc<Peer>, id: u64, serial: u64, asks: Asks) -> Call {
        Call { peer: Some(peer), id, serial, asks }
    }

    /// With a result.
    pub(crate) fn answer(self, write: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) {
        self.give(System::Ok, Ends::Never, &write);
    }

    /// With a failure, of which nobody can say when it is stale.
    pub(crate) fn fail(self, failure: &Failure) {
        let ends = if self.asks.push { Ends::Soon } else { Ends::Never };
        self.give(System::Error, ends, &|out| out.value(&failure.info()));
    }

    /// With a result, until it is stale.
    pub(crate) fn push<V: Value>(self, computed: &Computed<V>, write: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>) {
        let ends = self.ends(computed);
        self.give(System::Ok, ends, &write);
    }

    /// With a failure, until it is stale.
    pub(crate) fn push_failure<V: Value>(self, computed: &Computed<V>, failure: &Failure) {
        let ends = self.ends(computed);
        self.give(System::Error, ends, &|out| out.value(&failure.info()));
    }

    fn ends<V: Value>(&self, computed: &Computed<V>) -> Ends {
        match (self.asks.push, self.asks.verified) {
            (false, _) => Ends::Never,
            (true, false) => Ends::At(computed.invalidated()),
            (true, true) => Ends::Changed(Arc::new(computed.clone())),
        }
    }

    fn give(mut self, call: System, ends: Ends, write: &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>) {
        if let Some(peer) = &self.peer {
            let _within = Within::of(peer);
            peer.answer(self.id, self.serial, &self.asks, call, ends, write);
        }
        // Not before: what writes a result is the user's, and may panic.
        self.peer = None;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A call that was cancelled is not known any more, so nothing is said to who does not want to hear it.
        if let Some(peer) = self.peer.take()
            && peer.is_running(self.id, self.serial)
        {
            let asks = std::mem::take(&mut self.asks);
            Call::new(peer, self.id, self.serial, asks).fail(&Failure::new("the call was given up by the server"));
        }
    }
}
