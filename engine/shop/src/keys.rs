//! The keys there are to ask for.

use crate::connection::{Connection, Row};
use crate::database::Database;
use crate::error::ShopError;

/// Ids that no data file uses. The shop is asked for them too: a product that does not exist must have an answer.
pub const NOBODY: u32 = u32::MAX;

/// How many products `top_products` is asked for.
pub const TOP: [u32; 2] = [3, 10];

/// Every key the run may ask for, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Every product, and [`NOBODY`].
    pub products: Vec<u32>,
    /// Every basket.
    pub baskets: Vec<i64>,
    /// Every household, and [`NOBODY`].
    pub households: Vec<u32>,
    /// Every store, and [`NOBODY`].
    pub stores: Vec<u32>,
    /// Every week of every store.
    pub weeks: Vec<(u32, u32)>,
    /// Every department, that of the products nobody has heard of included.
    pub departments: Vec<String>,
    /// Every category of every department.
    pub categories: Vec<(String, String)>,
}

impl Keys {
    /// Reads them.
    pub fn read(database: &Database) -> Result<Self, ShopError> {
        let mut connection = database.connect()?;
        let mut keys = Self {
            products: all(&mut connection, "SELECT product_id FROM products ORDER BY 1", |row| row.get(0))?,
            baskets: all(&mut connection, "SELECT basket_id FROM baskets ORDER BY 1", |row| row.get(0))?,
            households: all(&mut connection, "SELECT DISTINCT household_id FROM baskets ORDER BY 1", |row| row.get(0))?,
            stores: all(&mut connection, "SELECT DISTINCT store_id FROM baskets ORDER BY 1", |row| row.get(0))?,
            weeks: all(&mut connection, "SELECT DISTINCT store_id, week FROM baskets ORDER BY 1, 2", |row| Ok((row.get(0)?, row.get(1)?)))?,
            departments: all(&mut connection, "SELECT DISTINCT department FROM products ORDER BY 1", |row| row.get(0))?,
            categories: all(&mut connection, "SELECT DISTINCT department, category FROM products ORDER BY 1, 2", |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?,
        };
        keys.products.push(NOBODY);
        keys.households.push(NOBODY);
        keys.stores.push(NOBODY);
        Ok(keys)
    }
}

fn all<T>(connection: &mut Connection, sql: &str, row: impl Fn(&Row<'_>) -> Result<T, ShopError>) -> Result<Vec<T>, ShopError> {
    connection.rows(sql, &[], row)
}
