//! Non-moving pages of nodes and the directory that finds them.
//!
//! A page is a struct of arrays: 1,024 hot rows, then their warm rows, then the owner of each chunk of 64 slots.
//! Pages are never moved and never freed before the engine is, which is what lets a read follow a slot number without a pin.

use std::ptr::{self, NonNull};

use crate::node::{Row, Warm};
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::sync::{Mutex, lock};

#[cfg(not(any(loom, shuttle)))]
pub(crate) const PAGE: usize = 1024;
#[cfg(any(loom, shuttle))]
pub(crate) const PAGE: usize = 8;
/// Slots are given to functions by the chunk, so one owner per chunk tells a slot's function.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const CHUNK: usize = 64;
#[cfg(any(loom, shuttle))]
pub(crate) const CHUNK: usize = 4;

#[repr(C)]
struct Page {
    rows: [Row; PAGE],
    warm: [Warm; PAGE],
    owners: [AtomicU32; PAGE / CHUNK],
}

/// The directory of all pages. Grown by copying; grown-out copies are kept until the engine is dropped,
/// because a read may hold one without a pin (they sum to less than the current one).
pub(crate) struct Pages {
    directory: AtomicPtr<AtomicPtr<Page>>,
    growth: Mutex<Growth>,
}

struct Growth {
    /// Every directory ever used, the current one last.
    directories: Vec<Box<[AtomicPtr<Page>]>>,
    /// Owns the pages.
    pages: Vec<NonNull<Page>>,
    chunks: usize,
    max_chunks: usize,
}

// SAFETY: [page-stable] the raw page pointers are owned by `Pages`, point to atomics only, and are freed in `drop` alone.
unsafe impl Send for Pages {}
// SAFETY: [page-stable] as above; all shared access goes through atomics.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn new(max_nodes: u32) -> Pages {
        let first = empty_directory(4);
        let directory = AtomicPtr::new(first.as_ptr().cast_mut());
        let growth = Growth { directories: vec![first], pages: Vec::new(), chunks: 0, max_chunks: (max_nodes as usize).div_ceil(CHUNK) };
        let pages = Pages { directory, growth: Mutex::new(growth) };
        // Slot numbers start after chunk 0 so that no live slot is 0 and an edge word is never 0.
        let reserved = pages.chunk(u32::MAX);
        debug_assert_eq!(reserved, Some(0));
        lock(&pages.growth).max_chunks += 1;
        pages
    }

    /// The first slot of a fresh chunk for `owner`, or `None` at the engine's id limit.
    pub(crate) fn chunk(&self, owner: u32) -> Option<u32> {
        let mut growth = lock(&self.growth);
        if growth.chunks >= growth.max_chunks.max(1) || growth.chunks >= (u32::MAX as usize) / CHUNK {
            return None;
        }
        let first = growth.chunks * CHUNK;
        let page = first / PAGE;
        if page == growth.pages.len() {
            let fresh = NonNull::from(Box::leak(new_page()));
            growth.pages.push(fresh);
            if page == growth.directories.last().map_or(0, |d| d.len()) {
                let wider = empty_directory(page * 2);
                for (entry, old) in wider.iter().zip(&growth.pages) {
                    // Relaxed: published as a whole by the Release store of the directory below.
                    entry.store(old.as_ptr(), Ordering::Relaxed);
                }
                // Release: a reader that sees the new directory sees its entries.
                self.directory.store(wider.as_ptr().cast_mut(), Ordering::Release);
                growth.directories.push(wider);
            }
            if let Some(directory) = growth.directories.last() {
                // Release: a reader that sees the page sees its zeroed rows.
                directory[page].store(fresh.as_ptr(), Ordering::Release);
            }
        }
        growth.chunks += 1;
        // Relaxed: the slot reaches other threads only through a Release store (table, edge or handle).
        self.page(first as u32).owners[(first % PAGE) / CHUNK].store(owner, Ordering::Relaxed);
        Some(first as u32)
    }

    #[inline(always)]
    fn page(&self, slot: u32) -> &Page {
        // Acquire: pairs with the Release stores in `chunk`. (On x86 both loads are plain.)
        let directory = self.directory.load(Ordering::Acquire);
        // SAFETY: [page-stable] a slot number exists only after its page was stored in every later directory, directories
        // and pages live as long as `self`, and whoever passes the slot on does so after a Release store.
        unsafe {
            let page = (*directory.add(slot as usize / PAGE)).load(Ordering::Acquire);
            &*page
        }
    }

    #[inline(always)]
    pub(crate) fn row(&self, slot: u32) -> &Row {
        let page = self.page(slot);
        // SAFETY: [page-stable] the index is below PAGE by the modulo; the check is spelled out because this is the hit path.
        unsafe { page.rows.get_unchecked(slot as usize % PAGE) }
    }

    #[inline(always)]
    pub(crate) fn warm(&self, slot: u32) -> &Warm {
        &self.page(slot).warm[slot as usize % PAGE]
    }

    /// Whether the slot belongs to a chunk that was ever handed out.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        let chunk = slot as usize / CHUNK;
        chunk > 0 && chunk < lock(&self.growth).chunks
    }

    /// The function that owns the slot's chunk.
    pub(crate) fn owner(&self, slot: u32) -> u32 {
        // Relaxed: see `chunk`; never changes once set.
        self.page(slot).owners[(slot as usize % PAGE) / CHUNK].load(Ordering::Relaxed)
    }

    /// Chunks handed out so far, as (first slot, owner).
    pub(crate) fn chunks(&self) -> Vec<(u32, u32)> {
        let count = lock(&self.growth).chunks;
        (1..count).map(|chunk| ((chunk * CHUNK) as u32, self.owner((chunk * CHUNK) as u32))).collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        let growth = lock(&self.growth);
        growth.pages.len() * size_of::<Page>() + growth.directories.iter().map(|d| size_of_val(&d[..])).sum::<usize>()
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self, slot: u32) {
        prefetch(ptr::from_ref(self.row(slot)));
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for page in lock(&self.growth).pages.drain(..) {
            // SAFETY: [page-stable] each page came from one `Box::leak`, and `&mut self` proves no reader is left.
            drop(unsafe { Box::from_raw(page.as_ptr()) });
        }
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("chunks", &lock(&self.growth).chunks).finish_non_exhaustive()
    }
}

fn empty_directory(len: usize) -> Box<[AtomicPtr<Page>]> {
    (0..len).map(|_| AtomicPtr::new(ptr::null_mut())).collect()
}

#[cfg(not(any(loom, shuttle)))]
fn new_page() -> Box<Page> {
    // SAFETY: [page-stable] a page is atomics only, for which all zero bytes are a valid value; zeroed by the allocator so that
    // the pages of a large engine are not touched before they are used.
    unsafe { Box::<Page>::new_zeroed().assume_init() }
}

#[cfg(any(loom, shuttle))]
fn new_page() -> Box<Page> {
    Box::new(Page {
        rows: std::array::from_fn(|_| Row::default()),
        warm: std::array::from_fn(|_| Warm::default()),
        owners: std::array::from_fn(|_| AtomicU32::new(0)),
    })
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
