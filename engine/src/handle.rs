//! The typed handle of a synchronous function, and what it shares with the other two kinds.

use std::ops::Deref;
use std::time::Duration;

use crate::compute::record;
use crate::computed::Computed;
use crate::cx::{Ask, Asker};
use crate::deps::Dep;
use crate::evict::Bounds;
use crate::fault::Fault;
use crate::fingerprint::Check;
use crate::function::{FnData, FunctionId};
use crate::graph::Graph;
use crate::key::{Key, Lookup};
use crate::pin::Pin;
use crate::read::{NodeId, NodeRef};
use crate::subscription::Consolidated;
use crate::sweep::Root;
use crate::sync::Arc;
use crate::value::{Read, Value};

/// Keys of a batched read that go through a stage together.
const GROUP: usize = 16;
/// Its stages: the bucket is asked for, the row is asked for, the value is read.
const STAGES: usize = 3;

/// The number of a commit: every invalidation and every batch gets one, in the order in which their sweeps finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CommitId(pub(crate) u64);

impl CommitId {
    /// The number; 0 before the first commit.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A registered function: ask it for values, tell it what changed.
///
/// This is what [`Function`] (which adds the synchronous reads), [`AsyncFunction`](crate::AsyncFunction) and
/// [`Source`] have in common; they all dereference to it. Cloning a handle is two reference counts.
pub struct Handle<K, V> {
    pub(crate) graph: Arc<Graph>,
    pub(crate) data: Arc<FnData<K, V>>,
}

impl<K, V> Clone for Handle<K, V> {
    fn clone(&self) -> Handle<K, V> {
        Handle { graph: self.graph.clone(), data: self.data.clone() }
    }
}

impl<K, V> std::fmt::Debug for Handle<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.data.fmt(f)
    }
}

impl<K: Key, V: Value> Handle<K, V> {
    /// Whether it is registered with this engine.
    pub fn is_of(&self, engine: &crate::Engine) -> bool {
        Arc::ptr_eq(&self.graph, engine.graph())
    }

    /// The name it was registered under.
    pub fn name(&self) -> &str {
        &self.data.name
    }

    /// Its number in the engine.
    pub fn id(&self) -> FunctionId {
        FunctionId(self.data.id)
    }

    /// How many keys have a node, with or without a value.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether no key has a node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    pub(crate) fn hash<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> u64 {
        self.data.hash(key)
    }

    /// The cached value if it is consistent, borrowed under the pin; never computes.
    ///
    /// One probe of the key table and one line of the node: no lock, no reference count, nothing written that another core
    /// reads. `None` if the value is missing or may be stale: then `get`.
    ///
    /// # Panics
    /// If the pin is another engine's.
    #[inline]
    pub fn peek<'p, Q: ?Sized + Lookup<K>>(&self, pin: &'p Pin<'_>, key: &Q) -> Option<Read<'p, V>> {
        pin.check(&self.graph);
        let (word, _, _) = self.data.hit(&self.graph, self.hash(key), key)?;
        pin.count_hit();
        // SAFETY: [pinned-value] `hit` re-checked the head after it read the word, and the pin was held before.
        Some(unsafe { Read::new(word, self.data.is_inline()) })
    }

    /// Calls `each` with every key's position and its cached value, or `None` where `peek` would say so; never computes.
    ///
    /// Loads run ahead in groups, so that a large table costs bandwidth instead of latency: faster than a plain map's `get`
    /// in a loop once the table outgrows the caches.
    ///
    /// # Panics
    /// If the pin is another engine's.
    #[inline]
    pub fn get_many<Q: Lookup<K>>(&self, pin: &Pin<'_>, keys: &[Q], mut each: impl FnMut(usize, Option<&V>)) {
        pin.check(&self.graph);
        let reader = self.data.reader(&self.graph);
        let mut hits = 0;
        let mut give = |at: usize, word: Option<u64>| match word {
            Some(word) => {
                hits += 1;
                // SAFETY: [pinned-value] as in `peek`.
                let read: Read<'_, V> = unsafe { Read::new(word, self.data.is_inline()) };
                each(at, Some(&read));
            }
            None => each(at, None),
        };
        if reader.is_wide() {
            // A pipeline of groups: buckets are asked for two groups ahead of their turn, rows one group ahead.
            let (mut hashes, mut slots) = ([[0u64; GROUP]; STAGES], [[0u32; GROUP]; STAGES]);
            let group = |turn: usize| keys.get(turn * GROUP..).map(|rest| &rest[..rest.len().min(GROUP)]);
            for turn in 0..keys.len().div_ceil(GROUP) + STAGES - 1 {
                if let Some(keys) = group(turn) {
                    for (hash, key) in hashes[turn % STAGES].iter_mut().zip(keys) {
                        *hash = reader.hash(key);
                        reader.prefetch_bucket(*hash);
                    }
                }
                if let Some(turn) = turn.checked_sub(1)
                    && let Some(keys) = group(turn)
                {
                    for (slot, &hash) in slots[turn % STAGES].iter_mut().zip(&hashes[turn % STAGES][..keys.len()]) {
                        *slot = reader.prefetch_row(hash);
                    }
                }
                if let Some(turn) = turn.checked_sub(2)
                    && let Some(keys) = group(turn)
                {
                    for (at, (key, &slot)) in keys.iter().zip(&slots[turn % STAGES]).enumerate() {
                        give(turn * GROUP + at, reader.word_at(slot, key));
                    }
                }
            }
        } else {
            // Everything is near: asking early costs more than it saves.
            for (at, key) in keys.iter().enumerate() {
                give(at, reader.word(reader.hash(key), key));
            }
        }
        pin.hits.set(pin.hits.get() + hits);
    }

    /// The key's node resolved, to skip the table from now on. `None` if the key has no node.
    pub fn node<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> Option<NodeRef<V>> {
        let (slot, version) = self.data.find(&self.graph, self.hash(key), key)?;
        Some(NodeRef::new(self.graph.clone(), slot, version, self.data.is_inline(), self.data.trace()))
    }

    /// The node behind an id that was kept, as [`node`](Handle::node) gives it for a key.
    ///
    /// # Errors
    /// [`Fault::UnknownNode`] if the id is not of a live node of this function: never another node's value.
    pub fn resolve(&self, id: NodeId) -> Result<NodeRef<V>, Fault> {
        let (slot, version) = (id.slot(), id.version());
        let ours = self.graph.columns.contains(slot) && self.graph.columns.owner(slot) == self.data.id;
        let head = if ours { Some(self.graph.head(slot)) } else { None };
        match head.filter(|head| head.is_live() && head.version() == version) {
            Some(_) => Ok(NodeRef::new(self.graph.clone(), slot, version, self.data.is_inline(), self.data.trace())),
            None => Err(Fault::UnknownNode { function: self.data.name.clone(), id }),
        }
    }

    /// The cached generation if it is consistent; never computes and records nothing.
    pub fn existing<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> Option<Computed<V>>
    where
        K: Key,
    {
        let (slot, version) = self.data.find(&self.graph, self.hash(key), key)?;
        let head = self.graph.head(slot);
        let value = self.data.value_at(&self.graph, slot, version, head.epoch()).filter(|_| head.is_consistent())?;
        Some(self.generation(slot, version, head.epoch(), value, key.to_key()))
    }

    /// Makes the key's value stale and everything made from it maybe stale. When this returns, no read that starts later
    /// gets a value made from older sources. A key without a value costs a commit number.
    ///
    /// Marks only; bodies run when somebody asks. A function with [`debounce`](crate::Define::debounce) does it so much later, and one
    /// with [`consolidate`](crate::Define::consolidate) computes first.
    #[track_caller]
    pub fn invalidate<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> CommitId {
        if let Some(delay) = self.changed().life.debounce {
            self.invalidate_after(key, delay);
            return CommitId(self.graph.finished_commit());
        }
        let root = self.root(key);
        CommitId(self.graph.commit(root.into_iter().collect()))
    }

    /// [`invalidate`](Handle::invalidate) so much later, by the engine's clock; `false` if the key has no node. Of several such
    /// wishes the earliest counts, and a later one never postpones it.
    ///
    /// A source's key: everything made from it is stale then.
    #[track_caller]
    pub fn invalidate_after<Q: ?Sized + Lookup<K>>(&self, key: &Q, delay: Duration) -> bool {
        let Some((slot, _)) = self.changed().find_changed(&self.graph, self.hash(key), key) else { return false };
        self.graph.invalidate_at(slot, self.graph.timers.after(delay).max(1));
        true
    }

    pub(crate) fn root<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> Option<Root> {
        let (slot, version) = self.changed().find_changed(&self.graph, self.hash(key), key)?;
        Some(Root::Stale { slot, version })
    }

    /// Where changes go: a consolidated function's hidden one, otherwise the function itself.
    pub(crate) fn changed(&self) -> &FnData<K, V> {
        self.data.merge.get().map_or(&*self.data, |merge| &*merge.hidden)
    }

    /// Ends the key's value at once, whatever the function's rules: [`invalidate`](Handle::invalidate) without
    /// [`debounce`](crate::Define::debounce) and [`consolidate`](crate::Define::consolidate).
    ///
    /// The next read of a consolidated function's key takes what its body has made last, computed anew only if that is stale.
    #[track_caller]
    pub fn invalidate_now<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> CommitId {
        let found = self.data.find_changed(&self.graph, self.hash(key), key);
        CommitId(self.graph.commit(found.map(|(slot, version)| Root::Stale { slot, version }).into_iter().collect()))
    }

    /// Completes once no consolidation of the key is under way, neither waiting for its delay nor computing: then the value is what its
    /// body makes of everything committed before. At once for a function without [`consolidate`](crate::Define::consolidate).
    pub fn when_consolidated<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> Consolidated {
        let entry = self.data.merge.get().and_then(|merge| merge.entry(&self.graph, self.hash(key), &key.to_key()));
        Consolidated::new(&self.graph, entry)
    }

    /// [`invalidate`](Handle::invalidate) for every key of the function: one commit, one sweep.
    #[track_caller]
    pub fn invalidate_all(&self) -> CommitId {
        CommitId(self.graph.commit(smallvec::smallvec![Root::Function { id: self.changed().id }]))
    }

    /// Forgets the key: its value and node are freed, what was made from it is stale. `false` if there was none.
    #[track_caller]
    pub fn remove<Q: ?Sized + Lookup<K>>(&self, key: &Q) -> bool {
        let found = self.data.find(&self.graph, self.hash(key), key);
        if let Some((slot, version)) = found {
            self.graph.commit(smallvec::smallvec![Root::Forget { slot, version }]);
            if let Some(merge) = self.data.merge.get() {
                merge.release(&self.graph, slot, version);
            }
        }
        found.is_some()
    }

    /// Evicts keys, least lately read first, until no more than `entries` are left or everything left is in use; how many left.
    /// For functions with a capacity or [`keep_at_least`](crate::Define::keep_at_least); others keep everything: 0.
    pub fn shrink_to(&self, entries: usize) -> usize {
        let Some(own) = self.data.bounds.as_ref().and_then(Bounds::own) else { return 0 };
        // In the budget's own unit: as much of what is used as the entries are of all.
        let (len, used) = (self.len().max(1) as u64, own.used());
        let low = u64::try_from(u128::from(used) * u128::from(entries as u64) / u128::from(len)).unwrap_or(u64::MAX);
        self.graph.shrink(own, low.min(used))
    }

    pub(crate) fn generation(&self, slot: u32, version: u32, epoch: u32, value: V, key: K) -> Computed<V> {
        Computed::new(self.graph.clone(), (slot, version, epoch), value, Arc::new(Origin { handle: self.clone(), key }))
    }

    pub(crate) fn admit(&self, asker: Asker<'_>) -> Result<(), Fault> {
        if asker.graph != self.graph.id {
            return Err(asker.fault(Fault::ForeignEngine));
        }
        if let Some(cx) = asker.cx {
            cx.state().check().map_err(|fault| asker.fault(fault))?;
        }
        Ok(())
    }

    /// A hit's value, cloned or copied, and its place; no pin is held afterwards.
    #[inline(always)]
    pub(crate) fn take_hit<Q: ?Sized + Lookup<K>>(&self, hash: u64, key: &Q) -> Option<(V, u32, u32)> {
        let _pin = (!self.data.needs_no_pin()).then(|| self.graph.collector.section());
        let (word, slot, epoch) = self.data.hit(&self.graph, hash, key)?;
        // SAFETY: [pinned-value] under the pin above unless the value is inline.
        Some((unsafe { self.data.clone_word(word) }, slot, epoch))
    }

    #[inline(always)]
    pub(crate) fn count_hit(&self) {
        crate::stats::add(&self.graph.counters.mine().hits, 1);
    }

    pub(crate) fn count_miss(&self) {
        crate::stats::add(&self.graph.counters.mine().misses, 1);
    }
}

/// How a generation finds its successor.
pub(crate) struct Origin<K, V> {
    pub(crate) handle: Handle<K, V>,
    pub(crate) key: K,
}

/// A synchronous function: its body runs on the thread that asks first; others wait for it.
pub struct Function<K, V>(pub(crate) Handle<K, V>);

impl<K, V> Deref for Function<K, V> {
    type Target = Handle<K, V>;
    fn deref(&self) -> &Handle<K, V> {
        &self.0
    }
}

impl<K, V> Clone for Function<K, V> {
    fn clone(&self) -> Function<K, V> {
        Function(self.0.clone())
    }
}

impl<K, V> std::fmt::Debug for Function<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Key, V: Value> Function<K, V> {
    /// The value for the key: from the cache, or verified, or computed now. Recorded if a context asks.
    ///
    /// A hit on a word key with an inline value takes no pin; any other takes one for the length of a clone. Blocks the
    /// thread while another computes the same key. The value may be stale again by the time the caller looks at it.
    ///
    /// # Errors
    /// [`Fault`]: never what the function itself returned.
    // Always: left to itself, the compiler calls it where the value is boxed, and returns the value through memory.
    #[inline(always)]
    pub fn get<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q) -> Result<V, Fault> {
        let asker = by.asker();
        if asker.graph == self.graph.id {
            let hash = self.hash(key);
            if let Some((value, slot, epoch)) = self.take_hit(hash, key) {
                self.count_hit();
                asker.record(Dep { slot, epoch })?;
                if self.data.is_checked(asker) {
                    self.data.check(&self.graph, asker, &Check { key: &key.to_key(), value: &value, slot, epoch });
                }
                return Ok(value);
            }
            return self.get_cold(asker, hash, key);
        }
        Err(asker.fault(Fault::ForeignEngine))
    }

    #[cold]
    #[inline(never)]
    fn get_cold<Q: ?Sized + Lookup<K>>(&self, asker: Asker<'_>, hash: u64, key: &Q) -> Result<V, Fault> {
        self.admit(asker)?;
        self.count_miss();
        match self.data.obtain_key(&self.graph, hash, key, asker.held) {
            Ok((slot, _, got)) => {
                // What a body has just read is about to be depended on.
                if asker.cx.is_some() {
                    self.data.touch(slot);
                }
                record(asker, slot, got)
            }
            Err(fault) => Err(asker.fault(fault)),
        }
    }

    /// The current generation with its value: what to hold when its end matters. Computes if needed.
    ///
    /// # Errors
    /// As [`get`](Function::get).
    pub fn computed<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q) -> Result<Computed<V>, Fault> {
        let asker = by.asker();
        self.admit(asker)?;
        let (slot, version, (value, epoch)) =
            self.data.obtain_key(&self.graph, self.hash(key), key, asker.held).map_err(|fault| asker.fault(fault))?;
        asker.record(Dep { slot, epoch })?;
        Ok(self.generation(slot, version, epoch, value, key.to_key()))
    }
}

/// A function whose values are set from outside: a row, a setting, a clock.
///
/// Until it is set, a key has the value its initial closure gives. Reads are those of [`Function`].
pub struct Source<K, V>(pub(crate) Function<K, V>);

impl<K, V> Deref for Source<K, V> {
    type Target = Function<K, V>;
    fn deref(&self) -> &Function<K, V> {
        &self.0
    }
}

impl<K, V> Clone for Source<K, V> {
    fn clone(&self) -> Source<K, V> {
        Source(self.0.clone())
    }
}

impl<K, V> std::fmt::Debug for Source<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Key, V: Value> Source<K, V> {
    /// Sets the key's value: one commit, one sweep; what was made from the old value is stale when this returns.
    /// A value equal to the current one, by the source's rule, changes nothing and returns the last commit's number.
    ///
    /// # Panics
    /// If the engine is at its limit of nodes; [`try_set`](Source::try_set) returns that as an error.
    #[track_caller]
    pub fn set<Q: ?Sized + Lookup<K>>(&self, key: &Q, value: V) -> CommitId {
        match self.try_set(key, value) {
            Ok(commit) => commit,
            Err(fault) => panic!("`{}` could not be set: {fault}", self.name()),
        }
    }

    /// [`set`](Source::set), with the engine's limits as errors.
    ///
    /// # Errors
    /// [`Fault::Full`] or [`Fault::KeyTooLarge`]; nothing was changed then.
    #[track_caller]
    pub fn try_set<Q: ?Sized + Lookup<K>>(&self, key: &Q, value: V) -> Result<CommitId, Fault> {
        Ok(match self.set_root(key, value)? {
            Some(root) => CommitId(self.graph.commit(smallvec::smallvec![root])),
            None => CommitId(self.graph.finished_commit()),
        })
    }

    /// `None` if the value equals the current one.
    pub(crate) fn set_root<Q: ?Sized + Lookup<K>>(&self, key: &Q, value: V) -> Result<Option<Root>, Fault> {
        let hash = self.hash(key);
        if self.data.cut_off.compares()
            && let Some((old, _, _)) = self.take_hit(hash, key)
            && self.data.cut_off.same(&old, &value)
        {
            return Ok(None);
        }
        let (mut slot, mut version) = self.data.find_or_insert(&self.graph, hash, key)?;
        while self.graph.head(slot).epoch() >= crate::verify::WORN {
            // The slot's epochs are used up: the key moves to a fresh one.
            self.graph.commit(smallvec::smallvec![Root::Forget { slot, version }]);
            (slot, version) = self.data.find_or_insert(&self.graph, hash, key)?;
        }
        let inline = self.data.is_inline();
        let word = if inline { crate::value::to_word(&value) } else { crate::value::expose(value) };
        Ok(Some(Root::Set { slot, version, word }))
    }
}
