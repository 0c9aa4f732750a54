//! Consolidated functions: a change is looked into in the background, and told only if the value did change.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use wellspring::{CommitId, Consolidated, Cx, Define, Engine, Fault, Function, ManualClock, RegisterError, Source, Spawner, Value};

const MS: Duration = Duration::from_millis(1);

fn at_hand() -> (Arc<ManualClock>, Engine) {
    let clock = Arc::new(ManualClock::new());
    (clock.clone(), Engine::builder().clock(clock).build())
}

/// A source, a consolidated function that shows it, and how often its body ran.
struct Shown<V> {
    clock: Arc<ManualClock>,
    engine: Engine,
    source: Source<u32, V>,
    shown: Function<u32, V>,
    runs: Arc<AtomicU64>,
}

impl<V: Value + Default> Shown<V> {
    fn new(delay: Duration, rule: impl FnOnce(Define<u32, V>) -> Define<u32, V>) -> Shown<V> {
        let (clock, engine) = at_hand();
        let source = engine.define("source").source(|_| V::default()).expect("a free name");
        let (from, runs) = (source.clone(), Arc::new(AtomicU64::new(0)));
        let counter = runs.clone();
        let shown = rule(engine.define("shown")).consolidate(delay).function(move |cx: &Cx, key: &u32| {
            counter.fetch_add(1, SeqCst);
            from.get(cx, key).expect("a value")
        });
        Shown { clock, engine, source, shown: shown.expect("a free name"), runs }
    }

    fn settle(&self) {
        smol::block_on(self.shown.when_consolidated(&0));
    }

    fn get(&self) -> V {
        self.shown.get(&self.engine, &0).expect("a value")
    }

    /// Whether a change to `value` is told, with no delay.
    fn tells(&self, value: V) -> bool {
        self.get();
        let computed = self.shown.computed(&self.engine, &0).expect("a value");
        self.source.set(&0, value);
        self.settle();
        !computed.is_consistent()
    }
}

fn is_idle<V: Value>(function: &Function<u32, V>) -> bool {
    smol::block_on(futures_util::future::poll_immediate(function.when_consolidated(&0))).is_some()
}

fn hidden_nodes(engine: &Engine) -> usize {
    engine.stats().functions.iter().find(|function| function.name == "~shown").map_or(0, |function| function.nodes)
}

#[test]
fn without_a_delay_a_change_is_told_and_an_equal_value_is_not() {
    let it = Shown::<u64>::new(Duration::ZERO, Define::cut_off_eq);
    assert!(it.tells(1));
    assert_eq!(it.shown.existing(&0).map(|computed| *computed.value()), Some(1), "the new value is there, nobody had to ask");
    it.source.invalidate(&0);
    let computed = it.shown.computed(&it.engine, &0).expect("a value");
    it.settle();
    assert!(computed.is_consistent());
    let runs = it.runs.load(SeqCst);
    it.shown.invalidate_now(&0);
    assert!(!computed.is_consistent(), "at once");
    assert_eq!((it.get(), it.runs.load(SeqCst)), (1, runs), "the hidden value still stands");
    it.engine.assert_consistent();
}

#[test]
fn changes_within_the_delay_are_one_and_come_at_its_end() {
    let it = Shown::<u64>::new(200 * MS, Define::cut_off_eq);
    it.get();
    let computed = it.shown.computed(&it.engine, &0).expect("a value");
    it.source.set(&0, 1);
    it.clock.advance(50 * MS);
    assert!(computed.is_consistent() && !is_idle(&it.shown));
    it.source.set(&0, 2);
    it.clock.advance(149 * MS);
    assert!(computed.is_consistent(), "the second change did not come sooner");
    it.clock.advance(MS);
    it.settle();
    assert!(!computed.is_consistent(), "and did not postpone the first");
    assert_eq!((it.get(), it.runs.load(SeqCst)), (2, 2), "one look for both");
    it.engine.assert_consistent();
}

#[test]
fn a_value_that_comes_back_within_the_delay_was_never_away() {
    let it = Shown::<u64>::new(200 * MS, Define::cut_off_eq);
    it.get();
    let computed = it.shown.computed(&it.engine, &0).expect("a value");
    let mut ended = Box::pin(computed.invalidated());
    for value in [1, 0] {
        it.source.set(&0, value);
        it.clock.advance(50 * MS);
    }
    it.clock.advance(100 * MS);
    it.settle();
    assert!(computed.is_consistent() && is_idle(&it.shown));
    assert!(smol::block_on(futures_util::future::poll_immediate(&mut ended)).is_none(), "a watcher heard nothing");
    it.source.set(&0, 5);
    it.clock.advance(200 * MS);
    smol::block_on(ended);
    it.settle();
    assert_eq!(it.get(), 5, "it goes on after a change that was none");
    it.engine.assert_consistent();
}

#[test]
fn an_invalidation_means_the_hidden_source() {
    let (_, engine) = at_hand();
    let (outside, runs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (reads, counter) = (outside.clone(), runs.clone());
    let shown = engine.define("shown").cut_off_eq().consolidate(Duration::ZERO).function(move |_: &Cx, _: &u32| {
        counter.fetch_add(1, SeqCst);
        reads.load(SeqCst)
    });
    let shown = shown.expect("a free name");
    let computed = shown.computed(&engine, &0).expect("a value");
    let invalidate: [&dyn Fn() -> CommitId; 4] =
        [&|| shown.invalidate(&0), &|| shown.invalidate_all(), &|| engine.batch(|batch| batch.invalidate(&shown, &0)), &|| {
            engine.batch(|batch| batch.invalidate_all(&shown))
        }];
    for (before, invalidate) in invalidate.iter().enumerate() {
        invalidate();
        smol::block_on(shown.when_consolidated(&0));
        assert!(computed.is_consistent());
        assert_eq!(runs.load(SeqCst), before as u64 + 2, "computed anew all the same");
    }
    outside.store(1, SeqCst);
    shown.invalidate(&0);
    smol::block_on(shown.when_consolidated(&0));
    assert!(!computed.is_consistent());
    assert_eq!(shown.get(&engine, &0), Ok(1));
    engine.assert_consistent();
}

#[test]
fn a_delayed_or_debounced_invalidation_means_the_hidden_source_too() {
    let (clock, engine) = at_hand();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let define = engine.define("shown").cut_off_by(|_: &u64, _: &u64| true).debounce(10 * MS).consolidate(Duration::ZERO);
    let shown = define.function(move |_: &Cx, _: &u32| counter.fetch_add(1, SeqCst)).expect("a free name");
    let computed = shown.computed(&engine, &0).expect("a value");
    shown.invalidate(&0);
    clock.advance(9 * MS);
    assert_eq!((runs.load(SeqCst), is_idle(&shown)), (1, true));
    clock.advance(MS);
    smol::block_on(shown.when_consolidated(&0));
    assert_eq!(runs.load(SeqCst), 2);
    assert!(shown.invalidate_after(&0, 5 * MS));
    clock.advance(5 * MS);
    smol::block_on(shown.when_consolidated(&0));
    assert_eq!(runs.load(SeqCst), 3);
    assert!(computed.is_consistent());
    engine.assert_consistent();
}

#[test]
fn rules_about_time_are_the_hidden_functions() {
    let (clock, engine) = at_hand();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let define = engine.define("shown").cut_off_by(|old: &u64, new: &u64| old / 3 == new / 3);
    let define = define.expire_after(100 * MS).consolidate(Duration::ZERO);
    let shown = define.function(move |_: &Cx, _: &u32| counter.fetch_add(1, SeqCst)).expect("a free name");
    let computed = shown.computed(&engine, &0).expect("a value");
    for expected in [true, true, false] {
        clock.advance(100 * MS);
        smol::block_on(shown.when_consolidated(&0));
        assert_eq!(computed.is_consistent(), expected);
    }
    assert_eq!(shown.existing(&0).map(|computed| *computed.value()), Some(3));
    engine.assert_consistent();
}

thread_local! {
    static TAG: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn nothing_of_who_made_the_change_is_around_when_it_is_looked_into() {
    let (_, engine) = at_hand();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (tags, source) = (seen.clone(), engine.source("source", |_: &u32| 0_u64).expect("a free name"));
    let from = source.clone();
    let shown = engine.define("shown").cut_off_eq().consolidate(Duration::ZERO).function(move |cx: &Cx, key: &u32| {
        tags.lock().expect("unpoisoned").push((TAG.get(), std::thread::current().name().map(str::to_owned)));
        from.get(cx, key).expect("a value")
    });
    let shown = shown.expect("a free name");
    shown.get(&engine, &0).expect("a value");
    // The change is made inside a body, whose context must not come along either.
    let (target, runs) = (source.clone(), Arc::new(AtomicU64::new(0)));
    let counter = runs.clone();
    let maker = engine.function("maker", move |_: &Cx, _: &u32| {
        target.set(&0, 7);
        counter.fetch_add(1, SeqCst)
    });
    let maker = maker.expect("a free name");
    TAG.set(9);
    maker.get(&engine, &0).expect("a value");
    TAG.set(0);
    smol::block_on(shown.when_consolidated(&0));
    assert_eq!(shown.get(&engine, &0), Ok(7));
    assert_eq!(seen.lock().expect("unpoisoned")[1..], [(0, Some("wellspring-merge".to_owned()))]);
    source.set(&0, 8);
    smol::block_on(shown.when_consolidated(&0));
    assert!(maker.existing(&0).is_some(), "what was read in the background is nobody else's dependency");
    engine.assert_consistent();
}

#[test]
fn a_function_above_stays_when_nothing_changed_and_is_stale_when_it_did() {
    let it = Shown::<u64>::new(Duration::ZERO, |define| define.cut_off_by(|old, new| old % 2 == new % 2));
    let (below, runs) = (it.shown.clone(), Arc::new(AtomicU64::new(0)));
    let counter = runs.clone();
    let above = it.engine.function("above", move |cx: &Cx, key: &u32| {
        counter.fetch_add(1, SeqCst);
        below.get(cx, key).expect("a value") * 10
    });
    let above = above.expect("a free name");
    assert_eq!(above.get(&it.engine, &0), Ok(0));
    let computed = above.computed(&it.engine, &0).expect("a value");
    it.source.set(&0, 2);
    assert!(computed.is_consistent(), "not even maybe stale");
    it.settle();
    assert!(computed.is_consistent());
    it.source.set(&0, 3);
    smol::block_on(computed.invalidated());
    assert_eq!((above.get(&it.engine, &0), runs.load(SeqCst)), (Ok(30), 2));
    it.settle();
    it.engine.assert_consistent();
}

#[test]
fn a_comparer_loosens_or_tightens_what_is_told() {
    let parity = Shown::<u64>::new(Duration::ZERO, |define| define.cut_off_by(|old, new| old % 2 == new % 2));
    assert!(!parity.tells(2) && parity.tells(3));
    let never = Shown::<u64>::new(Duration::ZERO, |define| define.cut_off_by(|_, _| false));
    assert!(never.tells(1));
    never.source.invalidate(&0);
    never.settle();
    assert_eq!(never.runs.load(SeqCst), 3, "a rule that never says equal does not go round in circles");
    let boxed = Shown::<Option<Arc<u64>>>::new(Duration::ZERO, Define::cut_off_eq);
    boxed.get();
    boxed.source.invalidate(&0);
    let computed = boxed.shown.computed(&boxed.engine, &0).expect("a value");
    boxed.settle();
    assert!(computed.is_consistent(), "nothing is equal to nothing");
    assert!(boxed.tells(Some(Arc::new(1))));
    assert!(!boxed.tells(Some(Arc::new(1))), "by value, in another box");
    let hashed = Shown::<u64>::new(Duration::ZERO, Define::cut_off_hash);
    assert!(hashed.tells(1) && hashed.tells(2));
    for it in [&parity, &never, &hashed] {
        it.engine.assert_consistent();
    }
}

#[test]
fn the_same_error_again_is_swallowed_without_asking_the_comparer() {
    let (_, engine) = at_hand();
    let source = engine.source("source", |_: &u32| 0_u64).expect("a free name");
    let (from, asked) = (source.clone(), Arc::new(AtomicU64::new(0)));
    let counter = asked.clone();
    let define = engine.define("shown").cut_off_ok_by(move |old: &u64, new: &u64| {
        counter.fetch_add(1, SeqCst);
        old == new
    });
    let shown = define.consolidate(Duration::ZERO).function(move |cx: &Cx, key: &u32| match from.get(cx, key).expect("a value") {
        small @ 0..10 => Err(if small < 5 { "far too small" } else { "too small" }),
        enough => Ok(enough),
    });
    let shown = shown.expect("a free name");
    for (value, told, asks) in [(1, false, 0), (5, true, 0), (6, false, 0), (20, true, 0), (20, false, 0), (21, true, 1), (3, true, 1)] {
        let computed = shown.computed(&engine, &0).expect("a value");
        source.set(&0, value);
        smol::block_on(shown.when_consolidated(&0));
        assert_eq!((!computed.is_consistent(), asked.load(SeqCst)), (told, asks), "{value}");
    }
    engine.assert_consistent();
}

#[test]
fn a_comparer_is_made_once_and_asked_once_a_look() {
    let (made, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (maker, counter) = (made.clone(), asked.clone());
    let it = Shown::<u64>::new(Duration::ZERO, move |define| {
        maker.fetch_add(1, SeqCst);
        define.cut_off_by(move |old, new| {
            counter.fetch_add(1, SeqCst);
            old == new
        })
    });
    for value in 1..=5 {
        assert!(it.tells(value));
    }
    assert_eq!((made.load(SeqCst), asked.load(SeqCst)), (1, 5));
}

#[test]
fn a_consolidated_function_needs_a_rule_and_a_place_to_run() {
    let (_, engine) = at_hand();
    let rule = engine.define::<u32, u64>("f").consolidate(MS).function(|_, _| 0);
    assert_eq!(rule.err(), Some(RegisterError::NeedsCutOff { name: "f".into(), option: "consolidate" }));
    let place = engine.define::<u32, u64>("f").cut_off_eq().consolidate(MS).async_function(|_, _| async { 0 });
    assert_eq!(place.err(), Some(RegisterError::NeedsSpawner { name: "f".into(), option: "consolidate" }));
    let source = engine.define::<u32, u64>("f").cut_off_eq().consolidate(MS).source(|_| 0);
    assert_eq!(source.err(), Some(RegisterError::NotForSources { name: "f".into(), option: "consolidate" }));
    assert!(engine.stats().functions.is_empty(), "nothing was left behind");
    engine.function("f", |_: &Cx, _: &u32| 0_u64).expect("a free name");
    let taken = engine.define::<u32, u64>("f").cut_off_eq().consolidate(MS).function(|_, _| 0);
    assert_eq!(taken.err(), Some(RegisterError::Duplicate { name: "f".into() }));
    assert_eq!(engine.stats().functions.len(), 1);
}

#[test]
fn keys_nobody_asked_for_are_never_computed() {
    let it = Shown::<u64>::new(Duration::ZERO, Define::cut_off_eq);
    it.source.set(&0, 1);
    it.shown.invalidate(&0);
    it.shown.invalidate_all();
    it.settle();
    assert_eq!((it.runs.load(SeqCst), it.shown.len(), hidden_nodes(&it.engine)), (0, 0, 0));
    it.get();
    it.source.set(&1, 1);
    it.shown.invalidate(&1);
    smol::block_on(it.shown.when_consolidated(&1));
    assert_eq!((it.runs.load(SeqCst), it.shown.len()), (1, 1));
    it.shown.invalidate_now(&0);
    for value in 2..5 {
        it.source.set(&0, value);
        it.settle();
    }
    assert_eq!(it.runs.load(SeqCst), 1, "nor one whose value was ended and not asked for again");
    assert_eq!(it.get(), 4);
    it.engine.assert_consistent();
}

#[test]
fn a_value_made_from_one_that_is_stale_by_then_is_born_stale() {
    let (_, engine) = at_hand();
    let source = engine.source("source", |_: &u32| 0_u64).expect("a free name");
    let (entered, wait) = mpsc::channel();
    let (from, gate, first) = (source.clone(), Arc::new(Barrier::new(2)), AtomicBool::new(true));
    let held = gate.clone();
    let shown = engine.define("shown").cut_off_eq().consolidate(3600 * 1000 * MS).function(move |cx: &Cx, key: &u32| {
        let value = from.get(cx, key).expect("a value");
        if first.swap(false, SeqCst) {
            entered.send(()).expect("somebody waits");
            held.wait();
        }
        value
    });
    let shown = shown.expect("a free name");
    std::thread::scope(|scope| {
        let early = scope.spawn(|| shown.get(&engine, &0));
        wait.recv().expect("the body runs");
        source.set(&0, 1);
        gate.wait();
        assert_eq!(early.join().expect("no panic"), Ok(0), "it began before the change");
    });
    assert!(shown.existing(&0).is_none());
    assert_eq!(shown.get(&engine, &0), Ok(1), "no reader has to wait for the delay");
    engine.assert_consistent();
}

#[test]
fn an_older_value_is_never_put_over_a_newer_one() {
    type All = (Engine, Source<u32, u64>, Function<u32, u64>);
    let all = Arc::new(Mutex::new(None::<All>));
    let (given, newer) = (all.clone(), Arc::new(Mutex::new(None)));
    let kept = newer.clone();
    let it = Shown::<u64>::new(Duration::ZERO, move |define| {
        define.cut_off_by(move |old, new| {
            let given = given.lock().expect("unpoisoned").take();
            if let Some((engine, source, shown)) = given {
                // While 1 is compared, 2 is there already, and shown.
                source.set(&0, 2);
                shown.invalidate_now(&0);
                let computed = shown.computed(&engine, &0).expect("a value");
                assert_eq!(*computed.value(), 2);
                *kept.lock().expect("unpoisoned") = Some(computed);
            }
            old == new
        })
    });
    it.get();
    *all.lock().expect("unpoisoned") = Some((it.engine.clone(), it.source.clone(), it.shown.clone()));
    it.source.set(&0, 1);
    it.settle();
    let computed = newer.lock().expect("unpoisoned").take().expect("the comparer was asked");
    assert!(computed.is_consistent(), "nobody ever went back to 1");
    it.source.set(&0, 3);
    it.settle();
    assert_eq!(it.shown.existing(&0).map(|computed| *computed.value()), Some(3), "and it is still looked after");
    it.engine.assert_consistent();
}

#[test]
fn a_body_that_panics_ends_the_value_and_the_next_read_meets_the_fault() {
    let it = Shown::<u64>::new(Duration::ZERO, Define::cut_off_eq);
    let broken = Arc::new(AtomicBool::new(false));
    let (breaks, below) = (broken.clone(), it.source.clone());
    let fragile = it.engine.define("fragile").cut_off_eq().consolidate(Duration::ZERO).function(move |cx: &Cx, key: &u32| {
        let value = below.get(cx, key).expect("a value");
        assert!(!breaks.load(SeqCst), "broken");
        value
    });
    let fragile = fragile.expect("a free name");
    let computed = fragile.computed(&it.engine, &0).expect("a value");
    broken.store(true, SeqCst);
    it.source.set(&0, 0);
    it.source.invalidate(&0);
    smol::block_on(fragile.when_consolidated(&0));
    assert!(!computed.is_consistent());
    let fault = fragile.get(&it.engine, &0);
    assert_eq!(fault, Err(Fault::Panicked { function: "~fragile".into(), message: "broken".into() }));
    broken.store(false, SeqCst);
    it.source.set(&0, 3);
    assert_eq!(fragile.get(&it.engine, &0), Ok(3));
    it.source.set(&0, 4);
    smol::block_on(fragile.when_consolidated(&0));
    assert_eq!(fragile.existing(&0).map(|computed| *computed.value()), Some(4), "consolidated again");
    it.engine.assert_consistent();
}

#[test]
fn a_comparer_that_panics_ends_the_value() {
    let it = Shown::<u64>::new(Duration::ZERO, |define| {
        define.cut_off_by(|old, new| {
            assert!(*new != 13, "no comparison");
            old == new
        })
    });
    assert!(it.tells(13));
    assert!(it.shown.existing(&0).is_none());
    it.source.set(&0, 14);
    assert_eq!(it.get(), 14);
    it.engine.assert_consistent();
}

#[test]
fn a_removed_key_takes_its_hidden_half_along() {
    let it = Shown::<u64>::new(100 * MS, Define::cut_off_eq);
    it.get();
    it.source.set(&0, 1);
    assert!(!is_idle(&it.shown));
    assert!(it.shown.remove(&0));
    assert_eq!((it.shown.len(), hidden_nodes(&it.engine)), (0, 0));
    assert!(is_idle(&it.shown));
    it.clock.advance(200 * MS);
    assert_eq!(it.runs.load(SeqCst), 1);
    assert_eq!(it.get(), 1);
    it.source.set(&0, 2);
    it.clock.advance(100 * MS);
    it.settle();
    assert_eq!(it.get(), 2);
    it.engine.assert_consistent();
}

/// Runs each future on a thread of its own.
struct Threads;

impl Spawner for Threads {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        std::thread::spawn(move || smol::block_on(future));
    }
}

#[test]
fn an_asynchronous_function_is_consolidated_on_the_users_executor() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).spawner(Arc::new(Threads)).build();
    let source = engine.source("source", |_: &u32| 0_u64).expect("a free name");
    let from = source.clone();
    let shown =
        engine.define("shown").cut_off_by(|old, new| old / 10 == new / 10).consolidate(20 * MS).async_function(move |cx: Cx, key| {
            let from = from.clone();
            async move { from.get(&cx, &key).expect("a value") }
        });
    let shown = shown.expect("a free name");
    smol::block_on(async {
        let computed = shown.computed(&engine, &0).await.expect("a value");
        source.set(&0, 1);
        clock.advance(20 * MS);
        shown.when_consolidated(&0).await;
        assert!(computed.is_consistent());
        source.set(&0, 12);
        clock.advance(20 * MS);
        computed.invalidated().await;
        assert_eq!(shown.get(&engine, &0).await, Ok(12));
        shown.when_consolidated(&0).await;
    });
    engine.assert_consistent();
}

/// Drops what it is given.
struct Nobody;

impl Spawner for Nobody {
    fn spawn(&self, _: Pin<Box<dyn Future<Output = ()> + Send>>) {}
}

#[test]
fn work_that_an_executor_drops_ends_the_value() {
    let engine = Engine::builder().clock(Arc::new(ManualClock::new())).spawner(Arc::new(Nobody)).build();
    let source = engine.source("source", |_: &u32| 0_u64).expect("a free name");
    let from = source.clone();
    let define = engine.define("shown").cut_off_eq().consolidate(Duration::ZERO);
    let shown = define.function(move |cx: &Cx, key: &u32| from.get(cx, key).expect("a value")).expect("a free name");
    for value in 1..4 {
        shown.get(&engine, &0).expect("a value");
        source.set(&0, value);
        assert!(is_idle(&shown));
        assert_eq!(shown.get(&engine, &0), Ok(value), "no worse than without consolidation");
    }
    engine.assert_consistent();
}

#[test]
fn consolidated_functions_stand_on_each_other() {
    let it = Shown::<u64>::new(10 * MS, |define| define.cut_off_by(|old, new| old / 10 == new / 10));
    let below = it.shown.clone();
    let define = it.engine.define("above").cut_off_eq().consolidate(10 * MS);
    let above = define.function(move |cx: &Cx, key: &u32| below.get(cx, key).expect("a value") / 100).expect("a free name");
    let computed = above.computed(&it.engine, &0).expect("a value");
    for (value, told) in [(5, false), (50, false), (150, true)] {
        it.source.set(&0, value);
        it.clock.advance(10 * MS);
        it.settle();
        it.clock.advance(10 * MS);
        smol::block_on(above.when_consolidated(&0));
        assert_eq!(computed.is_consistent(), !told, "{value}");
    }
    assert_eq!(above.get(&it.engine, &0), Ok(1));
    it.engine.assert_consistent();
}

#[test]
fn an_engine_that_is_dropped_meanwhile_takes_everything_along() {
    for delay in [Duration::ZERO, 10 * MS] {
        let it = Shown::<u64>::new(delay, Define::cut_off_eq);
        let token = Arc::downgrade(&it.runs);
        it.get();
        it.source.set(&0, 1);
        let idle = it.shown.when_consolidated(&0);
        let Shown { clock, engine, source, shown, runs } = it;
        drop((engine, runs));
        clock.advance(10 * MS);
        smol::block_on(idle);
        drop((source, shown));
        clock.advance(10 * MS);
        assert!(token.upgrade().is_none(), "the body is gone");
    }
}

#[test]
fn readers_writers_and_removers_leave_the_last_value_behind() {
    const KEYS: u32 = 3;
    const ROUNDS: u64 = 400;
    let it = Shown::<u64>::new(Duration::ZERO, |define| define.cut_off_by(|old, new| old / 4 == new / 4));
    let (engine, source, shown) = (&it.engine, &it.source, &it.shown);
    std::thread::scope(|scope| {
        for key in 0..KEYS {
            scope.spawn(move || {
                for value in 1..=ROUNDS {
                    source.set(&key, value);
                }
            });
            scope.spawn(move || {
                let mut last = 0;
                for _ in 0..ROUNDS {
                    let value = shown.get(engine, &key).expect("a value");
                    assert!(value / 4 >= last / 4, "{value} after {last}");
                    last = value;
                }
            });
            scope.spawn(move || {
                for _ in 0..ROUNDS / 4 {
                    shown.invalidate_now(&key);
                }
            });
        }
        scope.spawn(move || {
            for round in 0..ROUNDS / 4 {
                shown.remove(&(round as u32 % KEYS));
            }
        });
    });
    for key in 0..KEYS {
        smol::block_on(shown.when_consolidated(&key));
        let value = shown.get(engine, &key).expect("a value");
        assert_eq!(value / 4, ROUNDS / 4, "key {key}");
    }
    engine.assert_consistent();
}

#[test]
fn a_wait_for_a_consolidation_may_go_to_another_thread() {
    fn is_send_and_sync<T: Send + Sync + std::fmt::Debug>() {}
    is_send_and_sync::<Consolidated>();
}

/// Found by a reader of the code: an evicted visible value is still what others were made from, and its changes went to nobody.
#[test]
fn a_change_of_an_evicted_visible_value_reaches_what_was_made_from_it() {
    let engine = Engine::new();
    let stock = engine.source("stock", |_: &u8| 1_u64).expect("a free name");
    let inner = stock.clone();
    let define = engine.define("shown").cut_off_eq().capacity(wellspring::Capacity::weight(100)).consolidate(Duration::ZERO);
    let shown = define.function(move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value")).expect("a free name");
    let inner = shown.clone();
    let top = engine.function("top", move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value") * 10).expect("a free name");
    assert_eq!(top.get(&engine, &7), Ok(10));
    shown.shrink_to(0);
    assert!(shown.existing(&7).is_none(), "evicted");
    stock.set(&7, 5);
    wellspring_tests::waking::block_on(shown.when_consolidated(&7));
    assert_eq!(top.get(&engine, &7), Ok(50));
    engine.assert_consistent();
}
