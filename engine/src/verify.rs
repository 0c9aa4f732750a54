//! Bringing a node up to date: eager marks, lazy verification, an explicit stack.
//!
//! A node that may be stale is served again once its dependencies, in the order they were read, turn out unchanged. The
//! walk holds no claim while it descends, so that dropping it loses nothing and a chain of a million nodes needs no stack.
//! The claim itself (`Verifying`) is short, runs no user code and waits for nobody.

use smallvec::SmallVec;

use crate::deps::{Dep, DepList};
use crate::edge::generation;
use crate::graph::Graph;
use crate::node::{DOOMED, DOOMED_MAYBE, Head, State, WAITERS};
use crate::publish::Standing;
use crate::sync::atomic::Ordering;
use crate::sync::{Backoff, fault};

/// What the walk needs from its driver next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The node was consistent a moment ago: read it.
    Ready,
    /// Run this node's function, claiming it from the given head.
    Run(u32, Head),
    /// Wait for the flight on this node.
    Join(u32, Head),
    /// The node's value was evicted: what was made from it must be marked before it is computed again.
    Unsettle(u32, Head),
    /// The key has no node any more.
    Gone,
}

/// The walk from one node down to what must run first.
pub(crate) struct Settle {
    stack: SmallVec<[Frame; 4]>,
}

struct Frame {
    slot: u32,
    version: u32,
    /// Where the last look at the dependencies stopped: all before it were unchanged then.
    descents: u32,
    /// A dependency could not be brought up to date: the body will meet the reason itself.
    forced: bool,
    /// Its body has been asked for in this walk.
    ran: bool,
}

/// Descents from one node before its body is run after all: a busy graph must not keep a reader from ever running.
const PATIENCE: u32 = 256;

/// Depth from which the walk looks, each time it has doubled, whether it goes round in a circle.
const DEEP: usize = 1 << 10;

enum Look {
    Unchanged,
    Changed,
    Descend(u32),
}

impl Settle {
    pub(crate) fn new(slot: u32, version: u32) -> Settle {
        let mut stack = SmallVec::new();
        stack.push(Frame { slot, version, descents: 0, forced: false, ran: false });
        Settle { stack }
    }

    /// The dependency just asked for ended in a fault or stored nothing: run its dependant instead.
    pub(crate) fn force(&mut self) {
        if self.stack.len() > 1 {
            self.stack.pop();
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.forced = true;
        }
    }

    /// Asks for the body of the node on top; of a dependency once only. One that is not settled after its run will not be
    /// by another (its result was made from something that is nowhere stored), or is being changed faster than it is
    /// computed: either way its dependant runs instead, so the walk ends.
    fn run(&mut self, slot: u32, head: Head) -> Option<Next> {
        let deep = self.stack.len() > 1;
        if let Some(frame) = self.stack.last_mut().filter(|_| deep) {
            if frame.ran {
                self.force();
                return None;
            }
            frame.ran = true;
        }
        Some(Next::Run(slot, head))
    }

    /// Goes on until user code or a wait is needed.
    pub(crate) fn next(&mut self, graph: &Graph) -> Next {
        let mut backoff = Backoff::default();
        loop {
            if let Some(next) = self.step(graph, &mut backoff) {
                return next;
            }
        }
    }

    /// One look at the node on top of the stack.
    fn step(&mut self, graph: &Graph, backoff: &mut Backoff) -> Option<Next> {
        let depth = self.stack.len();
        let Some(frame) = self.stack.last_mut() else { return Some(Next::Ready) };
        let slot = frame.slot;
        let head = graph.head(slot);
        if !head.is_live() || head.version() != frame.version {
            if depth == 1 {
                return Some(Next::Gone);
            }
            self.stack.pop();
            return None;
        }
        match head.state() {
            State::Consistent if depth == 1 => Some(Next::Ready),
            State::Evicted if depth == 1 => Some(Next::Unsettle(slot, head)),
            State::Consistent | State::Evicted => {
                self.stack.pop();
                None
            }
            State::Empty | State::Stale => self.run(slot, head),
            State::Computing if head.has(DOOMED) => self.run(slot, head),
            State::Computing => Some(Next::Join(slot, head)),
            State::Verifying | State::Publishing => {
                // Short as a rule; a publisher with a million edges is worth sleeping for.
                backoff.wait();
                backoff.is_long().then_some(Next::Join(slot, head))
            }
            State::Pending if frame.forced || frame.descents > PATIENCE => self.run(slot, head),
            State::Pending => match graph.look(slot) {
                Look::Changed => self.run(slot, head),
                Look::Unchanged => {
                    if !graph.verify(slot, head) {
                        frame.descents += 1;
                    }
                    None
                }
                Look::Descend(dep) => {
                    frame.descents += 1;
                    // A value that was refreshed may have closed a circle of dependencies, which no body has met yet: this one does.
                    if depth >= DEEP && depth.is_power_of_two() && self.stack.iter().any(|frame| frame.slot == dep) {
                        return self.run(slot, head);
                    }
                    let version = graph.head(dep).version();
                    self.stack.push(Frame { slot: dep, version, descents: 0, forced: false, ran: false });
                    None
                }
            },
        }
    }
}

impl Graph {
    /// The first dependency that is not settled, in recorded order. A hint: `verify` checks again under its claim.
    fn look(&self, slot: u32) -> Look {
        let _pin = self.collector.section();
        // SAFETY: [pinned-deps] a list that was in the column under this pin is freed after it.
        let Some(list) = (unsafe { DepList::borrow(self.warm(slot).deps.load(Ordering::Acquire)) }) else { return Look::Unchanged };
        let settled = list.is_settled(self.durability.now());
        for (_, dep) in list.unsettled(settled) {
            if !self.unchanged(dep) {
                return Look::Changed;
            }
            let head = self.head(dep.slot);
            if !head.is_settled() {
                let gone = !head.is_live() || head.state() == State::Empty;
                return if gone { Look::Changed } else { Look::Descend(dep.slot) };
            }
        }
        Look::Unchanged
    }

    /// `Pending` -> `Verifying` -> `Consistent` if every dependency is unchanged. `false`: look again.
    fn verify(&self, slot: u32, from: Head) -> bool {
        if fault!("straight_cas") {
            return self.swing(slot, from, Head::new(State::Consistent, from.version(), from.epoch())).is_ok();
        }
        let mut now = from.next_flight(State::Verifying);
        if from.epoch() >= LAST_EPOCH || self.swing(slot, from, now).is_err() {
            return false;
        }
        let generation = generation(self.row(slot).rev.load(Ordering::Relaxed));
        // SAFETY: [owned-deps] the owner of `Verifying` alone may replace the list.
        let list = unsafe { DepList::borrow(self.warm(slot).deps.load(Ordering::Acquire)) };
        let mut unchanged = true;
        let durable = self.durability.now();
        let settled = list.is_some_and(|list| list.is_settled(durable));
        for (index, dep) in list.into_iter().flat_map(|list| list.unsettled(settled)) {
            match self.link(slot, generation, dep, Some(dep.epoch)) {
                Standing::Linked(epoch) if epoch == dep.epoch => {}
                Standing::Linked(epoch) => {
                    if let Some(list) = list {
                        list.renew(index, Dep { slot: dep.slot, epoch });
                    }
                }
                Standing::Maybe | Standing::Changed => {
                    unchanged = false;
                    break;
                }
            }
        }
        if unchanged
            && !settled
            && let Some(list) = list
        {
            list.settle(durable);
        }
        self.reach("verify:linked", slot);
        loop {
            let state = if now.has(DOOMED) {
                State::Stale
            } else if !unchanged || now.has(DOOMED_MAYBE) && !fault!("missed_maybe_doom") {
                State::Pending
            } else {
                State::Consistent
            };
            match self.swing(slot, now, Head::new(state, now.version(), now.epoch())) {
                Ok(()) => {
                    if now.has(WAITERS) {
                        let key = (slot, now.epoch());
                        self.end_flight(key, crate::flight::Outcome { start: u64::MAX, ..Default::default() });
                    }
                    if state == State::Consistent {
                        crate::stats::add(&self.counters.mine().verified, 1);
                        self.note(crate::log::What::Verified, slot);
                    }
                    return state == State::Consistent;
                }
                Err(other) => now = other,
            }
        }
    }

    /// Claims a node for a flight; `None` if somebody moved it. A node at its last epoch is forgotten: the key gets a new
    /// slot, so that no epoch is ever seen twice.
    pub(crate) fn claim(&self, slot: u32, from: Head) -> Option<Head> {
        let to = from.next_flight(State::Computing);
        self.swing(slot, from, to).ok().map(|()| to)
    }
}

/// No flight starts beyond this epoch.
pub(crate) const LAST_EPOCH: u32 = u32::MAX - 1;

/// A source is moved to a fresh slot from this epoch on: early enough that sets already queued never reach the last one.
pub(crate) const WORN: u32 = LAST_EPOCH - (1 << 20);
