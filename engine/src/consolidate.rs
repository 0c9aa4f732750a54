//! Consolidation: a change is computed in the background first, and told only if the value did change.
//!
//! A consolidated function is two. The hidden one (`~name`) has the user's body and its dependencies; it is marked like any other. The
//! visible one has no dependencies: a read that finds no value takes the hidden one's, and from then on a *pass* keeps it up to date.
//! A mark of the hidden value starts a pass, after the delay: it computes the hidden value, compares it with the visible one, and
//! replaces that on a difference, as one commit.
//!
//! No mark is lost. A pass (and the visible body) subscribes to the hidden generation it has read and then learns whether that was
//! still unmarked. A mark that comes later wakes the key's [`Entry`], which notes it for the end of a running pass. And a visible body
//! that begins during a pass says so (`moved`), since it may show an older hidden generation than the pass has seen: the pass looks
//! again. It replaces only the very generation it compared with, so it never puts an older value over a newer one.

use std::collections::HashMap;
use std::collections::hash_map;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;

use crate::compute::Miss;
use crate::cut_off::CutOff;
use crate::cx::{Ask, Cx};
use crate::define::Options;
use crate::deps::UNSTORED;
use crate::engine::Engine;
use crate::evict::Bounds;
use crate::expire::Life;
use crate::fault::{Fault, RegisterError, raise};
use crate::fingerprint::Insight;
use crate::flight::{FlightKey, drop_quietly};
use crate::function::{Body, FnData};
use crate::graph::Graph;
use crate::handle::Handle;
use crate::key::Key;
use crate::node::{DOOMED, Head, State};
use crate::origin::By;
use crate::subscription::{Entry, Phase};
use crate::sweep::Root;
use crate::sync::{Arc, Backoff, Mutex, Weak, lock};
use crate::value::{Value, expose, to_word};
use crate::verify::WORN;

/// What the half of a consolidated function that computes is called.
pub(crate) fn hidden_name(name: &str) -> String {
    format!("~{name}")
}

/// What ties a visible function to its hidden one.
pub(crate) struct Consolidation<K, V> {
    pub(crate) graph: Weak<Graph>,
    pub(crate) hidden: Arc<FnData<K, V>>,
    /// Set once, at registration.
    visible: OnceLock<Weak<FnData<K, V>>>,
    pub(crate) delay: Duration,
    /// By the slot of the visible node.
    entries: Mutex<Entries<K, V>>,
}

type Entries<K, V> = HashMap<u32, Arc<Entry<K, V>>, ahash::RandomState>;

/// How a pass ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The visible value is what the hidden one was, and any later mark of that wakes the entry.
    Kept,
    /// The hidden value was marked again before there was a subscription.
    Marked,
    /// No visible value is served: the next read makes one.
    Over,
}

/// What readers of a visible node get.
enum Shown {
    Value(Head),
    /// Its value was evicted, but what was made from it is still served.
    Evicted,
    Nothing,
    Gone,
}

/// Registers both functions; the handle is the visible one's.
pub(crate) fn register<K: Key, V: Value>(
    engine: &Engine,
    name: String,
    options: Options<K, V>,
    body: Body<K, V>,
    delay: Duration,
) -> Result<Handle<K, V>, RegisterError> {
    const OPTION: &str = "consolidate";
    let Options { cut_off, inline, key_limit, mut life, capacity, weigh, insight, .. } = options;
    if !cut_off.compares() {
        return Err(RegisterError::NeedsCutOff { name, option: OPTION });
    }
    let asynchronous = matches!(body, Body::Async(_));
    if asynchronous && engine.graph().spawner.is_none() {
        return Err(RegisterError::NeedsSpawner { name, option: OPTION });
    }
    engine.check_name(&name)?;
    // What readers keep in use is the visible value; what is said about memory is said of that.
    let kept = Life { keep_at_least: life.keep_at_least.take(), ..Life::default() };
    // Rules about time are about what the body makes. The visible rule does the comparing; keys that are too large do not get here.
    let plain = Insight { describe: insight.describe, fingerprint: None };
    let hidden = Options { cut_off: CutOff::Never, inline, life, insight: plain, ..Options::default() };
    let hidden = engine.register(hidden_name(&name), false, hidden, body)?;
    let merge = Arc::new(Consolidation {
        graph: Arc::downgrade(&hidden.graph),
        hidden: hidden.data,
        visible: OnceLock::new(),
        delay,
        entries: Mutex::new(HashMap::default()),
    });
    let shown = merge.clone();
    let body = if asynchronous {
        Body::Async(Box::new(move |cx: Cx, key: K| {
            let shown = shown.clone();
            Box::pin(async move { shown.show_async(&cx, &key).await.unwrap_or_else(|fault| raise(fault)) })
        }))
    } else {
        Body::Sync(Box::new(move |cx: &Cx, key: &K| shown.show(cx, key).unwrap_or_else(|fault| raise(fault))))
    };
    let visible = Options { cut_off, inline, key_limit, life: kept, capacity, weigh, insight, ..Options::default() };
    let visible = engine.register(name, false, visible, body)?;
    let _ = merge.visible.set(Arc::downgrade(&visible.data));
    let _ = visible.data.merge.set(merge);
    Ok(visible)
}

impl<K: Key, V: Value> Consolidation<K, V> {
    /// The visible body: the hidden value, subscribed to.
    fn show(self: &Arc<Self>, cx: &Cx, key: &K) -> Result<V, Fault> {
        let graph = self.graph.upgrade().ok_or(Fault::Gone)?;
        let entry = self.begin(&graph, cx.state().flight, key);
        let (slot, version, (value, epoch)) = self.hidden.obtain_key(&graph, self.hidden.hash(key), key, cx.asker().held)?;
        self.subscribe(&graph, entry, cx.state().flight, (slot, version, epoch));
        Ok(value)
    }

    async fn show_async(self: &Arc<Self>, cx: &Cx, key: &K) -> Result<V, Fault> {
        let graph = self.graph.upgrade().ok_or(Fault::Gone)?;
        let entry = self.begin(&graph, cx.state().flight, key);
        let (slot, version, (value, epoch)) = self.fresh(&graph, key, Some(cx)).await?;
        self.subscribe(&graph, entry, cx.state().flight, (slot, version, epoch));
        Ok(value)
    }

    /// A visible body begins; `None` if its flight has been superseded already.
    fn begin(self: &Arc<Self>, graph: &Arc<Graph>, (slot, epoch): FlightKey, key: &K) -> Option<Arc<Entry<K, V>>> {
        let head = graph.head(slot);
        // Epochs of a slot are never used twice: the same epoch is the same key.
        if head.epoch() != epoch || !head.is_live() {
            return None;
        }
        let version = head.version();
        let known = lock(&self.entries).get(&slot).filter(|entry| entry.version == version).cloned();
        let entry = known.unwrap_or_else(|| self.insert(graph, Entry::new(self, key.clone(), (slot, version))));
        lock(&entry.turn).moved = true;
        Some(entry)
    }

    /// Keeps the entry unless somebody was faster; the former tenant's of its slot goes.
    fn insert(&self, graph: &Arc<Graph>, fresh: Arc<Entry<K, V>>) -> Arc<Entry<K, V>> {
        let former = match lock(&self.entries).entry(fresh.slot) {
            hash_map::Entry::Occupied(other) if other.get().version == fresh.version => return other.get().clone(),
            hash_map::Entry::Occupied(mut other) => Some(other.insert(fresh.clone())),
            hash_map::Entry::Vacant(free) => {
                free.insert(fresh.clone());
                None
            }
        };
        if let Some(former) = former {
            self.let_go(graph, &former);
        }
        fresh
    }

    /// A visible body has read the hidden generation at `place`. One that is marked by now makes a value that is born stale.
    fn subscribe(&self, graph: &Arc<Graph>, entry: Option<Arc<Entry<K, V>>>, flight: FlightKey, place: (u32, u32, u32)) {
        let Some(entry) = entry else { return };
        if !entry.arm(graph, place) {
            graph.doom(flight);
        }
        if graph.head(entry.slot).version() != entry.version {
            self.release(graph, entry.slot, entry.version);
        }
    }

    /// The hidden value, up to date: (slot, version, (value, epoch)).
    async fn fresh(&self, graph: &Arc<Graph>, key: &K, cx: Option<&Cx>) -> Result<(u32, u32, (V, u32)), Fault> {
        let hash = self.hidden.hash(key);
        let body = self.hidden.body(false).ok_or(Fault::Gone)?;
        if let Body::Sync(_) = &*body {
            return self.hidden.obtain_key(graph, hash, key, false);
        }
        loop {
            let (slot, version) = self.hidden.find_or_insert(graph, hash, key)?;
            match self.hidden.obtain_async(graph, slot, version, cx).await {
                Ok(got) => return Ok((slot, version, got)),
                Err(Miss::Removed) => {}
                Err(Miss::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// Brings the visible value up to date once.
    async fn pass(&self, graph: &Arc<Graph>, entry: &Arc<Entry<K, V>>) -> End {
        let Some(visible) = self.visible.get().and_then(Weak::upgrade) else { return End::Over };
        let seen = match graph.served(entry.slot, entry.version).await {
            Shown::Value(head) => head,
            Shown::Evicted => return self.end_value(graph, entry),
            Shown::Nothing => return End::Over,
            Shown::Gone => {
                self.release(graph, entry.slot, entry.version);
                return End::Over;
            }
        };
        let (slot, version, (value, epoch)) = match self.fresh(graph, &entry.key, None).await {
            Ok(fresh) => fresh,
            Err(Fault::Gone) => return End::Over,
            Err(_) => return self.end_value(graph, entry),
        };
        if epoch == UNSTORED {
            // It could not be kept, so there is nothing to subscribe to.
            drop_quietly(value);
            return self.end_value(graph, entry);
        }
        if !entry.arm(graph, (slot, version, epoch)) {
            drop_quietly(value);
            return if entry.has_patience() { End::Marked } else { self.end_value(graph, entry) };
        }
        let compared = catch_unwind(AssertUnwindSafe(|| {
            if visible.is_unchanged(graph, entry.slot, seen, &value) {
                return None;
            }
            let weigh = |bounds: &Bounds<K, V>| bounds.weight_of(|| Some(entry.key.clone()), &value, visible.is_inline());
            let weight = visible.bounds.as_ref().map(weigh);
            Some((if visible.is_inline() { to_word(&value) } else { expose(value) }, weight))
        }));
        match compared {
            Ok(None) => {
                crate::stats::add(&graph.counters.mine().cut_offs, 1);
                graph.note(crate::log::What::CutOff, entry.slot);
            }
            Ok(Some((word, weight))) => {
                graph.commit_by(smallvec::smallvec![Root::Consolidate { slot: entry.slot, seen, word, weight }], &By::Engine);
                if let Some(bounds) = &visible.bounds {
                    bounds.keep_within(graph);
                }
                if seen.epoch() >= WORN {
                    // Readers move the key to a slot with epochs left.
                    return self.end_value(graph, entry);
                }
            }
            // The comparison panicked: nobody knows whether the value changed.
            Err(_) => return self.end_value(graph, entry),
        }
        End::Kept
    }

    /// The safe way out: nothing is served until somebody asks.
    fn end_value(&self, graph: &Arc<Graph>, entry: &Entry<K, V>) -> End {
        graph.commit_by(smallvec::smallvec![Root::Stale { slot: entry.slot, version: entry.version }], &By::Engine);
        End::Over
    }

    /// A pass is over; whether another is to follow at once.
    fn close(&self, graph: &Graph, entry: &Arc<Entry<K, V>>, end: End) -> bool {
        let mut turn = lock(&entry.turn);
        if end == End::Marked || turn.marked && (end == End::Kept || turn.moved) {
            if !self.delay.is_zero() {
                turn.phase = entry.wait(graph, self.delay);
            }
            return self.delay.is_zero();
        }
        if turn.moved {
            return true;
        }
        entry.rest(graph, turn, end == End::Over);
        false
    }

    /// The visible node is gone: so is its entry, and the hidden node with it.
    pub(crate) fn release(&self, graph: &Arc<Graph>, slot: u32, version: u32) {
        let entry = {
            let mut entries = lock(&self.entries);
            match entries.entry(slot) {
                hash_map::Entry::Occupied(entry) if entry.get().version == version => Some(entry.remove()),
                _ => None,
            }
        };
        if let Some(entry) = entry {
            self.let_go(graph, &entry);
        }
    }

    fn let_go(&self, graph: &Arc<Graph>, entry: &Entry<K, V>) {
        let turn = lock(&entry.turn);
        match turn.phase {
            Phase::Waiting(timer) => {
                entry.rest(graph, turn, true);
                graph.timers.forget(timer);
            }
            Phase::Idle => entry.rest(graph, turn, true),
            // The pass will meet a node that is gone.
            Phase::Working => drop(turn),
        }
        // The key may have a new visible node by now, which lives by the same hidden one.
        let hash = self.hidden.hash(&entry.key);
        let alive = self.visible.get().and_then(Weak::upgrade).is_some_and(|visible| visible.find(graph, hash, &entry.key).is_some());
        if !alive && let Some((slot, version)) = self.hidden.find(graph, hash, &entry.key) {
            graph.commit_by(smallvec::smallvec![Root::Forget { slot, version }], &By::Engine);
        }
    }

    /// The entry of a key that has been asked for.
    pub(crate) fn entry(&self, graph: &Graph, hash: u64, key: &K) -> Option<Arc<Entry<K, V>>> {
        let (slot, version) = self.visible.get()?.upgrade()?.find(graph, hash, key)?;
        lock(&self.entries).get(&slot).filter(|entry| entry.version == version).cloned()
    }
}

/// A pass on its way: it holds the graph only while it runs.
pub(crate) struct Pass<K: Key, V: Value> {
    merge: Arc<Consolidation<K, V>>,
    entry: Arc<Entry<K, V>>,
    ended: bool,
}

impl<K: Key, V: Value> Pass<K, V> {
    pub(crate) fn new(merge: Arc<Consolidation<K, V>>, entry: Arc<Entry<K, V>>) -> Pass<K, V> {
        Pass { merge, entry, ended: false }
    }

    pub(crate) async fn run(mut self) {
        while let Some(graph) = self.merge.graph.upgrade() {
            {
                let mut turn = lock(&self.entry.turn);
                (turn.marked, turn.moved) = (false, false);
            }
            let end = self.merge.pass(&graph, &self.entry).await;
            if !self.merge.close(&graph, &self.entry, end) {
                break;
            }
        }
        self.ended = true;
    }
}

impl<K: Key, V: Value> Drop for Pass<K, V> {
    /// Dropped half-way (an executor that is shut down, a panic of a key's `Hash`): nobody keeps the visible value up to date.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Some(graph) = self.merge.graph.upgrade() else { return };
        self.entry.rest(&graph, lock(&self.entry.turn), true);
        self.merge.end_value(&graph, &self.entry);
    }
}

impl Graph {
    /// What readers of a node without dependencies get, once a flight that may be under way is over.
    async fn served(self: &Arc<Graph>, slot: u32, version: u32) -> Shown {
        let mut backoff = Backoff::default();
        loop {
            let head = self.head(slot);
            if !head.is_live() || head.version() != version {
                return Shown::Gone;
            }
            match head.state() {
                State::Consistent => return Shown::Value(head),
                State::Computing if !head.has(DOOMED) => {
                    if let Some(joined) = self.join(slot, head) {
                        joined.await;
                    }
                }
                State::Verifying | State::Publishing => backoff.wait(),
                State::Evicted => return Shown::Evicted,
                State::Empty | State::Stale | State::Pending | State::Computing => return Shown::Nothing,
            }
        }
    }

    /// The result of this flight is to be stored as stale.
    fn doom(&self, (slot, epoch): FlightKey) {
        let mut now = self.head(slot);
        while now.state() == State::Computing && now.epoch() == epoch && !now.has(DOOMED) {
            match self.swing(slot, now, now.with(DOOMED)) {
                Ok(()) => return,
                Err(other) => now = other,
            }
        }
    }
}
