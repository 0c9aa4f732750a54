//! Update delayers: fixed, by ticks, and as user interfaces want them. On a clock moved by hand.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use wellspring::{ActionTracker, Backoff, Delay, FixedDelay, NextTick, StateError, UiDelay, UpdateDelayer};
use wellspring_tests::stepping::Stepping;
use wellspring_tests::waking::{Counting, poll_once};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// A wait that has begun.
fn begin(world: &Stepping, delayer: &impl UpdateDelayer, retries: u32) -> Delay {
    let mut delay = delayer.delay(&world.engine.timer(), retries);
    let _ = is_over(&mut delay);
    delay
}

fn is_over(delay: &mut Delay) -> bool {
    let (_, waker) = Counting::pair();
    poll_once(delay, &waker).is_ready()
}

/// How long the wait takes, by stepping through it.
fn takes(world: &Stepping, delayer: &impl UpdateDelayer, retries: u32) -> Duration {
    let start = world.engine.timer().now();
    let mut delay = begin(world, delayer, retries);
    while !is_over(&mut delay) {
        world.clock.advance(MS);
    }
    world.engine.timer().now() - start
}

#[test]
fn a_fixed_delay_has_a_floor_unless_it_is_asked_for_none() {
    let world = Stepping::new();
    assert_eq!(takes(&world, &FixedDelay::new(Duration::ZERO), 0), 32 * MS);
    assert_eq!(takes(&world, &FixedDelay::new(31 * MS), 0), 32 * MS);
    assert_eq!(takes(&world, &FixedDelay::new(250 * MS), 0), 250 * MS);
    assert_eq!(takes(&world, &FixedDelay::without_floor(5 * MS), 0), 5 * MS);
    assert_eq!(takes(&world, &FixedDelay::without_floor(Duration::ZERO), 0), Duration::ZERO);
    world.engine.assert_consistent();
}

#[test]
fn every_delayer_backs_off_from_one_second_to_sixty_while_errors_come() {
    let world = Stepping::new();
    let actions = ActionTracker::new(&world.engine);
    let delayers: [Arc<dyn UpdateDelayer>; 4] = [
        Arc::new(FixedDelay::new(Duration::ZERO)),
        Arc::new(FixedDelay::without_floor(Duration::ZERO)),
        Arc::new(NextTick::new()),
        Arc::new(UiDelay::new(&actions)),
    ];
    for delayer in delayers {
        assert_eq!(takes(&world, &delayer, 1), S);
        assert_eq!(takes(&world, &delayer, 2), Duration::from_millis(1_415), "rounded up to a tick");
        assert_eq!(takes(&world, &delayer, 3), 2 * S);
        assert_eq!(takes(&world, &delayer, 13), 60 * S);
    }
    assert_eq!(takes(&world, &FixedDelay::new(5 * S), 1), 5 * S, "never sooner than without errors");
    assert_eq!(takes(&world, &NextTick::new().backoff(Backoff::new(20 * MS, S)), 1), 20 * MS);
    world.engine.assert_consistent();
}

#[test]
fn a_tick_comes_every_fifteen_milliseconds_for_all_who_wait() {
    let world = Stepping::new();
    assert_eq!(takes(&world, &NextTick::new(), 0), 15 * MS);
    world.clock.advance(4 * MS);
    let mut early = begin(&world, &NextTick::new(), 0);
    world.clock.advance(10 * MS);
    let mut late = begin(&world, &NextTick::new(), 0);
    assert!(!is_over(&mut early) && !is_over(&mut late));
    world.clock.advance(MS);
    assert!(is_over(&mut early) && is_over(&mut late));
    world.engine.assert_consistent();
}

#[test]
fn an_interface_waits_a_second_and_not_while_an_action_runs_or_has_just_ended() {
    let world = Stepping::new();
    let actions = ActionTracker::new(&world.engine);
    let delayer = UiDelay::new(&actions);
    assert_eq!(takes(&world, &delayer, 0), S);
    let (saving, loading) = (actions.start(), actions.start());
    assert_eq!((actions.running(), takes(&world, &delayer, 0)), (2, 32 * MS));
    drop(saving);
    world.clock.advance(10 * S);
    assert!(actions.is_instant(), "the other one runs");
    drop(loading);
    world.clock.advance(300 * MS);
    assert_eq!((actions.is_instant(), takes(&world, &delayer, 0)), (true, 32 * MS));
    assert_eq!((actions.is_instant(), takes(&world, &delayer, 0)), (false, S));
    assert_eq!(takes(&world, &UiDelay::new(&actions).every(2 * S), 0), 2 * S);
    assert_eq!(takes(&world, &UiDelay::new(&actions).every(MS), 0), 32 * MS);
    world.engine.assert_consistent();
}

#[test]
fn an_action_that_starts_during_the_wait_cuts_it_to_the_floor() {
    let world = Stepping::new();
    let actions = ActionTracker::new(&world.engine);
    let delayer = UiDelay::new(&actions);
    let mut delay = begin(&world, &delayer, 0);
    world.clock.advance(10 * MS);
    let action = actions.start();
    assert!(!is_over(&mut delay), "the floor stands");
    world.clock.advance(22 * MS);
    assert!(is_over(&mut delay));
    drop(action);
    world.clock.advance(S);

    let (woken, waker) = Counting::pair();
    let mut delay = begin(&world, &delayer, 0);
    world.clock.advance(500 * MS);
    assert!(poll_once(&mut delay, &waker).is_pending());
    drop(actions.start());
    assert!(woken.count() > 0 && is_over(&mut delay), "the action need not last");
    world.engine.assert_consistent();
}

#[test]
fn an_action_cuts_the_wait_for_a_retry_to_the_shortest() {
    let world = Stepping::new();
    let actions = ActionTracker::new(&world.engine);
    let delayer = UiDelay::new(&actions).backoff(Backoff::new(2 * S, 60 * S));
    assert_eq!(takes(&world, &delayer, 5), 8 * S);
    let mut delay = begin(&world, &delayer, 5);
    drop(actions.start());
    world.clock.advance(1_999 * MS);
    assert!(!is_over(&mut delay));
    world.clock.advance(MS);
    assert!(is_over(&mut delay), "it began and ended long before the floor did");
    world.engine.assert_consistent();
}

#[test]
fn an_action_ends_with_its_future_however_that_ends() {
    let world = Stepping::new();
    let actions = ActionTracker::new(&world.engine);
    let (_, waker) = Counting::pair();
    {
        let mut runs = Box::pin(actions.run(std::future::pending::<()>()));
        assert_eq!(actions.running(), 0, "nothing has begun");
        assert!(poll_once(&mut runs, &waker).is_pending());
        assert_eq!(actions.running(), 1);
    }
    assert_eq!(actions.running(), 0);
    world.tasks.add({
        let actions = actions.clone();
        async move { assert_eq!(actions.run(async { 5 }).await, 5) }
    });
    world.tasks.run();
    assert_eq!((world.tasks.left(), actions.running()), (0, 0));
}

/// The peer's delay with a cancelled token throws; ours is dropped.
#[test]
fn a_wait_that_is_dropped_wakes_nobody() {
    let world = Stepping::new();
    let actions = ActionTracker::new(&world.engine);
    let (woken, waker) = Counting::pair();
    let mut delays = [UiDelay::new(&actions).delay(&world.engine.timer(), 0), FixedDelay::new(S).delay(&world.engine.timer(), 0)];
    for delay in &mut delays {
        assert!(poll_once(delay, &waker).is_pending());
    }
    drop(delays);
    drop(actions.start());
    world.clock.advance(10 * S);
    assert_eq!(woken.count(), 0);
    world.engine.assert_consistent();
}

#[test]
fn a_state_under_an_interfaces_delayer_follows_at_once_what_the_user_did() {
    let world = Stepping::new();
    let actions = ActionTracker::new(&world.engine);
    let (cart, runs) = (world.engine.mutable_state(0_u64).expect("room"), Arc::new(AtomicU64::new(0)));
    let define = {
        let (cart, runs) = (cart.clone(), runs.clone());
        world.engine.computed_state(move |cx| {
            runs.fetch_add(1, SeqCst);
            let items = cart.get(&cx);
            async move { items.map_err(|error: StateError| error) }
        })
    };
    let (state, updates) = define.delayer(UiDelay::new(&actions)).build().expect("room");
    world.tasks.add(updates);
    world.tasks.run();
    cart.set(1);
    world.advance(999 * MS);
    assert_eq!(state.value(), Ok(0), "somebody else's change can wait");
    world.advance(MS);
    assert_eq!(state.value(), Ok(1));
    cart.set(2);
    world.advance(100 * MS);
    drop(actions.start());
    world.tasks.run();
    assert_eq!(state.value(), Ok(2));
    cart.set(3);
    world.advance(32 * MS);
    assert_eq!((state.value(), runs.load(SeqCst)), (Ok(3), 4));
    world.engine.assert_consistent();
}
