//! How fast a relay fills a stream, beside the same messages sent without us.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use wellspring_commands::nats::{NatsLog, NatsOptions};
use wellspring_commands::redis::{RedisLog, RedisOptions};
use wellspring_commands::{
    BoxFuture, Entry, LocalWakeup, LogId, Message, OperationId, OperationLog, Outbox, OutboxHold, Outgoing, Place, Reading, Relay, Sent,
    ServerId, Sink, StoreError, Wakeup,
};

use super::commands::rounds;
use super::runtime;
use super::site::{Backend, Ground, Site, text};
use crate::rounds::median;
use crate::{Plan, Row, Unit};

/// Operations that a relay takes from its outbox at once, by default.
const BATCH: usize = 1024;

/// Operations in a message: by default, and as many messages as there can be.
const PER_MESSAGE: [usize; 2] = [64, 1];

pub(super) fn nats(name: &str, plan: Plan) -> Vec<Row> {
    rows(name, plan, Backend::Nats, "bare JetStream publish")
}

pub(super) fn redis(name: &str, plan: Plan) -> Vec<Row> {
    rows(name, plan, Backend::Redis, "bare XADD")
}

fn rows(name: &str, plan: Plan, backend: Backend, peer: &str) -> Vec<Row> {
    let row = |per_message: usize| {
        let name = format!("{name}/{per_message}");
        let peer = format!("{peer} of the same messages, {} at a time", BATCH / per_message);
        measure(&name, plan, backend, per_message, &peer).unwrap_or_else(|why| Row::skipped(&name, Unit::RATE, &peer, &why))
    };
    PER_MESSAGE.map(row).into()
}

fn measure(name: &str, plan: Plan, backend: Backend, per_message: usize, peer: &str) -> Result<Row, String> {
    // Messages cost, not operations.
    let operations = if per_message == 1 { 10_240 } else { 102_400 } / if plan.quick { 5 } else { 1 };
    let runtime = runtime()?;
    let ground = runtime.block_on(Ground::new(backend))?;
    let id = LogId::random();
    let shelf = Arc::new(Shelf::new(id));
    let (log, sink) = runtime.block_on(open(&ground.site, id))?;
    let mut bare = runtime.block_on(Bare::new(&ground.site))?;
    let relay = runtime
        .block_on(async { Relay::builder(shelf.clone(), sink).wakeup(shelf.wakeup.clone()).batch(BATCH).per_message(per_message).spawn() });
    let read = RefCell::new(Vec::new());
    let [ours, theirs] = rounds(
        plan,
        [
            &mut || {
                runtime.block_on(async {
                    let (before, entries) = (log.head().await.map_err(text)?.cursor, shelf.make(operations));
                    let begun = Instant::now();
                    shelf.send(entries).await?;
                    let sent = begun.elapsed();
                    let begun = Instant::now();
                    read_back(&*log, before, operations).await?;
                    read.borrow_mut().push(operations as f64 / begun.elapsed().as_secs_f64());
                    Ok(operations as f64 / sent.as_secs_f64())
                })
            },
            &mut || {
                runtime.block_on(async {
                    let entries = shelf.make(operations);
                    let message = |entries: &[Entry]| {
                        let horizon = entries.last().map_or_else(Place::default, |last| Place::new(last.place.major + 1, 0));
                        Message { log: id, entries: entries.to_vec(), horizon, lost: None }.to_json()
                    };
                    let messages: Vec<_> = entries.chunks(per_message).map(message).collect();
                    let begun = Instant::now();
                    for some in messages.chunks(BATCH / per_message) {
                        bare.send(some).await?;
                    }
                    Ok(operations as f64 / begun.elapsed().as_secs_f64())
                })
            },
        ],
    )?;
    let stats = relay.stats();
    runtime.block_on(relay.stop());
    runtime.block_on(bare.give_up())?;
    drop(log);
    runtime.block_on(ground.give_up())?;
    if stats.losses > 0 || stats.retries > 0 {
        return Err(format!("something went wrong: {stats:?}"));
    }
    Ok(Row::versus(name, 1, Unit::RATE, &ours, peer, &theirs)
        .note(format!("operations, {per_message} in a message, from an outbox in memory"))
        .note(format!("read back by a follower at {:.0} /s", median(&read.into_inner()))))
}

async fn open(site: &Site, id: LogId) -> Result<(Arc<dyn OperationLog>, Arc<dyn Sink>), String> {
    match site.backend {
        Backend::Nats => {
            let log = Arc::new(NatsLog::open(NatsOptions::new(&site.url, &site.name), id).await.map_err(text)?);
            Ok((log.clone(), log))
        }
        Backend::Redis => {
            let log = Arc::new(RedisLog::open(RedisOptions::new(&site.url, &site.name), id).await.map_err(text)?);
            Ok((log.clone(), log))
        }
        Backend::Sqlite | Backend::Postgres => Err("nothing is relayed to a database".to_owned()),
    }
}

async fn read_back(log: &dyn OperationLog, mut cursor: wellspring_commands::Cursor, operations: usize) -> Result<(), String> {
    let mut count = 0;
    loop {
        match log.read(&cursor, BATCH).await.map_err(text)? {
            Reading::Entries { entries, cursor: next, more, .. } => {
                count += entries.len();
                cursor = next;
                if !more {
                    break;
                }
            }
            Reading::Lost { reason, .. } => return Err(reason),
        }
    }
    if count == operations { Ok(()) } else { Err(format!("{count} of {operations} operations were read back")) }
}

/// A stream of the same kind that nobody but the bench writes to.
enum Bare {
    Nats { context: async_nats::jetstream::Context, name: String },
    Redis { connection: redis::aio::MultiplexedConnection, key: String },
}

impl Bare {
    async fn new(site: &Site) -> Result<Bare, String> {
        let name = format!("{}-bare", site.name);
        match site.backend {
            Backend::Nats => {
                let context = async_nats::jetstream::new(async_nats::connect(&site.url).await.map_err(text)?);
                let config = async_nats::jetstream::stream::Config {
                    name: name.clone(),
                    subjects: vec![name.clone()],
                    allow_direct: true,
                    ..Default::default()
                };
                context.create_stream(config).await.map_err(text)?;
                Ok(Bare::Nats { context, name })
            }
            _ => {
                let client = redis::Client::open(site.url.as_str()).map_err(text)?;
                Ok(Bare::Redis { connection: client.get_multiplexed_async_connection().await.map_err(text)?, key: name })
            }
        }
    }

    /// All of them before the first is waited for.
    async fn send(&mut self, messages: &[String]) -> Result<(), String> {
        match self {
            Bare::Nats { context, name } => {
                let mut sent = Vec::with_capacity(messages.len());
                for message in messages {
                    sent.push(context.publish(name.clone(), message.clone().into()).await.map_err(text)?);
                }
                for acknowledged in sent {
                    acknowledged.await.map_err(text)?;
                }
            }
            Bare::Redis { connection, key } => {
                let mut pipe = redis::pipe();
                for message in messages {
                    pipe.cmd("XADD").arg(&*key).arg("*").arg("m").arg(message).ignore();
                }
                pipe.query_async::<()>(connection).await.map_err(text)?;
            }
        }
        Ok(())
    }

    async fn give_up(self) -> Result<(), String> {
        match self {
            Bare::Nats { context, name } => context.delete_stream(name).await.map(drop).map_err(text),
            // Its key begins as all of the site's do.
            Bare::Redis { .. } => Ok(()),
        }
    }
}

/// An outbox in memory of one relay.
#[derive(Debug)]
struct Shelf {
    id: LogId,
    rows: Arc<Rows>,
    wakeup: Arc<LocalWakeup>,
    made: Mutex<u64>,
}

#[derive(Debug)]
struct Rows {
    unsent: Mutex<Unsent>,
    /// How many were ever sent.
    sent: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Unsent {
    entries: VecDeque<Entry>,
    given: usize,
    horizon: Place,
    told: Option<Sent>,
}

impl Shelf {
    fn new(id: LogId) -> Shelf {
        let rows = Arc::new(Rows { unsent: Mutex::default(), sent: watch::Sender::new(0) });
        Shelf { id, rows, wakeup: Arc::default(), made: Mutex::new(0) }
    }

    fn make(&self, count: usize) -> Vec<Entry> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = ServerId::random();
        let make = |_| {
            *made += 1;
            let body = format!("{{\"c\":\"Put\",\"k\":[{{\"f\":\"row\",\"k\":\"{made}\"}}]}}");
            Entry { place: Place::new(*made, 0), operation: OperationId::new(), origin, body }
        };
        (0..count).map(make).collect()
    }

    /// Until the relay has sent them.
    async fn send(&self, entries: Vec<Entry>) -> Result<(), String> {
        let mut sent = self.rows.sent.subscribe();
        let all = *sent.borrow_and_update() + entries.len();
        self.rows.unsent().entries.extend(entries);
        self.wakeup.notify();
        sent.wait_for(|sent| *sent >= all).await.map(drop).map_err(text)
    }
}

impl Rows {
    fn unsent(&self) -> std::sync::MutexGuard<'_, Unsent> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox for Shelf {
    fn id(&self) -> LogId {
        self.id
    }

    fn hold(&self) -> BoxFuture<'_, Result<Box<dyn OutboxHold>, StoreError>> {
        Box::pin(std::future::ready(Ok(Box::new(Held(self.rows.clone())) as Box<dyn OutboxHold>)))
    }
}

#[derive(Debug)]
struct Held(Arc<Rows>);

impl OutboxHold for Held {
    fn last_sent(&self) -> BoxFuture<'_, Result<Option<Sent>, StoreError>> {
        Box::pin(async move { Ok(self.0.unsent().told.clone()) })
    }

    fn unsent(&self, most: usize) -> BoxFuture<'_, Result<Outgoing, StoreError>> {
        Box::pin(async move {
            let mut unsent = self.0.unsent();
            let entries: Vec<_> = unsent.entries.iter().take(most).cloned().collect();
            unsent.given = entries.len();
            if let Some(last) = entries.last() {
                unsent.horizon = Place::new(last.place.major + 1, 0);
            }
            Ok(Outgoing::Entries { more: unsent.given < unsent.entries.len(), horizon: unsent.horizon, entries })
        })
    }

    fn sent<'a>(&'a self, sent: &'a Sent) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut unsent = self.0.unsent();
            let given = std::mem::take(&mut unsent.given);
            unsent.entries.drain(..given);
            unsent.told = Some(sent.clone());
            drop(unsent);
            self.0.sent.send_modify(|sent| *sent += given);
            Ok(())
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
