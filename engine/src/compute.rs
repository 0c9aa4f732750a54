//! Running a function's body, and getting a value out of a node that has none to give yet.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cx::{Asker, Cx};
use crate::deps::{Dep, Recorded, UNSTORED};
use crate::evict::Bounds;
use crate::expire::Term;
use crate::fault::Fault;
use crate::flight::{Flight, Joined, Outcome, Running, panic_message};
use crate::function::{Body, FnData, Lease, Place, flight_key};
use crate::graph::{AnyFunction, Ended, Graph, Refresh};
use crate::key::{Key, Lookup};
use crate::log::What;
use crate::node::{HAS_VALUE, Head, State};
use crate::origin::By;
use crate::publish::{Outcoming, Published};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, fault};
use crate::value::{Read, Value, expose, to_word};
use crate::verify::{LAST_EPOCH, Next, Settle};

/// A flight that ended on this thread.
pub(crate) struct Ran<V> {
    pub(crate) value: V,
    pub(crate) ended: Ended,
    /// In the node under the flight's epoch.
    pub(crate) stored: bool,
}

/// A result on its way into the node.
pub(crate) struct Prepared<V> {
    pub(crate) result: Outcoming,
    pub(crate) term: Option<Term>,
    pub(crate) weight: Option<u32>,
    /// The last good value, which goes to readers in place of an error.
    served: Option<V>,
}

/// A value and the epoch to record for it.
pub(crate) type Got<V> = (V, u32);

/// Why `obtain` returned without a value.
pub(crate) enum Miss {
    Fault(Fault),
    /// The node was removed: find the key again.
    Removed,
}

impl From<Fault> for Miss {
    fn from(fault: Fault) -> Miss {
        Miss::Fault(fault)
    }
}

impl<K: Key, V: Value> FnData<K, V> {
    /// Runs a sync body for a claimed node; `None` if the node was removed under the claim.
    pub(crate) fn run(&self, graph: &Arc<Graph>, slot: u32, flight: Head, body: &Body<K, V>, held: bool) -> Result<Option<Ran<V>>, Fault> {
        let Body::Sync(body) = body else { return Err(Fault::WouldBlock) };
        let (start, made) = (graph.finished_commit(), graph.begun_commit());
        let key = flight_key(slot, flight);
        let mut cx = Cx::inline(graph.id, key, held);
        let result = Running::within(graph.id, key, false, || {
            catch_unwind(AssertUnwindSafe(|| self.key(graph, slot, flight.version()).map(|key| body(&cx, &key))))
        });
        self.computes.count();
        match result {
            Ok(Some(value)) => {
                cx.close(|recorded, faulted| self.store(graph, slot, flight, faulted, recorded, value, (start, made))).map(Some)
            }
            Ok(None) => {
                self.end_without_value(graph, slot, flight, None, start);
                Ok(None)
            }
            Err(panic) => {
                let fault = Fault::of_panic(self.name.clone(), panic);
                self.end_without_value(graph, slot, flight, Some(fault.clone()), start);
                Err(fault)
            }
        }
    }

    fn end_without_value(&self, graph: &Arc<Graph>, slot: u32, flight: Head, fault: Option<Fault>, start: u64) {
        graph.abandon(slot, flight);
        graph.end_flight(flight_key(slot, flight), Outcome { fault, start, ..Outcome::default() });
        // A node without a value counts too, and nothing else may ever be stored.
        self.keep_within(graph);
    }

    /// Stores a body's result, unless it was made from a fault or the node moved on. It began after the first commit had finished
    /// and the second had begun.
    #[allow(clippy::too_many_arguments, reason = "the flight's whole state, once")]
    fn store(
        &self,
        graph: &Arc<Graph>,
        slot: u32,
        flight: Head,
        faulted: bool,
        recorded: &Recorded,
        value: V,
        (start, made): (u64, u64),
    ) -> Result<Ran<V>, Fault> {
        let key = flight_key(slot, flight);
        // User code (`Eq`, `Clone`, rules) runs before the node is owned. A word that nobody compares needs none.
        let prepared = if !faulted && self.is_plain() {
            Ok(Some(Prepared { result: Outcoming::Changed(to_word(&value)), term: None, weight: None, served: None }))
        } else {
            catch_unwind(AssertUnwindSafe(|| (!faulted).then(|| self.prepare(graph, slot, flight, &value))))
        };
        let (result, term, weight, value) = match prepared {
            Ok(Some(Prepared { result, term, weight, served })) => (result, term, weight, served.unwrap_or(value)),
            Ok(None) => {
                graph.abandon(slot, flight);
                self.hand_over(graph, key, &value, Outcome { start, doomed: true, hopeless: true, ..Outcome::default() });
                self.keep_within(graph);
                return Ok(Ran { value, ended: Ended::Hopeless, stored: false });
            }
            Err(panic) => {
                let fault = Fault::Panicked { function: self.name.clone(), message: panic_message(&*panic) };
                self.end_without_value(graph, slot, flight, Some(fault.clone()), start);
                return Err(fault);
            }
        };
        let (equal, word) = match result {
            Outcoming::Equal => (true, None),
            Outcoming::Changed(word) => (false, Some(word)),
        };
        let published = graph.publish(slot, flight, recorded.as_slice(), result, made, |old| {
            if let Some(retired) = old.and_then(|old| self.retired_value(old)) {
                graph.collector.retire(retired);
            }
            if let Some(term) = term {
                graph.set_term(slot, term);
            }
            if let (Some(bounds), Some(weight)) = (&self.bounds, weight) {
                bounds.set_weight(graph, slot, weight);
            }
        });
        match published {
            Published::Stored { consistent, waiters } => {
                if equal {
                    crate::stats::add(&graph.counters.mine().cut_offs, 1);
                }
                graph.note(if equal { What::CutOff } else { What::Computed }, slot);
                if let Some(term) = term {
                    graph.arm_term(slot, term);
                }
                // Whoever asked for it reads it now: it must not be the one that leaves for being read long ago.
                self.touch_kept(slot);
                self.keep_within(graph);
                let unverifiable = recorded.as_slice().iter().any(|dep| dep.epoch == UNSTORED);
                if waiters {
                    let outcome = Outcome { start, stored: true, doomed: !consistent, hopeless: unverifiable, ..Outcome::default() };
                    if self.holds(graph, slot, flight) {
                        graph.end_flight(key, outcome);
                    } else {
                        // Evicted before anybody could read it there: a limit smaller than one value must not keep them waiting for ever.
                        self.hand_over(graph, key, &value, Outcome { stored: false, ..outcome });
                    }
                }
                Ok(Ran { value, ended: if unverifiable { Ended::Hopeless } else { Ended::Stored }, stored: true })
            }
            Published::Superseded => {
                if let Some(retired) = word.and_then(|word| self.retired_value(word)) {
                    graph.collector.retire(retired);
                }
                self.hand_over(graph, key, &value, Outcome { start, doomed: true, ..Outcome::default() });
                Ok(Ran { value, ended: Ended::Moved, stored: false })
            }
        }
    }

    /// Everything user code has to say about a result, before the node is owned.
    pub(crate) fn prepare(&self, graph: &Graph, slot: u32, flight: Head, value: &V) -> Prepared<V> {
        let kind = self.life.errors.as_ref().and_then(|rule| rule.kind(value));
        let term = self.life.is_limited().then(|| self.life.term(graph, kind));
        let served = match &self.life.errors {
            Some(rule) if rule.serve_stale && kind.is_some() => {
                self.with_value(graph, slot, flight, |old| rule.kind(old).is_none().then(|| old.clone())).flatten()
            }
            _ => None,
        };
        let equal = served.is_some() || self.is_unchanged(graph, slot, flight, value);
        let key = || self.key(graph, slot, flight.version());
        // A value that stays keeps its weight.
        let weigh = |bounds: &Bounds<K, V>| bounds.weight_of(key, value, self.is_inline());
        let weight = if equal { None } else { self.bounds.as_ref().map(weigh) };
        // Last: no rule of the user's may panic while the word owns a value.
        let result = match equal {
            true => Outcoming::Equal,
            false if self.is_inline() => Outcoming::Changed(to_word(value)),
            false => Outcoming::Changed(expose(value.clone())),
        };
        Prepared { result, term, weight, served }
    }

    /// Whether a flight's result is still where its waiters would look for it.
    fn holds(&self, graph: &Graph, slot: u32, flight: Head) -> bool {
        let head = graph.head(slot);
        head.version() == flight.version() && head.epoch() == flight.epoch() && !matches!(head.state(), State::Evicted | State::Empty)
    }

    /// A result that is not in the node goes to those who wait: if it is doomed, to those who waited from the start.
    fn hand_over(&self, graph: &Graph, key: crate::flight::FlightKey, value: &V, outcome: Outcome) {
        if graph.is_waited_for(key) {
            let outcome = match catch_unwind(AssertUnwindSafe(|| value.clone())) {
                Ok(value) => Outcome { value: Some(Arc::new(value)), ..outcome },
                Err(panic) => {
                    Outcome { fault: Some(Fault::Panicked { function: self.name.clone(), message: panic_message(&*panic) }), ..outcome }
                }
            };
            graph.end_flight(key, outcome);
        }
    }

    /// Whether the new value equals the old one by the function's rule.
    pub(crate) fn is_unchanged(&self, graph: &Graph, slot: u32, flight: Head, value: &V) -> bool {
        self.cut_off.compares()
            && self.with_value(graph, slot, flight, |old| fault!("equal_always") || self.cut_off.same(old, value)).unwrap_or(false)
    }

    /// Shows the value the node has as long as its head is this one: a consistent node's own, or the one that a flight is about to
    /// replace. `None` if there is none.
    pub(crate) fn with_value<R>(&self, graph: &Graph, slot: u32, flight: Head, see: impl FnOnce(&V) -> R) -> Option<R> {
        // Relaxed: written by owners of `Publishing` before this flight claimed the node.
        if graph.warm(slot).flags.load(Ordering::Relaxed) & HAS_VALUE == 0 {
            return None;
        }
        let _pin = (!self.is_inline()).then(|| graph.collector.section());
        let word = graph.row(slot).value.load(Ordering::Acquire);
        if !graph.head(slot).same_flight(flight) {
            return None;
        }
        // SAFETY: [pinned-value] the head was still the same after the load, so the word was its value; the pin keeps it.
        let old = unsafe { Read::<V>::new(word, self.is_inline()) };
        Some(see(&old))
    }

    /// Starts an async body for a node.
    pub(crate) fn start(self: &Arc<Self>, graph: &Arc<Graph>, slot: u32, from: Head) -> Option<Arc<Flight>> {
        let Some(Lease::Owned(body)) = self.body(false) else { return None };
        // The future lives in the graph's own table, so it holds the graph weakly.
        let (weak_graph, graph_id, function) = (Arc::downgrade(graph), graph.id, self.clone());
        // Before the claim: what made the node stale has begun by now.
        let made = graph.begun_commit();
        graph.launch(slot, from, move |flight, start| {
            Box::pin(async move {
                let Body::Async(make) = &*body else { return };
                let cx = Cx::shared(graph_id, flight_key(slot, flight));
                let Some(key) = weak_graph.upgrade().and_then(|graph| function.key(&graph, slot, flight.version())) else { return };
                let end = EndOnDrop(cx.clone());
                let value = make(cx.clone(), key).await;
                // The engine may have been dropped meanwhile; then nobody is left to store for.
                let Some(graph) = weak_graph.upgrade() else { return };
                function.computes.count();
                let recorded = cx.state().end();
                drop(end);
                let stored = function.store(&graph, slot, flight, cx.state().is_faulted(), &recorded, value, (start, made));
                drop(stored);
            })
        })
    }

    /// Brings the key's node up to date on this thread, made if there is none; its slot and version, and its value.
    pub(crate) fn obtain_key<Q: ?Sized + Lookup<K>>(
        &self,
        graph: &Arc<Graph>,
        hash: u64,
        key: &Q,
        held: bool,
    ) -> Result<(u32, u32, Got<V>), Fault> {
        loop {
            let seen = self.inserted();
            let known = self.find(graph, hash, key);
            let (slot, version, got) = match known {
                Some((slot, version)) => (slot, version, self.obtain(graph, slot, version, held)),
                None => {
                    let Some(body) = self.body(held) else { return Err(Fault::Gone) };
                    match self.insert(graph, hash, key, State::Computing, seen)? {
                        Place::Born(slot, flight) => (slot, flight.version(), self.fly(graph, slot, flight, &body, held)),
                        Place::Known(slot, version) => (slot, version, self.obtain(graph, slot, version, held)),
                    }
                }
            };
            match got {
                Ok(got) => {
                    self.touch_kept(slot);
                    return Ok((slot, version, got));
                }
                Err(Miss::Removed) => {}
                Err(Miss::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// Runs a claimed node's body for its own caller.
    fn fly(&self, graph: &Arc<Graph>, slot: u32, flight: Head, body: &Body<K, V>, held: bool) -> Result<Got<V>, Miss> {
        let ran = self.run(graph, slot, flight, body, held)?.ok_or(Miss::Removed)?;
        Ok((ran.value, if ran.stored { flight.epoch() } else { UNSTORED }))
    }

    /// Brings the node up to date on this thread and returns its value.
    pub(crate) fn obtain(&self, graph: &Arc<Graph>, slot: u32, version: u32, held: bool) -> Result<Got<V>, Miss> {
        let mut settle = Settle::new(slot, version);
        loop {
            match settle.next(graph) {
                Next::Gone => return Err(Miss::Removed),
                Next::Ready => {
                    let head = graph.head(slot);
                    if let Some(value) = self.value_at(graph, slot, version, head.epoch()).filter(|_| head.is_consistent()) {
                        return Ok((value, head.epoch()));
                    }
                }
                Next::Unsettle(at, head) => unsettle(graph, at, head),
                Next::Run(at, head) if head.epoch() >= LAST_EPOCH => forget_worn(graph, at, head),
                Next::Run(at, head) if at == slot => {
                    let Some(body) = self.body(held) else { return Err(Fault::Gone.into()) };
                    let Some(flight) = graph.claim(slot, head) else { continue };
                    return self.fly(graph, slot, flight, &body, held);
                }
                Next::Run(at, head) => match graph.function(at).refresh(graph, at, head, held) {
                    Refresh::Moved | Refresh::Ran(Ok(Ended::Stored | Ended::Moved)) => {}
                    Refresh::Ran(_) => settle.force(),
                    Refresh::Started(flight) => {
                        let outcome = Joined::starter(graph, flight).blocking(Running::here(graph.id))?.wait();
                        if outcome.fault.is_some() || outcome.hopeless {
                            settle.force();
                        }
                    }
                },
                Next::Join(at, head) => {
                    let Some(joined) = graph.join(at, head) else { continue };
                    let commit = joined.commit;
                    let outcome = joined.blocking(Running::here(graph.id))?.wait();
                    if at == slot
                        && let Some(got) = self.share(graph, slot, head, commit, outcome)?
                    {
                        return Ok(got);
                    }
                }
            }
        }
    }

    /// What a waiter may take from a flight that has ended.
    pub(crate) fn share(&self, graph: &Graph, slot: u32, flight: Head, joined: u64, outcome: Outcome) -> Result<Option<Got<V>>, Fault> {
        if let Some(fault) = outcome.fault {
            return Err(fault);
        }
        let fresh = outcome.start == joined || fault!("waiter_takes_doomed");
        if outcome.stored && (fresh || !outcome.doomed) {
            return Ok(self.value_at(graph, slot, flight.version(), flight.epoch()).map(|value| (value, flight.epoch())));
        }
        let shared = outcome.value;
        let value = shared.as_ref().filter(|_| fresh || !outcome.doomed).and_then(|value| value.downcast_ref::<V>().cloned());
        // The last waiter to come drops the shared copy: a `Drop` that panics must not take the clone with it.
        crate::flight::drop_quietly(shared);
        Ok(value.map(|value| (value, UNSTORED)))
    }

    /// `obtain` for an asynchronous function: waits without blocking.
    pub(crate) async fn obtain_async(&self, graph: &Arc<Graph>, slot: u32, version: u32, cx: Option<&Cx>) -> Result<Got<V>, Miss> {
        let blocked = |cx: Option<&Cx>| cx.and_then(|cx| cx.state().blocked()).into_iter().collect::<Vec<_>>();
        let mut settle = Settle::new(slot, version);
        loop {
            let (at, head, joined) = match settle.next(graph) {
                Next::Gone => return Err(Miss::Removed),
                Next::Ready => {
                    let head = graph.head(slot);
                    if let Some(value) = self.value_at(graph, slot, version, head.epoch()).filter(|_| head.is_consistent()) {
                        return Ok((value, head.epoch()));
                    }
                    continue;
                }
                Next::Unsettle(at, head) => {
                    unsettle(graph, at, head);
                    continue;
                }
                Next::Run(at, head) if head.epoch() >= LAST_EPOCH => {
                    forget_worn(graph, at, head);
                    continue;
                }
                Next::Run(at, head) => match graph.function(at).refresh(graph, at, head, false) {
                    Refresh::Moved | Refresh::Ran(Ok(Ended::Stored | Ended::Moved)) => continue,
                    Refresh::Ran(Err(Fault::Gone)) if at == slot => return Err(Fault::Gone.into()),
                    Refresh::Ran(_) => {
                        settle.force();
                        continue;
                    }
                    Refresh::Started(flight) => {
                        let head = flight.head;
                        (at, head, Joined::starter(graph, flight))
                    }
                },
                Next::Join(at, head) => match graph.join(at, head) {
                    Some(joined) => (at, head, joined),
                    None => continue,
                },
            };
            let commit = joined.commit;
            let outcome = joined.blocking(blocked(cx))?.await;
            if at != slot {
                if outcome.fault.is_some() || outcome.hopeless {
                    settle.force();
                }
                continue;
            }
            if let Some(got) = self.share(graph, slot, head, commit, outcome)? {
                return Ok(got);
            }
        }
    }
}

/// Whatever was made from an evicted value may be stale once the value is made again: it might come out differently.
pub(crate) fn unsettle(graph: &Arc<Graph>, slot: u32, head: Head) {
    graph.commit_by(smallvec::smallvec![crate::sweep::Root::Unsettle { slot, version: head.version(), forget_deps: false }], &By::Engine);
}

/// A node whose epochs are used up leaves its slot, which is never used again; the key gets a new one.
fn forget_worn(graph: &Arc<Graph>, slot: u32, head: Head) {
    graph.commit_by(smallvec::smallvec![crate::sweep::Root::Forget { slot, version: head.version() }], &By::Engine);
}

/// Closes an async body's context also when its future is dropped half-way.
pub(crate) struct EndOnDrop(pub(crate) Cx);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.state().end();
    }
}

/// Records a value's epoch with the asker.
pub(crate) fn record<V>(asker: Asker<'_>, slot: u32, got: Got<V>) -> Result<V, Fault> {
    let (value, epoch) = got;
    asker.record(Dep { slot, epoch })?;
    Ok(value)
}
