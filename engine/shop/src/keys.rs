//! The keys there are to ask for.

use rusqlite::Row;

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
        let connection = database.connect()?;
        let mut keys = Self {
            products: all(&connection, "SELECT product_id FROM products ORDER BY 1", |row| row.get(0))?,
            baskets: all(&connection, "SELECT basket_id FROM baskets ORDER BY 1", |row| row.get(0))?,
            households: all(&connection, "SELECT DISTINCT household_id FROM baskets ORDER BY 1", |row| row.get(0))?,
            stores: all(&connection, "SELECT DISTINCT store_id FROM baskets ORDER BY 1", |row| row.get(0))?,
            weeks: all(&connection, "SELECT DISTINCT store_id, week FROM baskets ORDER BY 1, 2", |row| Ok((row.get(0)?, row.get(1)?)))?,
            departments: all(&connection, "SELECT DISTINCT department FROM products ORDER BY 1", |row| row.get(0))?,
            categories: all(&connection, "SELECT DISTINCT department, category FROM products ORDER BY 1, 2", |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?,
        };
        keys.products.push(NOBODY);
        keys.households.push(NOBODY);
        keys.stores.push(NOBODY);
        Ok(keys)
    }
}

fn all<T>(connection: &rusqlite::Connection, sql: &str, row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, ShopError> {
    Ok(connection.prepare(sql)?.query_map([], row)?.collect::<Result<_, _>>()?)
}
