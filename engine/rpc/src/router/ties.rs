//! What was got of a key, tied to the server that the key was at.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::route::Place;
use super::routes::Routes;
use crate::end::End;
use crate::made::{Cutter, Made};

/// Values are not looked for among fewer that nobody has any more.
const FEW: usize = 64;

/// Values that are to end when their keys are elsewhere.
pub(super) struct Ties<K>(Mutex<State<K>>);

struct State<K> {
    all: Vec<Arc<Tie<K>>>,
    /// How many there may be until it is seen which have ended by themselves.
    most: usize,
}

struct Tie<K> {
    key: K,
    place: Place,
    end: Weak<End>,
    call: Option<Cutter>,
}

impl<K> fmt::Debug for Ties<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ties").finish_non_exhaustive()
    }
}

impl<K> Tie<K> {
    fn is_live(&self) -> bool {
        self.end.upgrade().is_some_and(|end| !end.has_come())
    }

    /// The server hears that nobody listens, and who has the value that it is stale.
    fn cut(&self) {
        if let Some(call) = &self.call {
            call.cut();
        }
        if let Some(end) = self.end.upgrade() {
            end.tell();
        }
    }
}

impl<K: 'static> Ties<K> {
    pub(super) fn new() -> Ties<K> {
        Ties(Mutex::new(State { all: Vec::new(), most: FEW }))
    }

    /// Ends a value when its key is elsewhere; now, if it is already.
    pub(super) fn tie(&self, routes: &Routes<K>, key: K, place: Place, end: &Arc<End>, call: Option<&Made>) {
        let tie = Arc::new(Tie { key, place, end: Arc::downgrade(end), call: call.map(Made::cutter) });
        {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.all.len() >= state.most {
                state.all.retain(|tie| tie.is_live());
                state.most = FEW.max(2 * state.all.len());
            }
            state.all.push(tie.clone());
        }
        // After it can be found by who sets another route: one of the two sees the other.
        if routes.place(&tie.key) != tie.place {
            tie.cut();
        }
    }

    /// Ends those whose keys are elsewhere.
    pub(super) fn cut(&self, routes: &Routes<K>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).all.clone();
        // Routes, and what is done at an end, are the user's: nothing is locked.
        for tie in all {
            if tie.is_live() && routes.place(&tie.key) != tie.place {
                tie.cut();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::Single;
    use super::*;

    #[test]
    fn values_that_nobody_has_any_more_are_not_kept() {
        let (ties, routes) = (Ties::new(), Routes::<u32>::new(Single::new("a")));
        let kept = Arc::<End>::default();
        for key in 0..10_000 {
            ties.tie(&routes, key, routes.place(&key), &Arc::default(), None);
            if key == 5_000 {
                ties.tie(&routes, key, routes.place(&key), &kept, None);
            }
        }
        assert!(ties.0.lock().expect("no panic").all.len() <= FEW);
        routes.set(Single::new("a"));
        ties.cut(&routes);
        assert!(!kept.has_come(), "its key is where it was");
        routes.set(Single::new("b"));
        ties.cut(&routes);
        assert!(kept.has_come());
    }

    #[test]
    fn a_value_whose_key_has_moved_before_it_was_tied_ends_at_once() {
        let (ties, routes) = (Ties::new(), Routes::<u32>::new(Single::new("a")));
        let (place, end) = (routes.place(&1), Arc::<End>::default());
        routes.set(Single::new("b"));
        ties.tie(&routes, 1, place, &end, None);
        assert!(end.has_come());
    }
}
