//! How far a reader has read: behind which operation of which log.

use rusqlite::{Connection, OptionalExtension};

use super::schema;
use crate::id::LogId;
use crate::position::Cursor;

/// Written `<log>/<number>/<operation>`. With number 0, before the first operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) log: LogId,
    pub(crate) seq: i64,
    pub(crate) operation: u128,
}

impl Mark {
    pub(crate) fn parse(cursor: &Cursor) -> Option<Mark> {
        let mut parts = cursor.as_str().split('/');
        let log = parts.next()?.parse().ok()?;
        let seq = parts.next()?.parse().ok().filter(|seq| *seq >= 0)?;
        let operation = u128::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Mark { log, seq, operation })
    }

    pub(crate) fn cursor(self) -> Cursor {
        Cursor::new(format!("{}/{}/{:032x}", self.log, self.seq, self.operation))
    }

    /// The end of the log.
    pub(crate) fn end(connection: &Connection) -> rusqlite::Result<Mark> {
        let log = schema::log(connection)?;
        let mut last = connection.prepare_cached("SELECT seq, id FROM wellspring_operations ORDER BY seq DESC LIMIT 1")?;
        let last = last.query_row([], |row| Ok((row.get(0)?, row.get::<_, [u8; 16]>(1)?))).optional()?;
        let (seq, operation) = match last {
            Some(last) => last,
            None => trimmed(connection)?,
        };
        Ok(Mark { log, seq, operation: u128::from_be_bytes(operation) })
    }

    /// Why nobody can say what comes after it, if that is so.
    pub(crate) fn lost(self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        let log = schema::log(connection)?;
        if log != self.log {
            return Ok(Some(format!("the log is {log} now, and was {}", self.log)));
        }
        let mut there = connection.prepare_cached("SELECT id FROM wellspring_operations WHERE seq = ?1")?;
        let there: Option<[u8; 16]> = there.query_row([self.seq], |row| row.get(0)).optional()?;
        let (trimmed_to, trimmed_id) = trimmed(connection)?;
        let there = match there {
            Some(there) => there,
            None if self.seq == trimmed_to => trimmed_id,
            None if self.seq < trimmed_to => {
                return Ok(Some(format!("operations up to {trimmed_to} have been removed, and {} was the last one read", self.seq)));
            }
            None => return Ok(Some(format!("operation {} was read and is not in the log: it is an older one", self.seq))),
        };
        let same = u128::from_be_bytes(there) == self.operation;
        Ok((!same).then(|| format!("operation {} is not the one that was read: the log was replaced by an older one", self.seq)))
    }
}

/// The last operation removed: number 0 and no id if none was.
pub(crate) fn trimmed(connection: &Connection) -> rusqlite::Result<(i64, [u8; 16])> {
    let mut trimmed = connection.prepare_cached(
        "SELECT (SELECT value FROM wellspring_meta WHERE name = 'trimmed_to'), (SELECT value FROM wellspring_meta WHERE name = 'trimmed_id')",
    )?;
    trimmed.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

#[cfg(fuzzing)]
pub(crate) fn reread(cursor: &Cursor) -> Option<Cursor> {
    Mark::parse(cursor).map(Mark::cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_from_its_cursor() {
        let mark = Mark { log: LogId::random(), seq: 42, operation: 7 << 100 };
        assert_eq!(Mark::parse(&mark.cursor()), Some(mark));
    }

    #[test]
    fn a_text_of_another_log_is_no_mark() {
        let log = LogId::random();
        for text in [
            "",
            "17",
            "0/1/2",
            &format!("{log}/-1/0"),
            &format!("{log}/1/0/0"),
            &format!("{log}/1/x"),
            &format!("{log}/9223372036854775808/0"),
        ] {
            assert_eq!(Mark::parse(&Cursor::new(text)), None, "{text}");
        }
    }
}
