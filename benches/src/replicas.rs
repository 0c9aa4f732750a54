//! Values of another process that are held here, beside the same values of a function of this one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use wellspring::{AsyncFunction, Engine, Parts, Value};
use wellspring_rpc::wire::MethodId;
use wellspring_rpc::{Hub, Listener, Remote, Remoted, Service, Serving};

use crate::drive::Driver;
use crate::keys::value_of;

/// A function whose values for `0..count` are cached.
#[derive(Debug)]
pub struct Local<V> {
    /// Whose function it is.
    pub engine: Engine,
    /// By the arguments of a method.
    pub function: AsyncFunction<(u64,), V>,
}

/// The same of another process, which is this one: over the transport in memory.
#[derive(Debug)]
pub struct Replicas<V> {
    /// What holds them.
    pub here: Local<Remoted<V>>,
    // In the order in which they are dropped. Nothing of it runs while values are read.
    _serving: Serving,
    _runtime: Runtime,
}

impl<V: Value> Local<V> {
    /// Reads them all as a client does: by key, from outside of a body.
    pub fn gets(&self, count: u64, read: impl Fn(&V) -> u64) -> u64 {
        let driver = Driver::new();
        (0..count).fold(0, |sum, key| {
            let value = driver.run(self.function.get(&self.engine, &Parts((&key,))));
            sum.wrapping_add(value.map_or(0, |value| read(&value)))
        })
    }

    /// Reads them all under one pin.
    pub fn peeks(&self, count: u64, read: impl Fn(&V) -> u64) -> u64 {
        let pin = self.engine.pin();
        (0..count).fold(0, |sum, key| sum.wrapping_add(self.function.peek(&pin, &Parts((&key,))).map_or(0, |value| read(&value))))
    }
}

/// Computes every value.
pub fn local<V: Value>(count: u64, of: fn(u64) -> V) -> Local<V> {
    let engine = Engine::new();
    let function = engine.async_function("value", move |_, (key,): (u64,)| async move { of(value_of(key)) }).expect("the name is free");
    let runtime = runtime();
    for key in 0..count {
        runtime.block_on(function.get(&engine, &(key,))).expect("the body does not fail");
    }
    Local { engine, function }
}

/// Gets every value.
pub fn replicas<V: Value + Serialize + DeserializeOwned>(count: u64, of: fn(u64) -> V) -> Replicas<V> {
    let runtime = runtime();
    let there = local(count, of);
    let service = Service::new("Bench").compute("Get:1", move |(key,): (u64,)| there.function.computed(&there.engine, &(key,)));
    let hub = Hub::builder().service(service).expect("the name is free").build();
    let (here, serving) = runtime.block_on(async {
        let (address, listener) = Listener::memory();
        let serving = listener.serve(&hub);
        let remote = Remote::builder(address).connect();
        let engine = Engine::new();
        let method = MethodId::new("Bench.Get:1").expect("short");
        let function: AsyncFunction<(u64,), Remoted<V>> = remote.function(&engine, "value", &method).expect("the name is free");
        for key in 0..count {
            let value = function.get(&engine, &(key,)).await.expect("the body does not fail");
            assert!(value.is_ok() && value.is_synchronized(), "key {key}: {:?}", value.as_result().err());
        }
        (Local { engine, function }, serving)
    });
    Replicas { here, _serving: serving, _runtime: runtime }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
