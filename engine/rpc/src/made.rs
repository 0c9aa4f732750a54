//! A call that was made, until nobody waits for anything of it.

use std::sync::{Arc, Weak};
use std::task::Poll;

use crate::call_options::Sent;
use crate::end::End;
use crate::outbound::Reply;
use crate::peer::Peer;
use crate::remote::{CallError, Remote};
use crate::wire::{FrameError, MethodId, System};

/// What has come of a compute call: of which kind, what is in it, its end, and the call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) call: System,
    pub(crate) arguments: Vec<u8>,
    pub(crate) end: Arc<End>,
    pub(crate) made: Made,
}

/// A call until its reply: given up when it is dropped before.
pub(crate) struct Asked<'a> {
    peer: &'a Peer,
    /// None before it is made, and when it is over.
    id: Option<u64>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(peer: &'a Peer) -> Asked<'a> {
        Asked { peer, id: None }
    }

    /// Makes the call, and waits for what comes of it. Who has dropped that can go on [waiting](Asked::reply).
    pub(crate) async fn ask(&mut self, call_type: u8, method: &MethodId, headers: Sent, arguments: Vec<u8>) -> Result<Reply, CallError> {
        let (peer, mut message) = (self.peer, Some((headers, arguments)));
        let reply = std::future::poll_fn(|cx| match message.take() {
            // Made with the waker: nothing is looked up before there is something.
            Some((headers, arguments)) => {
                self.id = peer.made.call(&peer.out, call_type, method, headers, arguments, cx.waker().clone())?;
                if self.id.is_some() { Poll::Pending } else { Poll::Ready(Ok(Reply::Never)) }
            }
            None => self.id.map_or(Poll::Ready(Reply::Never), |id| peer.made.reply(id, cx.waker())).map(Ok),
        });
        let reply = reply.await.map_err(|error: FrameError| CallError::Unsendable(error.to_string()))?;
        Ok(self.taken(reply))
    }

    /// Waits for what comes of a call that was made.
    pub(crate) async fn reply(&mut self) -> Reply {
        let (peer, id) = (self.peer, self.id);
        let reply = std::future::poll_fn(|cx| id.map_or(Poll::Ready(Reply::Never), |id| peer.made.reply(id, cx.waker()))).await;
        self.taken(reply)
    }

    /// Of a value the end is waited for; anything else is over.
    fn taken(&mut self, reply: Reply) -> Reply {
        if !matches!(reply, Reply::Answer { end: Some(_), .. }) {
            self.id = None;
        }
        reply
    }

    /// Takes it back, if the other end cannot know of it: it is not answered then.
    pub(crate) fn withdraw(&self) -> bool {
        self.id.is_none_or(|id| self.peer.made.withdraw(id))
    }

    pub(crate) fn into_made(mut self, remote: &Remote) -> Made {
        Made { remote: remote.clone(), id: self.id.take().unwrap_or_default() }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.peer.made.forget(&self.peer.out, id);
        }
    }
}

/// A call whose result was taken, and whose end is waited for: given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Made {
    remote: Remote,
    id: u64,
}

impl Made {
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The number of its call.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What gives it up from elsewhere.
    pub(crate) fn cutter(&self) -> Cutter {
        Cutter { peer: Arc::downgrade(self.remote.peer()), id: self.id }
    }
}

/// What can give up a call that somebody else has.
pub(crate) struct Cutter {
    peer: Weak<Peer>,
    id: u64,
}

impl Cutter {
    /// Gives it up, as its owner would. One that is over already is not known any more.
    pub(crate) fn cut(&self) {
        if let Some(peer) = self.peer.upgrade() {
            peer.made.forget(&peer.out, self.id);
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What is over is not known any more.
        let peer = self.remote.peer();
        peer.made.forget(&peer.out, self.id);
    }
}
