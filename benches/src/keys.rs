//! Which keys a reader asks for, decided before the clock starts.

/// How the keys of a walk are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Every key is equally likely.
    Uniform,
    /// Zipf with exponent 0.99, the popular ranks scattered over the key space.
    Zipf,
    /// The same key every time.
    One,
}

/// A small deterministic generator (SplitMix64): the same seed gives the same walk on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        ((u128::from(self.roll()) * u128::from(limit)) >> 64) as u32
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `0..len` in random order.
    pub fn shuffled(&mut self, len: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last as u32 + 1) as usize);
        }
        order
    }
}

/// The indices one reader walks over and over: long enough that no branch predictor learns it, a multiple of the
/// reads between two pins.
pub fn indices(spread: Spread, keys: u32, seed: u64) -> Vec<u32> {
    let len = if keys > 10_000 { 1_000_000 } else { 64_000 };
    let mut dice = Dice::new(seed);
    match spread {
        Spread::Uniform => (0..len).map(|_| dice.below(keys)).collect(),
        Spread::One => vec![keys / 2; len],
        Spread::Zipf => zipf(keys, len, seed),
    }
}

/// So many draws from zipf with exponent 0.99 over `0..keys`, the popular ranks scattered over the key space.
pub fn zipf(keys: u32, len: usize, seed: u64) -> Vec<u32> {
    let mut dice = Dice::new(seed);
    let zipf = Zipf::new(keys, 0.99);
    (0..len).map(|_| scatter(zipf.rank(dice.unit()), keys)).collect()
}

/// Moves neighbouring ranks apart, so that the hot keys do not share cache lines more than chance would have it.
fn scatter(rank: u32, keys: u32) -> u32 {
    // A prime larger than any key count used here is coprime to it, so this is a permutation.
    (u64::from(rank) * 2_147_483_647 % u64::from(keys)) as u32
}

/// The inverse-transform approximation of a zipf distribution: exact for the two most popular ranks, continuous beyond.
struct Zipf {
    keys: f64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(keys: u32, theta: f64) -> Self {
        let zeta_of = |n: u32| (1..=n).map(|rank| f64::from(rank).powf(-theta)).sum::<f64>();
        let zeta = zeta_of(keys);
        let keys = f64::from(keys);
        Self { keys, theta, zeta, alpha: 1.0 / (1.0 - theta), eta: (1.0 - (2.0 / keys).powf(1.0 - theta)) / (1.0 - zeta_of(2) / zeta) }
    }

    fn rank(&self, unit: f64) -> u32 {
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(self.theta) {
            1
        } else {
            let rank = self.keys * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
            (rank as u32).min(self.keys as u32 - 1)
        }
    }
}

/// Walks an index list in slices of one pin's worth, for ever.
#[derive(Debug)]
pub struct Walk<'a, T> {
    list: &'a [T],
    at: usize,
}

impl<'a, T> Walk<'a, T> {
    /// Starts at the front of `list`, whose length is a multiple of [`crate::PIN_READS`].
    pub fn new(list: &'a [T]) -> Self {
        assert!(!list.is_empty() && list.len().is_multiple_of(crate::PIN_READS), "a walk is whole slices");
        Self { list, at: 0 }
    }

    /// The next [`crate::PIN_READS`] entries.
    #[inline]
    pub fn slice(&mut self) -> &'a [T] {
        let slice = &self.list[self.at..self.at + crate::PIN_READS];
        self.at += crate::PIN_READS;
        if self.at == self.list.len() {
            self.at = 0;
        }
        slice
    }
}

/// The value every side stores under `key`.
#[inline]
pub fn value_of(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7
}

/// `count` different keys of 16 to 24 bytes, the shape of a cache key in a web service.
pub fn names(count: u32) -> Vec<String> {
    (0..count).map(|index| format!("user:{index:011}{}", &"/profile"[..index as usize % 9])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_prefers_few_keys_and_stays_in_range() {
        let walk = indices(Spread::Zipf, 1_000_000, 1);
        assert!(walk.iter().all(|&key| key < 1_000_000));
        let mut counts = std::collections::HashMap::new();
        for key in &walk {
            *counts.entry(*key).or_insert(0u32) += 1;
        }
        let hottest = counts.values().copied().max().unwrap_or(0);
        // The first rank of zipf 0.99 over a million keys draws 6.5% of the reads.
        assert!((50_000..85_000).contains(&hottest), "{hottest}");
        assert_eq!(counts[&0], hottest);
    }

    #[test]
    fn names_are_distinct_and_of_the_promised_length() {
        let names = names(1_000);
        assert!(names.iter().all(|name| (16..=24).contains(&name.len())));
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), 1_000);
    }

    #[test]
    fn a_shuffle_keeps_every_index_once() {
        let mut order = Dice::new(7).shuffled(1_000);
        assert_ne!(order[..10], (0..10).collect::<Vec<_>>()[..]);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1_000));
    }
}
