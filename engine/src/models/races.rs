//! loom: the small races, every interleaving up to the preemption bound.

use loom::thread;

use crate::column::Columns;
use crate::edge::{Edge, Edges};
use crate::node::{Head, State};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::table::Table;
use crate::{Cx, Engine, Function, Source};

fn model(check: impl Fn() + Send + Sync + 'static) {
    bounded(2, check);
}

/// The bound is what fits CI's time; `LOOM_MAX_PREEMPTIONS` raises it.
fn bounded(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(std::env::var("LOOM_MAX_PREEMPTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(preemptions));
    builder.max_branches = 200_000;
    builder.check(check);
}

/// A source and one function of it.
fn doubled() -> (Engine, Source<u8, u64>, Function<u8, u64>) {
    let engine = Engine::builder().sweep_threads(1).build();
    let source = engine.source("source", |_: &u8| 1_u64).expect("a free name");
    let double = {
        let source = source.clone();
        let body = move |cx: &Cx, key: &u8| source.get(cx, key).expect("a value") * 2;
        engine.define("double").cut_off_eq().function(body).expect("a free name")
    };
    (engine, source, double)
}

#[test]
fn a_value_published_while_its_source_changes_is_never_left_consistent() {
    model(|| {
        let (engine, source, double) = doubled();
        source.get(&engine, &0).expect("a value");
        let reader = thread::spawn({
            let (engine, double) = (engine.clone(), double.clone());
            move || double.get(&engine, &0).expect("a value")
        });
        source.set(&0, 5);
        // I2: the set has returned.
        assert_eq!(double.get(&engine, &0), Ok(10), "an old value after the change returned");
        let seen = reader.join().expect("no panic");
        assert!(seen == 2 || seen == 10);
        assert_eq!(double.get(&engine, &0), Ok(10));
        engine.assert_consistent();
    });
}

#[test]
fn a_caller_that_joins_after_an_invalidation_returned_never_gets_the_old_flight() {
    model(|| {
        let (engine, source, double) = doubled();
        source.get(&engine, &0).expect("a value");
        let flight = thread::spawn({
            let (engine, double) = (engine.clone(), double.clone());
            move || double.get(&engine, &0).map(drop)
        });
        let late = thread::spawn({
            let (engine, source, double) = (engine.clone(), source.clone(), double.clone());
            move || {
                source.set(&0, 5);
                double.get(&engine, &0)
            }
        });
        assert_eq!(late.join().expect("no panic"), Ok(10));
        assert_eq!(flight.join().expect("no panic"), Ok(()));
        engine.assert_consistent();
    });
}

#[test]
fn a_verification_that_meets_a_second_sweep_does_not_bring_the_old_value_back() {
    model(|| {
        let (engine, source, double) = doubled();
        double.get(&engine, &0).expect("a value");
        // The source is touched without a change: `double` is maybe stale and its verification would succeed.
        source.invalidate(&0);
        double.get(&engine, &0).expect("a value");
        source.invalidate(&0);
        let verifier = thread::spawn({
            let (engine, double) = (engine.clone(), double.clone());
            move || double.get(&engine, &0).expect("a value")
        });
        source.set(&0, 7);
        assert_eq!(double.get(&engine, &0), Ok(14));
        let seen = verifier.join().expect("no panic");
        assert!(seen == 2 || seen == 14);
        engine.assert_consistent();
    });
}

#[test]
fn a_maybe_stale_value_verified_beside_a_sweep_is_marked_again() {
    bounded(1, || {
        let engine = Engine::builder().sweep_threads(1).build();
        let source = engine.source("source", |_: &u8| 1_u64).expect("a free name");
        let parity = {
            let source = source.clone();
            let body = move |cx: &Cx, key: &u8| source.get(cx, key).expect("a value") % 2;
            engine.define("parity").cut_off_eq().function(body).expect("a free name")
        };
        let label = {
            let parity = parity.clone();
            engine.function("label", move |cx: &Cx, key: &u8| parity.get(cx, key).expect("a value") + 10).expect("a free name")
        };
        assert_eq!(label.get(&engine, &0), Ok(11));
        source.set(&0, 3);
        // `label` is maybe stale now; verifying it finds `parity` unchanged.
        let verifier = thread::spawn({
            let (engine, label) = (engine.clone(), label.clone());
            move || label.get(&engine, &0).expect("a value")
        });
        source.set(&0, 4);
        assert_eq!(label.get(&engine, &0), Ok(10));
        let seen = verifier.join().expect("no panic");
        assert!(seen == 11 || seen == 10);
        engine.assert_consistent();
    });
}

#[test]
fn an_edge_is_swept_or_its_registrar_sees_the_list_closed() {
    model(|| {
        let graph = Arc::new((Columns::new(16), Edges::new()));
        let slot = graph.0.chunk(0).expect("room");
        let row = graph.0.row(slot);
        row.head.store(Head::new(State::Consistent, 1, 1).0, Ordering::Release);
        let registrar = thread::spawn({
            let graph = graph.clone();
            move || {
                let (columns, edges) = &*graph;
                edges.append(columns, slot, Edge { slot: slot + 1, generation: 0 }, || {
                    let open = Head(columns.row(slot).head.load(Ordering::Acquire)).is_consistent();
                    if open { Ok(true) } else { Err(false) }
                })
            }
        });
        // The sweep: mark under the list's lock, then take.
        let mark = || {
            row.head.store(Head::new(State::Pending, 1, 1).0, Ordering::Release);
            Ok::<(), ()>(())
        };
        let taken = graph.1.take_if(&row.rev, mark).expect("marked");
        let mut swept = 0;
        graph.1.walk(taken, |_| swept += 1);
        let registered = registrar.join().expect("no panic");
        assert_eq!(registered, swept == 1, "registered: {registered}, swept: {swept}");
        assert!(graph.1.list(&row.rev).is_empty());
    });
}

#[test]
fn a_lookup_finds_what_was_inserted_before_the_table_grew() {
    model(|| {
        let (table, mut writer) = Table::new(16).expect("memory");
        let table = Arc::new(table);
        // Both growths move key 1 to the upper half.
        let hash = |slot: u32| !u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert!(table.make_room(&mut writer, hash, |_| ()));
        table.insert(&mut writer, hash(1), 1);
        let reader = thread::spawn({
            let table = table.clone();
            move || table.find(hash(1), |slot| (slot == 1).then_some(()))
        });
        for slot in 2..4 {
            assert!(table.make_room(&mut writer, hash, |_| ()));
            table.insert(&mut writer, hash(slot), slot);
        }
        assert!(reader.join().expect("no panic").is_some(), "growth hid an older key");
    });
}

#[test]
fn a_commit_returns_only_when_another_threads_sweep_has_marked_its_roots() {
    model(|| {
        let (engine, source, double) = doubled();
        double.get(&engine, &0).expect("a value");
        let other = thread::spawn({
            let (source, double) = (source.clone(), double.clone());
            move || {
                source.set(&0, 5);
                assert!(double.existing(&0).is_none(), "consistent after the set to 5 returned");
            }
        });
        source.set(&0, 7);
        assert!(double.existing(&0).is_none(), "consistent after the set to 7 returned");
        other.join().expect("no panic");
        let last = source.get(&engine, &0).expect("a value");
        assert_eq!(double.get(&engine, &0), Ok(last * 2));
        engine.assert_consistent();
    });
}

#[test]
fn a_borrowed_value_outlives_its_replacement_until_the_pin_is_gone() {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    #[derive(Clone)]
    struct Tracked(std::sync::Arc<AtomicUsize>);
    impl Drop for Tracked {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    model(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let drops = std::sync::Arc::new(AtomicUsize::new(0));
        let source = {
            let drops = drops.clone();
            engine.define("source").source(move |_: &u8| Tracked(drops.clone())).expect("a free name")
        };
        drop(source.get(&engine, &0));
        let before = drops.load(SeqCst);
        let writer = thread::spawn({
            let (engine, source) = (engine.clone(), source.clone());
            let fresh = Tracked(std::sync::Arc::new(AtomicUsize::new(0)));
            move || {
                source.set(&0, fresh);
                engine.collect();
            }
        });
        {
            let pin = engine.pin();
            if let Some(read) = source.peek(&pin, &0)
                && std::sync::Arc::ptr_eq(&read.0, &drops)
            {
                assert_eq!(drops.load(SeqCst), before, "dropped under a pin that can see it");
                thread::yield_now();
                assert_eq!(drops.load(SeqCst), before, "dropped under a pin that can see it");
            }
        }
        writer.join().expect("no panic");
        engine.collect();
        assert_eq!(drops.load(SeqCst), before + 1, "dropped once, after the pin");
    });
}

#[test]
fn a_reader_of_an_inline_value_never_mixes_two_generations() {
    model(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let source = engine.source("source", |_: &u8| 1_u64).expect("a free name");
        source.set(&0, 1);
        let reader = thread::spawn({
            let (engine, source) = (engine.clone(), source.clone());
            move || {
                let pin = engine.pin();
                let first = source.peek(&pin, &0).map(|read| *read);
                let second = source.peek(&pin, &0).map(|read| *read);
                // I3: never back to an older generation.
                assert!(!(first == Some(2) && second == Some(1)), "time ran backwards");
            }
        });
        source.set(&0, 2);
        let pin = engine.pin();
        assert_eq!(source.peek(&pin, &0).map(|read| *read), Some(2));
        drop(pin);
        reader.join().expect("no panic");
        engine.assert_consistent();
    });
}

#[test]
fn a_read_of_a_removed_key_never_shows_its_slots_next_value() {
    model(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let source = engine.source("source", |key: &u8| 100 + u64::from(*key)).expect("a free name");
        source.get(&engine, &0).expect("a value");
        let reader = thread::spawn({
            let (engine, source) = (engine.clone(), source.clone());
            move || {
                let pin = engine.pin();
                let seen = source.peek(&pin, &0).map(|read| *read);
                assert!(matches!(seen, None | Some(100)), "I32: key 0 read as {seen:?}");
            }
        });
        source.remove(&0);
        source.get(&engine, &1).expect("a value");
        reader.join().expect("no panic");
        engine.assert_consistent();
    });
}

/// The store-load pair of sweeps and owners, alone: a node maybe stale through one dependency is verified while the other, whose
/// list still has its edge, is marked.
#[test]
fn a_verification_beside_a_sweep_is_marked_or_meets_the_mark() {
    model(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let source = engine.source("source", |_: &u8| 1_u64).expect("a free name");
        let one = engine.function("one", |_: &Cx, _: &u8| 1_u64).expect("a free name");
        let sum = {
            let (one, source) = (one.clone(), source.clone());
            let body = move |cx: &Cx, key: &u8| one.get(cx, key).expect("a value") + source.get(cx, key).expect("a value");
            engine.function("sum", body).expect("a free name")
        };
        sum.get(&engine, &0).expect("a value");
        // `sum` is maybe stale for a node below it that turns out unchanged; `one` still has its edge.
        let head = sum.graph.head(sum.node(&0).expect("a node").id().slot());
        sum.graph.swing(sum.node(&0).expect("a node").id().slot(), head, head.in_state(State::Pending)).expect("quiet");
        let verifier = thread::spawn({
            let (engine, sum) = (engine.clone(), sum.clone());
            move || sum.get(&engine, &0).expect("a value")
        });
        one.invalidate(&0);
        assert_eq!(verifier.join().expect("no panic"), 2);
        engine.assert_consistent();
    });
}

/// The same pair for durable sources: the verification does not look at the source, and goes by the number of durable changes.
#[test]
fn a_durable_source_that_changes_beside_a_verification_is_not_passed_over() {
    model(|| {
        let engine = Engine::builder().sweep_threads(1).build();
        let rule = engine.define("rule").cut_off_eq().durable().source(|_: &u8| 1_u64).expect("a free name");
        let double = {
            let rule = rule.clone();
            engine.function("double", move |cx: &Cx, key: &u8| rule.get(cx, key).expect("a value") * 2).expect("a free name")
        };
        double.get(&engine, &0).expect("a value");
        // `double` is maybe stale, and its stamp says that nothing durable changed.
        let slot = double.node(&0).expect("a node").id().slot();
        let head = double.graph.head(slot);
        double.graph.swing(slot, head, head.in_state(State::Pending)).expect("quiet");
        let verifier = thread::spawn({
            let (engine, double) = (engine.clone(), double.clone());
            move || double.get(&engine, &0).expect("a value")
        });
        rule.set(&0, 2);
        let early = verifier.join().expect("no panic");
        assert!(early == 2 || early == 4, "{early}");
        assert_eq!(double.get(&engine, &0), Ok(4), "I1 at quiescence");
        engine.assert_consistent();
    });
}

#[test]
fn a_value_read_in_a_section_outlives_its_replacement_until_the_section_is_over() {
    model(|| {
        let shared = Arc::new((crate::section::Sections::new(), AtomicU64::new(1), AtomicU64::new(0)));
        let reader = thread::spawn({
            let shared = shared.clone();
            move || {
                let (sections, current, freed) = &*shared;
                let entry = sections.register();
                for _ in 0..2 {
                    let section = entry.enter();
                    let value = current.load(Ordering::Relaxed);
                    assert_ne!(freed.load(Ordering::Relaxed), value, "freed under a reader");
                    drop(section);
                }
                entry.leave();
            }
        });
        let (sections, current, freed) = &*shared;
        let old = current.swap(2, Ordering::Relaxed);
        if sections.inside().expect("offered").is_over() {
            freed.store(old, Ordering::Relaxed);
        }
        reader.join().expect("no panic");
        assert!(sections.inside().expect("offered").is_over());
    });
}
