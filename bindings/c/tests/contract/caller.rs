//! A caller of the entries, in Rust: byte strings and closures in, results out.

use std::ffi::{CStr, CString, c_void};
use std::ptr;

use wellspring_c::buffer::{WsBuffer, ws_buffer_free};
use wellspring_c::context::{WsContext, ws_context_get, ws_context_get_untracked, ws_context_set_value};
use wellspring_c::engine::{WsEngine, ws_engine_check, ws_engine_free, ws_engine_new};
use wellspring_c::error::{WsCode, WsError, ws_error_free};
use wellspring_c::function::{WsCutOff, WsFunction, ws_function_new};
use wellspring_c::read::ws_get;
use wellspring_c::source::{ws_source_new, ws_source_set};

/// What a test's callback is made of: key in, value or code out.
pub(crate) type Body = Box<dyn Fn(Context, &[u8]) -> Result<Vec<u8>, i32> + Send + Sync>;

/// A code, the callback's own code, and the words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: WsCode,
    pub(crate) callback_code: i32,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) *mut WsEngine);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Callee(pub(crate) *mut WsFunction);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Context(pub(crate) *mut WsContext);

// SAFETY: handles are numbers that every thread may use; this is the promise under test.
unsafe impl Send for Caller {}
// SAFETY: as above.
unsafe impl Sync for Caller {}
// SAFETY: as above.
unsafe impl Send for Callee {}
// SAFETY: as above.
unsafe impl Sync for Callee {}
// SAFETY: a context on the wrong thread must be refused, so tests carry it there.
unsafe impl Send for Context {}

/// Runs an entry with an error to fill.
pub(crate) fn asked(entry: impl FnOnce(*mut WsError) -> WsCode) -> Result<(), Refused> {
    let mut err = WsError { code: WsCode::Other, callback_code: -1, message: ptr::dangling_mut() };
    let code = entry(&raw mut err);
    assert_eq!(err.code, code, "the code is returned and written");
    if code == WsCode::Ok {
        assert!(err.message.is_null());
        return Ok(());
    }
    // SAFETY: a failed entry leaves a string with a NUL at its end.
    let message = unsafe { CStr::from_ptr(err.message) }.to_str().expect("UTF-8").to_owned();
    let refused = Refused { code, callback_code: err.callback_code, message };
    // SAFETY: the error was filled by an entry.
    unsafe { ws_error_free(&raw mut err) };
    Err(refused)
}

/// Runs an entry that fills a buffer.
pub(crate) fn bought(entry: impl FnOnce(*mut WsBuffer, *mut WsError) -> WsCode) -> Result<Vec<u8>, Refused> {
    let mut out = WsBuffer { data: ptr::dangling(), len: 77 };
    let answer = asked(|err| entry(&raw mut out, err));
    assert_eq!(answer.is_err(), out.data.is_null(), "empty exactly when it failed");
    let value = answer.map(|()| {
        // SAFETY: an entry that worked filled the buffer.
        unsafe { std::slice::from_raw_parts(out.data, out.len) }.to_vec()
    });
    // SAFETY: the buffer was filled, or emptied, by an entry.
    unsafe { ws_buffer_free(&raw mut out) };
    value
}

unsafe extern "C" fn call(context: *mut WsContext, user: *mut c_void, key: *const c_void, key_len: usize) -> i32 {
    // SAFETY: `define` registered this with a boxed body, which lives until `forget`.
    let body = unsafe { &*user.cast::<Body>() };
    // SAFETY: the key is there until the callback returns, and its pointer is never NULL.
    let key = unsafe { std::slice::from_raw_parts(key.cast(), key_len) };
    match body(Context(context), key) {
        Ok(value) => {
            // SAFETY: the value is alive during the call.
            let code = unsafe { ws_context_set_value(context, value.as_ptr().cast(), value.len(), ptr::null_mut()) };
            code as i32
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn forget(user: *mut c_void) {
    // SAFETY: the pointer came from `Box::into_raw` in `define`, and the library calls this once.
    drop(unsafe { Box::from_raw(user.cast::<Body>()) });
}

impl Caller {
    pub(crate) fn new() -> Caller {
        let mut engine = ptr::null_mut();
        // SAFETY: both pointers can be written.
        asked(|err| unsafe { ws_engine_new(&raw mut engine, err) }).expect("an engine can be made");
        Caller(engine)
    }

    pub(crate) fn free(self) -> Result<(), Refused> {
        // SAFETY: the error can be written.
        asked(|err| unsafe { ws_engine_free(self.0, err) })
    }

    /// Frees it after looking it through; nothing else may be using it.
    pub(crate) fn finish(self) {
        // SAFETY: the error can be written.
        asked(|err| unsafe { ws_engine_check(self.0, err) }).expect("the engine is consistent");
        self.free().expect("the engine was alive");
    }

    pub(crate) fn define_as(
        self,
        name: &str,
        cut_off: WsCutOff,
        body: impl Fn(Context, &[u8]) -> Result<Vec<u8>, i32> + Send + Sync + 'static,
    ) -> Result<Callee, Refused> {
        let name = CString::new(name).expect("no NUL in a test's name");
        let body: Body = Box::new(body);
        let user = Box::into_raw(Box::new(body)).cast();
        let mut out = ptr::null_mut();
        asked(|err| {
            // SAFETY: `call` and `forget` take the user pointer as it was made; the rest can be read and written.
            unsafe { ws_function_new(self.0, name.as_ptr(), cut_off as i32, Some(call), user, Some(forget), &raw mut out, err) }
        })?;
        Ok(Callee(out))
    }

    pub(crate) fn define(self, name: &str, body: impl Fn(Context, &[u8]) -> Result<Vec<u8>, i32> + Send + Sync + 'static) -> Callee {
        self.define_as(name, WsCutOff::Eq, body).expect("the name is free")
    }

    pub(crate) fn source(self, name: &str, initial: &[u8]) -> Callee {
        let name = CString::new(name).expect("no NUL in a test's name");
        let mut out = ptr::null_mut();
        asked(|err| {
            // SAFETY: everything can be read and written.
            unsafe { ws_source_new(self.0, name.as_ptr(), initial.as_ptr().cast(), initial.len(), &raw mut out, err) }
        })
        .expect("the name is free");
        Callee(out)
    }
}

impl Callee {
    pub(crate) fn get(self, key: &[u8]) -> Result<Vec<u8>, Refused> {
        // SAFETY: the key can be read, the rest written.
        bought(|out, err| unsafe { ws_get(self.0, key.as_ptr().cast(), key.len(), out, err) })
    }

    pub(crate) fn set(self, key: &[u8], value: &[u8]) -> Result<u64, Refused> {
        let mut commit = 0;
        asked(|err| {
            let (key, key_len) = (key.as_ptr().cast(), key.len());
            // SAFETY: key and value can be read, the rest written.
            unsafe { ws_source_set(self.0, key, key_len, value.as_ptr().cast(), value.len(), &raw mut commit, err) }
        })?;
        Ok(commit)
    }
}

impl Context {
    pub(crate) fn get(self, function: Callee, key: &[u8]) -> Result<Vec<u8>, Refused> {
        // SAFETY: the key can be read, the rest written.
        bought(|out, err| unsafe { ws_context_get(self.0, function.0, key.as_ptr().cast(), key.len(), out, err) })
    }

    pub(crate) fn get_untracked(self, function: Callee, key: &[u8]) -> Result<Vec<u8>, Refused> {
        let (key, key_len) = (key.as_ptr().cast(), key.len());
        // SAFETY: the key can be read, the rest written.
        bought(|out, err| unsafe { ws_context_get_untracked(self.0, function.0, key, key_len, out, err) })
    }
}
