//! NATS JetStream, filled by a relay from an outbox in SQLite.

use std::sync::Arc;
use std::time::Duration;

use wellspring_commands::nats::{NatsLog, NatsOptions};
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::{Builder, LogOutbox, Op, OperationLog, Relay, Store};

use crate::backend::{Backend, service};
use crate::cluster::Refused;
use crate::sqlite::{OnSqlite, get, put};

pub(crate) struct OnNats {
    outbox: OnSqlite,
    options: NatsOptions,
    relay: Relay,
}

impl OnNats {
    async fn log(&self) -> NatsLog {
        NatsLog::open(self.options.clone(), self.outbox.store().log().id()).await.expect("opened")
    }
}

impl Backend for OnNats {
    type Store = Sqlite;
    const RELAYED: bool = true;

    async fn create() -> Option<OnNats> {
        let url = service("WELLSPRING_NATS_URL", "nats://", 4222)?;
        let options = NatsOptions::new(url, format!("conform-{}", uuid::Uuid::new_v4().simple()));
        let outbox = OnSqlite::new().await;
        let store = outbox.store();
        let sink = NatsLog::open(options.clone(), store.log().id()).await.expect("opened");
        let from = LogOutbox::new(store.log(), store.consumers(), "nats");
        let relay = Relay::builder(Arc::new(from), Arc::new(sink)).wakeup(store.wakeup()).spawn();
        Some(OnNats { outbox, options, relay })
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
        let client = async_nats::connect(&self.options.servers).await.expect("connected");
        let context = async_nats::jetstream::new(client);
        for stream in [self.options.name.clone(), format!("KV_{}", self.options.name)] {
            let _ = context.delete_stream(stream).await;
        }
    }
}
