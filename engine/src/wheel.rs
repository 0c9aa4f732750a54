//! A hierarchical timer wheel: constant-time arming, no removal, and a next moment for the thread that sleeps.
//!
//! Seven levels of 64 slots, each level's slot as wide as the level below (Varghese and Lauck, 1987). An entry lies at the level of the
//! highest group of six bits in which its tick differs from the present one, and comes down a level whenever its slot is
//! reached. Ticks are whole; whoever arms rounds up, so nothing fires early, and fires late by less than a tick of its own.

const SLOTS: usize = 64;
const BITS: u32 = 6;
const LEVELS: usize = 7;
/// Ticks from now beyond which an entry is never, 137 years of milliseconds: less than a turn of the top level, so that no
/// entry there lies in the slot the hand is in.
pub(crate) const NEVER: u64 = 63 << (BITS * (LEVELS as u32 - 1));

#[derive(Debug)]
struct Entry<T> {
    at: u64,
    what: T,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    now: u64,
    /// A bit for every slot that holds something.
    occupied: [u64; LEVELS],
    slots: Vec<Vec<Entry<T>>>,
    /// Armed for a tick that is past.
    overdue: Vec<Entry<T>>,
    len: usize,
}

impl<T> Wheel<T> {
    pub(crate) fn new(now: u64) -> Wheel<T> {
        Wheel { now, occupied: [0; LEVELS], slots: Vec::new(), overdue: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Arms an entry. One that lies beyond [`NEVER`] is dropped.
    pub(crate) fn insert(&mut self, at: u64, what: T) {
        if at.saturating_sub(self.now) < NEVER {
            self.len += 1;
            self.place(Entry { at, what });
        }
    }

    fn place(&mut self, entry: Entry<T>) {
        if entry.at <= self.now {
            self.overdue.push(entry);
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS * LEVELS, Vec::new);
        }
        let differs = u64::BITS - 1 - (entry.at ^ self.now).leading_zeros();
        // An entry less than `NEVER` away may differ in a bit beyond the top level: it waits in the top level's slot for it.
        let level = (differs / BITS).min(LEVELS as u32 - 1);
        let slot = (entry.at >> (level * BITS)) as usize % SLOTS;
        self.occupied[level as usize] |= 1 << slot;
        self.slots[level as usize * SLOTS + slot].push(entry);
    }

    /// The first tick at which there is something to do, as (tick, level, slot).
    fn first(&self) -> Option<(u64, usize, usize)> {
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied == 0 {
                continue;
            }
            let shift = level as u32 * BITS;
            let current = (self.now >> shift) as usize % SLOTS;
            // Slots behind the hand can only be the top level's, a turn later.
            let ahead = occupied.rotate_right(current as u32);
            let distance = u64::from(ahead.trailing_zeros());
            let tick = ((self.now >> shift) + distance) << shift;
            return Some((tick, level, (current + distance as usize) % SLOTS));
        }
        None
    }

    /// The tick to wake at: nothing fires before it.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.overdue.is_empty() { self.first().map(|(tick, ..)| tick) } else { Some(self.now) }
    }

    /// Moves on to the given tick; `fire` gets everything due by then, in the order of ticks.
    pub(crate) fn advance(&mut self, to: u64, mut fire: impl FnMut(u64, T)) {
        loop {
            self.len -= self.overdue.len();
            self.overdue.drain(..).for_each(|entry| fire(entry.at, entry.what));
            let Some((tick, level, slot)) = self.first().filter(|&(tick, ..)| tick <= to) else { break };
            self.now = self.now.max(tick);
            self.occupied[level] &= !(1 << slot);
            for entry in std::mem::take(&mut self.slots[level * SLOTS + slot]) {
                self.place(entry);
            }
        }
        self.now = self.now.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel<u64>, to: u64) -> Vec<u64> {
        let mut all = Vec::new();
        wheel.advance(to, |at, what| {
            assert_eq!(at, what);
            all.push(at);
        });
        all
    }

    #[test]
    fn every_entry_fires_once_in_order_and_never_before_its_tick() {
        // A fixed linear congruential sequence: distances from one tick to years.
        let mut seed = 12_345_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 20
        };
        for start in [0, 63, 4_095, 262_144, (1 << 42) - 5] {
            let mut wheel = Wheel::new(start);
            let mut armed: Vec<u64> = (0..2_000).map(|n| start + random() % (1 << (n % 41))).collect();
            armed.iter().for_each(|&at| wheel.insert(at, at));
            armed.sort_unstable();
            let mut now = start;
            let mut seen = Vec::new();
            while wheel.len() > 0 {
                let next = wheel.next().expect("entries are left");
                assert!(next <= armed[seen.len()].max(now), "asleep beyond an entry");
                now = next.max(now) + random() % 3;
                let batch = fired(&mut wheel, now);
                assert!(batch.iter().all(|&at| at <= now));
                seen.extend(batch);
                assert!(armed.get(seen.len()).is_none_or(|&left| left > now), "one was due and did not fire");
            }
            assert_eq!(seen.len(), armed.len());
            seen.sort_unstable();
            assert_eq!(seen, armed);
        }
    }

    #[test]
    fn what_is_armed_for_the_past_fires_at_the_next_look() {
        let mut wheel = Wheel::new(100);
        wheel.insert(7, 7);
        assert_eq!(wheel.next(), Some(100));
        assert_eq!(fired(&mut wheel, 100), [7]);
        assert_eq!((wheel.next(), wheel.len()), (None, 0));
        wheel.insert(100 + NEVER, 0);
        assert_eq!(wheel.len(), 0, "never is not armed");
    }
}
