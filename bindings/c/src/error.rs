//! Codes, error out-parameters, and the guard around every entry.

use std::any::Any;
use std::borrow::Cow;
use std::ffi::{CString, c_char};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use wellspring::{Fault, RegisterError};

/// What an entry answers: zero when it worked.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsCode {
    /// It worked.
    Ok = 0,
    /// A pointer that must not be NULL is NULL; the message names it.
    NullArgument = 1,
    /// A handle that was freed, never was one, or is of another kind; the message says which.
    BadHandle = 2,
    /// A name that is not UTF-8, a cut-off rule or a length that does not exist.
    BadArgument = 3,
    /// A function of that name is registered already.
    Duplicate = 4,
    /// The engine holds as many functions as it can.
    TooManyFunctions = 5,
    /// The callback answered something other than zero: see callback_code. The answer is cached like a value.
    CallbackFailed = 6,
    /// The callback answered zero without ws_context_set_value.
    NoValue = 7,
    /// The source has no value for this key, and was registered without an initial one.
    NotSet = 8,
    /// Nothing consistent is cached for this key.
    NotCached = 9,
    /// The memory handed in is smaller than the value.
    BufferTooSmall = 10,
    /// A function where only a source will do.
    NotASource = 11,
    /// Something panicked below the entry; the engine stays usable.
    Panicked = 12,
    /// The function waits for itself; the message names the circle.
    Cycle = 13,
    /// The engine holds as many keys as it can.
    Full = 14,
    /// The key is larger than the engine takes.
    KeyTooLarge = 15,
    /// The engine is gone.
    Gone = 16,
    /// A context used after its callback returned, or on another thread than its callback's.
    Escaped = 17,
    /// Waiting here could never end.
    WouldBlock = 18,
    /// Handles of two engines in one call.
    ForeignEngine = 19,
    /// A fault that this header has no code for; the message says what.
    Other = 20,
}

/// What went wrong. Filled by the entry it is handed to; ws_error_free releases the message.
#[repr(C)]
#[derive(Debug)]
pub struct WsError {
    /// The code that the entry also returned.
    pub code: WsCode,
    /// What the callback returned, when the code is WS_CODE_CALLBACK_FAILED; else 0.
    pub callback_code: i32,
    /// A sentence in UTF-8 for a person, or NULL when the code is WS_CODE_OK.
    pub message: *mut c_char,
}

/// Releases an error's message and sets the error to WS_CODE_OK. NULL, an error of an entry that worked, and an error
/// that was freed already are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_error_free(error: *mut WsError) {
    let Some(error) = NonNull::new(error) else {
        return;
    };
    // SAFETY: the contract: not NULL means an error that an entry has filled, so its message is NULL or a string that
    // `report` let go of, and nobody else is using it.
    unsafe {
        let message = (&raw mut (*error.as_ptr()).message).replace(ptr::null_mut());
        if !message.is_null() {
            drop(CString::from_raw(message));
        }
        report(error.as_ptr(), WsCode::Ok, 0, ptr::null_mut());
    }
}

/// Why an entry did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: WsCode,
    pub(crate) callback_code: i32,
    pub(crate) message: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(code: WsCode, message: impl Into<Cow<'static, str>>) -> Failure {
        Failure { code, callback_code: 0, message: message.into() }
    }

    pub(crate) fn null(what: &str) -> Failure {
        Failure::new(WsCode::NullArgument, format!("`{what}` is NULL"))
    }

    fn panicked(payload: &(dyn Any + Send)) -> Failure {
        let what = payload
            .downcast_ref::<&'static str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("without a message");
        Failure::new(WsCode::Panicked, format!("panicked: {what}"))
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        let code = match &fault {
            Fault::Panicked { .. } => WsCode::Panicked,
            Fault::Cycle { .. } => WsCode::Cycle,
            Fault::Full => WsCode::Full,
            Fault::KeyTooLarge { .. } => WsCode::KeyTooLarge,
            Fault::Gone => WsCode::Gone,
            Fault::Escaped => WsCode::Escaped,
            Fault::WouldBlock => WsCode::WouldBlock,
            Fault::ForeignEngine => WsCode::ForeignEngine,
            _ => WsCode::Other,
        };
        Failure::new(code, fault.to_string())
    }
}

impl From<RegisterError> for Failure {
    fn from(error: RegisterError) -> Failure {
        let code = match &error {
            RegisterError::Duplicate { .. } => WsCode::Duplicate,
            RegisterError::TooManyFunctions => WsCode::TooManyFunctions,
            _ => WsCode::Other,
        };
        Failure::new(code, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs an entry's body: no panic leaves it, and `err` tells how it ended.
///
/// # Safety
/// `err` is NULL or valid for writing.
pub(crate) unsafe fn entry(err: *mut WsError, body: impl FnOnce() -> Result<(), Failure>) -> WsCode {
    // What the body touches is the engine, which answers for its own consistency after a panic, and this crate's
    // registry, whose locks ignore poison because nothing is half done under them.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::panicked(&*payload)));
    let (code, callback_code, message) = match outcome {
        Ok(()) => (WsCode::Ok, 0, ptr::null_mut()),
        // The text is only worth an allocation when somebody reads it: a miss of ws_peek is an everyday answer.
        Err(failure) if err.is_null() => (failure.code, failure.callback_code, ptr::null_mut()),
        Err(failure) => (failure.code, failure.callback_code, text(&failure.message)),
    };
    // SAFETY: handed on from the caller.
    unsafe { report(err, code, callback_code, message) };
    code
}

/// # Safety
/// `err` is NULL or valid for writing.
unsafe fn report(err: *mut WsError, code: WsCode, callback_code: i32, message: *mut c_char) {
    if let Some(err) = NonNull::new(err) {
        // SAFETY: not NULL, so valid for writing; written whole, because it may be uninitialized memory.
        unsafe {
            err.write(WsError { code, callback_code, message });
        }
    }
}

fn text(message: &str) -> *mut c_char {
    // A NUL would cut the sentence short; names and messages that users chose may hold one.
    let visible: Vec<u8> = message.bytes().map(|byte| if byte == 0 { b' ' } else { byte }).collect();
    CString::new(visible).unwrap_or_default().into_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn answer_of(body: impl FnOnce() -> Result<(), Failure>) -> (WsCode, String) {
        let mut err = WsError { code: WsCode::Other, callback_code: 0, message: ptr::null_mut() };
        // SAFETY: the error can be written, and a failed entry leaves a string in it.
        unsafe {
            let code = entry(&raw mut err, body);
            assert_eq!(err.code, code);
            let message = CStr::from_ptr(err.message).to_str().expect("UTF-8").to_owned();
            ws_error_free(&raw mut err);
            ws_error_free(&raw mut err);
            (code, message)
        }
    }

    #[test]
    fn a_panic_becomes_a_code_with_its_words() {
        let (code, message) = answer_of(|| panic!("number {}", 7));
        assert_eq!((code, message.as_str()), (WsCode::Panicked, "panicked: number 7"));
        let (code, message) = answer_of(|| std::panic::panic_any(7));
        assert_eq!((code, message.as_str()), (WsCode::Panicked, "panicked: without a message"));
        // SAFETY: NULL is allowed.
        let code = unsafe { entry(ptr::null_mut(), || panic!("nobody hears this")) };
        assert_eq!(code, WsCode::Panicked);
    }

    #[test]
    fn a_nul_inside_a_message_does_not_cut_it_short() {
        let (_, message) = answer_of(|| Err(Failure::new(WsCode::Other, "one\0two")));
        assert_eq!(message, "one two");
    }
}
