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
use std::task::{Wake, Waker};
use std::time::Duration;

use slotmap::DefaultKey;

use crate::compute::Miss;
use crate::cut_off::CutOff;
use crate::cx::{Ask, Cx};
use crate::define::Options;
use crate::engine::Engine;
use crate::expire::Life;
use crate::fault::{Fault, RegisterError, raise};
use crate::flight::{FlightKey, drop_quietly, wake};
use crate::function::{Body, FnData};
use crate::graph::Graph;
use crate::handle::Handle;
use crate::key::Key;
use crate::node::{DOOMED, Head, State};
use crate::sweep::Root;
use crate::sync::{Arc, Backoff, Mutex, Weak, lock};
use crate::value::{Value, expose, to_word};
use crate::verify::WORN;

/// Passes in a row that met a mark before they had subscribed; then the visible value ends instead: it may not stay behind for good.
const PATIENCE: u32 = 16;

/// What ties a visible function to its hidden one.
pub(crate) struct Consolidation<K, V> {
    graph: Weak<Graph>,
    pub(crate) hidden: Arc<FnData<K, V>>,
    /// Set once, at registration.
    visible: OnceLock<Weak<FnData<K, V>>>,
    delay: Duration,
    /// By the slot of the visible node.
    entries: Mutex<Entries<K, V>>,
}

type Entries<K, V> = HashMap<u32, Arc<Entry<K, V>>, ahash::RandomState>;

/// One visible node that somebody has asked for.
pub(crate) struct Entry<K, V> {
    merge: Weak<Consolidation<K, V>>,
    key: K,
    slot: u32,
    version: u32,
    turn: Mutex<Turn>,
}

struct Turn {
    phase: Phase,
    /// During the pass the subscribed generation was marked.
    marked: bool,
    /// During the pass a visible body began.
    moved: bool,
    /// Passes in a row without a subscription.
    failures: u32,
    /// The subscription: the hidden slot, the epoch and the watcher's number.
    armed: Option<(u32, u32, u64)>,
    idle: Vec<Waker>,
}

enum Phase {
    Idle,
    /// Until the delay is over.
    Waiting(DefaultKey),
    Working,
}

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
    let Options { cut_off, inline, key_limit, life, .. } = options;
    if !cut_off.compares() {
        return Err(RegisterError::NeedsCutOff { name, option: OPTION });
    }
    let asynchronous = matches!(body, Body::Async(_));
    if asynchronous && engine.graph().spawner.is_none() {
        return Err(RegisterError::NeedsSpawner { name, option: OPTION });
    }
    engine.check_name(&name)?;
    // Rules about time are about what the body makes. The visible rule does the comparing; keys that are too large do not get here.
    let hidden = Options { cut_off: CutOff::Never, inline, key_limit: None, life, consolidate: None };
    let hidden = engine.register(format!("~{name}"), false, hidden, body)?;
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
    let visible = Options { cut_off, inline, key_limit, life: Life::default(), consolidate: None };
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
        let seen = match graph.shown(entry.slot, entry.version).await {
            Shown::Value(head) => head,
            Shown::Nothing => return End::Over,
            Shown::Gone => {
                self.release(graph, entry.slot, entry.version);
                return End::Over;
            }
        };
        let (slot, version, (value, epoch)) = match self.fresh(graph, &entry.key, None).await {
            Ok(fresh) => fresh,
            Err(Fault::Gone) => return End::Over,
            Err(_) => return entry.end_value(graph),
        };
        if epoch == crate::deps::UNSTORED {
            // It could not be kept, so there is nothing to subscribe to.
            drop_quietly(value);
            return entry.end_value(graph);
        }
        if !entry.arm(graph, (slot, version, epoch)) {
            drop_quietly(value);
            return if entry.has_patience() { End::Marked } else { entry.end_value(graph) };
        }
        let compared = catch_unwind(AssertUnwindSafe(|| {
            if visible.is_unchanged(graph, entry.slot, seen, &value) {
                return None;
            }
            Some(if visible.is_inline() { to_word(&value) } else { expose(value) })
        }));
        match compared {
            Ok(None) => {
                crate::stats::add(&graph.counters.mine().cut_offs, 1);
                graph.note(crate::log::What::CutOff, entry.slot);
            }
            Ok(Some(word)) => {
                graph.commit(smallvec::smallvec![Root::Replace { slot: entry.slot, seen, word }]);
                if seen.epoch() >= WORN {
                    // Readers move the key to a slot with epochs left.
                    return entry.end_value(graph);
                }
            }
            // The comparison panicked: nobody knows whether the value changed.
            Err(_) => return entry.end_value(graph),
        }
        End::Kept
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
        turn.phase = Phase::Idle;
        let idle = std::mem::take(&mut turn.idle);
        let spare = if end == End::Over { turn.armed.take() } else { None };
        drop(turn);
        if let Some((slot, _, watcher)) = spare {
            graph.unwatch(slot, watcher);
        }
        wake(idle.into_iter());
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
        let (armed, timer, idle) = {
            let mut turn = lock(&entry.turn);
            let timer = if let Phase::Waiting(timer) = turn.phase { Some(timer) } else { None };
            if timer.is_some() {
                turn.phase = Phase::Idle;
            }
            let idle = if matches!(turn.phase, Phase::Idle) { std::mem::take(&mut turn.idle) } else { Vec::new() };
            (turn.armed.take(), timer, idle)
        };
        if let Some((slot, _, watcher)) = armed {
            graph.unwatch(slot, watcher);
        }
        if let Some(timer) = timer {
            graph.timers.forget(timer);
        }
        wake(idle.into_iter());
        // The key may have a new visible node by now, which lives by the same hidden one.
        let hash = self.hidden.hash(&entry.key);
        let alive = self.visible.get().and_then(Weak::upgrade).is_some_and(|visible| visible.find(graph, hash, &entry.key).is_some());
        if !alive && let Some((slot, version)) = self.hidden.find(graph, hash, &entry.key) {
            graph.commit(smallvec::smallvec![Root::Forget { slot, version }]);
        }
    }

    /// The entry of a key that has been asked for.
    pub(crate) fn entry(&self, graph: &Graph, hash: u64, key: &K) -> Option<Arc<Entry<K, V>>> {
        let (slot, version) = self.visible.get()?.upgrade()?.find(graph, hash, key)?;
        lock(&self.entries).get(&slot).filter(|entry| entry.version == version).cloned()
    }
}

impl<K: Key, V: Value> Entry<K, V> {
    fn new(merge: &Arc<Consolidation<K, V>>, key: K, (slot, version): (u32, u32)) -> Arc<Entry<K, V>> {
        let turn = Turn { phase: Phase::Idle, marked: false, moved: false, failures: 0, armed: None, idle: Vec::new() };
        Arc::new(Entry { merge: Arc::downgrade(merge), key, slot, version, turn: Mutex::new(turn) })
    }

    /// Subscribes to a hidden generation; `false` if it has been marked. An older subscription gives way to a newer one only.
    fn arm(self: &Arc<Self>, graph: &Graph, (slot, version, epoch): (u32, u32, u32)) -> bool {
        let watcher = graph.watchers.number();
        let waker = Waker::from(self.clone());
        let mut turn = lock(&self.turn);
        let seen = Head::new(State::Consistent, version, epoch);
        if epoch == crate::deps::UNSTORED || !graph.watch(slot, seen, watcher, &waker) {
            return false;
        }
        turn.failures = 0;
        if let Some((slot, _, former)) = turn.armed.replace((slot, epoch, watcher)) {
            graph.unwatch(slot, former);
        }
        // Who found the former generation marked waits for a pass that may not come now.
        let idle = if matches!(turn.phase, Phase::Idle) { std::mem::take(&mut turn.idle) } else { Vec::new() };
        drop(turn);
        wake(idle.into_iter());
        true
    }

    fn has_patience(&self) -> bool {
        let mut turn = lock(&self.turn);
        turn.failures += 1;
        turn.failures < PATIENCE
    }

    /// The safe way out: nothing is served until somebody asks.
    fn end_value(&self, graph: &Arc<Graph>) -> End {
        graph.commit(smallvec::smallvec![Root::Stale { slot: self.slot, version: self.version }]);
        End::Over
    }

    fn wait(self: &Arc<Self>, graph: &Graph, delay: Duration) -> Phase {
        let at = graph.timers.after(delay);
        Phase::Waiting(graph.timers.sleeper(at, &Waker::from(Arc::new(Over(self.clone())))))
    }

    fn start(self: &Arc<Self>, merge: Arc<Consolidation<K, V>>, graph: &Graph) {
        let pass = Pass { merge, entry: self.clone(), ended: false };
        graph.in_background(Box::pin(pass.run()));
    }
}

/// A mark of the hidden generation subscribed to. Called by the thread that committed, without a lock.
impl<K: Key, V: Value> Wake for Entry<K, V> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(merge) = self.merge.upgrade() else { return };
        let Some(graph) = merge.graph.upgrade() else { return };
        let mut turn = lock(&self.turn);
        match turn.phase {
            Phase::Waiting(_) => {}
            Phase::Working => turn.marked = true,
            Phase::Idle if merge.delay.is_zero() => {
                turn.phase = Phase::Working;
                drop(turn);
                self.start(merge, &graph);
            }
            Phase::Idle => turn.phase = self.wait(&graph, merge.delay),
        }
    }
}

/// The delay is over.
struct Over<K, V>(Arc<Entry<K, V>>);

impl<K: Key, V: Value> Wake for Over<K, V> {
    fn wake(self: Arc<Self>) {
        let entry = &self.0;
        let Some(merge) = entry.merge.upgrade() else { return };
        let Some(graph) = merge.graph.upgrade() else { return };
        let timer = {
            let mut turn = lock(&entry.turn);
            let Phase::Waiting(timer) = turn.phase else { return };
            turn.phase = Phase::Working;
            timer
        };
        graph.timers.forget(timer);
        entry.start(merge, &graph);
    }
}

/// A pass on its way: it holds the graph only while it runs.
struct Pass<K: Key, V: Value> {
    merge: Arc<Consolidation<K, V>>,
    entry: Arc<Entry<K, V>>,
    ended: bool,
}

impl<K: Key, V: Value> Pass<K, V> {
    async fn run(mut self) {
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
        let idle = {
            let mut turn = lock(&self.entry.turn);
            turn.phase = Phase::Idle;
            std::mem::take(&mut turn.idle)
        };
        if let Some(graph) = self.merge.graph.upgrade() {
            self.entry.end_value(&graph);
        }
        wake(idle.into_iter());
    }
}

impl Graph {
    /// What readers of a node without dependencies get, once a flight that may be under way is over.
    async fn shown(self: &Arc<Graph>, slot: u32, version: u32) -> Shown {
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

/// The end of a consolidation: see [`Handle::when_consolidated`].
#[must_use = "a wait does nothing until it is awaited"]
pub struct Consolidated(Option<Arc<dyn Quiet>>);

impl Consolidated {
    pub(crate) fn new(entry: Option<Arc<dyn Quiet>>) -> Consolidated {
        Consolidated(entry)
    }
}

impl std::fmt::Debug for Consolidated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consolidated").finish_non_exhaustive()
    }
}

impl Future for Consolidated {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        match &self.0 {
            Some(entry) if !entry.is_idle_or(cx.waker()) => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    }
}

pub(crate) trait Quiet: Send + Sync {
    /// Whether no pass is under way; keeps the waker if one is.
    fn is_idle_or(&self, waker: &Waker) -> bool;
}

impl<K: Key, V: Value> Quiet for Entry<K, V> {
    fn is_idle_or(&self, waker: &Waker) -> bool {
        // An executor's code, so before the lock.
        let waker = waker.clone();
        let Some(graph) = self.merge.upgrade().and_then(|merge| merge.graph.upgrade()) else { return true };
        let mut turn = lock(&self.turn);
        // A mark that another thread's sweep has made may not have been told yet.
        let told = turn.armed.is_none_or(|(slot, epoch, _)| {
            let head = graph.head(slot);
            head.is_consistent() && head.epoch() == epoch
        });
        if matches!(turn.phase, Phase::Idle) && told {
            return true;
        }
        // A second poll may leave a waker behind, which is woken for nothing.
        if !turn.idle.iter().any(|known| known.will_wake(&waker)) {
            turn.idle.push(waker);
        }
        false
    }
}
