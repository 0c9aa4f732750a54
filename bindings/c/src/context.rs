//! Contexts: what a running callback reads other functions through.
//!
//! The live contexts of a thread are a stack beside its call stack, and a context's handle is a number looked up there.
//! So one that was kept too long, or carried to another thread, is found out and never followed.

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wellspring::{Cx, Fault};

use crate::buffer::{BufferOut, WsBuffer, bytes, string};
use crate::error::{Failure, WsCode, WsError, entry};
use crate::function::WsFunction;
use crate::handle::{self, CONTEXT};
use crate::outcome::Outcome;

/// What a callback reads other functions through, so that its result is known to be made from them. It is good until the
/// callback returns and only on the thread that the callback runs on; used later or elsewhere it is WS_CODE_ESCAPED.
#[derive(Debug)]
pub struct WsContext;

/// Numbers are handed to threads in blocks, so that callbacks on two threads share no line.
const BLOCK: u64 = 1024;

static NEXT_BLOCK: AtomicU64 = AtomicU64::new(CONTEXT);

thread_local! {
    static LIVE: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// One running callback.
struct Frame {
    number: u64,
    cx: NonNull<Cx>,
    value: Option<Arc<[u8]>>,
    message: Option<String>,
}

/// How a callback ended.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) value: Option<Arc<[u8]>>,
    pub(crate) message: Option<String>,
}

/// Ends the innermost context, also when unwinding.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        LIVE.with_borrow_mut(Vec::pop);
    }
}

/// Runs a callback with a context that is good for as long as it runs.
pub(crate) fn enter(cx: &Cx, callback: impl FnOnce(*mut WsContext) -> i32) -> Answer {
    let number = fresh();
    LIVE.with_borrow_mut(|live| {
        live.push(Frame { number, cx: NonNull::from(cx), value: None, message: None });
    });
    let leave = Leave;
    let code = callback(ptr::without_provenance_mut(number as usize));
    // Callbacks nest, so the last frame is this one's again.
    let (value, message) = LIVE.with_borrow_mut(|live| match live.last_mut() {
        Some(frame) => (frame.value.take(), frame.message.take()),
        None => (None, None),
    });
    drop(leave);
    Answer { code, value, message }
}

fn fresh() -> u64 {
    NEXT.with(|next| {
        let mut number = next.get();
        if number.is_multiple_of(BLOCK) {
            number = NEXT_BLOCK.fetch_add(BLOCK, Ordering::Relaxed);
        }
        next.set(number + 1);
        // The first of a block is as good as any: the block after it starts where this one's count ends.
        number
    })
}

/// Lends the frame of a live context of this thread. `body` must call no entry.
fn with_frame<R>(context: *const WsContext, body: impl FnOnce(&mut Frame) -> R) -> Result<R, Failure> {
    let number = context.addr() as u64;
    if number == 0 {
        return Err(Failure::null("context"));
    }
    if number & CONTEXT == 0 {
        return Err(Failure::new(WsCode::BadHandle, "not a context"));
    }
    LIVE.with_borrow_mut(|live| {
        // Searched from the innermost: that is the one in nearly every call.
        let frame = live.iter_mut().rev().find(|frame| frame.number == number);
        frame.map(body).ok_or_else(|| Failure::new(WsCode::Escaped, "the context's callback has returned, or runs on another thread"))
    })
}

/// # Safety
/// As for the entries that call it: pointers are NULL or good.
unsafe fn read(
    context: *const WsContext,
    function: *const WsFunction,
    (key, key_len): (*const c_void, usize),
    out: *mut WsBuffer,
    err: *mut WsError,
    ask: impl FnOnce(&Cx, &wellspring::Function<Vec<u8>, Outcome>, &[u8]) -> Result<Outcome, Fault>,
) -> WsCode {
    let body = || {
        // SAFETY: handed on from the caller.
        let out = unsafe { BufferOut::new(out) }?;
        let cx = with_frame(context, |frame| frame.cx)?;
        let function = handle::function(function)?;
        let function = function.function();
        // SAFETY: handed on from the caller.
        let key = unsafe { bytes(key, key_len, "key") }?;
        // SAFETY: the frame was found on this thread's stack of live contexts, so the body that borrows this `Cx` is
        // further down this very call stack, and cannot return, and end the borrow, before this call does.
        let cx = unsafe { cx.as_ref() };
        let outcome = ask(cx, function, key)?;
        out.fill(outcome.into_value(function.name())?);
        Ok(())
    };
    // SAFETY: handed on from the caller.
    unsafe { entry(err, body) }
}

/// Reads a function inside a callback, and records that the callback's result was made from it. Free the buffer with
/// ws_buffer_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_context_get(
    context: *mut WsContext,
    function: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    out: *mut WsBuffer,
    err: *mut WsError,
) -> WsCode {
    // SAFETY: the contract is the same.
    unsafe { read(context, function, (key, key_len), out, err, |cx, function, key| function.get(cx, key)) }
}

/// The same without recording it: the callback's result stays good when this value changes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_context_get_untracked(
    context: *mut WsContext,
    function: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    out: *mut WsBuffer,
    err: *mut WsError,
) -> WsCode {
    // SAFETY: the contract is the same.
    unsafe { read(context, function, (key, key_len), out, err, |cx, function, key| cx.untracked(|cx| function.get(cx, key))) }
}

/// Hands over the callback's value (copied). The last one counts, when the callback then returns 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_context_set_value(
    context: *mut WsContext,
    value: *const c_void,
    value_len: usize,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
        let value = Arc::from(unsafe { bytes(value, value_len, "value") }?);
        with_frame(context, |frame| frame.value = Some(value))
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Says in words why the callback is about to return a code other than 0: readers get it in their error's message. It is
/// copied; what is not UTF-8 in it is replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_context_set_message(context: *mut WsContext, message: *const c_char, err: *mut WsError) -> WsCode {
    let body = || {
        // SAFETY: the contract: strings that are not NULL end with a NUL and stay as they are.
        let message = unsafe { string(message, "message") }?.to_string_lossy().into_owned();
        with_frame(context, |frame| frame.message = Some(message))
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}
