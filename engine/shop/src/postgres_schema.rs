//! The tables in PostgreSQL, and filling them.

use std::io::Write;

use postgres::{Client, Transaction};

use crate::data::{Data, Product, Purchase};
use crate::error::ShopError;
use crate::fill::{Sink, fill};
use crate::line::{Line, UnitPrice};

/// Counts the changes of the tables.
const VERSION: i32 = 1;

/// Held while the tables are looked at and made ("wsho" and the version of the lock).
const LOCK: i64 = 0x7773_686f_0001;

// The same columns as in SQLite, and texts in the same order (by their bytes).
const TABLES: &str = r#"
    CREATE TABLE products (
        product_id BIGINT PRIMARY KEY,
        department TEXT COLLATE "C" NOT NULL,
        category TEXT COLLATE "C" NOT NULL
    );
    CREATE TABLE prices (
        product_id BIGINT PRIMARY KEY,
        millicents BIGINT NOT NULL CHECK (millicents >= 0)
    );
    CREATE TABLE baskets (
        basket_id BIGINT PRIMARY KEY,
        household_id BIGINT NOT NULL,
        store_id BIGINT NOT NULL,
        week BIGINT NOT NULL
    );
    CREATE TABLE lines (
        basket_id BIGINT NOT NULL REFERENCES baskets,
        line_no BIGINT NOT NULL,
        product_id BIGINT NOT NULL,
        quantity BIGINT NOT NULL,
        sales BIGINT NOT NULL,
        retail_discount BIGINT NOT NULL,
        coupon BIGINT NOT NULL,
        coupon_match BIGINT NOT NULL
    );
    CREATE TABLE shop_version (version INTEGER NOT NULL);
"#;

// After the rows: sorting once is faster than keeping sorted.
const INDICES: &str = "
    ALTER TABLE lines ADD PRIMARY KEY (basket_id, line_no);
    CREATE INDEX products_by_department ON products (department, category);
    CREATE INDEX baskets_by_household ON baskets (household_id);
    CREATE INDEX baskets_by_store ON baskets (store_id, week);
    CREATE INDEX lines_by_product ON lines (product_id);
    ANALYZE products, prices, baskets, lines;
";

/// Makes the schema and fills it, in one transaction, unless that was done already. Whoever does the same at the same moment is
/// waited for. `schema` is a plain word.
pub(crate) fn open(client: &mut Client, schema: &str, data: Option<&Data>) -> Result<(), ShopError> {
    let mut transaction = client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
    transaction.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}; SET LOCAL search_path = {schema}"))?;
    let tables = transaction.query_one("SELECT COUNT(*) FROM pg_tables WHERE schemaname = $1", &[&schema])?;
    let ours = transaction.query_opt("SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'shop_version'", &[&schema])?;
    if ours.is_some() {
        let version: i32 = transaction.query_one("SELECT version FROM shop_version", &[])?.try_get(0)?;
        if version != VERSION {
            return Err(ShopError::Data(format!("schema {schema} has version {version}, this program knows {VERSION}")));
        }
        if data.is_some() {
            return Err(ShopError::Usage(format!("schema {schema} is filled already: leave out --data or drop it")));
        }
        return Ok(());
    }
    if tables.try_get::<_, i64>(0)? > 0 {
        return Err(ShopError::Data(format!("schema {schema} was not made by this program")));
    }
    transaction.batch_execute(TABLES)?;
    let mut rows = Rows::default();
    fill(data.unwrap_or(&Data::Fixture), &mut rows)?;
    // Baskets before the lines that refer to them.
    for (table, rows) in [("products", rows.products), ("prices", rows.prices), ("baskets", rows.baskets), ("lines", rows.lines)] {
        copy(&mut transaction, table, rows)?;
    }
    transaction.batch_execute(INDICES)?;
    transaction.execute("INSERT INTO shop_version VALUES ($1)", &[&VERSION])?;
    transaction.commit()?;
    Ok(())
}

fn copy(transaction: &mut Transaction<'_>, table: &str, rows: Csv) -> Result<(), ShopError> {
    let rows = rows.0.into_inner().map_err(|error| ShopError::Data(error.to_string()))?;
    let mut copy = transaction.copy_in(&format!("COPY {table} FROM STDIN (FORMAT csv)"))?;
    copy.write_all(&rows).map_err(|error| ShopError::Sql(error.to_string().into()))?;
    copy.finish()?;
    Ok(())
}

/// The rows of each table, in memory: a connection copies into one table at a time, and they come mixed.
#[derive(Default)]
struct Rows {
    products: Csv,
    prices: Csv,
    baskets: Csv,
    lines: Csv,
}

struct Csv(csv::Writer<Vec<u8>>);

impl Default for Csv {
    fn default() -> Self {
        // Everything is quoted: an empty text without quotes would be NULL.
        Self(csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new()))
    }
}

impl Csv {
    fn row<const N: usize>(&mut self, fields: [String; N]) -> Result<(), ShopError> {
        self.0.write_record(fields).map_err(|error| ShopError::Data(error.to_string()))
    }
}

impl Sink for Rows {
    fn product(&mut self, product: &Product) -> Result<(), ShopError> {
        self.products.row([product.product.to_string(), product.department.clone(), product.category.clone()])
    }

    fn basket(&mut self, first: &Purchase) -> Result<(), ShopError> {
        self.baskets.row([first.basket.to_string(), first.household.to_string(), first.store.to_string(), first.week.to_string()])
    }

    fn line(&mut self, basket: i64, number: u32, line: &Line) -> Result<(), ShopError> {
        let Line { product, quantity, sales, retail_discount, coupon, coupon_match } = *line;
        let [number, product, quantity, sales, retail_discount, coupon, coupon_match] =
            [number, product, quantity, sales, retail_discount, coupon, coupon_match].map(|number| number.to_string());
        self.lines.row([basket.to_string(), number, product, quantity, sales, retail_discount, coupon, coupon_match])
    }

    fn price(&mut self, product: u32, price: UnitPrice) -> Result<(), ShopError> {
        self.prices.row([product.to_string(), price.0.to_string()])
    }
}
