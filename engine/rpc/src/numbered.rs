//! What has numbers that are given out in order, most of which are over soon after they were: calls.
//!
//! Those that came last stand in a row, by their numbers: one is found by the low bits of its number, and a thousand calls whose answers come in about the order in
//! which they were made go through memory as it lies. A hash table, which this was, has each of them anywhere. Those that outlive most of what came
//! after them do have one, or one of them would keep the whole row.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

/// Places of a row that may be empty, besides as many as are taken.
const EMPTY: u64 = 64;
/// How many are moved out of the row by each that is added, while too many places are empty.
const AGED: u64 = 2;
/// Places that a row has at least, and those that it keeps when nothing is in it.
const LEAST: usize = 4;
const KEPT: usize = 1024;

/// Things by their numbers.
#[derive(Debug)]
pub(crate) struct Numbered<T> {
    /// A ring: the place of a number is its low bits. As many as a power of two, or none.
    row: Box<[Option<T>]>,
    /// The first number that is in the row, if there is one, and the one after the last that was.
    first: u64,
    end: u64,
    /// Places in the row that are taken, all of which are from the first number on and before the end.
    taken: u64,
    /// Those before the row. Numbers of our own, in order: nobody chooses them so that they collide.
    old: HashMap<u64, T, FxBuildHasher>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { row: Box::default(), first: 0, end: 0, taken: 0, old: HashMap::default() }
    }
}

impl<T> Numbered<T> {
    /// Adds one, whose number is above that of each before it, and not the highest there is.
    pub(crate) fn push(&mut self, number: u64, value: T) {
        debug_assert!(number >= self.end, "numbers go up");
        // A few at a time, which is more than come: with a hundred thousand that stay, nobody waits for all of them to be moved.
        let mut most = AGED.saturating_add(number.saturating_sub(self.end));
        while most > 0 && self.taken > 0 && number - self.first >= 2 * self.taken + EMPTY {
            self.age();
            most -= 1;
        }
        if self.taken == 0 {
            self.first = number;
        }
        // Below twice as many as were ever taken at once, and some: it is moved out of as fast as it grows.
        let places = (number - self.first) as usize + 1;
        if places > self.row.len() {
            self.resize(places);
        }
        let at = self.place(number);
        self.row[at] = Some(value);
        self.end = number + 1;
        self.taken += 1;
    }

    /// Makes room for so many places, or leaves no more than that.
    fn resize(&mut self, places: usize) {
        let mut row: Vec<Option<T>> = Vec::new();
        row.resize_with(places.next_power_of_two().max(LEAST), || None);
        let mask = row.len() - 1;
        for number in self.first..self.end {
            let at = self.place(number);
            row[number as usize & mask] = self.row[at].take();
        }
        self.row = row.into_boxed_slice();
    }

    /// Moves the first of the row out of it.
    fn age(&mut self) {
        let number = self.first;
        if let Some(value) = self.remove(number) {
            self.old.insert(number, value);
        }
    }

    /// Of a row that is not empty.
    fn place(&self, number: u64) -> usize {
        number as usize & (self.row.len() - 1)
    }

    /// The place of a number, unless it is not one of the row's.
    fn at(&self, number: u64) -> Option<usize> {
        (self.first <= number && number < self.end && self.taken > 0).then(|| self.place(number))
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        match self.at(number) {
            Some(at) => self.row[at].as_ref(),
            None => self.old.get(&number),
        }
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.at(number) {
            Some(at) => self.row[at].as_mut(),
            None => self.old.get_mut(&number),
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let Some(at) = self.at(number) else { return self.old.remove(&number) };
        let value = self.row[at].take()?;
        self.leave(number);
        Some(value)
    }

    /// Drops one where it is, which is cheaper than to take it out.
    pub(crate) fn delete(&mut self, number: u64) {
        match self.at(number) {
            Some(at) if self.row[at].is_some() => {
                self.row[at] = None;
                self.leave(number);
            }
            Some(_) => {}
            None => drop(self.old.remove(&number)),
        }
    }

    /// One has left the row, which begins with the next one then.
    fn leave(&mut self, number: u64) {
        self.taken -= 1;
        if self.taken == 0 {
            self.first = self.end;
            if self.row.len() > KEPT {
                self.row = Box::default();
            }
        } else if number == self.first {
            self.first += 1;
            while self.row[self.place(self.first)].is_none() {
                self.first += 1;
            }
            let places = (self.end - self.first) as usize;
            if self.row.len() > KEPT && places < self.row.len() / 8 {
                self.resize(places);
            }
        }
    }

    /// Takes out those of which something is so.
    pub(crate) fn take_if(&mut self, mut is_so: impl FnMut(&T) -> bool) -> Vec<T> {
        let numbers: Vec<u64> = self.iter().filter(|(_, value)| is_so(value)).map(|(number, _)| number).collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let row = (self.first..self.end).filter_map(|number| Some((number, self.row.get(self.at(number)?)?.as_ref()?)));
        self.old.iter().map(|(number, value)| (*number, value)).chain(row)
    }

    pub(crate) fn len(&self) -> usize {
        self.taken as usize + self.old.len()
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
        assert_eq!(numbered.taken as usize, numbered.row.iter().flatten().count());
        assert!(numbered.taken == 0 || numbered.row[numbered.place(numbered.first)].is_some());
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
                        assert!(numbered.end - numbered.first <= 2 * peak + 2 * EMPTY);
                    }
                    // Some stay for long: every so-manieth.
                    4..=6 => {
                        let number = last.saturating_sub(rng.u64(0..200));
                        if number % 100 >= stays {
                            match rng.bool() {
                                true => assert_eq!(numbered.remove(number), model.remove(&number)),
                                false => {
                                    numbered.delete(number);
                                    model.remove(&number);
                                }
                            }
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
        assert!(numbered.row.len() <= 256, "{}", numbered.row.len());
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
            assert!((numbered.old.len() - before) as u64 <= AGED);
            assert!(numbered.remove(number).is_some());
        }
        assert_eq!(numbered.old.len(), 10_000, "all that stay have left room for those that come");
        assert!(numbered.row.len() < 65_536);
        assert_eq!(numbered.len(), 10_000);
        assert!((0..10_000).all(|number| numbered.remove(number).is_some()));
    }

    #[test]
    fn a_row_of_many_is_not_kept_for_the_few_that_are_there_all_the_time() {
        let mut numbered = Numbered::default();
        (0..10_000).for_each(|number| numbered.push(number, ()));
        for number in 10_000..60_000 {
            numbered.push(number, ());
            // There is always another one.
            assert!(number == 10_000 || numbered.remove(number - 1).is_some());
        }
        assert_eq!(numbered.len(), 10_001);
        assert!(numbered.row.len() <= KEPT, "{}", numbered.row.len());
    }

    #[test]
    fn numbers_that_nothing_has_make_no_room() {
        let mut numbered = Numbered::default();
        numbered.push(1, 'a');
        numbered.push(u64::MAX - 1, 'b');
        assert!(numbered.row.len() <= 256);
        assert_eq!((numbered.get(1), numbered.get(u64::MAX - 1), numbered.get(u64::MAX)), (Some(&'a'), Some(&'b'), None));
    }

    #[test]
    fn room_for_many_is_given_back_when_they_are_gone() {
        let mut numbered = Numbered::default();
        (0..100_000).for_each(|number| numbered.push(number, number));
        (0..100_000).for_each(|number| assert_eq!(numbered.remove(number), Some(number)));
        assert!(numbered.row.len() <= KEPT);
    }
}
