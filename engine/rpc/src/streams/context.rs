//! Whose values are being read or written.
//!
//! A stream within a value belongs to a connection, and serde has no way to say which. So the peer is at hand on the thread for as long as one value is
//! read or written, which is never across an await. An argument that every type of a user's would have to pass on was rejected.

use std::cell::RefCell;
use std::sync::Arc;

use crate::peer::Peer;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Peer>>> = const { RefCell::new(None) };
}

/// The peer that values are of just now.
pub(super) fn current() -> Option<Arc<Peer>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Until it is dropped, values are of a peer. What was there before; nothing where it was the same peer, as it is for all messages of a frame.
#[derive(Debug)]
pub(crate) struct Within(Option<Option<Arc<Peer>>>);

impl Within {
    pub(crate) fn of(peer: &Arc<Peer>) -> Within {
        let is_so = CURRENT.with_borrow(|current| current.as_ref().is_some_and(|current| Arc::ptr_eq(current, peer)));
        if is_so { Within(None) } else { Within::these(Some(peer.clone())) }
    }

    /// Of a peer, or of none.
    pub(super) fn these(peer: Option<Arc<Peer>>) -> Within {
        Within(Some(CURRENT.replace(peer)))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            // What was there is dropped after it was taken out: it may be the last of its peer.
            drop(CURRENT.replace(before));
        }
    }
}
