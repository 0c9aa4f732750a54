//! Projections: a part of a big value with an equality of its own, so that who reads one field does not run for another.

use crate::compute::unsettle;
use crate::cx::{Ask, Cx};
use crate::deps::Dep;
use crate::engine::Engine;
use crate::fault::{Fault, RegisterError, raise};
use crate::flight::{FlightKey, Joined, Running, block_on};
use crate::function::FnData;
use crate::graph::{Ended, Graph, Refresh};
use crate::key::Key;
use crate::sync::Arc;
use crate::value::Value;
use crate::verify::{LAST_EPOCH, Next, Settle};
use crate::{AsyncFunction, Function};

impl<K: Key, V: Value> Function<K, V> {
    /// Registers a part of this function's values as a function of its own, whose readers do not run while that part stays equal:
    /// the cure for one big or busy value that everybody reads a little of.
    ///
    /// `part` borrows the value, which is not cloned for it. It runs again after every change of the value, so keep it cheap.
    ///
    /// ```
    /// # use wellspring::{Cx, Engine};
    /// let engine = Engine::new();
    /// let user = engine.source("user", |_: &u32| (String::from("Ada"), 36_u32))?;
    /// let name = user.project("user.name", |user| user.0.clone())?;
    /// let greeting = engine.function("greeting", move |cx: &Cx, id: &u32| format!("Hello {}", name.get(cx, id).unwrap_or_default()))?;
    /// assert_eq!(greeting.get(&engine, &7)?, "Hello Ada");
    /// user.set(&7, (String::from("Ada"), 37));
    /// assert_eq!(greeting.get(&engine, &7)?, "Hello Ada"); // its body did not run
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken, [`RegisterError::Gone`] if the engine was dropped.
    pub fn project<P: Value + PartialEq>(
        &self,
        name: impl Into<String>,
        part: impl Fn(&V) -> P + Send + Sync + 'static,
    ) -> Result<Function<K, P>, RegisterError> {
        let (big, name) = (self.clone(), name.into());
        let body = move |cx: &Cx, key: &K| big.see(cx, key, &part).unwrap_or_else(|fault| raise(fault));
        Engine::of(&self.graph, &name)?.define(name).cut_off_eq().function(body)
    }

    /// What `see` makes of the value, recorded like a read.
    fn see<R>(&self, cx: &Cx, key: &K, see: impl Fn(&V) -> R) -> Result<R, Fault> {
        let (data, graph, hash, held) = (&self.data, &self.graph, self.hash(key), cx.asker().held);
        if let Some((slot, version)) = data.find(graph, hash, key) {
            if !graph.head(slot).is_consistent() {
                block_on(graph.settle(slot, version, held, &Running::here(graph.id)))?;
            }
            if let Some((part, epoch)) = data.seen(graph, slot, version, &see) {
                return cx.state().record(Dep { slot, epoch }).map(|()| part);
            }
        }
        // Computed here for the first time, or changed faster than it is computed: then the value is at hand anyway.
        let (slot, _, (value, epoch)) = data.obtain_key(graph, hash, key, held)?;
        cx.state().record(Dep { slot, epoch }).map(|()| see(&value))
    }
}

impl<K: Key, V: Value> AsyncFunction<K, V> {
    /// [`Function::project`] for an asynchronous function; the projection is one, too.
    ///
    /// # Errors
    /// [`RegisterError::Duplicate`] if the name is taken, [`RegisterError::Gone`] if the engine was dropped.
    pub fn project<P: Value + PartialEq>(
        &self,
        name: impl Into<String>,
        part: impl Fn(&V) -> P + Send + Sync + 'static,
    ) -> Result<AsyncFunction<K, P>, RegisterError> {
        let (big, name, part) = (self.clone(), name.into(), Arc::new(part));
        let body = move |cx: Cx, key: K| {
            let (big, part) = (big.clone(), part.clone());
            async move { big.see(&cx, &key, &*part).await.unwrap_or_else(|fault| raise(fault)) }
        };
        Engine::of(&self.graph, &name)?.define(name).cut_off_eq().async_function(body)
    }

    async fn see<R>(&self, cx: &Cx, key: &K, see: impl Fn(&V) -> R) -> Result<R, Fault> {
        let (data, graph, hash) = (&self.data, &self.graph, self.hash(key));
        let (slot, version) = data.find_or_insert(graph, hash, key)?;
        graph.settle(slot, version, false, &[cx.state().flight]).await?;
        if let Some((part, epoch)) = data.seen(graph, slot, version, &see) {
            return cx.state().record(Dep { slot, epoch }).map(|()| part);
        }
        let (slot, _, (value, epoch)) = self.obtain_async(Some(cx), key).await?;
        cx.state().record(Dep { slot, epoch }).map(|()| see(&value))
    }
}

impl<K: Key, V: Value> FnData<K, V> {
    /// What `see` makes of the node's value, if it is consistent, and the epoch it has.
    fn seen<R>(&self, graph: &Graph, slot: u32, version: u32, see: impl FnOnce(&V) -> R) -> Option<(R, u32)> {
        let head = graph.head(slot);
        if !head.is_consistent() || head.version() != version {
            return None;
        }
        self.with_value(graph, slot, head, see).map(|part| (part, head.epoch()))
    }
}

impl Graph {
    /// Brings a node up to date, or runs it once, without touching its value. `blocked` are the flights that wait for this.
    pub(crate) async fn settle(self: &Arc<Graph>, slot: u32, version: u32, held: bool, blocked: &[FlightKey]) -> Result<(), Fault> {
        let mut settle = Settle::new(slot, version);
        loop {
            let (at, joined) = match settle.next(self) {
                Next::Gone | Next::Ready => return Ok(()),
                Next::Unsettle(at, head) => {
                    unsettle(self, at, head);
                    continue;
                }
                // Its key moves to another slot: a matter of the typed read that follows.
                Next::Run(_, head) if head.epoch() >= LAST_EPOCH => return Ok(()),
                Next::Run(at, head) => match self.function(at).refresh(self, at, head, held) {
                    Refresh::Moved => continue,
                    Refresh::Ran(ended) if at == slot => return ended.map(drop),
                    Refresh::Ran(Ok(Ended::Stored | Ended::Moved)) => continue,
                    Refresh::Ran(_) => {
                        settle.force();
                        continue;
                    }
                    Refresh::Started(flight) => (at, Joined::starter(self, flight)),
                },
                Next::Join(at, head) => match self.join(at, head) {
                    Some(joined) => (at, joined),
                    None => continue,
                },
            };
            let outcome = joined.blocking(blocked.to_vec())?.await;
            if at == slot {
                return outcome.fault.map_or(Ok(()), Err);
            }
            if outcome.fault.is_some() || outcome.hopeless {
                settle.force();
            }
        }
    }
}
