//! The hit path: from a key to its value word, through one bucket and one row.
//!
//! A row is read like a seqlock: head, key, value, head again. Nothing is locked, counted or written.

use crate::evict::Mark;
use crate::function::FnData;
use crate::key::{BoxedKey, Key, Lookup, WordHash, is_word};
use crate::node::{Head, Row};
use crate::region::{Base, prefetch};
use crate::sync::atomic::Ordering;
use crate::sync::fault;
use crate::table::Homes;
use crate::value::{Value, pointer};

/// A function's table and rows at one moment.
pub(crate) struct Reader<'g, K, V> {
    pub(crate) function: &'g FnData<K, V>,
    pub(crate) homes: Homes,
    pub(crate) words: WordHash,
    pub(crate) rows: Base<Row>,
    /// What the hits of a batch leave behind.
    pub(crate) mark: Option<Mark>,
}

impl<'g, K: Key, V: Value> Reader<'g, K, V> {
    #[inline(always)]
    pub(crate) fn hash<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> u64 {
        if is_word::<K>() { self.words.of(key.word()) } else { self.function.hash(key) }
    }

    /// The key's row and head.
    #[inline(always)]
    pub(crate) fn find<Q: ?Sized + Lookup<K>>(&self, hash: u64, key: &Q) -> Option<(&'g Row, usize, Head)> {
        match self.homes.find(hash, |slot| look::<K, Q>(&self.rows, slot as usize, key)) {
            Some(found) => Some(found),
            None => self.find_beyond(hash, key),
        }
    }

    #[inline(always)]
    fn find_beyond<Q: ?Sized + Lookup<K>>(&self, hash: u64, key: &Q) -> Option<(&'g Row, usize, Head)> {
        match self.function.slot_beyond(&self.rows, hash, key) {
            0 => None,
            slot => look::<K, Q>(&self.rows, slot, key),
        }
    }

    /// The value word of a consistent node.
    #[inline(always)]
    pub(crate) fn word<Q: ?Sized + Lookup<K>>(&self, hash: u64, key: &Q) -> Option<u64> {
        let (row, slot, head) = self.find(hash, key)?;
        self.taken(row, slot, head)
    }

    #[inline(always)]
    fn taken(&self, row: &Row, slot: usize, head: Head) -> Option<u64> {
        let word = take(row, head)?;
        if let Some(mark) = &self.mark {
            mark.put(slot);
        }
        Some(word)
    }

    /// [`word`](Self::word) with a guess where the key may be.
    #[inline(always)]
    pub(crate) fn word_at<Q: ?Sized + Lookup<K>>(&self, slot: u32, key: &Q) -> Option<u64> {
        // Slot 0 is never live, and a chunk belongs to one function.
        let guessed = if slot == 0 { None } else { look::<K, Q>(&self.rows, slot as usize, key) };
        let (row, slot, head) = match guessed {
            Some(found) => found,
            None => self.find_beyond(self.hash(key), key)?,
        };
        self.taken(row, slot, head)
    }

    /// Whether the key table is larger than a core's second-level cache, so that loads are worth asking for early.
    #[inline(always)]
    pub(crate) fn is_wide(&self) -> bool {
        self.homes.is_wide()
    }

    #[inline(always)]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        self.homes.prefetch(hash);
    }

    /// The slot that most likely holds the key, its row asked for; 0 if there is none.
    #[inline(always)]
    pub(crate) fn prefetch_row(&self, hash: u64) -> u32 {
        let slot = self.homes.guess(hash);
        // SAFETY: [region-stable] a slot in a table.
        prefetch(std::ptr::from_ref(unsafe { self.rows.at(slot as usize) }));
        slot
    }
}

/// Whether the row's key word is this key. Needs a pin unless keys are words.
#[inline(always)]
pub(crate) fn holds<K: Key, Q: ?Sized + Lookup<K>>(word: u64, key: &Q) -> bool {
    if is_word::<K>() {
        word == key.word()
    } else {
        // SAFETY: [pinned-key] the caller is pinned (or has the slots lock), so the box the row named is still there;
        // keys are stored before the slot enters the table.
        word != 0 && key.matches(unsafe { &(*pointer::<BoxedKey<K>>(word)).key })
    }
}

/// The first half of the seqlock: the slot's row and head if it holds the key. The slot goes in and out as wide as an address, so that
/// a trace in the stamps needs no widening of its own.
#[inline(always)]
pub(crate) fn look<'g, K: Key, Q: ?Sized + Lookup<K>>(rows: &Base<Row>, slot: usize, key: &Q) -> Option<(&'g Row, usize, Head)> {
    // SAFETY: [region-stable] a slot in a table has its row, and callers hold the graph for longer than the row.
    let row = unsafe { rows.at(slot) };
    // Acquire: what was written before the node became consistent. Before the key, so that a new tenant fails `take`.
    let head = Head(row.head.load(Ordering::Acquire));
    // Acquire: the key's box, and the head that freed the slot before this tenant, which fails the re-check in `take`.
    holds::<K, Q>(row.key.load(Ordering::Acquire), key).then_some((row, slot, head))
}

/// The second half of the seqlock: the value word, if the head said consistent and still says the same.
#[inline(always)]
pub(crate) fn take(row: &Row, head: Head) -> Option<u64> {
    if !head.is_consistent() {
        return None;
    }
    // Acquire: if the word is a newer one, the re-check sees the newer head too.
    let word = row.value.load(Ordering::Acquire);
    let again = if fault!("no_recheck") { head.0 } else { row.head.load(Ordering::Relaxed) };
    // A flag that came in between is a spurious miss, which the cold path answers.
    (again == head.0).then_some(word)
}
