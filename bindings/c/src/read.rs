//! Reads from outside: they compute, copy, or only look.

use std::ffi::c_void;
use std::ptr;

use crate::buffer::{BufferOut, WsBuffer, bytes, required};
use crate::error::{Failure, WsCode, WsError, entry};
use crate::function::WsFunction;
use crate::handle;
use crate::outcome::Outcome;

/// The value of a key: from the cache, or computed now, or waited for while another thread computes it. Free the
/// buffer with ws_buffer_free. Inside a callback use ws_context_get: what is read here is not recorded there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_get(
    function: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    out: *mut WsBuffer,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        let out = unsafe { BufferOut::new(out) }?;
        // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
        let key = unsafe { bytes(key, key_len, "key") }?;
        // A hit is taken under the registry's lock, which spares the reference count that all readers would share;
        // a miss may run callbacks, which may call any entry, so it holds the function by itself.
        if let Some(outcome) = peeked(function, key)? {
            let value = match outcome {
                Outcome::Value(value) => value,
                other => other.into_value(handle::function(function)?.function().name())?,
            };
            out.fill(value);
            return Ok(());
        }
        let registered = handle::function(function)?;
        let outcome = registered.function().get(&registered.engine, key)?;
        out.fill(outcome.into_value(registered.function().name())?);
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// The value of a key if a consistent one is cached, else WS_CODE_NOT_CACHED: never runs a callback, never waits. Free
/// the buffer with ws_buffer_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_existing(
    function: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    out: *mut WsBuffer,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        let out = unsafe { BufferOut::new(out) }?;
        // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
        let key = unsafe { bytes(key, key_len, "key") }?;
        let value = match peeked(function, key)? {
            Some(Outcome::Value(value)) => value,
            Some(other) => other.into_value(handle::function(function)?.function().name())?,
            None => return Err(not_cached()),
        };
        out.fill(value);
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Copies the value of a key into the caller's memory, if a consistent one is cached; else WS_CODE_NOT_CACHED. It
/// allocates nothing and counts no reference, so threads that read the same key do not get in each other's way. `len`
/// gets the value's length, also with WS_CODE_BUFFER_TOO_SMALL, when nothing was copied; `memory` may be NULL when
/// `capacity` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_peek(
    function: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    memory: *mut c_void,
    capacity: usize,
    len: *mut usize,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        let len = required(len, "len")?;
        if capacity > 0 {
            required(memory, "memory")?;
        }
        // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
        let key = unsafe { bytes(key, key_len, "key") }?;
        handle::with_function(function, |registered| {
            let function = registered.function();
            let pin = registered.engine.pin();
            let read = function.peek(&pin, key).ok_or_else(not_cached)?;
            let value = read.as_value(function.name())?;
            // SAFETY: the contract: out-parameters that are not NULL can be written.
            unsafe { len.write(value.len()) };
            if value.len() > capacity {
                return Err(Failure::new(WsCode::BufferTooSmall, format!("the value has {} bytes, the memory {capacity}", value.len())));
            }
            if !value.is_empty() {
                // SAFETY: the value fits the capacity, so that is above 0 and `memory` is not NULL; the caller's memory
                // cannot overlap the engine's own.
                unsafe { ptr::copy_nonoverlapping(value.as_ptr(), memory.cast(), value.len()) };
            }
            Ok(())
        })
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// What is cached, without computing. Runs no user code, which the registry's lock demands.
fn peeked(function: *const WsFunction, key: &[u8]) -> Result<Option<Outcome>, Failure> {
    handle::with_function(function, |registered| {
        let pin = registered.engine.pin();
        Ok(registered.function().peek(&pin, key).map(|read| Outcome::clone(&read)))
    })
}

fn not_cached() -> Failure {
    Failure::new(WsCode::NotCached, "nothing consistent is cached for this key")
}
