//! Every entry, on every thread, at any time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use wellspring_c::error::WsCode;

use crate::caller::{Caller, Context};

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

#[test]
fn threads_that_need_one_key_run_its_callback_once() {
    const THREADS: usize = 4;
    let caller = Caller::new();
    for round in 0..100_u64 {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let function = caller.define(&format!("function {round}"), move |_, key| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(key.to_vec())
        });
        let start = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    assert_eq!(function.get(b"key"), Ok(b"key".to_vec()));
                });
            }
        });
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }
    caller.finish();
}

#[test]
fn a_read_that_begins_after_a_set_returned_never_sees_the_older_value() {
    const SETS: u64 = 2_000;
    let caller = Caller::new();
    let source = caller.source("source", &0_u64.to_le_bytes());
    let read = move |context: Context, key: &[u8]| context.get(source, key).map_err(|_| 1);
    let middle = caller.define("middle", read);
    let top = caller.define("top", move |context, key| context.get(middle, key).map_err(|_| 1));
    let returned = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let floor = returned.load(Ordering::SeqCst);
                    let seen = number(&top.get(b"key").expect("it has a value"));
                    assert!(seen >= floor, "{seen} was read after {floor} was set");
                    if floor == SETS {
                        break;
                    }
                }
            });
        }
        for value in 1..=SETS {
            source.set(b"key", &value.to_le_bytes()).expect("a source can be set");
            returned.store(value, Ordering::SeqCst);
        }
    });
    caller.finish();
}

#[test]
fn an_engine_freed_during_a_call_goes_when_the_call_is_done() {
    let caller = Caller::new();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let held = Arc::new(());
    let mine = Arc::clone(&held);
    let function = caller.define("function", move |_, key| {
        let _ = &mine;
        begun.send(()).map_err(|_| 1)?;
        may_go_on.lock().map_err(|_| 2)?.recv().map_err(|_| 3)?;
        Ok(key.to_vec())
    });
    thread::scope(|scope| {
        let reader = scope.spawn(|| function.get(b"key"));
        has_begun.recv().expect("the callback runs");
        caller.free().expect("it was alive");
        assert_eq!(function.get(b"key").expect_err("freed").code, WsCode::BadHandle);
        assert_eq!(Arc::strong_count(&held), 2, "the callback still runs");
        go_on.send(()).expect("the callback waits");
        assert_eq!(reader.join().expect("no panic"), Ok(b"key".to_vec()));
    });
    assert_eq!(Arc::strong_count(&held), 1, "the last call took the engine along");
}

#[test]
fn a_callback_may_free_its_own_engine() {
    let caller = Caller::new();
    let source = caller.source("source", b"value");
    let function = caller.define("function", move |context, key| {
        let value = context.get(source, key).map_err(|_| 1)?;
        caller.free().map_err(|_| 2)?;
        match context.get(source, key) {
            Err(refused) if refused.code == WsCode::BadHandle => Ok(value),
            _ => Err(3),
        }
    });
    assert_eq!(function.get(b"key"), Ok(b"value".to_vec()));
    assert_eq!(function.get(b"key").expect_err("freed").code, WsCode::BadHandle);
}

#[test]
fn engines_come_and_go_while_others_are_read() {
    let caller = Caller::new();
    let source = caller.source("source", b"value");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                for round in 0..300_u32 {
                    assert_eq!(source.get(&round.to_le_bytes()), Ok(b"value".to_vec()));
                    let other = Caller::new();
                    let own = other.source("source", &round.to_le_bytes());
                    assert_eq!(own.get(b""), Ok(round.to_le_bytes().to_vec()));
                    other.finish();
                }
            });
        }
    });
    caller.finish();
}
