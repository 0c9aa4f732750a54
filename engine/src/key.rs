//! Keys by value: how a question finds its node, and how `&str` finds a `String` key without allocating.

use std::any::TypeId;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// What can be a function's argument: anything that compares, hashes and clones by value. Several arguments are a tuple.
///
/// `Hash` and `Eq` must agree with each other and not change while the key is cached.
pub trait Key: Hash + Eq + Clone + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Key for K {}

/// A borrowed form of a key of type `K`: the key itself, `str` for `String`, `[T]` for `Vec<T>`, [`Parts`] for tuples.
///
/// Its `Hash` must equal that of the key it stands for.
pub trait Lookup<K>: Hash {
    /// Whether this is the key.
    fn matches(&self, key: &K) -> bool;
    /// The owned key: called once, when the node is first made.
    fn to_key(&self) -> K;
    #[doc(hidden)]
    fn word(&self) -> u64
    where
        K: 'static,
    {
        word_of(&self.to_key())
    }
}

impl<K, Q> Lookup<K> for Q
where
    K: Key + Borrow<Q>,
    Q: ?Sized + Hash + Eq + ToOwned<Owned = K> + 'static,
{
    #[inline(always)]
    fn matches(&self, key: &K) -> bool {
        self == key.borrow()
    }

    fn to_key(&self) -> K {
        self.to_owned()
    }

    #[inline(always)]
    fn word(&self) -> u64 {
        if TypeId::of::<Q>() == TypeId::of::<K>() {
            // SAFETY: [word-key] `Q` and `K` are the same type, so `self` is a reference to a `K`.
            word_of(unsafe { &*std::ptr::from_ref(self).cast::<K>() })
        } else {
            word_of(&self.to_key())
        }
    }
}

/// A tuple key by its parts: `&Parts(("eu", &7_u32))` finds the key `(String, u32)` without allocating.
///
/// ```
/// # use wellspring::{Engine, Parts};
/// let engine = Engine::new();
/// let price = engine.function("price", |_, (region, id): &(String, u32)| region.len() as u32 + id)?;
/// assert_eq!(price.get(&engine, &Parts(("eu", &7)))?, 9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Parts<T>(pub T);

macro_rules! parts {
    ($($key:ident $part:ident $at:tt),+) => {
        impl<$($part: Hash + ?Sized),+> Hash for Parts<($(&$part,)+)> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                $(self.0.$at.hash(state);)+
            }
        }
        impl<$($key: Key, $part: ?Sized + Lookup<$key>),+> Lookup<($($key,)+)> for Parts<($(&$part,)+)> {
            fn matches(&self, key: &($($key,)+)) -> bool {
                $(self.0.$at.matches(&key.$at))&&+
            }
            fn to_key(&self) -> ($($key,)+) {
                ($(self.0.$at.to_key(),)+)
            }
        }
    };
}
parts!(A QA 0);
parts!(A QA 0, B QB 1);
parts!(A QA 0, B QB 1, C QC 2);
parts!(A QA 0, B QB 1, C QC 2, D QD 3);
parts!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4);
parts!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4, F QF 5);
parts!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4, F QF 5, G QG 6);
parts!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4, F QF 5, G QG 6, H QH 7);

macro_rules! word_types {
    ($($t:ty),+) => {
        /// Whether keys of the type live in the key word itself. A constant after monomorphisation.
        #[inline(always)]
        pub(crate) fn is_word<K: 'static>() -> bool {
            let id = TypeId::of::<K>();
            $(id == TypeId::of::<$t>())||+
        }
    };
}
word_types!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, bool, char, ());

/// The bits of a word key, zero-extended; 0 for any other key.
#[inline(always)]
fn word_of<K: 'static>(key: &K) -> u64 {
    if !is_word::<K>() {
        return 0;
    }
    let mut bytes = [0u8; 8];
    // SAFETY: [word-key] `is_word` admits primitive types without padding of at most 8 bytes.
    unsafe { std::ptr::copy_nonoverlapping(std::ptr::from_ref(key).cast::<u8>(), bytes.as_mut_ptr(), size_of::<K>()) };
    u64::from_ne_bytes(bytes)
}

/// The key back from its word.
///
/// # Safety
/// `K` is a word type and `word` came from a `K`.
pub(crate) unsafe fn key_from_word<K: 'static>(word: u64) -> K {
    let bytes = word.to_ne_bytes();
    // SAFETY: [word-key] the caller's promise: the first `size_of::<K>()` bytes are those of a valid `K`.
    unsafe { bytes.as_ptr().cast::<K>().read_unaligned() }
}

/// A key that does not fit the key word, with its hash so that growth never calls user code.
pub(crate) struct BoxedKey<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
}

/// ahash with the engine's random keys. Word keys take one folded multiply under the same random state: what ahash itself
/// does where its integer specialisation is available (nightly), half the work of its generic path.
#[derive(Clone, Debug)]
pub(crate) struct Hashing {
    state: ahash::RandomState,
    words: WordHash,
}

/// The hash of word keys: small enough to be kept in registers over a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordHash {
    seed: u64,
    factor: u64,
}

impl WordHash {
    #[inline(always)]
    pub(crate) fn of(self, word: u64) -> u64 {
        let wide = u128::from(word ^ self.seed) * u128::from(self.factor);
        (wide as u64) ^ (wide >> 64) as u64
    }
}

impl Hashing {
    pub(crate) fn new() -> Hashing {
        // A checker replays schedules: its hashes must not differ from run to run.
        let state = if cfg!(any(loom, shuttle)) { ahash::RandomState::with_seeds(1, 2, 3, 4) } else { ahash::RandomState::new() };
        // The factor is odd, so that multiplication loses nothing.
        let (seed, factor) = (state.hash_one(0x5eed_u64), state.hash_one(0xfac7_u64) | 1);
        Hashing { state, words: WordHash { seed, factor } }
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> WordHash {
        self.words
    }

    #[inline(always)]
    pub(crate) fn of<K: 'static, Q: ?Sized + Lookup<K>>(&self, key: &Q) -> u64 {
        if is_word::<K>() { self.words.of(key.word()) } else { self.state.hash_one(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrowed_forms_hash_and_match_as_their_keys_do() {
        let hashing = Hashing::new();
        let key = (String::from("eu"), 7_u32, vec![1_u8, 2]);
        let parts = Parts(("eu", &7_u32, &[1_u8, 2][..]));
        assert_eq!(hashing.of::<(String, u32, Vec<u8>), _>(&key), hashing.of::<(String, u32, Vec<u8>), _>(&parts));
        assert!(Lookup::<(String, u32, Vec<u8>)>::matches(&parts, &key));
        assert_eq!(Lookup::<(String, u32, Vec<u8>)>::to_key(&parts), key);
        assert!(!Lookup::<(String, u32, Vec<u8>)>::matches(&Parts(("us", &7_u32, &[1_u8, 2][..])), &key));
    }

    #[test]
    fn word_keys_survive_the_trip_through_their_word() {
        // SAFETY: [word-key] each word comes from a key of the type it is read back as.
        unsafe {
            assert_eq!(key_from_word::<i32>(word_of(&-5_i32)), -5);
            assert_eq!(key_from_word::<char>(word_of(&'ß')), 'ß');
            assert_eq!(key_from_word::<u64>(word_of(&u64::MAX)), u64::MAX);
        }
    }
}
