//! What a cluster came to, as a table or as JSON.

use std::fmt::Write;
use std::time::Duration;

use crate::database::Address;
use crate::latency::Histogram;
use crate::line::UnitPrice;
use crate::report::{at, count, nanos};

use super::Cluster;
use super::writer::Written;

/// A server that has read so many figures has some of them cached, unless it has dropped them all; then its check proves nothing.
const ENOUGH: u64 = 1_000;

/// What a server, or all of them, can show for the claim that nothing was stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Figures read in the background since it was started.
    pub read: u64,
    /// Those that could not be.
    pub failed_reads: u64,
    /// Operations of the log that it could not understand, so that it took everything for stale.
    pub poisoned: u64,
    /// How often it did not know what it had missed, so that it took everything for stale.
    pub coverage_lost: u64,
    /// Values compared.
    pub checked: u64,
    /// Those of them that it would have served as they were. All others were computed for the comparison, and prove nothing.
    pub served: u64,
    /// Values cached after it: if there are more than were compared, some were not looked at.
    pub cached: u64,
}

/// What a cluster came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Which kind of database it was.
    pub database: &'static str,
    /// How many servers there were.
    pub servers: usize,
    /// How long they were written to.
    pub time: Duration,
    /// How often one of them was killed.
    pub kills: u64,
    /// Figures read while there was load, by the servers that lived to the end.
    pub reads: u64,
    /// How long that was.
    pub reading: Duration,
    /// Updates done.
    pub updates: u64,
    /// Those of them that were asked more than once, because a server was gone.
    pub repeated: u64,
    /// Lines added.
    pub lines: u64,
    /// Prices as they were set last.
    pub prices: Vec<(u32, UnitPrice)>,
    /// From the call of an update to its answer.
    pub update: Histogram,
    /// From the moment an update was due to its answer: what was waited for before it counts, and every repeat.
    pub due: Histogram,
    /// From the call to the moment at which the price was stale on another server: more than it took from the commit.
    pub from_call: Histogram,
    /// From the answer to that moment, zero where it was before the answer: less than it took from the commit.
    pub after_answer: Histogram,
    /// From the call to the moment at which the price was stale on every server.
    pub everywhere: Histogram,
    /// What all servers can show.
    pub proof: Proof,
    /// Those that were not what the database says, with their server.
    pub stale: Vec<String>,
    /// What was answered and is not in the database, or is there twice.
    pub lost: Vec<String>,
    /// What makes the proof empty, or should not have happened, with its server.
    pub trouble: Vec<String>,
}

impl Outcome {
    pub(super) fn new(address: &Address, written: Vec<Written>) -> Self {
        let database = match address {
            Address::Sqlite(_) => "sqlite",
            Address::Postgres { .. } => "postgres",
        };
        let mut all = Self { database, ..Self::default() };
        for one in written {
            all.updates += one.updates;
            all.repeated += one.repeated;
            all.lines += one.lines;
            all.prices.extend(one.prices);
            all.update.merge(&one.update);
            all.due.merge(&one.due);
            all.from_call.merge(&one.from_call);
            all.after_answer.merge(&one.after_answer);
            all.everywhere.merge(&one.everywhere);
        }
        all
    }

    /// Adds what a server can show. One that was `warm` had every value at the start, and was not killed.
    ///
    /// Where servers are killed, one that lives may fail to read or lose coverage by it, and that is only told; else it is wrong.
    pub(super) fn add(&mut self, server: usize, one: Proof, warm: bool) {
        let all = &mut self.proof;
        all.read += one.read;
        all.failed_reads += one.failed_reads;
        all.poisoned += one.poisoned;
        all.coverage_lost += one.coverage_lost;
        all.checked += one.checked;
        all.served += one.served;
        all.cached += one.cached;
        let mut trouble = |what: String| self.trouble.push(format!("server {server}: {what}"));
        if one.served == 0 && (warm || one.read >= ENOUGH) {
            trouble(format!("of {} values none was compared as it would have been served", one.checked));
        }
        if one.cached != one.checked {
            trouble(format!("{} values were compared, and {} are cached", one.checked, one.cached));
        }
        for (what, times) in [
            ("operations it could not understand", one.poisoned),
            ("times it lost coverage", one.coverage_lost),
            ("reads failed", one.failed_reads),
        ] {
            if times > 0 && self.kills == 0 {
                trouble(format!("{times} {what}"));
            }
        }
    }

    /// Whether nothing was stale, nothing was lost, and that is no empty statement.
    pub fn is_right(&self) -> bool {
        self.stale.is_empty() && self.lost.is_empty() && self.trouble.is_empty() && self.proof.served > 0
    }

    /// The last line: what the proof says.
    pub fn line(&self) -> String {
        let lost = match self.lost.len() {
            0 => String::new(),
            lost => format!("; {lost} updates are not in the database as they were answered"),
        };
        let empty = if self.proof.served == 0 { "; none of them was served as it was, so this proves nothing" } else { "" };
        format!("checked {} values on {} servers, {} stale{lost}{empty}", self.proof.checked, self.servers, self.stale.len())
    }

    /// The table before it.
    pub fn table(&self) -> String {
        let per_second =
            |number: u64, time: Duration| format!("{} ({}/s)", count(number as f64), count(number as f64 / time.as_secs_f64()));
        let mut rows = vec![
            ["".to_owned(), "p50".to_owned(), "p99".to_owned(), "longest".to_owned()],
            times("update, call to answer", &self.update),
            times("update, from when it was due to answer", &self.due),
            times("stale on another server, from the call", &self.from_call),
            times("stale on another server, after the answer", &self.after_answer),
            times("stale on every server, from the call", &self.everywhere),
        ];
        let mut fact = |name: &str, value: String| rows.push([name.to_owned(), value, String::new(), String::new()]);
        fact("updates", per_second(self.updates, self.time));
        if self.kills == 0 {
            fact("reads", per_second(self.reads, self.reading));
        } else {
            // What was counted by those that were killed is gone with them, so there is no rate.
            fact("reads since each server was started last", count(self.reads as f64));
            fact("servers killed", count(self.kills as f64));
            fact("updates asked more than once", count(self.repeated as f64));
        }
        fact("values checked as they would have been served", count(self.proof.served as f64));
        for (name, number) in [
            ("reads failed", self.proof.failed_reads),
            ("coverage lost", self.proof.coverage_lost),
            ("operations not understood", self.proof.poisoned),
        ] {
            if number > 0 {
                fact(name, count(number as f64));
            }
        }
        let mut text = String::new();
        let widths: [usize; 4] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        for [name, p50, p99, longest] in &rows {
            let line = format!("{name:<0$}  {p50:>1$}  {p99:>2$}  {longest:>3$}", widths[0], widths[1], widths[2], widths[3]);
            // A string takes everything.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// One JSON object on one line.
    pub fn json(&self, cluster: &Cluster) -> String {
        let whole = |number: u64| Some(number.to_string());
        let fields = [
            ("database", Some(format!("\"{}\"", self.database))),
            ("servers", whole(self.servers as u64)),
            ("seconds", Some(format!("{:.3}", self.time.as_secs_f64()))),
            ("updates", whole(self.updates)),
            ("reads", whole(self.reads)),
            ("read_seconds", Some(format!("{:.3}", self.reading.as_secs_f64()))),
            ("kills", whole(self.kills)),
            ("repeated", whole(self.repeated)),
            ("update_p50_ns", nanos(&self.update, 0.5)),
            ("update_p99_ns", nanos(&self.update, 0.99)),
            ("update_max_ns", nanos(&self.update, 1.0)),
            ("due_p50_ns", nanos(&self.due, 0.5)),
            ("due_p99_ns", nanos(&self.due, 0.99)),
            ("due_max_ns", nanos(&self.due, 1.0)),
            ("propagations", whole(self.from_call.count())),
            ("from_call_p50_ns", nanos(&self.from_call, 0.5)),
            ("from_call_p99_ns", nanos(&self.from_call, 0.99)),
            ("from_call_max_ns", nanos(&self.from_call, 1.0)),
            ("after_answer_p50_ns", nanos(&self.after_answer, 0.5)),
            ("after_answer_p99_ns", nanos(&self.after_answer, 0.99)),
            ("after_answer_max_ns", nanos(&self.after_answer, 1.0)),
            ("everywhere_p50_ns", nanos(&self.everywhere, 0.5)),
            ("everywhere_p99_ns", nanos(&self.everywhere, 0.99)),
            ("everywhere_max_ns", nanos(&self.everywhere, 1.0)),
            ("checked", whole(self.proof.checked)),
            ("served", whole(self.proof.served)),
            ("failed_reads", whole(self.proof.failed_reads)),
            ("poisoned", whole(self.proof.poisoned)),
            ("coverage_lost", whole(self.proof.coverage_lost)),
            ("trouble", whole(self.trouble.len() as u64)),
            ("stale", whole(self.stale.len() as u64)),
            ("lost", whole(self.lost.len() as u64)),
            ("seed", whole(cluster.seed)),
        ];
        // Names and the one text are plain words, all else are numbers: nothing here needs escaping.
        let fields = fields.map(|(name, value)| format!("\"{name}\":{}", value.as_deref().unwrap_or("null")));
        format!("{{{}}}\n", fields.join(","))
    }
}

fn times(name: &str, histogram: &Histogram) -> [String; 4] {
    [name.to_owned(), at(histogram, 0.5), at(histogram, 0.99), at(histogram, 1.0)]
}

/// A database in words, without what may be secret in a URL.
pub(super) fn place(address: &Address) -> String {
    match address {
        Address::Sqlite(path) => path.display().to_string(),
        Address::Postgres { schema, .. } => format!("PostgreSQL, schema {schema}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_beside_what_is_stale() {
        let proof = Proof { checked: 17, served: 16, ..Proof::default() };
        let mut outcome = Outcome { servers: 4, proof, ..Outcome::default() };
        assert_eq!(outcome.line(), "checked 17 values on 4 servers, 0 stale");
        assert!(outcome.is_right());
        outcome.lost.push("price:7".to_owned());
        assert_eq!(outcome.line(), "checked 17 values on 4 servers, 0 stale; 1 updates are not in the database as they were answered");
        assert!(!outcome.is_right());
    }

    #[test]
    fn a_check_that_compared_nothing_as_it_was_served_is_not_right() {
        assert!(!Outcome::default().is_right());
        let full = Proof { read: 5_000, checked: 9, served: 5, cached: 9, ..Proof::default() };
        let of = |kills, warm, one| {
            let mut outcome = Outcome { kills, ..Outcome::default() };
            outcome.add(0, full, false);
            outcome.add(1, one, warm);
            (outcome.is_right(), outcome.trouble.concat())
        };
        assert_eq!(of(0, true, full), (true, String::new()));
        for (kills, warm, one, word) in [
            (0, true, Proof { read: 0, served: 0, ..full }, "none was compared"),
            (3, false, Proof { served: 0, ..full }, "none was compared"),
            (3, false, Proof { cached: 10, ..full }, "10 are cached"),
            (0, true, Proof { poisoned: 2, ..full }, "server 1: 2 operations"),
            (0, true, Proof { coverage_lost: 1, ..full }, "1 times it lost coverage"),
            (0, true, Proof { failed_reads: 4, ..full }, "4 reads failed"),
        ] {
            let (right, trouble) = of(kills, warm, one);
            assert!(!right && trouble.contains(word), "{trouble}");
        }
        // One that has only just come back has nothing to show; and a kill may do such things to others.
        assert_eq!(of(3, false, Proof { read: 10, served: 0, ..full }), (true, String::new()));
        assert_eq!(of(3, false, Proof { coverage_lost: 1, failed_reads: 4, ..full }), (true, String::new()));
    }
}
