//! Reads that skip the table: resolved nodes.

use std::marker::PhantomData;

use slotmap::{Key as _, KeyData};

use crate::graph::Graph;
use crate::node::{Head, Row, STATE_MASK, State, VERSION_MASK};
use crate::pin::Pin;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, fault};
use crate::value::Read;

slotmap::new_key_type! {
    /// The generational id of a node, a slotmap key: a 32-bit slot and a version that is odd while the node lives.
    ///
    /// An id of a node that was removed never names the slot's next tenant.
    pub struct NodeId;
}

pub(crate) fn node_id(slot: u32, version: u32) -> NodeId {
    NodeId::from(KeyData::from_ffi((u64::from(version) << 32) | u64::from(slot)))
}

impl NodeId {
    /// The slot number.
    pub fn slot(self) -> u32 {
        self.data().as_ffi() as u32
    }

    /// The version: odd for a live node, `0` in a null id.
    pub fn version(self) -> u32 {
        (self.data().as_ffi() >> 32) as u32
    }
}

/// A resolved node: reads cost one line and no hash. Stays valid over invalidations and recomputations; once the key is
/// removed it is dead for good and never shows another key's value.
pub struct NodeRef<V> {
    graph: Arc<Graph>,
    row: *const Row,
    /// The head's state and version bits while the node is live and consistent.
    expected: u64,
    slot: u32,
    inline: bool,
    /// What reads leave for the evicting hand; 0 for nothing.
    trace: u8,
    types: PhantomData<fn() -> V>,
}

// SAFETY: [region-stable] the row is shared atomics in a region that lives as long as `graph`; values cross threads as `V: Send + Sync`
// (every `Value` is).
unsafe impl<V: Send + Sync> Send for NodeRef<V> {}
// SAFETY: [region-stable] as above.
unsafe impl<V: Send + Sync> Sync for NodeRef<V> {}

impl<V> NodeRef<V> {
    pub(crate) fn new(graph: Arc<Graph>, slot: u32, version: u32, inline: bool, trace: u8) -> NodeRef<V> {
        let row = std::ptr::from_ref(graph.row(slot));
        let expected = Head::new(State::Consistent, version, 0).handle_bits();
        NodeRef { graph, row, expected, slot, inline, trace, types: PhantomData }
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        node_id(self.slot, Head(self.expected).version())
    }

    /// Whether the key is still in the cache, with or without a value.
    pub fn is_live(&self) -> bool {
        self.graph.head(self.slot).version() == Head(self.expected).version()
    }

    /// The value if it is consistent, borrowed under the pin: three loads from one line.
    ///
    /// # Panics
    /// If the pin is another engine's.
    #[inline(always)]
    pub fn peek<'p>(&self, pin: &'p Pin<'_>) -> Option<Read<'p, V>> {
        pin.check(&self.graph);
        // SAFETY: [region-stable] `graph` keeps the region.
        let row = unsafe { &*self.row };
        // Acquire: what was written before the node became consistent.
        let head = row.head.load(Ordering::Acquire);
        let compared = if fault!("handle_ignores_version") { STATE_MASK } else { VERSION_MASK | STATE_MASK };
        if head & compared != self.expected & compared {
            return None;
        }
        // Acquire: if the word is newer, the re-check sees the newer head.
        let word = row.value.load(Ordering::Acquire);
        if row.head.load(Ordering::Relaxed) != head {
            return None;
        }
        pin.count_hit();
        if self.trace != 0 {
            // Relaxed (both): a hint.
            let stamp = self.graph.columns.stamp(self.slot);
            if stamp.load(Ordering::Relaxed) != self.trace {
                stamp.store(self.trace, Ordering::Relaxed);
            }
        }
        // SAFETY: [pinned-value] re-checked after the load, under a pin of the same engine.
        Some(unsafe { Read::new(word, self.inline) })
    }
}

impl<V> Clone for NodeRef<V> {
    fn clone(&self) -> NodeRef<V> {
        NodeRef { graph: self.graph.clone(), ..*self }
    }
}

impl<V> std::fmt::Debug for NodeRef<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeRef").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Pin<'_> {
    /// A pin of another engine protects nothing here: that is a mistake in the program, found at the first use.
    #[inline(always)]
    pub(crate) fn check(&self, graph: &Arc<Graph>) {
        if !std::ptr::eq(self.graph, &**graph) {
            foreign_pin();
        }
    }
}

#[cold]
#[inline(never)]
fn foreign_pin() -> ! {
    panic!("the pin belongs to another engine than the function: take it from the engine the function is registered with")
}
