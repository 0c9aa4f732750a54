//! What a cluster came to, as a table or as JSON.

use std::fmt::Write;
use std::time::Duration;

use crate::database::Address;
use crate::latency::Histogram;
use crate::line::UnitPrice;
use crate::report::{at, count, nanos};

use super::Cluster;
use super::writer::Written;

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
    /// Figures read, by the servers that lived to the end.
    pub reads: u64,
    /// Updates done.
    pub updates: u64,
    /// Those of them that were asked of a second server, because the first was gone.
    pub repeated: u64,
    /// Lines added.
    pub lines: u64,
    /// Prices as they were set last.
    pub prices: Vec<(u32, UnitPrice)>,
    /// From the call of an update to its answer.
    pub update: Histogram,
    /// From the answer to the moment at which the price was stale on another server.
    pub propagation: Histogram,
    /// From the call to the moment at which the price was stale on every server.
    pub everywhere: Histogram,
    /// Values compared, on all servers.
    pub checked: u64,
    /// Those that were not what the database says, with their server.
    pub stale: Vec<String>,
    /// What was answered and is not in the database, or is there twice.
    pub lost: Vec<String>,
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
            all.propagation.merge(&one.propagation);
            all.everywhere.merge(&one.everywhere);
        }
        all
    }

    /// Whether nothing was stale and nothing was lost.
    pub fn is_right(&self) -> bool {
        self.stale.is_empty() && self.lost.is_empty()
    }

    /// The last line: what the proof says.
    pub fn line(&self) -> String {
        let lost = match self.lost.len() {
            0 => String::new(),
            lost => format!("; {lost} updates are not in the database as they were answered"),
        };
        format!("checked {} values on {} servers, {} stale{lost}", self.checked, self.servers, self.stale.len())
    }

    /// The table before it.
    pub fn table(&self) -> String {
        let per_second = |number: u64| format!("{} ({}/s)", count(number as f64), count(number as f64 / self.time.as_secs_f64()));
        let mut rows = vec![
            ["".to_owned(), "p50".to_owned(), "p99".to_owned(), "longest".to_owned()],
            times("update, call to answer", &self.update),
            times("stale on another server, after the answer", &self.propagation),
            times("stale on every server, after the call", &self.everywhere),
        ];
        let mut fact = |name: &str, value: String| rows.push([name.to_owned(), value, String::new(), String::new()]);
        fact("updates", per_second(self.updates));
        fact("reads", per_second(self.reads));
        if self.kills > 0 {
            fact("servers killed", count(self.kills as f64));
            fact("updates asked of a second server", count(self.repeated as f64));
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
            ("kills", whole(self.kills)),
            ("repeated", whole(self.repeated)),
            ("update_p50_ns", nanos(&self.update, 0.5)),
            ("update_p99_ns", nanos(&self.update, 0.99)),
            ("update_max_ns", nanos(&self.update, 1.0)),
            ("propagations", whole(self.propagation.count())),
            ("propagation_p50_ns", nanos(&self.propagation, 0.5)),
            ("propagation_p99_ns", nanos(&self.propagation, 0.99)),
            ("propagation_max_ns", nanos(&self.propagation, 1.0)),
            ("everywhere_p50_ns", nanos(&self.everywhere, 0.5)),
            ("everywhere_p99_ns", nanos(&self.everywhere, 0.99)),
            ("everywhere_max_ns", nanos(&self.everywhere, 1.0)),
            ("checked", whole(self.checked)),
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
        let mut outcome = Outcome { servers: 4, checked: 17, ..Outcome::default() };
        assert_eq!(outcome.line(), "checked 17 values on 4 servers, 0 stale");
        assert!(outcome.is_right());
        outcome.lost.push("price:7".to_owned());
        assert_eq!(outcome.line(), "checked 17 values on 4 servers, 0 stale; 1 updates are not in the database as they were answered");
        assert!(!outcome.is_right());
    }
}
