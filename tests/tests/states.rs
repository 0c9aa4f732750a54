//! States that compute themselves again: what readers see, what a loop does and when it ends.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wellspring::{
    Action, ActionTracker, Backoff, ComputedState, Cx, DefineState, Engine, Fault, FixedDelay, MutableState, NextTick, StateError,
    StateRead, StateSnapshot, StateWait, Timer, UiDelay, UpdateLoop,
};
use wellspring_tests::stepping::{Gate, Stepping};
use wellspring_tests::waking::{Counting, block_on, poll_once};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn at_once() -> FixedDelay {
    FixedDelay::without_floor(Duration::ZERO)
}

/// A state made from a mutable one, which waits at a gate and counts its runs.
struct Gated {
    world: Stepping,
    source: MutableState<u64>,
    gate: Gate,
    runs: Arc<AtomicU64>,
    /// Bodies that are over: ended, or dropped half-way.
    over: Arc<AtomicU64>,
    state: Option<ComputedState<u64>>,
}

struct Over(Arc<AtomicU64>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn gated(world: Stepping, with: impl FnOnce(DefineState<u64, StateError>) -> DefineState<u64, StateError>) -> (Gated, UpdateLoop) {
    let (source, gate) = (world.engine.mutable_state(1_u64).expect("room"), Gate::new());
    gate.open();
    let (runs, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let define = {
        let (source, gate, runs, over) = (source.clone(), gate.clone(), runs.clone(), over.clone());
        world.engine.computed_state(move |cx: Cx| {
            runs.fetch_add(1, SeqCst);
            let (source, gate, over) = (source.clone(), gate.clone(), Over(over.clone()));
            async move {
                let _over = over;
                let value = source.get(&cx)?;
                gate.pass().await;
                Ok(value)
            }
        })
    };
    let (state, updates) = with(define.delayer(at_once())).build().expect("room");
    (Gated { world, source, gate, runs, over, state: Some(state) }, updates)
}

/// With its loop under way.
fn running(with: impl FnOnce(DefineState<u64, StateError>) -> DefineState<u64, StateError>) -> Gated {
    let (gated, updates) = gated(Stepping::new(), with);
    gated.world.tasks.add(updates);
    gated.world.tasks.run();
    gated
}

impl Gated {
    fn state(&self) -> &ComputedState<u64> {
        self.state.as_ref().expect("not dropped yet")
    }
    fn runs(&self) -> u64 {
        self.runs.load(SeqCst)
    }
}

fn taken<T>(result: &Mutex<Option<T>>) -> Option<T> {
    result.lock().expect("unpoisoned").take()
}

#[test]
fn a_state_shows_its_first_value_or_that_it_has_none_yet() {
    let (gated, updates) = gated(Stepping::new(), |define| define);
    let state = gated.state();
    let none = state.value().expect_err("no value yet");
    assert!(none.is_initial() && state.last_good().is_none() && state.snapshot().is_initial());
    assert!(!state.snapshot().is_consistent());
    block_on(state.snapshot().invalidated());
    gated.world.tasks.add(updates);
    gated.world.tasks.run();
    let first = state.snapshot();
    assert_eq!((first.value(), first.update_count(), first.is_initial(), first.is_consistent()), (Ok(&1), 1, false, true));
    gated.world.engine.assert_consistent();
}

#[test]
fn a_change_is_published_after_the_delay_and_several_are_one() {
    let gated = running(|define| define.delayer(FixedDelay::new(100 * MS)));
    let first = gated.state().snapshot();
    gated.world.advance(10 * S);
    assert_eq!(gated.runs(), 1, "nothing happens by itself");
    for n in 2..10 {
        gated.source.set(n);
        gated.world.advance(10 * MS);
    }
    assert_eq!(gated.state().value(), Ok(1), "the delay is not over");
    gated.world.advance(20 * MS);
    let next = block_on(gated.state().changed(&first)).expect("it is not stopped");
    assert_eq!((next.value(), next.update_count(), gated.runs()), (Ok(&9), 2, 2));
    gated.world.engine.assert_consistent();
}

#[test]
fn a_reader_gets_the_value_of_now_and_the_loop_does_not_compute_it_once_more() {
    let gated = running(|define| define.delayer(FixedDelay::new(S)));
    gated.source.set(2);
    gated.world.tasks.run();
    assert_eq!(gated.state().value(), Ok(1));
    assert_eq!(block_on(gated.state().get(&gated.world.engine)), Ok(2));
    gated.world.advance(S);
    assert_eq!((gated.state().value(), gated.runs()), (Ok(2), 2));
    gated.source.set(3);
    assert_eq!((gated.state().wait(&gated.world.engine), gated.state().value()), (Ok(3), Ok(2)));
    drop(gated.state().stop());
    gated.world.tasks.run();
    assert!(gated.state().wait(&gated.world.engine).expect_err("no more").is_stopped());
    gated.world.engine.assert_consistent();
}

#[test]
fn a_reader_and_the_loop_share_a_flight() {
    let gated = running(|define| define);
    gated.gate.close();
    gated.source.set(2);
    gated.world.tasks.run();
    let read = gated.world.tasks.result(gated.state().get(&gated.world.engine));
    gated.world.tasks.run();
    assert!(taken(&read).is_none());
    gated.gate.open();
    gated.world.tasks.run();
    assert_eq!((taken(&read), gated.state().value(), gated.runs()), (Some(Ok(2)), Ok(2), 2));
    gated.world.engine.assert_consistent();
}

#[test]
fn functions_depend_on_a_state_as_on_anything_else() {
    let gated = running(|define| define);
    let tenfold = {
        let state = gated.state().clone();
        let body = move |cx: Cx, (): ()| {
            let state = state.clone();
            async move { Ok::<_, StateError>(state.get(&cx).await? * 10) }
        };
        gated.world.engine.async_function("tenfold", body).expect("a free name")
    };
    assert_eq!(block_on(tenfold.get(&gated.world.engine, &())), Ok(Ok(10)));
    gated.source.set(2);
    assert!(tenfold.existing(&()).is_none());
    assert_eq!(block_on(tenfold.get(&gated.world.engine, &())), Ok(Ok(20)));
    let cached = tenfold.existing(&()).expect("cached");
    gated.state().invalidate();
    assert!(!cached.is_consistent());
    gated.world.engine.assert_consistent();
}

#[test]
fn a_value_that_turns_out_unchanged_is_no_update() {
    let world = Stepping::new();
    let source = world.engine.mutable_state(4_u64).expect("room");
    let half = {
        let source = source.clone();
        world.engine.define("half").cut_off_eq().function(move |cx: &Cx, (): &()| source.get(cx).map(|n| n / 2)).expect("a free name")
    };
    let define = world.engine.computed_state(move |cx: Cx| {
        let half = half.get(&cx, &());
        async move { half? }
    });
    let (state, updates) = define.delayer(at_once()).build().expect("room");
    world.tasks.add(updates);
    world.tasks.run();
    source.set(5);
    world.tasks.run();
    let same = state.snapshot();
    assert_eq!((same.value(), same.update_count(), same.is_consistent()), (Ok(&2), 1, true));
    source.set(6);
    world.tasks.run();
    assert_eq!((state.value(), state.snapshot().update_count()), (Ok(3), 2), "and the next change is heard of");
    world.engine.assert_consistent();
}

#[test]
fn recompute_waits_for_no_delay_and_every_caller_gets_an_update_begun_after_the_call() {
    let gated = running(|define| define.delayer(FixedDelay::new(60 * S)));
    let outside: Vec<_> = (0..3).map(|_| gated.world.tasks.result(gated.state().recompute())).collect();
    gated.world.tasks.run();
    for waited in &outside {
        assert_eq!(taken(waited).map(|now| (now.update_count(), now.is_consistent())), Some((2, true)));
    }
    assert_eq!(gated.runs(), 2, "three calls, one update");
    // In the middle of a delay.
    gated.source.set(2);
    gated.world.advance(S);
    drop(gated.state().recompute());
    gated.world.tasks.run();
    assert_eq!((gated.state().value(), gated.runs()), (Ok(2), 3), "nobody need wait for it");
    gated.world.engine.assert_consistent();
}

#[test]
fn an_update_that_a_recompute_fell_into_is_not_its_answer() {
    let gated = running(|define| define);
    gated.gate.close();
    gated.state().invalidate();
    gated.world.tasks.run();
    let answer = gated.world.tasks.result(gated.state().recompute());
    gated.gate.open();
    gated.world.tasks.run();
    let answer = taken(&answer).expect("an answer");
    assert_eq!((answer.update_count(), answer.is_consistent(), gated.runs()), (3, true, 3));
    gated.world.engine.assert_consistent();
}

#[test]
fn a_body_that_panics_is_an_error_that_is_tried_again_and_harms_nobody() {
    let world = Stepping::new();
    let runs = Arc::new(AtomicU64::new(0));
    let define = {
        let runs = runs.clone();
        world.engine.computed_state(move |_: Cx| {
            let run = runs.fetch_add(1, SeqCst);
            async move {
                assert!(!(1..=2).contains(&run), "run {run}");
                Ok::<_, StateError>(run)
            }
        })
    };
    let (state, updates) = define.delayer(at_once()).build().expect("room");
    world.tasks.add(updates);
    world.tasks.run();
    state.invalidate();
    world.tasks.run();
    let failed = state.snapshot();
    assert!(matches!(failed.error().and_then(StateError::fault), Some(Fault::Panicked { message, .. }) if message == "run 1"));
    assert_eq!((failed.last_good(), failed.retry_count(), failed.is_consistent()), (Some(&0), 1, false));
    world.advance(S);
    assert_eq!((state.snapshot().error_count(), state.snapshot().retry_count()), (2, 2));
    world.advance(1_415 * MS);
    let well = state.snapshot();
    assert_eq!((well.value(), well.error_count(), well.retry_count()), (Ok(&3), 2, 0));
    world.engine.assert_consistent();
}

/// The engine keeps nothing that was made from a fault, so that only time leads to another try.
#[test]
fn a_value_made_from_a_fault_is_shown_and_tried_again_like_an_error() {
    let world = Stepping::new();
    let (broken, runs) = (world.engine.mutable_state(true).expect("room"), Arc::new(AtomicU64::new(0)));
    let part = {
        let broken = broken.clone();
        world.engine.function("part", move |cx: &Cx, (): &()| if broken.get(cx) == Ok(true) { panic!("broken") } else { 5_u64 })
    }
    .expect("a free name");
    let define = {
        let runs = runs.clone();
        world.engine.computed_state(move |cx: Cx| {
            runs.fetch_add(1, SeqCst);
            let part = part.get(&cx, &()).unwrap_or(0);
            async move { Ok::<_, StateError>(part) }
        })
    };
    let (state, updates) = define.delayer(at_once()).build().expect("room");
    world.tasks.add(updates);
    world.advance(999 * MS);
    assert_eq!((state.value(), state.snapshot().retry_count(), runs.load(SeqCst)), (Ok(0), 1, 1));
    broken.set(false);
    world.advance(MS);
    assert_eq!((state.value(), state.snapshot().retry_count(), runs.load(SeqCst)), (Ok(5), 0, 2));
    world.engine.assert_consistent();
}

#[test]
fn a_state_that_ends_its_own_value_without_any_delay_lets_others_run() {
    let world = Stepping::new();
    let count = world.engine.mutable_state(0_u64).expect("room");
    let define = {
        let count = count.clone();
        world.engine.computed_state(move |cx: Cx| {
            let value = count.get(&cx);
            count.update(|n| n + 1).expect("it holds no error");
            async move { value }
        })
    };
    let (state, mut updates) = define.delayer(at_once()).build().expect("room");
    let (_, waker) = Counting::pair();
    for polls in 1..100 {
        assert!(poll_once(&mut updates, &waker).is_pending());
        assert_eq!(state.snapshot().update_count(), polls);
    }
    drop(updates);
    world.engine.assert_consistent();
}

#[test]
fn a_stop_lets_an_update_go_on_for_the_grace_period_and_not_longer() {
    let gated = running(|define| define.grace(5 * S));
    gated.gate.close();
    gated.source.set(2);
    gated.world.tasks.run();
    let (next, stopped) =
        (gated.world.tasks.result(gated.state().changed(&gated.state().snapshot())), gated.world.tasks.result(gated.state().stop()));
    gated.world.advance(4_999 * MS);
    assert_eq!((gated.over.load(SeqCst), taken(&stopped)), (1, None));
    gated.world.advance(MS);
    assert_eq!((gated.over.load(SeqCst), taken(&stopped)), (2, Some(())), "dropped half-way");
    assert!(taken(&next).expect("waits are over").is_none());
    assert_eq!((gated.state().value(), gated.world.tasks.left()), (Ok(1), 0), "the last snapshot stays");
    assert!(block_on(gated.state().get(&gated.world.engine)).expect_err("no more").is_stopped());
    assert_eq!(block_on(gated.state().recompute()).value(), Ok(&1));
    assert_eq!(gated.world.engine.stats().nodes, 1, "the mutable one's alone");
    gated.world.engine.assert_consistent();
}

#[test]
fn a_stop_during_a_delay_or_a_rest_ends_the_loop_at_once() {
    for change in [false, true] {
        let gated = running(|define| define.delayer(FixedDelay::new(S)));
        if change {
            gated.source.set(2);
            gated.world.tasks.run();
        }
        drop(gated.state().stop());
        assert!(gated.state().is_stopped());
        gated.world.tasks.run();
        assert_eq!((gated.world.tasks.left(), gated.runs()), (0, 1));
        gated.world.engine.assert_consistent();
    }
    let (gated, updates) = gated(Stepping::new(), |define| define);
    drop(gated.state().stop());
    gated.world.tasks.add(updates);
    gated.world.tasks.run();
    assert_eq!((gated.world.tasks.left(), gated.runs()), (0, 0), "stopped before it began");
    gated.world.engine.assert_consistent();
}

#[test]
fn what_waits_for_a_state_that_stops_settles() {
    let gated = running(|define| define.grace(S));
    gated.gate.close();
    gated.source.set(2);
    gated.world.tasks.run();
    let engine = &gated.world.engine;
    let tenfold = {
        let state = gated.state().clone();
        let body = move |cx: Cx, (): ()| {
            let state = state.clone();
            async move { Ok::<_, StateError>(state.get(&cx).await? * 10) }
        };
        engine.async_function("tenfold", body).expect("a free name")
    };
    let tasks = &gated.world.tasks;
    let (read, through) = (tasks.result(gated.state().get(engine)), tasks.result(tenfold.get(engine, &())));
    tasks.run();
    let recomputed = tasks.result(gated.state().recompute());
    drop(gated.state().stop());
    gated.world.advance(S);
    assert!(taken(&recomputed).is_some());
    // The flight is theirs now: it ends when it ends, and is not begun again.
    gated.gate.open();
    gated.world.advance(S);
    let (read, through) = (taken(&read).expect("settled"), taken(&through).expect("settled").expect("no fault"));
    assert!(read == Ok(2) || read.is_err_and(|error| error.is_stopped()));
    assert!(through == Ok(20) || through.is_err_and(|error| error.is_stopped()));
    assert_eq!(gated.runs(), 2);
    assert!(block_on(tenfold.get(engine, &())).expect("no fault").expect_err("made from what is gone").is_stopped());
    gated.world.engine.assert_consistent();
}

#[test]
fn dropping_the_last_handle_stops_a_state_and_frees_what_it_held() {
    let world = Stepping::new();
    let token = Arc::new(());
    let define = {
        let token = token.clone();
        world.engine.computed_state(move |_: Cx| {
            let _held = &token;
            async { Ok::<_, StateError>(1_u64) }
        })
    };
    let (state, updates) = define.build().expect("room");
    world.tasks.add(updates);
    world.tasks.run();
    let (other, snapshot) = (state.clone(), state.snapshot());
    drop(state);
    world.tasks.run();
    assert_eq!((world.tasks.left(), Arc::strong_count(&token)), (1, 2));
    drop(other);
    world.tasks.run();
    assert_eq!((world.tasks.left(), Arc::strong_count(&token), world.engine.stats().nodes), (0, 1, 0));
    assert_eq!((snapshot.value(), snapshot.is_consistent()), (Ok(&1), false), "what was seen stays seen");
    world.engine.assert_consistent();
}

#[test]
fn dropping_the_loop_stops_the_state_at_once() {
    let (gated, mut updates) = gated(Stepping::new(), |define| define);
    gated.gate.close();
    let (_, waker) = Counting::pair();
    assert!(poll_once(&mut updates, &waker).is_pending());
    let next = gated.world.tasks.result(gated.state().changed(&gated.state().snapshot()));
    drop(updates);
    gated.world.tasks.run();
    assert!(taken(&next).expect("waits are over").is_none());
    assert_eq!((gated.over.load(SeqCst), gated.state().is_stopped()), (1, true));
    block_on(gated.state().stop());
    gated.world.engine.assert_consistent();
}

/// Bodies hold the state, the engine holds the bodies, and the loop holds neither.
#[test]
fn an_engine_whose_functions_read_a_state_is_freed_with_its_last_handle() {
    let mut gated = running(|define| define);
    let state = gated.state.take().expect("the only handle");
    let read = gated.world.engine.function("read", move |_: &Cx, (): &()| state.value().ok()).expect("a free name");
    assert_eq!(read.get(&gated.world.engine, &()), Ok(Some(1)));
    gated.world.engine.assert_consistent();
    let Gated { world: Stepping { engine, tasks, .. }, .. } = gated;
    drop((engine, read));
    tasks.run();
    assert_eq!(tasks.left(), 0);
}

#[test]
fn a_loop_ends_when_it_finds_its_engine_gone() {
    let gated = running(|define| define);
    let Gated { world: Stepping { engine, tasks, .. }, source, state, .. } = gated;
    let state = state.expect("a handle");
    drop(engine);
    source.set(2);
    tasks.run();
    let last = state.snapshot();
    assert_eq!((last.error().and_then(StateError::fault), last.last_good(), tasks.left()), (Some(&Fault::Gone), Some(&1), 0));
    assert!(state.is_stopped());
}

#[test]
fn a_loop_is_spawned_on_the_engines_own_spawner_if_there_is_one() {
    let (without, updates) = gated(Stepping::new(), |define| define);
    let updates = updates.spawn().expect_err("nothing to spawn it on");
    without.world.tasks.add(updates);
    without.world.tasks.run();
    assert_eq!(without.state().value(), Ok(1));
    let (with, updates) = gated(Stepping::with_spawner(), |define| define);
    updates.spawn().expect("it has one");
    with.world.tasks.run();
    with.source.set(2);
    with.world.tasks.run();
    assert_eq!(with.state().value(), Ok(2));
    with.world.engine.assert_consistent();
}

#[test]
fn errors_of_states_are_what_they_were() {
    let io = StateError::new(std::io::Error::other("disc"));
    assert_eq!(io.downcast_ref::<std::io::Error>().map(ToString::to_string), Some("disc".to_owned()));
    assert_eq!(StateError::new(io.clone()), io, "not wrapped twice");
    assert_eq!(StateError::new(Fault::Full), StateError::from(Fault::Full));
    assert_eq!((io.fault(), StateError::from(Fault::Full).fault()), (None, Some(&Fault::Full)));
}

#[test]
fn what_states_are_made_of_crosses_threads() {
    fn both<T: Send + Sync + std::fmt::Debug>() {}
    fn send<T: Send + std::fmt::Debug>() {}
    both::<MutableState<String>>();
    both::<ComputedState<String>>();
    both::<StateSnapshot<String>>();
    both::<StateError>();
    both::<(Timer, Backoff, FixedDelay, NextTick, UiDelay)>();
    both::<(ActionTracker, Action)>();
    send::<(UpdateLoop, StateRead<String>, StateWait<String>)>();
    send::<DefineState<String, StateError>>();
    fn of<T: Send>(_: impl Fn(&Engine) -> T) {}
    of(|engine: &Engine| engine.mutable_state(1_u8));
}
