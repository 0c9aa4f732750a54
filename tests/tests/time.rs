//! How long values live: expiry, delayed and debounced invalidation, errors that are tried again. All on a clock moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use wellspring::{Cx, Define, Engine, ErrorKind, Function, ManualClock, RegisterError};

const MS: Duration = Duration::from_millis(1);

fn at_hand() -> (Arc<ManualClock>, Engine) {
    let clock = Arc::new(ManualClock::new());
    (clock.clone(), Engine::builder().clock(clock).build())
}

/// A function that returns how often it has run.
fn counting(define: Define<u64, u64>) -> (Function<u64, u64>, Arc<AtomicU64>) {
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let function = define.function(move |_: &Cx, _: &u64| counter.fetch_add(1, SeqCst) + 1).expect("a free name");
    (function, runs)
}

/// A function whose result is what the test says next.
fn scripted(define: impl FnOnce(Define<u64, Result<u64, ErrorKind>>) -> Define<u64, Result<u64, ErrorKind>>, engine: &Engine) -> Script {
    let (next, runs) = (Arc::new(std::sync::Mutex::new(Ok(0))), Arc::new(AtomicU64::new(0)));
    let (says, counter) = (next.clone(), runs.clone());
    let body = move |_: &Cx, _: &u64| {
        counter.fetch_add(1, SeqCst);
        *says.lock().expect("unpoisoned")
    };
    let function = define(engine.define("scripted")).function(body).expect("a free name");
    Script { function, next, runs }
}

type Scripted = Function<u64, Result<u64, ErrorKind>>;

struct Script {
    function: Scripted,
    next: Arc<std::sync::Mutex<Result<u64, ErrorKind>>>,
    runs: Arc<AtomicU64>,
}

impl Script {
    fn says(&self, result: Result<u64, ErrorKind>) {
        *self.next.lock().expect("unpoisoned") = result;
    }
    fn get(&self, engine: &Engine) -> Result<u64, ErrorKind> {
        self.function.get(engine, &0).expect("no fault")
    }
    fn runs(&self) -> u64 {
        self.runs.load(SeqCst)
    }
}

#[test]
fn a_value_expires_at_its_time_and_not_a_tick_earlier() {
    let (clock, engine) = at_hand();
    clock.advance(Duration::from_micros(700));
    let (function, runs) = counting(engine.define("f").expire_after(10 * MS));
    assert_eq!(function.get(&engine, &1), Ok(1));
    clock.advance(Duration::from_micros(9_999));
    assert_eq!(function.get(&engine, &1), Ok(1), "I33: never early");
    clock.advance(MS);
    assert!(function.existing(&1).is_none(), "I33: late by a tick at most");
    assert_eq!(function.get(&engine, &1), Ok(2));
    assert_eq!(runs.load(SeqCst), 2);
    engine.assert_consistent();
}

#[test]
fn what_ends_at_once_ends_at_the_clocks_zero_too() {
    let (clock, engine) = at_hand();
    let (function, runs) = counting(engine.define("f").expire_after(Duration::ZERO));
    function.get(&engine, &1).expect("a value");
    clock.advance(MS);
    assert!(function.existing(&1).is_none(), "tick 0 is no never");
    assert_eq!((function.get(&engine, &1), runs.load(SeqCst)), (Ok(2), 2));
    engine.assert_consistent();
}

#[test]
fn what_was_made_from_an_expired_value_may_be_stale() {
    let (clock, engine) = at_hand();
    let (rate, _) = counting(engine.define("rate").expire_after(100 * MS));
    let total = engine.function("total", move |cx: &Cx, n: &u64| rate.get(cx, n).expect("a value") * 10).expect("a free name");
    assert_eq!(total.get(&engine, &1), Ok(10));
    let computed = total.computed(&engine, &1).expect("a value");
    clock.advance(100 * MS);
    assert!(!computed.is_consistent());
    assert_eq!(total.get(&engine, &1), Ok(20));
    engine.assert_consistent();
}

#[test]
fn a_value_stored_anew_lives_its_whole_time_again() {
    let (clock, engine) = at_hand();
    let (function, runs) = counting(engine.define("f").expire_after(10 * MS));
    function.get(&engine, &1).expect("a value");
    clock.advance(6 * MS);
    function.invalidate(&1);
    function.get(&engine, &1).expect("a value");
    clock.advance(6 * MS);
    assert!(function.existing(&1).is_some(), "I33: the first value's entry does not end the second");
    clock.advance(4 * MS);
    assert!(function.existing(&1).is_none());
    clock.advance(Duration::from_secs(60));
    assert_eq!(runs.load(SeqCst), 2, "expiry computes nothing");
    engine.assert_consistent();
}

#[test]
fn a_later_wish_never_postpones_an_earlier_one() {
    let (clock, engine) = at_hand();
    let (function, _) = counting(engine.define("f"));
    assert!(!function.invalidate_after(&1, MS), "the key has no node");
    function.get(&engine, &1).expect("a value");
    for delay in [50, 20, 70, 30] {
        assert!(function.invalidate_after(&1, delay * MS));
    }
    clock.advance(19 * MS);
    assert!(function.existing(&1).is_some());
    clock.advance(MS);
    assert!(function.existing(&1).is_none());
    assert_eq!(function.get(&engine, &1), Ok(2));
    clock.advance(100 * MS);
    assert!(function.existing(&1).is_some(), "the wishes were one");
    engine.assert_consistent();
}

#[test]
fn a_removed_keys_timers_do_not_reach_the_next_tenant_of_its_slot() {
    let (clock, engine) = at_hand();
    let (function, _) = counting(engine.define("f").expire_after(100 * MS));
    function.get(&engine, &1).expect("a value");
    function.invalidate_after(&1, 10 * MS);
    assert!(function.remove(&1));
    clock.advance(5 * MS);
    function.get(&engine, &2).expect("a value");
    clock.advance(99 * MS);
    assert!(function.existing(&2).is_some());
    clock.advance(MS);
    assert!(function.existing(&2).is_none(), "its own time");
    engine.assert_consistent();
}

#[test]
fn a_burst_of_invalidations_is_one_where_they_are_debounced() {
    let (clock, engine) = at_hand();
    let (function, runs) = counting(engine.define("f").debounce(100 * MS));
    function.get(&engine, &1).expect("a value");
    for _ in 0..50 {
        function.invalidate(&1);
        clock.advance(MS);
        assert_eq!(function.get(&engine, &1), Ok(1));
    }
    clock.advance(50 * MS);
    assert_eq!(function.get(&engine, &1), Ok(2));
    assert_eq!(runs.load(SeqCst), 2);
    engine.assert_consistent();
}

#[test]
fn an_error_is_kept_for_as_long_as_its_kind_says() {
    let second = Duration::from_secs(1);
    for (kind, span) in [
        (ErrorKind::Transient, Some(second)),
        (ErrorKind::NonTransient, Some(30 * second)),
        (ErrorKind::RetryAfter(5 * second), Some(5 * second)),
        (ErrorKind::RetryAfter(MS), Some(second)),
        (ErrorKind::Terminal, None),
    ] {
        let (clock, engine) = at_hand();
        let script = scripted(|define| define.retry_errors(|kind| *kind), &engine);
        script.says(Err(kind));
        assert_eq!(script.get(&engine), Err(kind));
        assert_eq!(script.get(&engine), Err(kind));
        assert_eq!(script.runs(), 1, "kept: {kind:?}");
        let span = span.unwrap_or(Duration::from_secs(86_400));
        clock.advance(span - MS);
        assert!(script.function.existing(&0).is_some(), "{kind:?}");
        clock.advance(MS);
        let again = script.function.existing(&0).is_none();
        assert_eq!(again, kind != ErrorKind::Terminal, "{kind:?}");
        script.says(Ok(7));
        script.get(&engine).ok();
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(script.runs(), 1 + u64::from(again), "a value is no error: it stays");
        engine.assert_consistent();
    }
}

#[test]
fn the_ordinary_end_caps_what_is_not_transient() {
    let (clock, engine) = at_hand();
    let script = scripted(|define| define.expire_after(500 * MS).retry_errors(|kind| *kind), &engine);
    script.says(Err(ErrorKind::NonTransient));
    script.get(&engine).unwrap_err();
    clock.advance(500 * MS);
    assert!(script.function.existing(&0).is_none());
    script.says(Err(ErrorKind::Terminal));
    script.get(&engine).unwrap_err();
    clock.advance(499 * MS);
    assert!(script.function.existing(&0).is_some());
    clock.advance(MS);
    assert!(script.function.existing(&0).is_none());
}

#[test]
fn a_rule_that_panics_counts_as_transient() {
    let (clock, engine) = at_hand();
    let script = scripted(|define| define.retry_errors(|_| panic!("no idea")).error_delays(500 * MS, Duration::MAX), &engine);
    script.says(Err(ErrorKind::Terminal));
    script.get(&engine).unwrap_err();
    clock.advance(500 * MS);
    assert!(script.function.existing(&0).is_none());
}

#[test]
fn readers_keep_the_last_good_value_while_errors_last_where_they_asked_for_that() {
    let (clock, engine) = at_hand();
    let script = scripted(|define| define.retry_errors(|kind| *kind).serve_stale_on_error(), &engine);
    let function = script.function.clone();
    let above = engine.function("above", move |cx: &Cx, n: &u64| function.get(cx, n).expect("no fault")).expect("a free name");
    script.says(Err(ErrorKind::Transient));
    assert_eq!(above.get(&engine, &0), Ok(Err(ErrorKind::Transient)), "there is no good one yet");
    clock.advance(Duration::from_secs(1));
    script.says(Ok(5));
    assert_eq!(above.get(&engine, &0), Ok(Ok(5)));
    script.says(Err(ErrorKind::Transient));
    script.function.invalidate(&0);
    assert_eq!(above.get(&engine, &0), Ok(Ok(5)));
    assert_eq!((script.get(&engine), script.runs()), (Ok(5), 3));
    clock.advance(Duration::from_secs(1));
    assert_eq!((script.get(&engine), script.runs()), (Ok(5), 4), "tried again");
    script.says(Ok(6));
    clock.advance(Duration::from_secs(1));
    assert_eq!(above.get(&engine, &0), Ok(Ok(6)));
    engine.assert_consistent();
}

#[test]
fn an_error_is_tried_again_by_one_flight_however_many_ask() {
    let (clock, engine) = at_hand();
    let script = scripted(|define| define.retry_errors(|kind| *kind), &engine);
    script.says(Err(ErrorKind::Transient));
    script.get(&engine).unwrap_err();
    clock.advance(Duration::from_secs(1));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| script.get(&engine).unwrap_err());
        }
    });
    assert_eq!(script.runs(), 2);
}

#[test]
fn options_about_time_are_for_functions() {
    let (_, engine) = at_hand();
    let refused = engine.define::<u8, u64>("row").expire_after(MS).source(|_| 0);
    assert_eq!(refused.err(), Some(RegisterError::NotForSources { name: "row".into(), option: "expire_after" }));
    let refused = engine.define::<u8, u64>("ahead").expire_after(2 * MS).refresh_ahead(MS).function(|_, _| 0);
    assert_eq!(refused.err(), Some(RegisterError::NeedsSpawner { name: "ahead".into(), option: "refresh_ahead" }));
}

#[test]
fn a_sleeper_on_the_systems_clock_wakes_no_earlier_than_it_said() {
    let engine = Engine::new();
    let (function, _) = counting(engine.define("f").expire_after(20 * MS));
    let woken = engine.sleep(30 * MS);
    function.get(&engine, &1).expect("a value");
    wellspring_tests::waking::block_on(woken);
    assert!(function.existing(&1).is_none(), "its entry came before the sleeper's");
}
