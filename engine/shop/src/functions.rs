//! The functions of the shop: what is computed from what.
//!
//! ```text
//! price(product) ─┬─> basket_total(basket) ─┬─> household_spend(household)
//! basket_lines ───┘                         └─> week_revenue ─────────> store_revenue(store)
//! price(product) ─┬─> product_revenue(product) ─┬─> category_revenue ─> department_revenue(department)
//! product_lines ──┘                             └─> category_top ─────> top_products(department, n)
//! ```
//!
//! A department has up to ten thousand products, and a store thousands of baskets in a year. Categories and weeks stand
//! between, so that after one price change a sum asks a hundred parts again and not every product or basket; and a
//! category whose best sellers stay the same ends the change there.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wellspring::{Cx, compute};

use crate::database::Database;
use crate::error::ShopError;
use crate::line::{Cents, Line, UnitPrice};

/// What a function of the shop gives: a failed query is a result too.
pub type Answer<V> = Result<V, ShopError>;

/// A product and what its lines bring in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranked {
    /// The product.
    pub product: u32,
    /// The sum of its lines.
    pub revenue: Cents,
}

/// The shop's books: figures over the rows of a database. Each is computed once per key, and again only when something
/// it was made from has changed.
#[derive(Debug)]
pub struct Books {
    /// Where the rows are. Whoever writes a row invalidates the function that reads it, after the row is written.
    pub database: Database,
}

#[compute(name = "shop")]
impl Books {
    /// Today's price of a product; none when it is unknown or was never sold with a quantity.
    pub fn price(&self, cx: &Cx, product: u32) -> Answer<Option<UnitPrice>> {
        self.database.price(product)
    }

    /// The lines of a basket, as rows.
    pub fn basket_lines(&self, cx: &Cx, basket: i64) -> Answer<Arc<[Line]>> {
        self.database.basket_lines(basket).map(Arc::from)
    }

    /// What a basket costs at today's prices; nothing when there is no such basket.
    pub fn basket_total(&self, cx: &Cx, basket: i64) -> Answer<Cents> {
        self.sum_of_lines(cx, &self.basket_lines(cx, basket)?)
    }

    /// The baskets of a household, as rows.
    pub fn household_baskets(&self, cx: &Cx, household: u32) -> Answer<Arc<[i64]>> {
        self.database.household_baskets(household).map(Arc::from)
    }

    /// The sum of a household's baskets.
    pub fn household_spend(&self, cx: &Cx, household: u32) -> Answer<Cents> {
        let baskets = self.household_baskets(cx, household)?;
        baskets.iter().map(|&basket| self.basket_total(cx, basket)).sum()
    }

    /// The weeks in which a store sold something, as rows.
    pub fn store_weeks(&self, cx: &Cx, store: u32) -> Answer<Arc<[u32]>> {
        self.database.store_weeks(store).map(Arc::from)
    }

    /// The baskets of a store in a week, as rows.
    pub fn week_baskets(&self, cx: &Cx, store: u32, week: u32) -> Answer<Arc<[i64]>> {
        self.database.week_baskets(store, week).map(Arc::from)
    }

    /// The sum of a store's baskets in a week.
    pub fn week_revenue(&self, cx: &Cx, store: u32, week: u32) -> Answer<Cents> {
        let baskets = self.week_baskets(cx, store, week)?;
        baskets.iter().map(|&basket| self.basket_total(cx, basket)).sum()
    }

    /// The sum of a store's weeks.
    pub fn store_revenue(&self, cx: &Cx, store: u32) -> Answer<Cents> {
        let weeks = self.store_weeks(cx, store)?;
        weeks.iter().map(|&week| self.week_revenue(cx, store, week)).sum()
    }

    /// The lines on which a product was sold, as rows.
    pub fn product_lines(&self, cx: &Cx, product: u32) -> Answer<Arc<[Line]>> {
        self.database.product_lines(product).map(Arc::from)
    }

    /// The sum of a product's lines at today's price.
    pub fn product_revenue(&self, cx: &Cx, product: u32) -> Answer<Cents> {
        self.sum_of_lines(cx, &self.product_lines(cx, product)?)
    }

    /// The categories of a department, as rows.
    pub fn categories(&self, cx: &Cx, department: String) -> Answer<Arc<[String]>> {
        self.database.categories(&department).map(Arc::from)
    }

    /// The products of a category, as rows.
    pub fn category_products(&self, cx: &Cx, department: String, category: String) -> Answer<Arc<[u32]>> {
        self.database.category_products(&department, &category).map(Arc::from)
    }

    /// The sum of a category's products.
    pub fn category_revenue(&self, cx: &Cx, department: String, category: String) -> Answer<Cents> {
        let products = self.category_products(cx, &department, &category)?;
        products.iter().map(|&product| self.product_revenue(cx, product)).sum()
    }

    /// The sum of a department's categories.
    pub fn department_revenue(&self, cx: &Cx, department: String) -> Answer<Cents> {
        let categories = self.categories(cx, &department)?;
        categories.iter().map(|category| self.category_revenue(cx, &department, category)).sum()
    }

    /// The best-selling products of a category.
    pub fn category_top(&self, cx: &Cx, department: String, category: String, n: u32) -> Answer<Arc<[Ranked]>> {
        let products = self.category_products(cx, &department, &category)?;
        let ranked =
            products.iter().map(|&product| -> Answer<Ranked> { Ok(Ranked { product, revenue: self.product_revenue(cx, product)? }) });
        Ok(best(ranked.collect::<Answer<_>>()?, n))
    }

    /// The best-selling products of a department, by revenue and then by id; products without revenue are not ranked.
    pub fn top_products(&self, cx: &Cx, department: String, n: u32) -> Answer<Arc<[Ranked]>> {
        let mut candidates = Vec::new();
        for category in self.categories(cx, &department)?.iter() {
            candidates.extend_from_slice(&self.category_top(cx, &department, category, n)?);
        }
        Ok(best(candidates, n))
    }
}

impl BooksHandle {
    /// What some lines cost at today's prices. A line without a piece reads no price, so it depends on none; lines of one
    /// product in a row (a product's own are all of it) read its price once.
    fn sum_of_lines(&self, cx: &Cx, lines: &[Line]) -> Answer<Cents> {
        let mut last = None;
        let amount = |line: &Line| -> Answer<Cents> {
            let price = match last {
                _ if line.quantity == 0 => None,
                Some((product, price)) if product == line.product => price,
                _ => {
                    let price = self.price(cx, line.product)?;
                    last = Some((line.product, price));
                    price
                }
            };
            Ok(line.amount(price))
        };
        lines.iter().map(amount).sum()
    }
}

/// The `n` of highest revenue, equal ones by id.
fn best(mut candidates: Vec<Ranked>, n: u32) -> Arc<[Ranked]> {
    candidates.retain(|one| one.revenue > Cents(0));
    candidates.sort_unstable_by_key(|one| (Reverse(one.revenue), one.product));
    candidates.truncate(usize::try_from(n).unwrap_or(usize::MAX));
    candidates.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_ranked_by_revenue_then_id_and_nothing_sold_is_not_ranked() {
        let ranked = |product, revenue| Ranked { product, revenue: Cents(revenue) };
        let all = vec![ranked(3, 5), ranked(1, 0), ranked(2, 5), ranked(9, 7)];
        assert_eq!(*best(all.clone(), 2), [ranked(9, 7), ranked(2, 5)]);
        assert_eq!(best(all.clone(), 100).len(), 3);
        assert!(best(all, 0).is_empty());
    }
}
