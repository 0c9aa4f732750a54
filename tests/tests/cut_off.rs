//! When a recomputed value counts as unchanged: the rules of functions, and projections of big values.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use futures_util::future::join_all;
use wellspring::{AsyncFunction, Cx, Define, Engine, Fault, Function, RegisterError, Source};

/// A function above `below` that counts its runs.
fn counting<V: wellspring::Value>(engine: &Engine, below: &Function<u8, V>) -> (Function<u8, u64>, Arc<AtomicU64>) {
    let (below, runs) = (below.clone(), Arc::new(AtomicU64::new(0)));
    let counter = runs.clone();
    let above = engine.function("above", move |cx: &Cx, key: &u8| {
        let _ = below.get(cx, key);
        counter.fetch_add(1, SeqCst) + 1
    });
    (above.expect("a free name"), runs)
}

/// A source, a function that shows it under a rule, and the runs of a reader of that.
struct Rule<V> {
    engine: Engine,
    source: Source<u8, V>,
    above: Function<u8, u64>,
    runs: Arc<AtomicU64>,
}

impl<V: wellspring::Value + Default> Rule<V> {
    fn new(rule: impl FnOnce(Define<u8, V>) -> Define<u8, V>) -> Rule<V> {
        let engine = Engine::new();
        let source = engine.define("source").source(|_| V::default()).expect("a free name");
        let from = source.clone();
        let shown = rule(engine.define("shown")).function(move |cx: &Cx, key: &u8| from.get(cx, key).expect("a value"));
        let (above, runs) = counting(&engine, &shown.expect("a free name"));
        Rule { engine, source, above, runs }
    }

    /// Whether a change to `value` reaches the reader.
    fn tells(&self, value: V) -> bool {
        let before = self.runs.load(SeqCst);
        self.source.set(&0, value);
        self.above.get(&self.engine, &0).expect("a value");
        self.engine.assert_consistent();
        self.runs.load(SeqCst) > before
    }
}

/// Compares its name only, and hashes both.
#[derive(Clone, Debug, Default)]
struct Narrow {
    name: &'static str,
    size: u32,
}

impl PartialEq for Narrow {
    fn eq(&self, other: &Narrow) -> bool {
        self.name == other.name
    }
}

impl Hash for Narrow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name, self.size).hash(state);
    }
}

#[test]
fn an_equal_value_stops_at_its_function() {
    let rule = Rule::<String>::new(Define::cut_off_eq);
    assert!(rule.tells("a".into()));
    assert!(!rule.tells("a".into()));
    assert!(rule.tells("b".into()));
}

#[test]
fn without_a_rule_every_recomputation_counts() {
    let rule = Rule::<u64>::new(Define::cut_off_never);
    assert!(rule.tells(1));
    assert!(rule.tells(1));
}

#[test]
fn a_hash_sees_what_a_narrow_equality_does_not() {
    let (by_eq, by_hash) = (Rule::<Narrow>::new(Define::cut_off_eq), Rule::<Narrow>::new(Define::cut_off_hash));
    for rule in [&by_eq, &by_hash] {
        assert!(rule.tells(Narrow { name: "a", size: 1 }));
        assert!(!rule.tells(Narrow { name: "a", size: 1 }));
    }
    assert!(!by_eq.tells(Narrow { name: "a", size: 2 }));
    assert!(by_hash.tells(Narrow { name: "a", size: 2 }));
    let stats = by_hash.engine.stats();
    assert_eq!(stats.functions.iter().find(|function| function.name == "shown").map(|function| function.cut_off), Some("hash"));
}

#[test]
fn a_nan_changes_each_time_by_eq_and_not_by_the_hash_of_its_bits() {
    #[derive(Clone, Copy, Default)]
    struct Bits(f64);
    impl Hash for Bits {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.to_bits().hash(state);
        }
    }
    let by_eq = Rule::<f64>::new(Define::cut_off_eq);
    assert!(by_eq.tells(f64::NAN) && by_eq.tells(f64::NAN));
    let by_hash = Rule::<Bits>::new(Define::cut_off_hash);
    assert!(by_hash.tells(Bits(f64::NAN)) && !by_hash.tells(Bits(f64::NAN)));
    assert!(by_hash.tells(Bits(0.0)) && by_hash.tells(Bits(-0.0)));
}

#[test]
fn a_rule_of_ones_own_loosens_and_tightens() {
    let parity = Rule::<u64>::new(|define| define.cut_off_by(|old, new| old % 2 == new % 2));
    assert!(parity.tells(1));
    assert!(!parity.tells(3));
    assert!(parity.tells(4));
    let never = Rule::<u64>::new(|define| define.cut_off_by(|_, _| false));
    assert!(never.tells(1) && never.tells(1));
}

#[test]
fn a_rule_for_values_is_not_asked_about_errors() {
    #[derive(Clone, Debug)]
    struct Row(Result<u64, &'static str>);
    impl Default for Row {
        fn default() -> Row {
            Row(Ok(0))
        }
    }
    let asked = Arc::new(AtomicU64::new(0));
    let counter = asked.clone();
    let engine = Engine::new();
    let source = engine.define("source").source(|_: &u8| Row::default()).expect("a free name");
    let from = source.clone();
    let rule = engine.define("shown").cut_off_ok_by(move |old: &u64, new: &u64| {
        counter.fetch_add(1, SeqCst);
        old % 2 == new % 2
    });
    let shown = rule.function(move |cx: &Cx, key: &u8| from.get(cx, key).expect("a value").0).expect("a free name");
    let (above, runs) = counting(&engine, &shown);
    let mut expected = 0;
    for (row, tells, asks) in
        [(Ok(1), true, 0), (Ok(3), false, 1), (Err("a"), true, 1), (Err("a"), false, 1), (Err("b"), true, 1), (Ok(3), true, 1)]
    {
        source.set(&0, Row(row));
        above.get(&engine, &0).expect("a value");
        expected += u64::from(tells);
        assert_eq!((runs.load(SeqCst), asked.load(SeqCst)), (expected, asks), "{row:?}");
    }
    engine.assert_consistent();
}

#[test]
fn a_hash_that_panics_is_a_fault_of_its_function_and_is_tried_again() {
    #[derive(Clone, Debug, PartialEq)]
    struct Grumpy(u64);
    impl Hash for Grumpy {
        fn hash<H: Hasher>(&self, _: &mut H) {
            assert!(self.0 < 2, "not this one");
        }
    }
    let engine = Engine::new();
    let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
    let from = source.clone();
    let shown = engine
        .define("shown")
        .cut_off_hash()
        .function(move |cx: &Cx, key: &u8| Grumpy(from.get(cx, key).expect("a value")))
        .expect("a name");
    assert_eq!(shown.get(&engine, &0), Ok(Grumpy(0)));
    source.set(&0, 2);
    assert!(matches!(shown.get(&engine, &0), Err(Fault::Panicked { function, .. }) if function == "shown"));
    source.set(&0, 1);
    assert!(shown.get(&engine, &0).is_ok());
    engine.assert_consistent();
}

/// A big value that counts how often it is copied.
#[derive(Debug, Default)]
struct Big {
    name: String,
    size: u64,
    clones: Arc<AtomicU64>,
}

impl Clone for Big {
    fn clone(&self) -> Big {
        self.clones.fetch_add(1, SeqCst);
        Big { name: self.name.clone(), size: self.size, clones: self.clones.clone() }
    }
}

#[test]
fn a_reader_of_one_field_does_not_run_when_another_changes() {
    let engine = Engine::new();
    let clones = Arc::new(AtomicU64::new(0));
    let big = |name: &str, size| Big { name: name.into(), size, clones: clones.clone() };
    let first = big("a", 1);
    let user = engine.define("user").source(move |_: &u8| first.clone()).expect("a free name");
    let name = user.project("user.name", |user| user.name.clone()).expect("a free name");
    let size = user.project("user.size", |user| user.size).expect("a free name");
    let (above, runs) = counting(&engine, &name);
    above.get(&engine, &0).expect("a value");
    assert_eq!((name.get(&engine, &0), size.get(&engine, &0)), (Ok("a".into()), Ok(1)));
    let made = clones.load(SeqCst);
    user.set(&0, big("a", 2));
    assert_eq!(size.get(&engine, &0), Ok(2));
    above.get(&engine, &0).expect("a value");
    assert_eq!(runs.load(SeqCst), 1);
    user.set(&0, big("b", 2));
    above.get(&engine, &0).expect("a value");
    assert_eq!((runs.load(SeqCst), name.get(&engine, &0)), (2, Ok("b".into())));
    assert_eq!(clones.load(SeqCst), made, "the big value was borrowed throughout");
    engine.assert_consistent();
}

#[test]
fn a_projection_borrows_a_value_that_was_only_verified() {
    let engine = Engine::new();
    let clones = Arc::new(AtomicU64::new(0));
    let row = engine.source("row", |_: &u8| 1_u64).expect("a free name");
    let from = row.clone();
    let sign = engine.define("sign").cut_off_eq().function(move |cx: &Cx, key: &u8| from.get(cx, key).expect("a value").min(5));
    let (sign, counter) = (sign.expect("a free name"), clones.clone());
    let big = engine.function("big", move |cx: &Cx, key: &u8| Big {
        name: String::new(),
        size: sign.get(cx, key).expect("a value"),
        clones: counter.clone(),
    });
    let big = big.expect("a free name");
    let size = big.project("big.size", |big| big.size).expect("a free name");
    assert_eq!(size.get(&engine, &0), Ok(1));
    row.set(&0, 7);
    assert_eq!(size.get(&engine, &0), Ok(5));
    let made = clones.load(SeqCst);
    row.set(&0, 8);
    size.invalidate(&0);
    assert_eq!(size.get(&engine, &0), Ok(5));
    assert_eq!(clones.load(SeqCst), made, "`big` was verified, and read where it lies");
    engine.assert_consistent();
}

#[test]
fn a_fault_below_a_projection_is_the_fault_its_reader_gets() {
    let engine = Engine::new();
    let broken = engine.function("broken", |_: &Cx, key: &u8| if *key == 0 { panic!("no row") } else { u64::from(*key) });
    let part = broken.expect("a free name").project("broken.part", |value| *value).expect("a free name");
    let fault = part.get(&engine, &0);
    assert!(matches!(&fault, Err(Fault::Panicked { function, message }) if function == "broken" && message == "no row"), "{fault:?}");
    assert_eq!(part.get(&engine, &3), Ok(3));
    engine.assert_consistent();
}

#[test]
fn a_projection_that_reads_itself_is_a_cycle_with_names() {
    let engine = Engine::new();
    let late = Arc::new(std::sync::OnceLock::<Function<u8, u64>>::new());
    let below = late.clone();
    let big = engine.function("big", move |cx: &Cx, key: &u8| below.get().expect("filled").get(cx, key)).expect("a free name");
    let part = big.project("part", |value| value.clone().unwrap_or(0)).expect("a free name");
    late.set(part.clone()).expect("empty");
    // The body of `big` meets the fault and returns it as a value, which is not cached.
    assert_eq!(part.get(&engine, &0), Ok(0));
    let Ok(Err(Fault::Cycle { functions })) = big.get(&engine, &0) else { panic!("no cycle") };
    assert!(functions.iter().any(|name| name == "part") && functions.iter().any(|name| name == "big"), "{functions:?}");
    engine.assert_consistent();
}

#[test]
fn a_projection_of_an_asynchronous_function_waits_and_borrows() {
    let engine = Engine::new();
    let clones = Arc::new(AtomicU64::new(0));
    let row = engine.source("row", |_: &u8| (1_u64, 1_u64)).expect("a free name");
    let (from, counter) = (row.clone(), clones.clone());
    let big = engine.async_function("big", move |cx: Cx, key: u8| {
        let (from, clones) = (from.clone(), counter.clone());
        async move {
            let (name, size) = from.get(&cx, &key).expect("a value");
            Big { name: name.to_string(), size, clones }
        }
    });
    let big: AsyncFunction<u8, Big> = big.expect("a free name");
    let name = big.project("big.name", |big| big.name.clone()).expect("a free name");
    let runs = Arc::new(AtomicU64::new(0));
    let (below, counter) = (name.clone(), runs.clone());
    let above = engine.async_function("above", move |cx: Cx, key: u8| {
        let (below, runs) = (below.clone(), counter.clone());
        async move {
            runs.fetch_add(1, SeqCst);
            below.get(&cx, &key).await
        }
    });
    let above = above.expect("a free name");
    smol::block_on(async {
        let all = join_all([above.get(&engine, &0), above.get(&engine, &0)]).await;
        assert_eq!(all, [Ok(Ok("1".into())), Ok(Ok("1".into()))]);
        let stored = clones.load(SeqCst);
        row.set(&0, (1, 2));
        assert_eq!(above.get(&engine, &0).await, Ok(Ok("1".into())));
        assert_eq!(runs.load(SeqCst), 1);
        row.set(&0, (2, 2));
        assert_eq!(above.get(&engine, &0).await, Ok(Ok("2".into())));
        assert_eq!(clones.load(SeqCst), stored + 2, "one copy a run, which goes into the node");
    });
    engine.assert_consistent();
}

#[test]
fn a_projection_needs_a_name_of_its_own_and_an_engine() {
    let engine = Engine::new();
    let row = engine.source("row", |_: &u8| 1_u64).expect("a free name");
    assert_eq!(row.project("row", |value| *value).err(), Some(RegisterError::Duplicate { name: "row".into() }));
    drop(engine);
    assert_eq!(row.project("part", |value| *value).err(), Some(RegisterError::Gone { name: "part".into() }));
}
