//! Handles that are not what they should be.

use std::collections::HashSet;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wellspring_c::batch::{WsBatch, ws_batch_begin, ws_batch_cancel, ws_batch_commit, ws_batch_invalidate_all, ws_batch_set};
use wellspring_c::engine::ws_collect;
use wellspring_c::error::WsCode;
use wellspring_c::function::WsCutOff;

use crate::caller::{Callee, Caller, asked};

fn begin(caller: Caller) -> *mut WsBatch {
    let mut batch = ptr::null_mut();
    // SAFETY: both can be written.
    asked(|err| unsafe { ws_batch_begin(caller.0, &raw mut batch, err) }).expect("a batch can begin");
    batch
}

#[test]
fn handles_of_another_kind_are_named_in_the_refusal() {
    let caller = Caller::new();
    let source = caller.source("source", b"");
    let batch = begin(caller);
    for (handle, kind) in [
        (caller.0.cast(), "an engine"),
        (batch.cast(), "a batch"),
        (ptr::without_provenance_mut(8), "never was"),
        (ptr::without_provenance_mut(usize::MAX), "a context"),
    ] {
        let refused = Callee(handle).get(b"key").expect_err("not a function");
        assert_eq!(refused.code, WsCode::BadHandle);
        assert!(refused.message.contains(kind), "{}", refused.message);
    }
    let refused = Caller(source.0.cast()).free().expect_err("not an engine");
    assert_eq!(refused.code, WsCode::BadHandle);
    assert!(refused.message.contains("a function"), "{}", refused.message);
    caller.finish();
}

#[test]
fn a_freed_engine_takes_its_functions_and_batches_along() {
    let caller = Caller::new();
    let source = caller.source("source", b"");
    let batch = begin(caller);
    caller.finish();
    assert_eq!(caller.free().expect_err("freed").code, WsCode::BadHandle);
    assert_eq!(source.get(b"key").expect_err("freed").code, WsCode::BadHandle);
    assert_eq!(source.set(b"key", b"value").expect_err("freed").code, WsCode::BadHandle);
    // SAFETY: the error can be written.
    let refused = asked(|err| unsafe { ws_batch_commit(batch, ptr::null_mut(), err) });
    assert_eq!(refused.expect_err("freed").code, WsCode::BadHandle);
}

#[test]
fn a_freed_handle_is_not_given_out_again() {
    let mut seen = HashSet::new();
    for _ in 0..1_000 {
        let caller = Caller::new();
        let source = caller.source("source", b"");
        assert!(seen.insert(caller.0.addr()) && seen.insert(source.0.addr()));
        caller.free().expect("it was alive");
    }
}

#[test]
fn a_refused_registration_destroys_its_user_data() {
    let caller = Caller::new();
    let held = Arc::new(());
    let mine = Arc::clone(&held);
    caller.define("name", move |_, _| {
        let _ = &mine;
        Ok(Vec::new())
    });
    let mine = Arc::clone(&held);
    let refused = caller.define_as("name", WsCutOff::Eq, move |_, _| {
        let _ = &mine;
        Ok(Vec::new())
    });
    assert_eq!(refused.expect_err("the name is taken").code, WsCode::Duplicate);
    assert_eq!(Arc::strong_count(&held), 2, "the first is alive, the second gone");
    caller.finish();
    assert_eq!(Arc::strong_count(&held), 1, "the engine let go of the first");
}

#[test]
fn a_destructor_may_call_entries() {
    struct Last(Caller, Arc<AtomicUsize>);
    impl Drop for Last {
        fn drop(&mut self) {
            assert_eq!(self.0.free().expect_err("freed").code, WsCode::BadHandle);
            let other = Caller::new();
            assert_eq!(other.source("source", b"value").get(b"key"), Ok(b"value".to_vec()));
            other.finish();
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let caller = Caller::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    let last = Last(caller, Arc::clone(&dropped));
    caller.define("function", move |_, _| {
        let _ = &last;
        Ok(Vec::new())
    });
    caller.finish();
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_batch_takes_no_function_of_another_engine() {
    let (caller, other) = (Caller::new(), Caller::new());
    let source = other.source("source", b"");
    let batch = begin(caller);
    // SAFETY: the error can be written.
    let refused = asked(|err| unsafe { ws_batch_invalidate_all(batch, source.0, err) });
    assert_eq!(refused.expect_err("two engines").code, WsCode::ForeignEngine);
    let (key, value) = (b"key".as_ptr().cast(), b"value".as_ptr().cast());
    // SAFETY: key and value can be read, the error written.
    let refused = asked(|err| unsafe { ws_batch_set(batch, source.0, key, 3, value, 5, err) });
    assert_eq!(refused.expect_err("two engines").code, WsCode::ForeignEngine);
    // SAFETY: the error can be written.
    asked(|err| unsafe { ws_batch_cancel(batch, err) }).expect("the batch was open");
    caller.finish();
    other.finish();
}

#[test]
fn a_batch_takes_no_value_for_a_computed_function() {
    let caller = Caller::new();
    let function = caller.define("function", |_, key| Ok(key.to_vec()));
    let batch = begin(caller);
    let (key, value) = (b"key".as_ptr().cast(), b"value".as_ptr().cast());
    // SAFETY: key and value can be read, the error written.
    let refused = asked(|err| unsafe { ws_batch_set(batch, function.0, key, 3, value, 5, err) });
    assert_eq!(refused.expect_err("not a source").code, WsCode::NotASource);
    // SAFETY: the error can be written; the batch is empty, which is no error.
    asked(|err| unsafe { ws_batch_commit(batch, ptr::null_mut(), err) }).expect("the batch was open");
    caller.finish();
}

#[test]
fn collecting_drops_replaced_values() {
    let caller = Caller::new();
    let source = caller.source("source", b"");
    for value in 0..100_u8 {
        source.set(b"key", &[value]).expect("a source can be set");
    }
    let mut dropped = usize::MAX;
    // SAFETY: both can be written.
    asked(|err| unsafe { ws_collect(caller.0, &raw mut dropped, err) }).expect("the engine is alive");
    assert!(dropped <= 100, "{dropped}");
    assert_eq!(source.get(b"key"), Ok(vec![99]));
    caller.finish();
}
