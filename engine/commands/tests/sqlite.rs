//! The SQLite backend as a store: commits, groups of them, and what goes wrong with them.
#![cfg(feature = "sqlite")]

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use wellspring_commands::sqlite::rusqlite::{self, Connection};
use wellspring_commands::sqlite::{ClosurePanicked, Sqlite, SqliteTx};
use wellspring_commands::{
    CommandId, CommitError, Committed, Cursor, Doubt, Draft, Entry, LogPosition, LoggedKey, NewEvent, NewJournalEntry, OperationId,
    OperationLog, Place, Reading, ServerId, Store, StoreErrorKind, Verdict,
};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn database(folder: &TempDir) -> Sqlite {
    let sqlite = Sqlite::open(folder.path().join("shop.db")).expect("opened");
    table(&sqlite);
    sqlite
}

fn table(sqlite: &Sqlite) {
    let connection = Connection::open(sqlite.path()).expect("a connection");
    connection.busy_timeout(Duration::from_secs(10)).expect("set");
    connection.execute_batch("CREATE TABLE IF NOT EXISTS price (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL)").expect("a table");
}

fn draft() -> Draft {
    Draft::new(OperationId::new(), ServerId::random(), "test")
}

fn of(operation: OperationId) -> Draft {
    Draft::new(operation, ServerId::random(), "test")
}

fn key(n: u32) -> LoggedKey {
    LoggedKey { function: "price".into(), key: Some(n.to_string()) }
}

fn put(tx: &SqliteTx, id: i64) {
    tx.write(move |write| {
        write.execute("INSERT INTO price VALUES (?1, 100)", [id])?;
        Ok(())
    });
}

async fn commit(sqlite: &Sqlite, ids: &[i64]) -> Result<Committed, CommitError> {
    let tx = sqlite.begin().await.expect("begun");
    ids.iter().for_each(|id| put(&tx, *id));
    sqlite.commit(tx, draft()).await
}

async fn prices(sqlite: &Sqlite) -> Vec<i64> {
    sqlite
        .read(|connection| connection.prepare("SELECT id FROM price ORDER BY id")?.query_map([], |row| row.get(0))?.collect())
        .await
        .expect("read")
}

async fn entries(sqlite: &Sqlite, since: &Cursor) -> (Vec<Entry>, Cursor) {
    match sqlite.read_log(since).await {
        Reading::Entries { entries, cursor, .. } => (entries, cursor),
        Reading::Lost { reason } => panic!("lost: {reason}"),
    }
}

trait ReadLog {
    async fn read_log(&self, since: &Cursor) -> Reading;
    async fn start(&self) -> Cursor;
}

impl ReadLog for Sqlite {
    async fn read_log(&self, since: &Cursor) -> Reading {
        OperationLog::read(self, since, 1000).await.expect("read")
    }

    async fn start(&self) -> Cursor {
        self.head().await.expect("a head").cursor
    }
}

fn kind(error: &CommitError) -> StoreErrorKind {
    match error {
        CommitError::Failed(error) => error.kind(),
        other => panic!("not failed: {other:?}"),
    }
}

/// Holds the writer in a closure until it is told to go on.
async fn occupy(sqlite: &Sqlite) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<Committed, CommitError>>) {
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
fn queue(sqlite: &Sqlite, tx: SqliteTx, draft: Draft) -> impl Future<Output = Result<Committed, CommitError>> {
    let sqlite = sqlite.clone();
    let mut commit = Box::pin(async move { sqlite.commit(tx, draft).await });
    let first = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending());
    commit
}

#[tokio::test]
async fn a_commit_writes_the_rows_and_the_operation_in_one_transaction() {
    let folder = folder();
    let sqlite = database(&folder);
    let start = sqlite.start().await;
    let tx = sqlite.begin().await.expect("begun");
    put(&tx, 1);
    tx.write(|write| {
        let cents: i64 = write.query_row("SELECT cents FROM price WHERE id = 1", [], |row| row.get(0))?;
        assert_eq!(cents, 100);
        write.add_key(key(1));
        write.draft().items.set("cents", &cents)?;
        Ok(())
    });
    assert_eq!(prices(&sqlite).await, [0; 0]);
    let mut draft = draft();
    draft.add_key(key(2));
    let (operation, origin) = (draft.operation, draft.origin);
    let committed = sqlite.commit(tx, draft).await.expect("committed");
    assert_eq!(committed.keys, [key(2), key(1)]);
    assert_eq!(committed.position.log, OperationLog::id(&sqlite));
    assert_eq!(prices(&sqlite).await, [1]);
    let (entries, _) = entries(&sqlite, &start).await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!((entry.place, entry.operation, entry.origin), (committed.position.place, operation, origin));
    let body: wellspring_commands::Body = serde_json::from_str(&entry.body).expect("a body");
    assert_eq!((body.keys, body.items.get("cents").expect("json")), (vec![key(2), key(1)], Some(100)));
}

#[tokio::test]
async fn what_is_not_committed_never_touches_the_database() {
    let folder = folder();
    let sqlite = database(&folder);
    let start = sqlite.start().await;
    let tx = sqlite.begin().await.expect("begun");
    put(&tx, 1);
    drop(tx);
    assert_eq!(prices(&sqlite).await, [0; 0]);
    assert_eq!(entries(&sqlite, &start).await.0, []);
}

#[tokio::test]
async fn operations_that_come_during_a_commit_are_committed_together() {
    let folder = folder();
    let sqlite = database(&folder);
    let (go, first) = occupy(&sqlite).await;
    let before = sqlite.transactions();
    let mut commits = Vec::new();
    for id in 0..100 {
        let tx = sqlite.begin().await.expect("begun");
        put(&tx, id);
        commits.push(queue(&sqlite, tx, draft()));
    }
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    let mut places = Vec::new();
    for commit in commits {
        places.push(commit.await.expect("committed").position.place);
    }
    assert!(places.is_sorted());
    assert_eq!(prices(&sqlite).await.len(), 100);
    assert_eq!(sqlite.transactions() - before, 2);
}

#[tokio::test]
async fn an_operation_that_fails_in_a_group_leaves_the_others() {
    let folder = folder();
    let sqlite = database(&folder);
    let start = sqlite.start().await;
    let (go, first) = occupy(&sqlite).await;
    let tx = sqlite.begin().await.expect("begun");
    put(&tx, 1);
    let good = queue(&sqlite, tx, draft());
    let tx = sqlite.begin().await.expect("begun");
    put(&tx, 2);
    put(&tx, 1);
    put(&tx, 3);
    let bad = queue(&sqlite, tx, draft());
    let tx = sqlite.begin().await.expect("begun");
    put(&tx, 4);
    let after = queue(&sqlite, tx, draft());
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    good.await.expect("committed");
    match bad.await {
        Err(CommitError::Refused(error)) => {
            let error = error.downcast::<rusqlite::Error>().expect("an error of the database's");
            assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::ConstraintViolation));
        }
        other => panic!("{other:?}"),
    }
    after.await.expect("committed");
    assert_eq!(prices(&sqlite).await, [1, 4]);
    assert_eq!(entries(&sqlite, &start).await.0.len(), 3);
}

#[tokio::test]
async fn a_closure_that_panics_rolls_back_its_operation_only() {
    let folder = folder();
    let sqlite = database(&folder);
    let tx = sqlite.begin().await.expect("begun");
    put(&tx, 1);
    tx.write(|_| panic!("out of stock"));
    match sqlite.commit(tx, draft()).await {
        Err(CommitError::Refused(error)) => {
            let panicked = error.downcast::<ClosurePanicked>().expect("a panic");
            assert_eq!(panicked.message, "out of stock");
        }
        other => panic!("{other:?}"),
    }
    commit(&sqlite, &[2]).await.expect("committed");
    assert_eq!(prices(&sqlite).await, [2]);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test]
async fn what_a_skipped_closure_holds_may_panic_when_it_is_dropped() {
    let folder = folder();
    let sqlite = database(&folder);
    let (go, first) = occupy(&sqlite).await;
    let tx = sqlite.begin().await.expect("begun");
    put(&tx, 1);
    let good = queue(&sqlite, tx, draft());
    let tx = sqlite.begin().await.expect("begun");
    tx.write(|_| Err("no".into()));
    let held = PanicsWhenDropped;
    tx.write(move |_| {
        let _held = &held;
        Ok(())
    });
    let bad = queue(&sqlite, tx, draft());
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    good.await.expect("committed");
    assert!(matches!(bad.await, Err(CommitError::Refused(_))));
}

#[tokio::test]
async fn a_closure_cannot_end_the_transaction_it_runs_in() {
    let folder = folder();
    let sqlite = database(&folder);
    for sql in ["COMMIT", "ROLLBACK", "END", "ROLLBACK TO wellspring_operation", "RELEASE wellspring_operation", "BEGIN"] {
        let (go, first) = occupy(&sqlite).await;
        let tx = sqlite.begin().await.expect("begun");
        put(&tx, 1);
        tx.write(move |write| Ok(write.execute_batch(sql)?));
        let bad = queue(&sqlite, tx, draft());
        go.send(()).expect("waiting");
        first.await.expect("no panic").expect("committed");
        assert!(matches!(bad.await, Err(CommitError::Refused(_))), "{sql}");
        assert_eq!(prices(&sqlite).await, [0; 0], "{sql}");
    }
    commit(&sqlite, &[2]).await.expect("committed");
}

#[tokio::test]
async fn a_closure_may_use_savepoints_of_its_own() {
    let folder = folder();
    let sqlite = database(&folder);
    let tx = sqlite.begin().await.expect("begun");
    tx.write(|write| {
        write.execute_batch(
            "INSERT INTO price VALUES (1, 1); SAVEPOINT mine; INSERT INTO price VALUES (2, 2); ROLLBACK TO mine; RELEASE mine;
             SAVEPOINT left_open; INSERT INTO price VALUES (3, 3)",
        )?;
        Ok(())
    });
    sqlite.commit(tx, draft()).await.expect("committed");
    assert_eq!(prices(&sqlite).await, [1, 3]);
}

#[tokio::test]
async fn a_foreign_key_that_is_checked_at_commit_is_blamed_on_the_right_operation_in_the_end() {
    let folder = folder();
    let sqlite = database(&folder);
    let tx = sqlite.begin().await.expect("begun");
    tx.write(|write| {
        let sql = "CREATE TABLE line (price INTEGER REFERENCES price (id) DEFERRABLE INITIALLY DEFERRED)";
        Ok(write.execute_batch(sql)?)
    });
    sqlite.commit(tx, draft()).await.expect("committed");
    let bad = || {
        let tx = SqliteTx::default();
        tx.write(|write| Ok(write.execute_batch("INSERT INTO line VALUES (77)")?));
        tx
    };
    let good = || {
        let tx = SqliteTx::default();
        put(&tx, 1);
        tx
    };
    let (go, first) = occupy(&sqlite).await;
    let (one, other) = (queue(&sqlite, good(), draft()), queue(&sqlite, bad(), draft()));
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    assert_eq!(kind(&one.await.expect_err("rolled back")), StoreErrorKind::Conflict);
    assert_eq!(kind(&other.await.expect_err("rolled back")), StoreErrorKind::Conflict);
    let (go, first) = occupy(&sqlite).await;
    let (one, other) = (queue(&sqlite, good(), draft()), queue(&sqlite, bad(), draft()));
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    one.await.expect("committed");
    assert_eq!(kind(&other.await.expect_err("rolled back")), StoreErrorKind::Constraint);
    assert_eq!(prices(&sqlite).await, [1]);
}

#[tokio::test]
async fn a_repeated_operation_and_a_repeated_command_are_refused_before_their_closures_run() {
    let folder = folder();
    let sqlite = database(&folder);
    let id = CommandId::new("order-1").expect("an id");
    assert_eq!(sqlite.journaled(&id).await.expect("read"), None);
    let entry = NewJournalEntry { id: id.clone(), command: "order".into(), digest: u128::MAX - 1, result: "7".into() };
    let with = |operation| {
        let mut draft = of(operation);
        draft.journal = Some(entry.clone());
        draft
    };
    let operation = OperationId::new();
    let tx = SqliteTx::default();
    put(&tx, 1);
    let committed = sqlite.commit(tx, with(operation)).await.expect("committed");
    let found = sqlite.journaled(&id).await.expect("read").expect("journaled");
    assert_eq!((found.command.as_str(), found.digest, found.result.as_str()), ("order", u128::MAX - 1, "7"));
    assert_eq!(found.position, committed.position);
    for draft in [with(OperationId::new()), of(operation)] {
        let tx = SqliteTx::default();
        put(&tx, 1);
        put(&tx, 2);
        assert!(matches!(sqlite.commit(tx, draft).await, Err(CommitError::Repeated)));
    }
    assert_eq!(prices(&sqlite).await, [1]);
}

#[tokio::test]
async fn of_two_repeats_in_one_group_the_second_is_refused() {
    let folder = folder();
    let sqlite = database(&folder);
    let (go, first) = occupy(&sqlite).await;
    let operation = OperationId::new();
    let one = queue(&sqlite, SqliteTx::default(), of(operation));
    let other = queue(&sqlite, SqliteTx::default(), of(operation));
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    one.await.expect("committed");
    assert!(matches!(other.await, Err(CommitError::Repeated)));
}

#[tokio::test]
async fn a_commit_whose_future_was_dropped_happens_and_is_seen() {
    let folder = folder();
    let sqlite = database(&folder);
    let start = sqlite.start().await;
    let (go, first) = occupy(&sqlite).await;
    let tx = SqliteTx::default();
    put(&tx, 1);
    drop(queue(&sqlite, tx, draft()));
    // One that was never polled has not begun.
    let tx = SqliteTx::default();
    put(&tx, 2);
    drop(sqlite.commit(tx, draft()));
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    commit(&sqlite, &[3]).await.expect("committed");
    assert_eq!(prices(&sqlite).await, [1, 3]);
    assert_eq!(entries(&sqlite, &start).await.0.len(), 3);
}

#[tokio::test]
async fn dropping_the_last_handle_commits_what_is_queued() {
    let folder = folder();
    let sqlite = database(&folder);
    let path = sqlite.path().to_owned();
    let (go, first) = occupy(&sqlite).await;
    let tx = SqliteTx::default();
    put(&tx, 1);
    drop(queue(&sqlite, tx, draft()));
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    drop(sqlite);
    let connection = Connection::open(&path).expect("opened");
    let count: i64 = connection.query_row("SELECT count(*) FROM price", [], |row| row.get(0)).expect("read");
    assert_eq!(count, 1);
}

#[tokio::test]
async fn the_last_handle_may_go_in_a_closure_of_its_own_writer() {
    let folder = folder();
    let sqlite = database(&folder);
    let (ended, has_ended) = mpsc::channel::<()>();
    let tx = SqliteTx::default();
    let (go, wait) = mpsc::channel::<()>();
    let inner = sqlite.clone();
    tx.write(move |_| {
        wait.recv()?;
        drop(inner);
        drop(ended);
        Ok(())
    });
    drop(queue(&sqlite, tx, draft()));
    drop(sqlite);
    go.send(()).expect("waiting");
    let end = tokio::task::spawn_blocking(move || has_ended.recv_timeout(Duration::from_secs(20))).await.expect("no panic");
    assert_eq!(end, Err(mpsc::RecvTimeoutError::Disconnected));
}

#[tokio::test]
async fn two_handles_on_one_file_share_one_log() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    assert_eq!(OperationLog::id(&one), OperationLog::id(&other));
    let start = other.start().await;
    let first = commit(&one, &[1]).await.expect("committed");
    let second = commit(&other, &[2]).await.expect("committed");
    let (seen, cursor) = entries(&other, &start).await;
    assert_eq!(seen.iter().map(|entry| entry.place).collect::<Vec<_>>(), [first.position.place, second.position.place]);
    assert_eq!(entries(&one, &start).await, (seen, cursor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_handles_write_at_once_and_nothing_is_lost_or_doubled() {
    let folder = folder();
    let first = database(&folder);
    let start = first.start().await;
    let handles: Vec<_> = (0..4).map(|_| Sqlite::open(first.path()).expect("opened")).collect();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let sqlite = handles[n as usize % handles.len()].clone();
            tokio::spawn(async move {
                for m in 0..10 {
                    commit(&sqlite, &[n * 10 + m]).await.expect("committed");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(prices(&first).await, (0..640).collect::<Vec<_>>());
    let (entries, _) = entries(&first, &start).await;
    assert_eq!(entries.iter().map(|entry| entry.place.major).collect::<Vec<_>>(), (1..=640).collect::<Vec<_>>());
}

#[test]
fn many_may_open_a_new_file_at_once() {
    let folder = folder();
    let path = folder.path().join("new.db");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || OperationLog::id(&Sqlite::open(path).expect("opened")))
        })
        .collect();
    let mut logs: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    logs.dedup();
    assert_eq!(logs.len(), 1);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let folder = folder();
    let sqlite = database(&folder);
    let path = sqlite.path().to_owned();
    drop(sqlite);
    let connection = Connection::open(&path).expect("opened");
    connection.execute("UPDATE wellspring_meta SET value = 99 WHERE name = 'schema'", []).expect("written");
    let error = Sqlite::open(&path).expect_err("newer");
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("version 99"), "{error}");
}

#[test]
fn what_is_not_a_database_is_refused() {
    let folder = folder();
    let path = folder.path().join("not.db");
    std::fs::write(&path, "not a database, but long enough to be mistaken for one".repeat(100)).expect("written");
    assert_eq!(Sqlite::open(&path).expect_err("not one").kind(), StoreErrorKind::Corrupt);
    assert_eq!(Sqlite::open(folder.path().join("no/such/folder.db")).expect_err("no folder").kind(), StoreErrorKind::Unavailable);
    assert_eq!(Sqlite::open(":memory:").expect_err("of one connection only").kind(), StoreErrorKind::Other);
}

/// Makes a database one that SQLite does not write to, whoever runs this: by a write version that it does not know.
fn make_read_only(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[18] = 3;
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_read_only_database_can_be_read_and_says_why_it_is_not_written_to() {
    let folder = folder();
    let sqlite = database(&folder);
    let start = sqlite.start().await;
    commit(&sqlite, &[1]).await.expect("committed");
    let path = sqlite.path().to_owned();
    drop(sqlite);
    make_read_only(&path);
    let sqlite = Sqlite::open(&path).expect("opened");
    assert_eq!(kind(&commit(&sqlite, &[2]).await.expect_err("read-only")), StoreErrorKind::ReadOnly);
    assert_eq!(prices(&sqlite).await, [1]);
    assert_eq!(entries(&sqlite, &start).await.0.len(), 1);
    let bare = folder.path().join("bare.db");
    Connection::open(&bare).expect("opened").execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x)").expect("made");
    make_read_only(&bare);
    assert_eq!(Sqlite::open(&bare).expect_err("no tables, and no way to make them").kind(), StoreErrorKind::ReadOnly);
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_done_and_is_over_when_there_is_room() {
    let folder = folder();
    let room = Arc::new(std::sync::atomic::AtomicI64::new(1 << 30));
    let pages = room.clone();
    let open = move || {
        let pages = pages.clone();
        Sqlite::builder(folder.path().join("shop.db"))
            .on_connect(move |connection| {
                let most = pages.load(std::sync::atomic::Ordering::Relaxed);
                connection.pragma_update_and_check(None, "max_page_count", most, |_| Ok(()))
            })
            .open()
            .expect("opened")
    };
    let sqlite = open();
    table(&sqlite);
    let start = sqlite.start().await;
    let tx = SqliteTx::default();
    put(&tx, 1);
    tx.write(|write| Ok(write.execute_batch("CREATE TABLE big (x)")?));
    sqlite.commit(tx, draft()).await.expect("committed");
    drop(sqlite);
    // The limit is never below what is used.
    room.store(1, std::sync::atomic::Ordering::Relaxed);
    let sqlite = open();
    let (go, first) = occupy(&sqlite).await;
    let tx = SqliteTx::default();
    put(&tx, 2);
    let innocent = queue(&sqlite, tx, draft());
    let tx = SqliteTx::default();
    put(&tx, 3);
    let mut large = draft();
    large.items.set("large", &"x".repeat(50_000)).expect("fits");
    let large = queue(&sqlite, tx, large);
    let tx = SqliteTx::default();
    put(&tx, 4);
    tx.write(|write| {
        // As careless as a closure can be: SQLite has given the whole transaction up by now.
        let error = write.execute("INSERT INTO big VALUES (zeroblob(50000))", []).expect_err("full");
        assert!(write.is_autocommit(), "{error}");
        Ok(())
    });
    let careless = queue(&sqlite, tx, draft());
    let tx = SqliteTx::default();
    put(&tx, 5);
    let after = queue(&sqlite, tx, draft());
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    assert_eq!(kind(&innocent.await.expect_err("rolled back")), StoreErrorKind::Conflict);
    assert_eq!(kind(&large.await.expect_err("full")), StoreErrorKind::Full);
    assert_eq!(kind(&careless.await.expect_err("rolled back")), StoreErrorKind::Other);
    after.await.expect("committed");
    assert_eq!(prices(&sqlite).await, [1, 5]);
    assert_eq!(entries(&sqlite, &start).await.0.len(), 3);
    drop(sqlite);
    room.store(1 << 30, std::sync::atomic::Ordering::Relaxed);
    let sqlite = open();
    commit(&sqlite, &[6]).await.expect("committed");
    assert_eq!(prices(&sqlite).await, [1, 5, 6]);
}

#[tokio::test]
async fn a_writer_that_another_process_holds_up_waits_and_then_says_so() {
    let folder = folder();
    let sqlite = database(&folder);
    drop(sqlite);
    let path = folder.path().join("shop.db");
    let sqlite = Sqlite::builder(&path).busy_timeout(Duration::from_millis(50)).open().expect("opened");
    let other = Connection::open(&path).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("begun");
    let error = commit(&sqlite, &[1]).await.expect_err("busy");
    assert_eq!(kind(&error), StoreErrorKind::Conflict);
    let CommitError::Failed(error) = error else { unreachable!() };
    assert!(sqlite.is_transient(&error));
    let busy = Connection::open(&path).expect("opened");
    busy.busy_timeout(Duration::ZERO).expect("set");
    assert!(sqlite.is_transient(&busy.execute_batch("BEGIN IMMEDIATE").expect_err("busy")));
    assert!(!sqlite.is_transient(&busy.execute_batch("nonsense").expect_err("no statement")));
    other.execute_batch("ROLLBACK").expect("rolled back");
    commit(&sqlite, &[2]).await.expect("committed");
    assert_eq!(prices(&sqlite).await, [2]);
}

#[tokio::test]
async fn a_commit_can_be_verified() {
    let folder = folder();
    let sqlite = database(&folder);
    let committed = commit(&sqlite, &[1]).await.expect("committed");
    let doubt = Doubt { position: committed.position, keys: Vec::new(), ticket: 0 };
    assert_eq!(sqlite.verify(&doubt).await.expect("verified"), Verdict::Committed);
    let position = LogPosition { place: Place::new(2, 0), operation: OperationId::new(), ..committed.position };
    assert_eq!(sqlite.verify(&Doubt { position, ..doubt }).await.expect("verified"), Verdict::RolledBack);
}

#[tokio::test]
async fn the_journal_is_trimmed_by_age() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let id = CommandId::new("a").expect("an id");
    let mut draft = draft();
    draft.journal = Some(NewJournalEntry { id: id.clone(), command: "c".into(), digest: 1, result: "1".into() });
    sqlite.commit(SqliteTx::default(), draft).await.expect("committed");
    clock.forward(Duration::from_secs(10));
    assert_eq!(sqlite.trim_journal(Duration::from_secs(11)).await.expect("trimmed"), 0);
    assert!(sqlite.journaled(&id).await.expect("read").is_some());
    assert_eq!(sqlite.trim_journal(Duration::from_secs(9)).await.expect("trimmed"), 1);
    assert!(sqlite.journaled(&id).await.expect("read").is_none());
}

/// A clock in a test's hands.
#[derive(Clone, Default)]
struct Hand(Arc<std::sync::atomic::AtomicU64>);

impl Hand {
    fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

fn with_clock(folder: &TempDir) -> (Sqlite, Hand) {
    let hand = Hand::default();
    let moved = hand.clone();
    let clock =
        move || SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + moved.0.load(std::sync::atomic::Ordering::Relaxed));
    let sqlite = Sqlite::builder(folder.path().join("shop.db")).wall_clock(clock).open().expect("opened");
    table(&sqlite);
    (sqlite, hand)
}

#[tokio::test]
async fn a_read_sees_one_snapshot_and_cannot_write() {
    let folder = folder();
    let sqlite = database(&folder);
    commit(&sqlite, &[1]).await.expect("committed");
    let count = |connection: &Connection| connection.query_row("SELECT count(*) FROM price", [], |row| row.get::<_, i64>(0));
    let path = sqlite.path().to_owned();
    let (before, after) = sqlite
        .read(move |connection| {
            let before = count(connection)?;
            Connection::open(path)?.execute("INSERT INTO price VALUES (2, 2)", [])?;
            Ok((before, count(connection)?))
        })
        .await
        .expect("read");
    assert_eq!((before, after), (1, 1));
    assert_eq!(sqlite.read_blocking(count).expect("read"), 2);
    let error = sqlite.read(|connection| connection.execute("DELETE FROM price", [])).await.expect_err("a read");
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
}

#[tokio::test]
async fn a_read_that_panics_panics_in_its_caller_and_nowhere_else() {
    let folder = folder();
    let sqlite = database(&folder);
    let reader = sqlite.clone();
    let panicked = tokio::spawn(async move { reader.read::<(), _>(|_| panic!("mine")).await }).await.expect_err("a panic");
    assert_eq!(panicked.into_panic().downcast_ref::<&str>(), Some(&"mine"));
    assert_eq!(prices(&sqlite).await, [0; 0]);
}

#[tokio::test]
async fn an_event_that_is_refused_refuses_its_operation() {
    let folder = folder();
    let sqlite = database(&folder);
    let event = || NewEvent { key: Some("k".into()), ..NewEvent::new("mail", "1") };
    for id in [1, 2] {
        let tx = SqliteTx::default();
        put(&tx, id);
        let mut draft = draft();
        draft.add_event(event());
        let end = sqlite.commit(tx, draft).await;
        match id {
            1 => drop(end.expect("committed")),
            _ => assert_eq!(kind(&end.expect_err("there is one")), StoreErrorKind::Constraint),
        }
    }
    assert_eq!(prices(&sqlite).await, [1]);
}
