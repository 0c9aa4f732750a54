//! The commands: what is changed, as data that every server and its log understand.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};
use wellspring::Engine;
use wellspring_commands::sqlite::Write;
use wellspring_commands::{Command, CommandError, InvalidateError, LogFunctionError, Logged, LoggedFunctions, Op, Store};

use crate::database::UNKNOWN;
use crate::error::ShopError;
use crate::functions::BooksHandle;

/// Sets the price of a product.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SetPrice {
    pub(super) product: u32,
    pub(super) millicents: i64,
}

impl Command for SetPrice {
    const NAME: &'static str = "shop.SetPrice";
    type Output = ();
    type Error = Refusal;
}

/// Adds a line to a basket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AddLine {
    pub(super) basket: i64,
    pub(super) product: u32,
    pub(super) quantity: u32,
    pub(super) sales: u32,
}

impl Command for AddLine {
    const NAME: &'static str = "shop.AddLine";
    type Output = ();
    type Error = Refusal;
}

/// The functions whose keys commands make stale on every server.
#[derive(Clone, Debug)]
pub(super) struct LoggedBooks {
    pub(super) price: Logged<u32>,
    pub(super) basket_lines: Logged<i64>,
    pub(super) product_lines: Logged<u32>,
    pub(super) categories: Logged<String>,
    pub(super) category_products: Logged<(String, String)>,
}

impl LoggedBooks {
    /// Takes the functions that read rows into the log; all others follow from them on each server.
    pub(super) fn new(engine: &Engine, books: &BooksHandle) -> Result<(LoggedFunctions, Self), LogFunctionError> {
        let (logged, functions) = (LoggedFunctions::new(engine), books.functions());
        let books = Self {
            price: logged.log(&functions.price)?,
            basket_lines: logged.log(&functions.basket_lines)?,
            product_lines: logged.log(&functions.product_lines)?,
            categories: logged.log(&functions.categories)?,
            category_products: logged.log(&functions.category_products)?,
        };
        Ok((logged, books))
    }

    /// What a new line makes stale, whatever its product.
    pub(super) fn line_added<S: Store>(&self, op: &Op<S>, command: &AddLine) -> Result<(), Refusal> {
        op.invalidate(&self.basket_lines, &command.basket)?;
        op.invalidate(&self.product_lines, &command.product)?;
        Ok(())
    }

    /// What a product that had not been heard of makes stale beside.
    pub(super) fn product_added<S: Store>(&self, op: &Op<S>) -> Result<(), Refusal> {
        op.invalidate(&self.categories, UNKNOWN)?;
        op.invalidate(&self.category_products, &unknown_category())?;
        Ok(())
    }

    /// The same where the operation is being committed already.
    pub(super) fn product_added_at_commit(&self, rows: &mut Write<'_>) -> Result<(), Refusal> {
        rows.invalidate(&self.categories, UNKNOWN)?;
        rows.invalidate(&self.category_products, &unknown_category())?;
        Ok(())
    }
}

/// Where products are filed that had not been heard of.
fn unknown_category() -> (String, String) {
    (UNKNOWN.to_owned(), String::new())
}

/// Why a command was not done. The database's own error stays below it, since the log looks there for whether to try again.
#[derive(Debug)]
pub(super) enum Refusal {
    Shop(ShopError),
    Key(InvalidateError),
    Sqlite(rusqlite::Error),
    Postgres(tokio_postgres::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shop(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::Sqlite(error) => error.fmt(f),
            Self::Postgres(error) => ShopError::postgres(error).fmt(f),
        }
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Shop(_) => None,
            Self::Key(error) => Some(error),
            Self::Sqlite(error) => Some(error),
            Self::Postgres(error) => Some(error),
        }
    }
}

impl From<CommandError<Refusal>> for ShopError {
    fn from(error: CommandError<Refusal>) -> Self {
        match error {
            CommandError::Handler(Refusal::Shop(error)) => error,
            other => Self::Log(other.to_string().into()),
        }
    }
}

impl From<ShopError> for Refusal {
    fn from(error: ShopError) -> Self {
        Self::Shop(error)
    }
}

impl From<InvalidateError> for Refusal {
    fn from(error: InvalidateError) -> Self {
        Self::Key(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}
