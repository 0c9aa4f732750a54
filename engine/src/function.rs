//! A registered function without its handle: its key table, its slots, its rules.

use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::capacity::Budget;
use crate::collector::Retired;
use crate::column::CHUNK;
use crate::cx::Cx;
use crate::deps::DepList;
use crate::evict::{Bounds, Verdict};
use crate::expire::Life;
use crate::fault::Fault;
use crate::flight::FlightKey;
use crate::graph::{AnyFunction, Ended, Graph, Refresh};
use crate::hit::{Reader, holds, look, take};
use crate::key::{BoxedKey, Hashing, Key, Lookup, is_word, key_from_word};
use crate::memory::FunctionMemory;
use crate::node::{HAS_VALUE, Head, LAST_VERSION, Row, State};
use crate::region::Base;
use crate::stats::{FunctionStats, Tally};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Backoff, Mutex, Weak, lock};
use crate::table::{Table, Writer};
use crate::timer::Due;
use crate::value::{Value, is_primitive, pointer};

/// Dense number of a registered function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub(crate) u32);

impl FunctionId {
    /// The number: functions are counted from 0 in the order of registration.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// How a recomputed value is compared with the one it replaces.
pub(crate) enum CutOff<V> {
    Never,
    Eq(fn(&V, &V) -> bool),
    By(Box<Comparison<V>>),
}

type Comparison<V> = dyn Fn(&V, &V) -> bool + Send + Sync;

impl<V> CutOff<V> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            CutOff::Never => "never",
            CutOff::Eq(_) => "eq",
            CutOff::By(_) => "custom",
        }
    }

    pub(crate) fn same(&self, old: &V, new: &V) -> bool {
        match self {
            CutOff::Never => false,
            CutOff::Eq(eq) => eq(old, new),
            CutOff::By(by) => by(old, new),
        }
    }

    pub(crate) fn compares(&self) -> bool {
        !matches!(self, CutOff::Never)
    }
}

/// The future of an asynchronous body.
pub(crate) type ValueFuture<V> = std::pin::Pin<Box<dyn Future<Output = V> + Send>>;

type SyncBody<K, V> = dyn Fn(&Cx, &K) -> V + Send + Sync;
type AsyncBody<K, V> = dyn Fn(Cx, K) -> ValueFuture<V> + Send + Sync;

/// The user's code. Owned by `Engine` alone.
pub(crate) enum Body<K, V> {
    Sync(Box<SyncBody<K, V>>),
    Async(Box<AsyncBody<K, V>>),
}

/// A body that stays while it runs.
pub(crate) enum Lease<'b, B> {
    Borrowed(&'b B),
    Owned(Arc<B>),
}

impl<B> std::ops::Deref for Lease<'_, B> {
    type Target = B;
    fn deref(&self) -> &B {
        match self {
            Lease::Borrowed(body) => body,
            Lease::Owned(body) => body,
        }
    }
}

pub(crate) struct KeyLimit<K> {
    pub(crate) bytes: usize,
    pub(crate) measure: fn(&K) -> usize,
}

/// Where a key is.
pub(crate) enum Place {
    /// Its slot and version.
    Known(u32, u32),
    /// Made by this call, with this head.
    Born(u32, Head),
}

/// What a function is registered with.
pub(crate) struct Traits<K, V> {
    pub(crate) source: bool,
    pub(crate) cut_off: CutOff<V>,
    pub(crate) inline: bool,
    pub(crate) key_limit: Option<KeyLimit<K>>,
    pub(crate) life: Life<V>,
    pub(crate) bounds: Option<Bounds<K, V>>,
}

/// A function's part of the graph. What a hit needs is here, the graph's own parts copied, so that it follows one pointer.
pub(crate) struct FnData<K, V> {
    hashing: Hashing,
    pub(crate) table: Table,
    /// The graph's hot rows.
    rows: Base<Row>,
    /// Limits that concern it: a hit leaves its trace for the evicting hand.
    pub(crate) bounds: Option<Bounds<K, V>>,
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) source: bool,
    pub(crate) cut_off: CutOff<V>,
    pub(crate) inline: bool,
    pub(crate) key_limit: Option<KeyLimit<K>>,
    pub(crate) life: Life<V>,
    body: OnceLock<Weak<Body<K, V>>>,
    pub(crate) computes: Tally,
    /// How many inserts there have ever been: unchanged means that a search made before is still right.
    inserted: AtomicU64,
    pub(crate) slots: Mutex<Slots>,
    types: PhantomData<fn(K) -> V>,
}

/// The writer's side of the key table and the slots of the function. User code never runs under this lock.
pub(crate) struct Slots {
    pub(crate) writer: Writer,
    next: u32,
    end: u32,
    pub(crate) free: Vec<u32>,
}

impl<K: Key, V: Value> FnData<K, V> {
    /// Room for `most` keys in the columns at `rows`.
    /// `None`: no memory for its key table.
    pub(crate) fn new(id: u32, name: String, traits: Traits<K, V>, hashing: Hashing, rows: Base<Row>, most: usize) -> Option<FnData<K, V>> {
        let (table, writer) = Table::new(most)?;
        let Traits { source, cut_off, inline, key_limit, life, bounds } = traits;
        Some(FnData {
            hashing,
            table,
            rows,
            bounds,
            id,
            name,
            source,
            cut_off,
            inline: inline || is_primitive::<V>(),
            key_limit,
            life,
            body: OnceLock::new(),
            computes: Tally::new(),
            inserted: AtomicU64::new(0),
            slots: Mutex::new(Slots { writer, next: 0, end: 0, free: Vec::new() }),
            types: PhantomData,
        })
    }

    /// Called once, at registration.
    pub(crate) fn set_body(&self, body: Weak<Body<K, V>>) {
        let _ = self.body.set(body);
    }

    /// The user's code, unless the engine is gone. Two locked instructions, unless the engine is held by a borrow.
    pub(crate) fn body(&self, held: bool) -> Option<Lease<'_, Body<K, V>>> {
        let body = self.body.get()?;
        if held {
            // SAFETY: [held-body] `Engine` owns the body and never gives it up before its own end; the asker's caller borrows one
            // until the read is over, which is after the lease: so the strong count is not zero.
            Some(Lease::Borrowed(unsafe { &*body.as_ptr() }))
        } else {
            body.upgrade().map(Lease::Owned)
        }
    }

    #[inline(always)]
    pub(crate) fn hash<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> u64 {
        self.hashing.of::<K, Q>(key)
    }

    /// Whether values live in the value word. The first half is a constant for primitives.
    #[inline(always)]
    pub(crate) fn is_inline(&self) -> bool {
        is_primitive::<V>() || self.inline
    }

    /// Whether a result is a word about which no user code has anything to say.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.is_inline() && !self.cut_off.compares() && !self.life.is_limited() && self.bounds.is_none()
    }

    /// Whether a hit needs no pin at all: nothing it touches is ever freed before the engine.
    #[inline(always)]
    pub(crate) fn needs_no_pin(&self) -> bool {
        is_word::<K>() && self.is_inline()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.slots).writer.len()
    }

    /// What reads go through, in registers where a batch keeps it. The graph, which is borrowed, has the rows.
    #[inline(always)]
    pub(crate) fn reader<'g>(&'g self, _graph: &'g Graph) -> Reader<'g, K, V> {
        Reader { function: self, homes: self.table.homes(), words: self.hashing.words(), rows: self.rows.clone() }
    }

    /// The hit path: one bucket, one row. Returns (value word, slot, epoch) of a consistent node.
    #[inline(always)]
    pub(crate) fn hit<Q: ?Sized + Lookup<K>>(&self, graph: &Graph, hash: u64, key: &Q) -> Option<(u64, u32, u32)> {
        let reader = self.reader(graph);
        let (row, slot, head) = reader.find(hash, key)?;
        let word = take(row, head)?;
        self.touch(slot);
        Some((word, slot, head.epoch()))
    }

    /// The node was read.
    #[inline(always)]
    pub(crate) fn touch(&self, slot: u32) {
        if let Some(bounds) = &self.bounds {
            bounds.touch(slot);
        }
    }

    /// The node was read after it was brought up to date.
    pub(crate) fn touch_kept(&self, slot: u32) {
        if let Some(bounds) = &self.bounds {
            bounds.touch_kept(slot);
        }
    }

    /// The slot of a key that is not in its home bucket, or 0. A number comes back in a register: nothing of the hit path is
    /// spilled for the sake of this.
    #[cold]
    #[inline(never)]
    pub(crate) fn slot_beyond<Q: ?Sized + Lookup<K>>(&self, rows: &Base<Row>, hash: u64, key: &Q) -> u32 {
        self.table.find(hash, |slot| look::<K, Q>(rows, slot, key)).map_or(0, |(_, slot, _)| slot)
    }

    /// The key's slot and version, whatever its state.
    pub(crate) fn find<Q: ?Sized + Lookup<K>>(&self, graph: &Graph, hash: u64, key: &Q) -> Option<(u32, u32)> {
        let _pin = (!is_word::<K>()).then(|| graph.collector.section());
        self.table.find(hash, |slot| {
            let head = graph.head(slot);
            (head.is_live()
                && holds::<K, Q>(graph.row(slot).key.load(Ordering::Acquire), key)
                && graph.head(slot).version() == head.version())
            .then(|| (slot, head.version()))
        })
    }

    /// `find` for who tells of a change: a miss means that whoever makes the key's node later sees what was done before.
    ///
    /// Without the lock the miss could be older than a change still in this core's store buffer, and a body that runs at the
    /// same time could read what was there before it, unmarked.
    pub(crate) fn find_changed<Q: ?Sized + Lookup<K>>(&self, graph: &Graph, hash: u64, key: &Q) -> Option<(u32, u32)> {
        self.find(graph, hash, key).or_else(|| {
            drop(lock(&self.slots));
            self.find(graph, hash, key)
        })
    }

    /// The key's node, made if there is none.
    pub(crate) fn find_or_insert<Q: ?Sized + Lookup<K>>(&self, graph: &Graph, hash: u64, key: &Q) -> Result<(u32, u32), Fault> {
        let seen = self.inserted();
        if let Some(found) = self.find(graph, hash, key) {
            return Ok(found);
        }
        match self.insert(graph, hash, key, State::Empty, seen)? {
            Place::Known(slot, version) => Ok((slot, version)),
            Place::Born(slot, head) => Ok((slot, head.version())),
        }
    }

    /// To be asked before a search whose miss leads to `insert`.
    pub(crate) fn inserted(&self) -> u64 {
        // Acquire: whoever sees the number sees the insert.
        self.inserted.load(Ordering::Acquire)
    }

    /// Makes a node for a key that a search since `seen` has not found, unless somebody was faster. It starts in the given
    /// state: `Computing` saves a synchronous flight its claim.
    pub(crate) fn insert<Q: ?Sized + Lookup<K>>(
        &self,
        graph: &Graph,
        hash: u64,
        key: &Q,
        state: State,
        mut seen: u64,
    ) -> Result<Place, Fault> {
        // User code (`Clone`, the measure) before the lock.
        let boxed = if is_word::<K>() && self.key_limit.is_none() { None } else { self.own_key(hash, key)? };
        loop {
            // `Eq` is user code and must not run under the lock: a search counts only if nobody inserted since before it.
            let mut slots = lock(&self.slots);
            // Relaxed: written under the lock.
            let now = self.inserted.load(Ordering::Relaxed);
            if now != seen {
                seen = now;
                drop(slots);
                if let Some((slot, version)) = self.find(graph, hash, key) {
                    return Ok(Place::Known(slot, version));
                }
                continue;
            }
            let prefetch = |slot: u32| graph.columns.prefetch(slot);
            if !self.table.make_room(&mut slots.writer, |slot| self.stored_hash(graph, slot), prefetch) {
                return Err(Fault::Full);
            }
            let slot = self.take_slot(graph, &mut slots).ok_or(Fault::Full)?;
            let word = match boxed {
                Some(boxed) => Box::into_raw(boxed).expose_provenance() as u64,
                None => key.word(),
            };
            let head = self.birth(graph, slot, word, state);
            self.table.insert(&mut slots.writer, hash, slot);
            // Release: the insert before its number.
            self.inserted.store(now + 1, Ordering::Release);
            if let Some(bounds) = &self.bounds {
                bounds.admit(graph, slot, head.version());
            }
            return Ok(Place::Born(slot, head));
        }
    }

    /// The key to keep, if it is not too large; `None` for one that fits its word.
    fn own_key<Q: ?Sized + Lookup<K>>(&self, hash: u64, key: &Q) -> Result<Option<Box<BoxedKey<K>>>, Fault> {
        let owned = key.to_key();
        if let Some(limit) = &self.key_limit {
            let bytes = (limit.measure)(&owned);
            if bytes > limit.bytes {
                return Err(Fault::KeyTooLarge { function: self.name.clone(), bytes, limit: limit.bytes });
            }
        }
        Ok((!is_word::<K>()).then(|| Box::new(BoxedKey { hash, key: owned })))
    }

    /// A free slot becomes this key's node, without a value.
    fn birth(&self, graph: &Graph, slot: u32, key: u64, state: State) -> Head {
        let (row, warm) = (graph.row(slot), graph.warm(slot));
        let free = graph.head(slot);
        let empty = Head::new(State::Empty, free.version() + 1, free.epoch() + 1);
        // Release: whoever meets the key meets its box, and the head that freed the slot.
        row.key.store(key, Ordering::Release);
        // Relaxed (both): published by the head's Release store.
        warm.flags.store(0, Ordering::Relaxed);
        // Every edge to the slot's former tenant is older than this epoch, and so shows a change.
        warm.changed.store(empty.epoch(), Ordering::Relaxed);
        let head = if state == State::Empty { empty } else { empty.next_flight(state) };
        // Release: the columns before the head.
        row.head.store(head.0, Ordering::Release);
        head
    }

    fn take_slot(&self, graph: &Graph, slots: &mut Slots) -> Option<u32> {
        if let Some(slot) = slots.free.pop() {
            return Some(slot);
        }
        if slots.next == slots.end {
            slots.next = graph.columns.chunk(self.id)?;
            slots.end = slots.next + CHUNK as u32;
        }
        slots.next += 1;
        Some(slots.next - 1)
    }

    /// The hash of a key in the table, without user code.
    pub(crate) fn stored_hash(&self, graph: &Graph, slot: u32) -> u64 {
        let word = graph.row(slot).key.load(Ordering::Relaxed);
        if is_word::<K>() {
            self.hashing.words().of(word)
        } else {
            // SAFETY: [pinned-key] called under the slots lock for slots in the table: their boxes are retired only after
            // they left it, under the same lock.
            unsafe { (*pointer::<BoxedKey<K>>(word)).hash }
        }
    }

    /// A copy of the node's key. Runs the user's `Clone`.
    pub(crate) fn key(&self, graph: &Graph, slot: u32, version: u32) -> Option<K> {
        let _pin = (!is_word::<K>()).then(|| graph.collector.section());
        let word = graph.row(slot).key.load(Ordering::Acquire);
        if graph.head(slot).version() != version {
            return None;
        }
        if is_word::<K>() {
            // SAFETY: [word-key] the row's word was made from a `K` of this function.
            Some(unsafe { key_from_word(word) })
        } else {
            // SAFETY: [pinned-key] the version was right after the word was read, so the box is retired after this pin at
            // the earliest.
            Some(unsafe { (*pointer::<BoxedKey<K>>(word)).key.clone() })
        }
    }

    /// A copy of the value the node holds from the given epoch (whatever its marks), if it still does.
    pub(crate) fn value_at(&self, graph: &Graph, slot: u32, version: u32, epoch: u32) -> Option<V> {
        let _pin = (!self.is_inline()).then(|| graph.collector.section());
        let settled = |head: Head| {
            head.version() == version && head.epoch() == epoch && matches!(head.state(), State::Consistent | State::Pending | State::Stale)
        };
        if !settled(graph.head(slot)) || graph.warm(slot).flags.load(Ordering::Acquire) & HAS_VALUE == 0 {
            return None;
        }
        let word = graph.row(slot).value.load(Ordering::Acquire);
        // The value word changes only in an owner's hands, and an owner has moved the epoch on.
        // SAFETY: [pinned-value] re-checked after the load, under a pin.
        settled(graph.head(slot)).then(|| unsafe { self.clone_word(word) })
    }

    /// # Safety
    /// `word` is a value word of this function, read under a pin that is still held (or inline).
    #[inline(always)]
    pub(crate) unsafe fn clone_word(&self, word: u64) -> V {
        // SAFETY: [pinned-value] the caller's promise.
        unsafe { crate::value::Read::<V>::new(word, self.is_inline()) }.clone()
    }

    /// Forgets what is in the value, key and dependency columns of a slot that has left the table.
    pub(crate) fn empty_columns(&self, graph: &Graph, slot: u32, retire: &mut dyn FnMut(Retired)) {
        let (row, warm) = (graph.row(slot), graph.warm(slot));
        if warm.flags.swap(0, Ordering::Relaxed) & HAS_VALUE != 0
            // Release: a reader that meets the 0 meets the free head too, and its re-check fails (found by loom).
            && let Some(retired) = self.retired_value(row.value.swap(0, Ordering::Release))
        {
            retire(retired);
        }
        // Release: whoever meets the 0, which is a key, meets the free head.
        let key = row.key.swap(0, Ordering::Release);
        if !is_word::<K>() && key != 0 {
            // SAFETY: [retire] the word is out of the row and of the table; readers that saw it hold pins.
            retire(unsafe { Retired::boxed(pointer::<BoxedKey<K>>(key)) });
        }
        let deps = warm.deps.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if !deps.is_null() {
            // SAFETY: [owned-deps] as above for the dependency list.
            retire(unsafe { DepList::retire(deps) });
        }
    }
}

impl<K: Key, V: Value> AnyFunction for FnData<K, V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_source(&self) -> bool {
        self.source
    }

    fn refresh(self: Arc<Self>, graph: &Arc<Graph>, slot: u32, head: Head, held: bool) -> Refresh {
        let Some(body) = self.body(held) else { return Refresh::Ran(Err(Fault::Gone)) };
        match &*body {
            Body::Sync(_) => match graph.claim(slot, head) {
                None => Refresh::Moved,
                Some(flight) => {
                    Refresh::Ran(self.run(graph, slot, flight, &body, held).map(|ran| ran.map_or(Ended::Moved, |ran| ran.ended)))
                }
            },
            Body::Async(_) => match self.start(graph, slot, head) {
                None => Refresh::Moved,
                Some(flight) => Refresh::Started(flight),
            },
        }
    }

    fn slots(&self) -> Vec<u32> {
        let _slots = lock(&self.slots);
        self.table.slots()
    }

    fn forget(&self, graph: &Graph, slot: u32) -> Option<(u32, u32)> {
        let mut slots = lock(&self.slots);
        let mut backoff = Backoff::default();
        let mut now = graph.head(slot);
        let freed = loop {
            if !now.is_live() {
                return None;
            }
            // An owner is about to let go; what it writes until then would be lost.
            if matches!(now.state(), State::Publishing | State::Verifying) {
                backoff.wait();
                now = graph.head(slot);
                continue;
            }
            let freed = Head::new(State::Empty, now.version().wrapping_add(1) & LAST_VERSION, now.epoch().saturating_add(1));
            match graph.swing(slot, now, freed) {
                Ok(()) => break freed,
                Err(other) => now = other,
            }
        };
        // Before the slot is free: its next tenant's edges are not ours to take.
        let dependants = graph.edges.take(&graph.row(slot).rev);
        self.free_slot(graph, &mut slots, slot, freed);
        Some((dependants, now.epoch()))
    }

    fn drop_nodes(&self, graph: &Graph) {
        let mut waiting = Vec::new();
        for slot in self.slots() {
            self.empty_columns(graph, slot, &mut |retired| waiting.push(retired));
        }
        for retired in waiting {
            graph.collector.retire(retired);
        }
    }

    fn stats(&self, graph: &Graph) -> FunctionStats {
        let slots = lock(&self.slots);
        let nodes = slots.writer.len();
        let mut bytes = self.table.bytes() + nodes * (size_of::<crate::node::Row>() + size_of::<crate::node::Warm>());
        let (table, _pin) = (self.table.slots(), graph.collector.section());
        drop(slots);
        for slot in table {
            if !is_word::<K>() {
                bytes += size_of::<BoxedKey<K>>();
            }
            if !self.is_inline() && graph.warm(slot).flags.load(Ordering::Relaxed) & HAS_VALUE != 0 {
                bytes += size_of::<V>();
            }
            // SAFETY: [pinned-deps] read under the pin above.
            bytes += unsafe { DepList::borrow(graph.warm(slot).deps.load(Ordering::Acquire)) }.map_or(0, DepList::bytes);
        }
        FunctionStats {
            name: self.name.clone(),
            cut_off: self.cut_off.name(),
            nodes,
            bytes,
            table: self.table.bytes(),
            computes: self.computes.sum(),
        }
    }

    fn move_stamp(&self, graph: &Graph) {
        if let Some(bounds) = &self.bounds {
            bounds.move_stamp();
            graph.timers.arm(graph.timers.now() + bounds.quantum(), Due::Stamp { function: self.id });
        }
    }

    fn evict(&self, graph: &Graph, slot: u32, version: u32) -> Verdict {
        self.evict_node(graph, slot, version)
    }

    fn recount(&self, graph: &Graph) -> (u64, Option<(u64, u64)>) {
        let Some(bounds) = &self.bounds else { return (0, None) };
        let slots = self.slots();
        let shared = graph.budget.as_deref().and_then(|budget| bounds.recount(graph, &slots, Some(budget)));
        (shared.unwrap_or(0), bounds.own().map(Budget::used).zip(bounds.recount(graph, &slots, None)))
    }

    fn keep_within(&self, graph: &Arc<Graph>) {
        if let Some(bounds) = &self.bounds {
            bounds.keep_within(graph);
        }
    }

    fn refresh_ahead(self: Arc<Self>, graph: &Arc<Graph>, slot: u32, version: u32) {
        self.start_refresh(graph, slot, version);
    }

    fn set_weight(&self, graph: &Graph, slot: u32, weight: u32) {
        if let Some(bounds) = &self.bounds {
            bounds.set_weight(graph, slot, weight);
        }
    }

    fn memory(&self, graph: &Graph) -> FunctionMemory {
        let stats = self.stats(graph);
        // Relaxed (all): statistics.
        let has_value = |&slot: &u32| graph.warm(slot).flags.load(Ordering::Relaxed) & HAS_VALUE != 0;
        let own = self.bounds.as_ref().and_then(Bounds::own).filter(|budget| budget.high != u64::MAX);
        FunctionMemory {
            values: self.slots().iter().filter(|slot| has_value(slot)).count(),
            nodes: stats.nodes,
            bytes: stats.bytes + own.map_or(0, Budget::bytes),
            name: stats.name,
            used: own.map_or(0, Budget::used),
            capacity: own.map(|budget| budget.high),
            evicted: own.map_or(0, |budget| budget.evicted.load(Ordering::Relaxed)),
            stuck: own.map_or(0, |budget| budget.stuck.load(Ordering::Relaxed)),
        }
    }

    fn retired_value(&self, word: u64) -> Option<Retired> {
        if self.is_inline() {
            return None;
        }
        // SAFETY: [retire] the word was exposed from a box of `V` by this function and has left its row.
        Some(unsafe { Retired::boxed(pointer::<V>(word)) })
    }
}

impl<K, V> std::fmt::Debug for FnData<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

/// The flight a context belongs to.
pub(crate) fn flight_key(slot: u32, head: Head) -> FlightKey {
    (slot, head.epoch())
}
