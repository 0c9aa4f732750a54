//! The service: the functions, and the writes that keep them fresh.

use std::sync::Arc;

use wellspring::Engine;

use crate::database::{Database, UNKNOWN};
use crate::error::ShopError;
use crate::functions::{Answer, Functions};
use crate::keys::{Keys, TOP};
use crate::line::{Line, UnitPrice};

/// The service. Ask its functions with `&shop.engine`; write through its methods.
#[derive(Clone, Debug)]
pub struct Shop {
    /// The graph.
    pub engine: Engine,
    /// What is computed in it.
    pub functions: Functions,
    database: Arc<Database>,
}

impl Shop {
    /// Registers the functions over an open database, on an engine of its own.
    pub fn new(database: Database) -> Result<Self, ShopError> {
        let engine = Engine::new();
        let database = Arc::new(database);
        let functions = Functions::register(&engine, &database)?;
        Ok(Self {
            engine,
            functions,
            database,
        })
    }

    /// The database below.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Sets the price of a product. Every total made from it is stale when this returns.
    ///
    /// The row comes first: were it the other way round, a reader between the two would compute from the old row and
    /// keep that. Says how many roots were invalidated.
    pub fn set_price(&self, product: u32, price: UnitPrice) -> Result<u64, ShopError> {
        self.database.set_price(product, price)?;
        self.engine
            .batch(|batch| batch.invalidate(&self.functions.price, &product));
        Ok(1)
    }

    /// Adds a line to a basket. The basket's and the product's totals are stale when this returns; both in one batch,
    /// so nobody who waits for the change sees half of it. Says how many roots were invalidated.
    pub fn add_line(&self, basket: i64, line: &Line) -> Result<u64, ShopError> {
        self.database.add_line(basket, line)?;
        let known = self.database.is_known(line.product)?;
        let functions = &self.functions;
        let mut roots = 2;
        self.engine.batch(|batch| {
            batch.invalidate(&functions.basket_lines, &basket);
            batch.invalidate(&functions.product_lines, &line.product);
            if !known {
                // It may be the first line of a product nobody knew of.
                batch.invalidate(
                    &functions.category_products,
                    &(UNKNOWN.to_owned(), String::new()),
                );
                roots += 1;
            }
        });
        Ok(roots)
    }

    /// Computes every value of `keys`, so that the run starts from a full cache.
    pub fn warm(&self, keys: &Keys) -> Answer<()> {
        let (engine, functions) = (&self.engine, &self.functions);
        for product in &keys.products {
            functions.price.get(engine, product)??;
        }
        for basket in &keys.baskets {
            functions.basket_total.get(engine, basket)??;
        }
        for household in &keys.households {
            functions.household_spend.get(engine, household)??;
        }
        for store in &keys.stores {
            functions.store_revenue.get(engine, store)??;
        }
        for department in &keys.departments {
            functions.department_revenue.get(engine, department)??;
            for n in TOP {
                functions
                    .top_products
                    .get(engine, &(department.clone(), n))??;
            }
        }
        Ok(())
    }
}
