//! Our keyed hit beside the caches and concurrent maps a service would otherwise reach for.
//!
//! Conditions: two readers, 1,000 u64 keys in uniform random order, values summed; our pin is renewed every 1,000 reads and
//! so is a peer's guard, where its fastest documented read has one: papaya's map pin, scc's epoch guard for
//! `HashIndex::peek`. moka and quick_cache return a copy of the value, dashmap a reference under a shard lock,
//! `scc::HashMap::read_sync` calls back under a bucket lock. All hash with ahash; moka is unbounded, which is its fastest.

use super::Scenario;

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "caches/moka", run: |name, plan| side_by_side(name, plan, 20.0) },
    Scenario { name: "caches/quick_cache", run: |name, plan| side_by_side(name, plan, 5.0) },
    Scenario { name: "caches/dashmap", run: |name, plan| side_by_side(name, plan, 3.0) },
    Scenario { name: "caches/papaya", run: |name, plan| side_by_side(name, plan, 0.8) },
    Scenario { name: "caches/scc-map", run: |name, plan| side_by_side(name, plan, 3.0) },
    Scenario { name: "caches/scc-index", run: |name, plan| side_by_side(name, plan, 1.1) },
];

#[cfg(not(feature = "peers"))]
fn side_by_side(name: &str, plan: crate::Plan, _bar: f64) -> Vec<crate::Row> {
    use super::hit::{filled, peeker, walks};
    use crate::keys::Spread;
    use crate::rounds::{alternate, throughput};
    use crate::{Row, Unit};

    let (engine, function) = filled(1_000);
    let walks = walks(plan.threads(), Spread::Uniform, 1_000);
    let [ours] =
        alternate(plan.rounds(), [&mut || throughput(plan.threads(), plan.slice(), |thread| peeker(&engine, &function, &walks[thread]))]);
    let peer = name.trim_start_matches("caches/");
    vec![Row::alone(name, plan.threads(), Unit::MILLIONS, &ours, format!("{peer}: {}", super::NOT_BUILT))]
}

#[cfg(feature = "peers")]
use peers::side_by_side;

#[cfg(feature = "peers")]
mod peers {
    use ahash::RandomState;

    use crate::keys::{Spread, Walk, value_of};
    use crate::rounds::{alternate, throughput};
    use crate::row::Bar;
    use crate::scenario::hit::{filled, peeker, walks};
    use crate::{Plan, Row, Unit};

    const KEYS: u32 = 1_000;

    pub(super) fn side_by_side(name: &str, plan: Plan, bar: f64) -> Vec<Row> {
        let walks = walks(plan.threads(), Spread::Uniform, KEYS);
        let pairs = || (0..u64::from(KEYS)).map(|key| (key, value_of(key)));
        let row = match name {
            "caches/moka" => {
                let cache = moka::sync::Cache::builder().build_with_hasher(RandomState::new());
                pairs().for_each(|(key, value)| cache.insert(key, value));
                cache.run_pending_tasks();
                versus(name, plan, &walks, "moka::sync::Cache get (copies)", |walk| {
                    let (cache, mut walk) = (&cache, Walk::new(walk));
                    move || sum(walk.slice(), |key| cache.get(key))
                })
            }
            "caches/quick_cache" => {
                let cache = quick_cache::sync::Cache::with(
                    KEYS as usize * 4,
                    u64::from(KEYS) * 4,
                    quick_cache::UnitWeighter,
                    RandomState::new(),
                    quick_cache::sync::DefaultLifecycle::default(),
                );
                pairs().for_each(|(key, value)| cache.insert(key, value));
                versus(name, plan, &walks, "quick_cache::sync::Cache get (copies)", |walk| {
                    let (cache, mut walk) = (&cache, Walk::new(walk));
                    move || sum(walk.slice(), |key| cache.get(key))
                })
            }
            "caches/dashmap" => {
                let map: dashmap::DashMap<u64, u64, RandomState> = pairs().collect();
                versus(name, plan, &walks, "DashMap get", |walk| {
                    let (map, mut walk) = (&map, Walk::new(walk));
                    move || sum(walk.slice(), |key| map.get(key).map(|value| *value))
                })
            }
            "caches/papaya" => {
                let map: papaya::HashMap<u64, u64, RandomState> = pairs().collect();
                versus(name, plan, &walks, "papaya::HashMap get under its pin", |walk| {
                    let (map, mut walk) = (&map, Walk::new(walk));
                    move || {
                        let map = map.pin();
                        sum(walk.slice(), |key| map.get(key).copied())
                    }
                })
            }
            "caches/scc-map" => {
                let map = scc::HashMap::with_hasher(RandomState::new());
                pairs().for_each(|(key, value)| assert!(map.insert_sync(key, value).is_ok()));
                versus(name, plan, &walks, "scc::HashMap read_sync", |walk| {
                    let (map, mut walk) = (&map, Walk::new(walk));
                    move || sum(walk.slice(), |key| map.read_sync(key, |_, &value: &u64| value))
                })
            }
            _ => {
                let map = scc::HashIndex::with_hasher(RandomState::new());
                pairs().for_each(|(key, value)| assert!(map.insert_sync(key, value).is_ok()));
                versus(name, plan, &walks, "scc::HashIndex peek under its guard", |walk| {
                    let (map, mut walk) = (&map, Walk::new(walk));
                    move || {
                        let guard = scc::Guard::new();
                        sum(walk.slice(), |key| map.peek(key, &guard).copied())
                    }
                })
            }
        };
        vec![row.bar(Bar::Ratio(bar))]
    }

    #[inline]
    fn sum(slice: &[u32], read: impl Fn(&u64) -> Option<u64>) -> u64 {
        slice.iter().fold(0u64, |sum, &index| sum.wrapping_add(read(&u64::from(index)).expect("every key is cached")))
    }

    fn versus<'w, R: FnMut() -> u64>(
        name: &str,
        plan: Plan,
        walks: &'w [Vec<u32>],
        peer: &str,
        reader: impl Fn(&'w [u32]) -> R + Sync,
    ) -> Row {
        let (engine, function) = filled(KEYS);
        let (threads, time) = (plan.threads(), plan.slice());
        let [ours, theirs] = alternate(
            plan.rounds(),
            [&mut || throughput(threads, time, |thread| peeker(&engine, &function, &walks[thread])), &mut || {
                throughput(threads, time, |thread| reader(&walks[thread]))
            }],
        );
        Row::versus(name, threads, Unit::MILLIONS, &ours, peer, &theirs)
    }
}
