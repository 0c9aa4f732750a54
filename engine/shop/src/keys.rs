//! The keys there are to ask for.

use crate::connection::{Connection, Row};
use crate::database::Database;
use crate::error::ShopError;
use crate::figure::Figure;

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
    /// How many best sellers are asked for: [`TOP`].
    pub tops: Vec<u32>,
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
            tops: TOP.to_vec(),
        };
        keys.products.push(NOBODY);
        keys.households.push(NOBODY);
        keys.stores.push(NOBODY);
        Ok(keys)
    }

    /// Adds what figures are made of that may be of no row: a product that does not exist has a cached answer too.
    pub fn include<'f>(&mut self, figures: impl IntoIterator<Item = &'f Figure>) {
        for figure in figures {
            match figure {
                Figure::Price(product) => self.products.push(*product),
                Figure::BasketTotal(basket) => self.baskets.push(*basket),
                Figure::HouseholdSpend(household) => self.households.push(*household),
                Figure::StoreRevenue(store) => self.stores.push(*store),
                Figure::DepartmentRevenue(department) => self.departments.push(department.clone()),
                Figure::TopProducts(department, n) => {
                    self.departments.push(department.clone());
                    self.tops.push(*n);
                }
            }
        }
        once(&mut self.products);
        once(&mut self.baskets);
        once(&mut self.households);
        once(&mut self.stores);
        once(&mut self.departments);
        once(&mut self.tops);
    }
}

/// Each key is there once, so that none is compared twice.
fn once<K: Ord>(keys: &mut Vec<K>) {
    keys.sort_unstable();
    keys.dedup();
}

fn all<T>(connection: &mut Connection, sql: &str, row: impl Fn(&Row<'_>) -> Result<T, ShopError>) -> Result<Vec<T>, ShopError> {
    connection.rows(sql, &[], row)
}
