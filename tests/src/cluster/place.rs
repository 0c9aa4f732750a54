//! Databases to try things on, and their removal.

use super::BoxError;
use super::backend::{Backend, Stream};
use super::database::Database;
use crate::service::service;

/// A new database of a kind, removed when this is dropped or, on a server, with [`remove`](Place::remove).
#[derive(Debug)]
pub struct Place {
    /// Where it is.
    pub backend: Backend,
    _folder: Option<tempfile::TempDir>,
}

fn unique() -> String {
    format!("torture_{}", uuid::Uuid::new_v4().simple())
}

impl Place {
    /// In a file.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn sqlite() -> Result<Place, BoxError> {
        let folder = tempfile::tempdir()?;
        let database = Database::Sqlite(folder.path().join("rows.db"));
        database.prepare().await?;
        Ok(Place { backend: Backend { database, stream: None }, _folder: Some(folder) })
    }

    /// In a schema of its own of the server for tests; none if there is no server.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn postgres() -> Result<Option<Place>, BoxError> {
        let url = service("WELLSPRING_POSTGRES_URL", "postgres://postgres@127.0.0.1/postgres", 5432);
        match url {
            Some(url) => Ok(Some(Place::postgres_at(url).await?)),
            None => Ok(None),
        }
    }

    /// In a schema of its own of a server.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn postgres_at(url: String) -> Result<Place, BoxError> {
        let database = Database::Postgres { url, schema: unique() };
        database.prepare().await?;
        Ok(Place { backend: Backend { database, stream: None }, _folder: None })
    }

    /// With a NATS stream that is followed; none if there is no server.
    pub async fn with_nats(mut self) -> Option<Place> {
        let url = service("WELLSPRING_NATS_URL", "nats://127.0.0.1", 4222)?;
        self.backend.stream = Some(Stream::Nats { url, name: unique() });
        Some(self)
    }

    /// With a Redis stream that is followed; none if there is no server.
    pub async fn with_redis(mut self) -> Option<Place> {
        let url = service("WELLSPRING_REDIS_URL", "redis://127.0.0.1", 6379)?;
        self.backend.stream = Some(Stream::Redis { url, prefix: unique() });
        Some(self)
    }

    /// Removes what is on servers.
    ///
    /// # Errors
    /// If a server does not do it.
    pub async fn remove(self) -> Result<(), BoxError> {
        if let Database::Postgres { schema, .. } = &self.backend.database {
            self.backend.database.execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
        }
        match &self.backend.stream {
            Some(Stream::Nats { url, name }) => {
                let context = async_nats::jetstream::new(async_nats::connect(url).await?);
                context.delete_stream(name).await?;
                // It is there if anybody held a name.
                let _ = context.delete_key_value(format!("{name}-consumers")).await;
            }
            Some(Stream::Redis { url, prefix }) => {
                let mut connection = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
                let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}:*")).query_async(&mut connection).await?;
                if !keys.is_empty() {
                    let _: u64 = redis::cmd("DEL").arg(keys).query_async(&mut connection).await?;
                }
            }
            None => {}
        }
        Ok(())
    }
}
