//! Services: methods by name, and what runs them.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use wellspring::{Computed, Value};

use crate::arguments::FromArguments;
use crate::call::Call;
use crate::calling::Calling;
use crate::failure::Failure;
use crate::method_limits::{Limited, MethodLimits};
use crate::slots::Slots;
use crate::wire::{Arguments, MethodId, MethodRef, NameTooLong, ReadError, System};

/// What is done for a call of a method.
trait Run: Send + Sync + 'static {
    /// Reads the arguments, and puts what will answer the call where there is room.
    fn start(&self, calling: &Calling<'_>, arguments: Arguments<'_>, call: Call, slots: &mut Slots) -> Result<(), (ReadError, Call)>;
}

/// What kind of calls a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    NoWait,
    Compute,
}

/// A method that can be called.
#[derive(Clone)]
pub(crate) struct Method {
    pub(crate) id: MethodId,
    pub(crate) kind: Kind,
    /// Ends are told of values that have changed only.
    pub(crate) verified: bool,
    /// For connections of backends alone.
    backend: bool,
    pub(crate) limits: Option<Arc<Limited>>,
    run: Arc<dyn Run>,
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Method {
    pub(crate) fn start(
        &self,
        calling: &Calling<'_>,
        arguments: Arguments<'_>,
        call: Call,
        slots: &mut Slots,
    ) -> Result<(), (ReadError, Call)> {
        self.run.start(calling, arguments, call, slots)
    }
}

/// The methods of one name, as they are added to a [`Hub`](crate::Hub).
///
/// A method's name is `Name:N`, where N counts its parameters as the other end's language declares them: in .NET and TypeScript, with the
/// cancellation token, which is never sent.
#[derive(Debug)]
pub struct Service {
    name: String,
    methods: Vec<Added>,
}

#[derive(Debug)]
struct Added {
    name: String,
    kind: Kind,
    run: RunBox,
    verified: bool,
    limits: Option<MethodLimits>,
}

struct RunBox(Arc<dyn Run>);

impl fmt::Debug for RunBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl Service {
    /// One without methods.
    pub fn new(name: impl Into<String>) -> Service {
        Service { name: name.into(), methods: Vec::new() }
    }

    fn add<A, F, U>(mut self, name: impl Into<String>, kind: Kind, run: F) -> Service
    where
        A: FromArguments,
        F: Fn(A, Call) -> U + Send + Sync + 'static,
        U: Future<Output = ()> + Send + 'static,
    {
        self.methods.push(Added {
            name: name.into(),
            kind,
            run: RunBox(Arc::new(Reading(run, PhantomData))),
            verified: false,
            limits: None,
        });
        self
    }

    /// Those who wait for the ends of values of the compute method that was added last hear of them only once the server has brought each up to date
    /// and it is another, by its function's rule. Without this they hear of it when a value may be stale, and ask.
    ///
    /// It saves them asking where values are often found to be equal, and costs the server a computation for each value that anybody waits for.
    #[must_use]
    pub fn verified(mut self) -> Service {
        if let Some(last) = self.methods.last_mut() {
            last.verified = true;
        }
        self
    }

    /// What calls of the method that was added last may take, in place of what the [hub](crate::HubBuilder::limits) says for all. Without a method it
    /// says nothing.
    #[must_use]
    pub fn limits(mut self, limits: MethodLimits) -> Service {
        if let Some(last) = self.methods.last_mut() {
            last.limits = Some(limits);
        }
        self
    }

    /// A method that is called and answers once.
    #[must_use]
    pub fn method<A, T, E, F, U>(self, name: impl Into<String>, run: F) -> Service
    where
        A: FromArguments,
        T: Serialize + Send + 'static,
        E: Into<Failure> + Send + 'static,
        F: Fn(A) -> U + Send + Sync + 'static,
        U: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.add(name, Kind::Regular, move |arguments, call: Call| {
            let answer = run(arguments);
            async move {
                match answer.await {
                    Ok(value) => call.answer(|out| out.value(&value)),
                    Err(error) => call.fail(&error.into()),
                }
            }
        })
    }

    /// A method that is not answered.
    #[must_use]
    pub fn no_wait<A, F, U>(self, name: impl Into<String>, run: F) -> Service
    where
        A: FromArguments,
        F: Fn(A) -> U + Send + Sync + 'static,
        U: Future<Output = ()> + Send + 'static,
    {
        self.add(name, Kind::NoWait, move |arguments, _: Call| run(arguments))
    }

    /// A method whose value is pushed: the caller is told once it is stale. What it answers with is the generation of a function's value. A call
    /// that has none is refused with a [`Fault`](wellspring::Fault) or any other [`Failure`], which ends after a second.
    #[must_use]
    pub fn compute<A, V, X, F, U>(self, name: impl Into<String>, run: F) -> Service
    where
        A: FromArguments,
        V: Value + Serialize,
        X: Into<Failure>,
        F: Fn(A) -> U + Send + Sync + 'static,
        U: Future<Output = Result<Computed<V>, X>> + Send + 'static,
    {
        self.add(name, Kind::Compute, move |arguments, call: Call| {
            let computed = run(arguments);
            async move {
                match computed.await {
                    Ok(computed) => call.push(&computed, |out| out.value(computed.value())),
                    Err(refused) => call.fail(&refused.into()),
                }
            }
        })
    }

    /// A method whose value is pushed, of a function that may fail. A failure is a value like others: it is stale when the function says so.
    #[must_use]
    pub fn try_compute<A, T, E, X, F, U>(self, name: impl Into<String>, run: F) -> Service
    where
        A: FromArguments,
        T: Serialize,
        E: Clone + Into<Failure>,
        Result<T, E>: Value,
        X: Into<Failure>,
        F: Fn(A) -> U + Send + Sync + 'static,
        U: Future<Output = Result<Computed<Result<T, E>>, X>> + Send + 'static,
    {
        self.add(name, Kind::Compute, move |arguments, call: Call| {
            let computed = run(arguments);
            async move {
                match computed.await {
                    Ok(computed) => match computed.value() {
                        Ok(value) => call.push(&computed, |out| out.value(value)),
                        Err(error) => call.push_failure(&computed, &error.clone().into()),
                    },
                    Err(refused) => call.fail(&refused.into()),
                }
            }
        })
    }
}

/// What reads arguments and makes a future of them.
struct Reading<A, F>(F, PhantomData<fn(A)>);

impl<A, F, U> Run for Reading<A, F>
where
    A: FromArguments,
    F: Fn(A, Call) -> U + Send + Sync + 'static,
    U: Future<Output = ()> + Send + 'static,
{
    fn start(&self, calling: &Calling<'_>, mut arguments: Arguments<'_>, call: Call, slots: &mut Slots) -> Result<(), (ReadError, Call)> {
        match A::from_arguments(calling, &mut arguments) {
            Ok(read) => {
                slots.set((self.0)(read, call));
                Ok(())
            }
            Err(error) => Err((error, call)),
        }
    }
}

/// Why a hub cannot have a service.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The name of a method is longer than messages can say.
    #[error("method `{name}`: {error}")]
    TooLong {
        /// The full name.
        name: String,
        /// How long it may be.
        error: NameTooLong,
    },
    /// There is a method of this name.
    #[error("there is a method `{0}` already")]
    Twice(String),
    /// Two names have one hash, so that compact formats could not tell them apart. One has to be called otherwise.
    #[error("methods `{0}` and `{1}` have the same hash, by which compact formats name them")]
    SameHash(String, String),
    /// `$sys` and `$sys-c` are the protocol's own.
    #[error("the service name `{0}` is reserved")]
    Reserved(String),
}

/// All methods of a hub.
#[derive(Debug, Default)]
pub(crate) struct Methods {
    all: Vec<Method>,
    by_name: HashMap<String, u32, ahash::RandomState>,
    by_hash: HashMap<u32, u32, ahash::RandomState>,
}

impl Methods {
    pub(crate) fn add(&mut self, service: Service, backend: bool) -> Result<(), ServiceError> {
        if service.name.starts_with('$') {
            return Err(ServiceError::Reserved(service.name));
        }
        for Added { name, kind, run, verified, limits } in service.methods {
            let name = format!("{}.{name}", service.name);
            let id = MethodId::new(name.clone()).map_err(|error| ServiceError::TooLong { name: name.clone(), error })?;
            if let Some(call) = System::of(&MethodRef::Hash(id.hash())) {
                return Err(ServiceError::SameHash(name, call.name().to_owned()));
            }
            let at = self.all.len() as u32;
            if self.by_name.insert(name.clone(), at).is_some() {
                return Err(ServiceError::Twice(name));
            }
            if let Some(other) = self.by_hash.insert(id.hash(), at) {
                return Err(ServiceError::SameHash(name, self.all[other as usize].id.name().to_owned()));
            }
            let limits = limits.map(|limits| Arc::new(Limited::new(limits)));
            self.all.push(Method { id, kind, verified, backend, limits, run: run.0 });
        }
        Ok(())
    }

    /// For those that have no limits of their own.
    pub(crate) fn limit(&mut self, limits: MethodLimits) {
        for method in self.all.iter_mut().filter(|method| method.limits.is_none()) {
            method.limits = Some(Arc::new(Limited::new(limits)));
        }
    }

    /// The number of a method, and the method. Those for backends are not there for anybody else.
    pub(crate) fn find(&self, method: &MethodRef<'_>, backend: bool) -> Option<(u32, &Method)> {
        let at = match method {
            MethodRef::Name(name) => *self.by_name.get(&**name)?,
            MethodRef::Hash(hash) => *self.by_hash.get(hash)?,
        };
        let method = &self.all[at as usize];
        (backend || !method.backend).then_some((at, method))
    }
}
