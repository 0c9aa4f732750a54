//! The same rows written without us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio_postgres::{Client, Statement};

use super::server::{SQLITE_TABLE, SQLITE_UPSERT};
use super::site::{Site, text};

/// Keys that one caller writes in turn, which are nobody else's.
pub(super) const KEYS: u64 = 1_000;
/// Rows that the writer by hand commits at once, as ours does.
const GROUP: usize = 128;

/// A key of a caller's own.
pub(super) fn key(caller: usize, turn: u64) -> u64 {
    caller as u64 * KEYS + turn % KEYS
}

fn connect(site: &Site) -> Result<Connection, String> {
    // Beside ours and not in it: two writers of one file would wait for each other.
    let connection = Connection::open(format!("{}.plain", site.file)).map_err(text)?;
    let setup = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000";
    connection.execute_batch(setup).and_then(|()| connection.execute_batch(SQLITE_TABLE)).map_err(text)?;
    Ok(connection)
}

/// SQLite with one connection, each row a transaction.
pub(super) struct OneByOne(Mutex<Connection>);

impl OneByOne {
    pub(super) fn new(site: &Site) -> Result<OneByOne, String> {
        connect(site).map(|connection| OneByOne(Mutex::new(connection)))
    }

    /// Rows a second that so many callers write.
    pub(super) fn rate(&self, callers: usize, time: Duration) -> Result<f64, String> {
        let (rows, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let begun = Instant::now();
        thread::scope(|scope| {
            let call = |caller: usize| {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let step = |sql: &str| connection.prepare_cached(sql)?.execute([]);
                    step("BEGIN IMMEDIATE")?;
                    connection.prepare_cached(SQLITE_UPSERT)?.execute((key(caller, turn).cast_signed(), turn.cast_signed()))?;
                    step("COMMIT")?;
                    drop(connection);
                    rows.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                }
                Ok::<_, rusqlite::Error>(())
            };
            let callers: Vec<_> = (0..callers).map(|caller| scope.spawn(move || call(caller))).collect();
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            callers.into_iter().try_for_each(|caller| caller.join().unwrap_or(Ok(())))
        })
        .map_err(text)?;
        Ok(rows.into_inner() as f64 / begun.elapsed().as_secs_f64())
    }
}

/// SQLite with one thread that commits what has queued up.
pub(super) struct Grouped {
    queue: Option<Sender<(u64, oneshot::Sender<()>)>>,
    writer: Option<JoinHandle<()>>,
}

impl Grouped {
    pub(super) fn new(site: &Site) -> Result<Grouped, String> {
        let connection = connect(site)?;
        let (queue, queued) = channel();
        let writer = thread::spawn(move || {
            // Who is not answered stops the row.
            let _ = write(&connection, &queued);
        });
        Ok(Grouped { queue: Some(queue), writer: Some(writer) })
    }

    /// Writes a row; whether it was.
    pub(super) async fn put(queue: &Sender<(u64, oneshot::Sender<()>)>, key: u64) -> Result<(), String> {
        let (tell, told) = oneshot::channel();
        queue.send((key, tell)).map_err(text)?;
        told.await.map_err(text)
    }

    pub(super) fn queue(&self) -> Result<Sender<(u64, oneshot::Sender<()>)>, String> {
        self.queue.clone().ok_or_else(|| "the writer has ended".to_owned())
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(connection: &Connection, queued: &Receiver<(u64, oneshot::Sender<()>)>) -> rusqlite::Result<()> {
    let step = |sql: &str| connection.prepare_cached(sql)?.execute([]);
    let mut value = 0;
    while let Ok(first) = queued.recv() {
        let mut group = vec![first];
        group.extend(queued.try_iter().take(GROUP - 1));
        step("BEGIN IMMEDIATE")?;
        for (key, _) in &group {
            value += 1;
            connection.prepare_cached(SQLITE_UPSERT)?.execute((key.cast_signed(), value))?;
        }
        step("COMMIT")?;
        for (_, tell) in group {
            let _ = tell.send(());
        }
    }
    Ok(())
}

/// PostgreSQL by prepared statements on as many connections as ours has.
pub(super) struct Pooled {
    connections: Vec<tokio::sync::Mutex<(Client, Statement)>>,
    value: AtomicI64,
}

impl Pooled {
    pub(super) async fn new(site: &Site, connections: usize) -> Result<Arc<Pooled>, String> {
        let mut pooled = Vec::new();
        for _ in 0..connections {
            let client = site.postgres_client().await?;
            let statement = client.prepare(&site.postgres_upsert()).await.map_err(text)?;
            pooled.push(tokio::sync::Mutex::new((client, statement)));
        }
        Ok(Arc::new(Pooled { connections: pooled, value: AtomicI64::new(0) }))
    }

    /// Writes a row in a transaction.
    pub(super) async fn put(&self, caller: usize, key: u64) -> Result<(), String> {
        let connection = self.connections[caller % self.connections.len()].lock().await;
        let (client, statement) = &*connection;
        let value = self.value.fetch_add(1, Ordering::Relaxed);
        let write = async {
            client.batch_execute("BEGIN").await?;
            client.execute(statement, &[&key.cast_signed(), &value]).await?;
            client.batch_execute("COMMIT").await
        };
        write.await.map_err(text)
    }
}
