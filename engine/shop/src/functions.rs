//! The functions of the shop: what is computed from what.
//!
//! ```text
//! price(product) ─┬─> basket_total(basket) ─┬─> household_spend(household)
//! basket_lines ───┘                         └─> store_revenue(store)
//! price(product) ─┬─> product_revenue(product) ──> category_revenue ──> department_revenue(department)
//! product_lines ──┘                            └─> category_top ──────> top_products(department, n)
//! ```
//!
//! The largest department has thousands of products. Its categories stand between, so that one price change asks a
//! hundred of them again and not every product; and a category whose best sellers stay the same ends the change there.

use std::sync::Arc;

use wellspring::{Cx, Engine, Function, Parts};

use crate::database::Database;
use crate::error::ShopError;
use crate::line::{Cents, Line, UnitPrice};

/// What a function of the shop gives: a failed query is a result too.
pub type Answer<V> = Result<V, ShopError>;

/// A product and what its lines bring in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// The product.
    pub product: u32,
    /// The sum of its lines.
    pub revenue: Cents,
}

/// A function that gives a sum.
pub type Sum<K> = Function<K, Answer<Cents>>;

/// A function that gives rows.
pub type Rows<K, T> = Function<K, Answer<Arc<[T]>>>;

/// The function that gives prices.
pub type Price = Function<u32, Answer<Option<UnitPrice>>>;

/// The registered functions. Each is computed once per key, and again only when something it read has changed.
#[derive(Clone, Debug)]
pub struct Functions {
    /// Today's price of a product; none when it is unknown or was never sold with a quantity.
    pub price: Price,
    /// The lines of a basket, as rows.
    pub basket_lines: Rows<i64, Line>,
    /// What a basket costs at today's prices; nothing when there is no such basket.
    pub basket_total: Sum<i64>,
    /// The baskets of a household, as rows.
    pub household_baskets: Rows<u32, i64>,
    /// The sum of a household's baskets.
    pub household_spend: Sum<u32>,
    /// The baskets of a store, as rows.
    pub store_baskets: Rows<u32, i64>,
    /// The sum of a store's baskets.
    pub store_revenue: Sum<u32>,
    /// The lines on which a product was sold, as rows.
    pub product_lines: Rows<u32, Line>,
    /// The sum of a product's lines at today's price.
    pub product_revenue: Sum<u32>,
    /// The categories of a department, as rows.
    pub categories: Rows<String, String>,
    /// The products of a category, as rows.
    pub category_products: Rows<(String, String), u32>,
    /// The sum of a category's products.
    pub category_revenue: Sum<(String, String)>,
    /// The sum of a department's categories.
    pub department_revenue: Sum<String>,
    /// The best-selling products of a category.
    pub category_top: Rows<(String, String, u32), Ranked>,
    /// The best-selling products of a department, by revenue and then by id; products without revenue are not ranked.
    pub top_products: Rows<(String, u32), Ranked>,
}

impl Functions {
    /// Registers them all.
    pub fn register(engine: &Engine, database: &Arc<Database>) -> Result<Self, ShopError> {
        let price = {
            let database = Arc::clone(database);
            engine
                .define("price")
                .cut_off_eq()
                .function(move |_: &Cx, &product: &u32| database.price(product))?
        };
        let baskets = Baskets::register(engine, database, &price)?;
        let products = Products::register(engine, database, &price)?;
        Ok(Self {
            price,
            basket_lines: baskets.lines,
            basket_total: baskets.total,
            household_baskets: baskets.of_household,
            household_spend: baskets.spend,
            store_baskets: baskets.of_store,
            store_revenue: baskets.revenue,
            product_lines: products.lines,
            product_revenue: products.revenue,
            categories: products.categories,
            category_products: products.of_category,
            category_revenue: products.category_revenue,
            department_revenue: products.department_revenue,
            category_top: products.category_top,
            top_products: products.top,
        })
    }
}

/// What hangs on baskets.
struct Baskets {
    lines: Rows<i64, Line>,
    total: Sum<i64>,
    of_household: Rows<u32, i64>,
    spend: Sum<u32>,
    of_store: Rows<u32, i64>,
    revenue: Sum<u32>,
}

impl Baskets {
    fn register(
        engine: &Engine,
        database: &Arc<Database>,
        price: &Price,
    ) -> Result<Self, ShopError> {
        let lines = {
            let database = Arc::clone(database);
            engine
                .define("basket_lines")
                .cut_off_eq()
                .function(move |_: &Cx, &basket: &i64| shared(database.basket_lines(basket)))?
        };
        let total =
            {
                let (lines, price) = (lines.clone(), price.clone());
                engine.define("basket_total").cut_off_eq().function(
                    move |cx: &Cx, basket: &i64| sum_of_lines(cx, &lines.get(cx, basket)??, &price),
                )?
            };
        let of_household = {
            let database = Arc::clone(database);
            engine.define("household_baskets").cut_off_eq().function(
                move |_: &Cx, &household: &u32| shared(database.household_baskets(household)),
            )?
        };
        let spend = sum_of_baskets(engine, "household_spend", &of_household, &total)?;
        let of_store = {
            let database = Arc::clone(database);
            engine
                .define("store_baskets")
                .cut_off_eq()
                .function(move |_: &Cx, &store: &u32| shared(database.store_baskets(store)))?
        };
        let revenue = sum_of_baskets(engine, "store_revenue", &of_store, &total)?;
        Ok(Self {
            lines,
            total,
            of_household,
            spend,
            of_store,
            revenue,
        })
    }
}

/// What hangs on products.
struct Products {
    lines: Rows<u32, Line>,
    revenue: Sum<u32>,
    categories: Rows<String, String>,
    of_category: Rows<(String, String), u32>,
    category_revenue: Sum<(String, String)>,
    department_revenue: Sum<String>,
    category_top: Rows<(String, String, u32), Ranked>,
    top: Rows<(String, u32), Ranked>,
}

impl Products {
    fn register(
        engine: &Engine,
        database: &Arc<Database>,
        price: &Price,
    ) -> Result<Self, ShopError> {
        let lines = {
            let database = Arc::clone(database);
            engine
                .define("product_lines")
                .cut_off_eq()
                .function(move |_: &Cx, &product: &u32| shared(database.product_lines(product)))?
        };
        let revenue = {
            let (lines, price) = (lines.clone(), price.clone());
            engine.define("product_revenue").cut_off_eq().function(
                move |cx: &Cx, product: &u32| sum_of_lines(cx, &lines.get(cx, product)??, &price),
            )?
        };
        let categories = {
            let database = Arc::clone(database);
            engine.define("categories").cut_off_eq().function(
                move |_: &Cx, department: &String| shared(database.categories(department)),
            )?
        };
        let of_category = {
            let database = Arc::clone(database);
            engine.define("category_products").cut_off_eq().function(
                move |_: &Cx, (department, category): &(String, String)| {
                    shared(database.category_products(department, category))
                },
            )?
        };
        let category_revenue = {
            let (products, revenue) = (of_category.clone(), revenue.clone());
            engine.define("category_revenue").cut_off_eq().function(
                move |cx: &Cx, category: &(String, String)| -> Answer<Cents> {
                    let products = products.get(cx, category)??;
                    products
                        .iter()
                        .map(|product| revenue.get(cx, product)?)
                        .sum()
                },
            )?
        };
        let department_revenue = {
            let (categories, revenue) = (categories.clone(), category_revenue.clone());
            engine.define("department_revenue").cut_off_eq().function(
                move |cx: &Cx, department: &String| -> Answer<Cents> {
                    let categories = categories.get(cx, department)??;
                    let revenue = |category: &String| {
                        revenue.get(cx, &Parts((department.as_str(), category.as_str())))?
                    };
                    categories.iter().map(revenue).sum()
                },
            )?
        };
        let category_top = {
            let (products, revenue) = (of_category.clone(), revenue.clone());
            engine.define("category_top").cut_off_eq().function(
                move |cx: &Cx,
                      (department, category, n): &(String, String, u32)|
                      -> Answer<Arc<[Ranked]>> {
                    let products =
                        products.get(cx, &Parts((department.as_str(), category.as_str())))??;
                    let ranked = products.iter().map(|&product| -> Answer<Ranked> {
                        Ok(Ranked {
                            product,
                            revenue: revenue.get(cx, &product)??,
                        })
                    });
                    Ok(best(ranked.collect::<Answer<_>>()?, *n))
                },
            )?
        };
        let top = {
            let (categories, category_top) = (categories.clone(), category_top.clone());
            engine.define("top_products").cut_off_eq().function(
                move |cx: &Cx, (department, n): &(String, u32)| -> Answer<Arc<[Ranked]>> {
                    let mut candidates = Vec::new();
                    for category in categories.get(cx, department)??.iter() {
                        let parts = Parts((department.as_str(), category.as_str(), n));
                        candidates.extend_from_slice(&category_top.get(cx, &parts)??);
                    }
                    Ok(best(candidates, *n))
                },
            )?
        };
        Ok(Self {
            lines,
            revenue,
            categories,
            of_category,
            category_revenue,
            department_revenue,
            category_top,
            top,
        })
    }
}

fn shared<T>(rows: Result<Vec<T>, ShopError>) -> Answer<Arc<[T]>> {
    rows.map(Arc::from)
}

/// What some lines cost at today's prices. A line without a piece reads no price, so it depends on none.
fn sum_of_lines(cx: &Cx, lines: &[Line], price: &Price) -> Answer<Cents> {
    let amount = |line: &Line| -> Answer<Cents> {
        let price = if line.quantity == 0 {
            None
        } else {
            price.get(cx, &line.product)??
        };
        Ok(line.amount(price))
    };
    lines.iter().map(amount).sum()
}

/// Registers a function that adds up the totals of somebody's baskets.
fn sum_of_baskets(
    engine: &Engine,
    name: &str,
    baskets: &Rows<u32, i64>,
    total: &Sum<i64>,
) -> Result<Sum<u32>, ShopError> {
    let (baskets, total) = (baskets.clone(), total.clone());
    let function = engine.define(name).cut_off_eq().function(
        move |cx: &Cx, owner: &u32| -> Answer<Cents> {
            let baskets = baskets.get(cx, owner)??;
            baskets.iter().map(|basket| total.get(cx, basket)?).sum()
        },
    )?;
    Ok(function)
}

/// The `n` of highest revenue, equal ones by id.
fn best(mut candidates: Vec<Ranked>, n: u32) -> Arc<[Ranked]> {
    candidates.retain(|one| one.revenue > Cents(0));
    candidates.sort_unstable_by_key(|one| (std::cmp::Reverse(one.revenue), one.product));
    candidates.truncate(usize::try_from(n).unwrap_or(usize::MAX));
    candidates.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_ranked_by_revenue_then_id_and_nothing_sold_is_not_ranked() {
        let ranked = |product, revenue| Ranked {
            product,
            revenue: Cents(revenue),
        };
        let all = vec![ranked(3, 5), ranked(1, 0), ranked(2, 5), ranked(9, 7)];
        assert_eq!(*best(all.clone(), 2), [ranked(9, 7), ranked(2, 5)]);
        assert_eq!(best(all.clone(), 100).len(), 3);
        assert!(best(all, 0).is_empty());
    }
}
