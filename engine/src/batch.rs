//! Several changes, one commit.

use std::collections::HashMap;
use std::panic::Location;

use smallvec::SmallVec;

use crate::fault::Fault;
use crate::graph::Graph;
use crate::handle::{Handle, Source};
use crate::key::{Key, Lookup};
use crate::origin::Place;
use crate::sweep::{Root, Roots};
use crate::sync::Arc;
use crate::value::Value;

/// Collects changes for one commit: one number, one sweep from all of them, one round of notifications.
///
/// Nothing is visible before the closure given to [`Engine::batch`](crate::Engine::batch) returns; if it panics, nothing
/// happens at all.
#[derive(Debug)]
pub struct Batch<'e> {
    graph: &'e Arc<Graph>,
    changes: Collected,
}

/// Changes on their way to a sweep. Values that never get there are given back to the collector.
struct Collected {
    graph: Arc<Graph>,
    roots: Roots,
    /// Where each root was asked for.
    places: SmallVec<[Place; 2]>,
    /// Slot to (version, value word, where it was set): the last set of a key wins.
    sets: HashMap<u32, (u32, u64, Place), ahash::RandomState>,
}

impl Collected {
    fn unset(&mut self, slot: u32) {
        if let Some((_, word, _)) = self.sets.remove(&slot) {
            self.graph.discard(slot, word);
        }
    }
}

impl std::fmt::Debug for Collected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} changes", self.roots.len() + self.sets.len())
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        for slot in self.sets.keys().copied().collect::<Vec<_>>() {
            self.unset(slot);
        }
    }
}

impl<'e> Batch<'e> {
    pub(crate) fn new(graph: &'e Arc<Graph>) -> Batch<'e> {
        Batch { graph, changes: Collected { graph: graph.clone(), roots: Roots::new(), places: SmallVec::new(), sets: HashMap::default() } }
    }

    /// The roots, and where each was asked for.
    pub(crate) fn into_roots(mut self) -> (Roots, SmallVec<[Place; 2]>) {
        let (mut roots, mut places) = (std::mem::take(&mut self.changes.roots), std::mem::take(&mut self.changes.places));
        for (slot, (version, word, place)) in self.changes.sets.drain() {
            roots.push(Root::Set { slot, version, word });
            places.push(place);
        }
        (roots, places)
    }

    fn push(&mut self, root: Root, place: Place) {
        self.changes.roots.push(root);
        self.changes.places.push(place);
    }

    fn check(&self, graph: &Arc<Graph>) {
        assert!(Arc::ptr_eq(self.graph, graph), "the function belongs to another engine than the batch");
    }

    /// Sets a source at the commit. The last set of a key wins; a value equal to the current one is dropped.
    ///
    /// # Panics
    /// If the source is another engine's, or the engine is full ([`try_set`](Batch::try_set) returns the latter).
    #[track_caller]
    pub fn set<K: Key, V: Value, Q: ?Sized + Lookup<K>>(&mut self, source: &Source<K, V>, key: &Q, value: V) {
        if let Err(fault) = self.try_set(source, key, value) {
            panic!("`{}` could not be set: {fault}", source.name());
        }
    }

    /// [`set`](Batch::set), with the engine's limits as errors.
    ///
    /// # Errors
    /// [`Fault::Full`] or [`Fault::KeyTooLarge`]; the rest of the batch stands.
    ///
    /// # Panics
    /// If the source is another engine's.
    #[track_caller]
    pub fn try_set<K: Key, V: Value, Q: ?Sized + Lookup<K>>(&mut self, source: &Source<K, V>, key: &Q, value: V) -> Result<(), Fault> {
        self.check(&source.graph);
        // An earlier set of the key in this batch must not survive a later one that equals the value of today.
        if let Some((slot, _)) = source.data.find(self.graph, source.hash(key), key) {
            self.changes.unset(slot);
        }
        if let Some(Root::Set { slot, version, word }) = source.set_root(key, value)? {
            self.changes.sets.insert(slot, (version, word, Location::caller()));
        }
        Ok(())
    }

    /// Invalidates a key at the commit.
    ///
    /// # Panics
    /// If the function is another engine's.
    #[track_caller]
    pub fn invalidate<K: Key, V: Value, Q: ?Sized + Lookup<K>>(&mut self, function: &Handle<K, V>, key: &Q) {
        self.check(&function.graph);
        if let Some(root) = function.root(key) {
            self.push(root, Location::caller());
        }
    }

    /// Invalidates every key of a function at the commit.
    ///
    /// # Panics
    /// If the function is another engine's.
    #[track_caller]
    pub fn invalidate_all<K: Key, V: Value>(&mut self, function: &Handle<K, V>) {
        self.check(&function.graph);
        self.push(Root::Function { id: function.changed().id }, Location::caller());
    }

    /// Invalidates every key of the function of this name at the commit, if there is one: for whoever has only its name, from a log or
    /// a file.
    #[track_caller]
    pub fn invalidate_function(&mut self, name: &str) -> bool {
        // A consolidated function's changes go to its hidden half.
        let named = self.graph.function_named(&crate::consolidate::hidden_name(name)).or_else(|| self.graph.function_named(name));
        let Some(id) = named else { return false };
        self.push(Root::Function { id }, Location::caller());
        true
    }
}
