//! The tables, and filling them.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Transaction, params};

use crate::data::Data;
use crate::database::{ADD_UNKNOWN, UNKNOWN};
use crate::error::ShopError;
use crate::line::UnitPrice;

/// Marks a database file as the shop's ("wsho").
const APPLICATION: i32 = 0x7773_686f;

/// Counts the changes of the tables.
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE products (
        product_id INTEGER PRIMARY KEY,
        department TEXT NOT NULL,
        category TEXT NOT NULL
    );
    -- Not a column of products: not every product has a price.
    CREATE TABLE prices (
        product_id INTEGER PRIMARY KEY,
        millicents INTEGER NOT NULL CHECK (millicents >= 0)
    );
    CREATE TABLE baskets (
        basket_id INTEGER PRIMARY KEY,
        household_id INTEGER NOT NULL,
        store_id INTEGER NOT NULL,
        week INTEGER NOT NULL
    );
    CREATE TABLE lines (
        basket_id INTEGER NOT NULL REFERENCES baskets,
        line_no INTEGER NOT NULL,
        product_id INTEGER NOT NULL,
        quantity INTEGER NOT NULL,
        sales INTEGER NOT NULL,
        retail_discount INTEGER NOT NULL,
        coupon INTEGER NOT NULL,
        coupon_match INTEGER NOT NULL,
        PRIMARY KEY (basket_id, line_no)
    ) WITHOUT ROWID;
";

// The second index of lines holds every column a query by product needs, so that the direct SQL the program is
// measured beside never has to look at the table.
const INDICES: &str = "
    CREATE INDEX products_by_department ON products (department, category);
    CREATE INDEX baskets_by_household ON baskets (household_id);
    CREATE INDEX baskets_by_store ON baskets (store_id, week);
    CREATE INDEX lines_by_product ON lines
        (product_id, quantity, sales, retail_discount, coupon, coupon_match);
    ANALYZE;
";

/// What a database file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing yet.
    Empty,
    /// A shop, complete: loading is one transaction.
    Shop,
}

/// Tells whether the file is new or a shop; anything else is an error, and stays as it is.
pub(crate) fn contents(connection: &Connection) -> Result<Contents, ShopError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get(0))?;
    match (pragma("application_id")?, pragma("user_version")?, tables) {
        (APPLICATION, VERSION, _) => Ok(Contents::Shop),
        (APPLICATION, version, _) => Err(ShopError::Data(format!("the database has version {version}, this program knows {VERSION}"))),
        (_, _, 0) => Ok(Contents::Empty),
        _ => Err(ShopError::Data("the database was not made by this program".to_owned())),
    }
}

/// Creates the tables and fills them, in one transaction.
pub(crate) fn load(connection: &mut Connection, data: &Data) -> Result<(), ShopError> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    load_products(&transaction, data)?;
    load_purchases(&transaction, data)?;
    transaction.execute_batch(INDICES)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

fn load_products(transaction: &Transaction<'_>, data: &Data) -> Result<(), ShopError> {
    let mut insert = transaction.prepare("INSERT INTO products VALUES (?, ?, ?)")?;
    data.products(|product| {
        insert.execute(params![product.product, product.department, product.category])?;
        Ok(())
    })
}

fn load_purchases(transaction: &Transaction<'_>, data: &Data) -> Result<(), ShopError> {
    let mut basket = transaction.prepare("INSERT INTO baskets VALUES (?, ?, ?, ?)")?;
    let mut line = transaction.prepare("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    let mut lines_so_far: HashMap<i64, u32> = HashMap::new();
    let mut latest: HashMap<u32, (i64, UnitPrice)> = HashMap::new();
    let mut sold_products: HashSet<u32> = HashSet::new();
    data.purchases(|row| {
        let count = lines_so_far.entry(row.basket).or_default();
        if *count == 0 {
            basket.execute(params![row.basket, row.household, row.store, row.week])?;
        }
        *count += 1;
        let sold = row.line;
        line.execute(params![
            row.basket,
            *count,
            sold.product,
            sold.quantity,
            sold.sales,
            sold.retail_discount,
            sold.coupon,
            sold.coupon_match
        ])?;
        sold_products.insert(sold.product);
        if let Some(price) = sold.shelf_price() {
            let newest = latest.entry(sold.product).or_insert((row.unix_time, price));
            if newest.0 <= row.unix_time {
                *newest = (row.unix_time, price);
            }
        }
        Ok(())
    })?;
    let mut unknown = transaction.prepare(ADD_UNKNOWN)?;
    for product in sold_products {
        unknown.execute(params![product, UNKNOWN])?;
    }
    // A product that was never sold with a quantity has no price, rather than a made-up one.
    let mut price = transaction.prepare("INSERT INTO prices VALUES (?, ?)")?;
    for (product, (_, newest)) in latest {
        price.execute(params![product, newest.0])?;
    }
    Ok(())
}
