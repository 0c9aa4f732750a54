//! The command lines of one server among several, and of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short};

use super::{Command, fault, figure, number, path, seconds, text, usage};
use crate::cluster::Cluster;
use crate::data::Data;
use crate::database::Address;
use crate::error::ShopError;
use crate::serve::{Listen, MOST_READS, Serve};

/// Each is a process with its own cache and connections.
const MOST_SERVERS: usize = 32;

/// What PostgreSQL takes for a name is 63 bytes; the log's schema has four more than this one.
const LONGEST_SCHEMA: usize = 59;

/// What says where the database is, as far as it was said.
#[derive(Debug, Default)]
struct Whereabouts {
    db: Option<PathBuf>,
    postgres: Option<String>,
    schema: Option<String>,
}

impl Whereabouts {
    /// The address; none when neither kind of database was named.
    fn address(self) -> Result<Option<Address>, ShopError> {
        match self {
            Self { db: Some(_), postgres: Some(_), .. } => Err(ShopError::Usage("--db and --postgres exclude each other".to_owned())),
            Self { postgres: None, schema: Some(schema), .. } => Err(ShopError::Usage(format!("--schema {schema}: only with --postgres"))),
            Self { db, postgres: None, .. } => Ok(db.map(Address::Sqlite)),
            Self { postgres: Some(url), schema, .. } => {
                Ok(Some(Address::Postgres { url, schema: schema.unwrap_or_else(|| "shop".to_owned()) }))
            }
        }
    }
}

pub(super) fn parse_serve(mut parser: lexopt::Parser) -> Result<Command, ShopError> {
    let (mut whereabouts, mut data, mut port, mut watch) = (Whereabouts::default(), None, 0, Vec::new());
    let mut listen = None;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("db") => whereabouts.db = Some(path(&mut parser)?),
            Long("postgres") => whereabouts.postgres = Some(url(&text(&mut parser)?)?),
            Long("schema") => whereabouts.schema = Some(schema(&text(&mut parser)?)?),
            Long("data") => data = Some(Data::Folder(path(&mut parser)?)),
            Long("port") => port = number(&mut parser, "--port", 0..=u16::MAX)?,
            Long("listen") => listen = Some(only(listen, Listen::At(address(&text(&mut parser)?)?))?),
            Long("no-listen") => listen = Some(only(listen, Listen::Nowhere)?),
            Long("watch") => watch.push(figure("--watch", parser.value().map_err(usage)?)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    match whereabouts.address()? {
        Some(address) => Ok(Command::Serve(Serve { address, data, port, listen: listen.unwrap_or_default(), watch })),
        None => Err(ShopError::Usage("serve needs --db PATH or --postgres URL".to_owned())),
    }
}

pub(super) fn parse_cluster(mut parser: lexopt::Parser) -> Result<Command, ShopError> {
    let (mut whereabouts, mut cluster) = (Whereabouts::default(), Cluster::default());
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("servers") => cluster.servers = number(&mut parser, "--servers", 1..=MOST_SERVERS)?,
            Long("seconds") => cluster.time = seconds(&text(&mut parser)?)?,
            Long("updates") => cluster.updates = number(&mut parser, "--updates", 1..=100_000)?,
            Long("reads") => cluster.reads = number(&mut parser, "--reads", 0..=MOST_READS)?,
            Long("seed") => cluster.seed = number(&mut parser, "--seed", 0..=u64::MAX)?,
            Long("db") => whereabouts.db = Some(path(&mut parser)?),
            Long("postgres") => whereabouts.postgres = Some(url(&text(&mut parser)?)?),
            Long("schema") => whereabouts.schema = Some(schema(&text(&mut parser)?)?),
            Long("data") => cluster.data = Some(Data::Folder(path(&mut parser)?)),
            Long("cold") => cluster.cold = true,
            Long("kill") => cluster.kill = true,
            Long("fault") => cluster.fault = Some(fault(&text(&mut parser)?)?),
            Long("json") => cluster.json = true,
            other => return Err(usage(other.unexpected())),
        }
    }
    cluster.address = whereabouts.address()?;
    Ok(Command::Cluster(cluster))
}

/// What was said, if nothing else was.
fn only(before: Option<Listen>, said: Listen) -> Result<Listen, ShopError> {
    match before {
        Some(before) if before != said => Err(ShopError::Usage("--listen is said once, and not with --no-listen".to_owned())),
        _ => Ok(said),
    }
}

fn address(value: &str) -> Result<SocketAddr, ShopError> {
    value.parse().map_err(|_| ShopError::Usage(format!("--listen {value}: not an address and a port such as 127.0.0.1:8080")))
}

/// The text, if it is an address that a PostgreSQL client understands.
fn url(value: &str) -> Result<String, ShopError> {
    match value.parse::<postgres::Config>() {
        // An option in it would be overruled by the schema's.
        Ok(config) if config.get_options().is_none() => Ok(value.to_owned()),
        Ok(_) => Err(ShopError::Usage(format!("--postgres {value}: options are not taken; see --schema"))),
        Err(error) => Err(ShopError::Usage(format!("--postgres {value}: {error}"))),
    }
}

/// A plain word, which needs no quotes anywhere.
fn schema(value: &str) -> Result<String, ShopError> {
    let starts = value.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let plain = value.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if starts && plain && value.len() <= LONGEST_SCHEMA && !value.starts_with("pg_") {
        return Ok(value.to_owned());
    }
    Err(ShopError::Usage(format!("--schema {value}: not a word of small letters, digits and _, up to {LONGEST_SCHEMA}")))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;
    use crate::figure::Figure;
    use crate::options::{Fault, parse};

    fn parsed(line: &str) -> Result<Command, ShopError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn postgres(schema: &str) -> Address {
        Address::Postgres { url: "postgres://u@h/d".to_owned(), schema: schema.to_owned() }
    }

    #[test]
    fn a_server_takes_a_file_or_a_postgresql_database() {
        let serve = |address, data, port, watch| Ok(Command::Serve(Serve { address, data, port, listen: Listen::Usual, watch }));
        assert_eq!(parsed("serve --db f"), serve(Address::Sqlite("f".into()), None, 0, vec![]));
        assert_eq!(parsed("serve --postgres postgres://u@h/d"), serve(postgres("shop"), None, 0, vec![]));
        let data = Some(Data::Folder("d".into()));
        let watch = vec![Figure::Price(7), Figure::BasketTotal(8)];
        let line = "serve --postgres postgres://u@h/d --schema s_1 --data d --port 8080 --watch price:7 --watch basket_total:8";
        assert_eq!(parsed(line), serve(postgres("s_1"), data, 8080, watch));
        assert_eq!(parsed("serve --help"), Ok(Command::Help));
    }

    #[test]
    fn a_server_listens_where_it_is_told_or_nowhere() {
        for (line, expected) in [
            ("serve --db f", Listen::Usual),
            ("serve --db f --listen 0.0.0.0:80", Listen::At(([0, 0, 0, 0], 80).into())),
            ("serve --listen [::1]:0 --db f", Listen::At("[::1]:0".parse().expect("an address"))),
            ("serve --no-listen --db f", Listen::Nowhere),
        ] {
            let Ok(Command::Serve(Serve { listen, .. })) = parsed(line) else { panic!("{line} was refused") };
            assert_eq!(listen, expected, "{line}");
        }
    }

    #[test]
    fn a_cluster_takes_everything_and_needs_nothing() {
        assert_eq!(parsed("cluster"), Ok(Command::Cluster(Cluster::default())));
        let line = "cluster --servers 2 --seconds 0.5 --updates 7 --reads 0 --seed 9 --postgres postgres://u@h/d --data d --cold --kill --json --fault skip-invalidation";
        let expected = Cluster {
            servers: 2,
            time: Duration::from_millis(500),
            updates: 7,
            reads: 0,
            seed: 9,
            address: Some(postgres("shop")),
            data: Some(Data::Folder("d".into())),
            cold: true,
            kill: true,
            json: true,
            fault: Some(Fault::SkipInvalidation),
        };
        assert_eq!(parsed(line), Ok(Command::Cluster(expected)));
        assert_eq!(parsed("cluster --servers 2 -h"), Ok(Command::Help));
    }

    #[test]
    fn nonsense_is_refused_with_the_offending_word() {
        for (line, word) in [
            ("serve", "--db PATH or --postgres"),
            ("serve f", "f"),
            ("serve --db", "--db"),
            ("serve --db f --port 65536", "65536"),
            ("serve --db f --listen 8080", "8080"),
            ("serve --db f --listen localhost:80", "localhost:80"),
            ("serve --db f --no-listen --listen 127.0.0.1:0", "--no-listen"),
            ("serve --db f --watch cost:7", "cost:7"),
            ("serve --db f --json", "--json"),
            ("serve --db f --postgres postgres://u@h/d", "exclude"),
            ("serve --db f --schema s", "--schema s"),
            ("serve --postgres http://h", "http://h"),
            ("serve --postgres postgres://u@h/d?options=x", "options"),
            ("serve --postgres postgres://u@h/d --schema s;drop", "s;drop"),
            ("serve --postgres postgres://u@h/d --schema 1s", "1s"),
            ("serve --postgres postgres://u@h/d --schema pg_x", "pg_x"),
            ("cluster --servers 0", "--servers 0"),
            ("cluster --servers 33", "--servers 33"),
            ("cluster --seconds never", "never"),
            ("cluster --updates 0", "--updates 0"),
            ("cluster --reads -1", "--reads -1"),
            ("cluster --kill=9", "9"),
            ("cluster --fault other", "other"),
            ("cluster --readers 2", "--readers"),
            ("cluster now", "now"),
            ("--json serve", "serve"),
        ] {
            let Err(ShopError::Usage(text)) = parsed(line) else { panic!("{line} was accepted") };
            assert!(text.contains(word), "{line}: {text}");
        }
    }
}
