//! States that are set from outside; two of the peer's tests among them.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};

use wellspring::{Cx, Engine, Fault, MutableState, RegisterError, StateError};

/// How often bodies ran in the whole engine.
fn computes(engine: &Engine) -> u64 {
    engine.stats().functions.iter().map(|function| function.computes).sum()
}

#[test]
fn readers_never_see_a_state_stale_while_two_threads_set_it() {
    const SETS: u64 = 2_000;
    let engine = Engine::new();
    let state = engine.mutable_state((0_u64, 0_u64)).expect("room");
    // What each setter has seen its set return for.
    let settled = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let done = Arc::new(AtomicBool::new(false));
    let barrier = Arc::new(Barrier::new(4));
    let setters: Vec<_> = (0..2)
        .map(|who| {
            let (state, settled, barrier) = (state.clone(), settled.clone(), barrier.clone());
            std::thread::spawn(move || {
                barrier.wait();
                for n in 1..=SETS {
                    let change = |&(a, b): &(u64, u64)| if who == 0 { (n, b) } else { (a, n) };
                    state.update(change).expect("it holds no error");
                    settled[who].store(n, SeqCst);
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (engine, state, settled) = (engine.clone(), state.clone(), settled.clone());
            let (done, barrier) = (done.clone(), barrier.clone());
            std::thread::spawn(move || {
                barrier.wait();
                let mut last = (0, 0);
                while !done.load(SeqCst) {
                    let least = (settled[0].load(SeqCst), settled[1].load(SeqCst));
                    let now = state.get(&engine).expect("a value");
                    assert!(now.0 >= least.0.max(last.0) && now.1 >= least.1.max(last.1), "{now:?} after {least:?} and {last:?}");
                    last = now;
                }
            })
        })
        .collect();
    for setter in setters {
        setter.join().expect("a setter");
    }
    done.store(true, SeqCst);
    for reader in readers {
        reader.join().expect("a reader");
    }
    assert_eq!(state.get(&engine), Ok((SETS, SETS)), "no update is lost");
    assert_eq!(computes(&engine), 0, "nothing was computed: it was there each time");
    engine.assert_consistent();
}

#[test]
fn an_updater_runs_again_if_the_state_was_set_meanwhile_and_may_itself_use_it() {
    let engine = Engine::new();
    let state = engine.mutable_state(1_u64).expect("room");
    let mut seen = Vec::new();
    let other = state.clone();
    state
        .update(|&n| {
            seen.push(n);
            if seen.len() == 1 {
                other.set(10);
            }
            n + 1
        })
        .expect("it holds no error");
    assert_eq!((seen, state.get(&engine)), (vec![1, 10], Ok(11)));
    let before = engine.commit();
    assert_eq!(state.update(|&n| n), Ok(before), "an equal one is no change");
    state.set_error("broken");
    assert_eq!(state.update(|_| 5).expect_err("it stays").to_string(), "broken");
    engine.assert_consistent();
}

#[test]
fn a_change_marks_what_was_made_from_the_state_and_nothing_else() {
    let engine = Engine::new();
    let (a, b) = (engine.mutable_state(1_u64).expect("room"), engine.mutable_state(10_u64).expect("room"));
    let sum = {
        let (a, b) = (a.clone(), b.clone());
        engine.function("sum", move |cx: &Cx, with_b: &bool| Ok::<_, StateError>(a.get(cx)? + if *with_b { b.get(cx)? } else { 0 }))
    }
    .expect("a free name");
    let (one, both) = (sum.computed(&engine, &false).expect("a value"), sum.computed(&engine, &true).expect("a value"));
    b.set(20);
    assert_eq!((one.is_consistent(), both.is_consistent()), (true, false));
    assert_eq!(sum.get(&engine, &true), Ok(Ok(21)));
    a.invalidate();
    assert!(!one.is_consistent());
    assert_eq!((sum.get(&engine, &false), a.get(&engine)), (Ok(Ok(1)), Ok(1)));
    let before = engine.commit().get();
    engine.batch(|batch| {
        a.set_in(batch, 2);
        b.set_in(batch, 30);
    });
    assert_eq!((engine.commit().get(), sum.get(&engine, &true)), (before + 1, Ok(Ok(32))), "one commit");
    engine.assert_consistent();
}

#[test]
fn many_states_of_a_type_are_one_function_and_a_dropped_one_leaves_nothing() {
    let engine = Engine::new();
    let states: Vec<MutableState<u64>> = (0..1_000).map(|n| engine.mutable_state(n).expect("room")).collect();
    let text = engine.mutable_state(String::from("another type")).expect("room");
    let stats = engine.stats();
    assert_eq!((stats.functions.len(), stats.nodes), (2, 1_001));
    for (n, state) in states.iter().enumerate() {
        assert_eq!(state.get(&engine), Ok(n as u64));
    }
    let last = states[999].clone();
    let copy = {
        let last = Mutex::new(Some(last.clone()));
        engine.function("copy", move |cx: &Cx, (): &()| last.lock().expect("unpoisoned").take().map(|last| last.get(cx)))
    }
    .expect("a free name");
    assert_eq!(copy.get(&engine, &()), Ok(Some(Ok(999))));
    let copied = copy.existing(&()).expect("cached");
    drop((states, text));
    assert_eq!((last.get(&engine), engine.stats().nodes), (Ok(999), 2));
    drop(last);
    assert!(!copied.is_consistent(), "what it was made from is gone");
    assert_eq!(copy.get(&engine, &()), Ok(None));
    engine.assert_consistent();
}

#[test]
fn two_types_of_one_name_do_not_share_their_states() {
    fn one() -> impl Fn(&Engine) -> u64 {
        #[derive(Clone, PartialEq)]
        struct Same(u8);
        |engine| u64::from(engine.mutable_state(Same(1)).expect("room").get(engine).expect("a value").0)
    }
    fn two() -> impl Fn(&Engine) -> u64 {
        #[derive(Clone, PartialEq)]
        struct Same(u64);
        |engine| engine.mutable_state(Same(2)).expect("room").get(engine).expect("a value").0
    }
    let engine = Engine::new();
    // A user's function may have the name already, too.
    engine.function("MutableState<u8>", |_: &Cx, n: &u8| *n).expect("a free name");
    let state = engine.mutable_state(5_u8).expect("room");
    assert_eq!((state.get(&engine), one()(&engine), two()(&engine)), (Ok(5), 1, 2));
    engine.assert_consistent();
}

#[test]
fn a_full_engine_says_so_when_a_state_is_made_and_sets_the_others_as_before() {
    let engine = Engine::builder().max_nodes(64).build();
    let mut states = Vec::new();
    let full = loop {
        match engine.mutable_state(0_u64) {
            Ok(state) => states.push(state),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, RegisterError::Full { .. }), "{full}");
    for state in &states {
        state.set(1);
        assert_eq!(state.get(&engine), Ok(1));
    }
    states.pop();
    assert!(engine.mutable_state(0_u64).is_ok());
    engine.assert_consistent();
}

#[test]
fn a_state_outlives_its_engines_last_handle_and_tells_another_engine_off() {
    let (engine, other) = (Engine::new(), Engine::new());
    let state = engine.mutable_state(1_u64).expect("room");
    let foreign = state.get(&other).expect_err("another engine");
    assert_eq!(foreign.fault(), Some(&Fault::ForeignEngine));
    drop(engine);
    state.set(2);
    state.invalidate();
    drop(state);
    other.assert_consistent();
}

/// A state in a body that reads it: the body and the state go with the engine.
#[test]
fn an_engine_whose_functions_hold_its_states_is_freed_with_its_last_handle() {
    let (engine, token) = (Engine::new(), Arc::new(()));
    let held = engine.mutable_state(Token(token.clone())).expect("room");
    let read = engine.function("read", move |cx: &Cx, (): &()| held.get(cx).is_ok()).expect("a free name");
    assert_eq!(read.get(&engine, &()), Ok(true));
    engine.assert_consistent();
    assert!(Arc::strong_count(&token) > 1);
    drop((engine, read));
    assert_eq!(Arc::strong_count(&token), 1);
}

#[derive(Clone)]
struct Token(Arc<()>);

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[test]
fn mutable_state_skips_an_update_when_equal() {
    let engine = &Engine::new();
    let state = engine.mutable_state(vec![1]).expect("room");
    let before = (state.computed(engine).expect("a generation"), engine.commit());
    assert_eq!(state.set(vec![1]), before.1, "another vector, the same value");
    assert!(before.0.is_consistent());
    state.set(vec![2]);
    assert!(!before.0.is_consistent());
    let error = StateError::new("broken");
    state.set_error(error.clone());
    let broken = (state.computed(engine).expect("a generation"), engine.commit());
    assert_eq!(state.set_error(error), broken.1);
    assert!(broken.0.is_consistent());
    state.set_error("broken");
    assert!(!broken.0.is_consistent(), "looks alike, is another");
    engine.assert_consistent();
}

#[test]
fn mutable_state_initial_output() {
    let engine = &Engine::new();
    assert_eq!(engine.mutable_state(i32::default()).expect("room").get(engine), Ok(0));
    assert_eq!(engine.mutable_state(String::default()).expect("room").get(engine), Ok(String::new()));
    assert_eq!(engine.mutable_state(Option::<String>::default()).expect("room").get(engine), Ok(None));
    engine.assert_consistent();
}
