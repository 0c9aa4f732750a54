//! The database: connections, the rows the functions read, and the writes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::connection::{Connection, Row, Value};
use crate::data::Data;
use crate::error::ShopError;
use crate::line::{Line, UnitPrice};
use crate::postgres_schema;
use crate::schema::{self, Contents};

/// Products that are sold and not in the product file belong to this department, under the empty category. Its name could
/// not be that of a real one.
pub const UNKNOWN: &str = "(not in the product file)";

/// Sets the price of product `$1` to `$2`.
pub(crate) const SET_PRICE: &str = "INSERT INTO prices VALUES ($1, $2) ON CONFLICT (product_id) DO UPDATE SET millicents = $2";

/// Adds to basket `$1`, if it is there, a line of product `$2` with the five numbers of a [`Line`] that follow it.
pub(crate) const ADD_LINE: &str = "
    INSERT INTO lines
    SELECT basket_id, (SELECT COALESCE(MAX(line_no), 0) + 1 FROM lines WHERE basket_id = $1), CAST($2 AS BIGINT), CAST($3 AS BIGINT),
           CAST($4 AS BIGINT), CAST($5 AS BIGINT), CAST($6 AS BIGINT), CAST($7 AS BIGINT)
    FROM baskets WHERE basket_id = $1";

/// Before [`ADD_LINE`] in PostgreSQL: of two lines that are added to basket `$1` at once, the second waits, and gets the next number.
pub(crate) const LOCK_BASKET: &str = "SELECT basket_id FROM baskets WHERE basket_id = $1 FOR UPDATE";

/// Files product `$1` under department `$2` ([`UNKNOWN`]), unless it is filed already.
pub(crate) const ADD_UNKNOWN: &str = "INSERT INTO products VALUES ($1, $2, '') ON CONFLICT DO NOTHING";

/// Where the database of several servers is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A SQLite file, for servers on one machine.
    Sqlite(PathBuf),
    /// A schema of a PostgreSQL database.
    Postgres {
        /// The database, as `postgres://user@host/database`.
        url: String,
        /// The schema: a plain word.
        schema: String,
    },
}

/// An open shop database.
pub struct Database {
    place: Place,
    /// Connections that are idle. A query takes one, or opens one more, so there are as many as ever ran at once.
    idle: Mutex<Vec<Connection>>,
    /// Removed with the database; declared last, because the connections must be closed first.
    temporary: Option<TempDir>,
}

/// Where the rows are.
#[derive(Clone, Debug)]
enum Place {
    Sqlite(PathBuf),
    Postgres(Box<postgres::Config>),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.place).field("temporary", &self.temporary.is_some()).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the SQLite database at `path`, or a temporary one. A new one is filled from `data` (the fixture, when not said);
    /// one that an earlier run has filled is used as it is. Of several processes that open a new one at once, one fills it.
    pub fn open(path: Option<&Path>, data: Option<&Data>) -> Result<Self, ShopError> {
        let (path, temporary) = match path {
            Some(path) => (path.to_owned(), None),
            None => {
                let folder = tempfile::Builder::new().prefix("wellspring-shop-").tempdir();
                let folder = folder.map_err(|error| ShopError::File(error.to_string().into()))?;
                (folder.path().join("shop.db"), Some(folder))
            }
        };
        let mut connection = rusqlite::Connection::open(&path)?;
        // As long as filling it may take somebody else.
        connection.busy_timeout(Duration::from_secs(60))?;
        match (schema::contents(&connection)?, data) {
            (Contents::Shop, None) => {}
            (Contents::Shop, Some(_)) => {
                let text = format!("{} is filled already: leave out --data or remove it", path.display());
                return Err(ShopError::Usage(text));
            }
            (Contents::Empty, data) => {
                // The loading itself needs no log: it is all or nothing.
                schema::load(&mut connection, data.unwrap_or(&Data::Fixture))?;
            }
        }
        schema::use_log(&connection)?;
        drop(connection);
        Ok(Self { place: Place::Sqlite(path), idle: Mutex::default(), temporary })
    }

    /// Opens the database of several servers.
    pub fn open_at(address: &Address, data: Option<&Data>) -> Result<Self, ShopError> {
        match address {
            Address::Sqlite(path) => Self::open(Some(path), data),
            Address::Postgres { url, schema } => Self::open_postgres(url, schema, data),
        }
    }

    /// Opens the shop in a schema of a PostgreSQL database, as [`open`](Self::open) does.
    ///
    /// Nothing of it may be called on a thread of an asynchronous runtime: the connections block on a runtime of their own.
    pub fn open_postgres(url: &str, schema: &str, data: Option<&Data>) -> Result<Self, ShopError> {
        let mut config: postgres::Config = scoped(url, schema).parse()?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        postgres_schema::open(&mut config.connect(postgres::NoTls)?, schema, data)?;
        Ok(Self { place: Place::Postgres(Box::new(config)), idle: Mutex::default(), temporary: None })
    }

    /// The file, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Sqlite(path) => Some(path),
            Place::Postgres(_) => None,
        }
    }

    /// Opens one more connection. One to SQLite is set up for speed: a large page cache, the file mapped, statements kept prepared.
    pub fn connect(&self) -> Result<Connection, ShopError> {
        let path = match &self.place {
            Place::Sqlite(path) => path,
            Place::Postgres(config) => return Ok(config.connect(postgres::NoTls)?.into()),
        };
        let connection = rusqlite::Connection::open(path)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.execute_batch(
            "PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -65536;
             PRAGMA mmap_size = 1073741824;
             PRAGMA temp_store = MEMORY;",
        )?;
        Ok(connection.into())
    }

    /// Runs `query` with a pooled connection. The pool's lock is not held meanwhile.
    ///
    /// An idle connection may have broken without anybody noticing, and all of them have when the database was restarted. So they
    /// are thrown away at the first that has, and `query` runs once more: it must be one that can.
    fn with<T>(&self, query: impl Fn(&mut Connection) -> Result<T, ShopError>) -> Result<T, ShopError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = idle {
            let answer = query(&mut connection);
            if answer.is_ok() || !connection.is_broken() {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                return answer;
            }
            let broken = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
            drop(broken);
        }
        let mut connection = self.connect()?;
        let answer = query(&mut connection);
        if !connection.is_broken() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        answer
    }

    pub(crate) fn rows<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<T, ShopError>,
    ) -> Result<Vec<T>, ShopError> {
        self.with(|connection| connection.rows(sql, values, &read))
    }

    /// The price of a product; none when it is unknown or was never sold with a quantity.
    pub fn price(&self, product: u32) -> Result<Option<UnitPrice>, ShopError> {
        let prices =
            self.rows("SELECT millicents FROM prices WHERE product_id = $1", &[product.into()], |row| row.get(0).map(UnitPrice))?;
        Ok(prices.into_iter().next())
    }

    /// The lines of a basket; none when there is no such basket.
    pub fn basket_lines(&self, basket: i64) -> Result<Vec<Line>, ShopError> {
        self.rows(
            "SELECT product_id, quantity, sales, retail_discount, coupon, coupon_match
             FROM lines WHERE basket_id = $1 ORDER BY line_no",
            &[basket.into()],
            line,
        )
    }

    /// The lines on which a product was sold, in the order of the index that holds them in SQLite.
    pub fn product_lines(&self, product: u32) -> Result<Vec<Line>, ShopError> {
        self.rows(
            "SELECT product_id, quantity, sales, retail_discount, coupon, coupon_match
             FROM lines WHERE product_id = $1
             ORDER BY quantity, sales, retail_discount, coupon, coupon_match",
            &[product.into()],
            line,
        )
    }

    /// The baskets of a household.
    pub fn household_baskets(&self, household: u32) -> Result<Vec<i64>, ShopError> {
        let sql = "SELECT basket_id FROM baskets WHERE household_id = $1 ORDER BY basket_id";
        self.rows(sql, &[household.into()], |row| row.get(0))
    }

    /// The weeks in which a store sold something.
    pub fn store_weeks(&self, store: u32) -> Result<Vec<u32>, ShopError> {
        self.rows("SELECT DISTINCT week FROM baskets WHERE store_id = $1 ORDER BY week", &[store.into()], |row| row.get(0))
    }

    /// The baskets of a store in a week.
    pub fn week_baskets(&self, store: u32, week: u32) -> Result<Vec<i64>, ShopError> {
        let sql = "SELECT basket_id FROM baskets WHERE store_id = $1 AND week = $2 ORDER BY basket_id";
        self.rows(sql, &[store.into(), week.into()], |row| row.get(0))
    }

    /// The categories of a department.
    pub fn categories(&self, department: &str) -> Result<Vec<String>, ShopError> {
        let sql = "SELECT DISTINCT category FROM products WHERE department = $1 ORDER BY category";
        self.rows(sql, &[department.into()], |row| row.get(0))
    }

    /// The products of a category of a department.
    pub fn category_products(&self, department: &str, category: &str) -> Result<Vec<u32>, ShopError> {
        let sql = "SELECT product_id FROM products WHERE department = $1 AND category = $2 ORDER BY product_id";
        self.rows(sql, &[department.into(), category.into()], |row| row.get(0))
    }

    /// Writes the price of a product.
    pub fn set_price(&self, product: u32, price: UnitPrice) -> Result<(), ShopError> {
        self.with(|connection| connection.execute(SET_PRICE, &[product.into(), price.0.into()]))?;
        Ok(())
    }

    /// Adds a line to a basket that exists; an error when it does not. True when its product had not been heard of: it is
    /// now one of the [`UNKNOWN`] ones.
    pub fn add_line(&self, basket: i64, line: &Line) -> Result<bool, ShopError> {
        let (values, unknown) = (line_values(basket, line), [line.product.into(), UNKNOWN.into()]);
        // On a connection of its own choice that is not tried again: nobody knows whether a commit whose answer was lost happened.
        let mut connection = self.connect_idle()?;
        let added = connection.transaction(|connection| {
            if connection.sqlite().is_err() {
                connection.each(LOCK_BASKET, &values[..1], |_| Ok(()))?;
            }
            if connection.execute(ADD_LINE, &values)? == 0 {
                return Err(no_basket(basket));
            }
            Ok(connection.execute(ADD_UNKNOWN, &unknown)? > 0)
        });
        if !connection.is_broken() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        added
    }

    fn connect_idle(&self) -> Result<Connection, ShopError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.connect(), Ok)
    }
}

/// What [`ADD_LINE`] is given.
pub(crate) fn line_values(basket: i64, line: &Line) -> [Value<'static>; 7] {
    let Line { product, quantity, sales, retail_discount, coupon, coupon_match } = *line;
    let numbers = [product, quantity, sales, retail_discount, coupon, coupon_match].map(Value::from);
    let [product, quantity, sales, retail_discount, coupon, coupon_match] = numbers;
    [basket.into(), product, quantity, sales, retail_discount, coupon, coupon_match]
}

/// A line was to be added to a basket that is not there.
pub(crate) fn no_basket(basket: i64) -> ShopError {
    ShopError::Data(format!("there is no basket {basket}"))
}

/// The URL (or the key-value words) of a database in which unqualified names are those of `schema`, a plain word.
pub(crate) fn scoped(url: &str, schema: &str) -> String {
    if url.contains("://") {
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}options=-c%20search_path%3D{schema}")
    } else {
        format!("{url} options='-c search_path={schema}'")
    }
}

/// The schema of the operation log of the shop in `schema`: apart from its rows, and one for each shop.
pub(crate) fn log_schema(schema: &str) -> String {
    format!("{schema}_log")
}

fn line(row: &Row<'_>) -> Result<Line, ShopError> {
    Ok(Line {
        product: row.get(0)?,
        quantity: row.get(1)?,
        sales: row.get(2)?,
        retail_discount: row.get(3)?,
        coupon: row.get(4)?,
        coupon_match: row.get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_named_in_every_form_of_a_database_address() {
        for address in ["postgres://postgres@127.0.0.1/postgres", "postgres://u@h/d?connect_timeout=3", "host=127.0.0.1 user=postgres"] {
            let config: postgres::Config = scoped(address, "corner_shop").parse().expect(address);
            assert_eq!(config.get_options(), Some("-c search_path=corner_shop"), "{address}");
        }
    }
}
