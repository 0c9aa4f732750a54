//! The command line.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::{Long, Short, Value};

use crate::cluster::Cluster;
use crate::cut::Cut;
use crate::data::Data;
use crate::error::ShopError;
use crate::figure::Figure;
use crate::remote_watch::RemoteWatch;
use crate::serve::Serve;
use crate::why::Explain;

mod servers;
mod watch;

/// What `--help` prints.
pub const HELP: &str = "\
wellspring-shop: a retail service whose totals stay fresh, measured beside the same calls in SQL

usage: wellspring-shop [options]
       wellspring-shop serve (--db PATH | --postgres URL) [--listen ADDR | --no-listen] [--port N] [--watch KEY] [--data DIR]
                             [--schema NAME]
       wellspring-shop watch --url ws://HOST:PORT/rpc/ws KEY...
       wellspring-shop cluster [--servers N] [options of a cluster]
       wellspring-shop why KEY [--data DIR] [--db PATH]
       wellspring-shop cut --data DIR --weeks A-B --out DIR

  --seconds S       how long readers and the writer run            [5]
  --readers N       reader threads                                 [one per core]
  --updates N       the writer's updates per second                [500]
  --seed N          of the choice of keys and updates              [1]
  --capacity N      hold N values at most; the least used are evicted  [no limit]
  --data DIR        load the full files instead of the built-in four weeks
  --db PATH         keep the SQLite database there; one made by an earlier run is used as it is
                    [a temporary file]
  --watch KEY       print a line each time a value changes, such as price:1110843 or basket_total:33002280318;
                    may be repeated
  --json            print one JSON object instead of the table
  --fault skip-invalidation
                    forget one invalidation: the check must find it
  --help            this text

serve is one server of several on one database: start it in as many terminals as you like. A price set in one is seen in all. It
answers lines on standard input (type help) and on a TCP port of 127.0.0.1, and ends when standard input does. It also has a page to look
at in a browser, and its functions at /rpc/ws.

  --db PATH         a SQLite file, made if it is not there
  --postgres URL    a PostgreSQL database instead, such as postgres://postgres@127.0.0.1/postgres
  --schema NAME     the schema in it                               [shop]
  --listen ADDR     where the page is, such as 127.0.0.1:8080; port 0 for one that is free. Whoever reaches it can set prices.
                    [127.0.0.1:7070, and if that is taken a port that is free]
  --no-listen       no page, and nothing over the network
  --port N          the TCP port for lines; 0 for one that is free [0]
  --watch KEY       print a line each time a value changes, whoever has changed it; may be repeated

watch prints a line each time a value of a server changes, and whether it is connected to it; it ends when it is interrupted.

cluster starts servers, reads and writes on all of them, measures how long a change takes to the others, and at the end has each
compare every cached value with the database. Nobody else may write meanwhile. Updates are due at fixed times, each server's one
after the other; what comes late counts from when it was due.

  --servers N       how many                                       [4]
  --seconds S       how long                                       [10]
  --updates N       updates per second, all servers together       [50]
  --reads N         reads per second and server                    [5000]
  --cold            start with an empty cache; otherwise every server computes every value first
  --kill            kill one server every second, as kill -9 does, and start it again
  --db, --postgres, --schema, --data, --seed, --json, --fault as above    [a temporary SQLite file]

why computes a value such as basket_total:33002280318, changes the price of a product it was made from, and tells
before, then and afterwards: its state and why, what it was made from, and what was made from it.

cut writes the lines of weeks A to B of the files in --data, and the products they name, to --out.

At the end of a run every cached value is checked against SQL, with --capacity every value there is. Exit status: 0 all fresh,
1 a stale value was found (each is printed with its key) or nothing was proven, 2 the run failed.
";

/// What the program was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Run the service.
    Run(Options),
    /// Be one server of several.
    Serve(Serve),
    /// Start several servers and measure them.
    Cluster(Cluster),
    /// Watch the figures of a server somewhere.
    Watch(RemoteWatch),
    /// Explain a figure.
    Why(Explain),
    /// Cut a fixture.
    Cut(Cut),
}

/// How to run the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How long readers and writer run.
    pub time: Duration,
    /// Reader threads.
    pub readers: usize,
    /// The writer's updates per second.
    pub updates: u32,
    /// Of the choice of keys and updates.
    pub seed: u64,
    /// How many values the engine may hold; all when not said.
    pub capacity: Option<usize>,
    /// Where the baskets come from; none when not said.
    pub data: Option<Data>,
    /// Where the database is kept; a temporary file when not said.
    pub db: Option<PathBuf>,
    /// Figures of which every change is printed.
    pub watch: Vec<Figure>,
    /// One JSON object instead of the table.
    pub json: bool,
    /// What to break on purpose.
    pub fault: Option<Fault>,
}

/// A fault the program can be asked to have, to show that the check would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The writer forgets one invalidation.
    SkipInvalidation,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(5),
            readers: std::thread::available_parallelism().map_or(1, usize::from).min(MAX_READERS),
            updates: 500,
            seed: 1,
            capacity: None,
            data: None,
            db: None,
            watch: Vec::new(),
            json: false,
            fault: None,
        }
    }
}

/// Each reader keeps a database connection open, so their number is bounded.
const MAX_READERS: usize = 256;

/// What an engine has room for: more would bound nothing.
const MAX_ENTRIES: usize = 1 << 28;

/// Reads the command line (without the program's name).
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, ShopError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut options = Options::default();
    let mut first = true;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Value(word) if first && word == "cut" => return parse_cut(parser),
            Value(word) if first && word == "why" => return parse_why(parser),
            Value(word) if first && word == "serve" => return servers::parse_serve(parser),
            Value(word) if first && word == "watch" => return watch::parse_watch(parser),
            Value(word) if first && word == "cluster" => return servers::parse_cluster(parser),
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("seconds") => options.time = seconds(&text(&mut parser)?)?,
            Long("readers") => options.readers = number(&mut parser, "--readers", 1..=MAX_READERS)?,
            Long("updates") => options.updates = number(&mut parser, "--updates", 1..=1_000_000)?,
            Long("seed") => options.seed = number(&mut parser, "--seed", 0..=u64::MAX)?,
            Long("capacity") => options.capacity = Some(number(&mut parser, "--capacity", 1..=MAX_ENTRIES)?),
            Long("data") => options.data = Some(Data::Folder(path(&mut parser)?)),
            Long("db") => options.db = Some(path(&mut parser)?),
            Long("watch") => options.watch.push(figure("--watch", parser.value().map_err(usage)?)?),
            Long("json") => options.json = true,
            Long("fault") => options.fault = Some(fault(&text(&mut parser)?)?),
            other => return Err(usage(other.unexpected())),
        }
        first = false;
    }
    Ok(Command::Run(options))
}

fn parse_cut(mut parser: lexopt::Parser) -> Result<Command, ShopError> {
    let (mut data, mut wanted, mut out) = (None, None, None);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("data") => data = Some(path(&mut parser)?),
            Long("weeks") => wanted = Some(weeks(&text(&mut parser)?)?),
            Long("out") => out = Some(path(&mut parser)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    match (data, wanted, out) {
        (Some(data), Some(weeks), Some(out)) => Ok(Command::Cut(Cut { data, weeks, out })),
        _ => Err(ShopError::Usage("cut needs --data, --weeks and --out".to_owned())),
    }
}

fn parse_why(mut parser: lexopt::Parser) -> Result<Command, ShopError> {
    let (mut wanted, mut data, mut db) = (None, None, None);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Value(key) if wanted.is_none() => wanted = Some(figure("why", key)?),
            Long("data") => data = Some(Data::Folder(path(&mut parser)?)),
            Long("db") => db = Some(path(&mut parser)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    match wanted {
        Some(figure) => Ok(Command::Why(Explain { figure, data, db })),
        None => Err(ShopError::Usage("why needs a KEY such as basket_total:33002280318".to_owned())),
    }
}

fn usage(error: lexopt::Error) -> ShopError {
    ShopError::Usage(error.to_string())
}

fn text(parser: &mut lexopt::Parser) -> Result<String, ShopError> {
    in_words(parser.value().map_err(usage)?)
}

fn in_words(value: OsString) -> Result<String, ShopError> {
    value.into_string().map_err(|value| ShopError::Usage(format!("{value:?} is not text")))
}

fn path(parser: &mut lexopt::Parser) -> Result<PathBuf, ShopError> {
    parser.value().map(PathBuf::from).map_err(usage)
}

fn number<N: FromStr + PartialOrd + std::fmt::Display>(
    parser: &mut lexopt::Parser,
    option: &str,
    range: RangeInclusive<N>,
) -> Result<N, ShopError> {
    let value = text(parser)?;
    value
        .parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| ShopError::Usage(format!("{option} {value}: not a number from {} to {}", range.start(), range.end())))
}

fn figure(asked_by: &str, key: OsString) -> Result<Figure, ShopError> {
    in_words(key)?.parse().map_err(|error| match error {
        ShopError::Usage(text) => ShopError::Usage(format!("{asked_by} {text}")),
        other => other,
    })
}

fn seconds(value: &str) -> Result<Duration, ShopError> {
    // A day is long enough, and keeps every counter far from its end.
    let seconds = value.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| ShopError::Usage(format!("--seconds {value}: not a number over 0 and up to 86400")))
}

fn weeks(value: &str) -> Result<RangeInclusive<u32>, ShopError> {
    let (from, to) = value.split_once('-').unwrap_or((value, value));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from <= to => Ok(from..=to),
        _ => Err(ShopError::Usage(format!("--weeks {value}: not a week or a range such as 19-22"))),
    }
}

fn fault(value: &str) -> Result<Fault, ShopError> {
    match value {
        "skip-invalidation" => Ok(Fault::SkipInvalidation),
        _ => Err(ShopError::Usage(format!("--fault {value}: only skip-invalidation is known"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, ShopError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn nothing_said_means_five_seconds_of_the_fixture_in_a_temporary_file() {
        let Ok(Command::Run(options)) = parsed("") else { panic!("no run") };
        assert_eq!(options, Options::default());
        assert_eq!(options.time, Duration::from_secs(5));
        assert!(options.readers >= 1 && options.data.is_none() && options.db.is_none());
    }

    #[test]
    fn every_option_is_read() {
        let line = "--seconds 0.5 --readers=3 --updates 7 --seed 9 --capacity 800 --data d --db f --watch price:7 --watch basket_total:8 --json --fault skip-invalidation";
        let expected = Options {
            time: Duration::from_millis(500),
            readers: 3,
            updates: 7,
            seed: 9,
            capacity: Some(800),
            data: Some(Data::Folder("d".into())),
            db: Some("f".into()),
            watch: vec![Figure::Price(7), Figure::BasketTotal(8)],
            json: true,
            fault: Some(Fault::SkipInvalidation),
        };
        assert_eq!(parsed(line), Ok(Command::Run(expected)));
    }

    #[test]
    fn help_wins_over_what_follows_it() {
        assert_eq!(parsed("--help --nonsense"), Ok(Command::Help));
        assert_eq!(parsed("cut -h"), Ok(Command::Help));
    }

    #[test]
    fn cut_takes_a_range_of_weeks_or_one() {
        let cut = |weeks| Command::Cut(Cut { data: "d".into(), weeks, out: "o".into() });
        assert_eq!(parsed("cut --data d --weeks 19-22 --out o"), Ok(cut(19..=22)));
        assert_eq!(parsed("cut --data d --weeks 7 --out o"), Ok(cut(7..=7)));
        assert!(parsed("cut --data d --weeks 9-2 --out o").is_err());
        assert!(parsed("cut --data d").is_err());
    }

    #[test]
    fn why_takes_one_figure_and_where_the_data_are() {
        let why = |data, db| Command::Why(Explain { figure: Figure::BasketTotal(8), data, db });
        assert_eq!(parsed("why basket_total:8"), Ok(why(None, None)));
        let data = Data::Folder("d".into());
        assert_eq!(parsed("why --data d basket_total:8 --db f"), Ok(why(Some(data), Some("f".into()))));
        assert_eq!(parsed("why -h"), Ok(Command::Help));
        for line in ["why", "why cost:7", "why price:7 price:8", "why price:7 --json", "--json why price:7"] {
            assert!(matches!(parsed(line), Err(ShopError::Usage(_))), "{line} was accepted");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_offending_word() {
        for line in [
            "--seconds 0",
            "--seconds nan",
            "--seconds -1",
            "--seconds inf",
            "--readers 0",
            "--readers 257",
            "--seed x",
            "--capacity 0",
            "--capacity -5",
            "--capacity all",
            "--capacity 1e6",
            "--capacity",
            "--watch",
            "--watch price",
            "--watch cost:7",
            "--fault other",
            "--what",
            "extra",
            "--json=yes",
            "--db",
            "--updates 0",
        ] {
            let Err(ShopError::Usage(text)) = parsed(line) else { panic!("{line} was accepted") };
            assert!(!text.is_empty());
        }
        assert!(parsed("--fault other").expect_err("refused").to_string().contains("other"));
    }
}
