//! Where changes are handed in: the commands of the shop on the operation log of its database.

use std::error::Error;
use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use rusqlite::params;
use tokio::runtime::Runtime;
use wellspring_commands::postgres::Postgres;
use wellspring_commands::sqlite::{Sqlite, Write};
use wellspring_commands::{CommandId, LogPosition, LoggedFunctions, Op, Server, Store};

use super::command::{AddLine, LoggedBooks, Refusal, SetPrice};
use crate::database::{ADD_LINE, ADD_UNKNOWN, Address, LOCK_BASKET, SET_PRICE, UNKNOWN, log_schema, no_basket, scoped};
use crate::error::ShopError;
use crate::line::{Line, UnitPrice};
use crate::shop::Shop;

/// Runs commands, whichever database they change. Blocks: it is for threads of their own, not those of an asynchronous runtime.
///
/// Of calls with the same id, on any server and in any process, one changes something, and all have its answer.
pub(super) trait Desk: fmt::Debug + Send + Sync {
    /// Sets the price of a product. What was made from it is stale here when this returns, and on other servers soon.
    fn set_price(&self, product: u32, price: UnitPrice, id: Option<CommandId>) -> Result<LogPosition, ShopError>;

    /// Adds a line to a basket; an error when there is no such basket.
    fn add_line(&self, basket: i64, line: Line, id: Option<CommandId>) -> Result<LogPosition, ShopError>;

    /// Waits until the operation at a position is applied here, whatever is before it; the engine's commit that did it.
    fn wait_for(&self, position: LogPosition, within: Duration) -> Result<u64, ShopError>;

    /// What the operation log has done.
    fn stats(&self) -> String;

    /// Ends what is under way, and begins nothing more.
    fn close(&self);
}

/// Opens the operation log in the database of an open shop.
pub(super) fn open(address: &Address, shop: &Shop) -> Result<Box<dyn Desk>, ShopError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| ShopError::File(format!("a runtime: {error}").into()))?;
    let (logged, books) = LoggedBooks::new(&shop.engine, &shop.books).map_err(failed)?;
    Ok(match address {
        Address::Sqlite(path) => {
            let server = runtime.block_on(over_sqlite(shop, &logged, books, Sqlite::open(path).map_err(failed)?))?;
            Box::new(Clerk { runtime, server })
        }
        Address::Postgres { url, schema } => {
            let server = runtime.block_on(async {
                let store = Postgres::builder(&scoped(url, schema)).schema(log_schema(schema)).connect().await.map_err(failed)?;
                over_postgres(shop, &logged, books, store).await
            })?;
            Box::new(Clerk { runtime, server })
        }
    })
}

/// A server, and the runtime it is on.
struct Clerk<S: Store> {
    runtime: Runtime,
    server: Server<S>,
}

impl<S: Store> fmt::Debug for Clerk<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clerk").field(&self.server).finish()
    }
}

impl<S: Store> Desk for Clerk<S> {
    fn set_price(&self, product: u32, price: UnitPrice, id: Option<CommandId>) -> Result<LogPosition, ShopError> {
        let call = self.server.call(SetPrice { product, millicents: price.0 });
        let call = id.into_iter().fold(call, |call, id| call.id(id));
        Ok(self.runtime.block_on(call.into_future())?.position)
    }

    fn add_line(&self, basket: i64, line: Line, id: Option<CommandId>) -> Result<LogPosition, ShopError> {
        let Line { product, quantity, sales, .. } = line;
        let call = self.server.call(AddLine { basket, product, quantity, sales });
        let call = id.into_iter().fold(call, |call, id| call.id(id));
        Ok(self.runtime.block_on(call.into_future())?.position)
    }

    fn wait_for(&self, position: LogPosition, within: Duration) -> Result<u64, ShopError> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(within, self.server.wait_for(position)).await });
        match waited {
            Ok(commit) => Ok(commit.map_err(failed)?.get()),
            Err(_) => Err(ShopError::Log(format!("the position was not reached in {} s", within.as_secs()).into())),
        }
    }

    fn stats(&self) -> String {
        let stats = self.server.stats();
        format!(
            "own_operations={} log_operations={} poisoned={} coverage_lost={} retries={}",
            stats.applied_own, stats.applied_from_log, stats.poisoned, stats.coverage_lost, stats.retries
        )
    }

    fn close(&self) {
        self.runtime.block_on(self.server.shutdown());
    }
}

async fn over_sqlite(shop: &Shop, logged: &LoggedFunctions, books: LoggedBooks, store: Sqlite) -> Result<Server<Sqlite>, ShopError> {
    let (prices, lines) = (books.clone(), books);
    let server = Server::builder(&shop.engine, store)
        .functions(logged)
        .handler(move |command: SetPrice, op: Op<Sqlite>| {
            let books = prices.clone();
            async move {
                op.invalidate(&books.price, &command.product)?;
                op.write(move |rows: &mut Write<'_>| {
                    rows.prepare_cached(SET_PRICE)?.execute(params![command.product, command.millicents]).map(drop)
                });
                Ok(())
            }
        })
        .handler(move |command: AddLine, op: Op<Sqlite>| {
            let books = lines.clone();
            async move {
                books.line_added(&op, &command)?;
                op.write(move |rows: &mut Write<'_>| add_line(rows, &books, &command));
                Ok(())
            }
        });
    server.start().await.map_err(failed)
}

/// Whether the product is a new one shows only at commit, so what is stale by that is recorded there.
fn add_line(rows: &mut Write<'_>, books: &LoggedBooks, command: &AddLine) -> Result<(), Refusal> {
    let AddLine { basket, product, quantity, sales } = *command;
    let no_discount = 0;
    let values = params![basket, product, quantity, sales, no_discount, no_discount, no_discount];
    if rows.prepare_cached(ADD_LINE)?.execute(values)? == 0 {
        return Err(no_basket(basket).into());
    }
    if rows.prepare_cached(ADD_UNKNOWN)?.execute(params![product, UNKNOWN])? > 0 {
        books.product_added_at_commit(rows)?;
    }
    Ok(())
}

async fn over_postgres(shop: &Shop, logged: &LoggedFunctions, books: LoggedBooks, store: Postgres) -> Result<Server<Postgres>, ShopError> {
    let (prices, lines) = (books.clone(), books);
    let server = Server::builder(&shop.engine, store)
        .functions(logged)
        .handler(move |command: SetPrice, op: Op<Postgres>| {
            let books = prices.clone();
            async move {
                op.tx().execute(SET_PRICE, &[&i64::from(command.product), &command.millicents]).await?;
                op.invalidate(&books.price, &command.product)?;
                Ok(())
            }
        })
        .handler(move |command: AddLine, op: Op<Postgres>| {
            let books = lines.clone();
            async move {
                let AddLine { basket, product, quantity, sales } = command;
                let [product, quantity, sales, none] = [product, quantity, sales, 0].map(i64::from);
                op.tx().execute(LOCK_BASKET, &[&basket]).await?;
                if op.tx().execute(ADD_LINE, &[&basket, &product, &quantity, &sales, &none, &none, &none]).await? == 0 {
                    return Err(no_basket(basket).into());
                }
                books.line_added(&op, &command)?;
                if op.tx().execute(ADD_UNKNOWN, &[&product, &UNKNOWN]).await? > 0 {
                    books.product_added(&op)?;
                }
                Ok(())
            }
        });
    server.start().await.map_err(failed)
}

/// What the operation log says, with what is below it.
fn failed(error: impl Error) -> ShopError {
    ShopError::Log(error.to_string().into())
}
