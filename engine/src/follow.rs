//! Following one key from generation to generation: what counts as news, and how long to wait after a fault. The part that streams and
//! callbacks share.

use std::time::Duration;

use crate::computed::Place;
use crate::delay::Backoff;
use crate::deps::UNSTORED;
use crate::graph::Graph;
use crate::sync::atomic::Ordering;
use crate::sync::fault;

/// The wait of a follower that is overtaken again and again, by the engine's clock. Others wait as [`Backoff`] says.
const SHORTEST: Duration = Duration::from_secs(1);

/// Reads in a row whose value is stored nowhere, without a commit that would explain it, before waiting.
const FRUITLESS: u32 = 3;
/// Reads in a row whose generation has ended before it was given out. What was computed beside a commit may be a mixture, so it is read
/// again; but a graph that is always busy, or a capacity that keeps nothing, must not keep its watchers from ever being told: they
/// are, and the next read waits.
const RUSHED: u32 = 16;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The value that is known already: verified, or recomputed and equal.
    Same,
    /// Another value.
    News,
    /// Neither: it is over already. Read again at once.
    Again,
    /// A value that is stored nowhere, or not for long: nothing will tell of its end, so it is asked for again after a wait.
    Loose(Duration),
}

/// Where a follower stands.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// The last generation known to have the value that was last given out; none after a fault.
    last: Option<Place>,
    /// Waits since something was given out.
    waits: u32,
    /// Reads in a row that brought nothing.
    vain: u32,
}

impl Follow {
    /// Judges what a read that began after the commit `began` returned, once the follower is armed for its end.
    pub(crate) fn judge(&mut self, graph: &Graph, place: Place, began: u64) -> Verdict {
        let (slot, version, epoch) = place;
        if epoch == UNSTORED {
            self.vain += 1;
            if (graph.finished_commit() != began && self.vain < RUSHED) || self.vain < FRUITLESS {
                return Verdict::Again;
            }
            self.vain = 0;
            self.last = None;
            return Verdict::Loose(self.wait());
        }
        // Acquire: as `Graph::unchanged`. It only grows, so one that is not later than the generation is the generation's own.
        let changed = graph.warm(slot).changed.load(Ordering::Acquire);
        let known = |last: Place| last.0 == slot && last.1 == version && changed <= last.2;
        let same = self.last.is_some_and(known) && !fault!("equal_is_news");
        if !same {
            // A value made while a commit stores its sources one by one is consistent until the commit marks it.
            graph.outlast_commits();
            let head = graph.head(slot);
            if !head.is_consistent() || head.version() != version || head.epoch() != epoch {
                self.vain += 1;
                if self.vain < RUSHED {
                    return Verdict::Again;
                }
                (self.last, self.vain) = (None, 0);
                // Without a commit it was not overtaken but evicted, and so would the next be: nothing will tell of its end.
                let evicted = graph.finished_commit() == began;
                return Verdict::Loose(if evicted { self.wait() } else { SHORTEST });
            }
        }
        *self = Follow { last: Some(place), ..Follow::default() };
        if same { Verdict::Same } else { Verdict::News }
    }

    /// The read ended in a fault: how long to wait before the next.
    pub(crate) fn failed(&mut self) -> Duration {
        (self.last, self.vain) = (None, 0);
        self.wait()
    }

    fn wait(&mut self) -> Duration {
        self.waits = self.waits.saturating_add(1);
        Backoff::default().delay(self.waits)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_second_to_a_minute() {
        let mut follow = Follow::default();
        let waits: Vec<f64> = (0..14).map(|_| (follow.failed().as_secs_f64() * 1_000.0).round()).collect();
        assert_eq!(waits[..5], [1_000.0, 1_414.0, 2_000.0, 2_828.0, 4_000.0]);
        assert_eq!(waits[11..], [45_255.0, 60_000.0, 60_000.0]);
    }
}
