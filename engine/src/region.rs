//! Memory that grows and never moves: a range of addresses, reserved whole and made usable from the front.
//!
//! Only reserved, a range costs no memory and is not counted by the system as promised. What it buys: an index becomes an address
//! with one shift and one addition, growth copies nothing, and nothing a reader may hold is ever freed before the engine.
//! (Pages behind a directory cost two dependent loads on every hit; doubling arrays had to be kept until the engine was dropped.)
//!
//! Beyond its first 2 MiB a range asks for huge pages: a table of a million keys needs 20 entries of the translation
//! cache instead of 10,000.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Types for which memory full of zeroes is a valid value.
///
/// # Safety
/// All zero bytes are a valid value, and the type needs no drop.
pub(crate) unsafe trait Zeroed: Default + Send + Sync {}

// SAFETY: [zeroed] an atomic integer admits every bit pattern and needs no drop.
unsafe impl Zeroed for AtomicU64 {}
// SAFETY: [zeroed] as above.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: [zeroed] as above.
unsafe impl Zeroed for AtomicU8 {}

/// A growing array whose items never move.
pub(crate) struct Region<T> {
    memory: backing::Memory<T>,
}

/// Where a region's items are. Good for as long as the region is.
pub(crate) struct Base<T>(backing::Place<T>);

impl<T> Clone for Base<T> {
    fn clone(&self) -> Base<T> {
        Base(self.0.clone())
    }
}

impl<T: Zeroed> Region<T> {
    /// Reserves room for `capacity` items, or for as many as the system grants; `None` if it grants next to nothing.
    pub(crate) fn new(capacity: usize) -> Option<Region<T>> {
        backing::Memory::reserve(capacity.max(1)).map(|memory| Region { memory })
    }

    /// Makes the first `items` usable: they are zero until written. `false` if the range or the system's memory ends before.
    /// Callers take turns.
    pub(crate) fn grow(&self, items: usize) -> bool {
        self.memory.grow(items)
    }

    pub(crate) fn base(&self) -> Base<T> {
        Base(self.memory.place())
    }

    /// Bytes made usable so far.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// # Safety
    /// `grow` has returned `true` for more than `index` items, and that happened before.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, index: usize) -> &T {
        // SAFETY: [region-stable] the caller's promise.
        unsafe { &*self.memory.address(index) }
    }
}

impl<T: Zeroed> Base<T> {
    /// # Safety
    /// As [`Region::at`], and the region outlives `'a`.
    #[inline(always)]
    pub(crate) unsafe fn at<'a>(&self, index: usize) -> &'a T {
        // SAFETY: [region-stable] the caller's promise.
        unsafe { &*self.0.address(index) }
    }
}

impl<T: Zeroed> Base<T> {
    /// The item `bytes` behind the first, where items are `STRIDE` bytes apart.
    ///
    /// # Safety
    /// As [`at`](Base::at) with `bytes / STRIDE` for the index.
    #[inline(always)]
    pub(crate) unsafe fn at_stride<'a, const STRIDE: usize>(&self, bytes: usize) -> &'a T {
        // SAFETY: [region-stable] the caller's promise.
        unsafe { &*self.0.address_of::<STRIDE>(bytes) }
    }
}

impl<T> std::fmt::Debug for Region<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").finish_non_exhaustive()
    }
}

/// Asks the core to load a line early. A hint: never faults, changes nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle))))]
    // SAFETY: [prefetch] a prefetch never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(loom, shuttle)))))]
    let _ = address;
}

#[cfg(not(any(loom, shuttle)))]
mod backing {
    use super::{NonNull, PhantomData, Zeroed};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A huge page of x86-64 and of the usual AArch64 configuration.
    const HUGE: usize = 2 << 20;
    /// Bytes made usable at a time while a range is small: whole pages on every system.
    const STEP: usize = 64 << 10;

    pub(super) struct Memory<T> {
        base: NonNull<T>,
        reserved: usize,
        usable: AtomicUsize,
        items: PhantomData<T>,
    }

    // SAFETY: [region-stable] the range is owned by `Memory`, holds `Sync` items only, and is released in `drop` alone.
    unsafe impl<T: Send> Send for Memory<T> {}
    // SAFETY: [region-stable] as above.
    unsafe impl<T: Sync> Sync for Memory<T> {}

    pub(super) struct Place<T>(NonNull<T>);

    impl<T> Clone for Place<T> {
        fn clone(&self) -> Place<T> {
            Place(self.0)
        }
    }

    // SAFETY: [region-stable] an address alone; whoever follows it promises that the range is there.
    unsafe impl<T: Sync> Send for Place<T> {}
    // SAFETY: [region-stable] as above.
    unsafe impl<T: Sync> Sync for Place<T> {}

    impl<T: Zeroed> Memory<T> {
        pub(super) fn reserve(capacity: usize) -> Option<Memory<T>> {
            let wanted = capacity.saturating_mul(size_of::<T>()).clamp(STEP, system::LARGEST).next_multiple_of(STEP);
            let range = |bytes| system::reserve(bytes).map(|base| (base, bytes));
            let (base, reserved) = range(wanted).or_else(|| {
                // A limit on addresses (`ulimit -v`) leaves the engine a lower id limit instead of none: an eighth of the most that
                // is granted, so that the other ranges, the allocator and thread stacks find room too.
                let halves = std::iter::successors(Some(wanted / 2), |bytes| Some(bytes / 2)).take_while(|&bytes| bytes >= STEP);
                let granted = halves.map(|bytes| bytes.next_multiple_of(STEP)).find_map(range)?;
                // SAFETY: [region-stable] reserved just now, used by nobody.
                unsafe { system::release(granted.0, granted.1) };
                range((granted.1 / 8).next_multiple_of(STEP))
            })?;
            Some(Memory { base: base.cast(), reserved, usable: AtomicUsize::new(0), items: PhantomData })
        }

        pub(super) fn grow(&self, items: usize) -> bool {
            // Relaxed (both): callers take turns under a lock of theirs, and publish what they grew with Release.
            let usable = self.usable.load(Ordering::Relaxed);
            let Some(need) = items.checked_mul(size_of::<T>()) else { return false };
            if need <= usable {
                return true;
            }
            let step = if need > HUGE { HUGE } else { STEP };
            let grown = need.next_multiple_of(step).min(self.reserved);
            if need > grown {
                return false;
            }
            // SAFETY: [region-stable] the bytes lie inside the reserved range and nobody uses them yet.
            let granted = unsafe { system::make_usable(self.base.cast(), usable, grown) };
            if granted {
                self.usable.store(grown, Ordering::Relaxed);
            }
            granted
        }

        pub(super) fn place(&self) -> Place<T> {
            Place(self.base)
        }

        pub(super) fn bytes(&self) -> usize {
            self.usable.load(Ordering::Relaxed)
        }

        #[inline(always)]
        pub(super) fn address(&self, index: usize) -> *const T {
            self.base.as_ptr().wrapping_add(index)
        }
    }

    impl<T> Place<T> {
        #[inline(always)]
        pub(super) fn address(&self, index: usize) -> *const T {
            self.0.as_ptr().wrapping_add(index)
        }

        #[inline(always)]
        pub(super) fn address_of<const STRIDE: usize>(&self, bytes: usize) -> *const T {
            const { assert!(STRIDE == size_of::<T>()) };
            self.0.as_ptr().wrapping_byte_add(bytes)
        }
    }

    impl<T> Drop for Memory<T> {
        fn drop(&mut self) {
            // SAFETY: [region-stable] `reserve` made the range, `&mut self` proves that nobody looks at it any more.
            unsafe { system::release(self.base.cast(), self.reserved) };
        }
    }

    #[cfg(all(unix, target_pointer_width = "64"))]
    mod system {
        use super::{HUGE, NonNull};

        /// 2^42 bytes: what a table of as many nodes as ids reach needs at most, with room.
        pub(super) const LARGEST: usize = 1 << 42;

        /// A range and the alignment's slack before it are one mapping; the slack's length is found again from the base.
        pub(super) fn reserve(bytes: usize) -> Option<NonNull<u8>> {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
            // SAFETY: [region-stable] a fresh private mapping; nothing is there to be disturbed.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes + HUGE, libc::PROT_NONE, flags, -1, 0) };
            if start == libc::MAP_FAILED {
                return None;
            }
            let base = start.cast::<u8>().map_addr(|address| address.next_multiple_of(HUGE));
            let before = base.addr() - start.addr();
            // SAFETY: [region-stable] the parts before and behind the aligned range are ours and unused.
            unsafe {
                if before > 0 {
                    libc::munmap(start, before);
                }
                libc::munmap(base.add(bytes).cast(), HUGE - before);
            }
            NonNull::new(base)
        }

        /// # Safety
        /// The bytes `from..to` behind `base` belong to a range of `reserve`'s and are not in use.
        pub(super) unsafe fn make_usable(base: NonNull<u8>, from: usize, to: usize) -> bool {
            // SAFETY: [region-stable] the caller's promise.
            let start = unsafe { base.as_ptr().add(from) };
            // SAFETY: [region-stable] inside our own mapping.
            if unsafe { libc::mprotect(start.cast(), to - from, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
                return false;
            }
            #[cfg(any(target_os = "linux", target_os = "android"))]
            if to > HUGE {
                let huge = from.max(HUGE);
                // SAFETY: [region-stable] inside our own mapping. Advice only: a refusal changes nothing.
                unsafe { libc::madvise(base.as_ptr().add(huge).cast(), to - huge, libc::MADV_HUGEPAGE) };
            }
            true
        }

        /// # Safety
        /// The range came from `reserve` with as many bytes, and nobody uses it any more.
        pub(super) unsafe fn release(base: NonNull<u8>, bytes: usize) {
            // SAFETY: [region-stable] the caller's promise.
            unsafe { libc::munmap(base.as_ptr().cast(), bytes) };
        }
    }

    /// Where addresses cannot be reserved without memory, a range is one zeroed allocation: systems give its pages when they
    /// are touched, but an engine's id limit is lower.
    #[cfg(not(all(unix, target_pointer_width = "64")))]
    mod system {
        use super::NonNull;
        use std::alloc::{Layout, alloc_zeroed, dealloc};

        pub(super) const LARGEST: usize = 64 << 20;

        fn layout(bytes: usize) -> Option<Layout> {
            Layout::from_size_align(bytes, 4096).ok()
        }

        pub(super) fn reserve(bytes: usize) -> Option<NonNull<u8>> {
            // SAFETY: [region-stable] a layout of at least one step is not empty.
            layout(bytes).and_then(|layout| NonNull::new(unsafe { alloc_zeroed(layout) }))
        }

        pub(super) unsafe fn make_usable(_: NonNull<u8>, _: usize, _: usize) -> bool {
            true
        }

        pub(super) unsafe fn release(base: NonNull<u8>, bytes: usize) {
            if let Some(layout) = layout(bytes) {
                // SAFETY: [region-stable] the layout it was allocated with.
                unsafe { dealloc(base.as_ptr(), layout) };
            }
        }
    }
}

#[cfg(any(loom, shuttle))]
mod backing {
    //! A checker's atomics cannot be made from zeroes: a small array made whole, behind the same interface.
    use super::{PhantomData, Zeroed};
    use std::sync::Arc;

    const MOST: usize = if cfg!(loom) { 32 } else { 2048 };

    pub(super) struct Memory<T> {
        items: Arc<[T]>,
        zero: PhantomData<T>,
    }

    pub(super) struct Place<T>(Arc<[T]>);

    impl<T> Clone for Place<T> {
        fn clone(&self) -> Place<T> {
            Place(self.0.clone())
        }
    }

    impl<T: Zeroed> Memory<T> {
        pub(super) fn reserve(capacity: usize) -> Option<Memory<T>> {
            Some(Memory { items: (0..capacity.min(MOST)).map(|_| T::default()).collect(), zero: PhantomData })
        }
        pub(super) fn grow(&self, items: usize) -> bool {
            items <= self.items.len()
        }
        pub(super) fn place(&self) -> Place<T> {
            Place(self.items.clone())
        }
        pub(super) fn bytes(&self) -> usize {
            self.items.len() * size_of::<T>()
        }
        pub(super) fn address(&self, index: usize) -> *const T {
            &raw const self.items[index]
        }
    }

    impl<T> Place<T> {
        pub(super) fn address(&self, index: usize) -> *const T {
            &raw const self.0[index]
        }
        pub(super) fn address_of<const STRIDE: usize>(&self, bytes: usize) -> *const T {
            self.address(bytes / STRIDE)
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_region_grows_from_the_front_and_its_items_stay_where_they_are() {
        let region = Region::<AtomicU64>::new(1 << 20).expect("addresses");
        let mut first: *const AtomicU64 = std::ptr::null();
        for items in [1, 1_000, 262_144, 262_145, 1 << 20] {
            assert!(region.grow(items));
            // SAFETY: [region-stable] grown just now.
            let last = unsafe { region.at(items - 1) };
            assert_eq!(last.fetch_add(1, Relaxed), 0, "zero until written");
            // SAFETY: [region-stable] as above.
            let start = std::ptr::from_ref(unsafe { region.at(0) });
            assert!(first.is_null() || first == start);
            first = start;
        }
        assert!(!region.grow((1 << 20) + 1), "the range ends");
        assert!(region.bytes() >= 8 << 20);
    }
}
