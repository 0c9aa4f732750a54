//! A histogram of durations, in constant memory.

use std::time::Duration;

/// Buckets per doubling: a quantile is at most 1/32 too high.
const FINE: usize = 32;

/// Counts durations by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; bucket(u64::MAX) + 1], count: 0, longest: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Adds what another histogram counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += more;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that the share `part` (0 to 1) of all stayed within; none when nothing was counted.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let found = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(upper_end(found).min(self.longest)))
    }
}

/// Below [`FINE`] each nanosecond has a bucket; above, each doubling has [`FINE`] of them.
fn bucket(nanos: u64) -> usize {
    let doublings = (u64::BITS - nanos.leading_zeros()).saturating_sub(FINE.ilog2() + 1);
    FINE * doublings as usize + (nanos >> doublings) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let doublings = (bucket / FINE).saturating_sub(1);
    let within = (bucket - FINE * doublings) as u64;
    within.saturating_add(1).checked_shl(doublings as u32).map_or(u64::MAX, |next| next.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nanos: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for nanos in nanos {
            histogram.record(Duration::from_nanos(nanos));
        }
        histogram
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn quantiles_are_at_most_a_32nd_too_high() {
        let histogram = of(1..=100_000);
        for (part, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let found = histogram.quantile(part).expect("a quantile").as_nanos() as f64;
            assert!(found >= exact && found <= exact * (1.0 + 1.0 / FINE as f64), "{part}: {found}");
        }
    }

    #[test]
    fn every_duration_lies_within_its_bucket() {
        for nanos in (0..2_000).chain((0..64).map(|bit| 1 << bit)).chain([u64::MAX - 1, u64::MAX]) {
            let bucket = bucket(nanos);
            assert!(upper_end(bucket) >= nanos, "{nanos}");
            assert!(bucket == 0 || upper_end(bucket - 1) < nanos, "{nanos}");
        }
    }

    #[test]
    fn merging_counts_both() {
        let mut one = of([1, 2]);
        one.merge(&of([1_000]));
        assert_eq!(one.count(), 3);
        assert_eq!(one.quantile(1.0), Some(Duration::from_nanos(1_000)));
        assert_eq!(one.quantile(0.5), Some(Duration::from_nanos(2)));
    }
}
