//! Whose values are being read or written.
//!
//! A stream within a value belongs to a connection, and serde has no way to say which. So the peer is at hand on the thread for as long as one value is
//! read or written, which is never across an await. An argument that every type of a user's would have to pass on was rejected.
//!
//! The peer that was at hand last is remembered weakly, and only whether it still is changes: most values have no streams, and of one peer after
//! the other, so that counting references would be most of what this costs. What is looked at for every value has no destructor, so that it needs no
//! look at whether that is due.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::{Arc, Weak};

use crate::peer::Peer;

thread_local! {
    static NOW: Now = const { Now { last: Cell::new(ptr::null()), at_hand: Cell::new(false) } };
    /// The peer that was at hand last. Its place in memory is kept by this, so that no other peer is taken for it.
    static LAST: RefCell<Weak<Peer>> = const { RefCell::new(Weak::new()) };
}

struct Now {
    /// Where the last one is.
    last: Cell<*const Peer>,
    /// Whether it is at hand.
    at_hand: Cell<bool>,
}

impl Now {
    /// None at the end of a thread, in whose destructors calls may be made: there are no streams in those.
    fn turn(&self, to: Weak<Peer>) -> Weak<Peer> {
        self.last.set(to.as_ptr());
        LAST.try_with(|last| last.replace(to)).unwrap_or_default()
    }
}

/// The peer that values are of just now.
pub(super) fn current() -> Option<Arc<Peer>> {
    if !NOW.with(|now| now.at_hand.get()) {
        return None;
    }
    LAST.try_with(|last| last.borrow().upgrade()).ok().flatten()
}

/// Until it is dropped, values are of a peer. What was there before.
#[derive(Debug)]
pub(crate) struct Within(Before);

#[derive(Debug)]
enum Before {
    /// None was at hand.
    None,
    /// The same, as it is for all messages of a frame.
    Same,
    Other(Weak<Peer>),
}

impl Within {
    pub(crate) fn of(peer: &Arc<Peer>) -> Within {
        NOW.with(|now| {
            let was = now.at_hand.replace(true);
            if ptr::eq(now.last.get(), Arc::as_ptr(peer)) {
                return Within(if was { Before::Same } else { Before::None });
            }
            let before = now.turn(Arc::downgrade(peer));
            Within(if was { Before::Other(before) } else { Before::None })
        })
    }

    /// Of a peer, or of none.
    pub(super) fn these(peer: Option<Arc<Peer>>) -> Within {
        match peer {
            Some(peer) => Within::of(&peer),
            None => NOW.with(|now| {
                let was = now.at_hand.replace(false);
                Within(if was { Before::Other(now.turn(Weak::new())) } else { Before::None })
            }),
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        match &mut self.0 {
            Before::None => NOW.with(|now| now.at_hand.set(false)),
            Before::Same => {}
            Before::Other(peer) => {
                let peer = std::mem::take(peer);
                NOW.with(|now| {
                    now.turn(peer);
                    now.at_hand.set(true);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::wire::Format;

    fn peer() -> Arc<Peer> {
        Hub::builder().build().client_peer(Format::Msgpack6)
    }

    #[test]
    fn values_within_values_are_of_their_own_peers_and_the_outer_ones_again_afterwards() {
        let (a, b) = (peer(), peer());
        let at_hand = |peer: Option<&Arc<Peer>>| assert_eq!(current().map(|peer| peer.id), peer.map(|peer| peer.id));
        at_hand(None);
        {
            let _a = Within::of(&a);
            at_hand(Some(&a));
            {
                let _same = Within::of(&a);
                let _none = Within::these(None);
                at_hand(None);
                {
                    let _b = Within::of(&b);
                    at_hand(Some(&b));
                }
                at_hand(None);
            }
            at_hand(Some(&a));
            {
                let _b = Within::these(Some(b.clone()));
                at_hand(Some(&b));
            }
            at_hand(Some(&a));
        }
        at_hand(None);
        {
            let _a = Within::of(&a);
            at_hand(Some(&a));
        }
        at_hand(None);
    }

    #[test]
    fn a_thread_keeps_no_peer_alive_that_its_values_were_of() {
        let peer = peer();
        let weak = Arc::downgrade(&peer);
        drop(Within::of(&peer));
        drop(peer);
        assert!(weak.upgrade().is_none());
    }
}
