//! A server in its process: an engine, its functions, its commands, and whoever reads all the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_commands::nats::{NatsLog, NatsOptions};
use wellspring_commands::redis::{RedisLog, RedisOptions};
use wellspring_commands::{
    Command, Consumers, LocalWakeup, LogId, LogOutbox, LoggedFunctions, Notice, Op, OperationLog, Relay, Server, Sink, Wakeup,
};

use super::backend::{Backend, Stream};
use super::change::{Change, Data, Rows, Work};
use super::hints::{Hinting, Moody};
use super::job::{Add, Fail, GROUPS, Job, Move, Put, ROWS, Setting, every_key, group_key};
use super::kill::{Killing, Switch};
use super::line::{Line, News};
use super::setup::Setup;
use super::{BoxError, Refused};

/// A server with what belongs to it.
#[derive(Debug)]
pub struct Site<S: Data> {
    /// The server.
    pub server: Server<Killing<S>>,
    /// A row.
    pub row: AsyncFunction<String, Option<i64>>,
    /// The sum of a group.
    pub total: AsyncFunction<u32, i64>,
    /// Where it dies.
    pub switch: Switch,
    /// What it follows.
    pub log: Arc<dyn OperationLog>,
    /// The database's own log, if that is another one.
    pub own_log: Arc<dyn OperationLog>,
    _relay: Option<Relay>,
    _readers: JoinSet<()>,
}

/// A stream that is followed.
struct Followed {
    log: Arc<dyn OperationLog>,
    wakeup: Arc<dyn Wakeup>,
    consumers: Shared,
    sink: Arc<dyn Sink>,
}

impl Followed {
    fn new(log: impl OperationLog + Wakeup + Consumers + Sink + Clone) -> Followed {
        let consumers = Shared(Arc::new(log.clone()));
        Followed { log: Arc::new(log.clone()), wakeup: Arc::new(log.clone()), consumers, sink: Arc::new(log) }
    }
}

/// Consumers by reference, for a builder that wants them whole.
#[derive(Debug, Clone)]
struct Shared(Arc<dyn Consumers>);

impl Consumers for Shared {
    fn try_hold<'a>(
        &'a self,
        name: &'a str,
    ) -> wellspring_commands::BoxFuture<'a, Result<Option<Box<dyn wellspring_commands::Hold>>, wellspring_commands::StoreError>> {
        self.0.try_hold(name)
    }

    fn hold<'a>(
        &'a self,
        name: &'a str,
    ) -> wellspring_commands::BoxFuture<'a, Result<Box<dyn wellspring_commands::Hold>, wellspring_commands::StoreError>> {
        self.0.hold(name)
    }
}

async fn followed(id: LogId, stream: &Stream) -> Result<Followed, BoxError> {
    // A relay that died is to be replaced soon.
    let lease = Duration::from_secs(2);
    Ok(match stream {
        Stream::Nats { url, name } => Followed::new(NatsLog::open(NatsOptions { lease, ..NatsOptions::new(url, name) }, id).await?),
        Stream::Redis { url, prefix } => Followed::new(RedisLog::open(RedisOptions { lease, ..RedisOptions::new(url, prefix) }, id).await?),
    })
}

/// Hints as they reach a member.
fn mood(setup: &Setup, wakeup: Arc<dyn Wakeup>) -> Arc<dyn Wakeup> {
    match setup.moody {
        _ if setup.deaf => Arc::new(LocalWakeup::default()),
        Some(seed) => Arc::new(Moody::new(wakeup, seed)),
        None => wakeup,
    }
}

impl<S: Data> Site<S> {
    /// Starts a server.
    ///
    /// # Errors
    /// Whatever does not work.
    pub async fn start(
        store: S,
        rows: impl Rows,
        setup: &Setup,
        backend: &Backend,
        lines: UnboundedSender<Line>,
    ) -> Result<Site<S>, BoxError> {
        let engine = Engine::new();
        let row = engine.async_function("row", move |_: Cx, key: String| read(rows.clone(), key))?;
        let one = row.clone();
        let total = engine.async_function("total", move |cx: Cx, group: u32| {
            let one = one.clone();
            async move {
                let mut sum = 0;
                for row in 0..ROWS {
                    // A fault here is one of the whole read, which is tried again.
                    sum += one.get(&cx, &group_key(group, row)).await.ok().flatten().unwrap_or(0);
                }
                sum
            }
        })?;
        let functions = LoggedFunctions::new(&engine);
        let logged = functions.log(&row)?;
        functions.log(&total)?;
        let switch = Switch::default();
        let own_log = store.log();
        let own_hints: Arc<dyn Wakeup> = Arc::new(Hinting::new(mood(setup, store.wakeup()), switch.clone()));
        let followed = match &backend.stream {
            Some(stream) => Some(followed(own_log.id(), stream).await?),
            None => None,
        };
        let relay = followed.as_ref().filter(|_| setup.relays).map(|followed| {
            let outbox = LogOutbox::new(own_log.clone(), store.consumers(), "relay");
            let relay = Relay::builder(Arc::new(outbox), followed.sink.clone()).wakeup(own_hints.clone());
            relay.check_period(Duration::from_millis(setup.check_ms)).spawn()
        });
        let works = Works { row: logged, switch: switch.clone() };
        let mut builder = Server::builder(&engine, Killing::new(store, switch.clone(), own_hints))
            .functions(&functions)
            .check_every(Duration::from_millis(setup.check_ms))
            .on_notice(move |notice| {
                let news = match notice {
                    Notice::CoverageLost { reason } => News::Lost(reason.clone()),
                    Notice::Poisoned { reason, .. } => News::Poisoned(reason.clone()),
                    other => News::Notice(other.to_string()),
                };
                // Nobody listens any more: the process ends.
                let _ = lines.send(Line::News(news));
            })
            .handler(works.handler(Job::Put as fn(Put) -> Job))
            .handler(works.handler(Job::Add as fn(Add) -> Job))
            .handler(works.handler(Job::Move as fn(Move) -> Job))
            .handler(works.handler(Job::Fail as fn(Fail) -> Job))
            .handler(works.handler(Job::Setting as fn(Setting) -> Job));
        let mut log = own_log.clone();
        if let Some(followed) = followed {
            builder = builder.log(followed.log.clone()).wakeup(mood(setup, followed.wakeup)).consumers(followed.consumers);
            log = followed.log;
        }
        let server = builder.start().await?;
        let mut readers = JoinSet::new();
        if setup.reads {
            readers.spawn(read_on(engine, row.clone(), total.clone()));
        }
        Ok(Site { server, row, total, switch, log, own_log, _relay: relay, _readers: readers })
    }
}

/// Reads a row until the database answers. A failure must not become a cached value: nothing would make it stale.
async fn read(rows: impl Rows, key: String) -> Option<i64> {
    loop {
        match rows.row(&key).await {
            Ok(value) => return value,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Reads at random, without an end, so that there is always something cached.
async fn read_on(engine: Engine, row: AsyncFunction<String, Option<i64>>, total: AsyncFunction<u32, i64>) {
    let keys: Vec<_> = every_key().collect();
    let mut pace = tokio::time::interval(Duration::from_millis(3));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        for _ in 0..4 {
            // What a read comes to is looked at by the checks.
            let _ = row.get(&engine, &keys[fastrand::usize(..keys.len())]).await;
        }
        let _ = total.get(&engine, &fastrand::u32(..GROUPS)).await;
    }
}

/// What handlers are made of.
struct Works {
    row: wellspring_commands::Logged<String>,
    switch: Switch,
}

impl Works {
    fn handler<S, C>(
        &self,
        job: fn(C) -> Job,
    ) -> impl Fn(C, Op<Killing<S>>) -> wellspring_commands::BoxFuture<'static, Result<i64, Refused>> + Send + Sync + 'static
    where
        S: Data,
        C: Command<Output = i64, Error = Refused>,
    {
        let (row, switch) = (self.row.clone(), self.switch.clone());
        move |command, op| {
            let (row, switch) = (row.clone(), switch.clone());
            Box::pin(async move {
                let id = op.call().id().map(ToString::to_string).unwrap_or_default();
                let token = fastrand::i64(..);
                let job = job(command);
                if let Job::Put(Put { bulk, .. }) = &job
                    && *bulk > 0
                {
                    op.set_item("bulk", &"x".repeat(*bulk))?;
                }
                let fails_late = matches!(job, Job::Fail(Fail { late: true, .. }));
                S::change(Work { op: &op, change: Change { id, token, job }, row, switch }).await?;
                if fails_late { Err(Refused::AsAsked) } else { Ok(token) }
            })
        }
    }
}
