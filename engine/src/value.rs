//! Values: inline in the value word, or behind a pointer that a pin keeps alive.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Deref;

/// What a function may return: cloned out to its readers, shared between threads.
pub trait Value: Clone + Send + Sync + 'static {}

impl<V: Clone + Send + Sync + 'static> Value for V {}

/// A value that lives in the node itself: at most 8 bytes, `Copy`, every byte initialised.
///
/// Integers, floats, `bool` and `char` are inline without asking; `#[derive(Inline)]` makes a newtype over one of them so.
///
/// # Safety
/// The type has no padding and no more than 8 bytes, and its alignment is at most 8.
pub unsafe trait Inline: Copy + Send + Sync + 'static {}

macro_rules! inline_types {
    ($($t:ty),+) => {
        // SAFETY: [inline-value] primitives have no padding and at most 8 bytes.
        $(unsafe impl Inline for $t {})+
        #[inline(always)]
        pub(crate) fn is_primitive<V: 'static>() -> bool {
            let id = TypeId::of::<V>();
            $(id == TypeId::of::<$t>())||+
        }
    };
}
inline_types!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64, bool, char, ());

/// The word of an inline value.
#[inline(always)]
pub(crate) fn to_word<V>(value: &V) -> u64 {
    let mut bytes = [0u8; 8];
    let size = size_of::<V>().min(8);
    // SAFETY: [inline-value] called for inline types only: all bytes initialised, no more than 8.
    unsafe { std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast::<u8>(), bytes.as_mut_ptr(), size) };
    u64::from_ne_bytes(bytes)
}

/// A borrowed value: of the node's own memory under a pin, or a copy of an inline one.
///
/// It lives as long as the pin. Dereferences to the value. A borrow into an inline cell would be undefined behaviour
/// (others store to it), so inline values are copied: 8 bytes, no reference count either way.
pub struct Read<'p, V> {
    word: u64,
    inline: bool,
    pin: PhantomData<&'p V>,
}

impl<'p, V> Read<'p, V> {
    /// # Safety
    /// `word` is the value word of a `V`, inline or pointer as said; a pointer stays valid for `'p`.
    #[inline(always)]
    pub(crate) unsafe fn new(word: u64, inline: bool) -> Read<'p, V> {
        Read { word, inline, pin: PhantomData }
    }
}

impl<V> Deref for Read<'_, V> {
    type Target = V;

    #[inline(always)]
    fn deref(&self) -> &V {
        if self.inline {
            // SAFETY: [inline-value] the word holds the bytes of a `V` (the contract of `new`), low bytes first as written
            // by `to_word`, and `u64` is aligned at least as `V`.
            unsafe { &*std::ptr::from_ref(&self.word).cast::<V>() }
        } else {
            // SAFETY: [pinned-value] the pin behind `'p` keeps the box alive; nobody writes to a published value.
            unsafe { &*pointer(self.word) }
        }
    }
}

impl<V: std::fmt::Debug> std::fmt::Debug for Read<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        V::fmt(self, f)
    }
}

/// The pointer in a word. Values and keys behind words are boxes whose provenance was exposed when they were stored.
#[inline(always)]
pub(crate) fn pointer<T>(word: u64) -> *mut T {
    std::ptr::with_exposed_provenance_mut(word as usize)
}

/// Boxes a value and exposes it as a word.
pub(crate) fn expose<T>(value: T) -> u64 {
    Box::into_raw(Box::new(value)).expose_provenance() as u64
}
