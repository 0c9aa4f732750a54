//! The figures of a run, as a table or as JSON.

use std::fmt::Write;
use std::time::Duration;

use crate::latency::Histogram;
use crate::options::Options;
use crate::run::Outcome;
use crate::workload::MIX;

/// The speed-up: lookups through the service for each one in SQL.
fn speedup(outcome: &Outcome) -> f64 {
    ratio(outcome.lookups_per_s, outcome.sql_lookups_per_s)
}

fn per_update(outcome: &Outcome, count: u64) -> f64 {
    ratio(count as f64, outcome.written.updates as f64)
}

/// 0 when there is nothing to divide by: a run too short for one SQL call or update has no such figure.
fn ratio(over: f64, under: f64) -> f64 {
    if under > 0.0 { over / under } else { 0.0 }
}

/// The table.
pub fn table(options: &Options, outcome: &Outcome) -> String {
    let mut rows = vec![["".to_owned(), "wellspring".to_owned(), "direct SQL".to_owned(), "ratio".to_owned()]];
    let mut row = |name: &str, ours: String, sql: String, ratio: String| {
        rows.push([name.to_owned(), ours, sql, ratio]);
    };
    row("lookups/s", count(outcome.lookups_per_s), count(outcome.sql_lookups_per_s), times(speedup(outcome)));
    let (ours, sql) = (outcome.read.service.all_latencies(), outcome.read.sql.all_latencies());
    for (name, part) in [("read p50", 0.5), ("read p99", 0.99)] {
        row(name, at(&ours, part), at(&sql, part), faster(&ours, &sql, part));
    }
    for (place, (name, share)) in MIX.iter().enumerate() {
        let (ours, sql) = (&outcome.read.service.latency[place], &outcome.read.sql.latency[place]);
        let name = format!("  p50 {name} ({:.1}%)", f64::from(*share) / 10.0);
        row(&name, at(ours, 0.5), at(sql, 0.5), faster(ours, sql, 0.5));
    }
    let mut fact = |name: &str, figure: String| row(name, figure, String::new(), String::new());
    let written = &outcome.written;
    fact("updates", count(written.updates as f64));
    fact("update p50", at(&written.latency, 0.5));
    fact("update p99", at(&written.latency, 0.99));
    fact("invalidations", count(written.invalidations as f64));
    fact("nodes marked per update", format!("{:.1}", per_update(outcome, outcome.work.marked)));
    fact("nodes recomputed per update", format!("{:.1}", per_update(outcome, outcome.work.computed)));
    fact("recomputes avoided by cut-off", count(outcome.work.saved as f64));
    fact("cached values", count(outcome.stats.nodes as f64));
    if let Some((held, capacity)) = outcome.memory.capacity {
        fact("held, of the capacity", format!("{} of {}", count(held as f64), count(capacity as f64)));
        fact("evicted", count(outcome.memory.evicted as f64));
        fact("still cached at the check", count(outcome.check.cached as f64));
    }
    fact("memory, engine", megabytes(outcome.stats.bytes as u64));
    fact("memory, process", outcome.process_bytes.map_or("-".to_owned(), megabytes));

    let mut text = String::new();
    let widths: [usize; 4] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for [name, ours, sql, ratio] in &rows {
        let line = format!("{name:<0$}  {ours:>1$}  {sql:>2$}  {ratio:>3$}", widths[0], widths[1], widths[2], widths[3]);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = write!(
        text,
        "{} readers and a writer for {:.1} s, the readers 70% of it on the service and 30% on SQL, the same calls.\n\
         A single read's time includes about {} ns of reading the clock.",
        options.readers,
        outcome.time.as_secs_f64(),
        clock_cost().as_nanos()
    );
    text
}

/// One JSON object on one line.
pub fn json(options: &Options, outcome: &Outcome) -> String {
    let (ours, sql) = (outcome.read.service.all_latencies(), outcome.read.sql.all_latencies());
    let written = &outcome.written;
    let whole = |number: u64| Some(number.to_string());
    let real = |number: f64| number.is_finite().then(|| format!("{number:.3}"));
    let fields = [
        ("lookups_per_s", real(outcome.lookups_per_s)),
        ("sql_lookups_per_s", real(outcome.sql_lookups_per_s)),
        ("speedup", real(speedup(outcome))),
        ("updates", whole(written.updates)),
        ("invalidations", whole(written.invalidations)),
        ("marked_per_update", real(per_update(outcome, outcome.work.marked))),
        ("recomputed_per_update", real(per_update(outcome, outcome.work.computed))),
        ("cutoff_saved", whole(outcome.work.saved)),
        ("checked", whole(outcome.check.checked)),
        ("stale", whole(outcome.check.stale.len() as u64)),
        ("cached", whole(outcome.check.cached)),
        ("read_p50_ns", nanos(&ours, 0.5)),
        ("read_p99_ns", nanos(&ours, 0.99)),
        ("sql_read_p50_ns", nanos(&sql, 0.5)),
        ("sql_read_p99_ns", nanos(&sql, 0.99)),
        ("update_p50_ns", nanos(&written.latency, 0.5)),
        ("update_p99_ns", nanos(&written.latency, 0.99)),
        ("lookups", whole(outcome.read.service.calls)),
        ("sql_lookups", whole(outcome.read.sql.calls)),
        ("capacity", outcome.memory.capacity.and_then(|(_, capacity)| whole(capacity))),
        ("held", outcome.memory.capacity.and_then(|(held, _)| whole(held))),
        ("evicted", whole(outcome.memory.evicted)),
        ("engine_bytes", whole(outcome.stats.bytes as u64)),
        ("process_bytes", outcome.process_bytes.and_then(whole)),
        ("load_s", real(outcome.loading.as_secs_f64())),
        ("warm_s", real(outcome.warming.as_secs_f64())),
        ("seconds", real(outcome.time.as_secs_f64())),
        ("readers", whole(options.readers as u64)),
        ("seed", whole(options.seed)),
    ];
    // Names are plain words and values are numbers: nothing here needs escaping.
    let fields = fields.map(|(name, number)| format!("\"{name}\":{}", number.as_deref().unwrap_or("null")));
    format!("{{{}}}\n", fields.join(","))
}

pub(crate) fn nanos(histogram: &Histogram, part: f64) -> Option<String> {
    histogram.quantile(part).map(|time| time.as_nanos().to_string())
}

pub(crate) fn at(histogram: &Histogram, part: f64) -> String {
    histogram.quantile(part).map_or("-".to_owned(), |time| match time.as_nanos() {
        nanos @ 0..10_000 => format!("{nanos} ns"),
        nanos @ 10_000..10_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        nanos => format!("{:.1} ms", nanos as f64 / 1e6),
    })
}

fn faster(ours: &Histogram, sql: &Histogram, part: f64) -> String {
    match (ours.quantile(part), sql.quantile(part)) {
        (Some(ours), Some(sql)) if !ours.is_zero() => times(sql.as_secs_f64() / ours.as_secs_f64()),
        _ => "-".to_owned(),
    }
}

fn times(ratio: f64) -> String {
    if ratio >= 10.0 { format!("{} x", count(ratio)) } else { format!("{ratio:.1} x") }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A whole number with its thousands apart.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What timing nothing takes, at best.
fn clock_cost() -> Duration {
    let once = || std::time::Instant::now().elapsed();
    (0..1000).map(|_| once()).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (1234567.4, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn a_figure_without_a_divisor_is_zero_and_not_infinite() {
        assert_eq!(ratio(1.0, 0.0), 0.0);
        assert_eq!(at(&Histogram::default(), 0.5), "-");
    }

    #[test]
    fn durations_are_told_in_the_unit_that_suits_them() {
        let one = |nanos| {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos));
            at(&histogram, 0.5)
        };
        assert_eq!(one(42), "42 ns");
        assert_eq!(one(12_345), "12.3 us");
        assert_eq!(one(45_000_000), "45.0 ms");
    }
}
