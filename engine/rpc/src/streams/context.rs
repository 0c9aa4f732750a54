//! Whose values are being read or written.
//!
//! A stream within a value belongs to a connection, and serde has no way to say which. So the peer is at hand on the thread for as long as one value is
//! read or written, which is never across an await. An argument that every type of a user's would have to pass on was rejected.
//!
//! The peer that was at hand last is remembered weakly, and only whether it still is changes: most values have no streams, and of one peer after
//! the other, so that counting references would be most of what this costs.

use std::cell::RefCell;
use std::mem::{replace, take};
use std::sync::{Arc, Weak};

use crate::peer::Peer;

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(Current { peer: Weak::new(), at_hand: false }) };
}

struct Current {
    /// Its place in memory is kept by this, so that no other peer is taken for it.
    peer: Weak<Peer>,
    at_hand: bool,
}

/// The peer that values are of just now.
pub(super) fn current() -> Option<Arc<Peer>> {
    CURRENT.with_borrow(|current| if current.at_hand { current.peer.upgrade() } else { None })
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
        CURRENT.with_borrow_mut(|current| {
            let was = replace(&mut current.at_hand, true);
            if std::ptr::eq(current.peer.as_ptr(), Arc::as_ptr(peer)) {
                return Within(if was { Before::Same } else { Before::None });
            }
            let before = replace(&mut current.peer, Arc::downgrade(peer));
            Within(if was { Before::Other(before) } else { Before::None })
        })
    }

    /// Of a peer, or of none.
    pub(super) fn these(peer: Option<Arc<Peer>>) -> Within {
        match peer {
            Some(peer) => Within::of(&peer),
            None => CURRENT.with_borrow_mut(|current| {
                let was = replace(&mut current.at_hand, false);
                Within(if was { Before::Other(take(&mut current.peer)) } else { Before::None })
            }),
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let before = replace(&mut self.0, Before::Same);
        CURRENT.with_borrow_mut(|current| match before {
            Before::None => current.at_hand = false,
            Before::Same => {}
            Before::Other(peer) => *current = Current { peer, at_hand: true },
        });
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
