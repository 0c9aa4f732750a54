//! The rows in PostgreSQL.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_postgres::Client;
use wellspring_commands::postgres::Postgres;

use super::BoxError;
use super::change::{Change, Data, Refused, Rows, Work};
use super::database::connect;
use super::job::{Fail, Job, Setting};
use super::kill::Step;

impl Data for Postgres {
    async fn change(work: Work<'_, Postgres>) -> Result<(), Refused> {
        let Work { op, change: Change { id, token, job }, row, switch } = work;
        switch.reach(Step::InHandler);
        let client: &Client = op.tx();
        if let Job::Setting(Setting { sql }) = &job {
            client.batch_execute(sql).await?;
        }
        for key in job.keys() {
            op.invalidate(&row, &key)?;
            // A row that is not there could not be locked, and one of two that add to it would be lost.
            client.execute("INSERT INTO rows (key, value) VALUES ($1, 0) ON CONFLICT DO NOTHING", &[&key]).await?;
            let before = client.query_one("SELECT value FROM rows WHERE key = $1 FOR UPDATE", &[&key]).await?.try_get(0)?;
            let value = job.value_after(&key, Some(before));
            client.execute("UPDATE rows SET value = $2 WHERE key = $1", &[&key, &value]).await?;
            switch.reach(Step::BetweenWrites);
            switch.pass(&key).await;
        }
        if matches!(job, Job::Fail(Fail { late: false, .. })) {
            return Err(Refused::AsAsked);
        }
        // Its number is drawn while the rows are locked: of two changes of one row the later one has the larger number.
        let text = serde_json::to_string(&job)?;
        client.execute("INSERT INTO done (id, token, job) VALUES ($1, $2, $3)", &[&id, &token, &text]).await?;
        Ok(())
    }
}

/// Reads over one connection after the other.
#[derive(Clone, Debug)]
pub(crate) struct PostgresRows {
    url: String,
    client: Arc<Mutex<Option<Arc<Client>>>>,
}

impl PostgresRows {
    pub(crate) fn new(url: String) -> PostgresRows {
        PostgresRows { url, client: Arc::default() }
    }
}

impl Rows for PostgresRows {
    async fn row(&self, key: &str) -> Result<Option<i64>, BoxError> {
        let client = {
            let mut client = self.client.lock().await;
            match &*client {
                Some(client) if !client.is_closed() => client.clone(),
                _ => client.insert(Arc::new(connect(&self.url).await?)).clone(),
            }
        };
        let row = client.query_opt("SELECT value FROM rows WHERE key = $1", &[&key]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}
