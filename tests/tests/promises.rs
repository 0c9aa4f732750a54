//! Reads with a promise: fresh, at least as new as a commit, and several together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use wellspring::{Cx, Engine, Fault, ManualClock, SnapshotContended, Source};
use wellspring_tests::waking::block_on;

fn source(engine: &Engine) -> Source<u8, i64> {
    engine.source("source", |_: &u8| 0_i64).expect("a free name")
}

/// A body that is overtaken by a commit in each of its first `times` runs.
fn overtaken(engine: &Engine, source: &Source<u8, i64>, times: u64) -> (wellspring::Function<u8, i64>, Arc<AtomicU64>) {
    let runs = Arc::new(AtomicU64::new(0));
    let (source, counter) = (source.clone(), runs.clone());
    let body = move |cx: &Cx, key: &u8| {
        let value = source.get(cx, key).expect("a value");
        if counter.fetch_add(1, SeqCst) < times {
            source.set(key, value + 1);
        }
        value * 10
    };
    (engine.function("overtaken", body).expect("a free name"), runs)
}

#[test]
fn a_fresh_read_never_returns_what_a_commit_has_overtaken() {
    let engine = Engine::new();
    let source = source(&engine);
    let (function, runs) = overtaken(&engine, &source, 2);
    assert_eq!(function.get_fresh(&engine, &0), Ok(20));
    assert_eq!(runs.load(SeqCst), 3);
    let (asked, _) = (function.get_fresh(&engine, &0), function.get_fresh(&engine, &0));
    assert_eq!((asked, runs.load(SeqCst)), (Ok(20), 3), "a hit");
    engine.assert_consistent();
}

#[test]
fn a_plain_read_returns_its_own_result_even_if_overtaken() {
    let engine = Engine::new();
    let source = source(&engine);
    let (function, _) = overtaken(&engine, &source, 1);
    assert_eq!(function.get(&engine, &0), Ok(0), "what the fresh read is for");
    assert_eq!(function.get(&engine, &0), Ok(10));
}

#[test]
fn a_fresh_read_gives_up_with_the_reason_where_every_try_is_overtaken() {
    let engine = Engine::new();
    let source = source(&engine);
    let (function, runs) = overtaken(&engine, &source, u64::MAX);
    assert_eq!(function.get_fresh(&engine, &0), Err(Fault::Contended { function: "overtaken".into(), tries: 16 }));
    assert_eq!(runs.load(SeqCst), 16);
    engine.assert_consistent();
}

#[test]
fn a_fresh_read_inside_a_function_is_recorded() {
    let engine = Engine::new();
    let source = source(&engine);
    let inner = source.clone();
    let double = engine.function("double", move |cx: &Cx, key: &u8| inner.get_fresh(cx, key).expect("a value") * 2).expect("a free name");
    source.set(&0, 4);
    assert_eq!(double.get(&engine, &0), Ok(8));
    source.set(&0, 5);
    assert_eq!(double.get_fresh(&engine, &0), Ok(10));
    engine.assert_consistent();
}

#[test]
fn an_asynchronous_fresh_read_tries_again_too() {
    let engine = Engine::new();
    let source = source(&engine);
    let runs = Arc::new(AtomicU64::new(0));
    let (inner, counter) = (source.clone(), runs.clone());
    let function = engine
        .async_function("overtaken", move |cx: Cx, key: u8| {
            let (source, counter) = (inner.clone(), counter.clone());
            async move {
                let value = source.get(&cx, &key).expect("a value");
                if counter.fetch_add(1, SeqCst) < 2 {
                    source.set(&key, value + 1);
                }
                value * 10
            }
        })
        .expect("a free name");
    assert_eq!(block_on(function.get_fresh(&engine, &0)), Ok(20));
    assert_eq!(runs.load(SeqCst), 3);
    let commit = source.set(&0, 7);
    assert_eq!(block_on(function.get_at_least(&engine, &0, commit)), Ok(70));
    engine.assert_consistent();
}

#[test]
fn a_read_of_at_least_a_commit_sees_its_writes() {
    let engine = Engine::new();
    let source = source(&engine);
    let commits = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (sender, writer) = (commits.0, source.clone());
        scope.spawn(move || {
            for value in 1..=200 {
                sender.send((value, writer.set(&0, value))).expect("a reader");
            }
        });
        for (value, commit) in commits.1 {
            let seen = source.get_at_least(&engine, &0, commit).expect("a value");
            assert!(seen >= value, "I6: {seen} is older than commit {commit:?}");
        }
    });
    engine.assert_consistent();
}

#[test]
fn a_commit_number_that_was_never_given_out_is_an_error() {
    let (engine, other) = (Engine::new(), Engine::new());
    let (source, foreign) = (source(&engine), self::source(&other));
    source.set(&0, 1);
    for value in 1..=3 {
        foreign.set(&0, value);
    }
    let fault = source.get_at_least(&engine, &0, other.commit()).unwrap_err();
    assert_eq!(fault, Fault::UnknownCommit { asked: other.commit(), last: engine.commit() });
    assert!(fault.to_string().contains("commit 3"), "{fault}");
}

#[test]
fn a_snapshot_runs_again_when_a_commit_falls_between_its_reads() {
    let engine = Engine::new();
    let source = source(&engine);
    let mut runs = 0;
    let pair = engine.snapshot(|s| {
        runs += 1;
        let first = source.get(s, &0).expect("a value");
        if runs < 3 {
            engine.batch(|b| {
                b.set(&source, &0, runs);
                b.set(&source, &1, runs);
            });
        }
        (first, source.get(s, &1).expect("a value"))
    });
    assert_eq!((pair, runs), (Ok((2, 2)), 3));
    engine.assert_consistent();
}

#[test]
fn commits_elsewhere_cost_a_snapshot_nothing() {
    let engine = Engine::new();
    let source = source(&engine);
    let inner = source.clone();
    let double = engine.function("double", move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value") * 2).expect("a free name");
    let mut runs = 0;
    let sum = engine.snapshot(|s| {
        runs += 1;
        let first = double.get(s, &0).expect("a value");
        source.set(&9, runs);
        double.invalidate(&8);
        first + double.get(s, &1).expect("a value")
    });
    assert_eq!((sum, runs), (Ok(0), 1));
}

#[test]
fn a_snapshot_is_given_up_after_sixteen_runs_or_at_its_deadline() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let source = source(&engine);
    let read = |s: &wellspring::Snapshot| {
        let seen = source.get(s, &0).expect("a value");
        source.set(&0, seen + 1);
        clock.advance(Duration::from_millis(4));
    };
    let contended = engine.snapshot(read).expect_err("overtaken each time");
    assert_eq!(contended.tries, 16);
    let contended: SnapshotContended = engine.snapshot_within(Duration::from_millis(10), read).expect_err("overtaken each time");
    assert_eq!(contended.tries, 3);
    assert!(contended.to_string().contains("3 tries"), "{contended}");
    engine.assert_consistent();
}

/// A function that keeps two keys, and one made from two of its keys.
fn cramped(engine: &Engine) -> (Source<u8, i64>, wellspring::Function<u8, i64>, wellspring::Function<u8, i64>) {
    let source = source(engine);
    let inner = source.clone();
    let define = engine.define("small").capacity(wellspring::Capacity::entries(2));
    let small = define.function(move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value") + 1).expect("a free name");
    let inner = small.clone();
    let body = move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value") + inner.get(cx, &(key + 1)).expect("a value");
    let pair = engine.function("pair", body).expect("a free name");
    (source, small, pair)
}

#[test]
fn a_fresh_read_of_what_is_not_kept_is_not_contended() {
    let engine = Engine::new();
    let (source, ..) = cramped(&engine);
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let body = move |cx: &Cx, key: &u8| {
        counter.fetch_add(1, SeqCst);
        source.get(cx, key).expect("a value")
    };
    let define = engine.define("huge").capacity(wellspring::Capacity::weight(10)).weigh(|_: &u8, _: &i64| 100);
    let huge = define.function(body).expect("a free name");
    assert_eq!((huge.get_fresh(&engine, &0), huge.existing(&0).is_none()), (Ok(0), true));
    assert_eq!(runs.load(SeqCst), 1, "nobody committed: the first result was right");
    engine.assert_consistent();
}

#[test]
fn a_snapshot_of_more_than_a_function_holds_is_not_contended() {
    let engine = Engine::new();
    let (source, small, pair) = cramped(&engine);
    for round in 1..20 {
        source.set(&0, round);
        let seen = engine.snapshot(|s| {
            let small: i64 = (0..8).map(|key| small.get(s, &key).expect("a value")).sum();
            let pairs: i64 = (0..7).map(|key| pair.get(s, &key).expect("a value")).sum();
            (small, pairs)
        });
        assert_eq!(seen, Ok((8 + round, 14 + round)), "I30: eviction changes no result");
    }
    engine.assert_consistent();
}

#[test]
fn a_removed_key_is_not_taken_for_the_one_that_was_read() {
    let engine = Engine::new();
    let function = engine.function("f", |_: &Cx, key: &u8| *key).expect("a free name");
    let mut runs = 0;
    let read = engine.snapshot(|s| {
        runs += 1;
        let value = function.get(s, &1).expect("a value");
        if runs == 1 {
            function.remove(&1);
            function.get(&engine, &2).expect("a value");
        }
        value
    });
    assert_eq!((read, runs), (Ok(1), 2));
}

#[test]
fn an_asynchronous_snapshot_reads_one_commit() {
    let engine = Engine::new();
    let source = source(&engine);
    let inner = source.clone();
    let double = engine
        .async_function("double", move |cx: Cx, key: u8| {
            let source = inner.clone();
            async move { source.get(&cx, &key).expect("a value") * 2 }
        })
        .expect("a free name");
    let runs = AtomicU64::new(0);
    let pair = block_on(engine.snapshot_async(|s| {
        let run = runs.fetch_add(1, SeqCst);
        let (double, source, engine) = (double.clone(), source.clone(), engine.clone());
        async move {
            let first = double.get(&s, &0).await.expect("a value");
            if run == 0 {
                engine.batch(|b| (0..2).for_each(|key| b.set(&source, &key, 5)));
            }
            (first, double.get(s.clone(), &1).await.expect("a value"))
        }
    }));
    assert_eq!((pair, runs.load(SeqCst)), (Ok((10, 10)), 2));
    engine.assert_consistent();
}

#[test]
fn an_asynchronous_snapshot_is_given_up_at_its_deadline_too() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let source = source(&engine);
    let contended = block_on(engine.snapshot_async_within(Duration::from_millis(10), |s| {
        let (source, clock) = (source.clone(), clock.clone());
        async move {
            let seen = source.get(&s, &0).expect("a value");
            source.set(&0, seen + 1);
            clock.advance(Duration::from_millis(4));
        }
    }));
    assert_eq!(contended.map_err(|contended| contended.tries), Err(3));
    engine.assert_consistent();
}

/// I4 and I1 under real threads: batches keep the sum at zero; a snapshot and a fresh sum may never see anything else.
#[test]
fn snapshots_and_fresh_sums_never_see_half_a_batch() {
    const KEYS: u8 = 6;
    let engine = Engine::new();
    let source = source(&engine);
    let inner = source.clone();
    let copy = engine.define("copy").cut_off_eq().function(move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value")).expect("a name");
    let (direct, through) = (source.clone(), copy.clone());
    let sum = engine
        .define("sum")
        .cut_off_eq()
        .function(move |cx: &Cx, _: &u8| {
            let read = |key| if key % 2 == 0 { direct.get(cx, &key) } else { through.get(cx, &key) };
            (0..KEYS).map(|key| read(key).expect("a value")).sum::<i64>()
        })
        .expect("a free name");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..3_000_i64 {
                engine.batch(|b| {
                    for key in 0..KEYS {
                        let sign = if key % 2 == 0 { 1 } else { -1 };
                        b.set(&source, &key, sign * (round + 1));
                    }
                });
            }
            done.store(true, SeqCst);
        });
        let mut seen = 0_u64;
        while !done.load(SeqCst) || seen < 100 {
            if let Ok(total) = engine.snapshot(|s| (0..KEYS).map(|key| copy.get(s, &key).expect("a value")).sum::<i64>()) {
                assert_eq!(total, 0, "I4");
            }
            match sum.get_fresh(&engine, &0) {
                Ok(total) => assert_eq!(total, 0, "I1"),
                Err(fault) => assert!(matches!(fault, Fault::Contended { .. }), "{fault}"),
            }
            seen += 1;
        }
        writer.join().expect("no panic");
    });
    engine.assert_consistent();
}
