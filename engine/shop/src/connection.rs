//! A connection to SQLite or PostgreSQL, and the rows it gives.
//!
//! Both understand the same words as long as parameters are written `$1`, `$2` and first named in that order (to SQLite
//! they are names, bound by place), whole numbers are `BIGINT`, and sums are cast to it.

use std::collections::HashMap;
use std::fmt;

use postgres::types::ToSql;

use crate::error::ShopError;

/// An open connection.
pub struct Connection(Kind);

enum Kind {
    Sqlite(rusqlite::Connection),
    Postgres { client: Box<postgres::Client>, prepared: HashMap<String, postgres::Statement> },
}

/// What a parameter is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(&'v str),
}

/// A row of an answer.
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r postgres::Row),
}

/// What a column can be read as.
pub(crate) trait Column: Sized {
    fn sqlite(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Self>;
    fn postgres(row: &postgres::Row, place: usize) -> Result<Self, ShopError>;
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Sqlite(_) => "Connection(sqlite)",
            Kind::Postgres { .. } => "Connection(postgres)",
        })
    }
}

impl From<rusqlite::Connection> for Connection {
    fn from(connection: rusqlite::Connection) -> Self {
        Self(Kind::Sqlite(connection))
    }
}

impl From<postgres::Client> for Connection {
    fn from(client: postgres::Client) -> Self {
        Self(Kind::Postgres { client: Box::new(client), prepared: HashMap::new() })
    }
}

impl Connection {
    /// The SQLite connection itself; an error where the database is another one.
    pub fn sqlite(&self) -> Result<&rusqlite::Connection, ShopError> {
        match &self.0 {
            Kind::Sqlite(connection) => Ok(connection),
            Kind::Postgres { .. } => Err(ShopError::Sql("this needs a SQLite database".into())),
        }
    }

    /// Whether it has broken, as far as it knows: nothing more will come of it.
    pub(crate) fn is_broken(&self) -> bool {
        match &self.0 {
            Kind::Sqlite(_) => false,
            Kind::Postgres { client, .. } => client.is_closed(),
        }
    }

    /// Calls `each` with every row of the answer.
    pub(crate) fn each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        mut each: impl FnMut(&Row<'_>) -> Result<(), ShopError>,
    ) -> Result<(), ShopError> {
        match &mut self.0 {
            Kind::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    each(&Row::Sqlite(row))?;
                }
            }
            Kind::Postgres { client, prepared } => {
                let statement = statement(client, prepared, sql)?;
                for row in client.query(&statement, &bound(values))? {
                    each(&Row::Postgres(&row))?;
                }
            }
        }
        Ok(())
    }

    /// All rows of the answer.
    pub(crate) fn rows<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<T, ShopError>,
    ) -> Result<Vec<T>, ShopError> {
        let mut rows = Vec::new();
        self.each(sql, values, |row| {
            rows.push(read(row)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Executes a statement; how many rows it has changed.
    pub(crate) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, ShopError> {
        match &mut self.0 {
            Kind::Sqlite(connection) => Ok(connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))? as u64),
            Kind::Postgres { client, prepared } => {
                let statement = statement(client, prepared, sql)?;
                Ok(client.execute(&statement, &bound(values))?)
            }
        }
    }

    /// Executes several statements.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), ShopError> {
        match &mut self.0 {
            Kind::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Kind::Postgres { client, .. } => Ok(client.batch_execute(sql)?),
        }
    }

    /// Runs `work` in a transaction, which ends as `work` does.
    pub(crate) fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, ShopError>) -> Result<T, ShopError> {
        // SQLite takes the lock for writing at once: a transaction that has read cannot wait for it any more.
        self.batch(if matches!(self.0, Kind::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" })?;
        let done = work(self).and_then(|done| self.batch("COMMIT").map(|()| done));
        if done.is_err() {
            // A transaction that the database has ended already is rolled back, which is what is wanted.
            let _ = self.batch("ROLLBACK");
        }
        done
    }
}

/// Prepares a statement once per connection.
fn statement(
    client: &mut postgres::Client,
    prepared: &mut HashMap<String, postgres::Statement>,
    sql: &str,
) -> Result<postgres::Statement, ShopError> {
    if let Some(statement) = prepared.get(sql) {
        return Ok(statement.clone());
    }
    let statement = client.prepare(sql)?;
    prepared.insert(sql.to_owned(), statement.clone());
    Ok(statement)
}

fn bound<'v>(values: &'v [Value<'v>]) -> Vec<&'v (dyn ToSql + Sync)> {
    let bound = values.iter().map(|value| match value {
        Value::Number(number) => number as &(dyn ToSql + Sync),
        Value::Text(text) => text,
    });
    bound.collect()
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::Number(number) => rusqlite::ToSql::to_sql(number),
            Self::Text(text) => rusqlite::ToSql::to_sql(text),
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

impl Row<'_> {
    /// A column by its place.
    pub(crate) fn get<T: Column>(&self, place: usize) -> Result<T, ShopError> {
        match self {
            Self::Sqlite(row) => Ok(T::sqlite(row, place)?),
            Self::Postgres(row) => T::postgres(row, place),
        }
    }
}

impl Column for i64 {
    fn sqlite(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Self> {
        row.get(place)
    }

    fn postgres(row: &postgres::Row, place: usize) -> Result<Self, ShopError> {
        Ok(row.try_get(place)?)
    }
}

impl Column for u32 {
    fn sqlite(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Self> {
        row.get(place)
    }

    fn postgres(row: &postgres::Row, place: usize) -> Result<Self, ShopError> {
        let number: i64 = row.try_get(place)?;
        Self::try_from(number).map_err(|_| ShopError::Sql(format!("{number} is out of range").into()))
    }
}

impl Column for String {
    fn sqlite(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Self> {
        row.get(place)
    }

    fn postgres(row: &postgres::Row, place: usize) -> Result<Self, ShopError> {
        Ok(row.try_get(place)?)
    }
}
