//! Functions: registered and invalidated.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use wellspring::{Cx, Engine, Function, Source};

use crate::buffer::{bytes, name_of, required};
use crate::callback::{Callback, User, WsCompute, WsDestroy};
use crate::engine::{WsEngine, write_commit};
use crate::error::{Failure, WsCode, WsError, entry};
use crate::handle::{self, Object, Token};
use crate::outcome::Outcome;

/// A function of an engine, or a source: a function whose values are set from outside. It lives as long as its engine
/// and is freed with it.
#[derive(Debug)]
pub struct WsFunction;

/// Whether a value that was computed again and came out equal counts as a change.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsCutOff {
    /// Equal bytes (or an equal failure) are no change: nothing that was made from them runs again.
    Eq = 0,
    /// Every new value is a change. For values that are large and hardly ever come out equal.
    Never = 1,
}

/// A function with what its readers need.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) owner: Token,
    pub(crate) engine: Engine,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Computed(Function<Vec<u8>, Outcome>),
    Source(Source<Vec<u8>, Outcome>),
}

impl Registered {
    pub(crate) fn function(&self) -> &Function<Vec<u8>, Outcome> {
        match &self.kind {
            Kind::Computed(function) => function,
            Kind::Source(source) => source,
        }
    }

    pub(crate) fn source(&self) -> Result<&Source<Vec<u8>, Outcome>, Failure> {
        match &self.kind {
            Kind::Source(source) => Ok(source),
            Kind::Computed(function) => {
                Err(Failure::new(WsCode::NotASource, format!("`{}` is computed by a callback and cannot be set", function.name())))
            }
        }
    }
}

/// Registers a function that a callback computes. `name` (UTF-8) is unique in the engine; `cut_off` is a ws_cut_off.
/// `user` is handed to every call of the callback; `destroy` (may be NULL) takes it back exactly once: when the engine
/// is gone, or before this returns when it fails, whatever the reason.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_function_new(
    engine: *mut WsEngine,
    name: *const c_char,
    cut_off: i32,
    compute: WsCompute,
    user: *mut c_void,
    destroy: WsDestroy,
    out: *mut *mut WsFunction,
    err: *mut WsError,
) -> WsCode {
    let user = User { pointer: user, destroy };
    let body = || {
        // All of it moves in, so that a failure on the way destroys it under `entry`.
        let user = user;
        let host = handle::engine(engine)?;
        // SAFETY: the contract: strings that are not NULL end with a NUL and stay as they are.
        let name = unsafe { name_of(name) }?;
        let callback = Callback::new(compute, user)?;
        let out = required(out, "out")?;
        let define = host.define::<Vec<u8>, Outcome>(name);
        let define = match cut_off {
            rule if rule == WsCutOff::Eq as i32 => define.cut_off_eq(),
            rule if rule == WsCutOff::Never as i32 => define.cut_off_never(),
            other => {
                return Err(Failure::new(WsCode::BadArgument, format!("there is no cut-off rule {other}")));
            }
        };
        let function = define.function(move |cx: &Cx, key: &Vec<u8>| callback.run(cx, key))?;
        let token = handle::register_owned(Object::Function(Arc::new(Registered {
            owner: Token::of(engine),
            engine: host,
            kind: Kind::Computed(function),
        })))?;
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        unsafe { out.write(token.pointer()) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Makes the value of a key stale, and everything that was made from it; returns once no later read can see an old one.
/// `commit` may be NULL; else it gets the commit's number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_invalidate(
    function: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    commit: *mut u64,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        let function = handle::function(function)?;
        // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
        let key = unsafe { bytes(key, key_len, "key") }?;
        let id = function.function().invalidate(key);
        // SAFETY: the contract: `commit` is NULL or can be written.
        unsafe { write_commit(commit, id) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// The same for every key of a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_invalidate_all(function: *mut WsFunction, commit: *mut u64, err: *mut WsError) -> WsCode {
    let body = || {
        let id = handle::function(function)?.function().invalidate_all();
        // SAFETY: the contract: `commit` is NULL or can be written.
        unsafe { write_commit(commit, id) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}
