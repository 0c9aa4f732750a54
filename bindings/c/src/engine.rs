//! Engines: made, freed, asked for figures.

use std::ffi::c_char;

use wellspring::{CommitId, Engine};

use crate::buffer::required;
use crate::error::{Failure, WsCode, WsError, entry};
use crate::handle;

/// An engine: functions, their cached values, and what was made from what.
#[derive(Debug)]
pub struct WsEngine;

/// Counts since the engine was made, or of this moment. They are gathered while other threads go on, so they need not
/// add up exactly.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WsStats {
    /// Keys that are held, with or without a value.
    pub nodes: u64,
    /// Dependencies that count.
    pub edges_live: u64,
    /// Dependencies of replaced values, not swept up yet.
    pub edges_stale: u64,
    /// Reads answered from the cache.
    pub hits: u64,
    /// Reads that had to do something.
    pub misses: u64,
    /// Callbacks run to their end.
    pub computes: u64,
    /// Values found to be good still, without running a callback.
    pub verified: u64,
    /// Values computed again and found equal, so that nothing further down ran.
    pub cut_offs: u64,
    /// Invalidation passes.
    pub sweeps: u64,
    /// Values marked by them.
    pub marked: u64,
    /// Commits: the number of the last one is ws_engine_commit's.
    pub commits: u64,
    /// Replaced values that wait to be freed.
    pub retired: u64,
    /// The longest time a reader held values back from being freed, in nanoseconds.
    pub longest_pin_ns: u64,
    /// Bytes held for keys, values' slots and dependencies.
    pub bytes: u64,
}

/// The version of this library, such as "0.1.0". Static: not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn ws_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Makes an engine. Free it with ws_engine_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_engine_new(out: *mut *mut WsEngine, err: *mut WsError) -> WsCode {
    let body = || {
        let out = required(out, "out")?;
        let token = handle::register_engine(Engine::new());
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        unsafe { out.write(token.pointer()) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Frees an engine and, with it, every handle of its functions and its batches. Calls that are under way on other
/// threads finish first; the engine goes, and user-data destructors run, when the last of them has. Buffers stay valid.
/// NULL is fine; a handle that was freed already is WS_CODE_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_engine_free(engine: *mut WsEngine, err: *mut WsError) -> WsCode {
    let body = || match engine.is_null() {
        true => Ok(()),
        false => handle::free_engine(engine),
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Makes every cached value of every function stale; returns once no later read can see an old one. `commit` may be
/// NULL; else it gets the commit's number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_invalidate_everything(engine: *mut WsEngine, commit: *mut u64, err: *mut WsError) -> WsCode {
    let body = || {
        let id = handle::engine(engine)?.invalidate_everything();
        // SAFETY: the contract: `commit` is NULL or can be written.
        unsafe { write_commit(commit, id) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// The number of the last finished commit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_engine_commit(engine: *mut WsEngine, out: *mut u64, err: *mut WsError) -> WsCode {
    let body = || {
        let engine = handle::engine(engine)?;
        let out = required(out, "out")?;
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        unsafe { out.write(engine.commit().get()) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// The engine's figures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_engine_stats(engine: *mut WsEngine, out: *mut WsStats, err: *mut WsError) -> WsCode {
    let body = || {
        let engine = handle::engine(engine)?;
        let out = required(out, "out")?;
        let stats = engine.stats();
        let figures = WsStats {
            nodes: stats.nodes as u64,
            edges_live: stats.edges_live as u64,
            edges_stale: stats.edges_stale as u64,
            hits: stats.hits,
            misses: stats.misses,
            computes: stats.computes,
            verified: stats.verified,
            cut_offs: stats.cut_offs,
            sweeps: stats.sweeps,
            marked: stats.marked,
            commits: stats.commits,
            retired: stats.retired as u64,
            longest_pin_ns: u64::try_from(stats.longest_pin.as_nanos()).unwrap_or(u64::MAX),
            bytes: stats.bytes as u64,
        };
        // SAFETY: the contract: out-parameters that are not NULL can be written.
        unsafe { out.write(figures) };
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Frees the replaced values that no reader can hold any more. `dropped` may be NULL; else it gets how many went.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_collect(engine: *mut WsEngine, dropped: *mut usize, err: *mut WsError) -> WsCode {
    let body = || {
        let count = handle::engine(engine)?.collect();
        if !dropped.is_null() {
            // SAFETY: not NULL, so by the contract it can be written.
            unsafe { dropped.write(count) };
        }
        Ok(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// Goes through the whole engine and answers WS_CODE_PANICKED, with what is wrong, when its parts contradict each
/// other. For tests; call it while no other thread uses the engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_engine_check(engine: *mut WsEngine, err: *mut WsError) -> WsCode {
    let body = || {
        handle::engine(engine)?.assert_consistent();
        Ok::<(), Failure>(())
    };
    // SAFETY: the contract: `err` is NULL or can be written.
    unsafe { entry(err, body) }
}

/// # Safety
/// `out` is NULL or valid for writing.
pub(crate) unsafe fn write_commit(out: *mut u64, id: CommitId) {
    if !out.is_null() {
        // SAFETY: not NULL, so it can be written.
        unsafe { out.write(id.get()) };
    }
}
