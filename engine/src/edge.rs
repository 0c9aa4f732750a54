//! Reverse edges: who was made from a node. Chained blocks that grow and never move, 8 bytes an edge.
//!
//! ```text
//! rev word   63      32  31   30          0
//!            [ handle  ][lock][ generation ]     handle = newest block, 0 = no dependants
//! block      word 0: [ next handle 32 | class 8 | edges 24 ], then edges: [ dependant slot 32 | its generation 32 ]
//! ```
//! Blocks of 4, 4, 8, 16 .. 8,192 words: a list of n edges wastes less than half of its last block, appending copies
//! nothing and leaves no outgrown array behind (a doubling array did: 14 bytes an edge of it in free lists).
//! An edge is live while the dependant still has the generation written in it; stale edges are skipped, and dropped when a
//! block is full before a larger one is taken.

use crate::column::Columns;
use crate::region::Region;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Backoff, Mutex, fault, lock};

const LOCK: u64 = 1 << 31;
const GENERATION: u64 = LOCK - 1;
pub(crate) const LAST_GENERATION: u32 = GENERATION as u32;

/// A live dependant as found in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Edge {
    fn pack(self) -> u64 {
        (u64::from(self.slot) << 32) | u64::from(self.generation)
    }
}

#[inline(always)]
pub(crate) fn unpack(word: u64) -> Edge {
    Edge { slot: (word >> 32) as u32, generation: word as u32 }
}

/// This node's dependency generation: edges that carry an older one are stale.
#[inline(always)]
pub(crate) fn generation(rev: u64) -> u32 {
    (rev & GENERATION) as u32
}

#[inline(always)]
fn handle(rev: u64) -> u32 {
    (rev >> 32) as u32
}

#[inline(always)]
fn with_handle(rev: u64, handle: u32) -> u64 {
    (u64::from(handle) << 32) | (rev & (LOCK | GENERATION))
}

#[cfg(not(any(loom, shuttle)))]
const CLASSES: usize = 12;
#[cfg(any(loom, shuttle))]
const CLASSES: usize = 3;

/// Words in a block of the class.
fn words(class: usize) -> usize {
    4 << class
}

/// The store of all blocks of an engine. Handles are word numbers divided by 4.
pub(crate) struct Edges {
    words: Region<AtomicU64>,
    /// The first word that never was in a block.
    next: Mutex<usize>,
    free: [Mutex<Vec<u32>>; CLASSES],
    /// Chains that sweeps have read, not yet cut into blocks: that is left to whoever needs one.
    spent: Mutex<Vec<Vec<u32>>>,
}

/// Words reserved: 32 GiB of addresses, four billion edges. Handles would reach four times as far.
#[cfg(target_pointer_width = "64")]
const MOST: usize = 1 << 32;
#[cfg(not(target_pointer_width = "64"))]
const MOST: usize = 1 << 26;

impl Edges {
    pub(crate) fn new() -> Edges {
        Edges {
            words: Region::new(MOST).expect("the process has no addresses left for an engine"),
            // Handle 0 means "no list", so the very first block is never given out.
            next: Mutex::new(words(0)),
            free: std::array::from_fn(|_| Mutex::new(Vec::new())),
            spent: Mutex::new(Vec::new()),
        }
    }

    #[inline(always)]
    fn address(&self, handle: u32) -> *const AtomicU64 {
        // SAFETY: [region-stable] a handle exists only after its block's words were grown.
        std::ptr::from_ref(unsafe { self.words.at(handle as usize * 4) })
    }

    #[inline(always)]
    fn block(&self, handle: u32) -> &[AtomicU64] {
        let base = self.address(handle);
        // SAFETY: [region-stable] as in `address`; a block holds at least 4 words.
        unsafe {
            let class = ((*base).load(Ordering::Relaxed) >> 24) as usize & 0xff;
            std::slice::from_raw_parts(base, words(class))
        }
    }

    fn allocate(&self, class: usize) -> u32 {
        loop {
            if let Some(handle) = lock(&self.free[class]).pop() {
                return handle;
            }
            let Some(chains) = lock(&self.spent).pop() else { break };
            let mut freed = Freed::default();
            for chain in chains {
                self.free_chain(chain, &mut freed);
            }
            self.give_back(freed);
        }
        let mut next = lock(&self.next);
        let word = *next;
        if !self.words.grow(word + words(class)) {
            // What a vector does that cannot grow.
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u64; 4]>());
        }
        *next = word + words(class);
        (word / 4) as u32
    }

    /// Appends `edge` if `open` still holds once the list is locked. Returns what `open` said.
    ///
    /// `open` looks at the node's head: a sweep marks the head before it takes the list, so either the sweep meets the new
    /// edge or `open` meets the mark. There is no third outcome.
    pub(crate) fn append<T>(&self, columns: &Columns, slot: u32, edge: Edge, open: impl FnOnce() -> Result<T, T>) -> T {
        let rev = &columns.row(slot).rev;
        let held = self.hold(rev);
        let verdict = if fault!("skipped_closed_check") {
            match open() {
                Ok(verdict) | Err(verdict) => Ok(verdict),
            }
        } else {
            open()
        };
        let (now, verdict) = match verdict {
            Ok(verdict) => (self.push(columns, held, edge), verdict),
            Err(verdict) => (held, verdict),
        };
        // Release: the next holder sees the block as written here. Nobody else writes the word while it is locked.
        rev.store(now & !LOCK, Ordering::Release);
        verdict
    }

    /// Takes the lock bit; returns the word without it.
    fn hold(&self, rev: &AtomicU64) -> u64 {
        let mut backoff = Backoff::default();
        let mut word = rev.load(Ordering::Relaxed);
        loop {
            if word & LOCK == 0 {
                // Acquire: see the blocks as the last holder left them, and any mark made before a sweep's take.
                match rev.compare_exchange_weak(word, word | LOCK, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return word,
                    Err(now) => word = now,
                }
            } else {
                backoff.wait();
                word = rev.load(Ordering::Relaxed);
            }
        }
    }

    fn push(&self, columns: &Columns, rev: u64, edge: Edge) -> u64 {
        if handle(rev) == 0 {
            return self.put(rev, edge);
        }
        self.fill(rev, edge).unwrap_or_else(|| self.put(self.compact(columns, rev), edge))
    }

    /// Into the newest block, or a new one before it.
    fn put(&self, rev: u64, edge: Edge) -> u64 {
        if let Some(rev) = self.fill(rev, edge) {
            return rev;
        }
        let newest = handle(rev);
        let class = match newest {
            0 => 0,
            _ => {
                let header = self.block(newest)[0].load(Ordering::Relaxed);
                // The second block is as small as the first; each later one doubles.
                ((header >> 24) as usize & 0xff).saturating_add(usize::from(header >> 32 != 0)).min(CLASSES - 1)
            }
        };
        with_handle(rev, self.start(newest, class, edge))
    }

    /// Into the newest block, if it has room.
    fn fill(&self, rev: u64, edge: Edge) -> Option<u64> {
        if handle(rev) == 0 {
            return None;
        }
        let block = self.block(handle(rev));
        let header = block[0].load(Ordering::Relaxed);
        let len = (header & 0xff_ffff) as usize;
        if len + 1 == block.len() {
            return None;
        }
        // Relaxed (both): under the list's lock bit, published by its release.
        block[len + 1].store(edge.pack(), Ordering::Relaxed);
        block[0].store(header + 1, Ordering::Relaxed);
        Some(rev)
    }

    fn start(&self, next: u32, class: usize, edge: Edge) -> u32 {
        let handle = self.allocate(class);
        // The header must name the class before `block` may be asked for the slice.
        self.write_header(handle, (u64::from(next) << 32) | ((class as u64) << 24) | 1);
        self.block(handle)[1].store(edge.pack(), Ordering::Relaxed);
        handle
    }

    fn write_header(&self, handle: u32, header: u64) {
        // A fresh or freed block reads as class 0 or as its own class: its first word is inside either way.
        self.block(handle)[0].store(header, Ordering::Relaxed);
    }

    /// Drops the stale edges of a full list; keeps the chain as it is if more than half of its edges are live.
    ///
    /// The cost is the list's length, paid when the newest block is full; each block is as long as all before it together,
    /// so it is amortised constant per append.
    fn compact(&self, columns: &Columns, rev: u64) -> u64 {
        let mut live: Vec<u64> = Vec::new();
        let mut total = 0;
        self.walk(handle(rev), |edge| {
            total += 1;
            // Relaxed: a dependant that changes its generation right now leaves a stale edge, which is what it was.
            if generation(columns.row(edge.slot).rev.load(Ordering::Relaxed)) == edge.generation {
                live.push(edge.pack());
            }
        });
        if live.len() * 2 > total {
            return rev;
        }
        let mut freed = Freed::default();
        self.free_chain(handle(rev), &mut freed);
        self.give_back(freed);
        live.iter().fold(with_handle(rev, 0), |rev, &edge| self.put(rev, unpack(edge)))
    }

    /// Takes the whole list, leaving it empty, if `mark` succeeds while the list is locked: the sweep's half of the
    /// closed-list protocol.
    ///
    /// The mark must fall inside the lock. Marked first and taken later, the node could be verified in between, and the
    /// take would carry off edges of the new epoch: their dependants would trust edges that are gone (found by shuttle).
    #[inline(always)]
    pub(crate) fn take_if<E>(&self, rev: &AtomicU64, mark: impl FnOnce() -> Result<(), E>) -> Result<u32, E> {
        if fault!("take_after_mark") {
            mark()?;
            let held = self.hold(rev);
            rev.store(with_handle(held, 0), Ordering::Release);
            return Ok(handle(held));
        }
        let held = self.hold(rev);
        match mark() {
            Ok(()) => {
                // Release: the next holder sees the mark.
                rev.store(with_handle(held, 0), Ordering::Release);
                Ok(handle(held))
            }
            Err(other) => {
                // Release: nothing was written; pairs with the next holder's Acquire all the same.
                rev.store(held, Ordering::Release);
                Err(other)
            }
        }
    }

    /// Runs `then` while the list is locked and leaves the list as it is.
    pub(crate) fn while_held<T>(&self, rev: &AtomicU64, then: impl FnOnce() -> T) -> T {
        let held = self.hold(rev);
        let result = then();
        // Release: what was done under the lock comes before the next holder.
        rev.store(held, Ordering::Release);
        result
    }

    /// Lets `decide` see whether anything live is in a node's list, while that is locked; drops the list if it says so.
    pub(crate) fn judge<T>(&self, columns: &Columns, slot: u32, decide: impl FnOnce(bool) -> (T, bool)) -> T {
        let rev = &columns.row(slot).rev;
        let held = self.hold(rev);
        // Relaxed (both): as in `compact`; the chain was locked with Acquire.
        let is_live = |word: &AtomicU64| {
            let edge = unpack(word.load(Ordering::Relaxed));
            generation(columns.row(edge.slot).rev.load(Ordering::Relaxed)) == edge.generation
        };
        let has_live = self.blocks(handle(held)).any(|words| words.iter().any(is_live));
        let (verdict, drop_list) = decide(has_live);
        if drop_list {
            let mut freed = Freed::default();
            self.free_chain(handle(held), &mut freed);
            self.give_back(freed);
        }
        // Release: the next holder sees what was done under the lock.
        rev.store(if drop_list { with_handle(held, 0) } else { held }, Ordering::Release);
        verdict
    }

    /// Takes the list of a node that nobody can register with: its owner is publishing, or it is free.
    pub(crate) fn take(&self, rev: &AtomicU64) -> u32 {
        let taken: Result<u32, std::convert::Infallible> = self.take_if(rev, || Ok(()));
        match taken {
            Ok(list) => list,
        }
    }

    /// Starts a new generation of this node's own dependencies: every older edge to it is stale from now on.
    pub(crate) fn next_generation(&self, rev: &AtomicU64) -> u32 {
        let held = self.hold(rev);
        let next = generation(held).wrapping_add(1) & LAST_GENERATION;
        // Release: for the next holder. A sweep that still sees the old generation meets edges that the registration after
        // this re-checks.
        rev.store((held & !GENERATION) | u64::from(next), Ordering::Release);
        next
    }

    /// Chains whose edges have been read: their blocks are free from now on.
    pub(crate) fn spend(&self, chains: Vec<u32>) {
        if !chains.is_empty() {
            lock(&self.spent).push(chains);
        }
    }

    /// The blocks of a taken list, newest first.
    #[inline(always)]
    pub(crate) fn blocks(&self, first: u32) -> Blocks<'_> {
        Blocks { edges: self, next: first }
    }

    pub(crate) fn walk(&self, first: u32, mut each: impl FnMut(Edge)) {
        for block in self.blocks(first) {
            for word in block {
                each(unpack(word.load(Ordering::Relaxed)));
            }
        }
    }

    /// Every edge of a list, live or stale, under its lock.
    pub(crate) fn list(&self, rev: &AtomicU64) -> Vec<Edge> {
        self.first(rev, usize::MAX)
    }

    /// The blocks with a list's newest `most` edges, live or stale, under its lock.
    pub(crate) fn first(&self, rev: &AtomicU64, most: usize) -> Vec<Edge> {
        let held = self.hold(rev);
        let mut found = Vec::new();
        for block in self.blocks(handle(held)) {
            if found.len() >= most {
                break;
            }
            found.extend(block.iter().map(|word| unpack(word.load(Ordering::Relaxed))));
        }
        // Release: nothing was written; pairs with the next holder's Acquire all the same.
        rev.store(held & !LOCK, Ordering::Release);
        found
    }

    pub(crate) fn free_chain(&self, first: u32, freed: &mut Freed) {
        let mut next = first;
        while next != 0 {
            let header = self.block(next)[0].load(Ordering::Relaxed);
            freed.add((header >> 24) as usize & 0xff, next);
            next = (header >> 32) as u32;
        }
    }

    pub(crate) fn give_back(&self, freed: Freed) {
        for (class, blocks) in freed.0.into_iter().enumerate() {
            if !blocks.is_empty() {
                lock(&self.free[class]).extend(blocks);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.words.bytes()
    }

    /// Starts loading the second block of a taken list, whose first was asked for before.
    #[inline(always)]
    pub(crate) fn prefetch_second(&self, handle: u32) {
        // SAFETY: [region-stable] a handle names a block.
        // Relaxed: the chain was taken with Acquire.
        let next = unsafe { (*self.address(handle)).load(Ordering::Relaxed) >> 32 } as u32;
        if next != 0 {
            self.prefetch_block(next);
        }
    }

    /// Starts loading a block.
    #[inline(always)]
    pub(crate) fn prefetch_block(&self, handle: u32) {
        crate::region::prefetch(self.address(handle));
    }
}

/// Iterator over the edge words of a chain, block by block.
pub(crate) struct Blocks<'e> {
    edges: &'e Edges,
    next: u32,
}

impl<'e> Iterator for Blocks<'e> {
    type Item = &'e [AtomicU64];

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == 0 {
            return None;
        }
        let base = self.edges.address(self.next);
        // SAFETY: [region-stable] a handle names a block, whose header says how many edges follow inside it.
        let (header, words) = unsafe {
            // Relaxed: the chain was taken (or locked) with Acquire.
            let header = (*base).load(Ordering::Relaxed);
            (header, std::slice::from_raw_parts(base.add(1), (header & 0xff_ffff) as usize))
        };
        self.next = (header >> 32) as u32;
        if self.next != 0 {
            self.edges.prefetch_block(self.next);
        }
        Some(words)
    }
}

/// Blocks to return to the free lists, by class: one lock per class and sweep instead of one per block.
#[derive(Debug, Default)]
pub(crate) struct Freed([Vec<u32>; CLASSES]);

impl Freed {
    #[inline(always)]
    pub(crate) fn add(&mut self, class: usize, handle: u32) {
        self.0[class].push(handle);
    }
}

impl std::fmt::Debug for Edges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edges").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_returns_every_edge_once_whatever_its_length() {
        let (columns, edges) = (Columns::new(4096), Edges::new());
        let first = columns.chunk(0).expect("room");
        for len in [0usize, 1, 3, 4, 6, 7, 100, 5000] {
            for n in 0..len {
                edges.append(&columns, first, Edge { slot: first + (n % 60) as u32, generation: 0 }, || Ok(()));
            }
            let taken = edges.take(&columns.row(first).rev);
            let mut count = 0;
            edges.walk(taken, |_| count += 1);
            assert_eq!(count, len);
            assert!(edges.list(&columns.row(first).rev).is_empty());
            let mut freed = Freed::default();
            edges.free_chain(taken, &mut freed);
            edges.give_back(freed);
        }
    }

    #[test]
    fn stale_edges_are_dropped_before_a_list_grows() {
        let (columns, edges) = (Columns::new(4096), Edges::new());
        let first = columns.chunk(0).expect("room");
        for generation in 0..10_000 {
            edges.append(&columns, first, Edge { slot: first + 1, generation }, || Ok(()));
            edges.next_generation(&columns.row(first + 1).rev);
        }
        assert!(edges.list(&columns.row(first).rev).len() <= 8, "one live edge, bounded garbage");
    }

    #[test]
    fn a_closed_list_takes_no_edge() {
        let (columns, edges) = (Columns::new(64), Edges::new());
        let first = columns.chunk(0).expect("room");
        assert!(!edges.append(&columns, first, Edge { slot: first, generation: 0 }, || Err(false)));
        assert!(edges.list(&columns.row(first).rev).is_empty());
    }
}
