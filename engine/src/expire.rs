//! How long a value may live: expiry, errors that are tried again, delayed and debounced invalidation, refresh ahead.
//!
//! Each node has a row of [`Times`](crate::node::Times) and at most one entry in the wheel that counts: the earliest. An entry that fires
//! looks at the row and arms what is left, so that a deadline that moves costs a store and no removal, and a later one never postpones an
//! earlier one. Whether a value is over is asked once more when it is marked, so that one that was renewed meanwhile stays.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::graph::Graph;
use crate::node::{DOOMED, State, WATCHED};
use crate::origin::By;
use crate::sweep::{Found, Root, Roots};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sync::fault;
use crate::timer::Due;

/// What an error means for the time until its function is tried again. The defaults are ActualLab.Fusion's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Will pass by itself: tried again after the transient delay (1 s unless set).
    Transient,
    /// Will stay until something changes: tried again after the non-transient delay (30 s unless set) or at the value's ordinary end,
    /// whichever is sooner.
    NonTransient,
    /// Final: kept as long as any other value.
    Terminal,
    /// Transient, and whoever raised it says when to try again: the later of that and the transient delay.
    RetryAfter(Duration),
}

type Classify<V> = dyn Fn(&V) -> Option<ErrorKind> + Send + Sync;

/// What is an error, and for how long it is kept.
pub(crate) struct ErrorRule<V> {
    pub(crate) classify: Box<Classify<V>>,
    pub(crate) transient: Duration,
    pub(crate) non_transient: Duration,
    /// The last good value is served in place of an error.
    pub(crate) serve_stale: bool,
}

impl<V> ErrorRule<V> {
    pub(crate) fn new(classify: Box<Classify<V>>) -> ErrorRule<V> {
        ErrorRule { classify, transient: Duration::from_secs(1), non_transient: Duration::from_secs(30), serve_stale: false }
    }

    /// A rule that panics cannot tell: transient, so that nothing is kept for long because of it.
    pub(crate) fn kind(&self, value: &V) -> Option<ErrorKind> {
        catch_unwind(AssertUnwindSafe(|| (self.classify)(value))).unwrap_or(Some(ErrorKind::Transient))
    }
}

/// A function's rules about time.
pub(crate) struct Life<V> {
    pub(crate) expire_after: Option<Duration>,
    pub(crate) refresh_ahead: Option<Duration>,
    pub(crate) debounce: Option<Duration>,
    pub(crate) keep_at_least: Option<Duration>,
    pub(crate) errors: Option<ErrorRule<V>>,
}

impl<V> Default for Life<V> {
    fn default() -> Life<V> {
        Life { expire_after: None, refresh_ahead: None, debounce: None, keep_at_least: None, errors: None }
    }
}

impl<V> Life<V> {
    /// The name of a rule that is set, for a message.
    pub(crate) fn option(&self) -> Option<&'static str> {
        let set = [
            (self.expire_after.is_some(), "expire_after"),
            (self.refresh_ahead.is_some(), "refresh_ahead"),
            (self.debounce.is_some(), "debounce"),
            (self.keep_at_least.is_some(), "keep_at_least"),
            (self.errors.is_some(), "classify"),
        ];
        set.iter().find(|(set, _)| *set).map(|(_, name)| *name)
    }

    /// Whether values may end by themselves.
    pub(crate) fn is_limited(&self) -> bool {
        self.expire_after.is_some() || self.errors.is_some()
    }

    /// How long a value may live, by what kind of error it is.
    pub(crate) fn span(&self, kind: Option<ErrorKind>) -> Option<Duration> {
        let (Some(errors), Some(kind)) = (&self.errors, kind) else { return self.expire_after };
        match kind {
            ErrorKind::Transient => Some(errors.transient),
            ErrorKind::NonTransient => Some(self.expire_after.map_or(errors.non_transient, |end| end.min(errors.non_transient))),
            ErrorKind::Terminal => self.expire_after,
            ErrorKind::RetryAfter(hint) => Some(errors.transient.max(hint)),
        }
    }

    /// The ticks of a value that is stored now.
    pub(crate) fn term(&self, graph: &Graph, kind: Option<ErrorKind>) -> Term {
        let Some(span) = self.span(kind) else { return Term::default() };
        let ahead = self.refresh_ahead.filter(|_| kind.is_none());
        // Tick 0 is never: what ends at the clock's zero ends a tick later.
        let after = |span: Duration| graph.timers.after(span).max(1);
        Term { expires: after(span), refresh: ahead.map_or(0, |ahead| after(span.saturating_sub(ahead))) }
    }
}

/// When a value ends and when it is to be refreshed, in ticks; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) expires: u64,
    pub(crate) refresh: u64,
}

/// The earlier of two ticks, where 0 is none.
fn sooner(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

impl Graph {
    /// Stores a generation's term: for the owner of `Publishing`.
    pub(crate) fn set_term(&self, slot: u32, term: Term) {
        let times = self.columns.times(slot);
        // Relaxed (both): published by the head that ends the owner's turn; who reads them checks the head again.
        times.expires.store(term.expires, Ordering::Relaxed);
        times.refresh.store(term.refresh, Ordering::Relaxed);
    }

    /// Sees to it that the wheel has an entry for the node no later than the tick.
    pub(crate) fn arm_node(&self, slot: u32, at: u64) {
        if at == 0 {
            return;
        }
        let armed = &self.columns.times(slot).armed;
        self.timers.arm_if(at, Due::Node { slot }, || {
            // Relaxed (both): under the wheel's lock.
            let now = armed.load(Ordering::Relaxed);
            let sooner = now == 0 || at < now || fault!("later_timer_wins");
            if sooner {
                armed.store(at, Ordering::Relaxed);
            }
            sooner
        });
    }

    /// The generation's term has been stored.
    pub(crate) fn arm_term(&self, slot: u32, term: Term) {
        self.arm_node(slot, sooner(term.expires, term.refresh));
    }

    /// The key's value is to be invalidated at the tick, or sooner if somebody asked for that.
    #[track_caller]
    pub(crate) fn invalidate_at(&self, slot: u32, at: u64) {
        let asked = &self.columns.times(slot).asked;
        // Relaxed (all): a tick and nothing else; armed under the wheel's lock.
        let mut now = asked.load(Ordering::Relaxed);
        while now == 0 || at < now {
            match asked.compare_exchange(now, at, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.note_wish(slot, std::panic::Location::caller());
                    break;
                }
                Err(other) => now = other,
            }
        }
        self.arm_node(slot, at);
    }

    /// A slot that was freed owes nobody anything.
    pub(crate) fn clear_times(&self, slot: u32) {
        let times = self.columns.times(slot);
        // Looked at first: writing would take memory that a node without rules about time does not use.
        // Relaxed (all): the slot is nobody's; its next tenant is published by its head.
        for column in [&times.expires, &times.asked, &times.refresh] {
            if column.load(Ordering::Relaxed) != 0 {
                column.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Handles what the wheel gave out.
    pub(crate) fn fall_due(self: &Arc<Graph>, due: Vec<(u64, Due)>, now: u64) {
        let mut roots = Roots::new();
        let mut refresh = Vec::new();
        for (tick, what) in due {
            match what {
                Due::Node { slot } => {
                    let next = self.node_due(slot, (tick, now), &mut roots, &mut refresh);
                    self.arm_node(slot, next);
                }
                Due::Stamp { function } => {
                    if let Some(function) = self.all_functions().get(function as usize) {
                        function.move_stamp(self);
                    }
                }
                Due::Sleeper(_) => {}
            }
        }
        if !roots.is_empty() {
            self.commit_by(roots, &By::Timer);
        }
        for (slot, version) in refresh {
            // A spawner is the user's: one that panics leaves this value to its end, and the others to their refresh.
            let _ = catch_unwind(AssertUnwindSafe(|| self.function(slot).refresh_ahead(self, slot, version)));
        }
    }

    /// One entry of a node; the tick to arm next, 0 for none. What the row says belongs to the slot's tenant of now.
    fn node_due(&self, slot: u32, (tick, now): (u64, u64), roots: &mut Roots, refresh: &mut Vec<(u32, u32)>) -> u64 {
        let times = self.columns.times(slot);
        let current = self.timers.while_held(|| {
            // Relaxed (both): under the wheel's lock.
            let mine = times.armed.load(Ordering::Relaxed) == tick;
            if mine {
                times.armed.store(0, Ordering::Relaxed);
            }
            mine
        });
        let head = self.head(slot);
        // Another entry is earlier or came after, and this one was left behind; or there is nobody.
        if !current || !head.is_live() {
            return 0;
        }
        let version = head.version();
        let is_due = |at: u64| at != 0 && at <= now;
        // Relaxed (all): ticks; what is done about them is checked against the head.
        let asked = times.asked.load(Ordering::Relaxed);
        if is_due(asked) && times.asked.compare_exchange(asked, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            roots.push(Root::Stale { slot, version });
        }
        let expires = times.expires.load(Ordering::Relaxed);
        if is_due(expires) {
            roots.push(Root::Expired { slot, version, now });
        } else {
            let at = times.refresh.load(Ordering::Relaxed);
            if is_due(at) && times.refresh.compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                refresh.push((slot, version));
            }
        }
        self.next_due(slot, now)
    }

    /// The first tick after `now` at which something of the node's is due; 0 if there is none.
    fn next_due(&self, slot: u32, now: u64) -> u64 {
        let times = self.columns.times(slot);
        // Relaxed: ticks alone.
        [&times.asked, &times.expires, &times.refresh].iter().fold(0, |first, column| {
            let at = column.load(Ordering::Relaxed);
            if at > now { sooner(first, at) } else { first }
        })
    }

    /// The sweep's part: the value ends unless it was renewed meanwhile. A flight that is under way makes a new one and is left alone.
    pub(crate) fn mark_expired(&self, slot: u32, version: u32, now: u64, found: &mut Found) {
        let mut head = self.head(slot);
        loop {
            let to = match head.state() {
                State::Consistent | State::Pending => head.in_state(State::Stale).without(WATCHED),
                // What was made from it lives as long as it would have.
                State::Evicted => head.in_state(State::Empty),
                // A verification would bring back the value that is over; other owners and flights bring a new one.
                State::Verifying if !head.has(DOOMED) => head.with(DOOMED),
                _ => return,
            };
            if head.version() != version {
                return;
            }
            // Relaxed: written before the head that was loaded with Acquire; a newer one belongs to a head that is not this one.
            let expires = self.columns.times(slot).expires.load(Ordering::Relaxed);
            if (expires == 0 || expires > now) && !fault!("expiry_unchecked") {
                return;
            }
            match self.mark_from(slot, head, to, found) {
                Ok(()) => {
                    found.marked += 1;
                    self.note(crate::log::What::Expired, slot);
                    return;
                }
                Err(other) => head = other,
            }
        }
    }
}
