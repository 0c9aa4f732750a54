//! The service: the books, and the writes that keep them fresh.

use wellspring::Engine;

use crate::database::{Database, UNKNOWN};
use crate::error::ShopError;
use crate::functions::{Answer, Books, BooksHandle};
use crate::keys::{Keys, TOP};
use crate::line::{Line, UnitPrice};

/// The service. Ask its books with `&shop.engine`; write through its methods.
#[derive(Clone, Debug)]
pub struct Shop {
    /// The graph.
    pub engine: Engine,
    /// What is computed in it.
    pub books: BooksHandle,
    bounded: bool,
}

impl Shop {
    /// Registers the books over an open database, on an engine of their own.
    pub fn new(database: Database) -> Result<Self, ShopError> {
        Self::on(Engine::new(), database)
    }

    /// [`new`](Self::new) on an engine that is there: one with a capacity, say, or with another clock.
    pub fn on(engine: Engine, database: Database) -> Result<Self, ShopError> {
        let bounded = engine.memory_report().capacity.is_some();
        let books = engine.service(Books { database })?;
        Ok(Self { engine, books, bounded })
    }

    /// The database below.
    pub fn database(&self) -> &Database {
        &self.books.database
    }

    /// Sets the price of a product. Every total made from it is stale when this returns.
    ///
    /// The row comes first: were it the other way round, a reader between the two would compute from the old row and
    /// keep that. Says how many keys were invalidated.
    pub fn set_price(&self, product: u32, price: UnitPrice) -> Result<u64, ShopError> {
        self.database().set_price(product, price)?;
        self.books.invalidate().price(product);
        Ok(1)
    }

    /// Adds a line to a basket. The totals of the basket and of the product are stale when this returns, by one sweep.
    /// Says how many keys were invalidated.
    pub fn add_line(&self, basket: i64, line: &Line) -> Result<u64, ShopError> {
        let unheard_of = self.database().add_line(basket, line)?;
        let functions = self.books.functions();
        self.engine.batch(|batch| {
            batch.invalidate(&functions.basket_lines, &basket);
            batch.invalidate(&functions.product_lines, &line.product);
            if unheard_of {
                batch.invalidate(&functions.categories, &UNKNOWN.to_owned());
                batch.invalidate(&functions.category_products, &(UNKNOWN.to_owned(), String::new()));
            }
        });
        Ok(if unheard_of { 4 } else { 2 })
    }

    /// Whether the engine has a capacity, so that there may be more values than it holds.
    pub fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// Computes every value of `keys`, so that the run starts from a full cache. Where something has had to be evicted for it, the
    /// rest is left to those who ask.
    pub fn warm(&self, keys: &Keys) -> Answer<()> {
        let (engine, books) = (&self.engine, &self.books);
        self.warm_each(&keys.products, |&product| books.price(engine, product).map(drop))?;
        self.warm_each(&keys.baskets, |&basket| books.basket_total(engine, basket).map(drop))?;
        self.warm_each(&keys.households, |&household| books.household_spend(engine, household).map(drop))?;
        self.warm_each(&keys.stores, |&store| books.store_revenue(engine, store).map(drop))?;
        self.warm_each(&keys.departments, |department| {
            books.department_revenue(engine, department)?;
            for n in TOP {
                books.top_products(engine, department, n)?;
            }
            Ok(())
        })
    }

    fn warm_each<K>(&self, keys: &[K], compute: impl Fn(&K) -> Answer<()>) -> Answer<()> {
        for (place, key) in keys.iter().enumerate() {
            // The report visits every node, so it is not asked for at every key.
            if self.bounded && place % 1000 == 0 && self.engine.memory_report().evicted > 0 {
                break;
            }
            compute(key)?;
        }
        Ok(())
    }
}
