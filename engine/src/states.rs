//! The hidden functions behind states: one for each kind and type of value.
//!
//! A function of its own for every state would cost 2 GiB of addresses each, so states of one type are keys of one function.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;

use crate::fault::RegisterError;
use crate::sync::{Arc, Mutex, lock};

/// What states of one kind and type share, by its own type. Held by the engine's handles, as bodies are.
#[derive(Default)]
pub(crate) struct States(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl States {
    /// The one of this type, made if there is none. Making it registers a function and runs no user code, so the lock is kept.
    pub(crate) fn shared<S: Any + Send + Sync>(&self, make: impl FnOnce() -> Result<S, RegisterError>) -> Result<Arc<S>, RegisterError> {
        let mut known = lock(&self.0);
        if let Some(shared) = known.get(&TypeId::of::<S>()).and_then(|shared| shared.clone().downcast::<S>().ok()) {
            return Ok(shared);
        }
        let shared = Arc::new(make()?);
        known.insert(TypeId::of::<S>(), shared.clone());
        Ok(shared)
    }
}

/// Registers under a name that says the type, told apart from others that are taken: two types may share theirs.
pub(crate) fn register_hidden<T, F>(kind: &str, mut register: impl FnMut(String) -> Result<F, RegisterError>) -> Result<F, RegisterError> {
    let name = format!("{kind}<{}>", type_name::<T>());
    let mut registered = register(name.clone());
    for number in 2.. {
        if !matches!(registered, Err(RegisterError::Duplicate { .. })) {
            break;
        }
        registered = register(format!("{name}#{number}"));
    }
    registered
}
