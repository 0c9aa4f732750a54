//! Consistent hashing.
//!
//! Every process, whatever its language and version, has to find the same server: what is hashed and how is a promise, and pinned by tests.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::route::Route;

/// Servers on a ring: a key belongs to the first one at or after it. One of n servers that comes or goes moves one key in n, and no others.
///
/// Each server is on the ring at so many points: point number i is at XXH3-64 (seed 0) of the server's name in UTF-8, followed by i as four bytes, the
/// lowest first. Where two are at one point, the lower name counts. A key is where its [`RingKey`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashRing {
    /// Sorted, each once.
    servers: Vec<Arc<str>>,
    /// Sorted: where, and the number of the server.
    points: Vec<(u64, u32)>,
}

impl HashRing {
    /// Points of a server, if nothing is said: the busiest of ten servers has about a seventh more keys than the average.
    pub const POINTS: u32 = 128;

    /// Of these servers, in whatever order.
    pub fn new<S: Into<Arc<str>>>(servers: impl IntoIterator<Item = S>) -> HashRing {
        HashRing::with_points(servers, HashRing::POINTS)
    }

    /// As [`new`](HashRing::new), with so many points for each, at least one. All processes have to have the same.
    pub fn with_points<S: Into<Arc<str>>>(servers: impl IntoIterator<Item = S>, points: u32) -> HashRing {
        let mut servers: Vec<Arc<str>> = servers.into_iter().map(Into::into).collect();
        servers.sort_unstable();
        servers.dedup();
        let mut all = Vec::new();
        let mut bytes = Vec::new();
        for (server, number) in servers.iter().zip(0..) {
            for point in 0..points.max(1) {
                bytes.clear();
                bytes.extend_from_slice(server.as_bytes());
                bytes.extend_from_slice(&point.to_le_bytes());
                all.push((xxh3_64(&bytes), number));
            }
        }
        all.sort_unstable();
        HashRing { servers, points: all }
    }

    /// The servers, sorted by name.
    pub fn servers(&self) -> &[Arc<str>] {
        &self.servers
    }

    /// The server that has what is at a place of the ring. None if there are no servers.
    pub fn at(&self, hash: u64) -> Option<&Arc<str>> {
        let after = self.points.partition_point(|(point, _)| *point < hash);
        // Past the last one the ring begins anew.
        let (_, number) = self.points.get(after).or_else(|| self.points.first())?;
        self.servers.get(*number as usize)
    }
}

impl<K: RingKey> Route<K> for HashRing {
    fn server(&self, key: &K) -> Option<Arc<str>> {
        self.at(key.ring_hash()).cloned()
    }

    fn names(&self, server: &str) -> bool {
        self.servers.binary_search_by(|name| (**name).cmp(server)).is_ok()
    }
}

/// What has a place on a [`HashRing`].
///
/// Texts are hashed as UTF-8, lists of bytes as they are, integers of up to 64 bits as eight bytes of two's complement, the lowest first, whatever
/// their type: by XXH3-64, seed 0. A type of your own says which of its parts counts:
///
/// ```
/// # use wellspring_rpc::RingKey;
/// struct Basket { shop: u32, number: u64 }
///
/// impl RingKey for Basket {
///     fn ring_hash(&self) -> u64 {
///         self.shop.ring_hash()                       // all baskets of a shop are at one server
///     }
/// }
/// ```
pub trait RingKey {
    /// Its place.
    fn ring_hash(&self) -> u64;
}

impl RingKey for str {
    fn ring_hash(&self) -> u64 {
        xxh3_64(self.as_bytes())
    }
}

impl RingKey for [u8] {
    fn ring_hash(&self) -> u64 {
        xxh3_64(self)
    }
}

impl<const N: usize> RingKey for [u8; N] {
    fn ring_hash(&self) -> u64 {
        xxh3_64(self)
    }
}

impl RingKey for String {
    fn ring_hash(&self) -> u64 {
        self.as_str().ring_hash()
    }
}

impl RingKey for Vec<u8> {
    fn ring_hash(&self) -> u64 {
        self.as_slice().ring_hash()
    }
}

impl<K: RingKey + ?Sized> RingKey for Arc<K> {
    fn ring_hash(&self) -> u64 {
        (**self).ring_hash()
    }
}

macro_rules! integers {
    ($($signed:ty),*; $($unsigned:ty),*) => {
        $(impl RingKey for $signed {
            fn ring_hash(&self) -> u64 {
                xxh3_64(&i64::from(*self).to_le_bytes())
            }
        })*
        $(impl RingKey for $unsigned {
            fn ring_hash(&self) -> u64 {
                xxh3_64(&u64::from(*self).to_le_bytes())
            }
        })*
    };
}

integers!(i8, i16, i32, i64; u8, u16, u32, u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_on_the_ring_are_the_same_in_every_process_and_version() {
        // The first is of XXH3's own test vectors.
        assert_eq!("".ring_hash(), 0x2d06_8005_38d3_94c2);
        assert_eq!(7_u8.ring_hash(), 7_i64.ring_hash());
        assert_eq!(7_u32.ring_hash(), [7_u8, 0, 0, 0, 0, 0, 0, 0].ring_hash());
        assert_eq!((-1_i8).ring_hash(), u64::MAX.ring_hash());
        assert_eq!("ab".ring_hash(), b"ab".as_slice().ring_hash());
        let ring = HashRing::new(["c", "a", "b", "a"]);
        assert_eq!(ring, HashRing::new(["a", "b", "c"]));
        let owners: String = (0..40_u32).map(|key| Route::<u32>::server(&ring, &key).expect("one").to_string()).collect();
        assert_eq!(owners, "cbcabcaaaacababcaaaccbaaacbbaccbbbbccccb", "as another implementation has found it, in another language");
    }

    #[test]
    fn what_is_past_the_last_point_belongs_to_the_first() {
        let ring = HashRing::new(["a", "b", "c"]);
        let (first, last) = (ring.points[0], ring.points[ring.points.len() - 1]);
        assert_eq!(ring.at(u64::MAX), Some(&ring.servers[first.1 as usize]), "the last point is not at the very end: {last:?}");
        assert_eq!(ring.at(last.0), Some(&ring.servers[last.1 as usize]));
        assert_eq!(HashRing::new([""; 0]).at(5), None);
    }

    #[test]
    fn a_server_that_comes_or_goes_moves_its_share_of_the_keys_and_no_others() {
        const KEYS: u64 = 4_000;
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let n = random.usize(2..12);
            let names: Vec<String> = (0..n).map(|number| format!("{number}-{}", random.u32(..))).collect();
            let more = HashRing::new(names.iter().map(String::as_str));
            let gone = random.choice(&names).expect("one").clone();
            let less = HashRing::new(names.iter().filter(|name| **name != gone).map(String::as_str));
            let (mut moved, mut most) = (0, vec![0_u64; n]);
            for _ in 0..KEYS {
                let key = random.u64(..);
                let (before, after) = (more.at(key.ring_hash()).expect("one"), less.at(key.ring_hash()).expect("one"));
                if before != after {
                    assert_eq!(**before, *gone, "seed {seed}: only what it had is moved");
                    moved += 1;
                }
                assert_ne!(**after, *gone);
                most[more.servers.iter().position(|name| name == before).expect("one")] += 1;
            }
            let share = KEYS / n as u64;
            assert!((share / 2..=share * 2).contains(&moved), "seed {seed}: {moved} of {KEYS} keys were moved of {n} servers");
            assert!(most.iter().all(|keys| (share / 2..=share * 2).contains(keys)), "seed {seed}: {most:?}");
        }
    }
}
