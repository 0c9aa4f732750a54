//! Commits, alone and in groups.

use std::future::Future;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::Duration;

use wellspring_commands::sqlite::rusqlite::{self, Connection};
use wellspring_commands::sqlite::{Sqlite, SqliteTx};
use wellspring_commands::{CommandId, CommitError, NewEvent, NewJournalEntry, OperationId, OperationLog, Store, StoreErrorKind};

use crate::{commit, database, draft, entries, folder, key, kind, occupy, of, prices, put, queue, start, with_clock};

#[tokio::test]
async fn a_commit_writes_the_rows_and_the_operation_in_one_transaction() {
    let folder = folder();
    let sqlite = database(&folder);
    let start = start(&sqlite).await;
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
    let start = start(&sqlite).await;
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
    let start = start(&sqlite).await;
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
async fn of_two_repeats_in_one_group_the_second_finds_the_first_in_the_journal_when_it_is_told() {
    let folder = folder();
    let sqlite = database(&folder);
    let (go, first) = occupy(&sqlite).await;
    let id = CommandId::new("order-1").expect("an id");
    let with = || {
        let mut draft = draft();
        draft.journal = Some(NewJournalEntry { id: id.clone(), command: "order".into(), digest: 1, result: "7".into() });
        draft
    };
    let one = queue(&sqlite, SqliteTx::default(), with());
    let mut other = Box::pin(queue(&sqlite, SqliteTx::default(), with()));
    // Holds the group open after both.
    let (finish, wait) = mpsc::channel::<()>();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let tx = SqliteTx::default();
    tx.write(move |_| {
        started.send(()).expect("a listener");
        wait.recv()?;
        Ok(())
    });
    let last = queue(&sqlite, tx, draft());
    go.send(()).expect("waiting");
    first.await.expect("no panic").expect("committed");
    has_started.await.expect("started");
    let early = other.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(early.is_pending(), "told before the first is there: {early:?}");
    finish.send(()).expect("waiting");
    assert!(matches!(other.await, Err(CommitError::Repeated)));
    assert!(sqlite.journaled(&id).await.expect("read").is_some());
    one.await.expect("committed");
    last.await.expect("committed");
}

#[tokio::test]
async fn a_commit_whose_future_was_dropped_happens_and_is_seen() {
    let folder = folder();
    let sqlite = database(&folder);
    let start = start(&sqlite).await;
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
    let start = start(&other).await;
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
    let start = start(&first).await;
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
