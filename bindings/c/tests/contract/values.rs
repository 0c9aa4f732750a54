//! Keys, values and failures.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wellspring_c::batch::{ws_batch_begin, ws_batch_commit, ws_batch_set};
use wellspring_c::buffer::{WsBuffer, ws_buffer_free};
use wellspring_c::context::ws_context_set_message;
use wellspring_c::error::{WsCode, ws_error_free};
use wellspring_c::function::{WsCutOff, ws_invalidate};
use wellspring_c::read::{ws_get, ws_peek};

use crate::caller::{Caller, asked};

#[test]
fn empty_keys_and_empty_values_are_ordinary() {
    let caller = Caller::new();
    let source = caller.source("source", b"first");
    let length = caller.define("length", move |context, key| {
        assert!(key.is_empty());
        Ok(vec![context.get(source, key).map_err(|_| 1)?.len() as u8])
    });
    assert_eq!(length.get(b""), Ok(vec![5]));
    source.set(b"", b"").expect("an empty value is a value");
    assert_eq!(source.get(b""), Ok(Vec::new()));
    assert_eq!(length.get(b""), Ok(vec![0]));
    let (mut len, null) = (9, ptr::null());
    // SAFETY: NULL is the empty key and, with a capacity of 0, no memory; the length can be written.
    asked(|err| unsafe { ws_peek(source.0, null, 0, ptr::null_mut(), 0, &raw mut len, err) }).expect("it fits");
    assert_eq!(len, 0);
    caller.finish();
}

#[test]
fn a_callback_that_returns_zero_without_a_value_is_told_on() {
    unsafe extern "C" fn silent(_: *mut wellspring_c::context::WsContext, _: *mut c_void, _: *const c_void, _: usize) -> i32 {
        0
    }
    let caller = Caller::new();
    let mut out = ptr::null_mut();
    asked(|err| {
        let (name, user) = (c"silent".as_ptr(), ptr::null_mut());
        // SAFETY: everything can be read and written, and the callback takes anything.
        unsafe { wellspring_c::function::ws_function_new(caller.0, name, 0, Some(silent), user, None, &raw mut out, err) }
    })
    .expect("the name is free");
    let refused = crate::caller::Callee(out).get(b"key").expect_err("there is no value");
    assert_eq!(refused.code, WsCode::NoValue);
    assert!(refused.message.contains("silent"), "{}", refused.message);
    caller.finish();
}

#[test]
fn a_callbacks_code_and_words_reach_every_reader_until_its_source_changes() {
    let caller = Caller::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let stock = caller.source("stock", b"0");
    let counted = Arc::clone(&runs);
    let order = caller.define("order", move |context, key| {
        counted.fetch_add(1, Ordering::Relaxed);
        match &context.get(stock, key).map_err(|_| -1)?[..] {
            b"0" => {
                // SAFETY: the string is static and the error is not wanted.
                unsafe { ws_context_set_message(context.0, c"out of stock".as_ptr(), ptr::null_mut()) };
                Err(-7)
            }
            some => Ok(some.to_vec()),
        }
    });
    for _ in 0..3 {
        let refused = order.get(b"apple").expect_err("nothing is there");
        assert_eq!((refused.code, refused.callback_code), (WsCode::CallbackFailed, -7));
        assert!(refused.message.contains("out of stock"), "{}", refused.message);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1, "a failure is cached like a value");
    stock.set(b"apple", b"4").expect("a source can be set");
    assert_eq!(order.get(b"apple"), Ok(b"4".to_vec()));
    caller.finish();
}

#[test]
fn an_equal_value_stops_there_unless_the_rule_says_never() {
    let caller = Caller::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let source = caller.source("source", b"1");
    for (name, rule, expected) in [("even", WsCutOff::Eq, 1), ("every", WsCutOff::Never, 2)] {
        runs.store(0, Ordering::Relaxed);
        let parity = move |context: crate::caller::Context, key: &[u8]| Ok(vec![context.get(source, key).map_err(|_| 1)?[0] % 2]);
        let parity = caller.define_as(name, rule, parity).expect("the name is free");
        let counted = Arc::clone(&runs);
        let above = caller.define(&format!("above {name}"), move |context, key| {
            counted.fetch_add(1, Ordering::Relaxed);
            context.get(parity, key).map_err(|_| 1)
        });
        source.set(b"key", b"1").expect("a source can be set");
        assert_eq!(above.get(b"key"), Ok(vec![1]));
        source.set(b"key", b"3").expect("a source can be set");
        assert_eq!(above.get(b"key"), Ok(vec![1]));
        assert_eq!(runs.load(Ordering::Relaxed), expected, "{name}");
    }
    caller.finish();
}

#[test]
fn a_buffer_keeps_its_bytes_when_the_value_is_replaced_and_the_engine_freed() {
    let caller = Caller::new();
    let source = caller.source("source", b"before");
    let mut out = WsBuffer { data: ptr::null(), len: 0 };
    // SAFETY: the key can be read, the rest written.
    asked(|err| unsafe { ws_get(source.0, b"key".as_ptr().cast(), 3, &raw mut out, err) }).expect("it has a value");
    source.set(b"key", b"after!").expect("a source can be set");
    caller.finish();
    // SAFETY: the buffer was filled and not freed yet.
    assert_eq!(unsafe { std::slice::from_raw_parts(out.data, out.len) }, b"before");
    // SAFETY: the buffer was filled by an entry; the second call finds it empty, the third finds none.
    unsafe {
        ws_buffer_free(&raw mut out);
        ws_buffer_free(&raw mut out);
        ws_buffer_free(ptr::null_mut());
        ws_error_free(ptr::null_mut());
    }
}

#[test]
fn lengths_and_pointers_that_cannot_be_are_refused() {
    let caller = Caller::new();
    let source = caller.source("source", b"");
    let key = b"key".as_ptr().cast();
    // SAFETY: NULL is refused before it is followed.
    let refused = asked(|err| unsafe { ws_invalidate(source.0, ptr::null(), 3, ptr::null_mut(), err) });
    assert_eq!(refused.expect_err("NULL has no bytes").code, WsCode::NullArgument);
    // SAFETY: such a length is refused before anything is read.
    let refused = asked(|err| unsafe { ws_invalidate(source.0, key, usize::MAX, ptr::null_mut(), err) });
    assert_eq!(refused.expect_err("nothing is that long").code, WsCode::BadArgument);
    // SAFETY: without an error to fill, the code alone is the answer.
    let code = unsafe { ws_invalidate(source.0, ptr::null(), 3, ptr::null_mut(), ptr::null_mut()) };
    assert_eq!(code, WsCode::NullArgument);
    caller.finish();
}

#[test]
fn a_key_larger_than_the_engine_takes_is_refused_and_the_rest_of_its_batch_made() {
    let caller = Caller::new();
    let source = caller.source("source", b"before");
    let large = vec![7; (1 << 20) + 1];
    assert_eq!(source.get(&large).expect_err("too large").code, WsCode::KeyTooLarge);
    assert_eq!(source.set(&large, b"after").expect_err("too large").code, WsCode::KeyTooLarge);

    let (mut batch, mut commit) = (ptr::null_mut(), 0);
    let value: *const c_void = b"after".as_ptr().cast();
    let answer = asked(|err| {
        // SAFETY: keys and value can be read, the rest written.
        unsafe {
            assert_eq!(ws_batch_begin(caller.0, &raw mut batch, err), WsCode::Ok);
            assert_eq!(ws_batch_set(batch, source.0, large.as_ptr().cast(), large.len(), value, 5, err), WsCode::Ok);
            assert_eq!(ws_batch_set(batch, source.0, b"key".as_ptr().cast(), 3, value, 5, err), WsCode::Ok);
            ws_batch_commit(batch, &raw mut commit, err)
        }
    });
    assert_eq!(answer.expect_err("one of them is too large").code, WsCode::KeyTooLarge);
    assert!(commit > 0);
    assert_eq!(source.get(b"key"), Ok(b"after".to_vec()));
    caller.finish();
}
