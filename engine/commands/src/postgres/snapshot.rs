//! A snapshot in the words of `pg_current_snapshot()`: which transactions could be seen at one moment.

use std::fmt;
use std::str::FromStr;

/// `xmin:xmax:xip,…`: everything below `xmin` had ended, nothing from `xmax` on had begun, and of those between, these were running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) xmin: u64,
    pub(super) xmax: u64,
    /// In ascending order.
    pub(super) running: Vec<u64>,
}

impl Snapshot {
    /// What it shows below an id, above which it shows no operation; nothing is said of what is above.
    ///
    /// A crash takes back ids that were given out: of transactions that had ended without a commit, and of which nothing had reached
    /// the disk. They are given out again, to others, which a reader must not believe to have seen. Ids of commits that were seen are
    /// never taken back, nor any below them.
    pub(super) fn known_to(mut self, first_unknown: u64) -> Snapshot {
        self.xmax = self.xmax.min(first_unknown);
        self.xmin = self.xmin.min(self.xmax);
        self.running.retain(|id| *id < first_unknown);
        self
    }

    /// The same to whoever is not concerned by some of the transactions: as if they had ended.
    pub(super) fn without(mut self, ids: &[u64]) -> Snapshot {
        let before = self.running.len();
        self.running.retain(|id| !ids.contains(id));
        if self.running.len() < before {
            self.xmin = self.running.first().copied().unwrap_or(self.xmax);
        }
        self
    }
}

/// Not a snapshot.
#[derive(Debug)]
pub(super) struct NoSnapshot;

impl FromStr for Snapshot {
    type Err = NoSnapshot;

    fn from_str(text: &str) -> Result<Snapshot, NoSnapshot> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoSnapshot);
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(NoSnapshot);
        let (xmin, xmax, running) = (number(part()?)?, number(part()?)?, part()?);
        let running = running.split(',').filter(|id| !id.is_empty()).map(number).collect::<Result<Vec<_>, _>>()?;
        let ordered = running.is_sorted() && running.iter().all(|id| (xmin..xmax).contains(id));
        if xmin > xmax || !ordered {
            return Err(NoSnapshot);
        }
        Ok(Snapshot { xmin, xmax, running })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (n, id) in self.running.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            write!(f, "{id}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_comes_back_from_its_text() {
        for text in ["10:20:10,14,15", "20:20:", "3:18446744073709551615:3"] {
            assert_eq!(text.parse::<Snapshot>().expect("a snapshot").to_string(), text);
        }
    }

    #[test]
    fn nothing_is_known_above_the_last_operation() {
        let snapshot: Snapshot = "10:20:10,14,15".parse().expect("a snapshot");
        for (first_unknown, known) in [(30, "10:20:10,14,15"), (15, "10:15:10,14"), (10, "10:10:"), (7, "7:7:")] {
            assert_eq!(snapshot.clone().known_to(first_unknown).to_string(), known);
        }
    }

    #[test]
    fn a_snapshot_without_its_oldest_transaction_has_ended_all_below_the_next() {
        let snapshot: Snapshot = "10:20:10,14,15".parse().expect("a snapshot");
        let cases: [(&[u64], &str); 5] = [
            (&[], "10:20:10,14,15"),
            (&[9, 16], "10:20:10,14,15"),
            (&[10], "14:20:14,15"),
            (&[14], "10:20:10,15"),
            (&[15, 14, 10], "20:20:"),
        ];
        for (ids, rest) in cases {
            assert_eq!(snapshot.clone().without(ids).to_string(), rest);
            assert!(rest.parse::<Snapshot>().is_ok());
        }
    }

    #[test]
    fn a_text_that_the_database_would_refuse_is_no_snapshot() {
        for text in ["", "1:2", "2:1:", "1:9:5,4", "1:9:9", "x:y:", "1:9:-3", "5:9:4"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }
}
