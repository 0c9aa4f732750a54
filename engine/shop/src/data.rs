//! Reading the baskets and products: zstd-compressed csv files, or the fixture shipped inside the program.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;

use crate::error::ShopError;
use crate::line::{Line, MAX_CENTS, MAX_QUANTITY};

/// The name of the file of basket lines in a data folder.
pub const TRANSACTIONS: &str = "transactions.csv.zst";

/// The name of the file of products in a data folder.
pub const PRODUCTS: &str = "products.csv.zst";

static FIXTURE_TRANSACTIONS: &[u8] = include_bytes!("../data/transactions.csv.zst");
static FIXTURE_PRODUCTS: &[u8] = include_bytes!("../data/products.csv.zst");

/// Where the baskets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// The four weeks shipped inside the program.
    Fixture,
    /// A folder with [`TRANSACTIONS`] and [`PRODUCTS`].
    Folder(PathBuf),
}

/// One row of the transactions file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// Who bought.
    pub household: u32,
    /// Where.
    pub store: u32,
    /// In which basket.
    pub basket: i64,
    /// What.
    pub line: Line,
    /// In which week of the year.
    pub week: u32,
    /// When, in seconds since 1970.
    pub unix_time: i64,
}

/// One row of the products file, as far as the shop needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The product's id.
    pub product: u32,
    /// Its department.
    pub department: String,
    /// Its category within the department; empty when the file does not know.
    pub category: String,
}

/// An open csv file that knows its columns by name.
pub(crate) struct Table {
    name: String,
    header: StringRecord,
    reader: csv::Reader<Box<dyn Read>>,
}

impl Data {
    /// Calls `each` with every row of the transactions file, in the file's order.
    pub fn purchases(&self, mut each: impl FnMut(Purchase) -> Result<(), ShopError>) -> Result<(), ShopError> {
        let mut table = self.open(TRANSACTIONS, FIXTURE_TRANSACTIONS)?;
        let household = table.column("household_id")?;
        let store = table.column("store_id")?;
        let basket = table.column("basket_id")?;
        let product = table.column("product_id")?;
        let quantity = table.column("quantity")?;
        let sales = table.column("sales_cents")?;
        let retail_discount = table.column("retail_disc_cents")?;
        let coupon = table.column("coupon_disc_cents")?;
        let coupon_match = table.column("coupon_match_disc_cents")?;
        let week = table.column("week")?;
        let unix_time = table.column("unix_time")?;
        let mut row = StringRecord::new();
        while table.next(&mut row)? {
            each(Purchase {
                household: table.number(&row, household)?,
                store: table.number(&row, store)?,
                basket: table.number(&row, basket)?,
                line: Line {
                    product: table.number(&row, product)?,
                    quantity: table.at_most(&row, quantity, MAX_QUANTITY)?,
                    sales: table.at_most(&row, sales, MAX_CENTS)?,
                    retail_discount: table.at_most(&row, retail_discount, MAX_CENTS)?,
                    coupon: table.at_most(&row, coupon, MAX_CENTS)?,
                    coupon_match: table.at_most(&row, coupon_match, MAX_CENTS)?,
                },
                week: table.number(&row, week)?,
                unix_time: table.number(&row, unix_time)?,
            })?;
        }
        Ok(())
    }

    /// Calls `each` with every row of the products file, in the file's order.
    pub fn products(&self, mut each: impl FnMut(Product) -> Result<(), ShopError>) -> Result<(), ShopError> {
        let mut table = self.open(PRODUCTS, FIXTURE_PRODUCTS)?;
        let product = table.column("product_id")?;
        let department = table.column("department")?;
        let category = table.column("product_category")?;
        let mut row = StringRecord::new();
        while table.next(&mut row)? {
            each(Product {
                product: table.number(&row, product)?,
                department: row[department].to_owned(),
                category: row[category].to_owned(),
            })?;
        }
        Ok(())
    }

    fn open(&self, name: &str, fixture: &'static [u8]) -> Result<Table, ShopError> {
        match self {
            Self::Fixture => Table::new(name.to_owned(), fixture),
            Self::Folder(folder) => Table::open(&folder.join(name)),
        }
    }
}

impl Table {
    /// Opens a compressed csv file.
    pub(crate) fn open(path: &Path) -> Result<Self, ShopError> {
        let file = File::open(path).map_err(|error| ShopError::file(path, &error))?;
        Self::new(path.display().to_string(), file)
    }

    fn new(name: String, compressed: impl Read + 'static) -> Result<Self, ShopError> {
        let plain = zstd::Decoder::new(compressed).map_err(|error| ShopError::Data(format!("{name}: {error}")))?;
        let mut reader = csv::Reader::from_reader(Box::new(plain) as Box<dyn Read>);
        let header = reader.headers().map_err(|error| ShopError::Data(format!("{name}: {error}")))?.clone();
        Ok(Self { name, header, reader })
    }

    /// The names of the columns.
    pub(crate) fn header(&self) -> &StringRecord {
        &self.header
    }

    /// The position of a column. Every row has it: rows of another length are an error of the reader.
    pub(crate) fn column(&self, column: &str) -> Result<usize, ShopError> {
        self.header.iter().position(|name| name == column).ok_or_else(|| ShopError::Data(format!("{}: no column {column}", self.name)))
    }

    /// Reads the next row; false at the end.
    pub(crate) fn next(&mut self, row: &mut StringRecord) -> Result<bool, ShopError> {
        self.reader.read_record(row).map_err(|error| ShopError::Data(format!("{}: {error}", self.name)))
    }

    /// A field as a number.
    pub(crate) fn number<N: FromStr>(&self, row: &StringRecord, column: usize) -> Result<N, ShopError> {
        row[column].parse().map_err(|_| self.misfit(row, column, "is not a number that fits"))
    }

    fn at_most(&self, row: &StringRecord, column: usize, most: u32) -> Result<u32, ShopError> {
        let number = self.number(row, column)?;
        if number > most {
            return Err(self.misfit(row, column, &format!("is over {most}")));
        }
        Ok(number)
    }

    fn misfit(&self, row: &StringRecord, column: usize, what: &str) -> ShopError {
        let line = row.position().map_or(0, csv::Position::line);
        ShopError::Data(format!("{} line {line}: {} {:?} {what}", self.name, &self.header[column], &row[column]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(transactions: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let compressed = zstd::encode_all(transactions.as_bytes(), 1).expect("compression");
        std::fs::write(folder.path().join(TRANSACTIONS), compressed).expect("a written file");
        folder
    }

    fn read(transactions: &str) -> Result<Vec<Purchase>, ShopError> {
        let folder = folder_with(transactions);
        let mut rows = Vec::new();
        Data::Folder(folder.path().to_owned()).purchases(|row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    const HEADER: &str = "household_id,store_id,basket_id,product_id,quantity,sales_cents,retail_disc_cents,\
                          coupon_disc_cents,coupon_match_disc_cents,week,unix_time";

    #[test]
    fn the_fixture_holds_about_four_weeks_and_every_trap_of_the_real_data() {
        let mut known = std::collections::HashSet::new();
        Data::Fixture
            .products(|product| {
                known.insert(product.product);
                Ok(())
            })
            .expect("products");
        let (mut lines, mut none, mut none_but_paid, mut unknown, mut over, mut most) = (0, 0, 0, 0, 0, 0);
        Data::Fixture
            .purchases(|row| {
                let line = row.line;
                lines += 1;
                none += u32::from(line.quantity == 0);
                none_but_paid += u32::from(line.quantity == 0 && line.sales > 0);
                unknown += u32::from(!known.contains(&line.product));
                over += u32::from(line.coupon > line.sales);
                most = most.max(line.quantity);
                Ok(())
            })
            .expect("purchases");
        assert!((100_000..130_000).contains(&lines), "{lines} lines");
        assert!(none > 100 && unknown > 100 && over > 10, "{none} {unknown} {over}");
        assert!(none_but_paid > 0);
        assert!(most > 20_000, "fuel is missing: the largest quantity is {most}");
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let rows = read(
            "unix_time,week,quantity,household_id,store_id,basket_id,product_id,sales_cents,retail_disc_cents,\
             coupon_disc_cents,coupon_match_disc_cents\n9,1,2,3,4,5,6,70,8,9,1\n",
        )
        .expect("rows");
        let line = Line { product: 6, quantity: 2, sales: 70, retail_discount: 8, coupon: 9, coupon_match: 1 };
        assert_eq!(rows, [Purchase { household: 3, store: 4, basket: 5, line, week: 1, unix_time: 9 }]);
    }

    #[test]
    fn a_number_that_does_not_fit_names_the_file_line_and_column() {
        let error = read(&format!("{HEADER}\n1,1,1,1,-2,0,0,0,0,1,1\n")).expect_err("a negative quantity");
        let text = error.to_string();
        assert!(text.contains("line 2") && text.contains("quantity \"-2\""), "{text}");
    }

    #[test]
    fn a_quantity_over_the_bound_is_refused() {
        let error = read(&format!("{HEADER}\n1,1,1,1,1000001,0,0,0,0,1,1\n")).expect_err("too many");
        assert!(error.to_string().contains("over 1000000"), "{error}");
    }

    #[test]
    fn a_missing_column_and_a_short_row_are_errors() {
        assert!(read("household_id\n1\n").expect_err("no store").to_string().contains("no column store_id"));
        assert!(read(&format!("{HEADER}\n1,2\n")).is_err());
    }

    #[test]
    fn a_file_that_is_not_zstd_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(TRANSACTIONS), b"plain text").expect("a written file");
        let read = Data::Folder(folder.path().to_owned()).purchases(|_| Ok(()));
        assert!(matches!(read, Err(ShopError::Data(_))), "{read:?}");
    }
}
