//! What a million values cost that will end by themselves.
//!
//! `timers/idle-1m`: a million values of 64 functions whose expiry lies an hour away and more, so that no two functions'
//! ends fall together; then the process does nothing for two seconds. A figure is the processor time of all its threads
//! meanwhile, in percent of a core (`/proc/self/task/*/schedstat`, counted up to the hundredth of a percent at least).
//! Beside it a million tokio tasks that sleep until the same moments. Two seconds are shorter than some intervals at
//! which a wheel moves entries down, so the note has the same for 50 minutes on a clock moved by hand.
//!
//! `timers/idle-1m/arming`: what computing such a value takes, beside the same functions without expiry; and the
//! difference, beside spawning a tokio task that sleeps and polling it once.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wellspring::{Engine, Function, ManualClock};

use super::Scenario;
use crate::keys::value_of;
use crate::rounds::{alternate_warm, median, nanos_each};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "timers/idle-1m", run: idle }];

const FUNCTIONS: u64 = 64;
const VALUES: u64 = 1 << 20;
const IDLE: Duration = Duration::from_secs(2);
/// Less than this is too little to compare: percent of a core.
const LEAST: f64 = 0.01;

/// How long the values of a function live.
fn span(function: u64) -> Duration {
    Duration::from_secs(3_600 + 37 * function)
}

/// Functions whose values expire, or the same functions without a rule.
fn functions(engine: &Engine, expiring: bool) -> Vec<Function<u64, u64>> {
    let define = |number| {
        let define = engine.define(format!("value {number}"));
        let define = if expiring { define.expire_after(span(number)) } else { define };
        define.function(|_, &key: &u64| value_of(key)).expect("the name is free")
    };
    (0..FUNCTIONS).map(define).collect()
}

/// Computes every value, the functions taking turns.
fn compute(engine: &Engine, functions: &[Function<u64, u64>]) {
    for key in 0..VALUES / FUNCTIONS {
        for function in functions {
            assert_eq!(function.get(engine, &key), Ok(value_of(key)));
        }
    }
}

/// Nanoseconds that the threads of this process have run, those which ended not counted.
fn processor_nanos() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok());
    nanos.sum()
}

/// The processor's load while nothing is done, in percent of a core.
fn load_of_idling() -> f64 {
    // What starts up when something was armed has settled.
    thread::sleep(Duration::from_millis(100));
    let (before, begun) = (processor_nanos(), Instant::now());
    thread::sleep(IDLE);
    let busy = processor_nanos().saturating_sub(before);
    (100.0 * busy as f64 / begun.elapsed().as_nanos() as f64).max(LEAST)
}

fn idle_ours() -> f64 {
    let engine = Engine::new();
    let functions = functions(&engine, true);
    compute(&engine, &functions);
    assert!(engine.memory_report().timers as u64 >= VALUES);
    load_of_idling()
}

/// Percent of a core over 50 minutes of a clock that is moved by hand.
fn idle_for_long() -> f64 {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    compute(&engine, &functions(&engine, true));
    let long = Duration::from_secs(3_000);
    let begun = Instant::now();
    clock.advance(long);
    let busy = begun.elapsed();
    assert_eq!(engine.memory_report().timers as u64, VALUES, "nothing has expired");
    100.0 * busy.as_secs_f64() / long.as_secs_f64()
}

fn arming(expiring: bool) -> f64 {
    let engine = Engine::new();
    let functions = functions(&engine, expiring);
    nanos_each(VALUES as usize, || compute(&engine, &functions))
}

fn idle(name: &str, plan: Plan) -> Vec<Row> {
    let rounds = if plan.quick { 1 } else { 3 };
    let ours: Vec<f64> = (0..rounds).map(|_| idle_ours()).collect();
    let note = format!("{VALUES} armed, idle for 2 s; {:.5}% over 50 minutes of a clock moved by hand", idle_for_long());
    let [with, without] = alternate_warm(plan.rounds(), plan.patience(), [&mut || arming(true), &mut || arming(false)]);
    let alone = [median(&with) - median(&without)];
    let arm_name = format!("{name}/arming");
    let arm = Row::versus(&arm_name, 1, Unit::NANOS, &with, "the same values without expiry", &without);
    let mut rows = vec![peers::idle(name, rounds, &ours).note(note).bar(Bar::AtMost(1.0)), arm];
    rows.push(peers::arming(&format!("{arm_name}/tokio"), &alone));
    rows
}

#[cfg(not(feature = "peers"))]
mod peers {
    use crate::scenario::NOT_BUILT;
    use crate::{Row, Unit};

    pub(super) fn idle(name: &str, _: usize, ours: &[f64]) -> Row {
        Row::alone(name, 1, Unit::LOAD, ours, format!("tokio: {NOT_BUILT}"))
    }

    pub(super) fn arming(name: &str, ours: &[f64]) -> Row {
        Row::alone(name, 1, Unit::NANOS, ours, format!("tokio: {NOT_BUILT}"))
    }
}

#[cfg(feature = "peers")]
mod peers {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use tokio::runtime::{Builder, Runtime};

    use super::{FUNCTIONS, VALUES, load_of_idling, span};
    use crate::rounds::nanos_each;
    use crate::{Row, Unit};

    /// One worker, as our timers have one thread.
    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime starts")
    }

    /// Spawns a task for each value; returns when every one of them sleeps.
    fn sleep_all(runtime: &Runtime) {
        let asleep = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        for _ in 0..VALUES / FUNCTIONS {
            for function in 0..FUNCTIONS {
                let asleep = asleep.clone();
                runtime.spawn(async move {
                    let sleep = tokio::time::sleep_until((begun + span(function)).into());
                    tokio::pin!(sleep);
                    let mut first = true;
                    std::future::poll_fn(|context| {
                        let polled = sleep.as_mut().poll(context);
                        if std::mem::take(&mut first) {
                            asleep.fetch_add(1, Ordering::Relaxed);
                        }
                        polled
                    })
                    .await;
                });
            }
        }
        while asleep.load(Ordering::Relaxed) < VALUES {
            std::thread::yield_now();
        }
    }

    pub(super) fn idle(name: &str, rounds: usize, ours: &[f64]) -> Row {
        let load = || {
            let runtime = runtime();
            sleep_all(&runtime);
            load_of_idling()
        };
        let theirs: Vec<f64> = (0..rounds).map(|_| load()).collect();
        Row::versus(name, 1, Unit::LOAD, ours, "tokio tasks in sleep_until, 1 worker", &theirs)
    }

    pub(super) fn arming(name: &str, ours: &[f64]) -> Row {
        let runtime = runtime();
        let nanos = nanos_each(VALUES as usize, || sleep_all(&runtime));
        Row::versus(name, 1, Unit::NANOS, ours, "tokio: a task in sleep_until, spawned and polled once", &[nanos])
            .note("ours is the difference to values without expiry")
    }
}
