//! The key table through the public API against `HashMap`: inserts, removals, lookups one by one and batched, growth; word
//! keys, and string keys whose hashes collide as the input likes.
#![no_main]

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wellspring::{Cx, Engine, Handle, Key as AnyKey, NodeRef};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Insert(u16),
    InsertMany(u16, u8),
    Remove(u16),
    RemoveMany(u16, u8),
    Find(u16),
    FindMany(u16, u8),
    Resolve(u16),
    Collect,
}

/// A boxed key; its hash has only as many values as `spread` leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Colliding {
    text: String,
    spread: u16,
}

impl Hash for Colliding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let sum: u32 = self.text.bytes().map(u32::from).sum();
        (sum & u32::from(self.spread)).hash(state);
    }
}

struct Side<K> {
    handle: Handle<K, u64>,
    key: Box<dyn Fn(u16) -> K>,
    model: HashMap<u16, u64>,
    kept: Vec<(u16, u64, NodeRef<u64>)>,
}

impl<K: AnyKey> Side<K> {
    fn step(&mut self, engine: &Engine, op: Op, get: &dyn Fn(&K) -> u64) {
        match op {
            Op::Insert(n) => self.insert(n, get),
            Op::InsertMany(n, count) => (0..u16::from(count)).for_each(|step| self.insert(n.wrapping_add(step), get)),
            Op::Remove(n) => self.remove(n),
            Op::RemoveMany(n, count) => (0..u16::from(count)).for_each(|step| self.remove(n.wrapping_add(step * 3))),
            Op::Find(n) => {
                let pin = engine.pin();
                let found = self.handle.peek(&pin, &(self.key)(n)).map(|read| *read);
                assert_eq!(found, self.model.get(&n).copied(), "key {n}");
            }
            Op::FindMany(n, count) => {
                let numbers: Vec<u16> = (0..u16::from(count)).map(|step| n.wrapping_add(step)).collect();
                let keys: Vec<K> = numbers.iter().map(|&n| (self.key)(n)).collect();
                let mut seen = 0;
                self.handle.get_many(&engine.pin(), &keys, |at, value| {
                    assert_eq!(at, seen, "in order, each once");
                    seen += 1;
                    assert_eq!(value.copied(), self.model.get(&numbers[at]).copied(), "key {}", numbers[at]);
                });
                assert_eq!(seen, keys.len());
            }
            Op::Resolve(n) => {
                let found = self.handle.node(&(self.key)(n));
                assert_eq!(found.is_some(), self.model.contains_key(&n), "key {n}");
                self.kept.extend(found.map(|node| (n, self.model[&n], node)));
                self.kept.truncate(64);
            }
            Op::Collect => {
                engine.collect();
            }
        }
        assert_eq!(self.handle.len(), self.model.len());
    }

    fn insert(&mut self, n: u16, get: &dyn Fn(&K) -> u64) {
        let value = get(&(self.key)(n));
        let known = *self.model.entry(n).or_insert(value);
        // The value numbers the body's run: a second one would mean that the key was lost and made anew.
        assert_eq!(value, known, "key {n}");
    }

    fn remove(&mut self, n: u16) {
        assert_eq!(self.handle.remove(&(self.key)(n)), self.model.remove(&n).is_some(), "key {n}");
    }

    fn check(&self, engine: &Engine) {
        let pin = engine.pin();
        for (n, value) in &self.model {
            assert_eq!(self.handle.peek(&pin, &(self.key)(*n)).map(|read| *read), Some(*value), "key {n}");
        }
        for (n, value, node) in &self.kept {
            let live = self.model.get(n) == Some(value);
            assert_eq!(node.is_live(), live, "I32: key {n}");
            assert_eq!(node.peek(&pin).map(|read| *read), live.then_some(*value), "I32: key {n}");
        }
    }
}

fuzz_target!(|input: (u16, Vec<Op>)| {
    let (spread, ops) = input;
    let engine = Engine::new();
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = || {
        let runs = runs.clone();
        move || runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    };
    let (first, second) = (count(), count());
    let (Ok(words), Ok(texts)) =
        (engine.function("words", move |_: &Cx, _: &u32| first()), engine.function("texts", move |_: &Cx, _: &Colliding| second()))
    else {
        unreachable!("fresh names")
    };
    let mut by_word = Side { handle: (*words).clone(), key: Box::new(|n| u32::from(n) << 7), model: HashMap::new(), kept: Vec::new() };
    let key = move |n: u16| Colliding { text: n.to_string(), spread };
    let mut by_text = Side { handle: (*texts).clone(), key: Box::new(key), model: HashMap::new(), kept: Vec::new() };
    for op in ops.into_iter().take(200) {
        by_word.step(&engine, op, &|key| words.get(&engine, key).unwrap_or(u64::MAX));
        by_text.step(&engine, op, &|key| texts.get(&engine, key).unwrap_or(u64::MAX));
    }
    by_word.check(&engine);
    by_text.check(&engine);
    engine.assert_consistent();
});
