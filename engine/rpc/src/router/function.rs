//! Functions of an engine here whose values are at several servers.

use std::future::{Future, ready};

use serde::de::DeserializeOwned;
use wellspring::{AsyncFunction, Cx, Engine, Fault, Key, RegisterError};

use super::Router;
use crate::arguments::ToArguments;
use crate::failure::Failure;
use crate::later::Later;
use crate::remote::CallError;
use crate::remote_function::following;
use crate::remoted::Remoted;
use crate::wire::MethodId;

impl<K: Clone + Send + Sync + 'static> Router<K> {
    /// Makes a compute method of the servers a function of an engine, as [`Remote::function`](crate::Remote::function) does: a key of the function is
    /// the method's arguments, and the closure says which key of the router's they belong to. A value is stale, too, when that key moves to another
    /// server.
    ///
    /// Keys of this process's own have no value: [`CallError::Here`].
    ///
    /// # Errors
    /// If the engine has a function of this name.
    pub fn function<A, V>(
        &self,
        engine: &Engine,
        name: impl Into<String>,
        method: &MethodId,
        by: impl Fn(&A) -> K + Send + Sync + 'static,
    ) -> Result<AsyncFunction<A, Remoted<V>>, RegisterError>
    where
        A: Key + ToArguments,
        V: DeserializeOwned + Send + Sync + 'static,
    {
        self.routed(engine, name, method, by, |_, _| ready(Err(CallError::Here)))
    }

    /// As [`function`](Router::function), and values of this process's own keys are what the closure computes, of other functions of the engine: they
    /// are stale when those are.
    ///
    /// # Errors
    /// If the engine has a function of this name.
    pub fn function_or_here<A, V, F>(
        &self,
        engine: &Engine,
        name: impl Into<String>,
        method: &MethodId,
        by: impl Fn(&A) -> K + Send + Sync + 'static,
        here: impl Fn(Cx, A) -> F + Send + Sync + 'static,
    ) -> Result<AsyncFunction<A, Remoted<V>>, RegisterError>
    where
        A: Key + ToArguments,
        V: DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<Result<V, Failure>, Fault>> + Send + 'static,
    {
        self.routed(engine, name, method, by, move |cx, arguments| {
            let value = here(cx, arguments);
            // A fault is not cached, what was failed with is.
            async move { Ok(value.await.map_err(Failure::from)?.map_err(CallError::Failed)) }
        })
    }

    fn routed<A, V, F>(
        &self,
        engine: &Engine,
        name: impl Into<String>,
        method: &MethodId,
        by: impl Fn(&A) -> K + Send + Sync + 'static,
        here: impl Fn(Cx, A) -> F + Send + Sync + 'static,
    ) -> Result<AsyncFunction<A, Remoted<V>>, RegisterError>
    where
        A: Key + ToArguments,
        V: DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<Result<V, CallError>, CallError>> + Send + 'static,
    {
        let (router, method, here) = (self.clone(), method.clone(), std::sync::Arc::new(here));
        // The key may have moved to a server that can be reached.
        let later = Later { runtime: self.0.runtime.clone(), connected: None };
        following(engine, name, later, move |cx, arguments: A| {
            let (router, method, here, key) = (router.clone(), method.clone(), here.clone(), by(&arguments));
            async move { router.subscribe(&key, &method, &arguments, || here(cx.clone(), arguments.clone())).await }
        })
    }
}
