//! What readers ask for: which functions how often, with which keys.

use std::collections::HashMap;

use crate::database::Database;
use crate::error::ShopError;
use crate::keys::{Keys, NOBODY, TOP};
use crate::line::MAX_QUANTITY;

/// One question to the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The price of a product.
    Price(u32),
    /// The total of a basket.
    BasketTotal(i64),
    /// What a household spends.
    HouseholdSpend(u32),
    /// What a store takes in.
    StoreRevenue(u32),
    /// What a department takes in, by its place in [`Keys::departments`].
    DepartmentRevenue(u32),
    /// A department's best sellers, and how many of them.
    TopProducts(u32, u32),
}

/// The names of the functions that are asked, and how often each is asked in 1,000 calls. A till asks for prices and
/// totals all day; an office asks for a department now and then.
pub const MIX: [(&str, u32); 6] = [
    ("price", 600),
    ("basket_total", 250),
    ("household_spend", 100),
    ("store_revenue", 40),
    ("department_revenue", 6),
    ("top_products", 4),
];

/// How many calls a reader's list has. A power of two, so that a sample taken every so many calls (a prime) meets
/// every place of the list.
const CALLS: u32 = 1 << 14;

/// One in this many calls asks for an id that does not exist.
const STRANGERS: u32 = 500;

impl Call {
    /// The place of the called function in [`MIX`].
    pub fn function(&self) -> usize {
        match self {
            Self::Price(_) => 0,
            Self::BasketTotal(_) => 1,
            Self::HouseholdSpend(_) => 2,
            Self::StoreRevenue(_) => 3,
            Self::DepartmentRevenue(_) => 4,
            Self::TopProducts(..) => 5,
        }
    }
}

/// The lines of all baskets as a population to draw from: keys that are used more are drawn more, as in life.
#[derive(Clone, Debug)]
pub struct Population {
    lines: Vec<Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    product: u32,
    basket: i64,
    household: u32,
    store: u32,
    department: u32,
}

impl Population {
    /// Reads it; an error when there is no line at all.
    pub fn read(database: &Database, keys: &Keys) -> Result<Self, ShopError> {
        let departments: HashMap<&str, u32> = keys.departments.iter().map(String::as_str).zip(0..).collect();
        let lines = database.connect()?.rows(
            "SELECT l.product_id, l.basket_id, b.household_id, b.store_id, p.department
             FROM lines l JOIN baskets b USING (basket_id) JOIN products p USING (product_id)",
            &[],
            |row| {
                Ok(Member {
                    product: row.get(0)?,
                    basket: row.get(1)?,
                    household: row.get(2)?,
                    store: row.get(3)?,
                    department: departments.get(row.get::<String>(4)?.as_str()).copied().unwrap_or(0),
                })
            },
        )?;
        if lines.is_empty() {
            return Err(ShopError::Data("there is not a single basket line".to_owned()));
        }
        Ok(Self { lines })
    }

    /// Draws the calls of one reader, in the shares of [`MIX`] and in random order.
    pub fn calls(&self, random: &mut fastrand::Rng) -> Vec<Call> {
        let mut calls: Vec<Call> = (0..CALLS).map(|place| self.call(place % 1000, random)).collect();
        random.shuffle(&mut calls);
        calls
    }

    fn call(&self, place: u32, random: &mut fastrand::Rng) -> Call {
        let line = self.line(random);
        let stranger = random.u32(..STRANGERS) == 0;
        let or_nobody = |id| if stranger { NOBODY } else { id };
        let mut below = 0;
        let function = MIX.iter().position(|(_, share)| {
            below += share;
            place < below
        });
        match function {
            Some(0) | None => Call::Price(or_nobody(line.product)),
            Some(1) => Call::BasketTotal(line.basket),
            Some(2) => Call::HouseholdSpend(or_nobody(line.household)),
            Some(3) => Call::StoreRevenue(or_nobody(line.store)),
            Some(4) => Call::DepartmentRevenue(line.department),
            Some(_) => Call::TopProducts(line.department, TOP[random.usize(..TOP.len())]),
        }
    }

    /// A basket that is there, and a product somebody bought (not always in that basket).
    pub fn basket_and_product(&self, random: &mut fastrand::Rng) -> (i64, u32) {
        (self.line(random).basket, self.line(random).product)
    }

    /// How many pieces somebody takes of a product: mostly one, now and then none, as the tills have it.
    pub fn quantity(&self, random: &mut fastrand::Rng) -> u32 {
        match random.u32(..100) {
            0 => 0,
            1..80 => 1,
            80..99 => random.u32(2..=6),
            _ => random.u32(7..=MAX_QUANTITY / 1000),
        }
    }

    fn line(&self, random: &mut fastrand::Rng) -> Member {
        self.lines[random.usize(..self.lines.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_a_whole() {
        assert_eq!(MIX.iter().map(|(_, share)| share).sum::<u32>(), 1000);
    }

    #[test]
    fn calls_come_in_the_shares_of_the_mix_and_are_the_same_for_the_same_seed() {
        let member = Member { product: 1, basket: 2, household: 3, store: 4, department: 0 };
        let population = Population { lines: vec![member] };
        let calls = population.calls(&mut fastrand::Rng::with_seed(7));
        assert_eq!(calls, population.calls(&mut fastrand::Rng::with_seed(7)));
        for (place, (name, share)) in MIX.iter().enumerate() {
            let asked = calls.iter().filter(|call| call.function() == place).count() as f64;
            let expected = f64::from(CALLS) * f64::from(*share) / 1000.0;
            assert!((asked / expected - 1.0).abs() < 0.05, "{name}: {asked} of {expected}");
        }
        assert!(calls.contains(&Call::Price(NOBODY)), "nobody asks for a stranger");
    }
}
