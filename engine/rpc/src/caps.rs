//! How many may be connected.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many may be connected to a hub, by its [route](crate::web) and its [listeners](crate::Listener) together. Whoever comes when there is no room is
/// turned away before anything is done for it, and tries again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// Connections in all, those under way included: 65,536.
    pub connections: usize,
    /// Connections from one address: 16,384, so that one host cannot take all the room. An IPv6 network of 64 bits counts as an address, since whoever
    /// has one of its addresses has them all. Behind a proxy everybody has the proxy's: then it should be as many as in all.
    ///
    /// The route knows addresses only of an application that is served with its `ConnectInfo`.
    pub per_address: usize,
    /// Clients that are known, connected or not, above which whoever leaves is forgotten at once: 131,072. A client that was forgotten calls again what
    /// it waits for when it comes back.
    pub clients: usize,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps { connections: 65_536, per_address: 16_384, clients: 131_072 }
    }
}

/// The room of a hub, of which every connection has a seat.
#[derive(Debug)]
pub(crate) struct Room {
    caps: Caps,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize, ahash::RandomState>,
}

impl Room {
    pub(crate) fn new(caps: Caps) -> Arc<Room> {
        Arc::new(Room { caps, taken: Mutex::default() })
    }

    pub(crate) fn caps(&self) -> &Caps {
        &self.caps
    }

    /// A seat for whoever comes from there, if there is one. What comes from no address counts among all.
    pub(crate) fn seat(self: &Arc<Room>, from: Option<IpAddr>) -> Option<Seat> {
        let from = from.map(network);
        let mut taken = self.taken();
        if taken.all >= self.caps.connections {
            return None;
        }
        if let Some(from) = from {
            let by = taken.by.get(&from).copied().unwrap_or_default();
            if by >= self.caps.per_address {
                return None;
            }
            taken.by.insert(from, by + 1);
        }
        taken.all += 1;
        Some(Seat { room: self.clone(), from })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing under it panics but for want of memory.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// A connection's place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    from: Option<IpAddr>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.all -= 1;
        if let Some(from) = self.from
            && let Some(by) = taken.by.get_mut(&from)
        {
            *by -= 1;
            if *by == 0 {
                taken.by.remove(&from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().expect("an address"))
    }

    #[test]
    fn there_is_room_for_so_many_in_all_and_from_one_address_and_it_comes_back() {
        let room = Room::new(Caps { connections: 4, per_address: 2, clients: 0 });
        let first = room.seat(at("10.0.0.1")).expect("room");
        let _second = room.seat(at("::ffff:10.0.0.1")).expect("room");
        assert!(room.seat(at("10.0.0.1")).is_none(), "two from one address");
        let third = room.seat(at("10.0.0.2")).expect("room");
        let _fourth = room.seat(None).expect("room");
        assert!(room.seat(None).is_none() && room.seat(at("10.0.0.3")).is_none(), "four in all");
        drop(third);
        assert!(room.seat(at("10.0.0.1")).is_none(), "still two from that address");
        drop(first);
        let _again = room.seat(at("10.0.0.1")).expect("room");
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let room = Room::new(Caps { connections: 9, per_address: 1, clients: 0 });
        let one = room.seat(at("2001:db8:0:1::1"));
        assert!(one.is_some() && room.seat(at("2001:db8:0:1:ffff::2")).is_none());
        let other = room.seat(at("2001:db8:0:2::1"));
        assert!(other.is_some());
        drop((one, other));
        assert!(room.taken().by.is_empty() && room.taken().all == 0);
    }
}
