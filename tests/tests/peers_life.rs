//! The peer's tests of time, errors and keeping (fusion-semantics §9.1, §9.2), on a clock moved by hand. The table is in `PEER_TESTS.md`.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use wellspring::{Capacity, Cx, Engine, ErrorKind, Function, ManualClock};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn at_hand() -> (Arc<ManualClock>, Engine) {
    let clock = Arc::new(ManualClock::new());
    (clock.clone(), Engine::builder().clock(clock).build())
}

type Failing = Function<u8, Result<u64, ErrorKind>>;

/// Fails with the given kind and counts its runs; key 0 stays as it fell out.
fn failing(engine: &Engine, name: &str, kind: ErrorKind) -> (Failing, Arc<AtomicU64>) {
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let body = move |_: &Cx, _: &u8| {
        counter.fetch_add(1, SeqCst);
        Err(kind)
    };
    (engine.define(name).retry_errors(|kind| *kind).function(body).expect("a free name"), runs)
}

#[test]
fn simplest_provider_exception_caching_in_time() {
    let (clock, engine) = at_hand();
    let (inner, runs) = failing(&engine, "inner", ErrorKind::Transient);
    let outer = engine
        .define("outer")
        .retry_errors(|_: &ErrorKind| ErrorKind::Transient)
        .function(move |cx: &Cx, key: &u8| inner.get(cx, key).expect("no fault"))
        .expect("a free name");
    for _ in 0..2 {
        assert_eq!(outer.get(&engine, &0), Ok(Err(ErrorKind::Transient)));
    }
    assert_eq!(runs.load(SeqCst), 1);
    clock.advance(1_100 * MS);
    assert_eq!(outer.get(&engine, &0), Ok(Err(ErrorKind::Transient)));
    assert_eq!(runs.load(SeqCst), 2);
    engine.assert_consistent();
}

#[test]
fn simplest_provider_fail() {
    let (clock, engine) = at_hand();
    let (transient, _) = failing(&engine, "transient", ErrorKind::Transient);
    let (service, _) = failing(&engine, "service", ErrorKind::NonTransient);
    let first = transient.computed(&engine, &0).expect("no fault");
    let second = service.computed(&engine, &0).expect("no fault");
    clock.advance(SECOND);
    assert!(!first.is_consistent());
    assert!(second.is_consistent());
    assert_eq!(service.computed(&engine, &0).map(|again| again.node()), Ok(second.node()));
}

#[test]
fn simplest_provider_options() {
    let (_, engine) = at_hand();
    let options = |name: &str| engine.stats().functions.into_iter().find(|function| function.name == name).expect("registered");
    engine.define::<u8, u64>("kept").keep_at_least(10 * SECOND).function(|_, _| 0).expect("a free name");
    let short = engine.define::<u8, Result<u64, ()>>("short").keep_at_least(500 * MS).expire_after(3 * SECOND);
    let short = short.retry_errors(|()| ErrorKind::Transient).error_delays(500 * MS, 30 * SECOND);
    short.function(|_, _| Ok(0)).expect("a free name");
    engine.function("plain", |_: &Cx, _: &u8| 0_u64).expect("a free name");
    assert_eq!(options("kept").keep_at_least, Some(10 * SECOND));
    assert_eq!((options("short").keep_at_least, options("short").expire_after), (Some(500 * MS), Some(3 * SECOND)));
    assert_eq!(options("short").error_delays, Some((500 * MS, 30 * SECOND)));
    let plain = options("plain");
    assert_eq!((plain.keep_at_least, plain.expire_after, plain.error_delays), (None, None, None));
}

#[test]
fn computed_interceptor_invalidation_and_caching() {
    let (clock, engine) = at_hand();
    let ticks = Arc::new(AtomicU64::new(0));
    let counter = ticks.clone();
    let body = move |_: &Cx, _: &u8| counter.fetch_add(1, SeqCst);
    let root = engine.define("root").expire_after(250 * MS).function(body).expect("a free name");
    let inner = root.clone();
    let offset = engine.function("offset", move |cx: &Cx, n: &u64| inner.get(cx, &0).expect("a value") + n).expect("a free name");
    let (five, seven) = (offset.computed(&engine, &5).expect("a value"), offset.computed(&engine, &7).expect("a value"));
    assert_ne!(five.node(), seven.node(), "arguments are kept apart");
    clock.advance(249 * MS);
    assert!(five.is_consistent() && seven.is_consistent());
    assert_eq!(offset.get(&engine, &5), Ok(5), "the same one before its time");
    clock.advance(MS);
    assert!(!five.is_consistent() && !seven.is_consistent());
    assert_eq!((offset.get(&engine, &5), offset.get(&engine, &7)), (Ok(6), Ok(8)), "another one after it");
    engine.assert_consistent();
}

#[test]
fn min_cache_duration_no_keep_alive() {
    let (_, engine) = at_hand();
    let runs = Arc::new(AtomicU64::new(0));
    let counter = runs.clone();
    let body = move |_: &Cx, _: &u8| counter.fetch_add(1, SeqCst);
    let function = engine.define("f").capacity(Capacity::entries(10)).function(body).expect("a free name");
    for expected in 0..3 {
        assert_eq!(function.get(&engine, &0), Ok(expected));
        function.shrink_to(0);
    }
    engine.assert_consistent();
}

#[test]
fn precise_invalidation_deadlock_a() {
    let (clock, engine) = at_hand();
    let (enter, entered) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let body = move |_: &Cx, n: &u64| {
        enter.send(()).expect("a listener");
        gate.lock().expect("unpoisoned").recv().expect("opened");
        *n
    };
    let function = engine.function("f", body).expect("a free name");
    open.send(()).expect("a gate");
    function.get(&engine, &0).expect("a value");
    entered.recv().expect("entered");
    function.invalidate(&0);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| function.get(&engine, &0));
        entered.recv().expect("entered");
        // The key is in a flight's hands: the delayed invalidation and a plain one meet it there, and nobody waits for anybody.
        assert!(function.invalidate_after(&0, 100 * MS));
        clock.advance(100 * MS);
        function.invalidate(&0);
        open.send(()).expect("a gate");
        assert_eq!(running.join().expect("no panic"), Ok(0));
    });
    assert!(function.existing(&0).is_none(), "the flight was overtaken by both");
    engine.assert_consistent();
}

#[test]
fn retry_delay_aware_error() {
    let (clock, engine) = at_hand();
    let engine = &engine;
    let define = |name: &str, hint: Option<Duration>| {
        let kind = hint.map_or(ErrorKind::Transient, ErrorKind::RetryAfter);
        let define = engine.define(name).retry_errors(move |()| kind).error_delays(250 * MS, 250 * MS);
        define.function(|_: &Cx, _: &u8| Err::<u64, ()>(())).expect("a free name")
    };
    let (hinted, plain) = (define("hinted", Some(SECOND)), define("plain", None));
    let hinted = hinted.computed(engine, &0).expect("no fault");
    let plain = plain.computed(engine, &0).expect("no fault");
    clock.advance(625 * MS);
    assert!(hinted.is_consistent() && !plain.is_consistent());
    clock.advance(375 * MS);
    assert!(!hinted.is_consistent());
}

#[test]
fn fusion_time() {
    let (clock, engine) = at_hand();
    let time = clock.clone();
    let now = engine
        .define("now")
        .expire_after(SECOND)
        .function(move |_: &Cx, _: &()| wellspring::Clock::now(&*time).as_secs())
        .expect("a free name");
    let inner = now.clone();
    let ago = engine
        .function("ago", move |cx: &Cx, since: &u64| match inner.get(cx, &()).expect("a value") - since {
            0 => String::from("just now"),
            seconds => format!("{seconds} seconds ago"),
        })
        .expect("a free name");
    let computed = now.computed(&engine, &()).expect("a value");
    assert_eq!(ago.get(&engine, &0).as_deref(), Ok("just now"));
    assert!(computed.is_consistent());
    clock.advance(SECOND);
    assert!(!computed.is_consistent());
    assert_eq!(ago.get(&engine, &0).as_deref(), Ok("1 seconds ago"));
    engine.assert_consistent();
}
