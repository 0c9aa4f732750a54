//! Which generation of each key is the last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wellspring::Key;

use crate::remoted::Inner;

/// The last generation of each key, and the value that a function's readers have of it: as long as it is in the graph, or anybody computes it.
#[derive(Debug)]
pub(crate) struct Lives<K, V>(Mutex<State<K, V>>);

#[derive(Debug)]
struct State<K, V> {
    last: u64,
    keys: HashMap<K, Life<V>, ahash::RandomState>,
}

#[derive(Debug)]
struct Life<V> {
    /// 0: whoever computed the last has given up.
    number: u64,
    value: Weak<Inner<V>>,
}

impl<K, V> Default for Lives<K, V> {
    fn default() -> Lives<K, V> {
        Lives(Mutex::new(State { last: 0, keys: HashMap::default() }))
    }
}

impl<K: Key, V> Lives<K, V> {
    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // A key that panics when it is compared leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one: its number, and the value of before, if that is still there.
    pub(crate) fn begin(&self, key: &K) -> (u64, Option<Arc<Inner<V>>>) {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        if let Some(life) = state.keys.get_mut(key) {
            life.number = number;
            return (number, life.value.upgrade());
        }
        state.keys.insert(key.clone(), Life { number, value: Weak::new() });
        (number, None)
    }

    pub(crate) fn is(&self, key: &K, number: u64) -> bool {
        self.state().keys.get(key).is_some_and(|life| life.number == number)
    }

    /// It has this value, which is to be found again.
    pub(crate) fn keep(&self, key: &K, number: u64, value: &Arc<Inner<V>>) {
        if let Some(life) = self.state().keys.get_mut(key).filter(|life| life.number == number) {
            life.value = Arc::downgrade(value);
        }
    }

    /// It will have none.
    pub(crate) fn give_up(&self, key: &K, number: u64) {
        let mut state = self.state();
        let Some(life) = state.keys.get_mut(key).filter(|life| life.number == number) else { return };
        if life.value.strong_count() > 0 {
            life.number = 0;
        } else {
            state.keys.remove(key);
        }
    }

    /// Its value is not there any more. Whether it was the last.
    pub(crate) fn leave(&self, key: &K, number: u64) -> bool {
        let mut state = self.state();
        let Some(life) = state.keys.get(key) else { return false };
        let was = life.number == number;
        if was || (life.number == 0 && life.value.strong_count() == 0) {
            state.keys.remove(key);
        }
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoted::Standing;

    fn value() -> Arc<Inner<u8>> {
        Inner::new(Ok(1), None, Standing::Passing)
    }

    #[test]
    fn the_last_generation_is_the_one_that_began_last() {
        let lives = Lives::<u8, u8>::default();
        let ((one, none), (other, _)) = (lives.begin(&1), lives.begin(&2));
        assert!(none.is_none() && lives.is(&1, one) && !lives.is(&2, one));
        let kept = value();
        lives.keep(&1, one, &kept);
        let (two, found) = lives.begin(&1);
        assert!(found.is_some_and(|found| Arc::ptr_eq(&found, &kept)));
        assert!(lives.is(&1, two) && !lives.is(&1, one), "whoever is overtaken says nothing of the key");
        lives.keep(&1, one, &value());
        assert!(lives.begin(&1).1.is_some_and(|found| Arc::ptr_eq(&found, &kept)), "nor has it another value");
        assert!(!lives.leave(&1, one) && lives.leave(&2, other));
        assert_eq!(lives.state().keys.len(), 1);
    }

    #[test]
    fn nothing_is_left_of_a_key_whose_value_is_gone_and_that_nobody_computes() {
        let lives = Lives::<u8, u8>::default();
        let one = lives.begin(&1).0;
        lives.give_up(&1, one);
        assert_eq!(lives.state().keys.len(), 0);
        // A value outlives attempts that are given up.
        let (two, kept) = (lives.begin(&1).0, value());
        lives.keep(&1, two, &kept);
        let three = lives.begin(&1).0;
        lives.give_up(&1, three);
        assert!(!lives.is(&1, two) && lives.begin(&1).1.is_some());
        let four = lives.begin(&1).0;
        lives.give_up(&1, four);
        drop(kept);
        assert!(!lives.leave(&1, two));
        assert_eq!(lives.state().keys.len(), 0);
    }
}
