//! What a new database is filled with, whichever it is.

use std::collections::{HashMap, HashSet};

use crate::data::{Data, Product, Purchase};
use crate::database::UNKNOWN;
use crate::error::ShopError;
use crate::line::{Line, UnitPrice};

/// Takes the rows.
pub(crate) trait Sink {
    fn product(&mut self, product: &Product) -> Result<(), ShopError>;
    fn basket(&mut self, first: &Purchase) -> Result<(), ShopError>;
    fn line(&mut self, basket: i64, number: u32, line: &Line) -> Result<(), ShopError>;
    fn price(&mut self, product: u32, price: UnitPrice) -> Result<(), ShopError>;
}

/// Gives every row of `data` to the sink.
pub(crate) fn fill(data: &Data, sink: &mut impl Sink) -> Result<(), ShopError> {
    let mut known: HashSet<u32> = HashSet::new();
    data.products(|product| {
        known.insert(product.product);
        sink.product(&product)
    })?;
    let mut lines_so_far: HashMap<i64, u32> = HashMap::new();
    let mut latest: HashMap<u32, (i64, UnitPrice)> = HashMap::new();
    data.purchases(|row| {
        let count = lines_so_far.entry(row.basket).or_default();
        if *count == 0 {
            sink.basket(&row)?;
        }
        *count += 1;
        let sold = row.line;
        sink.line(row.basket, *count, &sold)?;
        if known.insert(sold.product) {
            sink.product(&Product { product: sold.product, department: UNKNOWN.to_owned(), category: String::new() })?;
        }
        if let Some(price) = sold.shelf_price() {
            let newest = latest.entry(sold.product).or_insert((row.unix_time, price));
            if newest.0 <= row.unix_time {
                *newest = (row.unix_time, price);
            }
        }
        Ok(())
    })?;
    // A product that was never sold with a quantity has no price, rather than a made-up one.
    latest.into_iter().try_for_each(|(product, (_, newest))| sink.price(product, newest))
}
