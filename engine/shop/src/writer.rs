//! The writer: changes prices and adds basket lines at a steady pace.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::ShopError;
use crate::latency::Histogram;
use crate::line::{Line, UnitPrice};
use crate::options::{Fault, Options};
use crate::readers::Shared;
use crate::shop::Shop;
use crate::workload::Population;

/// What the writer did.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Updates: a price set or a line added.
    pub updates: u64,
    /// Keys invalidated by them.
    pub invalidations: u64,
    /// The time of each update: the row written and everything made from it marked.
    pub latency: Histogram,
}

/// Writes until told to stop; then, if asked to, forgets one invalidation.
pub(crate) fn write(
    shared: &Shared<'_>,
    population: &Population,
    options: &Options,
    mut random: fastrand::Rng,
) -> Result<Written, ShopError> {
    let pace = Duration::from_secs(1) / options.updates;
    let mut written = Written::default();
    let mut next = Instant::now();
    loop {
        // The wait ends early when the run does: the thread is unparked then.
        while !shared.stop.load(Ordering::Relaxed) && Instant::now() < next {
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let update = Update::draw(shared, population, &mut random)?;
        let began = Instant::now();
        written.invalidations += update.apply(shared.shop)?;
        written.latency.record(began.elapsed());
        written.updates += 1;
        shared.updates.fetch_add(1, Ordering::Relaxed);
        // No catching up: a pace that the machine cannot keep would turn into a storm.
        next = Instant::now().max(next + pace);
    }
    if options.fault == Some(Fault::SkipInvalidation) {
        forget_an_invalidation(shared, &mut random)?;
    }
    Ok(written)
}

#[derive(Clone, Copy, Debug)]
enum Update {
    Price(u32, UnitPrice),
    Line(i64, Line),
}

impl Update {
    /// Half of the updates change a price, a fifth announce the price there is already (price feeds do), the rest add
    /// a line to a basket.
    fn draw(shared: &Shared<'_>, population: &Population, random: &mut fastrand::Rng) -> Result<Self, ShopError> {
        match random.u32(..10) {
            0..7 => {
                let (product, price) = priced(shared, random)?;
                let percent = if random.u32(..7) < 5 { random.i64(80..=120) } else { 100 };
                let changed = (price.0 * percent / 100).clamp(0, MOST_EXPENSIVE);
                Ok(Self::Price(product, UnitPrice(changed)))
            }
            _ => {
                let (basket, product) = population.basket_and_product(random);
                Ok(Self::Line(basket, new_line(shared.shop, population, product, random)?))
            }
        }
    }

    fn apply(self, shop: &Shop) -> Result<u64, ShopError> {
        match self {
            Self::Price(product, price) => shop.set_price(product, price),
            Self::Line(basket, line) => shop.add_line(basket, &line),
        }
    }
}

/// However long a run: a thousand for one piece is where prices stop rising.
const MOST_EXPENSIVE: i64 = 100_000_000;

/// A product that has a price, any one of them, and the price.
fn priced(shared: &Shared<'_>, random: &mut fastrand::Rng) -> Result<(u32, UnitPrice), ShopError> {
    let products = &shared.keys.products;
    let from = random.usize(..products.len());
    let mut around = products[from..].iter().chain(&products[..from]);
    loop {
        let Some(&product) = around.next() else {
            return Err(ShopError::Data("no product has a price".to_owned()));
        };
        if let Some(price) = shared.shop.database().price(product)? {
            return Ok((product, price));
        }
    }
}

/// A line as a till would record it, discounts that exceed the price included.
fn new_line(shop: &Shop, population: &Population, product: u32, random: &mut fastrand::Rng) -> Result<Line, ShopError> {
    let quantity = population.quantity(random);
    let shelf = match shop.database().price(product)? {
        Some(price) => u32::try_from(price.times(quantity).0).unwrap_or(u32::MAX),
        None => 0,
    };
    let retail_discount = if random.u32(..4) == 0 { shelf / 5 } else { 0 };
    let coupon = if random.u32(..20) == 0 { 150 } else { 0 };
    Ok(Line { product, quantity, sales: shelf - retail_discount, retail_discount, coupon, coupon_match: 0 })
}

/// Writes a row behind the cache's back. It is the run's last write, and the price was fresh in the cache before it: so
/// nothing that comes later can heal it, and the check must find it.
fn forget_an_invalidation(shared: &Shared<'_>, random: &mut fastrand::Rng) -> Result<(), ShopError> {
    let (product, _) = priced(shared, random)?;
    let cached = shared.shop.books.price(&shared.shop.engine, product)?;
    let other = UnitPrice(cached.map_or(0, |price| price.0) + 100_000);
    shared.shop.database().set_price(product, other)
}
