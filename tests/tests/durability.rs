//! Durable sources: passed over by verifications, and never when they changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use wellspring::{Cx, Define, Engine, Function, RegisterError, Source};

const ROWS: u32 = 20;

/// A value made from one that is looked at, then many durable rows, then one more that is looked at.
struct Shop {
    engine: Engine,
    price: Source<u32, u64>,
    rule: Source<u32, u64>,
    /// `price / 100`: equal after small changes.
    rounded: Function<u32, u64>,
    total: Function<u32, u64>,
    runs: Arc<AtomicU64>,
}

fn shop() -> Shop {
    let engine = Engine::new();
    let price = engine.source("price", |_: &u32| 100_u64).expect("a free name");
    let rule = engine.define("rule").cut_off_eq().durable().source(|_: &u32| 1_u64).expect("a free name");
    let from = price.clone();
    let rounded = engine.define("rounded").cut_off_eq().function(move |cx: &Cx, key: &u32| from.get(cx, key).expect("a value") / 100);
    let rounded = rounded.expect("a free name");
    let (below, rules, runs) = (rounded.clone(), rule.clone(), Arc::new(AtomicU64::new(0)));
    let counter = runs.clone();
    let total = engine.function("total", move |cx: &Cx, key: &u32| {
        counter.fetch_add(1, SeqCst);
        let rules: u64 = (0..ROWS).map(|row| rules.get(cx, &row).expect("a value")).sum();
        below.get(cx, key).expect("a value") * 1000 + rules + below.get(cx, &(key + 1)).expect("a value")
    });
    Shop { engine, price, rule, rounded, total: total.expect("a free name"), runs }
}

impl Shop {
    fn total(&self) -> u64 {
        let total = self.total.get(&self.engine, &0).expect("a value");
        self.engine.assert_consistent();
        total
    }
    /// `total` is maybe stale, and verifying it will find nothing.
    fn stir(&self) {
        let price = self.price.get(&self.engine, &0).expect("a value");
        self.price.set(&0, price / 100 * 100 + (price + 1) % 100);
    }
}

#[test]
fn a_verified_value_is_the_same_with_durable_sources_below() {
    let shop = shop();
    assert_eq!(shop.total(), 1021);
    for _ in 0..3 {
        shop.stir();
        assert_eq!((shop.total(), shop.runs.load(SeqCst)), (1021, 1));
    }
    shop.price.set(&0, 300);
    assert_eq!((shop.total(), shop.runs.load(SeqCst)), (3021, 2));
}

#[test]
fn a_durable_change_is_seen_by_every_value_made_from_it_whatever_its_state() {
    let shop = shop();
    shop.total();
    for (round, row) in [0, ROWS - 1, 7].into_iter().enumerate() {
        let expected = 1021 + round as u64 + 1;
        match round {
            // Before, after and in the commit that makes it maybe stale.
            0 => {
                shop.rule.set(&row, 2);
                shop.stir();
            }
            1 => {
                shop.stir();
                shop.rule.set(&row, 2);
            }
            _ => {
                shop.engine.batch(|batch| {
                    batch.set(&shop.price, &0, 150);
                    batch.set(&shop.rule, &row, 2);
                });
            }
        }
        assert_eq!(shop.total(), expected, "round {round}");
        shop.stir();
        assert_eq!(shop.total(), expected, "and it is passed over again");
    }
}

#[test]
fn a_durable_row_that_nothing_was_made_from_only_costs_a_full_look() {
    let shop = shop();
    shop.total();
    shop.rule.set(&(ROWS + 1), 9);
    for _ in 0..2 {
        shop.stir();
        assert_eq!((shop.total(), shop.runs.load(SeqCst)), (1021, 1));
    }
}

#[test]
fn a_durable_source_that_is_invalidated_or_removed_counts_as_changed() {
    let shop = shop();
    shop.total();
    let changes: [&dyn Fn(); 6] = [
        &|| {
            shop.rule.invalidate(&3);
        },
        &|| {
            shop.rule.invalidate_all();
        },
        &|| {
            shop.engine.invalidate_everything();
        },
        &|| {
            shop.rule.remove(&4);
        },
        &|| {
            shop.rule.remove(&5);
            shop.rule.get(&shop.engine, &100).expect("a value in the slot of the removed row");
        },
        &|| {
            shop.rounded.remove(&1);
        },
    ];
    for (round, change) in changes.iter().enumerate() {
        shop.stir();
        change();
        assert_eq!((shop.total(), shop.runs.load(SeqCst)), (1021, round as u64 + 2), "round {round}");
        shop.stir();
        assert_eq!((shop.total(), shop.runs.load(SeqCst)), (1021, round as u64 + 2), "round {round}");
    }
}

#[test]
fn a_value_that_reads_other_rows_than_before_passes_over_those() {
    let engine = Engine::new();
    let hot = engine.source("hot", |_: &u32| 0_u64).expect("a free name");
    let rule = engine.define("rule").cut_off_eq().durable().source(|&row: &u32| u64::from(row)).expect("a free name");
    let (from, rules) = (hot.clone(), rule.clone());
    let chosen = engine.function("chosen", move |cx: &Cx, _: &u32| {
        let count = from.get(cx, &0).expect("a value") as u32;
        (count..count * 2 + 1).map(|row| rules.get(cx, &row).expect("a value")).sum::<u64>()
    });
    let chosen = chosen.expect("a free name");
    for count in [0, 3, 1, 8, 8, 2] {
        hot.set(&0, count);
        let expected: u64 = (count..=count * 2).sum();
        assert_eq!(chosen.get(&engine, &0), Ok(expected));
        engine.assert_consistent();
    }
    rule.set(&3, 100);
    assert_eq!(chosen.get(&engine, &0), Ok(2 + 100 + 4));
    rule.set(&9, 100);
    assert_eq!(chosen.get(&engine, &0), Ok(106));
    engine.assert_consistent();
}

#[test]
fn durable_is_for_sources() {
    let engine = Engine::new();
    let refused = engine.define::<u32, u64>("f").durable().function(|_, _| 0);
    assert_eq!(refused.err(), Some(RegisterError::OnlyForSources { name: "f".into(), option: "durable" }));
    let refused = engine.define::<u32, u64>("f").durable().async_function(|_, _| async { 0 });
    assert_eq!(refused.err(), Some(RegisterError::OnlyForSources { name: "f".into(), option: "durable" }));
    let _: Source<u32, u64> = Define::durable(engine.define("f")).source(|_: &u32| 0).expect("a free name");
}

#[test]
fn readers_beside_durable_changes_end_at_the_last_value() {
    let shop = shop();
    let last = 300;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..=last {
                shop.rule.set(&(value % ROWS), u64::from(value));
                let total = shop.total.get(&shop.engine, &0).expect("a value");
                assert!(total > 1000 + u64::from(value), "I2: {total} after the set to {value} returned");
            }
        });
        scope.spawn(|| (0..last).for_each(|_| shop.stir()));
        scope.spawn(|| {
            for _ in 0..last {
                shop.total.get(&shop.engine, &0).expect("a value");
            }
        });
    });
    let rules: u64 = (0..ROWS).map(|row| shop.rule.get(&shop.engine, &row).expect("a value")).sum();
    assert_eq!(shop.total(), 1001 + rules);
}
