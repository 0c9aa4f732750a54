//! When a recomputed value counts as the one it replaces, so that nothing downstream runs.

use std::hash::Hash;

/// How a recomputed value is compared with the one it replaces.
pub(crate) enum CutOff<V> {
    Never,
    Eq(fn(&V, &V) -> bool),
    Hash(Box<Comparison<V>>),
    By(Box<Comparison<V>>),
}

pub(crate) type Comparison<V> = dyn Fn(&V, &V) -> bool + Send + Sync;

impl<V> CutOff<V> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            CutOff::Never => "never",
            CutOff::Eq(_) => "eq",
            CutOff::Hash(_) => "hash",
            CutOff::By(_) => "custom",
        }
    }

    pub(crate) fn same(&self, old: &V, new: &V) -> bool {
        match self {
            CutOff::Never => false,
            CutOff::Eq(eq) => eq(old, new),
            CutOff::Hash(by) | CutOff::By(by) => by(old, new),
        }
    }

    pub(crate) fn compares(&self) -> bool {
        !matches!(self, CutOff::Never)
    }

    /// Compares what `part` shows of both values by 128 bits of hash; a value of which it shows nothing is like no other.
    pub(crate) fn hash_of<P: ?Sized + Hash>(part: impl Fn(&V) -> Option<&P> + Send + Sync + 'static) -> CutOff<V> {
        let digest = Digest::new();
        CutOff::Hash(Box::new(move |old, new| match (part(old), part(new)) {
            (Some(old), Some(new)) => digest.of(old) == digest.of(new),
            _ => false,
        }))
    }
}

/// Two 64-bit hashes under seeds of their own, so that values which collide under one do not under the other.
struct Digest([ahash::RandomState; 2]);

impl Digest {
    fn new() -> Digest {
        Digest([ahash::RandomState::new(), ahash::RandomState::new()])
    }

    fn of<P: ?Sized + Hash>(&self, value: &P) -> [u64; 2] {
        [self.0[0].hash_one(value), self.0[1].hash_one(value)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_a_function_of_the_value_and_of_both_seeds() {
        let digest = Digest::new();
        assert_eq!(digest.of("a"), digest.of(&String::from("a")));
        assert_ne!(digest.of("a"), digest.of("b"));
        let [first, second] = digest.of("a");
        assert_ne!(first, second, "two states, two hashes");
    }

    #[test]
    fn values_of_which_nothing_is_shown_are_like_no_other() {
        let rule = CutOff::<Result<u8, u8>>::hash_of(|value| value.as_ref().ok());
        assert!(rule.same(&Ok(1), &Ok(1)) && !rule.same(&Ok(1), &Ok(2)));
        assert!(!rule.same(&Err(1), &Err(1)) && !rule.same(&Ok(1), &Err(1)));
    }
}
