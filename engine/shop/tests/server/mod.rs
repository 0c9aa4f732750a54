//! A schema of the test's own in a PostgreSQL server that may be there or not.
#![allow(dead_code, reason = "no test file uses all of it")]

use postgres::{Client, NoTls};

/// Where a server listens if nothing else is said.
const STANDARD: &str = "postgres://postgres@127.0.0.1/postgres";

/// A name for a schema, which is dropped at the end of the test.
pub(crate) struct Schema {
    url: String,
    name: String,
}

impl Schema {
    /// None, and a word about it, when there is no server and none was promised.
    pub(crate) fn new() -> Option<Self> {
        let said = std::env::var("WELLSPRING_POSTGRES_URL").ok();
        let url = said.clone().unwrap_or_else(|| STANDARD.to_owned());
        let name = format!("shop_{}", uuid::Uuid::new_v4().simple());
        // The sessions of this test can be told from all others by it.
        let url = format!("{url}{}application_name={name}", if url.contains('?') { '&' } else { '?' });
        match Client::connect(&url, NoTls) {
            Ok(_) => Some(Self { url, name }),
            Err(error) if said.is_none() && std::env::var_os("CI").is_none() => {
                eprintln!("skipped: no PostgreSQL server: {error}");
                None
            }
            Err(error) => panic!("no PostgreSQL server: {error}"),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What a query for one number says; `{s}` stands for the schema's name.
    pub(crate) fn count(&self, sql: &str) -> i64 {
        let mut client = Client::connect(&self.url, NoTls).expect("a connection");
        client.query_one(&sql.replace("{s}", &self.name), &[]).expect("a row").get(0)
    }

    /// Executes statements in which `{s}` stands for the schema's name.
    pub(crate) fn execute(&self, sql: &str) {
        let mut client = Client::connect(&self.url, NoTls).expect("a connection");
        client.batch_execute(&sql.replace("{s}", &self.name)).expect("executed");
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        self.execute("DROP SCHEMA IF EXISTS {s} CASCADE; DROP SCHEMA IF EXISTS {s}_log CASCADE");
    }
}
