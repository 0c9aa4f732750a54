//! Reads of values of another process that are held here, in instructions: the time that one takes is lost in what else a machine does.

use std::hint::black_box;
use std::process::Command;

use super::{READER, text};
use crate::replicas::{local, replicas};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// Values that are read, again and again.
const VALUES: u64 = 1_000;
/// How often each is read. What a process does before it reads is not quite the same each time: this is a thousand times as much.
const ROUNDS: u64 = 1_000;

/// How values are read: the word by which a child is told so.
const WAYS: [&str; 2] = ["get", "peek"];
const PEER: &str = "the same read of an async function here";

pub(super) fn rows(name: &str, _: Plan) -> Vec<Row> {
    WAYS.iter().map(|way| row(&format!("{name}/{way}"), way)).collect()
}

fn row(name: &str, way: &str) -> Row {
    let one = |whose: &str| -> Result<f64, String> {
        let all = instructions(whose, way, ROUNDS)? - instructions(whose, way, 0)?;
        Ok(all / (VALUES * ROUNDS) as f64)
    };
    match one("replica").and_then(|replica| Ok((replica, one("local")?))) {
        Ok((replica, local)) => Row::versus(name, 1, Unit::INSTRUCTIONS, &[replica], PEER, &[local]).bar(Bar::Ratio(0.95)),
        Err(why) => Row::skipped(name, Unit::INSTRUCTIONS, PEER, &why),
    }
}

/// What a child uses in all, as valgrind counts it.
fn instructions(whose: &str, way: &str, rounds: u64) -> Result<f64, String> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe().map_err(text)?).args([READER, whose, way, &rounds.to_string()]);
    let output = command.output().map_err(|error| format!("valgrind counts them: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("refs:")).filter(|_| output.status.success());
    let count = count.and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
    count.ok_or_else(|| format!("valgrind said {}", said.lines().last().unwrap_or("nothing")))
}

/// Is the child.
pub(super) fn run(words: &[String]) -> Result<(), String> {
    let [whose, way, rounds] = words else { return Err(format!("{} words", words.len())) };
    let rounds: u64 = rounds.parse().map_err(text)?;
    let record = |value| [value; 12];
    let read = |value: &[u64; 12]| value[0];
    match (whose.as_str(), way.as_str()) {
        ("local", way) => {
            let here = local(VALUES, record);
            repeat(rounds, || if way == "get" { here.gets(VALUES, read) } else { here.peeks(VALUES, read) });
        }
        (_, way) => {
            let there = replicas(VALUES, record);
            let read = |value: &wellspring_rpc::Remoted<_>| value.as_result().map_or(0, read);
            repeat(rounds, || if way == "get" { there.here.gets(VALUES, read) } else { there.here.peeks(VALUES, read) });
        }
    }
    Ok(())
}

fn repeat(rounds: u64, all: impl Fn() -> u64) {
    for _ in 0..rounds {
        black_box(all());
    }
}
