//! The small graphs signal libraries measure each other by, beside leptos' `reactive_graph`.
//!
//! Conditions: one thread; a step is one write to a source and one read of every leaf, which stands for the effect the
//! published suites put there. Both sides cut off on equality: our nodes by rule, theirs are `ArcMemo`s over an
//! `ArcRwSignal`, read untracked from outside. Parameters are the published ones: broad 1 -> 50 branches of 2, deep 50,
//! diamond 1 -> 5 -> 1, mux 100 sources into one record read by 100 readers with one more step each, triangle 10,
//! unstable 20 reads that switch by parity, avoidable a chain of 5 that collapses at its second.

use std::hint::black_box;
use std::sync::Arc;

use wellspring::{Cx, Engine, Fault, Function, Source};

use super::Scenario;
use crate::rounds::nanos_each;
use crate::{Plan, Row};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "signals/broad", run: row },
    Scenario { name: "signals/deep", run: row },
    Scenario { name: "signals/diamond", run: row },
    Scenario { name: "signals/mux", run: row },
    Scenario { name: "signals/triangle", run: row },
    Scenario { name: "signals/unstable", run: row },
    Scenario { name: "signals/avoidable", run: row },
];

/// One write and the reads that follow it; returns the sum of the leaves.
pub type Step = Box<dyn FnMut(u64) -> u64>;

/// What the avoidable chain must not do: long enough to show in the figures if it runs.
fn heavy(value: u64) -> u64 {
    (0..100u64).fold(value, |sum, turn| black_box(sum ^ turn))
}

/// Our side of the shape `name` ends with.
pub fn ours(name: &str) -> Step {
    let engine = Engine::new();
    let graph = Graph { head: engine.source("head", |_: &u32| 0u64).expect("the name is free"), engine };
    match name.rsplit('/').next() {
        Some("broad") => graph.broad(),
        Some("deep") => graph.deep(),
        Some("diamond") => graph.diamond(),
        Some("mux") => graph.mux(),
        Some("triangle") => graph.triangle(),
        Some("unstable") => graph.unstable(),
        _ => graph.avoidable(),
    }
}

type Node = Function<u32, u64>;

fn of<V>(value: Result<V, Fault>) -> V {
    value.expect("no body fails")
}

struct Graph {
    engine: Engine,
    head: Source<u32, u64>,
}

impl Graph {
    fn node(&self, name: impl Into<String>, body: impl Fn(&Cx, u32) -> u64 + Send + Sync + 'static) -> Node {
        let built = self.engine.define(name).cut_off_eq().function(move |cx, &key: &u32| body(cx, key));
        built.expect("the name is free")
    }

    /// Writes the head, reads `leaf` for each of `0..leaves`.
    fn step(self, leaf: Node, leaves: u32) -> Step {
        Box::new(move |value| {
            self.head.set(&0, value);
            (0..leaves).fold(0u64, |sum, key| sum.wrapping_add(of(leaf.get(&self.engine, &key))))
        })
    }

    /// `length` nodes, each one more than the one before; the first reads the head.
    fn chain(&self, length: usize) -> Vec<Node> {
        let head = self.head.clone();
        let mut nodes = vec![self.node("link 0", move |cx, _| of(head.get(cx, &0)) + 1)];
        for link in 1..length {
            let before = nodes[link - 1].clone();
            nodes.push(self.node(format!("link {link}"), move |cx, _| of(before.get(cx, &0)) + 1));
        }
        nodes
    }

    fn broad(self) -> Step {
        let head = self.head.clone();
        let branch = self.node("branch", move |cx, key| of(head.get(cx, &0)) + u64::from(key));
        let leaf = self.node("leaf", move |cx, key| of(branch.get(cx, &key)) + 1);
        self.step(leaf, 50)
    }

    fn deep(self) -> Step {
        let leaf = self.chain(50).swap_remove(49);
        self.step(leaf, 1)
    }

    fn diamond(self) -> Step {
        let head = self.head.clone();
        let side = self.node("side", move |cx, _| of(head.get(cx, &0)) + 1);
        let sum = self.node("sum", move |cx, _| (0..5).map(|key| of(side.get(cx, &key))).sum());
        self.step(sum, 1)
    }

    fn mux(self) -> Step {
        let head = self.head.clone();
        let record = self
            .engine
            .define("record")
            .cut_off_eq()
            .function(move |cx, _: &u32| (0..100).map(|key| of(head.get(cx, &key))).collect::<Arc<[u64]>>())
            .expect("the name is free");
        let entry = self.node("entry", move |cx, key| of(record.get(cx, &0))[key as usize]);
        let leaf = self.node("leaf", move |cx, key| of(entry.get(cx, &key)) + 1);
        Box::new(move |value| {
            self.head.set(&(value as u32 % 100), value);
            (0..100u32).fold(0u64, |sum, key| sum.wrapping_add(of(leaf.get(&self.engine, &key))))
        })
    }

    fn triangle(self) -> Step {
        let links = self.chain(10);
        let sum = self.node("sum", move |cx, _| links.iter().map(|link| of(link.get(cx, &0))).sum());
        self.step(sum, 1)
    }

    fn unstable(self) -> Step {
        let [head, again, last] = [0; 3].map(|_| self.head.clone());
        let double = self.node("double", move |cx, _| of(head.get(cx, &0)).wrapping_mul(2));
        let inverse = self.node("inverse", move |cx, _| of(again.get(cx, &0)).wrapping_neg());
        let leaf = self.node("leaf", move |cx, _| {
            (0..20).fold(0u64, |sum, _| {
                let side = if of(last.get(cx, &0)) % 2 == 1 { &double } else { &inverse };
                sum.wrapping_add(of(side.get(cx, &0)))
            })
        });
        self.step(leaf, 1)
    }

    fn avoidable(self) -> Step {
        let head = self.head.clone();
        let first = self.node("first", move |cx, _| of(head.get(cx, &0)));
        let second = self.node("second", move |cx, _| of(first.get(cx, &0)) & (1 << 63));
        let third = self.node("third", move |cx, _| heavy(of(second.get(cx, &0))) + 1);
        let fourth = self.node("fourth", move |cx, _| of(third.get(cx, &0)) + 2);
        let fifth = self.node("fifth", move |cx, _| of(fourth.get(cx, &0)) + 3);
        self.step(fifth, 1)
    }
}

/// Nanoseconds a step, over a thousand of them.
fn per_step(step: &mut Step, turn: &mut u64) -> f64 {
    const STEPS: usize = 1_000;
    nanos_each(STEPS, || {
        let sum = (0..STEPS).fold(0u64, |sum, _| {
            *turn += 1;
            sum.wrapping_add(step(*turn))
        });
        black_box(sum);
    })
}

#[cfg(not(feature = "peers"))]
fn row(name: &str, plan: Plan) -> Vec<Row> {
    let (mut ours, mut turn) = (ours(name), 0);
    let [figures] = crate::rounds::alternate(plan.rounds(), [&mut || per_step(&mut ours, &mut turn)]);
    vec![Row::alone(name, 1, crate::Unit::NANOS, &figures, format!("reactive_graph: {}", super::NOT_BUILT))]
}

#[cfg(feature = "peers")]
fn row(name: &str, plan: Plan) -> Vec<Row> {
    let (mut ours, mut theirs) = (ours(name), peer::theirs(name));
    let (mut turn, mut their_turn) = (0, 0);
    for value in [3, 8, 5] {
        assert_eq!(ours(value), theirs(value), "both sides compute the same leaves");
    }
    let [ours, theirs] =
        crate::rounds::alternate(plan.rounds(), [&mut || per_step(&mut ours, &mut turn), &mut || per_step(&mut theirs, &mut their_turn)]);
    let peer = "leptos reactive_graph, ArcMemo over ArcRwSignal";
    vec![Row::versus(name, 1, crate::Unit::NANOS, &ours, peer, &theirs)]
}

#[cfg(feature = "peers")]
mod peer {
    use std::sync::Arc;

    use reactive_graph::computed::ArcMemo;
    use reactive_graph::owner::Owner;
    use reactive_graph::prelude::{Get, GetUntracked, Set, With};
    use reactive_graph::signal::ArcRwSignal;

    use super::{Step, heavy};

    type Memo = ArcMemo<u64>;

    fn memo(body: impl Fn() -> u64 + Send + Sync + 'static) -> Memo {
        ArcMemo::new(move |_| body())
    }

    fn step(owner: Owner, head: ArcRwSignal<u64>, leaves: Vec<Memo>) -> Step {
        Box::new(move |value| {
            let _alive = &owner;
            head.set(value);
            leaves.iter().fold(0u64, |sum, leaf| sum.wrapping_add(leaf.get_untracked()))
        })
    }

    fn chain(head: &ArcRwSignal<u64>, length: usize) -> Vec<Memo> {
        let head = head.clone();
        let mut nodes = vec![memo(move || head.get() + 1)];
        for link in 1..length {
            let before = nodes[link - 1].clone();
            nodes.push(memo(move || before.get() + 1));
        }
        nodes
    }

    pub(super) fn theirs(name: &str) -> Step {
        let owner = Owner::new();
        owner.set();
        let head = ArcRwSignal::new(0u64);
        let source = || head.clone();
        let leaves = match name.rsplit('/').next() {
            Some("broad") => (0..50u64)
                .map(|key| {
                    let head = source();
                    let branch = memo(move || head.get() + key);
                    memo(move || branch.get() + 1)
                })
                .collect(),
            Some("deep") => chain(&head, 50).split_off(49),
            Some("diamond") => {
                let sides: Vec<Memo> = (0..5)
                    .map(|_| {
                        let head = source();
                        memo(move || head.get() + 1)
                    })
                    .collect();
                vec![memo(move || sides.iter().map(Get::get).sum())]
            }
            Some("mux") => return mux(owner),
            Some("triangle") => {
                let links = chain(&head, 10);
                vec![memo(move || links.iter().map(Get::get).sum())]
            }
            Some("unstable") => {
                let [first, second, last] = [source(), source(), source()];
                let double = memo(move || first.get().wrapping_mul(2));
                let inverse = memo(move || second.get().wrapping_neg());
                vec![memo(move || {
                    (0..20).fold(0u64, |sum, _| sum.wrapping_add(if last.get() % 2 == 1 { double.get() } else { inverse.get() }))
                })]
            }
            _ => {
                let head = source();
                let first = memo(move || head.get());
                let second = memo(move || first.get() & (1 << 63));
                let third = memo(move || heavy(second.get()) + 1);
                let fourth = memo(move || third.get() + 2);
                vec![memo(move || fourth.get() + 3)]
            }
        };
        step(owner, head, leaves)
    }

    fn mux(owner: Owner) -> Step {
        let heads: Vec<ArcRwSignal<u64>> = (0..100).map(|_| ArcRwSignal::new(0)).collect();
        let record = ArcMemo::new({
            let heads = heads.clone();
            move |_| heads.iter().map(Get::get).collect::<Arc<[u64]>>()
        });
        let leaves: Vec<Memo> = (0..100usize)
            .map(|key| {
                let record = record.clone();
                let entry = memo(move || record.with(|record| record[key]));
                memo(move || entry.get() + 1)
            })
            .collect();
        Box::new(move |value| {
            let _alive = &owner;
            heads[value as usize % 100].set(value);
            leaves.iter().fold(0u64, |sum, leaf| sum.wrapping_add(leaf.get_untracked()))
        })
    }
}
