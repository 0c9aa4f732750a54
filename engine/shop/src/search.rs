//! What there is to pick: products and baskets by a text, and whether something is there at all.

use serde::Serialize;

use crate::connection::{Row, Value};
use crate::database::Database;
use crate::error::ShopError;
use crate::figure::Figure;

/// How many a search finds at most.
const MOST_FOUND: usize = 20;

/// The longest text that is searched for, in characters.
const LONGEST: usize = 100;

/// The most best sellers that are ranked for somebody who asks from afar.
const MOST_RANKED: u32 = 100;

/// What a search has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Found<T> {
    /// The first few.
    pub(crate) found: Vec<T>,
    /// Whether there are others.
    pub(crate) more: bool,
}

/// A product of the product file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Product {
    pub(crate) product: u32,
    pub(crate) department: String,
    pub(crate) category: String,
}

/// A basket, without its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Basket {
    pub(crate) basket: i64,
    pub(crate) household: u32,
    pub(crate) store: u32,
    pub(crate) week: u32,
}

impl Database {
    /// The products whose number begins with a text, or whose department or category has it in its name. Those that nobody has bought are left out.
    pub(crate) fn find_products(&self, text: &str) -> Result<Found<Product>, ShopError> {
        let text = pattern(text)?;
        self.find(
            "SELECT product_id, department, category FROM products
             WHERE (CAST(product_id AS TEXT) LIKE $1 ESCAPE '!' OR UPPER(department || ', ' || category) LIKE UPPER($2) ESCAPE '!')
               AND EXISTS (SELECT 1 FROM lines WHERE lines.product_id = products.product_id)
             ORDER BY product_id LIMIT $3",
            &[format!("{text}%").as_str().into(), format!("%{text}%").as_str().into(), limit()],
            |row| Ok(Product { product: row.get(0)?, department: row.get(1)?, category: row.get(2)? }),
        )
    }

    /// The baskets whose number begins with a text.
    pub(crate) fn find_baskets(&self, text: &str) -> Result<Found<Basket>, ShopError> {
        self.find(
            "SELECT basket_id, household_id, store_id, week FROM baskets
             WHERE CAST(basket_id AS TEXT) LIKE $1 ESCAPE '!' ORDER BY basket_id LIMIT $2",
            &[format!("{}%", pattern(text)?).as_str().into(), limit()],
            basket,
        )
    }

    /// The baskets that a product is in.
    pub(crate) fn baskets_with(&self, product: u32) -> Result<Found<Basket>, ShopError> {
        self.find(
            "SELECT basket_id, household_id, store_id, week FROM baskets
             WHERE basket_id IN (SELECT basket_id FROM lines WHERE product_id = $1) ORDER BY basket_id LIMIT $2",
            &[product.into(), limit()],
            basket,
        )
    }

    fn find<T>(&self, sql: &str, values: &[Value<'_>], read: impl Fn(&Row<'_>) -> Result<T, ShopError>) -> Result<Found<T>, ShopError> {
        let mut found = self.rows(sql, values, read)?;
        let more = found.len() > MOST_FOUND;
        found.truncate(MOST_FOUND);
        Ok(Found { found, more })
    }

    /// Refuses a figure of something that is not there. Whoever can connect could else fill the cache with keys that he makes up.
    pub(crate) fn admit(&self, figure: &Figure) -> Result<(), ShopError> {
        let is_there = |sql, key: Value<'_>| Ok::<_, ShopError>(!self.rows(sql, &[key], |_| Ok(()))?.is_empty());
        let (is_there, what) = match figure {
            Figure::Price(product) => {
                let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM products WHERE product_id = $1)
                                       OR EXISTS (SELECT 1 FROM prices WHERE product_id = $1)";
                (is_there(sql, (*product).into())?, format!("product {product}"))
            }
            Figure::BasketTotal(basket) => {
                (is_there("SELECT 1 FROM baskets WHERE basket_id = $1", (*basket).into())?, format!("basket {basket}"))
            }
            Figure::HouseholdSpend(household) => {
                let sql = "SELECT 1 FROM baskets WHERE household_id = $1 LIMIT 1";
                (is_there(sql, (*household).into())?, format!("household {household}"))
            }
            Figure::StoreRevenue(store) => {
                (is_there("SELECT 1 FROM baskets WHERE store_id = $1 LIMIT 1", (*store).into())?, format!("store {store}"))
            }
            Figure::TopProducts(_, n) if *n > MOST_RANKED => {
                return Err(ShopError::Data(format!("{n} best sellers: there are {MOST_RANKED} at most")));
            }
            Figure::DepartmentRevenue(department) | Figure::TopProducts(department, _) => {
                let sql = "SELECT 1 FROM products WHERE department = $1 LIMIT 1";
                let named: String = department.chars().take(LONGEST).collect();
                (is_there(sql, department.as_str().into())?, format!("department {named:?}"))
            }
        };
        if is_there { Ok(()) } else { Err(ShopError::Data(format!("there is no {what}"))) }
    }
}

/// One more than is told, which tells that there are more.
fn limit() -> Value<'static> {
    Value::Number(MOST_FOUND as i64 + 1)
}

/// The text as it is between the wildcards of a pattern.
fn pattern(text: &str) -> Result<String, ShopError> {
    if text.chars().count() > LONGEST {
        return Err(ShopError::Data(format!("a text to search for has at most {LONGEST} characters")));
    }
    // PostgreSQL has no such character in any text.
    Ok(text.trim().replace('\0', "").replace('!', "!!").replace('%', "!%").replace('_', "!_"))
}

fn basket(row: &Row<'_>) -> Result<Basket, ShopError> {
    Ok(Basket { basket: row.get(0)?, household: row.get(1)?, store: row.get(2)?, week: row.get(3)? })
}
