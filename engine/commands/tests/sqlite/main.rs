//! The SQLite backend, through the traits that commands use it by.
#![cfg(feature = "sqlite")]

mod commit;
mod consumer;
mod event;
mod fault;
mod log;
mod wakeup;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use wellspring_commands::sqlite::rusqlite::Connection;
use wellspring_commands::sqlite::{Sqlite, SqliteTx};
use wellspring_commands::{
    CommitError, Committed, Cursor, Draft, Entry, LoggedKey, OperationId, OperationLog, Reading, ServerId, Store, StoreErrorKind,
};

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

pub(crate) fn database(folder: &TempDir) -> Sqlite {
    let sqlite = Sqlite::open(folder.path().join("shop.db")).expect("opened");
    table(&sqlite);
    sqlite
}

pub(crate) fn table(sqlite: &Sqlite) {
    let connection = Connection::open(sqlite.path()).expect("a connection");
    connection.busy_timeout(Duration::from_secs(10)).expect("set");
    connection.execute_batch("CREATE TABLE IF NOT EXISTS price (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL)").expect("a table");
}

pub(crate) fn draft() -> Draft {
    Draft::new(OperationId::new(), ServerId::random(), "test")
}

pub(crate) fn of(operation: OperationId) -> Draft {
    Draft::new(operation, ServerId::random(), "test")
}

pub(crate) fn key(n: u32) -> LoggedKey {
    LoggedKey { function: "price".into(), key: Some(n.to_string()) }
}

pub(crate) fn put(tx: &SqliteTx, id: i64) {
    tx.write(move |write| {
        write.execute("INSERT INTO price VALUES (?1, 100)", [id])?;
        Ok(())
    });
}

pub(crate) async fn commit(sqlite: &Sqlite, ids: &[i64]) -> Result<Committed, CommitError> {
    let tx = sqlite.begin().await.expect("begun");
    ids.iter().for_each(|id| put(&tx, *id));
    sqlite.commit(tx, draft()).await
}

pub(crate) async fn prices(sqlite: &Sqlite) -> Vec<i64> {
    sqlite
        .read(|connection| connection.prepare("SELECT id FROM price ORDER BY id")?.query_map([], |row| row.get(0))?.collect())
        .await
        .expect("read")
}

pub(crate) async fn entries(sqlite: &Sqlite, since: &Cursor) -> (Vec<Entry>, Cursor) {
    match read(sqlite, since).await {
        Reading::Entries { entries, cursor, .. } => (entries, cursor),
        Reading::Lost { reason, .. } => panic!("lost: {reason}"),
    }
}

pub(crate) async fn read(sqlite: &Sqlite, since: &Cursor) -> Reading {
    OperationLog::read(sqlite, since, 1000).await.expect("read")
}

pub(crate) async fn start(sqlite: &Sqlite) -> Cursor {
    sqlite.head().await.expect("a head").cursor
}

pub(crate) fn kind(error: &CommitError) -> StoreErrorKind {
    match error {
        CommitError::Failed(error) => error.kind(),
        other => panic!("not failed: {other:?}"),
    }
}

/// Holds the writer in a closure until it is told to go on.
pub(crate) async fn occupy(sqlite: &Sqlite) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<Committed, CommitError>>) {
    let (go, wait) = mpsc::channel();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let tx = sqlite.begin().await.expect("begun");
    tx.write(move |_| {
        started.send(()).expect("a listener");
        wait.recv()?;
        Ok(())
    });
    let sqlite = sqlite.clone();
    let end = tokio::spawn(async move { sqlite.commit(tx, draft()).await });
    has_started.await.expect("started");
    (go, end)
}

/// Queues a commit now, and leaves its end to be awaited.
pub(crate) fn queue(sqlite: &Sqlite, tx: SqliteTx, draft: Draft) -> impl Future<Output = Result<Committed, CommitError>> {
    let sqlite = sqlite.clone();
    let mut commit = Box::pin(async move { sqlite.commit(tx, draft).await });
    let first = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending());
    commit
}

/// A clock in a test's hands.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn back(&self, by: Duration) {
        self.0.fetch_sub(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// A handle that goes by this clock.
    pub(crate) fn open(&self, folder: &TempDir) -> Sqlite {
        let hand = self.clone();
        let clock = move || SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + hand.0.load(Ordering::Relaxed));
        let sqlite = Sqlite::builder(folder.path().join("shop.db")).wall_clock(clock).open().expect("opened");
        table(&sqlite);
        sqlite
    }
}

pub(crate) fn with_clock(folder: &TempDir) -> (Sqlite, Hand) {
    let hand = Hand::default();
    (hand.open(folder), hand)
}
