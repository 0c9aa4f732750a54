//! How fast a follower applies what is in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wellspring_commands::sqlite::{Durability, Sqlite};
use wellspring_commands::{
    BoxFuture, Cursor, Draft, Head, LogId, LogPosition, LoggedKey, OperationId, OperationLog, Place, Reading, ServerId, Store, StoreError,
};

use super::runtime;
use super::server::{Rows, start};
use super::site::{Backend, Ground, text};
use crate::row::Bar;
use crate::{Plan, Row, Unit};

struct Applied {
    /// Operations a second.
    rate: f64,
    sweeps: u64,
    filled: Duration,
}

/// Keys that one total depends on.
const BLOCK: u64 = 100;

pub(super) fn rows(name: &str, plan: Plan) -> Vec<Row> {
    [Backend::Sqlite, Backend::Postgres].into_iter().map(|backend| row(&format!("{name}/{}", backend.name()), plan, backend)).collect()
}

fn row(name: &str, plan: Plan, backend: Backend) -> Row {
    let peer = "none: it is what a log is for";
    // A quick run fills a shorter log: filling is what takes long.
    let operations = match backend {
        Backend::Postgres if plan.quick => 20_000,
        _ => 200_000,
    };
    match measure(backend, operations) {
        Ok(Applied { rate, sweeps, filled }) => Row::alone(name, 1, Unit::RATE, &[rate], peer)
            .note(format!(
                "{operations} operations, each with a cached key of its own, in {sweeps} sweeps; filled in {:.1} s",
                filled.as_secs_f64()
            ))
            .bar(Bar::AtLeast(20_000.0)),
        Err(why) => Row::skipped(name, Unit::RATE, peer, &why),
    }
}

fn measure(backend: Backend, operations: u64) -> Result<Applied, String> {
    runtime()?.block_on(async {
        let ground = Ground::new(backend).await?;
        let site = &ground.site;
        let figures = match backend {
            Backend::Postgres => {
                // Filling need not reach the disk one by one.
                let config = format!("{}{}options=-c%20synchronous_commit%3Doff", site.url, if site.url.contains('?') { '&' } else { '?' });
                let filling = wellspring_commands::postgres::Postgres::builder(&config).schema(&site.name).connect().await.map_err(text)?;
                follow(site.postgres().await?, site.postgres_upsert(), filling, operations).await?
            }
            _ => {
                let filling = Sqlite::builder(&site.file).durability(Durability::Normal).open().map_err(text)?;
                follow(site.sqlite()?, super::server::SQLITE_UPSERT.into(), filling, operations).await?
            }
        };
        ground.give_up().await?;
        Ok(figures)
    })
}

async fn follow<S: Rows>(store: S, upsert: Arc<str>, filling: S, operations: u64) -> Result<Applied, String> {
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let member = start(store, upsert, move |builder| {
        let log = builder.followed();
        builder.log(Gated { log, open: gate })
    })
    .await?;
    let row = member.row.clone();
    let total = member.engine.function("total", move |cx, block: &u64| {
        (block * BLOCK..(block + 1) * BLOCK).map(|key| row.get(cx, &key)).sum::<Result<u64, _>>().unwrap_or(u64::MAX)
    });
    let total = total.map_err(text)?;
    let compute = || (0..operations / BLOCK).try_for_each(|block| total.get(&member.engine, &block).map(drop));
    compute().map_err(text)?;

    let begun = Instant::now();
    let last = fill(Arc::new(filling), operations).await?;
    let filled = begun.elapsed();

    let computed = member.computed.load(Ordering::Relaxed);
    let begun = Instant::now();
    open.store(true, Ordering::Release);
    for position in last {
        member.server.wait_for(position).await?;
    }
    let took = begun.elapsed();
    compute().map_err(text)?;
    let again = member.computed.load(Ordering::Relaxed) - computed;
    let stats = member.server.stats();
    // One by one, and not all of them at once because something was lost.
    if again != operations || stats.applied_from_log != operations || stats.coverage_lost > 0 {
        return Err(format!("{again} values of {operations} had become stale: {stats:?}"));
    }
    member.leave().await;
    Ok(Applied { rate: operations as f64 / took.as_secs_f64(), sweeps: stats.sweeps, filled })
}

/// Commits so many operations, many at a time; where the last of each committer are.
async fn fill<S: Store>(store: Arc<S>, operations: u64) -> Result<Vec<LogPosition>, String> {
    const AT_ONCE: u64 = 256;
    let origin = ServerId::random();
    let mut committers = JoinSet::new();
    for first in 0..AT_ONCE {
        let store = store.clone();
        committers.spawn(async move {
            let mut last = None;
            for key in (first..operations).step_by(AT_ONCE as usize) {
                let mut draft = Draft::new(OperationId::new(), origin, "Put");
                draft.add_key(LoggedKey { function: "row".to_owned(), key: Some(key.to_string()) });
                let tx = store.begin().await.map_err(text)?;
                last = Some(store.commit(tx, draft).await.map_err(|error| format!("{error:?}"))?.position);
            }
            Ok::<_, String>(last)
        });
    }
    let mut positions = Vec::new();
    while let Some(ended) = committers.join_next().await {
        positions.extend(ended.map_err(text)??);
    }
    Ok(positions)
}

/// A log in which nothing can be read until it is opened.
#[derive(Debug)]
struct Gated {
    log: Arc<dyn OperationLog>,
    open: Arc<AtomicBool>,
}

impl OperationLog for Gated {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        self.log.head()
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        if self.open.load(Ordering::Acquire) {
            return self.log.read(since, most);
        }
        let nothing = Reading::Entries { entries: Vec::new(), cursor: since.clone(), horizon: Place::default(), more: false };
        Box::pin(std::future::ready(Ok(nothing)))
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.log.trim(keep)
    }
}
