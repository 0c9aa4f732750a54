//! Reading the log, and what is gone from it.

use std::time::Duration;

use wellspring_commands::sqlite::rusqlite::Connection;
use wellspring_commands::sqlite::{Sqlite, SqliteTx};
use wellspring_commands::{Cursor, OperationLog, Place, Reading, Store};

use crate::{commit, database, draft, entries, folder, read, start, with_clock};

fn is_lost(reading: &Reading) -> bool {
    matches!(reading, Reading::Lost { .. })
}

#[tokio::test]
async fn a_chain_of_cursors_gives_every_operation_out_once() {
    let folder = folder();
    let sqlite = database(&folder);
    let mut cursor = start(&sqlite).await;
    let mut places = Vec::new();
    for id in 0..10 {
        places.push(commit(&sqlite, &[id]).await.expect("committed").position.place);
    }
    let mut seen = Vec::new();
    loop {
        let Reading::Entries { entries, cursor: next, horizon, more } = OperationLog::read(&sqlite, &cursor, 3).await.expect("read") else {
            panic!("lost")
        };
        seen.extend(entries.iter().map(|entry| entry.place));
        cursor = next;
        assert_eq!(horizon, Place::new(seen.len() as u64 + 1, 0));
        assert_eq!(more, seen.len() < 10);
        if !more {
            break;
        }
    }
    assert_eq!(seen, places);
    let Reading::Entries { entries, cursor: same, more, .. } = read(&sqlite, &cursor).await else { panic!("lost") };
    assert_eq!((entries, same, more), (Vec::new(), cursor, false));
}

#[tokio::test]
async fn a_reading_of_nothing_says_whether_there_is_something() {
    let folder = folder();
    let sqlite = database(&folder);
    let cursor = start(&sqlite).await;
    for expected in [false, true] {
        let reading = OperationLog::read(&sqlite, &cursor, 0).await.expect("read");
        let Reading::Entries { entries, cursor: same, more, .. } = reading else { panic!("lost") };
        assert_eq!((entries.len(), &same, more), (0, &cursor, expected));
        commit(&sqlite, &[]).await.expect("committed");
    }
}

#[tokio::test]
async fn a_reader_that_starts_at_the_head_sees_what_comes_after() {
    let folder = folder();
    let sqlite = database(&folder);
    commit(&sqlite, &[1]).await.expect("committed");
    let head = sqlite.head().await.expect("a head");
    assert_eq!((head.horizon, head.recent.len()), (Place::new(2, 0), 0));
    let committed = commit(&sqlite, &[2]).await.expect("committed");
    let (seen, _) = entries(&sqlite, &head.cursor).await;
    assert_eq!(seen.iter().map(|entry| entry.operation).collect::<Vec<_>>(), [committed.position.operation]);
    assert_eq!(committed.position.place, head.horizon);
}

#[tokio::test]
async fn a_reader_that_slept_while_the_log_was_trimmed_finds_out() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let asleep = start(&sqlite).await;
    commit(&sqlite, &[1]).await.expect("committed");
    commit(&sqlite, &[2]).await.expect("committed");
    let awake = start(&sqlite).await;
    clock.forward(Duration::from_secs(10));
    commit(&sqlite, &[3]).await.expect("committed");
    assert_eq!(OperationLog::trim(&sqlite, Duration::from_secs(11)).await.expect("trimmed"), 0);
    assert_eq!(entries(&sqlite, &asleep).await.0.len(), 3);
    assert_eq!(OperationLog::trim(&sqlite, Duration::from_secs(5)).await.expect("trimmed"), 2);
    assert!(is_lost(&read(&sqlite, &asleep).await));
    assert_eq!(entries(&sqlite, &awake).await.0.len(), 1);
}

#[tokio::test]
async fn a_log_that_was_trimmed_to_nothing_goes_on_where_it_was() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let asleep = start(&sqlite).await;
    let last = commit(&sqlite, &[1]).await.expect("committed").position.place;
    let awake = start(&sqlite).await;
    clock.forward(Duration::from_secs(10));
    assert_eq!(OperationLog::trim(&sqlite, Duration::ZERO).await.expect("trimmed"), 1);
    assert_eq!(start(&sqlite).await, awake);
    assert!(is_lost(&read(&sqlite, &asleep).await));
    let next = commit(&sqlite, &[2]).await.expect("committed").position.place;
    assert!(next > last);
    assert_eq!(entries(&sqlite, &awake).await.0.len(), 1);
}

#[tokio::test]
async fn more_than_one_step_is_trimmed_at_once() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)
               INSERT INTO wellspring_operations (id, origin, at, body) SELECT randomblob(16), zeroblob(16), 0, '{}' FROM n";
    Connection::open(sqlite.path()).expect("opened").execute(sql, []).expect("written");
    let last = commit(&sqlite, &[1]).await.expect("committed");
    clock.forward(Duration::from_secs(1));
    let before = sqlite.transactions();
    assert_eq!(OperationLog::trim(&sqlite, Duration::from_secs(5)).await.expect("trimmed"), 3000);
    assert!(sqlite.transactions() - before >= 3);
    assert_eq!(OperationLog::trim(&sqlite, Duration::ZERO).await.expect("trimmed"), 1);
    let idle = sqlite.transactions();
    assert_eq!(OperationLog::trim(&sqlite, Duration::ZERO).await.expect("trimmed"), 0);
    assert_eq!(sqlite.transactions(), idle, "there was nothing to write");
    assert_eq!(sqlite.head().await.expect("a head").horizon, Place::new(last.position.place.major + 1, 0));
}

#[tokio::test]
async fn a_clock_that_was_set_back_never_leaves_a_hole_in_the_log() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let cursor = start(&sqlite).await;
    clock.forward(Duration::from_secs(600));
    commit(&sqlite, &[1]).await.expect("committed");
    clock.back(Duration::from_secs(300));
    commit(&sqlite, &[2]).await.expect("committed");
    clock.forward(Duration::from_secs(320));
    // The second is old enough, but the first, which is before it, is not.
    assert_eq!(OperationLog::trim(&sqlite, Duration::from_secs(60)).await.expect("trimmed"), 0);
    assert_eq!(entries(&sqlite, &cursor).await.0.len(), 2);
}

#[tokio::test]
async fn an_operation_that_is_dated_in_the_future_does_not_keep_the_log_from_being_trimmed() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let cursor = start(&sqlite).await;
    clock.forward(Duration::from_secs(30 * 86_400));
    commit(&sqlite, &[1]).await.expect("committed");
    clock.back(Duration::from_secs(30 * 86_400));
    // It may be as young as what follows it, so alone it stays.
    assert_eq!(OperationLog::trim(&sqlite, Duration::from_secs(60)).await.expect("trimmed"), 0);
    commit(&sqlite, &[2]).await.expect("committed");
    clock.forward(Duration::from_secs(100));
    commit(&sqlite, &[3]).await.expect("committed");
    assert_eq!(OperationLog::trim(&sqlite, Duration::from_secs(60)).await.expect("trimmed"), 2);
    assert!(is_lost(&read(&sqlite, &cursor).await));
}

/// A copy of the database as it is.
fn back_up(sqlite: &Sqlite, to: &std::path::Path) {
    let sql = format!("VACUUM INTO '{}'", to.display());
    Connection::open(sqlite.path()).expect("opened").execute_batch(&sql).expect("copied");
}

#[tokio::test]
async fn a_reader_of_a_file_that_was_restored_from_a_backup_finds_out() {
    let folder = folder();
    let sqlite = database(&folder);
    commit(&sqlite, &[1]).await.expect("committed");
    let early = start(&sqlite).await;
    let copy = folder.path().join("backup.db");
    back_up(&sqlite, &copy);
    commit(&sqlite, &[2]).await.expect("committed");
    let late = start(&sqlite).await;
    let restored = Sqlite::open(&copy).expect("opened");
    assert!(is_lost(&read(&restored, &late).await), "its operation is not there");
    for id in 3..6 {
        commit(&restored, &[id]).await.expect("committed");
    }
    assert!(is_lost(&read(&restored, &late).await), "another has its number");
    assert_eq!(entries(&restored, &early).await.0.len(), 3);
}

#[tokio::test]
async fn a_reader_of_a_restored_file_finds_out_after_a_trim_too() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let copy = folder.path().join("backup.db");
    back_up(&sqlite, &copy);
    commit(&sqlite, &[1]).await.expect("committed");
    let late = start(&sqlite).await;
    drop(sqlite);
    std::fs::copy(&copy, folder.path().join("shop.db")).expect("restored");
    let restored = clock.open(&folder);
    commit(&restored, &[2]).await.expect("committed");
    clock.forward(Duration::from_secs(1));
    assert_eq!(OperationLog::trim(&restored, Duration::ZERO).await.expect("trimmed"), 1);
    assert!(is_lost(&read(&restored, &late).await));
}

#[tokio::test]
async fn a_cursor_of_another_log_is_lost_and_no_error() {
    let (one, other) = (folder(), folder());
    let (one, other) = (database(&one), database(&other));
    let cursor = start(&one).await;
    assert!(is_lost(&read(&other, &cursor).await));
    assert!(is_lost(&read(&other, &Cursor::new("17-0")).await));
}

#[tokio::test]
async fn an_operation_that_was_rolled_back_leaves_no_gap() {
    let folder = folder();
    let sqlite = database(&folder);
    commit(&sqlite, &[1]).await.expect("committed");
    let tx = SqliteTx::default();
    tx.write(|_| Err("no".into()));
    sqlite.commit(tx, draft()).await.expect_err("refused");
    assert_eq!(commit(&sqlite, &[2]).await.expect("committed").position.place, Place::new(2, 0));
}
