//! Redis Streams, filled by a relay from an outbox in SQLite.

use std::sync::Arc;
use std::time::Duration;

use wellspring_commands::redis::{RedisLog, RedisOptions};
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::{Builder, LogOutbox, Op, OperationLog, Relay, Store};

use crate::backend::{Backend, service};
use crate::cluster::Refused;
use crate::sqlite::{OnSqlite, get, put};

pub(crate) struct OnRedis {
    outbox: OnSqlite,
    options: RedisOptions,
    relay: Relay,
}

impl OnRedis {
    async fn log(&self) -> RedisLog {
        RedisLog::open(self.options.clone(), self.outbox.store().log().id()).await.expect("opened")
    }
}

impl Backend for OnRedis {
    type Store = Sqlite;
    const RELAYED: bool = true;

    async fn create() -> Option<OnRedis> {
        let url = service("WELLSPRING_REDIS_URL", "redis://", 6379)?;
        let options = RedisOptions::new(url, format!("conform-{}", uuid::Uuid::new_v4().simple()));
        let outbox = OnSqlite::new().await;
        let store = outbox.store();
        let sink = RedisLog::open(options.clone(), store.log().id()).await.expect("opened");
        let from = LogOutbox::new(store.log(), store.consumers(), "redis");
        let relay = Relay::builder(Arc::new(from), Arc::new(sink)).wakeup(store.wakeup()).spawn();
        Some(OnRedis { outbox, options, relay })
    }

    async fn open(&self) -> Sqlite {
        self.outbox.store()
    }

    async fn follow(&self, builder: Builder<Sqlite>) -> Builder<Sqlite> {
        let log = Arc::new(self.log().await);
        builder.log(log.clone()).wakeup(log.clone()).consumers(log)
    }

    async fn put(op: &Op<Sqlite>, key: String, value: String) -> Result<(), Refused> {
        put(op, key, value);
        Ok(())
    }

    async fn get(store: &Sqlite, key: &str) -> Option<String> {
        get(store, key).await
    }

    async fn append_raw(&self, body: &str) {
        self.outbox.append_raw(body).await;
    }

    async fn trim(&self) {
        self.log().await.trim(Duration::ZERO).await.expect("trimmed");
    }

    async fn end(self) {
        self.relay.stop().await;
        let client = redis::Client::open(self.options.url.as_str()).expect("an address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{}*", self.options.prefix)).query_async(&mut connection).await.expect("listed");
        for key in keys {
            let _: i64 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.expect("deleted");
        }
    }
}
