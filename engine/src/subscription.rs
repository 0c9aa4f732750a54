//! What a consolidated function keeps for each visible node: its subscription to the hidden one, and whose turn it is.

use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use slotmap::DefaultKey;

use crate::consolidate::{Consolidation, Pass};
use crate::deps::UNSTORED;
use crate::flight::wake;
use crate::graph::Graph;
use crate::key::Key;
use crate::node::{Head, State};
use crate::sync::{Arc, Mutex, MutexGuard, Weak, fault, lock};
use crate::value::Value;

/// Passes in a row that met a mark before they had subscribed; then the visible value ends instead: it may not stay behind for good.
const PATIENCE: u32 = 16;

/// One visible node that somebody has asked for.
pub(crate) struct Entry<K, V> {
    merge: Weak<Consolidation<K, V>>,
    pub(crate) key: K,
    pub(crate) slot: u32,
    pub(crate) version: u32,
    pub(crate) turn: Mutex<Turn>,
}

pub(crate) struct Turn {
    pub(crate) phase: Phase,
    /// During the pass the subscribed generation was marked.
    pub(crate) marked: bool,
    /// During the pass a visible body began.
    pub(crate) moved: bool,
    /// Passes in a row without a subscription.
    failures: u32,
    /// The subscription: the hidden slot, the epoch and the watcher's number.
    armed: Option<(u32, u32, u64)>,
    idle: Vec<Waker>,
}

pub(crate) enum Phase {
    Idle,
    /// Until the delay is over.
    Waiting(DefaultKey),
    Working,
}

impl<K: Key, V: Value> Entry<K, V> {
    pub(crate) fn new(merge: &Arc<Consolidation<K, V>>, key: K, (slot, version): (u32, u32)) -> Arc<Entry<K, V>> {
        let turn = Turn { phase: Phase::Idle, marked: false, moved: false, failures: 0, armed: None, idle: Vec::new() };
        Arc::new(Entry { merge: Arc::downgrade(merge), key, slot, version, turn: Mutex::new(turn) })
    }

    /// Subscribes to a hidden generation; `false` if it has been marked. An older subscription gives way to a newer one only.
    pub(crate) fn arm(self: &Arc<Self>, graph: &Graph, (slot, version, epoch): (u32, u32, u32)) -> bool {
        let watcher = graph.watchers.number();
        let waker = Waker::from(self.clone());
        let mut turn = lock(&self.turn);
        let seen = Head::new(State::Consistent, version, epoch);
        if epoch == UNSTORED || !graph.watch(slot, seen, watcher, &waker) {
            return fault!("subscribe_unchecked");
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

    pub(crate) fn has_patience(&self) -> bool {
        let mut turn = lock(&self.turn);
        turn.failures += 1;
        turn.failures < PATIENCE
    }

    /// No pass is under way any more. `ends`: nothing is served either, so no mark matters.
    pub(crate) fn rest(&self, graph: &Graph, mut turn: MutexGuard<'_, Turn>, ends: bool) {
        turn.phase = Phase::Idle;
        let idle = std::mem::take(&mut turn.idle);
        let spare = if ends { turn.armed.take() } else { None };
        drop(turn);
        if let Some((slot, _, watcher)) = spare {
            graph.unwatch(slot, watcher);
        }
        wake(idle.into_iter());
    }

    pub(crate) fn wait(self: &Arc<Self>, graph: &Graph, delay: Duration) -> Phase {
        let at = graph.timers.after(delay);
        Phase::Waiting(graph.timers.sleeper(at, &Waker::from(Arc::new(Over(self.clone())))))
    }

    fn start(self: &Arc<Self>, merge: Arc<Consolidation<K, V>>, graph: &Graph) {
        graph.in_background(Box::pin(Pass::new(merge, self.clone()).run()));
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

/// The end of a consolidation: see [`Handle::when_consolidated`](crate::Handle::when_consolidated).
#[must_use = "a wait does nothing until it is awaited"]
pub struct Consolidated(Option<(Arc<Graph>, Arc<dyn Quiet>)>);

impl Consolidated {
    pub(crate) fn new<K: Key, V: Value>(graph: &Arc<Graph>, entry: Option<Arc<Entry<K, V>>>) -> Consolidated {
        Consolidated(entry.map(|entry| (graph.clone(), entry as Arc<dyn Quiet>)))
    }
}

impl std::fmt::Debug for Consolidated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consolidated").finish_non_exhaustive()
    }
}

impl Future for Consolidated {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0 {
            Some((graph, entry)) if !entry.is_idle_or(graph, cx.waker()) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

trait Quiet: Send + Sync {
    /// Whether no pass is under way; keeps the waker if one is.
    fn is_idle_or(&self, graph: &Graph, waker: &Waker) -> bool;
}

impl<K: Key, V: Value> Quiet for Entry<K, V> {
    fn is_idle_or(&self, graph: &Graph, waker: &Waker) -> bool {
        // An executor's code, so before the lock.
        let waker = waker.clone();
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
