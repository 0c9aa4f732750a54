//! How a figure is taken: threads started together, sides in alternation, the median of the rounds.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Reads between two pins of ours, and between two guards of a peer's.
pub const PIN_READS: usize = 1_000;

/// How much time a run may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Fewer rounds, so that any one row ends within 15 seconds.
    pub quick: bool,
}

impl Plan {
    /// Alternating rounds of a row.
    pub fn rounds(self) -> usize {
        if self.quick { 5 } else { 15 }
    }

    /// When a row that is slow to set up stops taking rounds, as long as it has three.
    pub fn patience(self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { 60 })
    }

    /// How long one side of one round reads.
    pub fn slice(self) -> Duration {
        Duration::from_millis(if self.quick { 150 } else { 200 })
    }

    /// The reference machine has two cores; more threads than that would measure its scheduler.
    pub fn threads(self) -> usize {
        2
    }
}

/// Measures every side once per round, each round starting with another side so that none always runs first; the
/// first pass warms caches and is not recorded. Returns one list of figures per side.
pub fn alternate<const SIDES: usize>(rounds: usize, mut sides: [&mut dyn FnMut() -> f64; SIDES]) -> [Vec<f64>; SIDES] {
    for side in &mut sides {
        side();
    }
    alternate_warm(rounds, Duration::MAX, sides)
}

/// [`alternate`] for sides that are warm already; stops early, with three rounds or more, when `patience` is over.
pub fn alternate_warm<const SIDES: usize>(rounds: usize, patience: Duration, sides: [&mut dyn FnMut() -> f64; SIDES]) -> [Vec<f64>; SIDES] {
    let begun = Instant::now();
    let mut figures = [const { Vec::new() }; SIDES];
    for round in 0..rounds {
        if round >= 3 && begun.elapsed() > patience {
            break;
        }
        for turn in 0..SIDES {
            let side = (round + turn) % SIDES;
            let figure = sides[side]();
            figures[side].push(figure);
        }
    }
    figures
}

/// Runs `threads` readers for `time` and returns their reads together, in millions a second. `make` runs on the
/// reader's own thread before the clock starts; what it returns does [`PIN_READS`] reads a call and sums the values.
pub fn throughput<R: FnMut() -> u64>(threads: usize, time: Duration, make: impl Fn(usize) -> R + Sync) -> f64 {
    throughput_beside(threads, time, make, |_| ())
}

/// [`throughput`] while `beside` runs on a thread of its own, until the flag it is given becomes true.
pub fn throughput_beside<R: FnMut() -> u64>(
    threads: usize,
    time: Duration,
    make: impl Fn(usize) -> R + Sync,
    beside: impl FnOnce(&AtomicBool) + Send,
) -> f64 {
    let start = Barrier::new(threads + 1);
    let stop = AtomicBool::new(false);
    let (start, stop, make) = (&start, &stop, &make);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut read = make(thread);
                    start.wait();
                    let begun = Instant::now();
                    let (mut slices, mut sum) = (0u64, 0u64);
                    while !stop.load(Ordering::Relaxed) {
                        sum = sum.wrapping_add(read());
                        slices += 1;
                    }
                    black_box(sum);
                    (slices * PIN_READS as u64) as f64 / begun.elapsed().as_secs_f64() / 1e6
                })
            })
            .collect();
        start.wait();
        scope.spawn(move || beside(stop));
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("a reader panicked")).sum()
    })
}

/// Runs `work` once and returns nanoseconds per one of its `count` steps.
pub fn nanos_each(count: usize, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_nanos() as f64 / count as f64
}

/// The middle figure; NaN when there is none.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_gets_its_own_figures_and_every_round_starts_elsewhere() {
        let order = std::cell::RefCell::new(Vec::new());
        let mut note = |side: u8| {
            order.borrow_mut().push(side);
            f64::from(side)
        };
        let cell = std::cell::RefCell::new(&mut note);
        let [first, second] = alternate(2, [&mut || cell.borrow_mut()(1), &mut || cell.borrow_mut()(2)]);
        assert_eq!((first, second), (vec![1.0, 1.0], vec![2.0, 2.0]));
        assert_eq!(*order.borrow(), [1, 2, 1, 2, 2, 1]);
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }
}
