//! Bad input and user code that fails: the engine says so, stays consistent and goes on.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Wake, Waker};
use std::time::Duration;

use wellspring::{AsyncFunction, Cx, Engine, Fault, Function, RegisterError, Source};
use wellspring_tests::waking::{block_on, poll_once};

/// How long something may take before it counts as hanging.
const HANGS: Duration = Duration::from_secs(20);

/// Unwinds without the panic hook's noise.
fn fail<T>() -> T {
    std::panic::resume_unwind(Box::new("user code fails"))
}

fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
}

/// Runs a test that may hang on a thread of its own.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match ended.recv_timeout(HANGS) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
        _ => thread.join().expect("failed"),
    }
}

#[test]
fn a_name_is_given_once() {
    let engine = Engine::new();
    engine.function("f", |_: &Cx, n: &u32| *n).unwrap();
    let again = engine.function("f", |_: &Cx, n: &u32| *n).unwrap_err();
    assert_eq!(again, RegisterError::Duplicate { name: "f".into() });
    assert_eq!(engine.source("f", |_: &u32| 0_u8).unwrap_err(), again);
    assert_eq!(engine.async_function("f", |_: Cx, n: u32| async move { n }).unwrap_err(), again);
    assert!(again.to_string().contains("`f`"));
    assert_eq!(engine.stats().functions.len(), 1);
}

#[test]
fn a_key_that_is_too_large_is_an_error_and_leaves_nothing_behind() {
    let engine = Engine::new();
    let text = engine.function("text", |_: &Cx, s: &String| s.len()).unwrap();
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(text.get(&engine, long.as_str()), Err(Fault::KeyTooLarge { function: "text".into(), bytes: long.len(), limit: 1 << 20 }));
    assert_eq!((text.len(), text.get(&engine, &long[1..])), (0, Ok(1 << 20)));
    let small = engine.define("small").key_limit(3, |v: &Vec<u8>| v.len()).cut_off_eq().source(|v: &Vec<u8>| v.len()).unwrap();
    assert!(matches!(small.try_set(&[0; 4][..], 7), Err(Fault::KeyTooLarge { bytes: 4, limit: 3, .. })));
    let mut refused = None;
    engine.batch(|batch| {
        batch.set(&small, &[0; 3][..], 9);
        refused = batch.try_set(&small, &[0; 4][..], 7).err();
    });
    assert!(matches!(refused, Some(Fault::KeyTooLarge { .. })));
    assert_eq!(small.get(&engine, &[0; 3][..]), Ok(9), "the rest of the batch stands");
    engine.assert_consistent();
}

#[test]
fn a_full_engine_is_an_error_and_goes_on_when_keys_are_removed() {
    let engine = Engine::builder().max_nodes(64).build();
    let f = engine.function("f", |_: &Cx, n: &u64| *n).unwrap();
    let results: Vec<_> = (0..100).map(|n| f.get(&engine, &n)).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 64);
    assert!(results[64..].iter().all(|result| *result == Err(Fault::Full)));
    let reader = engine.function("reader", |_: &Cx, _: &u64| 0_u64).unwrap();
    assert_eq!(reader.get(&engine, &1), Err(Fault::Full), "another function finds no room either");
    let boxed = engine.source("boxed", |_: &String| 1_u32).unwrap();
    assert_eq!(boxed.try_set("x", 2), Err(Fault::Full));
    engine.assert_consistent();
    for n in 0..10 {
        assert!(f.remove(&n));
    }
    let again = (200..300).filter(|n| f.get(&engine, n) == Ok(*n)).count();
    assert_eq!(again, 10);
    engine.assert_consistent();
}

#[test]
fn a_fault_met_by_a_body_is_never_cached() {
    let engine = Engine::builder().max_nodes(128).build();
    let leaf = engine.function("leaf", |_: &Cx, n: &u32| *n).unwrap();
    let room = {
        let leaf = leaf.clone();
        engine.function("room", move |cx: &Cx, n: &u32| leaf.get(cx, n).is_ok()).unwrap()
    };
    for n in 0..64 {
        leaf.get(&engine, &n).unwrap();
    }
    assert_eq!(room.get(&engine, &1000), Ok(false));
    assert!(room.existing(&1000).is_none(), "made from a fault");
    leaf.remove(&0);
    assert_eq!(room.get(&engine, &1000), Ok(true));
    assert!(room.existing(&1000).is_some());
    engine.assert_consistent();
}

#[test]
fn a_removed_id_never_names_the_next_tenant() {
    let engine = Engine::new();
    let f = engine.function("f", |_: &Cx, s: &String| s.clone()).unwrap();
    let mut dead = Vec::new();
    for round in 0..1000 {
        let key = format!("key {round}");
        f.get(&engine, &key).unwrap();
        let node = f.node(&key).unwrap();
        let generation = f.existing(&key).unwrap();
        assert!(f.remove(&key));
        f.get(&engine, "other").unwrap();
        dead.push((node, generation, key));
        f.remove("other");
    }
    f.get(&engine, "last").unwrap();
    let pin = engine.pin();
    for (node, generation, key) in &dead {
        assert!(!node.is_live() && node.peek(&pin).is_none(), "I32");
        assert!(!generation.is_consistent() && generation.value() == key, "I32");
    }
    assert_eq!(f.len(), 1);
    engine.assert_consistent();
}

#[test]
fn another_engines_functions_contexts_and_pins_are_refused() {
    let (one, two) = (Engine::new(), Engine::new());
    let f = one.function("f", |_: &Cx, n: &u32| *n).unwrap();
    let g = two.async_function("g", |_: Cx, n: u32| async move { n }).unwrap();
    assert_eq!(f.get(&two, &1), Err(Fault::ForeignEngine));
    assert_eq!(block_on(g.get(&one, &1)), Err(Fault::ForeignEngine));
    assert_eq!(g.wait(&one, &1), Err(Fault::ForeignEngine));
    let across = {
        let f = f.clone();
        two.function("across", move |cx: &Cx, n: &u32| f.get(cx, n)).unwrap()
    };
    assert_eq!(across.get(&two, &1), Ok(Err(Fault::ForeignEngine)));
    f.get(&one, &1).unwrap();
    assert_eq!(across.get(&two, &1), Ok(Err(Fault::ForeignEngine)), "also when it would be a hit");
    assert!(across.existing(&1).is_none());
    assert!(f.get(&two, &1).is_err(), "also when it would be a hit");
    one.assert_consistent();
    two.assert_consistent();
}

#[test]
fn reads_after_the_engine_are_gone_unless_they_are_hits() {
    let engine = Engine::new();
    let f = engine.function("f", |_: &Cx, n: &u32| n.to_string()).unwrap();
    let keeper = engine.function("keeper", |_: &Cx, n: &u32| *n).unwrap();
    let computed = f.computed(&engine, &1).unwrap();
    let inner = {
        let f = f.clone();
        let other = engine.async_function("inner", move |cx: Cx, n: u32| {
            let f = f.clone();
            async move { f.get(&cx, &n) }
        });
        other.unwrap()
    };
    let mut pending = inner.computed(&engine, &7);
    drop(engine);
    assert_eq!(block_on(&mut pending).map(|computed| computed.value().clone()), Err(Fault::Gone));
    assert!(computed.is_consistent());
    keeper.invalidate_all();
    assert_eq!(computed.update_sync().map(|next| next.value().clone()), Ok("1".into()), "still the current one");
    f.invalidate(&1);
    assert_eq!(computed.update_sync().map(|_| ()), Err(Fault::Gone));
}

/// A key whose `Eq`, `Hash` or `Clone` fails on demand.
#[derive(Debug)]
struct Key(u32);
static EQ: AtomicBool = AtomicBool::new(false);
static HASH: AtomicBool = AtomicBool::new(false);
static CLONE: AtomicBool = AtomicBool::new(false);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        if EQ.load(SeqCst) { fail() } else { self.0 == other.0 }
    }
}
impl Eq for Key {}
impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        if HASH.load(SeqCst) {
            fail::<()>();
        }
        // Everything collides.
        (self.0 % 2).hash(state);
    }
}
impl Clone for Key {
    fn clone(&self) -> Key {
        if CLONE.load(SeqCst) { fail() } else { Key(self.0) }
    }
}

#[test]
fn a_panic_in_a_keys_eq_hash_or_clone_leaves_the_engine_consistent() {
    let engine = Engine::new();
    let base = engine.source("base", |_: &u32| 1_u32).unwrap();
    let f = {
        let base = base.clone();
        engine.function("f", move |cx: &Cx, key: &Key| base.get(cx, &0).unwrap() + key.0).unwrap()
    };
    for n in 0..40 {
        assert_eq!(f.get(&engine, &Key(n)), Ok(1 + n));
    }
    for (switch, name) in [(&EQ, "eq"), (&HASH, "hash"), (&CLONE, "clone")] {
        base.set(&0, base.get(&engine, &0).unwrap() + 1);
        switch.store(true, SeqCst);
        let results = [
            caught(|| f.get(&engine, &Key(3))).map(|got| got.is_ok()),
            caught(|| f.get(&engine, &Key(100))).map(|got| got.is_ok()),
            caught(|| f.remove(&Key(200))),
            caught(|| f.invalidate(&Key(3))).map(|_| true),
        ];
        switch.store(false, SeqCst);
        assert!(results[1] != Some(true), "{name}: a new key needs its {name}");
        engine.assert_consistent();
        let expected = base.get(&engine, &0).unwrap();
        for n in 0..41 {
            assert_eq!(f.get(&engine, &Key(n)), Ok(expected + n), "after {name}");
        }
        engine.assert_consistent();
    }
}

/// A value whose `Eq`, `Clone` or `Drop` fails on demand.
#[derive(Debug)]
struct Value(u32, Arc<Switches>);
#[derive(Debug, Default)]
struct Switches {
    eq: AtomicBool,
    clone: AtomicBool,
    drop: AtomicBool,
    alive: AtomicUsize,
}
impl Value {
    fn new(n: u32, switches: &Arc<Switches>) -> Value {
        switches.alive.fetch_add(1, SeqCst);
        Value(n, switches.clone())
    }
}
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        if self.1.eq.load(SeqCst) { fail() } else { self.0 == other.0 }
    }
}
impl Clone for Value {
    fn clone(&self) -> Value {
        if self.1.clone.load(SeqCst) { fail() } else { Value::new(self.0, &self.1) }
    }
}
impl Drop for Value {
    fn drop(&mut self) {
        self.1.alive.fetch_sub(1, SeqCst);
        if self.1.drop.load(SeqCst) && !std::thread::panicking() {
            fail::<()>();
        }
    }
}

#[test]
fn a_panic_in_a_values_eq_clone_or_drop_leaves_the_engine_consistent() {
    let switches: Arc<Switches> = Arc::default();
    let engine = Engine::new();
    let base = {
        let switches = switches.clone();
        engine.source("base", move |_: &u32| Value::new(1, &switches)).unwrap()
    };
    let f = {
        let (base, switches) = (base.clone(), switches.clone());
        let define = engine.define("f").cut_off_eq();
        define.function(move |cx: &Cx, n: &u32| Value::new(base.get(cx, n).map_or(99, |v| v.0) + 1, &switches)).unwrap()
    };
    let g = {
        let (f, switches) = (f.clone(), switches.clone());
        let define = engine.define("g").cut_off_eq();
        define
            .async_function(move |cx: Cx, n: u32| {
                let (f, switches) = (f.clone(), switches.clone());
                async move { Value::new(f.get(&cx, &n).map_or(99, |v| v.0) + 1, &switches) }
            })
            .unwrap()
    };
    assert_eq!(block_on(g.get(&engine, &0)).unwrap().0, 3);
    for (round, switch) in [&switches.eq, &switches.clone, &switches.drop].into_iter().enumerate() {
        let round = round as u32 + 5;
        base.set(&0, Value::new(round, &switches));
        switch.store(true, SeqCst);
        let _ = caught(|| block_on(g.get(&engine, &0)).map(|_| ()));
        let _ = caught(|| f.get(&engine, &0).map(|_| ()));
        let _ = caught(|| base.set(&1, Value::new(round, &switches)));
        let _ = caught(|| base.set(&1, Value::new(round + 1, &switches)));
        let _ = caught(|| engine.batch(|batch| batch.set(&base, &1, Value::new(round, &switches))));
        let _ = caught(|| engine.collect());
        switch.store(false, SeqCst);
        engine.assert_consistent();
        assert_eq!(block_on(g.get(&engine, &0)).unwrap().0, round + 2, "round {round}");
        assert_eq!(f.get(&engine, &0).unwrap().0, round + 1);
        engine.assert_consistent();
    }
    engine.collect();
    assert_eq!(engine.stats().retired, 0);
    drop((engine, base, f, g));
    // A panic in the drop of a function's arguments makes Rust forget the value it was about to return: one of ours is that.
    assert!(switches.alive.load(SeqCst) <= 1, "I31: every Drop ran, once");
}

#[test]
fn a_batch_whose_closure_panics_changes_nothing() {
    let switches: Arc<Switches> = Arc::default();
    let engine = Engine::new();
    let source = {
        let switches = switches.clone();
        engine.source("source", move |_: &u32| Value::new(1, &switches)).unwrap()
    };
    source.get(&engine, &1).unwrap();
    let before = engine.commit();
    let result = caught(|| {
        engine.batch(|batch| {
            batch.set(&source, &1, Value::new(2, &switches));
            batch.set(&source, &2, Value::new(2, &switches));
            fail::<()>();
        })
    });
    assert!(result.is_none());
    assert_eq!((engine.commit(), source.get(&engine, &1).unwrap().0, source.get(&engine, &2).unwrap().0), (before, 1, 1));
    engine.assert_consistent();
    engine.collect();
    drop((engine, source));
    assert_eq!(switches.alive.load(SeqCst), 0);
}

/// G panics on demand, E reads it and says so in its result, D reads E.
struct Broken {
    engine: Engine,
    base: Source<u32, u32>,
    runs: Arc<AtomicU32>,
    e: Function<u32, Result<u32, String>>,
    d: Function<u32, Result<u32, String>>,
}

fn broken() -> Broken {
    let engine = Engine::new();
    let base = engine.source("base", |_: &u32| 0_u32).unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let g = {
        let base = base.clone();
        engine.function("g", move |cx: &Cx, n: &u32| base.get(cx, n).map(|value| if value == 1 { fail() } else { value }).unwrap()).unwrap()
    };
    let e = engine.function("e", move |cx: &Cx, n: &u32| g.get(cx, n).map_err(|fault| fault.to_string())).unwrap();
    let d = {
        let (e, runs) = (e.clone(), runs.clone());
        engine
            .function("d", move |cx: &Cx, n: &u32| {
                // More than any read needs: then it would run for ever.
                if runs.fetch_add(1, SeqCst) > 100 {
                    fail::<()>();
                }
                e.get(cx, n).unwrap()
            })
            .unwrap()
    };
    Broken { engine, base, runs, e, d }
}

#[test]
fn a_value_above_a_result_that_is_never_stored_is_read_in_bounded_time() {
    let Broken { engine, base, runs, d, .. } = broken();
    let n = {
        let d = d.clone();
        engine.function("n", move |cx: &Cx, n: &u32| d.get(cx, n).unwrap()).unwrap()
    };
    let top = {
        let n = n.clone();
        engine.function("top", move |cx: &Cx, k: &u32| n.get(cx, k).unwrap()).unwrap()
    };
    assert_eq!(top.get(&engine, &1), Ok(Ok(0)));
    base.set(&1, 1);
    for _ in 0..3 {
        assert!(matches!(top.get(&engine, &1), Ok(Err(_))));
        assert!(matches!(n.get(&engine, &1), Ok(Err(_))));
        engine.assert_consistent();
    }
    assert!(runs.load(SeqCst) < 40, "the body of a dependency ran {} times", runs.load(SeqCst));
    base.set(&1, 2);
    assert_eq!(top.get(&engine, &1), Ok(Ok(2)));
    assert!(top.existing(&1).is_some());
    engine.assert_consistent();
}

#[test]
fn an_async_value_above_a_result_that_is_never_stored_is_read_in_bounded_time() {
    in_time(|| {
        let Broken { engine, base, runs, e, .. } = broken();
        let d: AsyncFunction<u32, Result<u32, String>> = {
            let (e, runs) = (e.clone(), runs.clone());
            engine
                .async_function("async d", move |cx: Cx, n: u32| {
                    let (e, runs) = (e.clone(), runs.clone());
                    async move {
                        if runs.fetch_add(1, SeqCst) > 100 {
                            fail::<()>();
                        }
                        e.get(&cx, &n).unwrap()
                    }
                })
                .unwrap()
        };
        // Meets the fault itself: its result is handed over, never stored.
        let direct = {
            let (base, runs) = (base.clone(), runs.clone());
            engine
                .async_function("direct", move |cx: Cx, n: u32| {
                    let (base, runs) = (base.clone(), runs.clone());
                    async move {
                        if runs.fetch_add(1, SeqCst) > 100 {
                            fail::<()>();
                        }
                        let value = base.get(&cx, &n).unwrap();
                        if value == 1 { Err(base.get(Engine::new(), &n).unwrap_err().to_string()) } else { Ok(value) }
                    }
                })
                .unwrap()
        };
        let top = |name: &str, below: &AsyncFunction<u32, Result<u32, String>>| {
            let below = below.clone();
            engine
                .async_function(name, move |cx: Cx, n: u32| {
                    let below = below.clone();
                    async move { below.get(&cx, &n).await.unwrap() }
                })
                .unwrap()
        };
        let (over_d, over_direct) = (top("over d", &d), top("over direct", &direct));
        let high = top("high", &over_d);
        assert_eq!(block_on(high.get(&engine, &1)), Ok(Ok(0)));
        assert_eq!(block_on(over_direct.get(&engine, &1)), Ok(Ok(0)));
        base.set(&1, 1);
        for _ in 0..3 {
            assert!(matches!(block_on(high.get(&engine, &1)), Ok(Err(_))));
            assert!(matches!(block_on(over_d.get(&engine, &1)), Ok(Err(_))));
            assert!(matches!(block_on(over_direct.get(&engine, &1)), Ok(Err(_))));
            engine.assert_consistent();
        }
        assert!(runs.load(SeqCst) < 80, "the body of a dependency ran {} times", runs.load(SeqCst));
    });
}

#[test]
fn an_async_dependency_whose_result_is_not_stored_is_run_once_per_read() {
    in_time(|| {
        let engine = Engine::new();
        let base = engine.source("base", |_: &u32| 0_u32).unwrap();
        let runs = Arc::new(AtomicU32::new(0));
        let g = {
            let base = base.clone();
            engine.function("g", move |cx: &Cx, n: &u32| if base.get(cx, n).unwrap() == 1 { fail() } else { 0_u32 }).unwrap()
        };
        let d = {
            let runs = runs.clone();
            engine
                .async_function("d", move |cx: Cx, n: u32| {
                    let (g, runs) = (g.clone(), runs.clone());
                    async move {
                        if runs.fetch_add(1, SeqCst) > 100 {
                            fail::<()>();
                        }
                        g.get(&cx, &n).is_ok()
                    }
                })
                .unwrap()
        };
        let top = engine
            .async_function("top", move |cx: Cx, n: u32| {
                let d = d.clone();
                async move { d.get(&cx, &n).await.unwrap() }
            })
            .unwrap();
        assert_eq!(block_on(top.get(&engine, &1)), Ok(true));
        base.set(&1, 1);
        assert_eq!(block_on(top.get(&engine, &1)), Ok(false));
        assert!(runs.load(SeqCst) <= 3, "ran {} times", runs.load(SeqCst));
        engine.assert_consistent();
    });
}

/// An executor that does its work inside `wake`.
struct Eager(Box<dyn Fn() + Send + Sync>);
impl Wake for Eager {
    fn wake(self: Arc<Eager>) {
        (self.0)();
    }
}

#[test]
fn a_waker_may_use_the_engine() {
    in_time(|| {
        let engine = Engine::new();
        let base = engine.source("base", |_: &u32| 0_u32).unwrap();
        let echo = {
            let base = base.clone();
            engine.function("echo", move |cx: &Cx, n: &u32| base.get(cx, n).unwrap()).unwrap()
        };
        let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let waker = {
            let (engine, base, echo, seen) = (engine.clone(), base.clone(), echo.clone(), seen.clone());
            Waker::from(Arc::new(Eager(Box::new(move || {
                seen.lock().unwrap().push(echo.get(&engine, &1).unwrap());
                base.set(&2, 7);
            }))))
        };
        let mut end = echo.computed(&engine, &1).unwrap().invalidated();
        assert!(poll_once(&mut end, &waker).is_pending());
        base.set(&1, 5);
        assert_eq!((seen.lock().unwrap().clone(), base.get(&engine, &2)), (vec![5], Ok(7)));
        engine.assert_consistent();
    });
}

#[test]
fn a_waker_that_panics_hurts_nobody_else() {
    in_time(|| {
        let engine = Engine::new();
        let base = engine.source("base", |_: &u32| 0_u32).unwrap();
        let mut ends = Vec::new();
        let told = Arc::new(AtomicU32::new(0));
        for n in 0..3 {
            let told = told.clone();
            let waker = Waker::from(Arc::new(Eager(Box::new(move || {
                told.fetch_add(1, SeqCst);
                if n == 1 {
                    fail::<()>();
                }
            }))));
            let mut end = base.computed(&engine, &1).unwrap().invalidated();
            assert!(poll_once(&mut end, &waker).is_pending());
            ends.push(end);
        }
        let _ = caught(|| base.set(&1, 1));
        assert_eq!(told.load(SeqCst), 3, "I34: all three are told");
        base.set(&1, 2);
        assert_eq!(base.get(&engine, &1), Ok(2));
        engine.assert_consistent();
    });
}

#[test]
fn user_drop_code_may_use_the_engine_and_never_runs_inside_a_sweep() {
    in_time(|| {
        #[derive(Clone)]
        struct Meddler(Arc<OnceLock<(Engine, Source<u32, u32>)>>, u32);
        impl Drop for Meddler {
            fn drop(&mut self) {
                if let Some((engine, other)) = self.0.get() {
                    let now = other.get(engine, &0).unwrap();
                    other.set(&0, now + 1);
                }
            }
        }
        let engine = Engine::new();
        let other = engine.source("other", |_: &u32| 0_u32).unwrap();
        let cell: Arc<OnceLock<(Engine, Source<u32, u32>)>> = Arc::default();
        let values = {
            let cell = cell.clone();
            engine.define("values").cut_off_never().source(move |_: &u32| Meddler(cell.clone(), 0)).unwrap()
        };
        cell.set((engine.clone(), other.clone())).ok().unwrap();
        for round in 0..300 {
            values.set(&(round % 3), Meddler(cell.clone(), round));
        }
        engine.collect();
        engine.collect();
        assert!(other.get(&engine, &0).unwrap() >= 297);
        assert_eq!(values.get(&engine, &0).unwrap().1, 297);
        engine.assert_consistent();
    });
}
