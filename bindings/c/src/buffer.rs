//! Byte strings across the border: what C hands in, and the buffers it gets back.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use crate::error::{Failure, WsCode};

/// A value's bytes, read-only. It shares the engine's own copy and keeps it alive until ws_buffer_free, also after the
/// value was replaced and after the engine was freed. An empty value has a length of 0 and a data pointer that is not NULL.
#[repr(C)]
#[derive(Debug)]
pub struct WsBuffer {
    /// The first byte.
    pub data: *const u8,
    /// How many bytes.
    pub len: usize,
}

impl WsBuffer {
    const NONE: WsBuffer = WsBuffer { data: ptr::null(), len: 0 };

    fn sharing(value: Arc<[u8]>) -> WsBuffer {
        let len = value.len();
        WsBuffer { data: Arc::into_raw(value).cast(), len }
    }
}

/// Gives a buffer back and empties it. NULL, and a buffer that was freed already or never filled by an entry that
/// worked, are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_buffer_free(buffer: *mut WsBuffer) {
    let Some(buffer) = NonNull::new(buffer) else {
        return;
    };
    // SAFETY: the contract: not NULL means a buffer that an entry has filled; data that is not NULL came from
    // `Arc::into_raw` of a slice of `len` bytes, and emptying the buffer makes sure that it is taken back once.
    unsafe {
        let WsBuffer { data, len } = buffer.replace(WsBuffer::NONE);
        if !data.is_null() {
            drop(Arc::from_raw(ptr::slice_from_raw_parts(data, len)));
        }
    }
}

/// A buffer out-parameter, emptied at once so that a failed entry leaves nothing to free in it.
pub(crate) struct BufferOut(NonNull<WsBuffer>);

impl BufferOut {
    /// # Safety
    /// `out` is NULL or valid for writing until the entry returns.
    pub(crate) unsafe fn new(out: *mut WsBuffer) -> Result<BufferOut, Failure> {
        let out = required(out, "out")?;
        // SAFETY: not NULL, so valid for writing; what was there before is overwritten, not read.
        unsafe { out.write(WsBuffer::NONE) };
        Ok(BufferOut(out))
    }

    pub(crate) fn fill(self, value: Arc<[u8]>) {
        // SAFETY: `new` demanded that it can be written until the entry returns.
        unsafe { self.0.write(WsBuffer::sharing(value)) };
    }
}

pub(crate) fn required<T>(pointer: *mut T, name: &str) -> Result<NonNull<T>, Failure> {
    NonNull::new(pointer).ok_or_else(|| Failure::null(name))
}

/// The byte string at `data`; NULL with length 0 is the empty one.
///
/// # Safety
/// `data` is NULL or points at `len` bytes that nobody changes until the entry returns.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize, name: &str) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::new(WsCode::NullArgument, format!("`{name}` is NULL, but its length is {len}")));
    }
    if len > isize::MAX.unsigned_abs() {
        return Err(Failure::new(WsCode::BadArgument, format!("`{name}` cannot be {len} bytes long")));
    }
    // SAFETY: not NULL, so it points at `len` bytes that stay as they are, and `len` fits an `isize`.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// The name of a function to register.
///
/// # Safety
/// `name` is NULL or a string that ends with a NUL and that nobody changes until the entry returns.
pub(crate) unsafe fn name_of<'a>(name: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: handed on from the caller.
    let name = unsafe { string(name, "name") }?;
    name.to_str().map_err(|_| Failure::new(WsCode::BadArgument, "`name` is not UTF-8"))
}

/// # Safety
/// `text` is NULL or a string that ends with a NUL and that nobody changes until the entry returns.
pub(crate) unsafe fn string<'a>(text: *const c_char, name: &str) -> Result<&'a CStr, Failure> {
    if text.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: not NULL, so a string with a NUL at its end that stays as it is.
    Ok(unsafe { CStr::from_ptr(text) })
}
