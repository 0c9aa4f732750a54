//! Batches: many changes, one commit, one sweep.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wellspring::{Function, Source};

use crate::buffer::{bytes, required};
use crate::engine::{WsEngine, write_commit};
use crate::error::{Failure, WsCode, WsError, entry};
use crate::function::{Registered, WsFunction};
use crate::handle::{self, Object, Token};
use crate::outcome::Outcome;

/// Changes that are collected first and then made at once. It ends with ws_batch_commit or ws_batch_cancel.
#[derive(Debug)]
pub struct WsBatch;

/// What is collected so far.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) owner: Token,
    /// `None` once the batch has ended: a thread that looked the handle up just before must not add to nowhere.
    changes: Mutex<Option<Vec<Change>>>,
}

#[derive(Debug)]
enum Change {
    Set(Source<Vec<u8>, Outcome>, Vec<u8>, Outcome),
    Invalidate(Function<Vec<u8>, Outcome>, Vec<u8>),
    InvalidateAll(Function<Vec<u8>, Outcome>),
}

impl Pending {
    fn changes(&self) -> MutexGuard<'_, Option<Vec<Change>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> Result<Vec<Change>, Failure> {
        self.changes().take().ok_or_else(ended)
    }
}

fn ended() -> Failure {
    Failure::new(WsCode::BadHandle, "not a batch: it has ended")
}

fn add(
    batch: *const WsBatch,
    function: *const WsFunction,
    change: impl FnOnce(&Registered) -> Result<Change, Failure>,
) -> Result<(), Failure> {
    let batch = handle::batch(batch)?;
    let function = handle::function(function)?;
    if function.owner != batch.owner {
        return Err(Failure::new(WsCode::ForeignEngine, format!("the batch and `{}` belong to two engines", function.function().name())));
    }
    let change = change(&function)?;
    batch.changes().as_mut().ok_or_else(ended)?.push(change);
    Ok(())
}

/// Begins a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_batch_begin(engine: *mut WsEngine, out: *mut *mut WsBatch, err: *mut WsError) -> WsCode {
    let body = || {
        handle::engine(engine)?;
        let out = required(out, "out")?;
        let token =
            handle::register_owned(Object::Batch(Arc::new(Pending { owner: Token::of(engine), changes: Mutex::new(Some(Vec::new())) })))?;
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        unsafe { out.write(token.pointer()) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Adds a source's new value (copied) to a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_batch_set(
    batch: *mut WsBatch,
    source: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        add(batch, source, |function| {
            let source = function.source()?.clone();
            // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
            let (key, value) = unsafe { (bytes(key, key_len, "key")?, bytes(value, value_len, "value")?) };
            Ok(Change::Set(source, key.to_vec(), Outcome::value(value)))
        })
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Adds the invalidation of a key to a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_batch_invalidate(
    batch: *mut WsBatch,
    function: *mut WsFunction,
    key: *const c_void,
    key_len: usize,
    err: *mut WsError,
) -> WsCode {
    let body = || {
        add(batch, function, |registered| {
            // SAFETY: the contract: bytes that are not NULL are there and stay as they are.
            let key = unsafe { bytes(key, key_len, "key") }?;
            Ok(Change::Invalidate(registered.function().clone(), key.to_vec()))
        })
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Adds the invalidation of every key of a function to a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_batch_invalidate_all(batch: *mut WsBatch, function: *mut WsFunction, err: *mut WsError) -> WsCode {
    let body = || add(batch, function, |registered| Ok(Change::InvalidateAll(registered.function().clone())));
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Makes a batch's changes, in the order they were added, as one commit with one sweep; returns once no later read can
/// see an older value. The batch ends, also when this fails. `commit` may be NULL; else it gets the commit's number. A
/// value that the engine refuses (WS_CODE_FULL, WS_CODE_KEY_TOO_LARGE) is left out and the first refusal is the answer;
/// the other changes are made, and `commit` is their number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_batch_commit(batch: *mut WsBatch, commit: *mut u64, err: *mut WsError) -> WsCode {
    let body = || {
        let batch = handle::take_batch(batch)?;
        let engine = handle::engine(batch.owner.pointer())?;
        let changes = batch.end()?;
        let mut refused = None;
        let id = engine.batch(|open| {
            for change in changes {
                match change {
                    Change::Set(source, key, value) => {
                        if let Err(fault) = open.try_set(&source, key.as_slice(), value) {
                            refused.get_or_insert(fault);
                        }
                    }
                    Change::Invalidate(function, key) => open.invalidate(&function, key.as_slice()),
                    Change::InvalidateAll(function) => open.invalidate_all(&function),
                }
            }
        });
        // SAFETY: the contract: `commit` is NULL or can be written.
        unsafe { write_commit(commit, id) };
        refused.map_or(Ok(()), |fault| Err(fault.into()))
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Ends a batch and changes nothing. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_batch_cancel(batch: *mut WsBatch, err: *mut WsError) -> WsCode {
    let body = || match batch.is_null() {
        true => Ok(()),
        false => handle::take_batch(batch)?.end().map(drop),
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}
