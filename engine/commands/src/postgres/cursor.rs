//! How far a reader has read, as a text.

use std::fmt;
use std::str::FromStr;

use super::failure::corrupt;
use super::snapshot::{NoSnapshot, Snapshot};
use crate::id::LogId;
use crate::position::{Cursor, Place};
use crate::store_error::StoreError;

/// A cursor: of which log, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bookmark {
    pub(super) origin: Origin,
    pub(super) reached: Reached,
}

/// Within what a cursor means anything: transaction ids go back and are used again where a database is restored or a standby takes
/// over, and operations do where a dump is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) log: LogId,
    /// The write-ahead log's timeline, which a restored backup and a standby that takes over begin anew. A crash does not.
    pub(super) timeline: String,
    /// The content of an unlogged table, which a crash empties: it may have taken back commits that were seen and not flushed.
    pub(super) boot: String,
    /// Which table `meta` is, in the cluster's own numbers: a dump that is restored makes it anew, also where ids of transactions go on.
    pub(super) tables: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Everything this snapshot shows, which ends at the last operation: see [`Snapshot::known_to`].
    All(Snapshot),
    /// Everything `seen` shows, and what `target` shows in addition up to a place (exclusive).
    Within { seen: Snapshot, target: Snapshot, next: Place },
    /// In the settled order: what is below the place, except what `base` shows, at which the reader began.
    Settled { base: Snapshot, next: Place },
}

impl Bookmark {
    pub(super) fn new(origin: Origin, reached: Reached) -> Bookmark {
        Bookmark { origin, reached }
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor::new(self.to_string())
    }

    /// # Errors
    /// [`Corrupt`](crate::StoreErrorKind::Corrupt) if it is not a cursor of this kind of log.
    pub(super) fn of(cursor: &Cursor) -> Result<Bookmark, StoreError> {
        let text = cursor.as_str();
        text.parse()
            .map_err(|NoSnapshot| corrupt(format!("`{}` as a cursor of a PostgreSQL log", text.chars().take(80).collect::<String>())))
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { log, timeline, boot, tables } = &self.origin;
        write!(f, "{log}/{timeline}/{boot}/{tables}/")?;
        match &self.reached {
            Reached::All(seen) => write!(f, "all/{seen}"),
            Reached::Within { seen, target, next } => write!(f, "within/{seen}/{target}/{}/{}", next.major, next.minor),
            Reached::Settled { base, next } => write!(f, "settled/{base}/{}/{}", next.major, next.minor),
        }
    }
}

impl FromStr for Bookmark {
    type Err = NoSnapshot;

    fn from_str(text: &str) -> Result<Bookmark, NoSnapshot> {
        let parts: Vec<&str> = text.split('/').collect();
        let [log, timeline, boot, tables, kind, rest @ ..] = parts.as_slice() else { return Err(NoSnapshot) };
        let (log, tables) = (log.parse().map_err(|_| NoSnapshot)?, tables.parse().map_err(|_| NoSnapshot)?);
        let origin = Origin { log, timeline: (*timeline).to_owned(), boot: (*boot).to_owned(), tables };
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoSnapshot);
        let reached = match (*kind, rest) {
            ("all", [seen]) => Reached::All(seen.parse()?),
            ("within", [seen, target, major, minor]) => {
                Reached::Within { seen: seen.parse()?, target: target.parse()?, next: Place::new(number(major)?, number(minor)?) }
            }
            ("settled", [base, major, minor]) => Reached::Settled { base: base.parse()?, next: Place::new(number(major)?, number(minor)?) },
            _ => return Err(NoSnapshot),
        };
        Ok(Bookmark { origin, reached })
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(cursor: &Cursor) -> Option<Cursor> {
    Bookmark::of(cursor).ok().map(|bookmark| bookmark.cursor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        let origin = Origin { log: LogId::random(), timeline: "0000000A".into(), boot: "b".into(), tables: 7 };
        let (old, new): (Snapshot, Snapshot) = ("3:9:3,5".parse().expect("one"), "5:12:5,10".parse().expect("one"));
        let next = Place::new(9, 77);
        for reached in
            [Reached::All(old.clone()), Reached::Within { seen: old.clone(), target: new, next }, Reached::Settled { base: old, next }]
        {
            let bookmark = Bookmark::new(origin.clone(), reached);
            assert_eq!(Bookmark::of(&bookmark.cursor()).expect("a cursor"), bookmark);
        }
    }

    #[test]
    fn a_text_that_is_no_cursor_is_refused() {
        let log = LogId::random();
        // The last three are what was written before a cursor said which tables it is of.
        let old = ["all/1:2:", "within/1:2:/1:3:/2/1", "settled/1:2:/2/1"].map(|reached| format!("{log}/0000000A/b/{reached}"));
        let strange = ["", "17", "x/y/z/7/all/1:2:", "all/1:2:", "z/all/1:2:"].map(str::to_owned);
        for text in strange.into_iter().chain([format!("{log}/0000000A/b/z/all/1:2:")]).chain(old) {
            assert!(Bookmark::of(&Cursor::new(text.clone())).is_err(), "{text}");
        }
    }
}
