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
    fn a_text_that_the_database_would_refuse_is_no_snapshot() {
        for text in ["", "1:2", "2:1:", "1:9:5,4", "1:9:9", "x:y:", "1:9:-3", "5:9:4"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }
}
