//! Where the servers of one cluster meet.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wellspring_commands::nats::{NatsLog, NatsOptions};
use wellspring_commands::postgres::Postgres;
use wellspring_commands::redis::{RedisLog, RedisOptions};
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::{LogOutbox, OperationLog, Relay, Sink, Store};

use super::server::{Member, POSTGRES_SCHEMA, POSTGRES_UPSERT, SQLITE_TABLE, SQLITE_UPSERT, start};

/// What a cluster runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Sqlite,
    Postgres,
    Nats,
    Redis,
}

impl Backend {
    pub(super) const ALL: [Backend; 4] = [Backend::Sqlite, Backend::Postgres, Backend::Nats, Backend::Redis];

    pub(super) fn name(self) -> &'static str {
        match self {
            Backend::Sqlite => "sqlite",
            Backend::Postgres => "postgres",
            Backend::Nats => "nats",
            Backend::Redis => "redis",
        }
    }

    /// Where its service is, unless it is a file.
    fn service(self) -> Result<String, String> {
        let (variable, scheme, port) = match self {
            Backend::Sqlite => return Ok(String::new()),
            Backend::Postgres => ("WELLSPRING_POSTGRES_URL", "postgres://postgres@127.0.0.1/postgres", 5432),
            Backend::Nats => ("WELLSPRING_NATS_URL", "nats://127.0.0.1", 4222),
            Backend::Redis => ("WELLSPRING_REDIS_URL", "redis://127.0.0.1", 6379),
        };
        if let Ok(url) = std::env::var(variable) {
            return Ok(url);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(_) => Ok(scheme.to_owned()),
            Err(error) => Err(format!("nothing on {address} ({error}), and {variable} is not set")),
        }
    }
}

/// Where the servers of one cluster meet.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) backend: Backend,
    /// Of the service.
    pub(super) url: String,
    /// The SQLite file.
    pub(super) file: String,
    /// The schema, the stream or the prefix of keys.
    pub(super) name: String,
}

/// A site that exists until it is given up.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) site: Site,
    _folder: TempDir,
}

impl Ground {
    /// A new one, or why there is none.
    pub(super) async fn new(backend: Backend) -> Result<Ground, String> {
        let url = backend.service()?;
        let folder = TempDir::new().map_err(|error| format!("no temporary folder: {error}"))?;
        let file = folder.path().join("bench.db").to_string_lossy().into_owned();
        let site = Site { backend, url, file, name: format!("bench_{}", uuid::Uuid::new_v4().simple()) };
        match backend {
            Backend::Postgres => {
                drop(site.postgres().await?);
                let table = format!("CREATE TABLE {}.bench (key bigint PRIMARY KEY, value bigint NOT NULL)", site.name);
                site.postgres_client().await?.batch_execute(&table).await.map_err(text)?;
            }
            _ => site.sqlite()?.read_blocking(|_| Ok(())).map_err(text)?,
        }
        Ok(Ground { site, _folder: folder })
    }

    /// Leaves nothing on the services.
    pub(super) async fn give_up(self) -> Result<(), String> {
        let Site { backend, url, name, .. } = &self.site;
        match backend {
            Backend::Sqlite => {}
            Backend::Postgres => {
                self.site.postgres_client().await?.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await.map_err(text)?;
            }
            Backend::Nats => {
                let context = async_nats::jetstream::new(async_nats::connect(url).await.map_err(text)?);
                context.delete_stream(name).await.map_err(text)?;
                // The bucket of consumers, which is only there if there were any.
                let _ = context.delete_stream(format!("KV_{name}-consumers")).await;
            }
            Backend::Redis => {
                let client = redis::Client::open(url.as_str()).map_err(text)?;
                let mut connection = client.get_multiplexed_async_connection().await.map_err(text)?;
                let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{name}*")).query_async(&mut connection).await.map_err(text)?;
                for key in keys {
                    let _: i64 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.map_err(text)?;
                }
            }
        }
        Ok(())
    }
}

/// An error as a row's note has it.
pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Site {
    /// As words for a child process.
    pub(super) fn words(&self) -> [&str; 4] {
        [self.backend.name(), &self.url, &self.file, &self.name]
    }

    pub(super) fn from_words(words: &[String]) -> Result<Site, String> {
        let [backend, url, file, name] = words else { return Err("a member is told backend, URL, file and name".to_owned()) };
        let backend = Backend::ALL.into_iter().find(|one| one.name() == backend).ok_or_else(|| format!("no backend `{backend}`"))?;
        Ok(Site { backend, url: url.clone(), file: file.clone(), name: name.clone() })
    }

    pub(super) fn sqlite(&self) -> Result<Sqlite, String> {
        let setup = |connection: &rusqlite::Connection| match connection.is_readonly("main")? {
            true => Ok(()),
            false => connection.execute_batch(SQLITE_TABLE),
        };
        Sqlite::builder(&self.file).on_connect(setup).open().map_err(text)
    }

    pub(super) async fn postgres(&self) -> Result<Postgres, String> {
        Postgres::builder(&self.url).schema(&self.name).connect().await.map_err(text)
    }

    /// A connection without us.
    pub(super) async fn postgres_client(&self) -> Result<tokio_postgres::Client, String> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.map_err(text)?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The statement that writes a row in PostgreSQL.
    pub(super) fn postgres_upsert(&self) -> Arc<str> {
        POSTGRES_UPSERT.replace(POSTGRES_SCHEMA, &self.name).into()
    }

    /// A server of the cluster; the one that relays, if something is to be relayed.
    pub(super) async fn join(&self, relays: bool) -> Result<Member, String> {
        match self.backend {
            Backend::Sqlite => start(self.sqlite()?, SQLITE_UPSERT.into(), |builder| builder).await,
            Backend::Postgres => start(self.postgres().await?, self.postgres_upsert(), |builder| builder).await,
            Backend::Nats => {
                let store = self.sqlite()?;
                let log = Arc::new(NatsLog::open(NatsOptions::new(&self.url, &self.name), store.log().id()).await.map_err(text)?);
                let relay = relays.then(|| relay(&store, log.clone()));
                let member =
                    start(store, SQLITE_UPSERT.into(), |builder| builder.log(log.clone()).wakeup(log.clone()).consumers(log)).await?;
                Ok(Member { relay, ..member })
            }
            Backend::Redis => {
                let store = self.sqlite()?;
                let log = Arc::new(RedisLog::open(RedisOptions::new(&self.url, &self.name), store.log().id()).await.map_err(text)?);
                let relay = relays.then(|| relay(&store, log.clone()));
                let member =
                    start(store, SQLITE_UPSERT.into(), |builder| builder.log(log.clone()).wakeup(log.clone()).consumers(log)).await?;
                Ok(Member { relay, ..member })
            }
        }
    }
}

fn relay(store: &Sqlite, sink: Arc<dyn Sink>) -> Relay {
    let outbox = LogOutbox::new(store.log(), store.consumers(), "bench");
    Relay::builder(Arc::new(outbox), sink).wakeup(store.wakeup()).spawn()
}
