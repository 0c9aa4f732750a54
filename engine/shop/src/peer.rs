//! The same questions in direct SQL: what the service is measured beside.
//!
//! As fast as SQLite gives them: every statement prepared once per reader, every join and filter on an index, a page
//! cache larger than the data. No answer is kept between calls, because nobody would tell when it is stale.

use rusqlite::{Connection, OptionalExtension, Statement, params};

use crate::error::ShopError;
use crate::functions::Ranked;
use crate::line::{Cents, UnitPrice};

/// What one line `l` costs at the price `p.millicents`.
const AMOUNT: &str = "
    MAX(0, CASE WHEN l.quantity > 0 AND p.millicents IS NOT NULL
                THEN (l.quantity * p.millicents + 500) / 1000 - l.retail_discount - l.coupon_match
                ELSE l.sales END - l.coupon)";

/// Prepared statements over one connection.
#[derive(Debug)]
pub struct Peer<'c> {
    price: Statement<'c>,
    basket_total: Statement<'c>,
    household_spend: Statement<'c>,
    store_revenue: Statement<'c>,
    department_revenue: Statement<'c>,
    top_products: Statement<'c>,
}

impl<'c> Peer<'c> {
    /// Prepares them.
    pub fn new(connection: &'c Connection) -> Result<Self, ShopError> {
        let prepare = |sql: &str| connection.prepare(&sql.replace("AMOUNT", AMOUNT));
        // The order of the joins is fixed (CROSS JOIN): from the few rows of the key to their lines.
        Ok(Self {
            price: prepare("SELECT millicents FROM prices WHERE product_id = ?")?,
            basket_total: prepare(
                "SELECT COALESCE(SUM(AMOUNT), 0)
                 FROM lines l LEFT JOIN prices p USING (product_id) WHERE l.basket_id = ?",
            )?,
            household_spend: prepare(
                "SELECT COALESCE(SUM(AMOUNT), 0)
                 FROM baskets b CROSS JOIN lines l USING (basket_id) LEFT JOIN prices p USING (product_id)
                 WHERE b.household_id = ?",
            )?,
            store_revenue: prepare(
                "SELECT COALESCE(SUM(AMOUNT), 0)
                 FROM baskets b CROSS JOIN lines l USING (basket_id) LEFT JOIN prices p USING (product_id)
                 WHERE b.store_id = ?",
            )?,
            department_revenue: prepare(
                "SELECT COALESCE(SUM(AMOUNT), 0)
                 FROM products d LEFT JOIN prices p USING (product_id)
                 CROSS JOIN lines l ON l.product_id = d.product_id
                 WHERE d.department = ?",
            )?,
            // Sums by product before it sorts them: half the time of grouping the joined lines.
            top_products: prepare(
                "WITH sold AS MATERIALIZED (
                     SELECT d.product_id,
                            (SELECT SUM(AMOUNT) FROM lines l WHERE l.product_id = d.product_id) AS revenue
                     FROM products d LEFT JOIN prices p USING (product_id)
                     WHERE d.department = ?)
                 SELECT product_id, revenue FROM sold
                 WHERE revenue > 0 ORDER BY revenue DESC, product_id LIMIT ?",
            )?,
        })
    }

    /// The price of a product.
    pub fn price(&mut self, product: u32) -> Result<Option<UnitPrice>, ShopError> {
        Ok(self.price.query_row([product], |row| row.get(0).map(UnitPrice)).optional()?)
    }

    /// The total of a basket.
    pub fn basket_total(&mut self, basket: i64) -> Result<Cents, ShopError> {
        cents(&mut self.basket_total, [basket])
    }

    /// What a household spends.
    pub fn household_spend(&mut self, household: u32) -> Result<Cents, ShopError> {
        cents(&mut self.household_spend, [household])
    }

    /// What a store takes in.
    pub fn store_revenue(&mut self, store: u32) -> Result<Cents, ShopError> {
        cents(&mut self.store_revenue, [store])
    }

    /// What a department takes in.
    pub fn department_revenue(&mut self, department: &str) -> Result<Cents, ShopError> {
        cents(&mut self.department_revenue, [department])
    }

    /// A department's best sellers.
    pub fn top_products(&mut self, department: &str, n: u32) -> Result<Vec<Ranked>, ShopError> {
        let ranked = |row: &rusqlite::Row<'_>| Ok(Ranked { product: row.get(0)?, revenue: Cents(row.get(1)?) });
        let rows = self.top_products.query_map(params![department, n], ranked)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn cents(statement: &mut Statement<'_>, key: impl rusqlite::Params) -> Result<Cents, ShopError> {
    Ok(statement.query_row(key, |row| row.get(0).map(Cents))?)
}
