//! The oracle: an engine without concurrency, epochs, lists or flights. It keeps the same four states by walking
//! everything, and says what must be cached, what must run and how often.

use std::collections::BTreeMap;

use crate::expr::{Outcome, Stop};
use crate::program::{KEYS, Place, Program, SOURCES, initial};

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never computed.
    Empty,
    /// May be served.
    Consistent,
    /// May be stale.
    Pending,
    /// Must run.
    Stale,
}

/// What the oracle knows of a place that has a node.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where it stands.
    pub state: State,
    /// Its value, also a stale one.
    pub value: Option<Outcome>,
    /// When the value last really changed.
    pub changed: u64,
    /// When the node came to be.
    pub born: u64,
    /// How often a consistent value of it was marked.
    pub marks: u64,
    deps: Vec<(Place, u64)>,
}

/// The oracle.
#[derive(Debug)]
pub struct Oracle {
    program: Program,
    known: BTreeMap<Place, Known>,
    now: u64,
    /// Bodies run, per function.
    pub runs: Vec<u64>,
    /// Nodes found unchanged without a run.
    pub verified: u64,
    /// Runs whose result was equal to the old one.
    pub cut_offs: u64,
    /// Marks that sweeps made.
    pub marked: u64,
}

impl Oracle {
    /// Nothing cached, nothing set.
    pub fn new(program: &Program) -> Oracle {
        let runs = vec![0; program.rules.len()];
        Oracle { program: program.clone(), known: BTreeMap::new(), now: 0, runs, verified: 0, cut_offs: 0, marked: 0 }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// What it knows of a place.
    pub fn known(&self, place: Place) -> Option<&Known> {
        self.known.get(&place)
    }

    /// The value that must be cached as consistent.
    pub fn consistent(&self, place: Place) -> Option<Outcome> {
        self.known.get(&place).filter(|known| known.state == State::Consistent).and_then(|known| known.value)
    }

    /// What the sources hold, read or not.
    pub fn sources(&self) -> [i64; SOURCES] {
        std::array::from_fn(|source| {
            let known = self.known.get(&Place::Source(source)).and_then(|known| known.value);
            known.and_then(Result::ok).unwrap_or_else(|| initial(source))
        })
    }

    /// Nodes of a function.
    pub fn len(&self, function: usize) -> usize {
        (0..KEYS).filter(|key| self.known.contains_key(&Place::Node(function * KEYS + key))).count()
    }

    /// Boxed values the engine must hold.
    pub fn boxed(&self) -> i64 {
        let boxed = |place: &Place| match *place {
            Place::Source(source) => source >= SOURCES / 2,
            Place::Node(node) => self.program.rule(node).kind.is_boxed(),
        };
        self.known.iter().filter(|(place, known)| known.value.is_some() && boxed(place)).count() as i64
    }

    /// Dependencies of everything consistent: the edges there must be.
    pub fn edges(&self) -> usize {
        self.known.values().filter(|known| known.state == State::Consistent).map(|known| known.deps.len()).sum()
    }

    fn node(&mut self, place: Place) -> &mut Known {
        let born = self.tick();
        self.known.entry(place).or_insert(Known { state: State::Empty, value: None, changed: born, born, marks: 0, deps: Vec::new() })
    }

    /// Reads a place; runs what must run.
    pub fn get(&mut self, place: Place) -> Outcome {
        self.bring(place).0
    }

    /// Its value and when that changed.
    fn bring(&mut self, place: Place) -> (Outcome, u64) {
        let known = self.node(place);
        match (known.state, known.value) {
            (State::Consistent, Some(value)) => (value, known.changed),
            (State::Pending, Some(value)) => {
                if self.is_unchanged(place) {
                    self.verified += 1;
                    let known = self.node(place);
                    known.state = State::Consistent;
                    (value, known.changed)
                } else {
                    self.run(place)
                }
            }
            _ => self.run(place),
        }
    }

    /// Brings dependencies up to date in recorded order until one has changed.
    fn is_unchanged(&mut self, place: Place) -> bool {
        for (dep, seen) in self.node(place).deps.clone() {
            let Some(known) = self.known.get(&dep) else { return false };
            if known.changed != seen || known.state == State::Empty || self.bring(dep).1 != seen {
                return false;
            }
        }
        true
    }

    fn run(&mut self, place: Place) -> (Outcome, u64) {
        let mut deps: Vec<(Place, u64)> = Vec::new();
        let (value, cut_off) = match place {
            Place::Source(source) => (Ok(initial(source)), true),
            Place::Node(node) => {
                self.runs[node / KEYS] += 1;
                let program = self.program.clone();
                let result = program.body(node).eval(&mut |read, tracked| {
                    let Some(dep) = program.resolve(node, read) else { return Ok(Ok(0)) };
                    let (value, changed) = self.bring(dep);
                    if tracked && deps.iter().all(|(seen, _)| *seen != dep) {
                        deps.push((dep, changed));
                    }
                    Ok(value)
                });
                let value = match result {
                    Ok(value) => value,
                    Err(Stop::Panic | Stop::Await) => unreachable!("the exact dialect has no panics"),
                };
                (value, program.rule(node).cut_off)
            }
        };
        let now = self.tick();
        let known = self.node(place);
        let equal = cut_off && known.value == Some(value);
        if !equal {
            known.changed = now;
        }
        (known.value, known.deps, known.state) = (Some(value), deps, State::Consistent);
        let changed = known.changed;
        self.cut_offs += u64::from(equal);
        (value, changed)
    }

    /// One commit: sets are collected (the last one wins, equal ones are dropped), then invalidations, then sets, then the sweep.
    pub fn commit(&mut self, sets: &[(usize, i64)], invalidated: &[Place]) {
        let mut last: Vec<(usize, i64)> = Vec::new();
        for &(source, value) in sets {
            last.retain(|(other, _)| *other != source);
            let same = self.consistent(Place::Source(source)) == Some(Ok(value));
            self.node_of_set(source, same);
            if !same {
                last.push((source, value));
            }
        }
        // Invalidations come before the sets of their batch; a node that a set has just made is empty until then.
        let mut opened = Opened::default();
        for &place in invalidated {
            match place {
                Place::Source(_) => self.touch(place, None, &mut opened),
                Place::Node(_) => self.mark_root(place, &mut opened),
            }
        }
        for &(source, value) in &last {
            self.touch(Place::Source(source), Some(value), &mut opened);
        }
        self.sweep(opened);
    }

    fn node_of_set(&mut self, source: usize, same: bool) {
        if !same {
            self.node(Place::Source(source));
        }
    }

    /// Every key of a function, or of everything.
    pub fn invalidate_all(&mut self, function: Option<usize>) {
        let mut opened = Opened::default();
        let places: Vec<Place> = self.known.keys().copied().collect();
        for place in places {
            match place {
                Place::Node(node) if function.is_none_or(|function| node / KEYS == function) => self.mark_root(place, &mut opened),
                Place::Source(_) if function.is_none() => self.touch(place, None, &mut opened),
                _ => {}
            }
        }
        self.sweep(opened);
    }

    /// Forgets a place.
    pub fn remove(&mut self, place: Place) -> bool {
        let Some(known) = self.known.remove(&place) else { return false };
        self.marked += 1;
        let mut opened = Opened::default();
        if known.state == State::Consistent {
            opened.changed.push(place);
        }
        self.sweep(opened);
        true
    }

    fn touch(&mut self, place: Place, value: Option<i64>, opened: &mut Opened) {
        let now = self.tick();
        let Some(known) = self.known.get_mut(&place) else { return };
        if known.state == State::Empty && value.is_none() {
            return;
        }
        if known.state == State::Consistent {
            known.marks += 1;
            opened.changed.push(place);
        }
        if let Some(value) = value {
            known.value = Some(Ok(value));
        }
        known.changed = now;
        known.state = State::Consistent;
        self.marked += 1;
    }

    fn mark_root(&mut self, place: Place, opened: &mut Opened) {
        let Some(known) = self.known.get_mut(&place) else { return };
        if known.state == State::Consistent {
            known.marks += 1;
            opened.marked.push(place);
        } else if known.state != State::Pending {
            return;
        }
        known.state = State::Stale;
        self.marked += 1;
    }

    fn sweep(&mut self, mut opened: Opened) {
        let direct = std::mem::take(&mut opened.changed);
        self.level(&direct, State::Stale, &mut opened.marked);
        while !opened.marked.is_empty() {
            let level = std::mem::take(&mut opened.marked);
            self.level(&level, State::Pending, &mut opened.marked);
        }
    }

    fn level(&mut self, from: &[Place], color: State, next: &mut Vec<Place>) {
        for (place, known) in &mut self.known {
            let reached = known.state == State::Consistent && known.deps.iter().any(|(dep, _)| from.contains(dep));
            if reached {
                known.state = color;
                known.marks += 1;
                self.marked += 1;
                next.push(*place);
            }
        }
    }
}

/// Where a sweep goes on: dependants of what changed are stale, of what was marked maybe stale.
#[derive(Default)]
struct Opened {
    changed: Vec<Place>,
    marked: Vec<Place>,
}
