//! The SQLite database: connections, the rows the functions read, and the writes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};
use tempfile::TempDir;

use crate::data::Data;
use crate::error::ShopError;
use crate::line::{Line, UnitPrice};
use crate::schema::{self, Contents};

/// Products that are sold and not in the product file belong to this department, under the empty category. Its name could
/// not be that of a real one.
pub const UNKNOWN: &str = "(not in the product file)";

/// Files a product under [`UNKNOWN`], unless it is filed already.
pub(crate) const ADD_UNKNOWN: &str = "INSERT INTO products VALUES (?, ?, '') ON CONFLICT DO NOTHING";

/// An open shop database.
pub struct Database {
    path: PathBuf,
    /// Connections that are idle. A query takes one, or opens one more, so there are as many as ever ran at once.
    idle: Mutex<Vec<Connection>>,
    /// Removed with the database; declared last, because the connections must be closed first.
    temporary: Option<TempDir>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).field("temporary", &self.temporary.is_some()).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database at `path`, or a temporary one. A new one is filled from `data` (the fixture, when not said);
    /// one that an earlier run has filled is used as it is.
    pub fn open(path: Option<&Path>, data: Option<&Data>) -> Result<Self, ShopError> {
        let (path, temporary) = match path {
            Some(path) => (path.to_owned(), None),
            None => {
                let folder = tempfile::Builder::new().prefix("wellspring-shop-").tempdir();
                let folder = folder.map_err(|error| ShopError::File(error.to_string().into()))?;
                (folder.path().join("shop.db"), Some(folder))
            }
        };
        let mut connection = Connection::open(&path)?;
        match (schema::contents(&connection)?, data) {
            (Contents::Shop, None) => {}
            (Contents::Shop, Some(_)) => {
                let text = format!("{} is filled already: leave out --data or remove it", path.display());
                return Err(ShopError::Usage(text));
            }
            (Contents::Empty, data) => {
                // Readers go on beside the writer. The loading itself needs no log: it is all or nothing.
                schema::load(&mut connection, data.unwrap_or(&Data::Fixture))?;
            }
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        drop(connection);
        Ok(Self { path, idle: Mutex::default(), temporary })
    }

    /// Opens one more connection, set up for speed: a large page cache, the file mapped, statements kept prepared.
    pub fn connect(&self) -> Result<Connection, ShopError> {
        let connection = Connection::open(&self.path)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch(
            "PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -65536;
             PRAGMA mmap_size = 1073741824;
             PRAGMA temp_store = MEMORY;",
        )?;
        Ok(connection)
    }

    /// Runs `query` with a pooled connection. The pool's lock is not held meanwhile.
    fn with<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ShopError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = query(&connection);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer?)
    }

    fn rows<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ShopError> {
        self.with(|connection| connection.prepare_cached(sql)?.query_map(parameters, row)?.collect())
    }

    /// The price of a product; none when it is unknown or was never sold with a quantity.
    pub fn price(&self, product: u32) -> Result<Option<UnitPrice>, ShopError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT millicents FROM prices WHERE product_id = ?")?
                .query_row([product], |row| row.get(0).map(UnitPrice))
                .optional()
        })
    }

    /// The lines of a basket; none when there is no such basket.
    pub fn basket_lines(&self, basket: i64) -> Result<Vec<Line>, ShopError> {
        self.rows(
            "SELECT product_id, quantity, sales, retail_discount, coupon, coupon_match
             FROM lines WHERE basket_id = ? ORDER BY line_no",
            [basket],
            line,
        )
    }

    /// The lines on which a product was sold, in the order of the index that holds them.
    pub fn product_lines(&self, product: u32) -> Result<Vec<Line>, ShopError> {
        self.rows(
            "SELECT product_id, quantity, sales, retail_discount, coupon, coupon_match
             FROM lines WHERE product_id = ?
             ORDER BY quantity, sales, retail_discount, coupon, coupon_match",
            [product],
            line,
        )
    }

    /// The baskets of a household.
    pub fn household_baskets(&self, household: u32) -> Result<Vec<i64>, ShopError> {
        self.rows("SELECT basket_id FROM baskets WHERE household_id = ? ORDER BY basket_id", [household], |row| row.get(0))
    }

    /// The weeks in which a store sold something.
    pub fn store_weeks(&self, store: u32) -> Result<Vec<u32>, ShopError> {
        self.rows("SELECT DISTINCT week FROM baskets WHERE store_id = ? ORDER BY week", [store], |row| row.get(0))
    }

    /// The baskets of a store in a week.
    pub fn week_baskets(&self, store: u32, week: u32) -> Result<Vec<i64>, ShopError> {
        self.rows("SELECT basket_id FROM baskets WHERE store_id = ? AND week = ? ORDER BY basket_id", [store, week], |row| row.get(0))
    }

    /// The categories of a department.
    pub fn categories(&self, department: &str) -> Result<Vec<String>, ShopError> {
        self.rows("SELECT DISTINCT category FROM products WHERE department = ? ORDER BY category", [department], |row| row.get(0))
    }

    /// The products of a category of a department.
    pub fn category_products(&self, department: &str, category: &str) -> Result<Vec<u32>, ShopError> {
        self.rows(
            "SELECT product_id FROM products WHERE department = ? AND category = ? ORDER BY product_id",
            [department, category],
            |row| row.get(0),
        )
    }

    /// Writes the price of a product.
    pub fn set_price(&self, product: u32, price: UnitPrice) -> Result<(), ShopError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO prices VALUES (?1, ?2)
                     ON CONFLICT (product_id) DO UPDATE SET millicents = ?2",
                )?
                .execute(params![product, price.0])
        })?;
        Ok(())
    }

    /// Adds a line to a basket that exists; an error when it does not. True when its product had not been heard of: it is
    /// now one of the [`UNKNOWN`] ones.
    pub fn add_line(&self, basket: i64, line: &Line) -> Result<bool, ShopError> {
        let added = self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let lines = transaction
                .prepare_cached(
                    "INSERT INTO lines
                     SELECT basket_id,
                            (SELECT COALESCE(MAX(line_no), 0) + 1 FROM lines WHERE basket_id = ?1),
                            ?2, ?3, ?4, ?5, ?6, ?7
                     FROM baskets WHERE basket_id = ?1",
                )?
                .execute(params![basket, line.product, line.quantity, line.sales, line.retail_discount, line.coupon, line.coupon_match])?;
            if lines == 0 {
                return Ok(None);
            }
            let products = transaction.prepare_cached(ADD_UNKNOWN)?.execute(params![line.product, UNKNOWN])?;
            transaction.commit()?;
            Ok(Some(products > 0))
        })?;
        added.ok_or_else(|| ShopError::Data(format!("there is no basket {basket}")))
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line {
        product: row.get(0)?,
        quantity: row.get(1)?,
        sales: row.get(2)?,
        retail_discount: row.get(3)?,
        coupon: row.get(4)?,
        coupon_match: row.get(5)?,
    })
}
