//! What is spared: recomputations that a rule, a projection or a durable source makes unnecessary; and what a state and a picture cost.
//!
//! One thread each, sides in alternation. `spare/verify`: a total of a hundred keys of a source that never changes and one of a source
//! that always does, verified after each change, with the hundred durable and not. `spare/hash`: a value of 4,096 strings recomputed
//! equal, compared by hash and by `==`. `spare/project`: after a change of another field of a struct with 1,024 numbers, a reader of
//! one field through a projection, beside one that reads the whole struct by value and picks. `spare/consolidate`: a change that comes to
//! the same value, from `set` until the background has looked into it, beside the read that an ordinary function would need.
//! `state/set-get`: a `MutableState` set and read, beside `tokio::sync::watch` under `peers`. `export/json`: a graph of 10,000 nodes.

use std::hint::black_box;
use std::time::Duration;

use wellspring::{Cx, Engine, Function, Source};

use super::Scenario;
use crate::drive::Driver;
use crate::rounds::{alternate, nanos_each};
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "spare/verify", run: verify },
    Scenario { name: "spare/hash", run: hash },
    Scenario { name: "spare/project", run: project },
    Scenario { name: "spare/consolidate", run: consolidate },
    Scenario { name: "state/set-get", run: state },
    Scenario { name: "export/json", run: export },
];

fn turns(plan: Plan) -> u64 {
    if plan.quick { 200 } else { 2_000 }
}

/// A total of 100 steady keys and a parity of a changing one, which is what keeps it from being recomputed.
struct Steady {
    engine: Engine,
    changing: Source<u8, u64>,
    total: Function<u8, u64>,
    next: u64,
}

fn steady(durable: bool) -> Steady {
    let engine = Engine::new();
    let define = engine.define("steady").cut_off_eq();
    let define = if durable { define.durable() } else { define };
    let rows = define.source(|key: &u32| u64::from(*key)).expect("a free name");
    let changing = engine.source("changing", |_: &u8| 0_u64).expect("a free name");
    let inner = changing.clone();
    let parity = engine.define("parity").cut_off_eq().function(move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value") % 2);
    let parity = parity.expect("a free name");
    let body = move |cx: &Cx, key: &u8| {
        let steady: u64 = (0..100).map(|row| rows.get(cx, &row).expect("a value")).sum();
        steady + parity.get(cx, key).expect("a value")
    };
    let total = engine.function("total", body).expect("a free name");
    total.get(&engine, &0).expect("a value");
    Steady { engine, changing, total, next: 0 }
}

impl Steady {
    fn turn(&mut self) {
        self.next += 2;
        self.changing.set(&0, self.next);
        black_box(self.total.get(&self.engine, &0).expect("a value"));
    }
}

fn verify(name: &str, plan: Plan) -> Vec<Row> {
    let (mut durable, mut plain) = (steady(true), steady(false));
    let turns = turns(plan);
    let [ours, theirs] = alternate(
        plan.rounds(),
        [&mut || nanos_each(turns as usize, || (0..turns).for_each(|_| durable.turn())), &mut || {
            nanos_each(turns as usize, || (0..turns).for_each(|_| plain.turn()))
        }],
    );
    let runs = durable.engine.stats().functions.iter().find(|function| function.name == "total").map_or(0, |total| total.computes);
    let note = format!("101 dependencies, one of them changed; the total's body ran {runs} time");
    vec![Row::versus(name, 1, Unit::NANOS, &ours, "our own, with sources that are not durable", &theirs).note(note)]
}

fn hash(name: &str, plan: Plan) -> Vec<Row> {
    let side = |by_hash: bool| {
        let engine = Engine::new();
        let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
        let inner = source.clone();
        let define = engine.define("texts");
        let define = if by_hash { define.cut_off_hash() } else { define.cut_off_eq() };
        let body = move |cx: &Cx, key: &u8| {
            let parity = inner.get(cx, key).expect("a value") % 2;
            (0..4_096).map(|line| format!("line {line} of {parity}")).collect::<Vec<_>>()
        };
        let texts = define.function(body).expect("a free name");
        let mut next = 0;
        move || {
            next += 2;
            source.set(&0, next);
            black_box(texts.get(&engine, &0).expect("a value").len());
        }
    };
    let (mut by_hash, mut by_eq) = (side(true), side(false));
    let turns = turns(plan) / 20;
    let [ours, theirs] = alternate(
        plan.rounds(),
        [&mut || nanos_each(turns as usize, || (0..turns).for_each(|_| by_hash())) / 1e3, &mut || {
            nanos_each(turns as usize, || (0..turns).for_each(|_| by_eq())) / 1e3
        }],
    );
    vec![
        Row::versus(name, 1, Unit::MICROS, &ours, "our own, compared with ==", &theirs)
            .note("4,096 strings made, compared and kept as they were"),
    ]
}

#[derive(Clone, PartialEq)]
struct Big {
    name: u64,
    numbers: Vec<u64>,
}

fn project(name: &str, plan: Plan) -> Vec<Row> {
    let side = |projected: bool| {
        let engine = Engine::new();
        let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
        let inner = source.clone();
        let body = move |cx: &Cx, key: &u8| Big { name: 7, numbers: vec![inner.get(cx, key).expect("a value"); 1_024] };
        let big = engine.function("big", body).expect("a free name");
        let reader = if projected {
            let part = big.project("big.name", |big: &Big| big.name).expect("a free name");
            engine.function("reader", move |cx: &Cx, key: &u8| part.get(cx, key).expect("a value"))
        } else {
            engine.function("reader", move |cx: &Cx, key: &u8| big.get(cx, key).expect("a value").name)
        };
        let reader = reader.expect("a free name");
        let mut next = 0;
        move || {
            next += 1;
            source.set(&0, next);
            black_box(reader.get(&engine, &0).expect("a value"));
        }
    };
    let (mut projected, mut whole) = (side(true), side(false));
    let turns = turns(plan);
    let [ours, theirs] = alternate(
        plan.rounds(),
        [&mut || nanos_each(turns as usize, || (0..turns).for_each(|_| projected())), &mut || {
            nanos_each(turns as usize, || (0..turns).for_each(|_| whole()))
        }],
    );
    vec![Row::versus(name, 1, Unit::NANOS, &ours, "our own, reading the whole value", &theirs).note("the big value is made in both")]
}

fn consolidate(name: &str, plan: Plan) -> Vec<Row> {
    let side = |consolidated: bool| {
        let engine = Engine::new();
        let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
        let inner = source.clone();
        let define = engine.define("parity").cut_off_eq();
        let define = if consolidated { define.consolidate(Duration::ZERO) } else { define };
        let parity = define.function(move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value") % 2).expect("a free name");
        parity.get(&engine, &0).expect("a value");
        let driver = Driver::new();
        let mut next = 0;
        move || {
            next += 2;
            source.set(&0, next);
            if consolidated {
                driver.run(parity.when_consolidated(&0));
            }
            black_box(parity.get(&engine, &0).expect("a value"));
        }
    };
    let (mut consolidated, mut plain) = (side(true), side(false));
    let turns = turns(plan);
    let [ours, theirs] = alternate(
        plan.rounds(),
        [&mut || nanos_each(turns as usize, || (0..turns).for_each(|_| consolidated())) / 1e3, &mut || {
            nanos_each(turns as usize, || (0..turns).for_each(|_| plain())) / 1e3
        }],
    );
    vec![
        Row::versus(name, 1, Unit::MICROS, &ours, "our own, recomputed by its reader", &theirs)
            .note("a thread is woken and waited for; what it buys is that nobody downstream hears of the change"),
    ]
}

fn state(name: &str, plan: Plan) -> Vec<Row> {
    let engine = Engine::new();
    let state = engine.mutable_state(0_u64).expect("room");
    let mut next = 0;
    let turns = turns(plan) * 10;
    let mut ours_once = || {
        nanos_each(turns as usize, || {
            for _ in 0..turns {
                next += 1;
                state.set(next);
                black_box(state.get(&engine).expect("a value"));
            }
        })
    };
    #[cfg(feature = "peers")]
    {
        let (sender, receiver) = tokio::sync::watch::channel(0_u64);
        let mut count = 0;
        let mut theirs_once = || {
            nanos_each(turns as usize, || {
                for _ in 0..turns {
                    count += 1;
                    sender.send(count).expect("a receiver");
                    black_box(*receiver.borrow());
                }
            })
        };
        let [ours, theirs] = alternate(plan.rounds(), [&mut ours_once, &mut theirs_once]);
        vec![Row::versus(name, 1, Unit::NANOS, &ours, "tokio::sync::watch send and borrow (tracks no dependencies)", &theirs)]
    }
    #[cfg(not(feature = "peers"))]
    {
        let [ours] = alternate(plan.rounds(), [&mut ours_once]);
        vec![Row::alone(name, 1, Unit::NANOS, &ours, "tokio::sync::watch: build with the feature `peers`")]
    }
}

fn export(name: &str, plan: Plan) -> Vec<Row> {
    let engine = Engine::new();
    let source = engine.source("source", |key: &u32| u64::from(*key)).expect("a free name");
    let sum =
        engine.function("sum", move |cx: &Cx, key: &u32| (0..5).map(|part| source.get(cx, &(key + part)).expect("a value")).sum::<u64>());
    let sum = sum.expect("a free name");
    for key in 0..5_000 {
        sum.get(&engine, &key).expect("a value");
    }
    let mut bytes = 0;
    let [ours] = alternate(plan.rounds(), [&mut || nanos_each(1, || bytes = black_box(engine.export().json()).len()) / 1e6]);
    vec![
        Row::alone(name, 1, Unit::MILLIS, &ours, "none: no peer draws its graph")
            .note(format!("10,004 nodes, 25,000 edges, {} KiB", bytes / 1_024)),
    ]
}
