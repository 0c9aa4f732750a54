//! What has numbers that are given out in order, most of which are over soon after they were: calls.
//!
//! Those that came last stand in a row, by their numbers: one is found by a subtraction, and a thousand calls whose answers come in about the order in
//! which they were made go through memory as it lies. A hash table, which this was, has each of them anywhere. Those that outlive most of what came
//! after them do have one, or one of them would keep the whole row.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

/// Places of a row that may be empty, besides as many as are taken.
const EMPTY: usize = 64;
/// How many are moved out of the row by each that is added, while too many places are empty.
const AGED: usize = 2;
/// Places that a row keeps when nothing is in it.
const KEPT: usize = 1024;

/// Things by their numbers.
#[derive(Debug)]
pub(crate) struct Numbered<T> {
    /// The number of the first place in the row.
    first: u64,
    /// The first place is taken, if there is one.
    row: VecDeque<Option<T>>,
    /// Places in the row that are taken.
    taken: usize,
    /// Those before the row. Their numbers nobody can choose so that they collide.
    old: HashMap<u64, T, FxBuildHasher>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { first: 0, row: VecDeque::new(), taken: 0, old: HashMap::default() }
    }
}

impl<T> Numbered<T> {
    /// Adds one, whose number is above that of each before it.
    pub(crate) fn push(&mut self, number: u64, value: T) {
        debug_assert!(number >= self.first.saturating_add(self.row.len() as u64), "numbers go up");
        let skipped = number.saturating_sub(self.first.saturating_add(self.row.len() as u64));
        // A few at a time, which is more than come: with a hundred thousand that stay, nobody waits for all of them to be moved.
        let mut most = if skipped > EMPTY as u64 { self.row.len() } else { AGED };
        while most > 0 && self.row.len() as u64 + skipped > (2 * self.taken + EMPTY) as u64 {
            self.age();
            most -= 1;
        }
        if self.row.is_empty() {
            self.first = number;
        } else if skipped > 0 {
            self.row.extend((0..skipped).map(|_| None));
        }
        self.row.push_back(Some(value));
        self.taken += 1;
    }

    /// Moves the first of the row out of it.
    fn age(&mut self) {
        let number = self.first;
        if let Some(value) = self.cut(number) {
            self.old.insert(number, value);
        }
    }

    fn at(&self, number: u64) -> Option<usize> {
        number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok())
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        match self.at(number) {
            Some(at) => self.row.get(at)?.as_ref(),
            None => self.old.get(&number),
        }
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.at(number) {
            Some(at) => self.row.get_mut(at)?.as_mut(),
            None => self.old.get_mut(&number),
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        if self.at(number).is_some() { self.cut(number) } else { self.old.remove(&number) }
    }

    /// Takes one out of the row, which then begins with the next one.
    fn cut(&mut self, number: u64) -> Option<T> {
        let at = self.at(number)?;
        let value = self.row.get_mut(at)?.take()?;
        self.taken -= 1;
        if at > 0 {
            return Some(value);
        }
        while let Some(None) = self.row.front() {
            self.row.pop_front();
            self.first += 1;
        }
        if self.row.is_empty() && self.row.capacity() > KEPT {
            self.row = VecDeque::new();
        }
        Some(value)
    }

    /// Takes out those of which something is so.
    pub(crate) fn take_if(&mut self, mut is_so: impl FnMut(&T) -> bool) -> Vec<T> {
        let numbers: Vec<u64> = self.iter().filter(|(_, value)| is_so(value)).map(|(number, _)| number).collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let row = (self.first..).zip(&self.row).filter_map(|(number, value)| Some((number, value.as_ref()?)));
        self.old.iter().map(|(number, value)| (*number, value)).chain(row)
    }

    pub(crate) fn len(&self) -> usize {
        self.taken + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;

    /// What is true of it whatever was done.
    fn check(numbered: &Numbered<u64>, model: &BTreeMap<u64, u64>) {
        let mut all: Vec<(u64, u64)> = numbered.iter().map(|(number, value)| (number, *value)).collect();
        all.sort_unstable();
        assert_eq!(all, model.iter().map(|(number, value)| (*number, *value)).collect::<Vec<_>>());
        assert_eq!(numbered.len(), model.len());
        assert_eq!(numbered.taken, numbered.row.iter().flatten().count());
        assert!(numbered.row.front().is_none_or(Option::is_some));
        assert!(numbered.old.keys().all(|number| *number < numbered.first));
    }

    #[test]
    fn whatever_is_added_and_taken_out_it_has_what_a_map_would_have() {
        for seed in 0..200 {
            let rng = &mut Rng::with_seed(seed);
            let (mut numbered, mut model, mut last) = (Numbered::default(), BTreeMap::new(), rng.u64(0..3));
            let (skips, stays, mut peak) = (rng.bool(), rng.u64(0..100), 0);
            for _ in 0..400 {
                match rng.u8(0..8) {
                    0..=3 => {
                        last += if skips && rng.u8(0..20) == 0 { rng.u64(1..5000) } else { 1 };
                        numbered.push(last, last * 7);
                        model.insert(last, last * 7);
                        peak = peak.max(numbered.taken);
                        assert!(numbered.row.len() <= 2 * peak + 2 * EMPTY);
                    }
                    // Some stay for long: every so-manieth.
                    4..=6 => {
                        let number = last.saturating_sub(rng.u64(0..200));
                        if number % 100 >= stays {
                            assert_eq!(numbered.remove(number), model.remove(&number));
                        }
                        assert_eq!(numbered.get(number), model.get(&number));
                    }
                    _ => {
                        let number = last.saturating_sub(rng.u64(0..300));
                        if let Some(value) = numbered.get_mut(number) {
                            *value += 1;
                        }
                        if let Some(value) = model.get_mut(&number) {
                            *value += 1;
                        }
                    }
                }
                check(&numbered, &model);
            }
            let mut taken = numbered.take_if(|value| value % 2 == 0);
            taken.sort_unstable();
            let expected: Vec<u64> = model.values().copied().filter(|value| value % 2 == 0).collect();
            model.retain(|_, value| *value % 2 == 1);
            assert_eq!(taken.len(), expected.len());
            check(&numbered, &model);
        }
    }

    #[test]
    fn one_that_stays_keeps_no_room_for_a_million_that_went() {
        let mut numbered = Numbered::default();
        numbered.push(1, ());
        for number in 2..1_000_000 {
            numbered.push(number, ());
            assert!(numbered.remove(number).is_some());
        }
        assert!(numbered.row.capacity() <= 4 * EMPTY, "{}", numbered.row.capacity());
        assert!(numbered.remove(1).is_some());
        assert_eq!(numbered.len(), 0);
    }

    #[test]
    fn many_that_stay_are_moved_a_few_at_a_time() {
        let mut numbered = Numbered::default();
        (0..10_000).for_each(|number| numbered.push(number, ()));
        for number in 10_000..60_000 {
            let before = numbered.old.len();
            numbered.push(number, ());
            assert!(numbered.old.len() - before <= AGED);
            assert!(numbered.remove(number).is_some());
        }
        assert_eq!(numbered.old.len(), 10_000, "all that stay have left room for those that come");
        assert!(numbered.row.capacity() < 65_536);
        assert_eq!(numbered.len(), 10_000);
        assert!((0..10_000).all(|number| numbered.remove(number).is_some()));
    }

    #[test]
    fn numbers_that_nothing_has_make_no_room() {
        let mut numbered = Numbered::default();
        numbered.push(1, 'a');
        numbered.push(u64::MAX, 'b');
        assert!(numbered.row.capacity() <= 4 * EMPTY);
        assert_eq!((numbered.get(1), numbered.get(u64::MAX), numbered.get(2)), (Some(&'a'), Some(&'b'), None));
    }

    #[test]
    fn room_for_many_is_given_back_when_they_are_gone() {
        let mut numbered = Numbered::default();
        (0..100_000).for_each(|number| numbered.push(number, number));
        (0..100_000).for_each(|number| assert_eq!(numbered.remove(number), Some(number)));
        assert!(numbered.row.capacity() <= KEPT);
    }
}
