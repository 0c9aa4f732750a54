//! The key table of one function: hash to slot, lock-free for readers, one writer at a time, grown without stopping readers.
//!
//! ```text
//! bucket, one cache line:  [ 12 tags | overflow flag 32 ][ 12 slots of 32 bits ]
//! tag 0 = free, else 0x80 | 7 low bits of the hash; the bucket number is the hash's high bits
//! ```
//! A probe is one line: compare 12 tags at once, look at the few slots that match. A bucket that ever turned an entry away
//! says so, and only then does a probe go on to the next bucket. Inlined 8-byte keys were measured 2x slower (4 to a line).
//! Grown-out arrays are kept until the table is dropped (together at most as large as the current one): that is what lets
//! a lookup hold no pin.

use crate::page::prefetch;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sync::fault;

const WIDTH: usize = 12;
#[cfg(not(any(loom, shuttle)))]
const FIRST: usize = 4; // at least 2: a hash is never shifted by 64
#[cfg(any(loom, shuttle))]
const FIRST: usize = 2;
/// Entries per bucket on average at which the table doubles.
#[cfg(not(any(loom, shuttle)))]
const FULL: usize = 9;
#[cfg(any(loom, shuttle))]
const FULL: usize = 1;

#[repr(C, align(64))]
struct Bucket {
    /// Tags 0..8.
    low: AtomicU64,
    /// Tags 8..12, then a flag: this bucket once turned an entry away.
    high: AtomicU64,
    slots: [AtomicU32; WIDTH],
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Bucket>() == 64);

/// An array as readers see it: a pointer to its buckets that carries, in the six bits its alignment leaves free, how far a
/// hash is shifted to give a bucket number. One load, and no length to look up on a hit.
#[derive(Clone, Copy)]
struct Array(*const Bucket);

pub(crate) struct Table {
    /// An [`Array`]'s pointer.
    current: AtomicPtr<Bucket>,
}

/// The writer's side, behind the function's lock.
pub(crate) struct Writer {
    /// Every array there has been, the current one last. Boxes that are never touched as such while the table lives.
    arrays: Vec<*mut [Bucket]>,
    len: usize,
    inserted: u64,
}

// SAFETY: [table-stable] the pointers are owned by the table, freed only in `Table::drop_arrays` with exclusive access.
unsafe impl Send for Writer {}

#[inline(always)]
fn tag(hash: u64) -> u8 {
    hash as u8 | 0x80
}

/// A bit per tag that equals `tag`, bits 0..12.
#[inline(always)]
fn matches(low: u64, high: u64, tag: u8) -> u32 {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    // SAFETY: [sse2] SSE2 is part of the target; the intrinsics work on values in registers only.
    unsafe {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        let group = _mm_set_epi64x(high as i64, low as i64);
        _mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8(tag as i8))) as u32 & 0xfff
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
    {
        let mut found = 0;
        for at in 0..WIDTH {
            let byte = if at < 8 { low >> (at * 8) } else { high >> ((at - 8) * 8) } as u8;
            found |= u32::from(byte == tag) << at;
        }
        found
    }
}

/// The flag in a bucket's high word. No byte of it is a tag, so a group comparison needs no mask.
const OVERFLOWED: u64 = 1 << 32;

impl Bucket {
    /// A bit per slot whose tag is `tag`. The load has acquire order: a tag is stored after its slot, and the slot after the
    /// node it names.
    #[inline(always)]
    fn matching(&self, tag: u8) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle))))]
        // SAFETY: [group-load] the sixteen tag bytes are one aligned, initialised part of the bucket. They are read by an
        // instruction, not by a Rust load, so that a racing store to one byte is what it is to the machine: each byte old or
        // new, and later loads after this one (x86 keeps loads in order; the asm block is opaque to the compiler).
        unsafe {
            use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set1_epi8};
            let group: __m128i;
            std::arch::asm!("movdqa {group}, [{bucket}]", group = out(xmm_reg) group, bucket = in(reg) std::ptr::from_ref(self),
                options(nostack, preserves_flags));
            _mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8(tag as i8))) as u32
        }
        #[cfg(not(all(target_arch = "x86_64", not(any(loom, shuttle)))))]
        matches(self.low.load(Ordering::Acquire), self.high.load(Ordering::Acquire), tag)
    }

    #[inline(always)]
    fn is_overflowed(&self) -> bool {
        // Acquire: one rule for tag words.
        self.high.load(Ordering::Acquire) & OVERFLOWED != 0
    }
}

impl Table {
    pub(crate) fn new() -> (Table, Writer) {
        let first = new_buckets(FIRST);
        let table = Table { current: AtomicPtr::new(Array::of(first).0.cast_mut()) };
        (table, Writer { arrays: vec![first], len: 0, inserted: 0 })
    }

    #[inline(always)]
    fn array(&self) -> Array {
        // Acquire: pairs with the Release store in `grow`.
        Array(self.current.load(Ordering::Acquire))
    }

    /// The first `Some` that `look` returns for a slot whose tag matches.
    #[inline(always)]
    pub(crate) fn find<T>(&self, hash: u64, mut look: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let array = self.array();
        let mut at = array.home(hash);
        let tag = tag(hash);
        loop {
            let bucket = array.bucket(at);
            let mut found = bucket.matching(tag);
            while found != 0 {
                let entry = found.trailing_zeros() as usize;
                // Relaxed: ordered by the tag's Acquire. A slot reused in between fails `look`'s key comparison.
                // SAFETY: [table-stable] tags have their high bit set, the bytes behind them never: bits below WIDTH only.
                let slot = unsafe { bucket.slots.get_unchecked(entry) }.load(Ordering::Relaxed);
                if let Some(hit) = look(slot) {
                    return Some(hit);
                }
                found &= found - 1;
            }
            if !bucket.is_overflowed() {
                return None;
            }
            at = array.after(at);
            if at == array.home(hash) {
                return None;
            }
        }
    }

    /// More than half a megabyte of buckets.
    #[inline(always)]
    pub(crate) fn is_wide(&self) -> bool {
        self.array().len() > (1 << 19) / size_of::<Bucket>()
    }

    /// Starts loading the bucket of `hash`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        let array = self.array();
        prefetch(std::ptr::from_ref(array.bucket(array.home(hash))));
    }

    /// The first slot whose tag matches: a guess to prefetch.
    #[inline(always)]
    pub(crate) fn guess(&self, hash: u64) -> Option<u32> {
        let array = self.array();
        let bucket = array.bucket(array.home(hash));
        let found = bucket.matching(tag(hash));
        (found != 0).then(|| bucket.slots[found.trailing_zeros() as usize % WIDTH].load(Ordering::Relaxed))
    }

    /// Adds a slot whose node is complete. `rehash` names the hash of an older slot when the table grows;
    /// it reads keys and their stored hashes only, never user code.
    pub(crate) fn insert(&self, writer: &mut Writer, hash: u64, slot: u32, rehash: impl Fn(u32) -> u64) {
        if writer.len >= self.array().len() * FULL {
            self.grow(writer, rehash);
        }
        self.array().place(hash, slot);
        writer.len += 1;
        writer.inserted += 1;
    }

    fn grow(&self, writer: &mut Writer, rehash: impl Fn(u32) -> u64) {
        let old = self.array();
        let buckets = new_buckets(old.len() * 2);
        let wider = Array::of(buckets);
        for at in 0..old.len() {
            old.bucket(at).each(|slot| wider.place(rehash(slot), slot));
        }
        writer.arrays.push(buckets);
        // Release: a reader of the new array sees its entries.
        let order = if fault!("relaxed_growth") { Ordering::Relaxed } else { Ordering::Release };
        self.current.store(wider.0.cast_mut(), order);
    }

    pub(crate) fn remove(&self, writer: &mut Writer, hash: u64, slot: u32) {
        let array = self.array();
        let mut at = array.home(hash);
        loop {
            let bucket = array.bucket(at);
            let (low, high) = (bucket.low.load(Ordering::Relaxed), bucket.high.load(Ordering::Relaxed));
            let mut found = matches(low, high, tag(hash));
            while found != 0 {
                let entry = found.trailing_zeros() as usize;
                if bucket.slots[entry].load(Ordering::Relaxed) == slot {
                    // Release: nothing is published; keeps one rule for tag stores. The flags of buckets passed on
                    // the way stay: the next growth clears them.
                    if entry < 8 {
                        bucket.low.store(low & !(0xff << (entry * 8)), Ordering::Release);
                    } else {
                        bucket.high.store(high & !(0xff << ((entry - 8) * 8)), Ordering::Release);
                    }
                    writer.len -= 1;
                    return;
                }
                found &= found - 1;
            }
            if high & OVERFLOWED == 0 {
                return;
            }
            at = array.after(at);
            if at == array.home(hash) {
                return;
            }
        }
    }

    /// Every slot in the table, in no order. Exact under the writer's lock.
    pub(crate) fn slots(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let array = self.array();
        for at in 0..array.len() {
            array.bucket(at).each(|slot| found.push(slot));
        }
        found
    }

    /// Frees the arrays; the caller has the table to itself.
    pub(crate) fn drop_arrays(&mut self, writer: &mut Writer) {
        for array in writer.arrays.drain(..) {
            // SAFETY: [table-stable] each came from `Box::into_raw` once, and `&mut self` proves no reader is left.
            drop(unsafe { Box::from_raw(array) });
        }
    }
}

impl Writer {
    /// How many inserts there have ever been: unchanged means that a search made before is still right.
    pub(crate) fn inserted(&self) -> u64 {
        self.inserted
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        // SAFETY: [table-stable] the arrays live as long as the table, which the caller's borrow of the writer is part of.
        self.arrays.iter().map(|&array| size_of_val(unsafe { &*array })).sum()
    }
}

/// Buckets on a 64-byte boundary, as a raw box.
fn new_buckets(len: usize) -> *mut [Bucket] {
    let bucket = |_| Bucket { low: AtomicU64::new(0), high: AtomicU64::new(0), slots: std::array::from_fn(|_| AtomicU32::new(0)) };
    Box::into_raw((0..len).map(bucket).collect::<Box<[Bucket]>>())
}

impl Array {
    fn of(buckets: *mut [Bucket]) -> Array {
        let shift = 64 - buckets.len().trailing_zeros() as usize;
        Array(buckets.cast::<Bucket>().map_addr(|address| address | shift))
    }

    fn len(self) -> usize {
        1 << (64 - (self.0.addr() & 63))
    }

    #[inline(always)]
    fn home(self, hash: u64) -> usize {
        // Shifts by the low six bits of the address, which is what the instruction does anyway.
        hash.wrapping_shr(self.0.addr() as u32) as usize
    }

    fn after(self, at: usize) -> usize {
        (at + 1) & (self.len() - 1)
    }

    #[inline(always)]
    fn bucket<'t>(self, at: usize) -> &'t Bucket {
        debug_assert!(at < self.len(), "a bucket beyond the array");
        // SAFETY: [table-stable] `home` has as many bits as the length and `after` wraps, so `at` is inside; arrays are freed
        // with the table, and no caller keeps the reference beyond its borrow of the table.
        unsafe { &*self.0.map_addr(|address| address & !63).add(at) }
    }

    fn place(self, hash: u64, slot: u32) {
        let mut at = self.home(hash);
        loop {
            let bucket = self.bucket(at);
            let (low, high) = (bucket.low.load(Ordering::Relaxed), bucket.high.load(Ordering::Relaxed));
            let free = matches(low, high, 0);
            if free != 0 {
                let entry = free.trailing_zeros() as usize;
                // Relaxed: published by the tag's Release store.
                bucket.slots[entry].store(slot, Ordering::Relaxed);
                let tag = u64::from(tag(hash));
                // Release: the slot and its node before the tag.
                if entry < 8 {
                    bucket.low.store(low | tag << (entry * 8), Ordering::Release);
                } else {
                    bucket.high.store(high | tag << ((entry - 8) * 8), Ordering::Release);
                }
                return;
            }
            // Release: one rule for tag words. A reader that misses the flag looks again under the writer's lock.
            bucket.high.store(high | OVERFLOWED, Ordering::Release);
            at = self.after(at);
        }
    }
}

impl Bucket {
    fn each(&self, mut each: impl FnMut(u32)) {
        let (low, high) = (self.low.load(Ordering::Acquire), self.high.load(Ordering::Acquire));
        let taken = !matches(low, high, 0) & 0xfff;
        for entry in (0..WIDTH).filter(|entry| taken & (1 << entry) != 0) {
            each(self.slots[entry].load(Ordering::Relaxed));
        }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("buckets", &self.array().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn mix(n: u64) -> u64 {
        (n ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    #[test]
    fn a_table_agrees_with_a_hash_map_through_inserts_removes_and_growth() {
        let (mut table, mut writer) = Table::new();
        let mut model = HashMap::new();
        for step in 0..20_000u32 {
            let slot = step + 1;
            table.insert(&mut writer, mix(u64::from(slot)), slot, |slot| mix(u64::from(slot)));
            model.insert(slot, ());
            if step % 3 == 0 {
                let gone = mix(u64::from(step)) as u32 % slot + 1;
                if model.remove(&gone).is_some() {
                    table.remove(&mut writer, mix(u64::from(gone)), gone);
                }
            }
        }
        assert_eq!(writer.len(), model.len());
        for slot in 1..=20_000u32 {
            let found = table.find(mix(u64::from(slot)), |seen| (seen == slot).then_some(()));
            assert_eq!(found.is_some(), model.contains_key(&slot), "slot {slot}");
        }
        let mut slots = table.slots();
        slots.sort_unstable();
        let mut expected: Vec<u32> = model.into_keys().collect();
        expected.sort_unstable();
        assert_eq!(slots, expected);
        table.drop_arrays(&mut writer);
    }
}
