//! Commands a second, beside the same rows without us.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::plain::{Grouped, OneByOne, Pooled, key};
use super::runtime;
use super::server::Member;
use super::site::{Backend, Ground, text};
use crate::rounds::alternate;
use crate::{Plan, Row, Unit};

/// What PostgreSQL's pool has by default.
const CONNECTIONS: usize = 16;

pub(super) fn rows(name: &str, plan: Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let name = format!("{name}/{}", backend.name());
        rows.extend(measure(&name, plan, backend).unwrap_or_else(|why| vec![Row::skipped(&name, Unit::RATE, "without us", &why)]));
    }
    rows
}

fn measure(name: &str, plan: Plan, backend: Backend) -> Result<Vec<Row>, String> {
    let runtime = runtime()?;
    let ground = runtime.block_on(Ground::new(backend))?;
    let member = runtime.block_on(ground.site.join(true))?;
    let mut rows = Vec::new();
    for callers in [1, 64] {
        let name = format!("{name}/{callers}");
        match backend {
            Backend::Postgres => {
                let plain = runtime.block_on(Pooled::new(&ground.site, CONNECTIONS))?;
                let theirs = || {
                    let plain = plain.clone();
                    rate(&runtime, callers, plan, move |caller, turn| {
                        let plain = plain.clone();
                        async move { plain.put(caller, key(caller, turn)).await }
                    })
                };
                let [ours, theirs] = rounds(plan, [&mut || ours(&runtime, &member, callers, plan), &mut || theirs()])?;
                let settings = runtime.block_on(settings(&ground))?;
                let peer = "BEGIN, prepared upsert, COMMIT";
                rows.push(Row::versus(&name, callers, Unit::RATE, &ours, peer, &theirs).note(settings));
            }
            _ => {
                let one = OneByOne::new(&ground.site)?;
                let grouped = Grouped::new(&ground.site)?;
                let by_hand = || {
                    let queue = grouped.queue()?;
                    rate(&runtime, callers, plan, move |caller, turn| {
                        let queue = queue.clone();
                        async move { Grouped::put(&queue, key(caller, turn)).await }
                    })
                };
                let [ours, theirs, hand] = rounds(
                    plan,
                    [&mut || ours(&runtime, &member, callers, plan), &mut || one.rate(callers, slice(plan)), &mut || by_hand()],
                )?;
                let peer = "a transaction a row, one connection";
                rows.push(Row::versus(&name, callers, Unit::RATE, &ours, peer, &theirs).note("synchronous = FULL on both sides"));
                let peer = "a writer thread by hand, grouping";
                rows.push(Row::versus(&format!("{name}/by-hand"), callers, Unit::RATE, &ours, peer, &hand));
            }
        }
    }
    runtime.block_on(member.leave());
    runtime.block_on(ground.give_up())?;
    Ok(rows)
}

pub(super) fn slice(plan: Plan) -> Duration {
    Duration::from_millis(if plan.quick { 250 } else { 1_000 })
}

/// Sides in alternation; the first failure of any is the failure of all.
pub(super) fn rounds<const SIDES: usize>(
    plan: Plan,
    sides: [&mut dyn FnMut() -> Result<f64, String>; SIDES],
) -> Result<[Vec<f64>; SIDES], String> {
    let failed = RefCell::new(None);
    let mut sides = sides.map(|side| {
        let failed = &failed;
        move || {
            side().unwrap_or_else(|why| {
                failed.borrow_mut().get_or_insert(why);
                f64::NAN
            })
        }
    });
    let figures = alternate(if plan.quick { 3 } else { 7 }, sides.each_mut().map(|side| side as &mut dyn FnMut() -> f64));
    match failed.into_inner() {
        Some(why) => Err(why),
        None => Ok(figures),
    }
}

fn ours(runtime: &Runtime, member: &Member, callers: usize, plan: Plan) -> Result<f64, String> {
    let server = member.server.clone();
    rate(runtime, callers, plan, move |caller, turn| {
        let call = server.put(key(caller, turn), turn.cast_signed(), None);
        async move { call.await.map(drop) }
    })
}

/// How many a second are done by so many callers at a time.
pub(super) fn rate<W, F>(runtime: &Runtime, callers: usize, plan: Plan, work: W) -> Result<f64, String>
where
    W: Fn(usize, u64) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (work, done, stop) = (Arc::new(work), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    runtime.block_on(async {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (work, done, stop) = (work.clone(), done.clone(), stop.clone());
            tasks.spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(caller, turn).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                }
                Ok::<_, String>(())
            });
        }
        tokio::time::sleep(slice(plan)).await;
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(text)??;
        }
        Ok(done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
    })
}

/// What the server was told of the disk.
async fn settings(ground: &Ground) -> Result<String, String> {
    let row = ground.site.postgres_client().await?;
    let row =
        row.query_one("SELECT current_setting('fsync'), current_setting('synchronous_commit'), version()", &[]).await.map_err(text)?;
    let version: String = row.get(2);
    let version = version.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(format!("{version}, fsync {}, synchronous_commit {}", row.get::<_, String>(0), row.get::<_, String>(1)))
}
