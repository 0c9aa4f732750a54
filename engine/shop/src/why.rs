//! `wellspring-shop why KEY`: where a figure comes from, before, during and after a change below it.

use std::fmt::Write;
use std::path::PathBuf;

use wellspring::{Engine, NodeId};

use crate::data::Data;
use crate::database::Database;
use crate::error::ShopError;
use crate::figure::Figure;
use crate::keys::Keys;
use crate::line::UnitPrice;
use crate::shop::Shop;

/// What to explain, over which data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// The figure.
    pub figure: Figure,
    /// Where the baskets come from; none when not said.
    pub data: Option<Data>,
    /// Where the database is kept; a temporary file when not said.
    pub db: Option<PathBuf>,
}

impl Explain {
    /// Computes the figure, changes a price below it as the writer would, and tells what the engine knows of it at each step.
    pub fn run(&self) -> Result<String, ShopError> {
        let shop = Shop::new(Database::open(self.db.as_deref(), self.data.as_ref())?)?;
        // Everything, so that what was made from the figure is there too.
        shop.warm(&Keys::read(shop.database())?)?;
        let (engine, figure) = (&shop.engine, &self.figure);
        let mut text = String::new();
        let mut tell = |what: &str, node| {
            let why = engine.why(node).map(|why| why.to_string()).unwrap_or_default();
            // A string takes everything.
            let _ = writeln!(text, "{what}\n{why}\n");
        };

        let first = figure.read(&shop)?;
        let Some(product) = product_below(engine, first.node) else {
            return Err(ShopError::Data(format!("{figure} is made from no price, so there is no change to explain")));
        };
        tell(&format!("{figure} is {}", first.value), first.node);

        let (price, dearer) = match shop.database().price(product)? {
            Some(price) => (price.to_string(), UnitPrice(price.0 + (price.0 / 10).max(1))),
            None => ("none".to_owned(), UnitPrice(100_000)),
        };
        shop.set_price(product, dearer)?;
        tell(&format!("price:{product} {price} -> {dearer}"), first.node);

        let second = figure.read(&shop)?;
        let became = if second.value == first.value { "is still" } else { "is now" };
        tell(&format!("{figure} {became} {}", second.value), second.node);
        text.truncate(text.trim_end().len());
        Ok(text)
    }
}

/// A product whose price the node was made from, by what the engine recorded.
fn product_below(engine: &Engine, node: NodeId) -> Option<u32> {
    let why = engine.why(node)?;
    if why.node.function == "shop.price" {
        return why.node.key?.parse().ok();
    }
    why.dependencies.list.iter().find_map(|below| product_below(engine, below.id))
}
