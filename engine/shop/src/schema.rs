//! The tables in SQLite, and filling them.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Statement, TransactionBehavior, params};

use crate::data::{Data, Product, Purchase};
use crate::error::ShopError;
use crate::fill::{Sink, fill};
use crate::line::{Line, UnitPrice};

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

/// Creates the tables and fills them, in one transaction. Another process that does the same at the same moment is waited for,
/// and what it has filled is left as it is.
pub(crate) fn load(connection: &mut Connection, data: &Data) -> Result<(), ShopError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if contents(&transaction)? == Contents::Shop {
        return Ok(());
    }
    transaction.execute_batch(TABLES)?;
    fill(data, &mut Rows::new(&transaction)?)?;
    transaction.execute_batch(INDICES)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Turns the log for writing on, so that readers go on beside the writer.
pub(crate) fn use_log(connection: &Connection) -> Result<(), ShopError> {
    let mut attempts = 1000;
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            // Nobody may have the file locked for this, and SQLite does not wait for whoever has: it is another process that is
            // at the same, for a moment.
            Err(error) if attempts > 0 && error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                attempts -= 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return Ok(done?),
        }
    }
}

struct Rows<'t> {
    product: Statement<'t>,
    basket: Statement<'t>,
    line: Statement<'t>,
    price: Statement<'t>,
}

impl<'t> Rows<'t> {
    fn new(connection: &'t Connection) -> Result<Self, ShopError> {
        Ok(Self {
            product: connection.prepare("INSERT INTO products VALUES (?, ?, ?)")?,
            basket: connection.prepare("INSERT INTO baskets VALUES (?, ?, ?, ?)")?,
            line: connection.prepare("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?,
            price: connection.prepare("INSERT INTO prices VALUES (?, ?)")?,
        })
    }
}

impl Sink for Rows<'_> {
    fn product(&mut self, product: &Product) -> Result<(), ShopError> {
        self.product.execute(params![product.product, product.department, product.category])?;
        Ok(())
    }

    fn basket(&mut self, first: &Purchase) -> Result<(), ShopError> {
        self.basket.execute(params![first.basket, first.household, first.store, first.week])?;
        Ok(())
    }

    fn line(&mut self, basket: i64, number: u32, line: &Line) -> Result<(), ShopError> {
        let Line { product, quantity, sales, retail_discount, coupon, coupon_match } = line;
        self.line.execute(params![basket, number, product, quantity, sales, retail_discount, coupon, coupon_match])?;
        Ok(())
    }

    fn price(&mut self, product: u32, price: UnitPrice) -> Result<(), ShopError> {
        self.price.execute(params![product, price.0])?;
        Ok(())
    }
}
