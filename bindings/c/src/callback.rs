//! Callbacks: what C computes with, and the user pointer that goes with it.

use std::ffi::c_void;
use std::sync::Arc;

use wellspring::Cx;

use crate::context::{self, WsContext};
use crate::error::Failure;
use crate::outcome::{Outcome, Refusal};

/// Computes the value of a key. Reads other functions through the context, hands its value over with
/// ws_context_set_value and returns 0; or returns a code of its own, which every reader gets as callback_code until the
/// result is stale. It runs on the thread of the reader that needed it first; for one key never twice at a time, for
/// different keys on several threads at once. It must return: no longjmp out of it, and no C++ exception.
pub type WsCompute = Option<unsafe extern "C" fn(context: *mut WsContext, user: *mut c_void, key: *const c_void, key_len: usize) -> i32>;

type Compute = unsafe extern "C" fn(*mut WsContext, *mut c_void, *const c_void, usize) -> i32;

/// Destroys the user pointer of a function. Runs once, on whichever thread let the function go.
pub type WsDestroy = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// The user pointer, given up to the destructor exactly once, whatever becomes of the registration.
pub(crate) struct User {
    pub(crate) pointer: *mut c_void,
    pub(crate) destroy: WsDestroy,
}

/// A callback with its user pointer.
pub(crate) struct Callback {
    compute: Compute,
    user: User,
}

// SAFETY: the pointer is only handed to the callback and the destructor, and the header demands of both that they may be
// called on any thread, the callback on several at once.
unsafe impl Send for User {}
// SAFETY: as above; this crate never looks at what it points to.
unsafe impl Sync for User {}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy {
            // SAFETY: the contract of registration: the destructor takes this pointer, once, on any thread.
            unsafe { destroy(self.pointer) };
        }
    }
}

impl Callback {
    pub(crate) fn new(compute: WsCompute, user: User) -> Result<Callback, Failure> {
        let compute = compute.ok_or_else(|| Failure::null("compute"))?;
        Ok(Callback { compute, user })
    }

    pub(crate) fn run(&self, cx: &Cx, key: &[u8]) -> Outcome {
        let answer = context::enter(cx, |context| {
            // SAFETY: the contract of registration: the callback takes a live context, this user pointer, and a key that
            // stays as it is until it returns.
            unsafe { (self.compute)(context, self.user.pointer, key.as_ptr().cast(), key.len()) }
        });
        match (answer.code, answer.value) {
            (0, Some(value)) => Outcome::Value(value),
            (0, None) => Outcome::NoValue,
            (code, _) => Outcome::Failed(Arc::new(Refusal { code, message: answer.message })),
        }
    }
}
