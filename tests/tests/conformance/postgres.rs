//! PostgreSQL: a schema for each test.

use std::time::Duration;

use wellspring_commands::postgres::Postgres;
use wellspring_commands::{Op, OperationId, OperationLog, ServerId, Store};
use wellspring_tests::service::service;

use crate::backend::Backend;
use crate::cluster::Refused;

pub(crate) struct OnPostgres {
    url: String,
    schema: String,
}

impl OnPostgres {
    async fn client(url: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connected");
        tokio::spawn(connection);
        client
    }
}

/// Rows are found beside the log, by the search path of the connection.
fn address(url: &str, schema: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}options=-csearch_path%3D{schema}")
}

impl Backend for OnPostgres {
    type Store = Postgres;

    async fn create() -> Option<OnPostgres> {
        let url = service("WELLSPRING_POSTGRES_URL", "postgres://postgres@127.0.0.1/postgres", 5432)?;
        let schema = format!("conform_{}", uuid::Uuid::new_v4().simple());
        let client = OnPostgres::client(&url).await;
        let rows = format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.rows (key text PRIMARY KEY, value text NOT NULL)");
        client.batch_execute(&rows).await.expect("created");
        Some(OnPostgres { url, schema })
    }

    async fn open(&self) -> Postgres {
        let url = address(&self.url, &self.schema);
        Postgres::builder(&url).schema(&self.schema).pool(4).connect().await.expect("connected")
    }

    async fn put(op: &Op<Postgres>, key: String, value: String) -> Result<(), Refused> {
        let sql = "INSERT INTO rows VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2";
        op.tx().execute(sql, &[&key, &value]).await.map(drop).map_err(Refused::by)
    }

    async fn get(store: &Postgres, key: &str) -> Option<String> {
        let tx = store.begin().await.expect("begun");
        let row = tx.query_opt("SELECT value FROM rows WHERE key = $1", &[&key]).await.expect("read");
        row.map(|row| row.get(0))
    }

    async fn append_raw(&self, body: &str) {
        let client = OnPostgres::client(&self.url).await;
        let id = |bits| uuid::Uuid::from_u128(bits);
        let (operation, origin) = (id(OperationId::new().as_u128()), id(ServerId::random().as_u128()));
        let sql = format!("INSERT INTO {}.operations (id, origin, body) VALUES ($1, $2, $3)", self.schema);
        client.execute(&sql, &[&operation, &origin, &body]).await.expect("appended");
    }

    async fn trim(&self) {
        let (log, client) = (self.open().await.log(), OnPostgres::client(&self.url).await);
        let left = format!("SELECT count(*) FROM {}.operations", self.schema);
        // The transactions of other tests hold back what may be trimmed.
        while client.query_one(&left, &[]).await.expect("counted").get::<_, i64>(0) > 0 {
            log.trim(Duration::ZERO).await.expect("trimmed");
        }
    }

    async fn end(self) {
        let client = OnPostgres::client(&self.url).await;
        client.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.schema)).await.expect("dropped");
    }
}
