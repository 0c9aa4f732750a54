//! Invalidation: one combined sweeper, a breadth-first pass over reverse edges, the head CAS as the visited mark.
//!
//! Callers queue their roots; the first to come sweeps for all who queue meanwhile and the rest wait for their ticket, so
//! that when a commit returns, everything below its roots is marked, also what another thread's sweep got to first.
//! No user code runs in here.

use smallvec::SmallVec;

use crate::edge::{generation, unpack};
use crate::graph::Graph;
use crate::level::Workers;
use crate::mutable_state::Replacement;
use crate::node::{DOOMED, DOOMED_MAYBE, HAS_VALUE, Head, Row, State, WAITERS, WATCHED, value_flags};
use crate::origin::{By, Origins};
use crate::refresh::Renewal;
use crate::region::{Base, prefetch};
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::{Arc, Backoff, Condvar, Mutex, fault, lock, wait};

/// Where a sweep starts.
pub(crate) enum Root {
    /// Recompute this node before it is served again.
    Stale { slot: u32, version: u32 },
    /// A source gets this value word. The old one goes to the collector.
    Set { slot: u32, version: u32, word: u64 },
    /// The same, unless the source has changed since it was looked at.
    Replace(Arc<Replacement>),
    /// A consolidated node gets this value word if it is consistent and still has the generation that was seen.
    Consolidate { slot: u32, seen: Head, word: u64, weight: Option<u32> },
    /// The node's value ends if it was to end by the tick `now`.
    Expired { slot: u32, version: u32, now: u64 },
    /// A value that was computed while the old one was served.
    Refresh { slot: u32, version: u32, renewal: Box<Renewal> },
    /// What was made from this node, whose value was evicted, may be stale. It may lose its dependencies too.
    Unsettle { slot: u32, version: u32, forget_deps: bool },
    /// The node is forgotten.
    Forget { slot: u32, version: u32 },
    /// Every node of the function with this number.
    Function { id: u32 },
    /// Every node.
    Everything,
}

pub(crate) type Roots = SmallVec<[Root; 2]>;

pub(crate) struct Sweeper {
    pub(crate) queue: Mutex<Queue>,
    pub(crate) done: Condvar,
    /// Odd while a sweep is open. Written by the sweeper alone.
    pub(crate) phase: AtomicU64,
    /// The same for sweeps that tell of a change; not moved by those that only follow evicted values. Odd only while `phase` is.
    pub(crate) changes: AtomicU64,
    pub(crate) workers: Workers,
    pub(crate) threshold: usize,
    pub(crate) sweeps: AtomicU64,
    pub(crate) marked: AtomicU64,
}

pub(crate) struct Queue {
    waiting: Vec<Roots>,
    pub(crate) sweeping: bool,
    /// Commit number of the last request queued; requests finish in this order.
    pub(crate) tickets: u64,
    pub(crate) finished: u64,
    pub(crate) asleep: usize,
    origins: Origins,
}

/// Edges between a row's prefetch and its mark.
const BUFFER: usize = 64;
/// Lists between the prefetch of a list's first block and its turn.
const AHEAD: usize = 16;
/// Bytes of columns that are near enough to be marked without asking for rows first: an L2 cache.
const NEAR: usize = 1 << 20;
/// Lists in a level that is not worth an allocation of its own.
const NARROW: usize = 256;

/// A node that lost its watched generation.
type Notice = (u32, u32);

/// What one level found: the lists of the nodes it marked.
#[derive(Default)]
pub(crate) struct Found {
    lists: Vec<u32>,
    notices: Vec<Notice>,
    /// Flights on sources that a set put an end to.
    ended: Vec<crate::flight::FlightKey>,
    pub(crate) marked: u64,
}

/// Whom to wake once the sweep is over.
struct Told {
    notices: Vec<Notice>,
    ended: Vec<crate::flight::FlightKey>,
}

impl Sweeper {
    pub(crate) fn new(threads: usize, threshold: usize, origins: Origins) -> Sweeper {
        Sweeper {
            queue: Mutex::new(Queue { waiting: Vec::new(), sweeping: false, tickets: 0, finished: 0, asleep: 0, origins }),
            done: Condvar::new(),
            phase: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            workers: Workers::new(threads),
            threshold,
            sweeps: AtomicU64::new(0),
            marked: AtomicU64::new(0),
        }
    }

    /// Runs `then` under the queue's lock: commits wait meanwhile.
    pub(crate) fn with_origins<T>(&self, then: impl FnOnce(&mut Origins) -> T) -> T {
        then(&mut lock(&self.queue).origins)
    }
}

impl Graph {
    /// Queues the roots and returns when everything below them is marked. The number is this commit's.
    ///
    /// Whoever finds nobody sweeping sweeps for all who have queued, hands the role on, and only then wakes watchers and
    /// waiters: a waker is an executor's code and may commit in its turn.
    ///
    /// The caller's place is what `why` will name: public functions that lead here track their callers.
    #[track_caller]
    pub(crate) fn commit(self: &Arc<Graph>, roots: Roots) -> u64 {
        self.commit_by(roots, &By::Caller(std::panic::Location::caller()))
    }

    pub(crate) fn commit_by(self: &Arc<Graph>, roots: Roots, by: &By<'_>) -> u64 {
        let sweeper = &self.sweeper;
        let mut queue = lock(&sweeper.queue);
        queue.tickets += 1;
        let ticket = queue.tickets;
        queue.origins.note(ticket, &roots, by);
        queue.waiting.push(roots);
        while queue.sweeping && queue.finished < ticket && !fault!("returns_before_ticket") {
            queue.asleep += 1;
            queue = wait(&sweeper.done, queue);
            queue.asleep -= 1;
        }
        if queue.sweeping || queue.finished >= ticket {
            drop(queue);
        } else {
            queue.sweeping = true;
            let requests = std::mem::take(&mut queue.waiting);
            // Relaxed: whoever meets a mark of this sweep, by Acquire, meets this too.
            self.begun.store(queue.tickets, Ordering::Relaxed);
            drop(queue);
            let count = requests.len() as u64;
            let told = self.while_open(requests);
            // Release: whoever sees the number sees the marks. Only the one sweeper writes it.
            self.commit.fetch_add(count, Ordering::Release);
            queue = lock(&sweeper.queue);
            queue.finished += count;
            queue.sweeping = false;
            if queue.asleep > 0 {
                sweeper.done.notify_all();
            }
            drop(queue);
            for key in told.ended {
                self.end_flight(key, crate::flight::Outcome { start: u64::MAX, ..Default::default() });
            }
            self.notify(told.notices);
        }
        self.collector.reap();
        ticket
    }

    /// Runs the sweep with the phase odd.
    fn while_open(self: &Arc<Graph>, requests: Vec<Roots>) -> Told {
        let (phase, changes) = (&self.sweeper.phase, &self.sweeper.changes);
        // A request without roots tells of a key that has no node: it may have had one.
        let only_follows = |roots: &Roots| !roots.is_empty() && roots.iter().all(|root| matches!(root, Root::Unsettle { .. }));
        let step = u64::from(!requests.iter().all(only_follows));
        // Relaxed (loads): the sweeper's own. Release: not needed by what follows (every mark is a Release store or a CAS, and so
        // carries the odd phase with it), but kept as the rule for these words.
        let (quiet, unchanged) = (phase.load(Ordering::Relaxed), changes.load(Ordering::Relaxed));
        // `changes` within `phase`: whoever finds it odd finds a sweep open, waits for that, and is not sent round in between (found by
        // shuttle).
        phase.store(quiet + 1, Ordering::Release);
        changes.store(unchanged + step, Ordering::Release);
        let told = self.sweep(requests);
        // Release (both): the marks before the end of the sweep.
        changes.store(unchanged + 2 * step, Ordering::Release);
        phase.store(quiet + 2, Ordering::Release);
        told
    }

    /// Returns when the commits that are under way now are over: a value that was read before and is unmarked after is of one commit,
    /// not of half of one. Waits for sweeps only, in which no user code runs.
    pub(crate) fn outlast_commits(&self) {
        let ticket = lock(&self.sweeper.queue).tickets;
        self.sweeper.wait_until(|progress| !progress.sweeping || progress.finished >= ticket);
    }

    fn sweep(self: &Arc<Graph>, requests: Vec<Roots>) -> Told {
        // Relaxed: statistics.
        self.sweeper.sweeps.fetch_add(1, Ordering::Relaxed);
        let mut found = Found::default();
        let mut direct = Found::default();
        let mut spent = Vec::new();
        for root in requests.into_iter().flatten() {
            let durable = self.is_durable(&root);
            if durable {
                self.durability.step();
            }
            self.begin(root, &mut found, &mut direct);
            if durable {
                self.durability.step();
            }
        }
        // Direct dependants of a new source value are stale, everything further down maybe stale.
        let lists = std::mem::take(&mut direct.lists);
        self.level(&lists, State::Stale, &mut found);
        self.edges.spend(lists);
        found.merge(direct);
        let mut frontier = Vec::new();
        while !found.lists.is_empty() {
            frontier = std::mem::replace(&mut found.lists, frontier);
            if frontier.len() >= self.sweeper.threshold && self.sweeper.workers.any() {
                frontier = self.level_in_parallel(frontier, &mut found);
            } else {
                self.level(&frontier, State::Pending, &mut found);
            }
            // Narrow levels share one allocation; wide ones hand theirs over with their blocks.
            if frontier.len() < NARROW {
                spent.append(&mut frontier);
                if spent.len() >= NARROW {
                    self.edges.spend(std::mem::take(&mut spent));
                }
            } else {
                self.edges.spend(std::mem::take(&mut frontier));
            }
        }
        self.edges.spend(spent);
        self.sweeper.marked.fetch_add(found.marked, Ordering::Relaxed);
        Told { notices: found.notices, ended: found.ended }
    }

    fn begin(&self, root: Root, found: &mut Found, direct: &mut Found) {
        match root {
            Root::Stale { slot, version } => {
                if self.function(slot).is_source() {
                    self.touch(slot, version, None, None, direct);
                } else {
                    self.mark_root(slot, Some(version), found);
                }
            }
            Root::Set { slot, version, word } => {
                self.touch(slot, version, Some(word), None, direct);
            }
            Root::Replace(new) => {
                let done = self.touch(new.slot, new.version, Some(new.word), Some(new.seen), direct);
                new.answer(done);
            }
            // The evictor may have been there since the look: what was made from the value still stands, and must be told.
            Root::Consolidate { slot, seen, word, weight } if self.is_still(slot, seen) || fault!("replace_unchecked") => {
                if let Some(weight) = weight {
                    self.function(slot).set_weight(self, slot, weight);
                }
                self.touch(slot, seen.version(), Some(word), None, direct);
            }
            Root::Consolidate { slot, word, .. } => self.discard(slot, word),
            Root::Expired { slot, version, now } => self.mark_expired(slot, version, now, found),
            Root::Refresh { slot, version, renewal } => self.bring_in(slot, version, *renewal, found, direct),
            Root::Unsettle { slot, version, forget_deps } => self.unsettle(slot, version, forget_deps, found),
            Root::Forget { slot, version } => {
                let head = self.head(slot);
                if head.is_live() && head.version() == version {
                    self.note(crate::log::What::Forgotten, slot);
                    self.reach("sweep:forget", slot);
                    if let Some((dependants, epoch)) = self.function(slot).forget(self, slot) {
                        direct.lists.extend(Some(dependants).filter(|&list| list != 0));
                        found.notices.push((slot, epoch));
                        found.marked += 1;
                    }
                }
            }
            Root::Function { id } => {
                if let Some(function) = self.all_functions().get(id as usize) {
                    self.mark_all(&**function, found, direct);
                }
            }
            Root::Everything => {
                for function in self.all_functions() {
                    self.mark_all(&*function, found, direct);
                }
            }
        }
    }

    /// Whether the node still has the generation that was seen, with its value or without.
    fn is_still(&self, slot: u32, seen: Head) -> bool {
        let head = self.head(slot);
        head.is_settled() && head.version() == seen.version() && head.epoch() == seen.epoch()
    }

    fn mark_all(&self, function: &dyn crate::graph::AnyFunction, found: &mut Found, direct: &mut Found) {
        for slot in function.slots() {
            if function.is_source() {
                self.touch(slot, self.head(slot).version(), None, None, direct);
            } else {
                self.mark_root(slot, None, found);
            }
        }
    }

    /// The root itself must be recomputed, whatever it is doing.
    fn mark_root(&self, slot: u32, version: Option<u32>, found: &mut Found) {
        let mut now = self.head(slot);
        loop {
            if !now.is_live() || version.is_some_and(|version| version != now.version()) {
                return;
            }
            let to = match now.state() {
                // Written as it is: a claim that comes later sees what was done before this invalidation.
                State::Empty | State::Stale => now,
                State::Consistent | State::Pending => now.in_state(State::Stale).without(WATCHED),
                State::Evicted => now.in_state(State::Empty),
                State::Computing | State::Verifying | State::Publishing if fault!("root_skips_flight") => return,
                State::Computing | State::Verifying | State::Publishing if now.has(DOOMED) => return,
                State::Computing | State::Verifying | State::Publishing => now.with(DOOMED),
            };
            match self.mark_from(slot, now, to, found) {
                Ok(()) => {
                    if to != now {
                        found.marked += 1;
                        self.note(crate::log::What::Invalidated, slot);
                    }
                    return;
                }
                Err(other) => now = other,
            }
        }
    }

    /// Moves a head; a node that was consistent gives up its dependants: they are the next level.
    ///
    /// A consistent head is moved without a compare-and-swap, which is half of what a mark costs: the list's lock is held, and
    /// a consistent head is changed only under it (other marks, a watcher's flag) or by the sweeper before its levels (a source
    /// that is set, a node that is forgotten). Readers claim other states only.
    #[inline(always)]
    pub(crate) fn mark_from(&self, slot: u32, from: Head, to: Head, found: &mut Found) -> Result<(), Head> {
        if !from.is_settled() {
            return self.swing(slot, from, to);
        }
        let row = self.row(slot);
        let mark = || {
            let now = self.head(slot);
            if now != from {
                return Err(now);
            }
            // Release: as any move of a head. Ordered before the looks at the next level by the fence there.
            row.head.store(to.0, Ordering::Release);
            Ok(())
        };
        let list = self.edges.take_if(&row.rev, mark)?;
        if list != 0 {
            found.lists.push(list);
        }
        if from.has(WATCHED) {
            found.notices.push((slot, from.epoch()));
        }
        Ok(())
    }

    /// A value word that is in no node, or no more.
    pub(crate) fn discard(&self, slot: u32, word: u64) {
        if let Some(retired) = self.function(slot).retired_value(word) {
            self.collector.retire(retired);
        }
    }

    /// Gives a source a new value (or says that what it stands for changed). The list is taken while the node is
    /// `Publishing`, so that a reader of the new value is not marked by the change it has already seen. With `seen`, only a source
    /// that is still at that epoch; whether it was done.
    fn touch(&self, slot: u32, version: u32, word: Option<u64>, seen: Option<u32>, direct: &mut Found) -> bool {
        let mut backoff = Backoff::default();
        let mut now = self.head(slot);
        loop {
            let changed = seen.is_some_and(|seen| seen != now.epoch()) && !fault!("replaces_unseen");
            if now.version() != version || now.epoch() >= crate::verify::LAST_EPOCH || changed {
                if let Some(word) = word {
                    self.discard(slot, word);
                }
                return false;
            }
            // Relaxed: only owners of `Publishing` change the flag, and an owner is what we become.
            let has_value = self.warm(slot).flags.load(Ordering::Relaxed) & HAS_VALUE != 0;
            match now.state() {
                State::Publishing | State::Verifying => {
                    backoff.wait();
                    now = self.head(slot);
                    continue;
                }
                State::Empty if word.is_none() => return false,
                State::Computing if word.is_none() && !has_value => return false,
                _ => {}
            }
            let owned = now.next_flight(State::Publishing);
            match self.swing(slot, now, owned) {
                Ok(()) => {
                    self.store_source(slot, owned, now, word, direct);
                    return true;
                }
                Err(other) => now = other,
            }
        }
    }

    fn store_source(&self, slot: u32, owned: Head, was: Head, word: Option<u64>, direct: &mut Found) {
        if was.is_settled() {
            direct.lists.extend(Some(self.edges.take(&self.row(slot).rev)).filter(|&list| list != 0));
            direct.notices.extend(was.has(WATCHED).then(|| (slot, was.epoch())));
        }
        match word {
            Some(word) => self.replace_value(slot, owned, word),
            // Release: as in `publish`.
            None => self.warm(slot).changed.store(owned.epoch(), Ordering::Release),
        }
        direct.marked += 1;
        self.note(crate::log::What::Set, slot);
        self.let_go(slot, owned, State::Consistent, direct);
    }

    /// The sweeper, who owns the node, gives it another value.
    pub(crate) fn replace_value(&self, slot: u32, owned: Head, word: u64) {
        let (row, warm) = (self.row(slot), self.warm(slot));
        // Relaxed (flags): this owner's predecessor released them with the head.
        let flags = warm.flags.load(Ordering::Relaxed);
        let old = row.value.load(Ordering::Relaxed);
        // Release (both), Relaxed (flags): as in `publish`.
        row.value.store(word, Ordering::Release);
        warm.changed.store(owned.epoch(), Ordering::Release);
        warm.flags.store(value_flags(flags, self.begun_commit()), Ordering::Relaxed);
        if flags & HAS_VALUE != 0 {
            self.discard(slot, old);
        }
    }

    /// The sweeper, who owns the node, leaves it in the given state. Who waits for it is told after the sweep.
    pub(crate) fn let_go(&self, slot: u32, owned: Head, state: State, found: &mut Found) {
        let mut now = owned;
        while let Err(other) = self.swing(slot, now, Head::new(state, now.version(), now.epoch())) {
            now = other;
        }
        if now.has(WAITERS) {
            found.ended.push((slot, now.epoch()));
        }
    }

    /// Marks the dependants in one level's lists, in three stages so that misses overlap: blocks are asked for sixteen lists
    /// ahead, the rows their edges name when the block is read, and the marks come a buffer later.
    pub(crate) fn level(&self, lists: &[u32], color: State, found: &mut Found) {
        // SeqCst: the marks of the level before, whoever made them, come before the looks at the dependants' heads: the sweep's
        // half of the store-load order that `head_after_mark` names. One fence a level instead of one a mark.
        if !fault!("no_fence") {
            fence(Ordering::SeqCst);
        }
        let rows = self.columns.rows();
        let near = self.columns.bytes() <= NEAR;
        let mut buffer = [0u64; BUFFER];
        let mut filled = 0;
        for (at, &list) in lists.iter().enumerate() {
            if let Some(&ahead) = lists.get(at + AHEAD) {
                self.edges.prefetch_block(ahead);
            }
            if !near && let Some(&ahead) = lists.get(at + AHEAD / 2) {
                self.edges.prefetch_second(ahead);
            }
            for words in self.edges.blocks(list) {
                // Relaxed: the chain was taken with Acquire.
                let words = words.iter().map(|word| word.load(Ordering::Relaxed));
                if near {
                    words.for_each(|word| self.mark_edge(&rows, word, color, found));
                } else {
                    for word in words {
                        // SAFETY: [region-stable] a slot in an edge has its row.
                        prefetch(std::ptr::from_ref(unsafe { rows.at(unpack(word).slot as usize) }));
                        buffer[filled % BUFFER] = word;
                        filled += 1;
                        if filled % BUFFER == 0 {
                            buffer.iter().for_each(|&word| self.mark_edge(&rows, word, color, found));
                        }
                    }
                }
                if fault!("first_block_only") {
                    break;
                }
            }
        }
        buffer[..filled % BUFFER].iter().for_each(|&word| self.mark_edge(&rows, word, color, found));
    }

    /// One edge. Most lead to nodes that are marked already, so the state is looked at before the generation.
    #[inline(always)]
    fn mark_edge(&self, rows: &Base<Row>, word: u64, color: State, found: &mut Found) {
        let edge = unpack(word);
        // SAFETY: [region-stable] a slot in an edge has its row.
        let row = unsafe { rows.at(edge.slot as usize) };
        // Acquire: as `Graph::head`.
        let head = Head(row.head.load(Ordering::Acquire));
        if head.is_settled() || head.is_owned() {
            // Relaxed: an edge whose generation changes right now is checked again by its dependant's registration.
            let current = generation(row.rev.load(Ordering::Relaxed));
            if current == edge.generation || fault!("generation_ignored") {
                self.mark(edge.slot, head, color, found);
            }
        }
        // A computing flight finds the mark when it registers; the rest are marked already.
    }

    /// One dependant: the mark that wins is the visited mark, and the winner owns the node's list.
    #[inline(always)]
    fn mark(&self, slot: u32, mut now: Head, color: State, found: &mut Found) {
        loop {
            let to = if now.is_consistent() {
                now.in_state(color).without(WATCHED)
            } else if now.is_settled() {
                if fault!("evicted_unmarked") {
                    return;
                }
                // There is no value to verify for.
                now.in_state(State::Empty)
            } else if now.is_owned() && !now.has(DOOMED_MAYBE) {
                // Its owner registered the edge already, or is about to look at what we marked.
                now.with(DOOMED_MAYBE)
            } else {
                return;
            };
            match self.mark_from(slot, now, to, found) {
                Ok(()) => {
                    if now.is_settled() {
                        found.marked += 1;
                        self.note(crate::log::What::Marked, slot);
                    }
                    return;
                }
                // A slot that was freed and taken meanwhile is none of this edge's.
                Err(other) if other.version() != now.version() => return,
                Err(other) => now = other,
            }
        }
    }
}

impl Found {
    pub(crate) fn merge(&mut self, other: Found) {
        self.lists.extend(other.lists);
        self.notices.extend(other.notices);
        self.ended.extend(other.ended);
        self.marked += other.marked;
    }
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}
