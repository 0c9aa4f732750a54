//! Contexts: good while their callback runs, on its thread, and for nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use wellspring_c::error::WsCode;

use crate::caller::{Callee, Caller, Context};

#[test]
fn a_context_kept_after_its_callback_has_escaped() {
    let caller = Caller::new();
    let source = caller.source("source", b"value");
    let kept = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&kept);
    let function = caller.define("function", move |context, key| {
        *slot.lock().expect("no test thread panicked") = Some(context);
        context.get(source, key).map_err(|_| 1)
    });
    assert_eq!(function.get(b"key"), Ok(b"value".to_vec()));
    let context = kept.lock().expect("no test thread panicked").take().expect("the callback ran");
    let refused = context.get(source, b"key").expect_err("its callback returned");
    assert_eq!(refused.code, WsCode::Escaped);
    caller.finish();
}

#[test]
fn a_context_on_another_thread_has_escaped() {
    let caller = Caller::new();
    let source = caller.source("source", b"value");
    let function = caller.define("function", move |context, key| {
        let there = thread::scope(|scope| {
            let carried = scope.spawn(move || {
                let context: Context = context;
                context.get(source, b"key")
            });
            carried.join().expect("the thread returns")
        });
        match there {
            Err(refused) if refused.code == WsCode::Escaped => context.get(source, key).map_err(|_| 1),
            _ => Err(2),
        }
    });
    assert_eq!(function.get(b"key"), Ok(b"value".to_vec()));
    caller.finish();
}

#[test]
fn a_handle_that_is_no_context_is_refused_as_one() {
    let caller = Caller::new();
    let source = caller.source("source", b"value");
    let refused = Context(caller.0.cast()).get(source, b"key").expect_err("an engine");
    assert_eq!(refused.code, WsCode::BadHandle);
    let refused = Context(std::ptr::null_mut()).get(source, b"key").expect_err("NULL");
    assert_eq!(refused.code, WsCode::NullArgument);
    caller.finish();
}

#[test]
fn a_function_that_waits_for_itself_is_a_cycle_with_names() {
    let caller = Caller::new();
    let below: Arc<OnceLock<Callee>> = Arc::new(OnceLock::new());
    let ring = Arc::clone(&below);
    let above = caller.define("above", move |context, key| {
        let below = *ring.get().expect("set before the first read");
        context.get(below, key).map_err(|_| 1)
    });
    let cycle = Arc::new(Mutex::new(None));
    let found = Arc::clone(&cycle);
    let function = caller.define("below", move |context, key| {
        context.get(above, key).map_err(|refused| {
            *found.lock().expect("no test thread panicked") = Some(refused);
            2
        })
    });
    below.set(function).expect("set once");
    assert!(above.get(b"key").is_err());
    let refused = cycle.lock().expect("no test thread panicked").take().expect("below was refused");
    assert_eq!(refused.code, WsCode::Cycle);
    assert!(refused.message.contains("above") && refused.message.contains("below"), "{}", refused.message);
    caller.finish();
}

#[test]
fn an_untracked_read_is_not_recorded() {
    let caller = Caller::new();
    let source = caller.source("source", b"1");
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let function = caller.define("function", move |context, key| {
        counted.fetch_add(1, Ordering::Relaxed);
        context.get_untracked(source, key).map_err(|_| 1)
    });
    assert_eq!(function.get(b"key"), Ok(b"1".to_vec()));
    source.set(b"key", b"2").expect("a source can be set");
    assert_eq!(function.get(b"key"), Ok(b"1".to_vec()), "it was told not to notice");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    caller.finish();
}

#[test]
fn a_context_reads_no_function_of_another_engine() {
    let (caller, other) = (Caller::new(), Caller::new());
    let foreign = other.source("source", b"value");
    let function = caller.define("function", move |context, key| context.get(foreign, key).map_err(|refused| refused.code as i32));
    let refused = function.get(b"key").expect_err("two engines");
    assert_eq!(refused.callback_code, WsCode::ForeignEngine as i32);
    caller.finish();
    other.finish();
}

#[test]
fn contexts_nest_as_deep_as_the_functions_do() {
    let caller = Caller::new();
    let source = caller.source("source", b"1");
    let own: Arc<OnceLock<Callee>> = Arc::new(OnceLock::new());
    let next = Arc::clone(&own);
    let sum = caller.define("sum", move |context, key| {
        let before = match key[0] {
            0 => context.get(source, b""),
            depth => context.get(*next.get().expect("set before the first read"), &[depth - 1]),
        };
        // The own context is good again after the ones further down ended.
        let one = context.get(source, b"").map_err(|_| 1)?;
        let before = before.map_err(|_| 2)?;
        Ok([&before[..], &one[..]].concat())
    });
    own.set(sum).expect("set once");
    assert_eq!(sum.get(&[50]).map(|value| value.len()), Ok(52));
    source.set(b"", b"22").expect("a source can be set");
    assert_eq!(sum.get(&[50]).map(|value| value.len()), Ok(104));
    caller.finish();
}
