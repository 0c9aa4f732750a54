//! A node: the slot that holds one key. This file is the head word, the hot row and the warm row.
//!
//! ```text
//! head  63            32 31                     7 6 5 4 3 2   0
//!       [   epoch 32   ] [      version 25       ] [ flags ] [state]
//! ```
//! One load of the head is the whole consistency check of a read.

use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

/// Where a node's value stands. See the transition table in DESIGN.md §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// The value may be served. Zero, so that a hit tests the state with one instruction; a slot that was never used reads as
    /// this too, but no key leads to it and its version is not a live one.
    Consistent = 0,
    /// No value: never computed, or the slot was freed (even version).
    Empty = 1,
    /// Must be recomputed; the old value is kept for the cut-off comparison.
    Stale = 2,
    /// Something upstream may have changed: verify before serving.
    Pending = 3,
    /// A flight runs the body.
    Computing = 4,
    /// A reader verifies the dependencies; short, runs no user code.
    Verifying = 5,
    /// The flight's owner alone may write the node's columns; short, runs no user code.
    Publishing = 6,
    /// Consistent, with its value evicted: what was made from it still stands. The next read of it unsettles that first.
    Evicted = 7,
}

/// A snapshot of the head word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head(pub(crate) u64);

pub(crate) const STATE_MASK: u64 = 0b111;
const VERIFYING: u64 = State::Verifying as u64;
const PUBLISHING: u64 = State::Publishing as u64;
const EVICTED: u64 = State::Evicted as u64;
/// The flight's result must not be stored as consistent nor joined by new readers.
pub(crate) const DOOMED: u64 = 1 << 3;
/// A maybe mark met the flight: its result is stored as maybe stale.
pub(crate) const DOOMED_MAYBE: u64 = 1 << 4;
/// Somebody waits for this flight: its end must look into the flight table.
pub(crate) const WAITERS: u64 = 1 << 5;
/// A `Computed` waits for the first mark of this generation.
pub(crate) const WATCHED: u64 = 1 << 6;
const FLAGS: u64 = DOOMED | DOOMED_MAYBE | WAITERS | WATCHED;

const VERSION_SHIFT: u32 = 7;
pub(crate) const VERSION_BITS: u32 = 25;
pub(crate) const VERSION_MASK: u64 = ((1 << VERSION_BITS) - 1) << VERSION_SHIFT;
/// The last version a slot may live under; after it the slot is retired for good.
pub(crate) const LAST_VERSION: u32 = (1 << VERSION_BITS) - 1;
const EPOCH_SHIFT: u32 = 32;

impl Head {
    pub(crate) fn new(state: State, version: u32, epoch: u32) -> Head {
        debug_assert!(version <= LAST_VERSION, "a version beyond its 25 bits");
        Head((u64::from(epoch) << EPOCH_SHIFT) | (u64::from(version) << VERSION_SHIFT) | state as u64)
    }

    pub(crate) fn state(self) -> State {
        match self.0 & STATE_MASK {
            0 => State::Consistent,
            1 => State::Empty,
            2 => State::Stale,
            3 => State::Pending,
            4 => State::Computing,
            5 => State::Verifying,
            6 => State::Publishing,
            _ => State::Evicted,
        }
    }

    #[inline(always)]
    pub(crate) fn is_consistent(self) -> bool {
        self.0 & STATE_MASK == State::Consistent as u64
    }

    /// Nothing above it has changed: `Consistent`, or that with its value evicted.
    #[inline(always)]
    pub(crate) fn is_settled(self) -> bool {
        matches!(self.0 & STATE_MASK, 0 | EVICTED)
    }

    /// `Verifying` or `Publishing`: somebody is about to make the node consistent.
    #[inline(always)]
    pub(crate) fn is_owned(self) -> bool {
        matches!(self.0 & STATE_MASK, VERIFYING | PUBLISHING)
    }

    #[inline(always)]
    pub(crate) fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT) as u32
    }

    pub(crate) fn version(self) -> u32 {
        ((self.0 & VERSION_MASK) >> VERSION_SHIFT) as u32
    }

    /// Odd versions are live, as slotmap's `KeyData` demands.
    pub(crate) fn is_live(self) -> bool {
        self.version() & 1 == 1
    }

    pub(crate) fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn with(self, flag: u64) -> Head {
        Head(self.0 | flag)
    }

    pub(crate) fn without(self, flag: u64) -> Head {
        Head(self.0 & !flag)
    }

    /// The same node in another state; flags stay.
    pub(crate) fn in_state(self, state: State) -> Head {
        Head((self.0 & !STATE_MASK) | state as u64)
    }

    /// The head of the next flight on this node: epoch + 1, flags dropped.
    pub(crate) fn next_flight(self, state: State) -> Head {
        Head::new(state, self.version(), self.epoch().wrapping_add(1))
    }

    /// The bits a resolved handle compares: state and version, no flags, no epoch.
    pub(crate) fn handle_bits(self) -> u64 {
        self.0 & (VERSION_MASK | STATE_MASK)
    }

    /// Same flight: state, version and epoch agree, whatever the flags.
    pub(crate) fn same_flight(self, other: Head) -> bool {
        self.0 & !FLAGS == other.0 & !FLAGS
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}(epoch {}, version {}", self.state(), self.epoch(), self.version())?;
        for (bit, name) in [(DOOMED, "doomed"), (DOOMED_MAYBE, "maybe doomed"), (WAITERS, "waiters"), (WATCHED, "watched")] {
            if self.has(bit) {
                write!(f, ", {name}")?;
            }
        }
        f.write_str(")")
    }
}

/// What a hit and a sweep touch: 32 bytes, two rows to a cache line.
///
/// Measured against four separate columns at 1k, 100k and 1M keys: one row is one line per hit, columns are three.
/// The figures are in DESIGN.md §2.
#[derive(Debug)]
#[repr(C, align(32))]
pub(crate) struct Row {
    /// State, flags, version and epoch: [`Head`].
    pub(crate) head: AtomicU64,
    /// The value itself when it is inline, else a pointer to it. Written only while `Publishing`.
    pub(crate) value: AtomicU64,
    /// The key itself when it is inline, else a pointer to its box. Written only while the slot is free.
    pub(crate) key: AtomicU64,
    /// Dependants: list handle, lock bit and this node's own dependency generation: [`crate::edge`].
    pub(crate) rev: AtomicU64,
}

/// What computing and verifying touch.
#[derive(Debug)]
pub(crate) struct Warm {
    /// [`DepList`](crate::deps::DepList): dependencies in the order of their first read. Replaced only while `Publishing`; retired through the collector.
    pub(crate) deps: AtomicPtr<AtomicU64>,
    /// The epoch at which the value last really changed. Written only while `Publishing` (or while the slot is free).
    pub(crate) changed: AtomicU32,
    /// [`HAS_VALUE`], [`AGAIN`], [`DURABLE`] and a commit's number: see [`value_flags`].
    pub(crate) flags: AtomicU32,
}

/// When something about a node is due, in ticks of the engine's clock; 0 is never.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub(crate) struct Times {
    /// Its value ends. Written while `Publishing`: it belongs to the generation.
    pub(crate) expires: AtomicU64,
    /// Somebody asked for its invalidation then. Belongs to the key, and the earliest wish counts.
    pub(crate) asked: AtomicU64,
    /// Its value is to be refreshed, if it is in use. Written with `expires`.
    pub(crate) refresh: AtomicU64,
    /// The earliest entry the wheel holds for it. Under the wheel's lock.
    pub(crate) armed: AtomicU64,
}

/// The value word holds a value (needed because every bit pattern is a value when it is inline).
pub(crate) const HAS_VALUE: u32 = 1;
/// There was a value when this one was made: it is not the first.
pub(crate) const AGAIN: u32 = 1 << 1;
/// The node is a durable source's: see [`crate::durable`]. Set at its birth.
pub(crate) const DURABLE: u32 = 1 << 2;
const STAMP_SHIFT: u32 = 3;
const STAMP_MASK: u64 = (1 << (32 - STAMP_SHIFT)) - 1;

/// The flags of a value that was made at a commit, in place of those before it. The word is stored with the value anyway, so the number
/// costs nothing.
#[inline(always)]
pub(crate) fn value_flags(before: u32, commit: u64) -> u32 {
    let again = if before & HAS_VALUE != 0 { AGAIN } else { 0 };
    ((commit & STAMP_MASK) as u32) << STAMP_SHIFT | HAS_VALUE | again | before & DURABLE
}

/// The commit in a value's flags, completed to the nearest one that is not later than `now`: of a value older than 2^29
/// commits too recent a one.
pub(crate) fn made_at(flags: u32, now: u64) -> u64 {
    let behind = now.wrapping_sub(u64::from(flags >> STAMP_SHIFT)) & STAMP_MASK;
    now.saturating_sub(behind)
}

#[cfg(not(any(loom, shuttle)))]
const _: () = {
    assert!(std::mem::size_of::<Row>() == 32);
    assert!(std::mem::size_of::<Warm>() == 16);
};

// SAFETY: [zeroed] atomics only, and it needs no drop.
unsafe impl crate::region::Zeroed for Times {}
// SAFETY: [zeroed] atomics only, and a row needs no drop.
unsafe impl crate::region::Zeroed for Row {}
// SAFETY: [zeroed] atomics only (a null pointer is a valid one), and it needs no drop: its owner retires the list.
unsafe impl crate::region::Zeroed for Warm {}

impl Default for Row {
    fn default() -> Row {
        Row { head: AtomicU64::new(0), value: AtomicU64::new(0), key: AtomicU64::new(0), rev: AtomicU64::new(0) }
    }
}

impl Default for Warm {
    fn default() -> Warm {
        Warm { deps: AtomicPtr::new(std::ptr::null_mut()), changed: AtomicU32::new(0), flags: AtomicU32::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_values_flags_tell_the_commit_it_was_made_at() {
        for (made, now) in [(0, 0), (5, 5), (5, 9), (STAMP_MASK, STAMP_MASK + 1), (STAMP_MASK - 3, STAMP_MASK + 70), (1 << 31, 1 << 31)] {
            for again in [false, true] {
                let flags = value_flags(u32::from(again) | DURABLE, made);
                assert_eq!(
                    (made_at(flags, now), flags & AGAIN != 0, flags & (HAS_VALUE | DURABLE)),
                    (made, again, HAS_VALUE | DURABLE),
                    "{made} at {now}"
                );
            }
        }
    }

    #[test]
    fn a_head_packs_and_unpacks_state_version_and_epoch() {
        for state in [
            State::Empty,
            State::Consistent,
            State::Stale,
            State::Pending,
            State::Computing,
            State::Verifying,
            State::Publishing,
            State::Evicted,
        ] {
            let head = Head::new(state, LAST_VERSION, u32::MAX - 1);
            assert_eq!((head.state(), head.version(), head.epoch()), (state, LAST_VERSION, u32::MAX - 1));
            assert!(head.with(FLAGS).same_flight(head));
            assert_eq!(head.with(FLAGS).without(FLAGS), head);
            assert_eq!(head.next_flight(State::Computing).epoch(), u32::MAX);
        }
    }
}
