//! Values that change without a word: the detector of missing invalidations, which works in builds with debug assertions.
#![cfg(debug_assertions)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use wellspring::{Cx, Engine, MissingInvalidation, RegisterError};

type Found = Arc<Mutex<Vec<MissingInvalidation>>>;

fn watched() -> (Engine, Found) {
    let found = Found::default();
    let list = found.clone();
    let tell = move |missing: &MissingInvalidation| list.lock().expect("unpoisoned").push(missing.clone());
    (Engine::builder().on_missing_invalidation(tell).build(), found)
}

fn count(found: &Found) -> usize {
    found.lock().expect("unpoisoned").len()
}

#[test]
fn a_body_that_reads_a_static_without_telling_is_found_with_its_key() {
    static TABLE: AtomicU64 = AtomicU64::new(1);
    let (engine, found) = watched();
    let row = engine.define("row").fingerprint(4, |row: &u64| *row).function(|_: &Cx, id: &u32| TABLE.load(SeqCst) + u64::from(*id));
    let row = row.expect("a free name");
    for _ in 0..100 {
        row.get(&engine, &7).expect("a value");
    }
    assert_eq!(count(&found), 0, "nothing has changed");
    TABLE.store(2, SeqCst);
    for _ in 0..8 {
        assert_eq!(row.get(&engine, &7), Ok(8), "served as it is");
    }
    let reports = found.lock().expect("unpoisoned").clone();
    assert_eq!(reports.len(), 2, "one hit of four");
    assert_eq!((reports[0].function.as_str(), reports[0].key.as_deref()), ("row", Some("7")));
    assert_eq!((reports[0].cached, reports[0].recomputed), (8, 9));
    assert_eq!(reports[0].node, row.node(&7).expect("a node").id());
    assert!(reports[0].to_string().contains("`row(7)` has changed without an invalidation"), "{}", reports[0]);
    row.invalidate(&7);
    for _ in 0..8 {
        assert_eq!(row.get(&engine, &7), Ok(9));
    }
    assert_eq!(count(&found), 2);
    engine.assert_consistent();
}

#[test]
fn a_run_that_is_thrown_away_leaves_no_edge_no_value_and_no_count() {
    let (engine, found) = watched();
    let rate = engine.source("rate", |_: &u32| 2_u64).expect("a free name");
    let runs = Arc::new(AtomicU64::new(0));
    let (rates, counter) = (rate.clone(), runs.clone());
    // Reads another key each time: a recorded read would be an edge to it.
    let body = move |cx: &Cx, _: &()| rates.get(cx, &(counter.fetch_add(1, SeqCst) as u32)).expect("a value");
    let moody = engine.define("moody").fingerprint(1, |_: &u64| 0).function(body).expect("a free name");
    let above = {
        let moody = moody.clone();
        engine.define("above").fingerprint(1, |n: &u64| *n).function(move |cx: &Cx, _: &()| moody.get(cx, &()).expect("a value"))
    };
    let above = above.expect("a free name");
    for _ in 0..5 {
        assert_eq!(above.get(&engine, &()), Ok(2));
    }
    assert_eq!(runs.load(SeqCst), 1, "a check's own reads are not checked");
    assert_eq!(moody.get(&engine, &()), Ok(2));
    assert_eq!(runs.load(SeqCst), 2);
    rate.set(&1, 9);
    assert_eq!(above.get(&engine, &()), Ok(2));
    assert_eq!((engine.stats().edges_live, count(&found)), (2, 0));
    engine.assert_consistent();
}

#[test]
fn a_change_that_is_told_of_is_no_finding_however_it_falls() {
    let (engine, found) = watched();
    let source = engine.source("source", |_: &u32| 0_u64).expect("a free name");
    let seen = source.clone();
    let total = engine
        .define("total")
        .fingerprint(1, |n: &u64| *n)
        .function(move |cx: &Cx, _: &()| (0..4).map(|id| seen.get(cx, &id).expect("a value")).sum::<u64>());
    let total = total.expect("a free name");
    std::thread::scope(|scope| {
        scope.spawn(|| (0..2_000).map(|n| source.set(&(n as u32 % 4), n)).max());
        scope.spawn(|| (0..2_000).for_each(|_| drop(total.get(&engine, &()))));
        scope.spawn(|| (0..2_000).for_each(|_| drop(total.get(&engine, &()))));
    });
    assert_eq!(count(&found), 0, "{:?}", found.lock().expect("unpoisoned"));
    engine.assert_consistent();
}

#[test]
fn panics_and_faults_of_a_second_run_are_nobodys_and_no_finding() {
    let (engine, found) = watched();
    let mood = Arc::new(AtomicBool::new(false));
    let panics = mood.clone();
    let body = move |_: &Cx, n: &u32| if panics.load(SeqCst) { panic!("in a mood") } else { *n };
    let moody = engine.define("moody").fingerprint(1, |n: &u32| u64::from(*n)).function(body).expect("a free name");
    moody.get(&engine, &1).expect("a value");
    mood.store(true, SeqCst);
    assert_eq!(moody.get(&engine, &1), Ok(1));
    let print = engine.define("print").fingerprint(1, |_: &u32| panic!("no print")).function(|_: &Cx, n: &u32| *n).expect("a free name");
    print.get(&engine, &1).expect("a value");
    assert_eq!((print.get(&engine, &1), count(&found)), (Ok(1), 0));
    engine.assert_consistent();
}

#[test]
fn an_asynchronous_body_is_checked_by_its_reader() {
    let (engine, found) = watched();
    let table = Arc::new(AtomicU64::new(1));
    let rows = table.clone();
    let row = engine.define("row").fingerprint(1, |row: &u64| *row).async_function(move |_: Cx, id: u64| {
        let rows = rows.clone();
        async move {
            futures_util::future::ready(()).await;
            if rows.load(SeqCst) == 9 {
                panic!("in a mood")
            }
            rows.load(SeqCst) + id
        }
    });
    let row = row.expect("a free name");
    assert_eq!(row.wait(&engine, &1), Ok(2));
    assert_eq!((row.wait(&engine, &1), count(&found)), (Ok(2), 0));
    table.store(5, SeqCst);
    assert_eq!((row.wait(&engine, &1), count(&found)), (Ok(2), 1));
    table.store(9, SeqCst);
    assert_eq!((row.wait(&engine, &1), count(&found)), (Ok(2), 1));
    drop(row.get(&engine, &1));
    engine.assert_consistent();
}

#[test]
fn a_listener_that_panics_harms_no_reader_and_sources_have_no_fingerprint() {
    let engine = Engine::builder().on_missing_invalidation(|_| panic!("cannot bear it")).build();
    let calls = AtomicU64::new(0);
    let body = move |_: &Cx, _: &()| calls.fetch_add(1, SeqCst);
    let restless = engine.define("restless").fingerprint(1, |n: &u64| *n).function(body).expect("a free name");
    assert_eq!((restless.get(&engine, &()), restless.get(&engine, &())), (Ok(0), Ok(0)));
    let refused = engine.define::<u8, u64>("row").fingerprint(1, |n| *n).source(|_| 0);
    assert_eq!(refused.err(), Some(RegisterError::NotForSources { name: "row".into(), option: "fingerprint" }));
}
