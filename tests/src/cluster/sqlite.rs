//! The rows in SQLite.

use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::sqlite::rusqlite::{OptionalExtension, params};

use super::BoxError;
use super::change::{Change, Data, Refused, Rows, Work};
use super::job::{Fail, Job, Setting};
use super::kill::Step;

impl Rows for Sqlite {
    async fn row(&self, key: &str) -> Result<Option<i64>, BoxError> {
        let key = key.to_owned();
        let read = self.read(move |connection| {
            connection.prepare_cached("SELECT value FROM rows WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
        });
        Ok(read.await?)
    }
}

impl Data for Sqlite {
    async fn change(work: Work<'_, Sqlite>) -> Result<(), Refused> {
        let Work { op, change: Change { id, token, job }, row, switch } = work;
        switch.reach(Step::InHandler);
        // Both ways of saying it are used: beforehand, and where the rows are written.
        let mut stale = Vec::new();
        for key in job.keys() {
            match job {
                Job::Move(_) => stale.push(row.key(&key)?),
                _ => op.invalidate(&row, &key)?,
            }
        }
        let text = serde_json::to_string(&job)?;
        op.tx().write(move |write| {
            if let Job::Setting(Setting { sql }) = &job {
                write.execute_batch(sql)?;
            }
            for key in job.keys() {
                let before = write.prepare_cached("SELECT value FROM rows WHERE key = ?1")?.query_row([&key], |row| row.get(0));
                let value = job.value_after(&key, before.optional()?);
                write.prepare_cached("INSERT OR REPLACE INTO rows (key, value) VALUES (?1, ?2)")?.execute(params![key, value])?;
                switch.reach(Step::BetweenWrites);
            }
            if matches!(job, Job::Fail(Fail { late: false, .. })) {
                return Err(Refused::AsAsked.into());
            }
            write.prepare_cached("INSERT INTO done (id, token, job) VALUES (?1, ?2, ?3)")?.execute(params![id, token, text])?;
            for key in stale {
                write.add_key(key);
            }
            Ok(())
        });
        Ok(())
    }
}
