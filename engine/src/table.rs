//! The key table of one function: hash to slot, lock-free for readers, one writer at a time, grown where it stands.
//!
//! ```text
//! bucket, one cache line:  [ 12 tags | overflow flag 32 ][ 12 slots of 32 bits ]
//! tag = 7 high bits of the hash, 0x80 = free; the bucket number is the hash's low bits above the sixth
//! ```
//! A probe is one line: compare 12 tags at once, look at the few slots that match. A bucket that ever turned an entry away
//! says so, and only then does a probe go on to the next bucket. Inlined 8-byte keys were measured 2x slower (4 to a line).
//!
//! Growth doubles the array in place: the upper half is written, the mask widened, the lower half rewritten. Nothing is
//! retired, so a lookup holds no pin and no outgrown array is kept. While it runs a probe may miss what is there (never find
//! what is not: whoever probes compares keys), so a miss counts only if no growth fell into it: `moves`.

use crate::region::{Base, Region, Zeroed, prefetch};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Backoff, fault};

const WIDTH: usize = 12;
/// Buckets of a new table.
#[cfg(not(any(loom, shuttle)))]
const FIRST: usize = 4;
#[cfg(any(loom, shuttle))]
const FIRST: usize = 1;
/// Entries per bucket on average at which the table doubles.
#[cfg(not(any(loom, shuttle)))]
const FULL: usize = 9;
#[cfg(any(loom, shuttle))]
const FULL: usize = 1;
/// The same while the table is small: a probe that meets a false tag or an overflow costs a mispredicted branch, which is
/// what bounds a lookup in the nearest caches; beyond them it is the bytes.
const FULL_SMALL: usize = if FULL > 6 { 6 } else { FULL };
/// Buckets of the largest small table: 64 KiB.
const SMALL: usize = 1024;
/// Buckets that growth asks for before their turn.
const AHEAD: usize = 4;
/// Bytes from one bucket to the next.
const STRIDE: usize = 64;

/// Twelve free tags, and flag bytes that equal no tag.
const FREE: u8 = 0x80;
const NONE: u64 = 0x8080_8080_8080_8080;
/// The flag in a bucket's high word.
const OVERFLOWED: u64 = 1 << 32;

#[repr(C, align(64))]
#[derive(Default)]
struct Bucket {
    /// Tags 0..8.
    low: AtomicU64,
    /// Tags 8..12, then a flag: this bucket once turned an entry away.
    high: AtomicU64,
    slots: [AtomicU32; WIDTH],
}

// SAFETY: [zeroed] a bucket is atomic integers.
unsafe impl Zeroed for Bucket {}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Bucket>() == STRIDE);

pub(crate) struct Table {
    buckets: Base<Bucket>,
    /// Bucket numbers times [`STRIDE`], all ones: a hash and this make the home bucket's offset.
    mask: AtomicU64,
    /// Odd while the array is rewritten.
    moves: AtomicU32,
    region: Region<Bucket>,
}

/// Home buckets alone: what a hit wants inlined.
pub(crate) struct Homes {
    buckets: Base<Bucket>,
    mask: usize,
}

impl Homes {
    #[inline(always)]
    fn bucket(&self, hash: u64) -> &Bucket {
        // SAFETY: [region-stable] as in `Table::bucket`; the table outlives its `Homes`.
        unsafe { self.buckets.at_stride::<STRIDE>(hash as usize & self.mask) }
    }

    /// The first `Some` that `look` returns for a slot whose tag matches.
    #[inline(always)]
    pub(crate) fn find<T>(&self, hash: u64, mut look: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.bucket(hash).find(tag(hash), &mut look)
    }

    /// More than half a megabyte of buckets.
    #[inline(always)]
    pub(crate) fn is_wide(&self) -> bool {
        self.mask > 1 << 19
    }

    /// Starts loading the bucket of `hash`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(std::ptr::from_ref(self.bucket(hash)));
    }

    /// The first slot whose tag matches, 0 if there is none: a guess to prefetch.
    #[inline(always)]
    pub(crate) fn guess(&self, hash: u64) -> u32 {
        let bucket = self.bucket(hash);
        match bucket.matching(tag(hash)) {
            0 => 0,
            found => bucket.slot(found),
        }
    }
}

/// The writer's side, behind the function's lock.
pub(crate) struct Writer {
    len: usize,
    /// Buckets that say they turned an entry away, and how many such there may be before the array is written anew.
    flagged: usize,
    most_flagged: usize,
}

#[inline(always)]
fn tag(hash: u64) -> u8 {
    (hash >> 57) as u8
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

/// The tag word with another tag at a byte.
fn with_tag(word: u64, byte: usize, tag: u8) -> u64 {
    word & !(0xff << (byte * 8)) | u64::from(tag) << (byte * 8)
}

/// One bucket's words, as the writer works on them.
#[derive(Clone, Copy)]
struct Plain {
    low: u64,
    high: u64,
    slots: [u32; WIDTH],
}

const EMPTY: Plain = Plain { low: NONE, high: NONE, slots: [0; WIDTH] };

impl Plain {
    /// `false` if there is no room.
    fn put(&mut self, hash: u64, slot: u32) -> bool {
        let free = matches(self.low, self.high, FREE);
        if free == 0 {
            self.high |= OVERFLOWED;
            return false;
        }
        let entry = free.trailing_zeros() as usize;
        self.slots[entry] = slot;
        self.set_tag(entry, tag(hash));
        true
    }

    fn set_tag(&mut self, entry: usize, tag: u8) {
        if entry < 8 {
            self.low = with_tag(self.low, entry, tag);
        } else {
            self.high = with_tag(self.high, entry - 8, tag);
        }
    }

    fn each(&self, mut each: impl FnMut(u32)) {
        let taken = !matches(self.low, self.high, FREE) & 0xfff;
        for entry in (0..WIDTH).filter(|entry| taken & (1 << entry) != 0) {
            each(self.slots[entry]);
        }
    }
}

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
    fn slot(&self, found: u32) -> u32 {
        // Acquire: a slot that growth put here tells a miss that growth is under way.
        // SAFETY: [region-stable] tags have their high bit clear, the flag bytes behind them never: bits below WIDTH only.
        unsafe { self.slots.get_unchecked(found.trailing_zeros() as usize) }.load(Ordering::Acquire)
    }

    /// The first `Some` that `look` returns for a slot whose tag matches.
    #[inline(always)]
    fn find<T>(&self, tag: u8, look: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
        let mut found = self.matching(tag);
        while found != 0 {
            if let Some(hit) = look(self.slot(found)) {
                return Some(hit);
            }
            found &= found - 1;
        }
        None
    }

    #[inline(always)]
    fn is_overflowed(&self) -> bool {
        // Acquire: one rule for tag words.
        self.high.load(Ordering::Acquire) & OVERFLOWED != 0
    }

    fn plain(&self) -> Plain {
        // Relaxed: for the writer, who wrote it.
        let slots = std::array::from_fn(|entry| self.slots[entry].load(Ordering::Relaxed));
        Plain { low: self.low.load(Ordering::Relaxed), high: self.high.load(Ordering::Relaxed), slots }
    }

    /// Release (all): a slot and its node before the tag; and whoever meets any of it meets `moves` odd.
    fn write(&self, plain: &Plain, order: Ordering) {
        for (slot, &new) in self.slots.iter().zip(&plain.slots) {
            slot.store(new, order);
        }
        self.low.store(plain.low, order);
        self.high.store(plain.high, order);
    }
}

impl Table {
    /// A table with room for `most` entries, or for as many as the system has memory for; `None` if that is none.
    pub(crate) fn new(most: usize) -> Option<(Table, Writer)> {
        let region = Region::<Bucket>::new(most.div_ceil(FULL).next_power_of_two().max(FIRST))?;
        let table = Table { buckets: region.base(), mask: AtomicU64::new(0), moves: AtomicU32::new(0), region };
        if !table.region.grow(FIRST) {
            return None;
        }
        for at in 0..FIRST {
            table.bucket(at * STRIDE).write(&EMPTY, Ordering::Relaxed);
        }
        // Relaxed: the table is published by whoever shares it.
        table.mask.store(((FIRST - 1) * STRIDE) as u64, Ordering::Relaxed);
        Some((table, Writer { len: 0, flagged: 0, most_flagged: FIRST }))
    }

    #[inline(always)]
    fn bucket(&self, offset: usize) -> &Bucket {
        // SAFETY: [region-stable] offsets are masked by a mask that was stored after the array had grown to it.
        unsafe { self.buckets.at_stride::<STRIDE>(offset) }
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        // Acquire: pairs with the Release store in `grow`: the upper half before the mask that leads to it.
        self.mask.load(Ordering::Acquire) as usize
    }

    fn buckets(&self) -> usize {
        self.mask() / STRIDE + 1
    }

    /// The array as it is now. One that is kept over a growth misses what has moved: a miss must be asked again with `find`.
    #[inline(always)]
    pub(crate) fn homes(&self) -> Homes {
        Homes { buckets: self.buckets.clone(), mask: self.mask() }
    }

    /// The first `Some` that `look` returns for a slot whose tag matches. A miss is certain: the key was not in the table at
    /// some moment during the call.
    pub(crate) fn find<T>(&self, hash: u64, mut look: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let mut backoff = Backoff::default();
        loop {
            // Acquire: the probe after it.
            let moves = self.moves.load(Ordering::Acquire);
            if let Some(hit) = self.probe(hash, &mut look) {
                return Some(hit);
            }
            // Acquire: every word that growth wrote was stored after `moves` became odd, and loaded with Acquire.
            if moves & 1 == 0 && self.moves.load(Ordering::Acquire) == moves || fault!("miss_trusted") {
                return None;
            }
            backoff.wait();
        }
    }

    fn probe<T>(&self, hash: u64, look: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
        let mask = self.mask();
        let home = hash as usize & mask;
        let mut at = home;
        loop {
            let bucket = self.bucket(at);
            if let Some(hit) = bucket.find(tag(hash), look) {
                return Some(hit);
            }
            if !bucket.is_overflowed() {
                return None;
            }
            at = (at + STRIDE) & mask;
            if at == home {
                return None;
            }
        }
    }

    /// Sees to it that there is room for one more; `false` if the table is at its limit. `rehash` names the hash of an older
    /// slot when the table grows; it reads keys and their stored hashes only, never user code. `soon` is told which slots it
    /// will be asked for.
    pub(crate) fn make_room(&self, writer: &mut Writer, rehash: impl Fn(u32) -> u64, soon: impl Fn(u32)) -> bool {
        let buckets = self.buckets();
        let full = if buckets < SMALL { FULL_SMALL } else { FULL };
        if writer.len < buckets * full {
            // Keys that come and go leave flags behind, and a probe goes on at each: where they are many more than the entries
            // account for, the array is written anew. Paid for by the inserts that set them.
            if writer.flagged > writer.most_flagged && !fault!("flags_stay") {
                self.rewrite(writer, buckets, rehash, soon);
            }
            return true;
        }
        // At the limit of the range, or of the system's memory, buckets are filled to the brim.
        self.grow(writer, rehash, soon) || writer.len < buckets * WIDTH
    }

    /// Adds a slot whose node is complete, after `make_room`.
    pub(crate) fn insert(&self, writer: &mut Writer, hash: u64, slot: u32) {
        writer.flagged += self.place(hash, slot);
        writer.len += 1;
    }

    /// Into the first bucket with room; there is one. How many more buckets say that they turned an entry away.
    fn place(&self, hash: u64, slot: u32) -> usize {
        let mask = self.mask();
        let mut flagged = 0;
        let mut at = hash as usize & mask;
        loop {
            let bucket = self.bucket(at);
            // Relaxed: the writer's own stores.
            let (low, high) = (bucket.low.load(Ordering::Relaxed), bucket.high.load(Ordering::Relaxed));
            let free = matches(low, high, FREE);
            if free != 0 {
                let entry = free.trailing_zeros() as usize;
                // Release: see `Bucket::slot`; published by the tag's store.
                bucket.slots[entry].store(slot, Ordering::Release);
                bucket.set_tag((low, high), entry, tag(hash));
                return flagged;
            }
            flagged += usize::from(high & OVERFLOWED == 0);
            // Release: one rule for tag words. A reader that misses the flag looks again under the writer's lock.
            bucket.high.store(high | OVERFLOWED, Ordering::Release);
            at = (at + STRIDE) & mask;
        }
    }

    /// Doubles the array. `false`: there is no more room.
    fn grow(&self, writer: &mut Writer, rehash: impl Fn(u32) -> u64, soon: impl Fn(u32)) -> bool {
        let wanted = self.buckets() * 2;
        if !self.region.grow(wanted) {
            return false;
        }
        self.rewrite(writer, wanted, rehash, soon);
        true
    }

    /// Puts every entry where it would go into a new array of so many buckets: as many as now, or twice that.
    fn rewrite(&self, writer: &mut Writer, wanted: usize, rehash: impl Fn(u32) -> u64, soon: impl Fn(u32)) {
        let old = self.buckets();
        let mask = (wanted - 1) * STRIDE;
        let mut wider = vec![EMPTY; wanted];
        for (at, plain) in wider[..old].iter_mut().enumerate() {
            // An entry that becomes free keeps its slot number: a reader between its tag and its slot meets a node that was
            // here, never slot 0, whose key word could be taken for a key.
            plain.slots = self.bucket(at * STRIDE).plain().slots;
        }
        for at in 0..old {
            if at + AHEAD < old {
                self.bucket((at + AHEAD) * STRIDE).plain().each(&soon);
            }
            self.bucket(at * STRIDE).plain().each(|slot| {
                let hash = rehash(slot);
                let mut at = hash as usize & mask;
                while !wider[at / STRIDE].put(hash, slot) {
                    at = (at + STRIDE) & mask;
                }
            });
        }
        // Relaxed: the writer's own. The stores below are Release, so that whoever meets one of them meets this too.
        let moves = self.moves.load(Ordering::Relaxed);
        self.moves.store(moves + 1, Ordering::Relaxed);
        let order = if fault!("relaxed_growth") { Ordering::Relaxed } else { Ordering::Release };
        let (lower, upper) = wider.split_at(old);
        let rewrite = |from: usize, half: &[Plain]| {
            for (at, plain) in (from..).zip(half) {
                self.bucket(at * STRIDE).write(plain, order);
            }
        };
        rewrite(old, upper);
        // Release: the upper half before the mask.
        self.mask.store(mask as u64, order);
        rewrite(0, lower);
        // Release: the array before the number that says it is whole.
        self.moves.store(moves + 2, Ordering::Release);
        writer.flagged = wider.iter().filter(|plain| plain.high & OVERFLOWED != 0).count();
        writer.most_flagged = writer.flagged * 2 + wanted / 4;
    }
    pub(crate) fn remove(&self, writer: &mut Writer, hash: u64, slot: u32) {
        let mask = self.mask();
        let home = hash as usize & mask;
        let mut at = home;
        loop {
            let bucket = self.bucket(at);
            let (low, high) = (bucket.low.load(Ordering::Relaxed), bucket.high.load(Ordering::Relaxed));
            let mut found = matches(low, high, tag(hash));
            while found != 0 {
                if bucket.slot(found) == slot {
                    // The flags of buckets passed on the way stay: the next rewriting clears them.
                    bucket.set_tag((low, high), found.trailing_zeros() as usize, FREE);
                    writer.len -= 1;
                    return;
                }
                found &= found - 1;
            }
            at = (at + STRIDE) & mask;
            if high & OVERFLOWED == 0 || at == home {
                return;
            }
        }
    }

    /// Every slot in the table, in no order. Exact under the writer's lock.
    pub(crate) fn slots(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for at in 0..self.buckets() {
            self.bucket(at * STRIDE).plain().each(|slot| found.push(slot));
        }
        found
    }

    pub(crate) fn bytes(&self) -> usize {
        self.region.bytes()
    }
}

impl Bucket {
    /// Release: the slot before its tag. `words` are the tag words as they are.
    fn set_tag(&self, words: (u64, u64), entry: usize, tag: u8) {
        if entry < 8 {
            self.low.store(with_tag(words.0, entry, tag), Ordering::Release);
        } else {
            self.high.store(with_tag(words.1, entry - 8, tag), Ordering::Release);
        }
    }
}

impl Writer {
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("buckets", &self.buckets()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Splitmix's finaliser. A product alone spreads numbers in a row so evenly that no bucket is ever full.
    fn mix(n: u64) -> u64 {
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    #[test]
    fn a_table_agrees_with_a_hash_map_through_inserts_removes_and_growth() {
        let (table, mut writer) = Table::new(1 << 20).expect("memory");
        let mut model = HashMap::new();
        for step in 0..20_000u32 {
            let slot = step + 1;
            assert!(table.make_room(&mut writer, |slot| mix(u64::from(slot)), |_| ()));
            table.insert(&mut writer, mix(u64::from(slot)), slot);
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
    }

    #[test]
    fn keys_that_come_and_go_do_not_make_misses_longer() {
        let (table, mut writer) = Table::new(1 << 20).expect("memory");
        // As full as 256 buckets may be, so that one in some hundred turns an entry away at any time.
        for slot in 1..=300_000u32 {
            assert!(table.make_room(&mut writer, |slot| mix(u64::from(slot)), |_| ()));
            table.insert(&mut writer, mix(u64::from(slot)), slot);
            if slot > 1_500 {
                table.remove(&mut writer, mix(u64::from(slot - 1_500)), slot - 1_500);
            }
        }
        let flagged = (0..table.buckets()).filter(|at| table.bucket(at * STRIDE).is_overflowed()).count();
        assert_eq!(flagged, writer.flagged);
        assert!(flagged <= table.buckets() / 2, "{flagged} of {} buckets send a probe on", table.buckets());
        assert_eq!((writer.len(), table.slots().len()), (1_500, 1_500));
    }

    #[test]
    fn a_table_at_its_limit_fills_to_the_brim_and_then_refuses() {
        let (table, mut writer) = Table::new(1_000).expect("memory");
        let mut room = 0;
        while table.make_room(&mut writer, |slot| mix(u64::from(slot)), |_| ()) {
            room += 1;
            table.insert(&mut writer, mix(u64::from(room)), room);
        }
        assert_eq!(room as usize, table.buckets() * WIDTH);
        for slot in 1..=(table.buckets() * WIDTH) as u32 {
            assert!(table.find(mix(u64::from(slot)), |seen| (seen == slot).then_some(())).is_some(), "slot {slot}");
        }
        assert!(table.find(mix(1 << 40), |_| None::<()>).is_none(), "a miss in a full table ends");
    }
}
