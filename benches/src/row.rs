//! One line of the report.

use std::fmt::Write;

use crate::rounds::median;

/// What a figure counts, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// As printed.
    pub name: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Unit {
    /// Million lookups a second, over all threads.
    pub const MILLIONS: Unit = Unit { name: "M/s", more_is_better: true };
    /// Nanoseconds for one.
    pub const NANOS: Unit = Unit { name: "ns", more_is_better: false };
    /// Microseconds for one.
    pub const MICROS: Unit = Unit { name: "us", more_is_better: false };
    /// Milliseconds for one.
    pub const MILLIS: Unit = Unit { name: "ms", more_is_better: false };
    /// Bytes in use for one.
    pub const BYTES: Unit = Unit { name: "B", more_is_better: false };
    /// So many a second.
    pub const RATE: Unit = Unit { name: "/s", more_is_better: true };
    /// Instructions for one.
    pub const INSTRUCTIONS: Unit = Unit { name: "instr", more_is_better: false };
    /// What was to be had, in percent.
    pub const SHARE: Unit = Unit { name: "%", more_is_better: true };
    /// What was used up, in percent.
    pub const LOAD: Unit = Unit { name: "%", more_is_better: false };

    fn ratio(self, ours: f64, peer: f64) -> f64 {
        if self.more_is_better { ours / peer } else { peer / ours }
    }
}

/// What the design asks of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// The ratio is at least this.
    Ratio(f64),
    /// Our own figure is at most this.
    AtMost(f64),
    /// Our own figure is at least this.
    AtLeast(f64),
    /// Our own figure is at least this, or the ratio at least the second.
    Either(f64, f64),
    /// The ratio is at least the first and our figure at least the second; when the peer's figure is under the third,
    /// our figure in proportion.
    Both(f64, f64, f64),
}

/// The peer's side of a row.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Its median.
    pub value: f64,
    /// Ratio of the medians, above 1 when we are better.
    pub ratio: f64,
    /// The worst round's ratio.
    pub min_ratio: f64,
    /// The best round's ratio.
    pub max_ratio: f64,
}

/// One measured line.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name, by which prefixes select.
    pub scenario: String,
    /// Threads that read or sweep.
    pub threads: usize,
    /// Our median; none when the row was skipped.
    pub ours: Option<f64>,
    /// The unit of both figures.
    pub unit: Unit,
    /// Who stands beside us, and how it is read.
    pub peer: String,
    /// The peer's figures; none when it was not built or not reachable.
    pub beside: Option<Beside>,
    /// What the design asks, where it asks.
    pub bar: Option<Bar>,
    /// Anything a reader of the row must know.
    pub note: String,
}

impl Row {
    /// A row of figures taken in alternation: one of ours and one of the peer's a round.
    pub fn versus(scenario: &str, threads: usize, unit: Unit, ours: &[f64], peer: impl Into<String>, theirs: &[f64]) -> Self {
        let ratios = ours.iter().zip(theirs).map(|(&ours, &theirs)| unit.ratio(ours, theirs));
        let (mut min_ratio, mut max_ratio) = (f64::INFINITY, f64::NEG_INFINITY);
        for ratio in ratios {
            min_ratio = min_ratio.min(ratio);
            max_ratio = max_ratio.max(ratio);
        }
        let (mine, value) = (median(ours), median(theirs));
        Self {
            beside: Some(Beside { value, ratio: unit.ratio(mine, value), min_ratio, max_ratio }),
            ..Self::alone(scenario, threads, unit, ours, peer)
        }
    }

    /// A row whose peer is missing; `peer` says why.
    pub fn alone(scenario: &str, threads: usize, unit: Unit, ours: &[f64], peer: impl Into<String>) -> Self {
        Self {
            scenario: scenario.to_owned(),
            threads,
            ours: Some(median(ours)).filter(|figure| !figure.is_nan()),
            unit,
            peer: peer.into(),
            beside: None,
            bar: None,
            note: String::new(),
        }
    }

    /// A row that could not be measured at all.
    pub fn skipped(scenario: &str, unit: Unit, peer: &str, why: &str) -> Self {
        Self { note: format!("skipped: {why}"), ..Self::alone(scenario, 0, unit, &[], peer) }
    }

    /// Adds what a reader must know.
    pub fn note(mut self, note: impl AsRef<str>) -> Self {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note.as_ref());
        self
    }

    /// Adds what the design asks.
    pub fn bar(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self
    }

    /// What the design asks and whether it is met, in words; empty where it asks nothing.
    pub fn verdict(&self) -> String {
        let (Some(bar), Some(ours)) = (self.bar, self.ours) else {
            return String::new();
        };
        let ratio = self.beside.as_ref().map_or(0.0, |beside| beside.ratio);
        let unit = self.unit.name;
        let (asked, met) = match bar {
            Bar::Ratio(least) => (format!(">= {least}x"), ratio >= least),
            Bar::AtMost(most) => (format!("<= {most} {unit}"), ours <= most),
            Bar::AtLeast(least) => (format!(">= {least} {unit}"), ours >= least),
            Bar::Either(least, or_ratio) => (format!(">= {least} {unit} or {or_ratio}x"), ours >= least || ratio >= or_ratio),
            Bar::Both(least_ratio, least, when) => {
                let share = self.beside.as_ref().map_or(1.0, |beside| (beside.value / when).min(1.0));
                let least = least * share;
                (format!(">= {least_ratio}x and {least:.0} {unit}"), ratio >= least_ratio && ours >= least)
            }
        };
        format!("{asked}: {}", if met { "met" } else { "MISSED" })
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let mut out = format!(
            "{{\"scenario\":{},\"threads\":{},\"ours\":{},\"unit\":{},\"peer\":{}",
            quoted(&self.scenario),
            self.threads,
            number(self.ours),
            quoted(self.unit.name),
            quoted(&self.peer),
        );
        let beside = self.beside.as_ref();
        for (name, value) in [
            ("peer_value", beside.map(|beside| beside.value)),
            ("ratio", beside.and_then(|beside| told(beside.ratio))),
            ("min_ratio", beside.and_then(|beside| told(beside.min_ratio))),
            ("max_ratio", beside.and_then(|beside| told(beside.max_ratio))),
        ] {
            let _ = write!(out, ",\"{name}\":{}", number(value));
        }
        if !self.note.is_empty() {
            let _ = write!(out, ",\"note\":{}", quoted(&self.note));
        }
        out.push('}');
        out
    }

    /// The row as table cells: scenario, threads, ours, unit, peer, its value, ratio, spread, bar, note.
    pub fn cells(&self) -> [String; 10] {
        let beside = self.beside.as_ref();
        let show = |figure: Option<f64>| figure.map_or("-".to_owned(), figure_text);
        let ratio = beside.and_then(|beside| told(beside.ratio));
        let spread = beside.and_then(|beside| told(beside.min_ratio).zip(told(beside.max_ratio)));
        [
            self.scenario.clone(),
            if self.threads == 0 { "-".to_owned() } else { self.threads.to_string() },
            show(self.ours),
            self.unit.name.to_owned(),
            self.peer.clone(),
            show(beside.map(|beside| beside.value)),
            ratio.map_or("-".to_owned(), |ratio| format!("{}x", figure_text(ratio))),
            spread.map_or("-".to_owned(), |(least, most)| format!("{}..{}", figure_text(least), figure_text(most))),
            self.verdict(),
            self.note.clone(),
        ]
    }
}

/// A ratio that says something: beside nothing at all, there is no "so many times".
fn told(ratio: f64) -> Option<f64> {
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// Three significant digits or whole numbers, whichever is longer.
fn figure_text(figure: f64) -> String {
    let digits = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.digits$}")
}

fn number(figure: Option<f64>) -> String {
    match figure {
        Some(figure) if figure.is_finite() => format!("{figure:.4}"),
        _ => "null".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_time_of_ours_is_a_ratio_above_one() {
        let row = Row::versus("x", 1, Unit::NANOS, &[10.0, 20.0, 30.0], "p", &[40.0, 20.0, 60.0]);
        let beside = row.beside.expect("there is a peer");
        assert_eq!((beside.ratio, beside.min_ratio, beside.max_ratio), (2.0, 1.0, 4.0));
    }

    #[test]
    fn json_has_the_promised_fields_and_no_nan() {
        let row = Row::skipped("a/\"b\"", Unit::MILLIS, "redis", "no server");
        assert_eq!(
            row.json(),
            "{\"scenario\":\"a/\\\"b\\\"\",\"threads\":0,\"ours\":null,\"unit\":\"ms\",\"peer\":\"redis\",\
             \"peer_value\":null,\"ratio\":null,\"min_ratio\":null,\"max_ratio\":null,\"note\":\"skipped: no server\"}"
        );
    }

    #[test]
    fn beside_nothing_at_all_there_is_no_ratio() {
        for (unit, ours, theirs, shown) in [
            (Unit::BYTES, 0.0, 35.0, ["0.00", "35.0"]),
            (Unit::BYTES, 35.0, 0.0, ["35.0", "0.00"]),
            (Unit::RATE, 35.0, 0.0, ["35.0", "0.00"]),
            (Unit::RATE, 0.0, 0.0, ["0.00", "0.00"]),
        ] {
            let row = Row::versus("x", 1, unit, &[ours], "p", &[theirs]);
            let [_, _, our_cell, _, _, their_cell, ratio, spread, ..] = row.cells();
            assert_eq!([our_cell, their_cell], shown);
            assert_eq!((&*ratio, &*spread), ("-", "-"));
            assert!(row.json().ends_with("\"ratio\":null,\"min_ratio\":null,\"max_ratio\":null}"), "{}", row.json());
        }
        // Of a round in which there was nothing there is no spread either.
        let row = Row::versus("x", 1, Unit::BYTES, &[0.0, 2.0, 4.0], "p", &[4.0, 4.0, 4.0]);
        let [.., ratio, spread, _, _] = row.cells();
        assert_eq!((&*ratio, &*spread), ("2.00x", "-"));
        // Whoever needs nothing where others need something is as good as anybody can be.
        assert_eq!(Row::versus("x", 1, Unit::BYTES, &[0.0], "p", &[35.0]).bar(Bar::Ratio(5.0)).verdict(), ">= 5x: met");
    }

    #[test]
    fn an_absolute_bar_shrinks_with_a_slow_machine() {
        let row = Row::versus("x", 2, Unit::MILLIONS, &[130.0], "map", &[170.0]).bar(Bar::Both(0.7, 260.0, 340.0));
        assert_eq!(row.verdict(), ">= 0.7x and 130 M/s: met");
    }
}
