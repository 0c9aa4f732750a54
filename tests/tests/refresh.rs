//! Values that are computed anew shortly before they end, while the old ones are served.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wellspring::{Cx, Engine, Function, ManualClock, RegisterError, Source, Spawner};

const MS: Duration = Duration::from_millis(1);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps what is spawned until the test runs it.
#[derive(Default)]
struct Later(Mutex<Vec<Task>>);

impl Spawner for Later {
    fn spawn(&self, future: Task) {
        self.0.lock().expect("unpoisoned").push(future);
    }
}

impl Later {
    fn run(&self) -> usize {
        let tasks = std::mem::take(&mut *self.0.lock().expect("unpoisoned"));
        let count = tasks.len();
        tasks.into_iter().for_each(wellspring_tests::waking::block_on);
        count
    }
}

struct Ahead {
    clock: Arc<ManualClock>,
    later: Arc<Later>,
    engine: Engine,
    source: Source<u64, u64>,
    function: Function<u64, u64>,
    runs: Arc<AtomicU64>,
}

fn ahead() -> Ahead {
    let (clock, later) = (Arc::new(ManualClock::new()), Arc::new(Later::default()));
    let engine = Engine::builder().clock(clock.clone()).spawner(later.clone()).build();
    let source = engine.source("source", |_: &u64| 0).expect("a free name");
    let runs = Arc::new(AtomicU64::new(0));
    let (inner, counter) = (source.clone(), runs.clone());
    let function = engine
        .define("ahead")
        .expire_after(100 * MS)
        .refresh_ahead(20 * MS)
        .function(move |cx: &Cx, n: &u64| inner.get(cx, n).expect("a value") * 1_000 + counter.fetch_add(1, SeqCst) + 1)
        .expect("a free name");
    Ahead { clock, later, engine, source, function, runs }
}

#[test]
fn a_value_in_use_is_refreshed_while_the_old_one_is_served() {
    let Ahead { clock, later, engine, function, runs, .. } = ahead();
    let above = {
        let function = function.clone();
        engine.function("above", move |cx: &Cx, n: &u64| function.get(cx, n).expect("a value") + 500).expect("a free name")
    };
    assert_eq!(above.get(&engine, &0), Ok(501));
    function.get(&engine, &0).expect("a value");
    clock.advance(80 * MS);
    assert_eq!((function.get(&engine, &0), runs.load(SeqCst)), (Ok(1), 1), "the task has not run yet");
    assert_eq!(later.run(), 1);
    assert!(function.existing(&0).is_some(), "no reader waits");
    assert_eq!(function.get(&engine, &0), Ok(2));
    assert_eq!(above.get(&engine, &0), Ok(502), "what was made from the old value is stale");
    clock.advance(20 * MS);
    assert!(function.existing(&0).is_some(), "the new value has its own time");
    clock.advance(60 * MS);
    assert_eq!(later.run(), 1);
    engine.assert_consistent();
}

#[test]
fn a_refresh_needs_an_end_to_be_ahead_of() {
    let engine = Engine::builder().spawner(Arc::new(Later::default())).build();
    let refused = engine.define::<u8, u64>("f").refresh_ahead(MS).function(|_, _| 0);
    assert_eq!(refused.err(), Some(RegisterError::NothingToRefresh { name: "f".into() }));
    let refused = engine.define::<u8, u64>("f").expire_after(MS).refresh_ahead(MS).function(|_, _| 0);
    assert_eq!(refused.err(), Some(RegisterError::NothingToRefresh { name: "f".into() }));
}

#[test]
fn a_spawner_that_panics_stops_no_other_timer() {
    struct Broken;
    impl Spawner for Broken {
        fn spawn(&self, _: Task) {
            panic!("no runtime here");
        }
    }
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).spawner(Arc::new(Broken)).build();
    let define = engine.define("ahead").expire_after(100 * MS).refresh_ahead(20 * MS);
    let function = define.function(|_: &Cx, n: &u64| *n).expect("a free name");
    for n in 0..3 {
        function.get(&engine, &n).expect("a value");
        function.get(&engine, &n).expect("a value");
    }
    clock.advance(100 * MS);
    assert!((0..3).all(|n| function.existing(&n).is_none()), "they ended at their time");
    engine.assert_consistent();
}

#[test]
fn a_value_that_nobody_read_is_left_to_its_end() {
    let Ahead { clock, later, engine, function, .. } = ahead();
    function.get(&engine, &0).expect("a value");
    clock.advance(99 * MS);
    assert_eq!(later.run(), 0);
    clock.advance(MS);
    assert!(function.existing(&0).is_none());
    engine.assert_consistent();
}

#[test]
fn an_invalidation_meanwhile_wins_over_the_refresh() {
    let Ahead { clock, later, engine, source, function, .. } = ahead();
    function.get(&engine, &0).expect("a value");
    function.get(&engine, &0).expect("a value");
    clock.advance(80 * MS);
    source.set(&0, 7);
    assert_eq!(function.get(&engine, &0), Ok(7_002));
    assert_eq!(later.run(), 1);
    assert_eq!(function.get(&engine, &0), Ok(7_002), "the refresh was of a generation that is gone");
    engine.assert_consistent();
}

#[test]
fn a_refreshed_value_follows_its_dependencies() {
    let Ahead { clock, later, engine, source, function, .. } = ahead();
    function.get(&engine, &0).expect("a value");
    function.get(&engine, &0).expect("a value");
    clock.advance(80 * MS);
    later.run();
    assert_eq!(function.get(&engine, &0), Ok(2));
    engine.assert_consistent();
    source.set(&0, 3);
    assert_eq!(function.get(&engine, &0), Ok(3_003));
    engine.assert_consistent();
}
