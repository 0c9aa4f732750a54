//! The streams, NATS JetStream and Redis, filled by a relay from an outbox in SQLite.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use wellspring_commands::nats::{NatsLog, NatsOptions};
use wellspring_commands::redis::{RedisLog, RedisOptions};
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::{Builder, Consumers, Hints, LogId, LogOutbox, Op, OperationLog, Relay, Sink, Store, Wakeup};
use wellspring_tests::service::service;

use crate::backend::Backend;
use crate::cluster::Refused;
use crate::sqlite::{OnSqlite, get, put};

/// A stream of one test.
pub(crate) trait Stream: Send + Sync + 'static {
    type Log: OperationLog + Wakeup + Consumers + Sink;

    /// A name of its own; `None` if the server is not there.
    fn find() -> Option<Self>
    where
        Self: Sized;

    fn open(&self, id: LogId) -> impl Future<Output = Self::Log> + Send;

    fn remove(self) -> impl Future<Output = ()> + Send;
}

fn unique() -> String {
    format!("conform-{}", uuid::Uuid::new_v4().simple())
}

pub(crate) struct Nats(NatsOptions);

impl Stream for Nats {
    type Log = NatsLog;

    fn find() -> Option<Nats> {
        service("WELLSPRING_NATS_URL", "nats://127.0.0.1", 4222).map(|url| Nats(NatsOptions::new(url, unique())))
    }

    async fn open(&self, id: LogId) -> NatsLog {
        NatsLog::open(self.0.clone(), id).await.expect("opened")
    }

    async fn remove(self) {
        let client = async_nats::connect(&self.0.servers).await.expect("connected");
        let context = async_nats::jetstream::new(client);
        context.delete_stream(&self.0.name).await.expect("deleted");
        // The bucket of consumers, which is only there if there were any.
        let _ = context.delete_stream(format!("KV_{}-consumers", self.0.name)).await;
    }
}

pub(crate) struct Redis(RedisOptions);

impl Stream for Redis {
    type Log = RedisLog;

    fn find() -> Option<Redis> {
        service("WELLSPRING_REDIS_URL", "redis://127.0.0.1", 6379).map(|url| Redis(RedisOptions::new(url, unique())))
    }

    async fn open(&self, id: LogId) -> RedisLog {
        RedisLog::open(self.0.clone(), id).await.expect("opened")
    }

    async fn remove(self) {
        let client = redis::Client::open(self.0.url.as_str()).expect("an address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
        let pattern = format!("{}*", self.0.prefix);
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("listed");
        for key in keys {
            let _: i64 = redis::cmd("DEL").arg(key).query_async(&mut connection).await.expect("deleted");
        }
    }
}

/// Waits for the loss that a relay publishes when it begins: a test that counts losses is to begin after it.
async fn has_begun(sink: &impl Sink, mut hints: Hints) {
    let beginning = async {
        while sink.end(None).await.expect("an end").empty {
            // A hint may be lost, and is not waited for alone.
            let _ = tokio::time::timeout(Duration::from_millis(100), hints.next()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), beginning).await.expect("the relay begins");
}

pub(crate) struct OnStream<S> {
    outbox: OnSqlite,
    stream: S,
    relay: Relay,
}

impl<S: Stream> OnStream<S> {
    async fn log(&self) -> S::Log {
        self.stream.open(self.outbox.store().log().id()).await
    }
}

impl<S: Stream> Backend for OnStream<S> {
    type Store = Sqlite;
    const RELAYED: bool = true;

    async fn create() -> Option<OnStream<S>> {
        let stream = S::find()?;
        let outbox = OnSqlite::new().await;
        let store = outbox.store();
        let sink = Arc::new(stream.open(store.log().id()).await);
        let from = LogOutbox::new(store.log(), store.consumers(), "stream");
        let hints = sink.hints();
        let relay = Relay::builder(Arc::new(from), sink.clone()).wakeup(store.wakeup()).spawn();
        has_begun(&*sink, hints).await;
        Some(OnStream { outbox, stream, relay })
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
        self.stream.remove().await;
    }
}
