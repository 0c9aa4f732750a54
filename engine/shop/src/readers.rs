//! A reader: asks the service, and by turns the same in direct SQL, and notes how long it took.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wellspring::{Engine, Function, Lookup, Pin};

use crate::error::ShopError;
use crate::functions::Answer;
use crate::keys::Keys;
use crate::latency::Histogram;
use crate::peer::Peer;
use crate::shop::Shop;
use crate::workload::{Call, MIX};

/// A reader's time is shared 7 to 3 between the service and SQL. A turn on the service is at least this long, so that each
/// side has the processor's caches for itself most of the time, and longer when a slow query has taken more than its share.
const TURN: Duration = Duration::from_millis(70);
const SERVICE_SHARE: u32 = 7;
const SQL_SHARE: u32 = 3;

/// Lookups under one pin; the last one is timed by itself. A prime, so that every call of the list is timed in time.
const BLOCK: usize = 251;

/// What all threads of a run share.
#[derive(Debug)]
pub(crate) struct Shared<'r> {
    pub(crate) shop: &'r Shop,
    pub(crate) keys: &'r Keys,
    pub(crate) started: Instant,
    pub(crate) stop: AtomicBool,
    /// The writer is through.
    pub(crate) written: AtomicBool,
    pub(crate) lookups: AtomicU64,
    pub(crate) sql_calls: AtomicU64,
    pub(crate) updates: AtomicU64,
}

/// One side of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Calls answered.
    pub calls: u64,
    /// The time it took, summed over the blocks.
    pub time: Duration,
    /// The time of single calls, by function in the order of [`MIX`]: every one in SQL, a sample in the service.
    pub latency: [Histogram; MIX.len()],
}

/// What a reader did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Through the service.
    pub service: Side,
    /// In direct SQL.
    pub sql: Side,
}

impl Side {
    /// Calls per second and reader while this side was asked.
    pub fn rate(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.calls as f64 / self.time.as_secs_f64() }
    }

    /// All functions together.
    pub fn all_latencies(&self) -> Histogram {
        let mut all = Histogram::default();
        for one in &self.latency {
            all.merge(one);
        }
        all
    }

    /// Adds what another reader did on this side.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.time += other.time;
        for (mine, more) in self.latency.iter_mut().zip(&other.latency) {
            mine.merge(more);
        }
    }
}

/// Reads until told to stop. Both sides walk the same list of calls, each from where it stopped.
pub(crate) fn read(shared: &Shared<'_>, calls: &[Call]) -> Result<Tally, ShopError> {
    let connection = shared.shop.database().connect()?;
    let mut peer = Peer::new(connection.sqlite()?)?;
    let mut tally = Tally::default();
    let (mut service, mut sql) = (calls.iter().cycle(), calls.iter().cycle());
    let running = || !shared.stop.load(Ordering::Relaxed);
    while running() {
        let turn = tally.sql.time * SERVICE_SHARE / SQL_SHARE + TURN;
        while tally.service.time < turn && running() {
            block(shared, &mut service, &mut tally.service)?;
            shared.lookups.fetch_add(BLOCK as u64, Ordering::Relaxed);
        }
        while tally.sql.time * SERVICE_SHARE < tally.service.time * SQL_SHARE && running() {
            let Some(call) = sql.next() else { break };
            let began = Instant::now();
            black_box(ask_sql(&mut peer, shared.keys, *call)?);
            let took = began.elapsed();
            tally.sql.calls += 1;
            tally.sql.time += took;
            tally.sql.latency[call.function()].record(took);
            shared.sql_calls.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(tally)
}

/// One block of lookups under one pin.
fn block<'c>(shared: &Shared<'_>, calls: &mut impl Iterator<Item = &'c Call>, side: &mut Side) -> Result<(), ShopError> {
    let began = Instant::now();
    let pin = shared.shop.engine.pin();
    for call in calls.take(BLOCK - 1) {
        black_box(ask(shared.shop, shared.keys, &pin, *call)?);
    }
    if let Some(call) = calls.next() {
        let single = Instant::now();
        black_box(ask(shared.shop, shared.keys, &pin, *call)?);
        side.latency[call.function()].record(single.elapsed());
    }
    side.calls += BLOCK as u64;
    side.time += began.elapsed();
    Ok(())
}

/// Asks the service. The number is made of the whole answer, so that none of it can be left out.
pub(crate) fn ask(shop: &Shop, keys: &Keys, pin: &Pin<'_>, call: Call) -> Answer<i64> {
    let (engine, functions) = (&shop.engine, shop.books.functions());
    match call {
        Call::Price(product) => look_up(engine, pin, &functions.price, &product, |price| price.map_or(0, |price| price.0)),
        Call::BasketTotal(basket) => look_up(engine, pin, &functions.basket_total, &basket, |total| total.0),
        Call::HouseholdSpend(household) => look_up(engine, pin, &functions.household_spend, &household, |sum| sum.0),
        Call::StoreRevenue(store) => look_up(engine, pin, &functions.store_revenue, &store, |sum| sum.0),
        Call::DepartmentRevenue(place) => {
            let department = keys.departments[place as usize].as_str();
            look_up(engine, pin, &functions.department_revenue, department, |sum| sum.0)
        }
        Call::TopProducts(place, n) => {
            let department = keys.departments[place as usize].as_str();
            let key = wellspring::Parts((department, &n));
            look_up(engine, pin, &functions.top_products, &key, |top| {
                top.iter().map(|ranked| i64::from(ranked.product) ^ ranked.revenue.0).sum()
            })
        }
    }
}

/// The hot path: borrow the value if it is there and consistent, else have it computed or verified.
fn look_up<K, V, Q>(engine: &Engine, pin: &Pin<'_>, function: &Function<K, Answer<V>>, key: &Q, number: impl Fn(&V) -> i64) -> Answer<i64>
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    Q: Lookup<K> + ?Sized,
{
    match function.peek(pin, key) {
        Some(value) => value.as_ref().map(&number).map_err(ShopError::clone),
        None => function.get(engine, key)?.map(|value| number(&value)),
    }
}

fn ask_sql(peer: &mut Peer<'_>, keys: &Keys, call: Call) -> Result<i64, ShopError> {
    Ok(match call {
        Call::Price(product) => peer.price(product)?.map_or(0, |price| price.0),
        Call::BasketTotal(basket) => peer.basket_total(basket)?.0,
        Call::HouseholdSpend(household) => peer.household_spend(household)?.0,
        Call::StoreRevenue(store) => peer.store_revenue(store)?.0,
        Call::DepartmentRevenue(place) => peer.department_revenue(&keys.departments[place as usize])?.0,
        Call::TopProducts(place, n) => {
            let top = peer.top_products(&keys.departments[place as usize], n)?;
            top.iter().map(|ranked| i64::from(ranked.product) ^ ranked.revenue.0).sum()
        }
    })
}
