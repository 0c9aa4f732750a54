//! Cutting a fixture out of the full data: some weeks of baskets, and the products they name.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::data::{PRODUCTS, TRANSACTIONS, Table};
use crate::error::ShopError;

/// The fixture is written once and read often, so it is packed as tightly as zstd can.
const LEVEL: i32 = 22;

/// What to cut, and where to put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The folder of the full files.
    pub data: PathBuf,
    /// The weeks to keep.
    pub weeks: RangeInclusive<u32>,
    /// The folder to write to; it must exist.
    pub out: PathBuf,
}

impl Cut {
    /// Writes both files. Every line of the weeks is kept as it is, the odd ones too; of the products, those that are
    /// sold in these weeks.
    pub fn run(&self) -> Result<String, ShopError> {
        let mut sold = HashSet::new();
        let transactions = Table::open(&self.data.join(TRANSACTIONS))?;
        let week = transactions.column("week")?;
        let product = transactions.column("product_id")?;
        let lines = copy(transactions, &self.out.join(TRANSACTIONS), |table, row| {
            let keep = self.weeks.contains(&table.number(row, week)?);
            if keep {
                sold.insert(row[product].to_owned());
            }
            Ok(keep)
        })?;
        let products = Table::open(&self.data.join(PRODUCTS))?;
        let product = products.column("product_id")?;
        let products = copy(products, &self.out.join(PRODUCTS), |_, row| Ok(sold.contains(&row[product])))?;
        Ok(format!("{lines} lines of {} products, {} of them not in the product file", sold.len(), sold.len() - products))
    }
}

/// Copies the rows that `keep` wants, and says how many.
fn copy(mut from: Table, to: &Path, mut keep: impl FnMut(&Table, &StringRecord) -> Result<bool, ShopError>) -> Result<usize, ShopError> {
    let failed = |error: std::io::Error| ShopError::file(to, &error);
    let file = File::create(to).map_err(failed)?;
    let packed = zstd::Encoder::new(file, LEVEL).map_err(failed)?;
    let mut writer = csv::Writer::from_writer(packed);
    writer.write_record(from.header()).map_err(|error| failed(error.into()))?;
    let mut row = StringRecord::new();
    let mut count = 0;
    while from.next(&mut row)? {
        if keep(&from, &row)? {
            writer.write_record(&row).map_err(|error| failed(error.into()))?;
            count += 1;
        }
    }
    let packed = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    packed.finish().and_then(|mut file| file.flush()).map_err(failed)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Data;

    #[test]
    fn a_cut_keeps_every_line_of_its_weeks_and_only_the_products_they_name() {
        let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let write = |name: &str, text: &str| {
            let packed = zstd::encode_all(text.as_bytes(), 1).expect("compression");
            std::fs::write(from.path().join(name), packed).expect("a written file");
        };
        write(
            TRANSACTIONS,
            "household_id,store_id,basket_id,product_id,quantity,sales_cents,retail_disc_cents,coupon_disc_cents,\
             coupon_match_disc_cents,week,unix_time\n\
             1,1,1,10,1,5,0,0,0,1,1\n1,1,2,11,0,0,0,0,0,2,2\n1,1,2,99,1,5,0,0,0,2,2\n1,1,3,12,1,5,0,0,0,3,3\n",
        );
        write(
            PRODUCTS,
            "product_id,manufacturer_id,department,brand,product_category,product_type,package_size\n\
             10,1,A,National,X,Y,\n11,1,B,National,\"X, Y\",Z,\n12,1,C,National,X,Y,\n",
        );
        let cut = Cut { data: from.path().to_owned(), weeks: 2..=2, out: to.path().to_owned() };
        let told = cut.run().expect("a cut");
        assert_eq!(told, "2 lines of 2 products, 1 of them not in the product file");
        let (mut lines, mut products) = (Vec::new(), Vec::new());
        let data = Data::Folder(to.path().to_owned());
        data.purchases(|row| {
            lines.push((row.basket, row.line.product, row.line.quantity));
            Ok(())
        })
        .expect("lines");
        data.products(|product| {
            products.push((product.product, product.category));
            Ok(())
        })
        .expect("products");
        assert_eq!(lines, [(2, 11, 0), (2, 99, 1)]);
        assert_eq!(products, [(11, "X, Y".to_owned())]);
    }
}
