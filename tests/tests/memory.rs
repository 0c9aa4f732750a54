//! Capacities, eviction and its levels, keeping, and the memory report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use wellspring::{Capacity, Cx, Engine, Function, ManualClock, RegisterError, Source};

const MS: Duration = Duration::from_millis(1);

/// A source, a function of it with the given capacity that counts its runs, and a total made from that.
struct Stack {
    engine: Engine,
    source: Source<u64, u64>,
    base: Function<u64, String>,
    top: Function<u64, u64>,
    runs: Arc<AtomicU64>,
    tops: Arc<AtomicU64>,
}

fn stack(capacity: Capacity) -> Stack {
    let engine = Engine::new();
    let source = engine.source("source", |n: &u64| *n).expect("a free name");
    let (runs, tops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (inner, counter) = (source.clone(), runs.clone());
    let base = engine
        .define("base")
        .capacity(capacity)
        .function(move |cx: &Cx, n: &u64| {
            counter.fetch_add(1, SeqCst);
            inner.get(cx, n).expect("a value").to_string()
        })
        .expect("a free name");
    let (inner, counter) = (base.clone(), tops.clone());
    let top = engine
        .function("top", move |cx: &Cx, n: &u64| {
            counter.fetch_add(1, SeqCst);
            inner.get(cx, n).expect("a value").len() as u64
        })
        .expect("a free name");
    Stack { engine, source, base, top, runs, tops }
}

#[test]
fn a_function_holds_no_more_keys_than_its_capacity() {
    let Stack { engine, base, runs, .. } = stack(Capacity::entries(100));
    for n in 0..10_000 {
        assert_eq!(base.get(&engine, &n), Ok(n.to_string()));
        assert!(base.len() <= 100, "{} keys", base.len());
    }
    assert_eq!(runs.load(SeqCst), 10_000);
    engine.assert_consistent();
}

#[test]
fn what_is_read_again_and_again_outlives_a_scan() {
    let Stack { engine, base, runs, .. } = stack(Capacity::entries(100));
    for n in 0..50 {
        base.get(&engine, &n).expect("a value");
    }
    for n in 1_000..5_000 {
        base.get(&engine, &n).expect("a value");
        base.get(&engine, &(n % 50)).expect("a value");
    }
    assert!(runs.load(SeqCst) <= 4_050 + 50, "{} runs: the hot keys were thrown out by the scan", runs.load(SeqCst));
    engine.assert_consistent();
}

#[test]
fn every_way_to_read_leaves_a_trace() {
    let Stack { engine, base, .. } = stack(Capacity::entries(64).low(32));
    let read: [&dyn Fn(&u64); 4] = [
        &|n| drop(base.get(&engine, n)),
        &|n| assert!(base.peek(&engine.pin(), n).is_some()),
        &|n| base.get_many(&engine.pin(), &[*n], |_, value| assert!(value.is_some())),
        &|n| assert!(base.node(n).expect("a node").peek(&engine.pin()).is_some()),
    ];
    for (at, read) in read.iter().enumerate() {
        let hot = at as u64;
        base.get(&engine, &hot).expect("a value");
        for n in 1_000..2_000 {
            read(&hot);
            base.get(&engine, &(n * 10 + hot)).expect("a value");
        }
        assert!(base.existing(&hot).is_some(), "way {at}");
    }
    engine.assert_consistent();
}

#[test]
fn an_evicted_value_stays_the_path_along_which_changes_reach_what_was_made_from_it() {
    let Stack { engine, source, base, top, runs, tops } = stack(Capacity::entries(1_000));
    for n in 0..10 {
        assert_eq!(top.get(&engine, &n), Ok(1));
    }
    // A second chance for what was read, then the values.
    assert_eq!(base.shrink_to(0), 0, "something was made from each");
    assert_eq!(base.len(), 10);
    engine.assert_consistent();
    for n in 0..10 {
        assert!(base.existing(&n).is_none());
    }
    source.set(&3, 77_777);
    assert_eq!(top.get(&engine, &3), Ok(5), "the change went through the evicted node");
    assert_eq!((runs.load(SeqCst), tops.load(SeqCst)), (11, 11));
    engine.assert_consistent();
}

#[test]
fn what_was_made_from_an_evicted_value_still_stands() {
    // Counted by weight, a value that is gone is enough.
    let Stack { engine, source, base, top, runs, tops } = stack(Capacity::weight(1_000));
    top.get(&engine, &1).expect("a value");
    let computed = top.computed(&engine, &1).expect("a value");
    base.shrink_to(0);
    assert!(base.existing(&1).is_none() && base.len() == 1, "the value went, the node stays");
    assert!(computed.is_consistent());
    engine.assert_consistent();
    assert_eq!(top.get(&engine, &1), Ok(1));
    source.set(&2, 9);
    assert_eq!((runs.load(SeqCst), tops.load(SeqCst)), (1, 1), "nothing ran");
    assert_eq!(base.get(&engine, &1).as_deref(), Ok("1"), "made again");
    assert!(!computed.is_consistent(), "it might have come out differently");
    assert_eq!((top.get(&engine, &1), runs.load(SeqCst)), (Ok(1), 2));
    engine.assert_consistent();
}

#[test]
fn slots_go_last_and_what_was_made_from_them_is_computed_again() {
    let Stack { engine, source, base, top, .. } = stack(Capacity::entries(1_000));
    for n in 0..10 {
        top.get(&engine, &n).expect("a value");
    }
    for _ in 0..3 {
        base.shrink_to(0);
        engine.assert_consistent();
    }
    assert_eq!(base.len(), 0, "value, dependencies, slot");
    for n in 0..10 {
        source.set(&n, n + 100);
        assert_eq!(top.get(&engine, &n), Ok(3));
    }
    engine.assert_consistent();
}

#[test]
fn what_hot_values_were_made_from_is_as_hot_as_they_are() {
    let engine = Engine::builder().capacity(Capacity::entries(4)).build();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let mid = engine.function("mid", move |_: &Cx, _: &u64| counter.fetch_add(1, SeqCst)).expect("a free name");
    let top = engine.function("top", move |cx: &Cx, n: &u64| mid.get(cx, n).expect("a value")).expect("a free name");
    let other = engine.function("other", |_: &Cx, n: &u64| *n).expect("a free name");
    for n in 0..1_000 {
        top.get(&engine, &0).expect("a value");
        other.get(&engine, &n).expect("a value");
        if n % 2 == 0 {
            // Read again, so that the hand goes on from it, and comes round.
            other.get(&engine, &n).expect("a value");
        }
    }
    let runs = runs.load(SeqCst);
    assert!(runs < 10, "what a value that is read all the time was made from was made {runs} times");
    engine.assert_consistent();
}

#[test]
fn what_is_watched_stays() {
    let Stack { engine, base, .. } = stack(Capacity::entries(1_000));
    let computed = base.computed(&engine, &1).expect("a value");
    let (woken, waker) = wellspring_tests::waking::Counting::pair();
    let mut ended = computed.invalidated();
    assert!(wellspring_tests::waking::poll_once(&mut ended, &waker).is_pending());
    base.get(&engine, &2).expect("a value");
    for _ in 0..5 {
        base.shrink_to(0);
    }
    assert_eq!((base.len(), woken.count()), (1, 0));
    base.invalidate(&1);
    assert_eq!(woken.count(), 1);
    engine.assert_consistent();
}

#[test]
fn what_nobody_watches_any_more_may_leave() {
    let Stack { engine, base, .. } = stack(Capacity::entries(1_000));
    let computed = base.computed(&engine, &1).expect("a value");
    let (woken, waker) = wellspring_tests::waking::Counting::pair();
    let (mut first, mut second) = (computed.invalidated(), computed.invalidated());
    assert!(wellspring_tests::waking::poll_once(&mut first, &waker).is_pending());
    assert!(wellspring_tests::waking::poll_once(&mut second, &waker).is_pending());
    drop(first);
    base.shrink_to(0);
    assert_eq!(base.len(), 1, "one is left");
    drop(second);
    base.shrink_to(0);
    assert_eq!((base.len(), woken.count()), (0, 0));
    engine.assert_consistent();
}

#[test]
fn keys_that_never_get_a_value_do_not_outgrow_the_capacity() {
    let engine = Engine::new();
    let define = || engine.define::<u64, u64>("broken").capacity(Capacity::entries(10));
    let broken = define().function(|_: &Cx, _: &u64| std::panic::resume_unwind(Box::new("a body panics"))).expect("a free name");
    let define = engine.define::<u64, u64>("endless").capacity(Capacity::entries(10));
    let endless = define.async_function(|_: Cx, _: u64| std::future::pending()).expect("a free name");
    for n in 0..1_000 {
        broken.get(&engine, &n).expect_err("a panic");
        assert!(broken.len() <= 10, "{} keys", broken.len());
        let mut read = endless.get(&engine, &n);
        assert!(wellspring_tests::waking::poll_once(&mut read, std::task::Waker::noop()).is_pending());
        drop(read);
        assert!(endless.len() <= 10, "{} keys", endless.len());
    }
    engine.assert_consistent();
}

#[test]
fn a_weight_that_cannot_be_told_is_a_fault_and_loses_no_value() {
    let (engine, tracker) = (Engine::new(), wellspring_tests::tracked::Tracker::default());
    let made = tracker.clone();
    let function = engine
        .define("f")
        .capacity(Capacity::weight(1_000))
        .weigh(|_: &u64, _: &wellspring_tests::tracked::Tracked| std::panic::resume_unwind(Box::new("no scales")))
        .function(move |_: &Cx, n: &u64| made.track(Ok(*n as i64)))
        .expect("a free name");
    assert!(matches!(function.get(&engine, &1), Err(wellspring::Fault::Panicked { .. })));
    engine.collect();
    assert_eq!(tracker.alive(), 0, "I31");
    engine.assert_consistent();
}

#[test]
fn values_count_by_their_weight_where_they_have_one() {
    let engine = Engine::new();
    let text = engine
        .define("text")
        .capacity(Capacity::weight(1_000))
        .weigh(|_: &u64, value: &String| value.len() as u32)
        .function(|_: &Cx, n: &u64| "x".repeat(*n as usize))
        .expect("a free name");
    for n in 1..=300 {
        text.get(&engine, &n).expect("a value");
        let report = engine.memory_report();
        assert!(report.functions[0].used <= 1_000, "{report}");
    }
    let held: u64 = (1..=300).filter(|n| text.existing(n).is_some()).sum();
    let report = engine.memory_report();
    assert_eq!(report.functions[0].used, held, "I29: {report}");
    for n in 1..=300 {
        text.remove(&n);
    }
    assert_eq!(engine.memory_report().functions[0].used, 0, "I29");
    engine.assert_consistent();
}

#[test]
fn a_value_heavier_than_everything_is_returned_and_not_kept() {
    let engine = Engine::new();
    let text = engine
        .define("text")
        .capacity(Capacity::weight(10))
        .weigh(|_: &u64, value: &String| value.len() as u32)
        .function(|_: &Cx, n: &u64| "x".repeat(*n as usize))
        .expect("a free name");
    assert_eq!(text.get(&engine, &500).expect("a value").len(), 500);
    assert!(text.existing(&500).is_none());
    engine.assert_consistent();
}

#[test]
fn promises_are_kept_where_nothing_can_be_kept() {
    let Stack { engine, source, base, top, .. } = stack(Capacity::entries(0));
    assert_eq!(base.get_fresh(&engine, &5).as_deref(), Ok("5"));
    let commit = source.set(&5, 60);
    assert_eq!(base.get_at_least(&engine, &5, commit).as_deref(), Ok("60"));
    assert_eq!(top.get_fresh(&engine, &5), Ok(2));
    let read = engine.snapshot(|s| (0..10).map(|n| base.get(s, &n).expect("a value").len()).sum::<usize>());
    assert_eq!(read, Ok(11));
    assert_eq!(base.len(), 0);
    engine.assert_consistent();
}

#[test]
fn an_asynchronous_value_heavier_than_everything_reaches_all_who_wait() {
    let engine = Engine::new();
    let define = engine.define::<u64, String>("text").capacity(Capacity::weight(10)).weigh(|_, value| value.len() as u32);
    let text = define
        .async_function(|_: Cx, n: u64| async move {
            wellspring_tests::waking::Breath::default().await;
            "x".repeat(n as usize)
        })
        .expect("a free name");
    let (mut first, second) = (text.get(&engine, &500), text.get(&engine, &500));
    assert!(wellspring_tests::waking::poll_once(&mut first, std::task::Waker::noop()).is_pending());
    assert_eq!(wellspring_tests::waking::block_on(second).expect("a value").len(), 500);
    assert_eq!(wellspring_tests::waking::block_on(first).expect("a value").len(), 500);
    assert_eq!(wellspring_tests::waking::block_on(text.get_fresh(&engine, &500)).expect("a value").len(), 500);
    assert!(text.existing(&500).is_none());
    engine.assert_consistent();
}

#[test]
fn the_engines_capacity_is_shared_by_its_functions_and_leaves_sources_alone() {
    let engine = Engine::builder().capacity(Capacity::entries(100)).build();
    let source = engine.source("source", |n: &u64| *n).expect("a free name");
    let functions: Vec<_> = (0..3)
        .map(|f| {
            let source = source.clone();
            engine.function(format!("f{f}"), move |cx: &Cx, n: &u64| source.get(cx, n).expect("a value") + f).expect("a free name")
        })
        .collect();
    for n in 0..1_000 {
        source.set(&n, n * 2);
        for (f, function) in functions.iter().enumerate() {
            assert_eq!(function.get(&engine, &n), Ok(n * 2 + f as u64));
        }
    }
    assert!(functions.iter().map(|function| function.len()).sum::<usize>() <= 100);
    for n in 0..1_000 {
        assert_eq!(source.get(&engine, &n), Ok(n * 2), "what was set stays set");
    }
    let report = engine.memory_report();
    assert_eq!(report.capacity.map(|(used, high)| (used <= 100, high)), Some((true, 100)));
    assert_eq!(report.evicted, 3_000 - functions.iter().map(|function| function.len() as u64).sum::<u64>());
    engine.assert_consistent();
}

#[test]
fn a_key_is_kept_for_as_long_after_its_last_read_as_its_function_says() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let define = engine.define("kept").keep_at_least(500 * MS);
    let kept = define.function(move |_: &Cx, _: &u64| counter.fetch_add(1, SeqCst) + 1).expect("a free name");
    for (wait, expected) in [(0, 1), (0, 1), (250, 1), (1_000, 2)] {
        clock.advance(wait * MS);
        kept.shrink_to(0);
        kept.get(&engine, &0).expect("a value");
        kept.get(&engine, &0).expect("a value");
        assert_eq!(runs.load(SeqCst), expected, "after {wait} ms more");
    }
    engine.assert_consistent();
}

#[test]
fn a_key_is_kept_from_its_first_read_on() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let define = engine.define("kept").capacity(Capacity::entries(1)).keep_at_least(500 * MS);
    let kept = define.function(|_: &Cx, n: &u64| *n).expect("a free name");
    for n in 0..3 {
        kept.get(&engine, &n).expect("a value");
    }
    kept.shrink_to(0);
    assert_eq!(kept.len(), 3, "each was read a moment ago");
    clock.advance(1_000 * MS);
    kept.shrink_to(0);
    assert_eq!(kept.len(), 0);
    engine.assert_consistent();
}

#[test]
fn a_kept_key_that_is_computed_again_does_not_leave_for_being_read_long_ago() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let define = engine.define("kept").capacity(Capacity::entries(2)).keep_at_least(16 * MS);
    let kept = define.function(move |_: &Cx, _: &u64| counter.fetch_add(1, SeqCst)).expect("a free name");
    for key in [3, 0, 1] {
        kept.get(&engine, &key).expect("a value");
    }
    kept.invalidate(&0);
    clock.advance(17 * MS);
    assert_eq!(kept.get(&engine, &0), Ok(3));
    assert_eq!(kept.get(&engine, &0), Ok(3), "read just now");
    engine.assert_consistent();
}

#[test]
fn a_key_with_an_invalidation_to_come_is_not_evicted_before_it() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let define = engine.define("f").capacity(Capacity::entries(10));
    let function = define.function(move |_: &Cx, _: &u64| counter.fetch_add(1, SeqCst)).expect("a free name");
    function.get(&engine, &1).expect("a value");
    assert!(function.invalidate_after(&1, 10 * MS));
    for _ in 0..4 {
        function.shrink_to(0);
    }
    clock.advance(3 * MS);
    function.get(&engine, &1).expect("a value");
    clock.advance(7 * MS);
    assert!(function.existing(&1).is_none(), "as was asked for");
    engine.assert_consistent();
}

#[test]
fn sources_have_no_capacity_of_their_own() {
    let refused = Engine::new().define::<u8, u64>("row").capacity(Capacity::entries(1)).source(|_| 0);
    assert_eq!(refused.err(), Some(RegisterError::NotForSources { name: "row".into(), option: "capacity" }));
}

#[test]
fn a_report_says_where_the_memory_is() {
    let Stack { engine, source, top, .. } = stack(Capacity::entries(50));
    for n in 0..100 {
        top.get(&engine, &n).expect("a value");
    }
    source.set(&99, 1);
    let report = engine.memory_report();
    let names: Vec<_> = report.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["source", "base", "top"]);
    assert_eq!(report.functions[1].capacity, Some(50));
    assert_eq!(report.functions[2].nodes, 100);
    let text = report.to_string();
    assert!(text.contains("base") && text.contains("longest pin"), "{text}");
    engine.assert_consistent();
}

/// I30 under real threads: a small capacity over many keys, a writer, and readers who know what they must see at least.
#[test]
fn eviction_never_shows_a_reader_older_data() {
    const KEYS: u64 = 200;
    let Stack { engine, source, base, top, .. } = stack(Capacity::entries(40));
    for key in 0..KEYS {
        source.set(&key, 1_000);
    }
    let told: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(1_000)).collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (engine, source, base, top, told, done) = (&engine, &source, &base, &top, &told, &done);
        scope.spawn(move || {
            for round in 0..20_000_u64 {
                let key = round * 7 % KEYS;
                source.set(&key, 1_001 + round);
                told[key as usize].store(1_001 + round, SeqCst);
            }
            done.store(true, SeqCst);
        });
        for reader in 0..2 {
            scope.spawn(move || {
                let mut round = reader;
                while !done.load(SeqCst) {
                    round += 13;
                    let key = round % KEYS;
                    let least = told[key as usize].load(SeqCst);
                    let seen: u64 = base.get(engine, &key).expect("a value").parse().expect("a number");
                    assert!(seen >= least, "key {key}: {seen} after {least}");
                    assert!(top.get(engine, &key).expect("a value") >= 4);
                    if round % 50 == 0 {
                        base.shrink_to(10);
                    }
                }
            });
        }
    });
    for key in 0..KEYS {
        let now = source.get(&engine, &key).expect("a value").to_string();
        assert_eq!(base.get(&engine, &key), Ok(now.clone()));
        assert_eq!(top.get(&engine, &key), Ok(now.len() as u64));
    }
    engine.assert_consistent();
}
