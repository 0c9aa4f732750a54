//! SIEVE: the order in which keys came, and a hand that walks it (Zhang et al., NSDI 2024).
//!
//! What was read since the hand last passed stays and is passed over once more; the rest goes. New keys join at the young end, which
//! the hand reaches last in a full turn and soon once it is near, so that keys read once leave early. A hit moves nothing: its only
//! trace is a byte in a column (see [`crate::evict`]).

/// A slot and the version it had when it came; 0 where one has left.
type Entry = u64;

/// Entries of a block.
const BLOCK: usize = 512;

/// The entries, in blocks of a fixed size: what is being kept within bounds must not double for a moment, or leave the allocator with
/// the holes of smaller arrays, whenever it grows.
#[derive(Debug, Default)]
struct Order {
    blocks: Vec<Box<[Entry; BLOCK]>>,
    len: usize,
}

impl Order {
    /// Whether the next entry needs another block.
    fn is_full(&self) -> bool {
        self.len == self.blocks.len() * BLOCK
    }

    fn push(&mut self, entry: Entry) {
        if self.is_full() {
            self.blocks.push(Box::new([0; BLOCK]));
        }
        self.len += 1;
        self.set(self.len - 1, entry);
    }

    fn at(&self, at: usize) -> Entry {
        self.blocks[at / BLOCK][at % BLOCK]
    }

    fn set(&mut self, at: usize, entry: Entry) {
        self.blocks[at / BLOCK][at % BLOCK] = entry;
    }

    /// Keeps the blocks that the keys to come will need again.
    fn truncate(&mut self, len: usize) {
        self.len = len;
        self.blocks.truncate(len.div_ceil(BLOCK) + len / BLOCK / 4 + 1);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sieve {
    order: Order,
    hand: usize,
    left: usize,
}

fn pack(slot: u32, version: u32) -> Entry {
    (u64::from(version) << 32) | u64::from(slot)
}

fn unpack(entry: Entry) -> (u32, u32) {
    (entry as u32, (entry >> 32) as u32)
}

/// Entries below which gaps are not worth closing.
const FEW: usize = 64;

impl Sieve {
    /// A key came. `stays` says whether an entry is still what it was: asked when more than half of the order may be gone.
    pub(crate) fn push(&mut self, slot: u32, version: u32, members: usize, stays: impl Fn(u32, u32) -> bool) {
        if self.order.len >= 2 * members + FEW {
            self.close_gaps(stays);
        } else if self.order.is_full() && self.left > self.order.len / 8 {
            self.close_gaps(|_, _| true);
        }
        self.order.push(pack(slot, version));
    }

    /// Entries in the order, gaps not counted.
    pub(crate) fn len(&self) -> usize {
        self.order.len - self.left
    }

    /// The entry under the hand, which moves on; `None` if there is none at all.
    pub(crate) fn next(&mut self) -> Option<(u32, u32)> {
        if self.len() == 0 {
            return None;
        }
        loop {
            if self.hand == self.order.len {
                self.hand = 0;
                if self.left * 2 > self.order.len {
                    self.close_gaps(|_, _| true);
                }
            }
            let entry = self.order.at(self.hand);
            self.hand += 1;
            if entry != 0 {
                return Some(unpack(entry));
            }
        }
    }

    /// The entry that `next` gave out last has left. (Others may have joined since, at the other end.)
    pub(crate) fn leave(&mut self, slot: u32, version: u32) {
        let entry = pack(slot, version);
        // Gaps may have been closed since: then it is not where the hand was, and will be met again as one that left.
        if let Some(at) = self.hand.checked_sub(1)
            && at < self.order.len
            && self.order.at(at) == entry
        {
            self.order.set(at, 0);
            self.left += 1;
        }
    }

    fn close_gaps(&mut self, stays: impl Fn(u32, u32) -> bool) {
        let mut kept = 0;
        let mut hand = 0;
        for at in 0..self.order.len {
            if at == self.hand {
                hand = kept;
            }
            let entry = self.order.at(at);
            let (slot, version) = unpack(entry);
            if entry != 0 && stays(slot, version) {
                self.order.set(kept, entry);
                kept += 1;
            }
        }
        if self.hand >= self.order.len {
            hand = kept;
        }
        self.order.truncate(kept);
        (self.hand, self.left) = (hand, 0);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.order.blocks.len() * size_of::<[Entry; BLOCK]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// SIEVE as its authors tell it, with a list.
    #[derive(Default)]
    struct Model {
        queue: Vec<(u32, bool)>,
        hand: usize,
    }

    impl Model {
        fn access(&mut self, key: u32, capacity: usize) -> bool {
            if let Some(entry) = self.queue.iter_mut().find(|entry| entry.0 == key) {
                entry.1 = true;
                return true;
            }
            self.queue.push((key, false));
            while self.queue.len() > capacity {
                self.hand %= self.queue.len();
                if self.queue[self.hand].1 {
                    self.queue[self.hand].1 = false;
                    self.hand += 1;
                } else {
                    self.queue.remove(self.hand);
                }
            }
            false
        }
    }

    #[test]
    fn the_hand_evicts_what_the_papers_list_would() {
        let (mut sieve, mut model) = (Sieve::default(), Model::default());
        let (mut live, mut visited) = (HashSet::new(), HashSet::new());
        let mut seed = 7_u64;
        let mut hits = 0;
        for _ in 0..50_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Squared, so that small keys are frequent.
            let unit = (seed >> 33) as f64 / f64::from(1_u32 << 31);
            let key = (unit * unit * 1_000.0) as u32 + 1;
            let expected = model.access(key, 100);
            let hit = live.contains(&key);
            assert_eq!(hit, expected);
            hits += u32::from(hit);
            if hit {
                visited.insert(key);
                continue;
            }
            live.insert(key);
            sieve.push(key, 1, live.len(), |slot, _| live.contains(&slot));
            while live.len() > 100 {
                let (slot, version) = sieve.next().expect("members");
                if !visited.remove(&slot) {
                    live.remove(&slot);
                    sieve.leave(slot, version);
                }
            }
            assert!(sieve.order.len <= 2 * 101 + FEW);
        }
        assert!(hits > 10_000);
    }

    #[test]
    fn the_order_takes_little_more_memory_than_its_members_however_many_come_and_go() {
        let mut sieve = Sieve::default();
        let members = 10_000;
        for slot in 0..20 * members {
            sieve.push(slot + 1, 1, members as usize, |_, _| true);
            if slot >= members {
                let (slot, version) = sieve.next().expect("members");
                sieve.leave(slot, version);
            }
        }
        assert_eq!(sieve.len(), members as usize);
        assert!(sieve.bytes() <= members as usize * 8 * 13 / 10, "{} bytes", sieve.bytes());
    }

    #[test]
    fn entries_that_left_elsewhere_are_forgotten_when_the_order_grows() {
        let mut sieve = Sieve::default();
        for slot in 0..10_000 {
            sieve.push(slot + 1, 1, 10, |old, _| old + 10 > slot);
        }
        assert!(sieve.len() <= 2 * 10 + FEW);
        assert_eq!(Sieve::default().next(), None);
    }
}
