//! What goes wrong with commits, files and disks.

use std::sync::Arc;
use std::time::Duration;

use wellspring_commands::sqlite::rusqlite::Connection;
use wellspring_commands::sqlite::{ClosurePanicked, Sqlite, SqliteTx};
use wellspring_commands::{CommitError, Doubt, LogPosition, OperationId, OperationLog, Place, Store, StoreErrorKind, Verdict};

use crate::{commit, database, draft, entries, folder, kind, occupy, prices, put, queue, start, table};

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
    let statements = ["COMMIT", "ROLLBACK", "END", "ROLLBACK TO wellspring_operation", "RELEASE wellspring_operation", "BEGIN IMMEDIATE"];
    // Out of the cache too: the module's own were allowed when they were prepared.
    for (sql, cached) in statements.into_iter().flat_map(|sql| [(sql, false), (sql, true)]) {
        let (go, first) = occupy(&sqlite).await;
        let tx = sqlite.begin().await.expect("begun");
        put(&tx, 1);
        tx.write(move |write| match cached {
            true => Ok(write.prepare_cached(sql)?.execute([]).map(drop)?),
            false => Ok(write.execute_batch(sql)?),
        });
        let bad = queue(&sqlite, tx, draft());
        go.send(()).expect("waiting");
        first.await.expect("no panic").expect("committed");
        assert!(matches!(bad.await, Err(CommitError::Refused(_))), "{sql}");
        assert_eq!(prices(&sqlite).await, [0; 0], "{sql}");
    }
    commit(&sqlite, &[2]).await.expect("committed");
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

/// The database refuses the whole group at its commit, and one of it had been refused before for a row that now never was.
#[tokio::test]
async fn an_operation_that_was_refused_for_a_row_of_a_group_that_failed_is_to_try_again() {
    let folder = folder();
    let sqlite = database(&folder);
    let tx = SqliteTx::default();
    tx.write(|write| {
        let sql = "CREATE TABLE line (price INTEGER REFERENCES price (id) DEFERRABLE INITIALLY DEFERRED)";
        Ok(write.execute_batch(sql)?)
    });
    sqlite.commit(tx, draft()).await.expect("committed");
    let first = || {
        let tx = SqliteTx::default();
        put(&tx, 1);
        // Which is found out only at the commit.
        tx.write(|write| Ok(write.execute_batch("INSERT INTO line VALUES (77)")?));
        tx
    };
    // It puts the same row.
    let second = || {
        let tx = SqliteTx::default();
        put(&tx, 1);
        tx
    };
    let (go, occupying) = occupy(&sqlite).await;
    let (one, other) = (queue(&sqlite, first(), draft()), queue(&sqlite, second(), draft()));
    go.send(()).expect("waiting");
    occupying.await.expect("no panic").expect("committed");
    assert_eq!(kind(&one.await.expect_err("rolled back")), StoreErrorKind::Constraint);
    let CommitError::Failed(error) = other.await.expect_err("rolled back") else { panic!("it is not refused: the row is not there") };
    assert!(sqlite.is_transient(&error), "{error}");
    sqlite.commit(second(), draft()).await.expect("committed, for the row was not there");
    assert_eq!(prices(&sqlite).await, [1]);
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
    let start = start(&sqlite).await;
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
    let start = start(&sqlite).await;
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
async fn a_read_that_panics_panics_in_its_caller_and_nowhere_else() {
    let folder = folder();
    let sqlite = database(&folder);
    let reader = sqlite.clone();
    let panicked = tokio::spawn(async move { reader.read::<(), _>(|_| panic!("mine")).await }).await.expect_err("a panic");
    assert_eq!(panicked.into_panic().downcast_ref::<&str>(), Some(&"mine"));
    assert_eq!(prices(&sqlite).await, [0; 0]);
}

/// Where the child of the next test finds its database.
const LIMITED: &str = "WELLSPRING_SQLITE_LIMITED";

/// Runs only as the child of the next test, whose files must not grow beyond a limit: a write past it is an error of the disk's, and
/// not one that says that the disk is full.
#[tokio::test]
async fn child_that_may_not_write_large_files() {
    let Some(path) = std::env::var_os(LIMITED) else { return };
    let sqlite = Sqlite::open(path).expect("opened");
    // Every commit that fails is followed by a small one that makes sure of it, until there is no room for that either.
    for id in 0..10_000 {
        let tx = SqliteTx::default();
        put(&tx, id);
        let mut draft = draft();
        draft.items.set("large", &"x".repeat(20_000)).expect("fits");
        match sqlite.commit(tx, draft).await {
            Ok(_) => println!("committed {id}"),
            Err(CommitError::Failed(_)) => println!("failed {id}"),
            Err(CommitError::InDoubt { doubt, .. }) => {
                println!("in doubt {id} {}", doubt.position.operation);
                // What cannot be made sure of is not claimed to be.
                sqlite.verify(&doubt).await.expect_err("nothing can be written");
                commit(&sqlite, &[77_777]).await.expect_err("nothing can be written");
                return;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("the limit was not reached");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_commit_that_the_disk_fails_is_in_doubt_until_it_is_verified() {
    let folder = folder();
    let path = database(&folder).path().to_owned();
    let test = std::env::current_exe().expect("this test");
    let output = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            std::process::Command::new("sh")
                .args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" --exact fault::child_that_may_not_write_large_files --nocapture"])
                .arg(test)
                .env(LIMITED, path)
                .output()
                .expect("started")
        }
    })
    .await
    .expect("no panic");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let committed: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("committed ")?.parse().ok()).collect();
    assert!(!committed.is_empty() && text.contains("\nfailed "), "{text}");
    let (id, operation) = text.lines().find_map(|line| line.strip_prefix("in doubt ")?.split_once(' ')).expect("one in doubt");
    let sqlite = Sqlite::open(&path).expect("opened");
    let operation: OperationId = operation.parse().expect("an id");
    let position = LogPosition { log: OperationLog::id(&sqlite), place: Place::default(), operation };
    let verdict = sqlite.verify(&Doubt { position, keys: Vec::new(), ticket: 0 }).await.expect("verified");
    let mut expected = committed;
    if verdict == Verdict::Committed {
        expected.push(id.parse().expect("a number"));
    }
    assert_eq!(prices(&sqlite).await, expected);
    let operations = "SELECT count(*) FROM wellspring_operations";
    let operations = sqlite.read(move |connection| connection.query_row(operations, [], |row| row.get::<_, i64>(0))).await.expect("read");
    assert_eq!(operations, expected.len() as i64);
}
