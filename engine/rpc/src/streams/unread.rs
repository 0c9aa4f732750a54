//! Items of a stream that have come and were not read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of them. How many there are is bounded by the stream's window, but that is what the other end makes it, and an item may have 16 MB. Whoever sends
/// as the windows of here are by default (61 items ahead) may have 2 MiB in each.
pub(super) const MOST: usize = 128 << 20;

/// Bytes of all streams of a peer.
pub(super) const MOST_OF_ALL: usize = 256 << 20;

/// What an item takes beside its bytes.
const OF_EACH: usize = 32;

/// How far the sum of all streams may be from what it is while items are read: it is shared by threads that read many small ones.
const ABOUT: usize = 64 << 10;

/// In order, with their sizes.
#[derive(Default)]
pub(super) struct Unread {
    items: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Of which there are in the sum.
    counted: usize,
    all: Arc<AtomicUsize>,
}

impl Unread {
    /// Of a stream of a peer, by the sum of all of them.
    pub(super) fn of(all: Arc<AtomicUsize>) -> Unread {
        Unread { items: VecDeque::new(), bytes: 0, counted: 0, all }
    }

    pub(super) fn push(&mut self, item: &[u8]) {
        self.bytes += item.len() + OF_EACH;
        self.items.push_back(item.into());
    }

    pub(super) fn pop(&mut self) -> Option<Box<[u8]>> {
        let item = self.items.pop_front()?;
        self.bytes -= item.len() + OF_EACH;
        if self.items.is_empty() || self.counted >= self.bytes + ABOUT {
            self.count();
        }
        Some(item)
    }

    /// Whether it is more than may wait, of this stream or of all.
    pub(super) fn is_too_much(&mut self) -> bool {
        self.count();
        // Relaxed: it is a number, and what is added to it at the same time is seen by whoever does that.
        self.bytes > MOST || self.all.load(Ordering::Relaxed) > MOST_OF_ALL
    }

    pub(super) fn clear(&mut self) {
        (self.items, self.bytes) = (VecDeque::new(), 0);
        self.count();
    }

    fn count(&mut self) {
        // As above. What is taken away was added before, by this stream.
        match self.bytes >= self.counted {
            true => self.all.fetch_add(self.bytes - self.counted, Ordering::Relaxed),
            false => self.all.fetch_sub(self.counted - self.bytes, Ordering::Relaxed),
        };
        self.counted = self.bytes;
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(unread: &Unread) -> usize {
        unread.all.load(Ordering::Relaxed)
    }

    #[test]
    fn what_waits_is_in_the_sum_until_it_is_read_or_dropped() {
        let sum = Arc::<AtomicUsize>::default();
        let (mut one, mut other) = (Unread::of(sum.clone()), Unread::of(sum.clone()));
        for _ in 0..100 {
            one.push(&[0; 10_000]);
            other.push(&[0; 10_000]);
        }
        assert!(!one.is_too_much() && !other.is_too_much());
        assert_eq!(all(&one), 2 * 100 * (10_000 + OF_EACH));
        while one.pop().is_some() {
            assert!(all(&one) <= one.bytes + other.bytes + ABOUT + 10_000 + OF_EACH);
        }
        assert_eq!(all(&one), 100 * (10_000 + OF_EACH));
        drop(other);
        assert_eq!(sum.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn small_items_of_many_streams_are_too_much_as_well() {
        let sum = Arc::<AtomicUsize>::default();
        let mut streams: Vec<_> = (0..500).map(|_| Unread::of(sum.clone())).collect();
        let mut each = |count: usize| {
            streams.iter_mut().any(|stream| {
                (0..count).for_each(|_| stream.push(&[0]));
                stream.is_too_much()
            })
        };
        assert!(!each(10_000));
        assert!(each(10_000));
        streams.iter_mut().for_each(Unread::clear);
        assert!(!streams[0].is_too_much());
    }
}
