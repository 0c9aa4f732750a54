//! Prints what wellspring costs, row by row, beside its peers. `report --help` says how to ask.

use std::alloc::{GlobalAlloc, Layout};
use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mimalloc::MiMalloc;
use wellspring_benches::{Plan, Row, machine, scenario, scenarios};

const HELP: &str = "\
Measures wellspring beside its peers, in alternation, in one process.

usage: report [--quick] [--json | --markdown] [--list] [PREFIX...]

  PREFIX      measure only the scenarios whose name starts with it
  --quick     5 rounds instead of 15
  --json      one JSON object a row
  --markdown  a document with the machine, the compiler, the allocator and the hasher
  --list      print the names of the scenarios

Peers that take long to build are behind the feature `peers`:
  cargo run --release -p wellspring-benches --features peers --bin report
";

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// mimalloc; in the child process that measures memory, with a count of the bytes in use.
struct Counting;

static COUNT: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    /// Elsewhere this is one predicted branch on a line nobody writes.
    #[inline]
    fn note(&self, change: impl FnOnce(&AtomicUsize)) {
        if COUNT.load(Ordering::Relaxed) {
            change(&IN_USE);
        }
    }
}

// SAFETY: every call is handed to mimalloc with the arguments as they came; the counting beside it touches only statics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note(|bytes| _ = bytes.fetch_add(layout.size(), Ordering::Relaxed));
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is mimalloc's too.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.note(|bytes| _ = bytes.fetch_add(layout.size(), Ordering::Relaxed));
        // SAFETY: as for `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.note(|bytes| _ = bytes.fetch_sub(layout.size(), Ordering::Relaxed));
        // SAFETY: the caller got `block` from this allocator, so from mimalloc, with this layout.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.note(|bytes| {
            bytes.fetch_add(new_size, Ordering::Relaxed);
            bytes.fetch_sub(layout.size(), Ordering::Relaxed);
        });
        // SAFETY: as for `dealloc`.
        unsafe { MiMalloc.realloc(block, layout, new_size) }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Table,
    Json,
    Markdown,
}

struct Request {
    plan: Plan,
    format: Format,
    list: bool,
    counting: bool,
    prefixes: Vec<String>,
}

/// The flag of the child process; not in the help, since nobody else has a use for it.
const COUNTING: &str = "--count-allocations";

fn parse(words: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut request = Request { plan: Plan::default(), format: Format::Table, list: false, counting: false, prefixes: Vec::new() };
    for word in words {
        match word.as_str() {
            "--quick" => request.plan.quick = true,
            "--json" => request.format = Format::Json,
            "--markdown" => request.format = Format::Markdown,
            "--list" => request.list = true,
            COUNTING => request.counting = true,
            "--help" | "-h" => return Err(String::new()),
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            prefix => request.prefixes.push(prefix.to_owned()),
        }
    }
    Ok(request)
}

impl Request {
    /// Whether a scenario of this name may print a row that was asked for.
    fn wants(&self, scenario: &str) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| scenario.starts_with(prefix) || prefix.starts_with(scenario))
    }

    fn wants_row(&self, row: &Row) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| row.scenario.starts_with(prefix))
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((scenario::oplog::MEMBER, words)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return ended("a server of the cluster", scenario::oplog::member(words));
    }
    if let Some((word @ (scenario::rpc::SERVER | scenario::rpc::COUNTED_SERVER), words)) =
        words.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        if word == scenario::rpc::COUNTED_SERVER {
            count();
        }
        return ended("a server", scenario::rpc::serve(words));
    }
    if let Some((scenario::rpc::READER, words)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return ended("a reader", scenario::rpc::read(words));
    }
    let request = match parse(words.into_iter()) {
        Ok(request) => request,
        Err(why) if why.is_empty() => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if request.counting {
        count();
    }
    match run(&request) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("no scenario starts with {}; --list names them", request.prefixes.join(", "));
            ExitCode::from(2)
        }
        // A reader that has seen enough closes the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// From now on bytes are counted.
fn count() {
    COUNT.store(true, Ordering::Relaxed);
    scenario::memory::counted_by(|| IN_USE.load(Ordering::Relaxed));
}

/// What a child process ends with.
fn ended(what: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{what}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the rows asked for; false when there are none.
fn run(request: &Request) -> io::Result<bool> {
    let wanted: Vec<_> = scenarios().into_iter().filter(|scenario| request.wants(scenario.name)).collect();
    let mut out = io::stdout();
    if request.list {
        for scenario in &wanted {
            writeln!(out, "{}", scenario.name)?;
        }
        return Ok(!wanted.is_empty());
    }
    if !request.counting && !wanted.is_empty() {
        print_head(&mut out, request)?;
    }
    for scenario in &wanted {
        if scenario::counts_bytes(scenario.name) && !request.counting {
            out.flush()?;
            count_in_child(request, scenario.name)?;
            continue;
        }
        for row in (scenario.run)(scenario.name, request.plan) {
            if request.wants_row(&row) {
                print_row(&mut out, request.format, &row)?;
            }
        }
    }
    Ok(!wanted.is_empty())
}

/// Lets a process of its own measure `name` and print its rows in this one's place.
fn count_in_child(request: &Request, name: &str) -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args([COUNTING, name]);
    if request.plan.quick {
        child.arg("--quick");
    }
    match request.format {
        Format::Table => {}
        Format::Json => _ = child.arg("--json"),
        Format::Markdown => _ = child.arg("--markdown"),
    }
    let status = child.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{name} ended with {status}"))) }
}

const TITLES: [&str; 10] = ["scenario", "threads", "ours", "unit", "peer", "peer's", "ratio", "spread", "bar", "note"];
const WIDTHS: [usize; 10] = [30, 7, 7, 4, 44, 7, 8, 14, 28, 0];

fn print_head(out: &mut impl Write, request: &Request) -> io::Result<()> {
    match request.format {
        Format::Json => Ok(()),
        Format::Table => writeln!(out, "{}", aligned(&TITLES.map(str::to_owned))),
        Format::Markdown => {
            writeln!(out, "# What wellspring costs\n")?;
            for line in machine::lines() {
                writeln!(out, "- {line}")?;
            }
            let rounds = request.plan.rounds();
            writeln!(
                out,
                "\nOurs and the peer ran in alternation in one process. A figure is the median of {rounds} rounds (of three or more \
                 where a\nround takes seconds), the ratio is above 1 where we are better, the spread is the worst and the best \
                 round's ratio.\nConditions are in the doc comments of `src/scenario`. Written by `report --markdown`; rows we lose \
                 are printed like the others.\n"
            )?;
            writeln!(out, "| {} |", TITLES.join(" | "))?;
            writeln!(out, "|{}", " --- |".repeat(TITLES.len()))
        }
    }
}

fn print_row(out: &mut impl Write, format: Format, row: &Row) -> io::Result<()> {
    match format {
        Format::Json => writeln!(out, "{}", row.json()),
        Format::Table => writeln!(out, "{}", aligned(&row.cells())),
        Format::Markdown => {
            writeln!(out, "| {} |", row.cells().map(|cell| cell.replace('|', "\\|")).join(" | "))
        }
    }?;
    out.flush()
}

fn aligned(cells: &[String; 10]) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        // Figures to the right, words to the left.
        if matches!(column, 1 | 2 | 5 | 6) {
            line += &format!("{cell:>width$}  ");
        } else {
            line += &format!("{cell:<width$}  ");
        }
    }
    line.trim_end().to_owned()
}
