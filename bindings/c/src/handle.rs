//! Handles: numbers that C holds as pointers to types it cannot see into.
//!
//! A handle is never followed, only looked up here, so a stale, invented or mixed-up one is found out. The registry is
//! read by every entry and written only when a handle comes or goes, hence a lock that readers share by shard.

use std::ptr;
use std::sync::{Arc, LazyLock, PoisonError};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use slotmap::{DefaultKey, Key, KeyData, SlotMap};
use wellspring::Engine;

use crate::batch::{Pending, WsBatch};
use crate::engine::WsEngine;
use crate::error::{Failure, WsCode};
use crate::function::{Registered, WsFunction};

/// The bit that tells a context's number from a registered handle's.
pub(crate) const CONTEXT: u64 = 1 << 63;

type Objects = SlotMap<DefaultKey, Object>;

static OBJECTS: LazyLock<ShardedLock<Objects>> = LazyLock::new(ShardedLock::default);

/// A handle's number. Slots are generational, so the number of a freed handle is not given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u64);

/// What a handle stands for.
#[derive(Debug)]
pub(crate) enum Object {
    Engine(Engine),
    Function(Arc<Registered>),
    Batch(Arc<Pending>),
}

impl Token {
    pub(crate) fn of<T>(handle: *const T) -> Token {
        Token(handle.addr() as u64)
    }

    pub(crate) fn pointer<T>(self) -> *mut T {
        // On a machine with narrow pointers the generation is cut off and lookups fail cleanly.
        ptr::without_provenance_mut(usize::try_from(self.0).unwrap_or(usize::MAX))
    }

    fn key(self) -> DefaultKey {
        KeyData::from_ffi(self.0).into()
    }
}

impl Object {
    fn noun(&self) -> &'static str {
        match self {
            Object::Engine(_) => "an engine",
            Object::Function(_) => "a function",
            Object::Batch(_) => "a batch",
        }
    }

    fn owner(&self) -> Option<Token> {
        match self {
            Object::Engine(_) => None,
            Object::Function(function) => Some(function.owner),
            Object::Batch(batch) => Some(batch.owner),
        }
    }
}

fn read() -> ShardedLockReadGuard<'static, Objects> {
    OBJECTS.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> ShardedLockWriteGuard<'static, Objects> {
    OBJECTS.write().unwrap_or_else(PoisonError::into_inner)
}

/// What is wrong with a number that should have been `wanted`.
fn refused(token: Token, found: Option<&Object>, wanted: &str) -> Failure {
    if token.0 == 0 {
        return Failure::new(WsCode::NullArgument, format!("NULL where {wanted} is needed"));
    }
    let is = match found {
        Some(object) => object.noun(),
        None if token.0 & CONTEXT != 0 => "a context",
        None => {
            return Failure::new(WsCode::BadHandle, format!("not {wanted}: the handle was freed, or never was one"));
        }
    };
    Failure::new(WsCode::BadHandle, format!("not {wanted}: the handle is {is}"))
}

pub(crate) fn register_engine(engine: Engine) -> Token {
    Token(write().insert(Object::Engine(engine)).data().as_ffi())
}

/// Registers what belongs to an engine; refused when the engine was freed meanwhile, which would never free this.
pub(crate) fn register_owned(object: Object) -> Result<Token, Failure> {
    let mut objects = write();
    let owner = object.owner().and_then(|owner| objects.get(owner.key()));
    if !matches!(owner, Some(Object::Engine(_))) {
        drop(objects);
        return Err(Failure::new(WsCode::BadHandle, "the engine was freed during the call"));
    }
    Ok(Token(objects.insert(object).data().as_ffi()))
}

pub(crate) fn engine(handle: *const WsEngine) -> Result<Engine, Failure> {
    let token = Token::of(handle);
    match read().get(token.key()) {
        Some(Object::Engine(engine)) => Ok(engine.clone()),
        found => Err(refused(token, found, "an engine")),
    }
}

pub(crate) fn function(handle: *const WsFunction) -> Result<Arc<Registered>, Failure> {
    with_function(handle, |function| Ok(Arc::clone(function)))
}

/// Lends the function without counting a reference. `body` runs under the registry's lock: it must be short and must
/// run no user code.
pub(crate) fn with_function<R>(handle: *const WsFunction, body: impl FnOnce(&Arc<Registered>) -> Result<R, Failure>) -> Result<R, Failure> {
    let token = Token::of(handle);
    match read().get(token.key()) {
        Some(Object::Function(function)) => body(function),
        found => Err(refused(token, found, "a function")),
    }
}

pub(crate) fn batch(handle: *const WsBatch) -> Result<Arc<Pending>, Failure> {
    let token = Token::of(handle);
    match read().get(token.key()) {
        Some(Object::Batch(batch)) => Ok(Arc::clone(batch)),
        found => Err(refused(token, found, "a batch")),
    }
}

/// Ends a batch's handle.
pub(crate) fn take_batch(handle: *const WsBatch) -> Result<Arc<Pending>, Failure> {
    let token = Token::of(handle);
    let mut objects = write();
    match objects.get(token.key()) {
        Some(Object::Batch(batch)) => {
            let batch = Arc::clone(batch);
            objects.remove(token.key());
            Ok(batch)
        }
        found => Err(refused(token, found, "a batch")),
    }
}

/// Ends an engine's handle and those of its functions and batches. What they stood for is dropped after the lock is
/// let go, because the user-data destructors that this may run are free to call any entry.
pub(crate) fn free_engine(handle: *const WsEngine) -> Result<(), Failure> {
    let token = Token::of(handle);
    let mut objects = write();
    let found = objects.get(token.key());
    if !matches!(found, Some(Object::Engine(_))) {
        return Err(refused(token, found, "an engine"));
    }
    let keys: Vec<DefaultKey> =
        objects.iter().filter(|(key, object)| *key == token.key() || object.owner() == Some(token)).map(|(key, _)| key).collect();
    let freed: Vec<Object> = keys.into_iter().filter_map(|key| objects.remove(key)).collect();
    drop(objects);
    drop(freed);
    Ok(())
}
