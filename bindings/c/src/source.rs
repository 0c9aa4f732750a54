//! Sources: functions whose values come from outside.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use crate::buffer::{bytes, name_of, required};
use crate::engine::{WsEngine, write_commit};
use crate::error::{WsCode, WsError, entry};
use crate::function::{Kind, Registered, WsFunction};
use crate::handle::{self, Object, Token};
use crate::outcome::Outcome;

/// Registers a source: a function whose values are set with ws_source_set. A key that was not set yet has the `initial`
/// bytes (copied); with `initial` NULL it is WS_CODE_NOT_SET to its readers until it is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_source_new(
    engine: *mut WsEngine,
    name: *const c_char,
    initial: *const c_void,
    initial_len: usize,
    out: *mut *mut WsFunction,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        let host = handle::engine(engine)?;
        // SAFETY: the contract: strings that are not NULL end with a NUL and stay as they are.
        let name = unsafe { name_of(name) }?;
        // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
        let first = match unsafe { bytes(initial, initial_len, "initial") }? {
            [] if initial.is_null() => Outcome::NotSet,
            value => Outcome::value(value),
        };
        let out = required(out, "out")?;
        let define = host.define::<Vec<u8>, Outcome>(name).cut_off_eq();
        let source = define.source(move |_: &Vec<u8>| first.clone())?;
        let token = handle::register_owned(Object::Function(Arc::new(Registered {
            owner: Token::of(engine),
            engine: host,
            kind: Kind::Source(source),
        })))?;
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        unsafe { out.write(token.pointer()) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Sets a source's value for a key (copied) and makes stale what was made from the old one; returns once no later read
/// can see it. Equal bytes are no change. `commit` may be NULL; else it gets the commit's number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_source_set(
    source: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    commit: *mut u64,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        let function = handle::function(source)?;
        let source = function.source()?;
        // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
        let (key, value) = unsafe { (bytes(key, key_len, "key")?, bytes(value, value_len, "value")?) };
        let id = source.try_set(key, Outcome::value(value))?;
        // SAFETY: the contract: `commit` is NULL or can be written.
        unsafe { write_commit(commit, id) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}
