//! What a reader gets, and when.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Client;
use wellspring_commands::postgres::PostgresTx;
use wellspring_commands::{Cursor, OperationId, Reading, Store, StoreErrorKind};

use crate::database::{Database, connect, draft, on_database, read, read_ids, read_until};

/// Writes operations in a transaction that this test commits when it likes.
async fn write(db: &Database, client: &Client) -> OperationId {
    let id = uuid::Uuid::now_v7();
    client.batch_execute("BEGIN").await.expect("begun");
    let insert = format!("INSERT INTO {}.operations (id, origin, body) VALUES ($1, $1, '{{}}')", db.quoted());
    client.execute(&insert, &[&id]).await.expect("inserted");
    OperationId::from_u128(id.as_u128())
}

/// Reads in the settled order until there are so many: other tests' transactions are strangers that may hold it back.
async fn settled_until(db: &Database, cursor: &mut Cursor, most: usize, count: usize) -> Vec<OperationId> {
    let mut got = Vec::new();
    for _ in 0..2_000 {
        got.extend(settled(db, cursor, most).await);
        if got.len() >= count {
            return got;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never settled: {got:?}");
}

async fn settled(db: &Database, cursor: &mut Cursor, most: usize) -> Vec<OperationId> {
    let reading = db.store.log().read_settled(cursor, most).await.expect("read");
    let Reading::Entries { entries, cursor: next, .. } = reading else { panic!("lost: {reading:?}") };
    *cursor = next;
    entries.into_iter().map(|entry| entry.operation).collect()
}

#[tokio::test]
async fn transactions_that_commit_in_reverse_order_are_each_read_once_and_at_once() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        let mut open = Vec::new();
        for _ in 0..5 {
            let client = connect(&db.url).await;
            let id = write(db, &client).await;
            open.push((client, id));
        }
        assert_eq!(read_ids(&db.store, &mut cursor).await, []);
        while let Some((client, id)) = open.pop() {
            client.batch_execute("COMMIT").await.expect("committed");
            assert_eq!(read_ids(&db.store, &mut cursor).await, [id]);
        }
        assert_eq!(read_ids(&db.store, &mut cursor).await, []);
    })
    .await;
}

#[tokio::test]
async fn an_idle_transaction_in_another_database_holds_back_no_reading_and_no_horizon() {
    on_database(async |db| {
        let (mut cursor, neighbour) = (db.head().await, db.neighbour().await);
        for _ in 0..3 {
            let committed = db.commit().await.position;
            assert!(committed.place.major > neighbour.id);
            assert_eq!(read_ids(&db.store, &mut cursor).await, [committed.operation]);
            read_until(db, &mut cursor, committed.place).await;
        }
        neighbour.leave().await;
        let committed = db.commit().await.position;
        assert_eq!(read_ids(&db.store, &mut cursor).await, [committed.operation]);
    })
    .await;
}

#[tokio::test]
async fn a_head_repeats_nothing_that_only_a_transaction_of_another_database_is_older_than() {
    on_database(async |db| {
        let neighbour = db.neighbour().await;
        let early = db.commit().await.position;
        for _ in 0..2_000 {
            let head = db.store.log().head().await.expect("a head");
            assert!(head.recent.iter().all(|(place, _)| *place >= head.horizon), "{head:?}");
            let is_recent = head.recent.contains(&(early.place, early.operation));
            assert_eq!(is_recent, head.horizon <= early.place, "{head:?}");
            if !is_recent {
                let mut cursor = head.cursor;
                neighbour.leave().await;
                let late = db.commit().await.position.operation;
                assert_eq!(read_ids(&db.store, &mut cursor).await, [late]);
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("held back for ever");
    })
    .await;
}

#[tokio::test]
async fn a_transaction_of_this_database_that_may_append_yet_is_passed_over_by_no_head_and_no_reading() {
    on_database(async |db| {
        let (neighbour, stranger) = (db.neighbour().await, connect(&db.url).await);
        stranger.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("an id is held");
        let mut reader = db.head().await;
        let early = db.commit().await.position;
        let head = db.store.log().head().await.expect("a head");
        let mut late_reader = head.cursor;
        assert!(head.recent.contains(&(early.place, early.operation)));
        for _ in 0..3 {
            let reading = db.store.log().read(&reader, 10).await.expect("read");
            let Reading::Entries { cursor, horizon, .. } = reading else { panic!("lost: {reading:?}") };
            assert!(horizon < early.place);
            reader = cursor;
        }
        assert_eq!(db.store.log().trim(Duration::ZERO).await.expect("trimmed"), 0);
        let id = uuid::Uuid::now_v7();
        let insert = format!("INSERT INTO {}.operations (id, origin, body) VALUES ($1, $1, '{{}}')", db.quoted());
        stranger.execute(&insert, &[&id]).await.expect("inserted");
        stranger.batch_execute("COMMIT").await.expect("committed");
        for cursor in [&mut reader, &mut late_reader] {
            assert_eq!(read_ids(&db.store, cursor).await, [OperationId::from_u128(id.as_u128())]);
        }
        neighbour.leave().await;
    })
    .await;
}

#[tokio::test]
async fn a_head_gives_what_is_visible_above_its_horizon_and_a_reader_from_it_gets_the_rest() {
    on_database(async |db| {
        let stranger = connect(&db.url).await;
        let late = write(db, &stranger).await;
        let early = db.commit().await;
        let head = db.store.log().head().await.expect("a head");
        assert!(head.recent.contains(&(early.position.place, early.position.operation)));
        assert!(head.recent.iter().all(|(place, _)| *place >= head.horizon));
        stranger.batch_execute("COMMIT").await.expect("committed");
        let mut cursor = head.cursor;
        assert_eq!(read_ids(&db.store, &mut cursor).await, [late]);
    })
    .await;
}

#[tokio::test]
async fn a_chunked_reading_stays_within_its_snapshot_and_loses_nothing() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        let late = connect(&db.url).await;
        let last = write(db, &late).await;
        let mut expected = Vec::new();
        for _ in 0..5 {
            expected.push(db.commit().await.position.operation);
        }
        let (first, more) = read(&db.store, &mut cursor, 2).await;
        assert!(more);
        late.batch_execute("COMMIT").await.expect("committed");
        let mut got: Vec<_> = first.iter().map(|entry| entry.operation).collect();
        loop {
            let (entries, more) = read(&db.store, &mut cursor, 2).await;
            assert!(entries.len() <= 2);
            got.extend(entries.iter().map(|entry| entry.operation));
            if !more {
                break;
            }
        }
        expected.push(last);
        assert_eq!(got, expected);
    })
    .await;
}

#[tokio::test]
async fn an_operation_that_was_running_at_the_cursor_is_not_repeated_by_a_reading_in_chunks() {
    on_database(async |db| {
        let clients = [connect(&db.url).await, connect(&db.url).await];
        let mut expected = [write(db, &clients[0]).await, write(db, &clients[1]).await].to_vec();
        let mut cursor = db.head().await;
        for client in &clients {
            client.batch_execute("COMMIT").await.expect("committed");
        }
        expected.push(db.commit().await.position.operation);
        let mut got = Vec::new();
        for _ in 0..4 {
            got.extend(read(&db.store, &mut cursor, 1).await.0.iter().map(|entry| entry.operation));
        }
        assert_eq!(got, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_in_chunks_of_any_size_get_each_of_many_concurrent_commits_exactly_once() {
    on_database(async |db| {
        let start = db.head().await;
        let writers: Vec<_> = (0..8_u64)
            .map(|writer| {
                let store = db.store.clone();
                tokio::spawn(async move {
                    let mut ids = Vec::new();
                    for n in 0..60_u64 {
                        let tx = store.begin().await.expect("begun");
                        // An id is drawn early by some, so that commits are out of order.
                        if (n + writer) % 3 == 0 {
                            tx.batch_execute("SELECT pg_current_xact_id()").await.expect("drawn");
                            tx.batch_execute(&format!("SELECT pg_sleep(0.00{})", (n * 7 + writer) % 5)).await.expect("slept");
                            tokio::task::yield_now().await;
                        }
                        let draft = draft();
                        let id = draft.operation;
                        if n % 10 == 9 {
                            drop(tx);
                            continue;
                        }
                        store.commit(tx, draft).await.expect("committed");
                        ids.push(id);
                    }
                    ids
                })
            })
            .collect();
        let (done, finished) = tokio::sync::watch::channel(false);
        let readers: Vec<_> = [1, 3, 7, 1_000]
            .into_iter()
            .map(|most| {
                let (store, mut cursor, finished) = (db.store.clone(), start.clone(), finished.clone());
                tokio::spawn(async move {
                    let mut seen = HashMap::<OperationId, u32>::new();
                    loop {
                        let last = *finished.borrow();
                        let (entries, more) = read(&store, &mut cursor, most).await;
                        for entry in &entries {
                            *seen.entry(entry.operation).or_default() += 1;
                        }
                        if last && !more && entries.is_empty() {
                            return seen;
                        }
                    }
                })
            })
            .collect();
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.await.expect("ran"));
        }
        done.send(true).expect("heard");
        for reader in readers {
            let seen = reader.await.expect("ran");
            assert!(seen.values().all(|times| *times == 1), "twice");
            assert!(all.iter().all(|id| seen.contains_key(id)), "missing");
            assert_eq!(seen.len(), all.len());
        }
    })
    .await;
}

/// A transaction of the store that has its id already.
async fn begin(db: &Database) -> PostgresTx {
    let tx = db.store.begin().await.expect("begun");
    tx.batch_execute("SELECT pg_current_xact_id()").await.expect("an id");
    tx
}

async fn commit(db: &Database, tx: PostgresTx) -> OperationId {
    db.store.commit(tx, draft()).await.expect("committed").position.operation
}

#[tokio::test]
async fn a_settled_reading_gives_every_reader_one_order() {
    on_database(async |db| {
        let (mut early, start) = (db.head().await, db.head().await);
        let (a, b) = (begin(db).await, begin(db).await);
        let second = commit(db, b).await;
        // The ordinary order of a prompt reader.
        let mut prompt = start.clone();
        let mut got = read_ids(&db.store, &mut prompt).await;
        // The second may still be overtaken by the first.
        for _ in 0..5 {
            assert_eq!(settled(db, &mut early, 10).await, []);
        }
        let first = commit(db, a).await;
        got.extend(read_ids(&db.store, &mut prompt).await);
        assert_eq!(got, [second, first]);
        assert_eq!(settled_until(db, &mut early, 10, 2).await, [first, second]);
        let mut late = start;
        assert_eq!(settled_until(db, &mut late, 1, 2).await, [first, second]);
        assert_eq!(settled(db, &mut late, 1).await, []);
        let third = db.commit().await.position.operation;
        assert_eq!(settled_until(db, &mut late, 9, 1).await, [third]);
        assert_eq!(settled_until(db, &mut early, 9, 1).await, [third]);
    })
    .await;
}

#[tokio::test]
async fn a_settled_reading_does_not_repeat_what_its_head_showed() {
    on_database(async |db| {
        let a = begin(db).await;
        db.commit().await;
        let mut cursor = db.head().await;
        let late = commit(db, a).await;
        assert_eq!(settled_until(db, &mut cursor, 9, 1).await, [late]);
        assert_eq!(settled(db, &mut cursor, 9).await, []);
    })
    .await;
}

#[tokio::test]
async fn strangers_with_an_idle_transaction_hold_back_no_settled_reading() {
    on_database(async |db| {
        let stranger = connect(&db.url).await;
        stranger.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("an id is held");
        let mut cursor = db.head().await;
        for _ in 0..3 {
            let committed = db.commit().await.position.operation;
            assert_eq!(settled_until(db, &mut cursor, 9, 1).await, [committed]);
        }
        // One of the store does, with the stranger still there.
        let tx = begin(db).await;
        let second = db.commit().await.position.operation;
        for _ in 0..5 {
            assert_eq!(settled(db, &mut cursor, 9).await, []);
        }
        let first = commit(db, tx).await;
        assert_eq!(settled_until(db, &mut cursor, 9, 2).await, [first, second]);
        stranger.batch_execute("COMMIT").await.expect("committed");
        assert_eq!(settled(db, &mut cursor, 9).await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_readers_under_many_commits_and_strangers_agree_on_one_whole_order() {
    on_database(async |db| {
        let start = db.head().await;
        let strangers: Vec<_> = (0..2)
            .map(|n| {
                let url = db.url.clone();
                tokio::spawn(async move {
                    let client = connect(&url).await;
                    loop {
                        client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("an id is held");
                        tokio::time::sleep(Duration::from_millis(7 + 10 * n)).await;
                        client.batch_execute("COMMIT").await.expect("committed");
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..6_u64)
            .map(|writer| {
                let store = db.store.clone();
                tokio::spawn(async move {
                    let mut places = Vec::new();
                    for n in 0..50 {
                        let tx = store.begin().await.expect("begun");
                        if (n + writer) % 2 == 0 {
                            tx.batch_execute(&format!("SELECT pg_current_xact_id(), pg_sleep(0.00{})", n % 6)).await.expect("drawn");
                        }
                        let position = store.commit(tx, draft()).await.expect("committed").position;
                        places.push((position.place, position.operation));
                    }
                    places
                })
            })
            .collect();
        let readers: Vec<_> = [2, 5, 1_000]
            .into_iter()
            .map(|most| {
                let (store, mut cursor) = (db.store.clone(), start.clone());
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    while got.len() < 300 {
                        let reading = store.log().read_settled(&cursor, most).await.expect("read");
                        let Reading::Entries { entries, cursor: next, .. } = reading else { panic!("lost: {reading:?}") };
                        cursor = next;
                        got.extend(entries.into_iter().map(|entry| (entry.place, entry.operation)));
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    got
                })
            })
            .collect();
        let mut expected = Vec::new();
        for writer in writers {
            expected.extend(writer.await.expect("ran"));
        }
        expected.sort();
        for reader in readers {
            assert_eq!(tokio::time::timeout(Duration::from_secs(30), reader).await.expect("in time").expect("ran"), expected);
        }
        for stranger in strangers {
            stranger.abort();
        }
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_one_kind_of_reading_is_refused_by_the_other() {
    on_database(async |db| {
        let (start, mut cursor) = (db.head().await, db.head().await);
        db.commit().await;
        db.commit().await;
        settled_until(db, &mut cursor, 1, 1).await;
        assert_eq!(db.store.log().read(&cursor, 1).await.expect_err("refused").kind(), StoreErrorKind::Corrupt);
        let mut cursor = start;
        read(&db.store, &mut cursor, 1).await;
        assert_eq!(db.store.log().read_settled(&cursor, 1).await.expect_err("refused").kind(), StoreErrorKind::Corrupt);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_another_log_or_another_past_is_lost() {
    on_database(async |db| {
        let cursor = db.head().await;
        let parts: Vec<&str> = cursor.as_str().split('/').collect();
        let [log, timeline, boot, tables, kind, _] = parts.as_slice() else { panic!("{cursor:?}") };
        let (other, others) = (uuid::Uuid::new_v4(), tables.parse::<u32>().expect("a number") ^ 1);
        for text in [
            format!("{log}/{timeline}/{boot}/{tables}/{kind}/9000000000000:9000000000000:"),
            format!("{log}/000000FF/{boot}/{tables}/{kind}/1:1:"),
            format!("{other}/{timeline}/{boot}/{tables}/{kind}/1:1:"),
            format!("{log}/{timeline}/{other}/{tables}/{kind}/1:1:"),
            format!("{log}/{timeline}/{boot}/{others}/{kind}/1:1:"),
            // As it was before cursors said which tables they are of.
            format!("{log}/{timeline}/{boot}/{kind}/1:1:"),
            "nonsense".to_owned(),
        ] {
            let cursor = Cursor::new(text);
            let (read, settled) = (db.store.log().read(&cursor, 1).await, db.store.log().read_settled(&cursor, 1).await);
            assert!(matches!(read, Ok(Reading::Lost { .. })), "{read:?}");
            assert!(matches!(settled, Ok(Reading::Lost { .. })), "{settled:?}");
        }
        assert!(matches!(db.store.log().read(&cursor, 1).await, Ok(Reading::Entries { .. })));
    })
    .await;
}

#[tokio::test]
async fn an_id_that_is_given_out_again_after_a_crash_is_read_by_readers_that_saw_it_end_without_an_operation() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        let first = db.commit().await.position.operation;
        assert_eq!(settled_until(db, &mut cursor, 9, 1).await, [first]);
        let tx = db.store.begin().await.expect("begun");
        let id: String = tx.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("an id").get(0);
        drop(tx);
        db.until(&format!("SELECT pg_snapshot_xmin(pg_current_snapshot()) > '{id}'::xid8")).await;
        for _ in 0..3 {
            assert_eq!(settled(db, &mut cursor, 9).await, []);
        }
        // What the database does when the end of that transaction had not reached the disk.
        let again = uuid::Uuid::now_v7();
        let insert = format!("INSERT INTO {}.operations (xid, id, origin, body) VALUES ($2::text::xid8, $1, $1, '{{}}')", db.quoted());
        db.other.execute(&insert, &[&again, &id]).await.expect("inserted");
        assert_eq!(settled_until(db, &mut cursor, 9, 1).await, [OperationId::from_u128(again.as_u128())]);
        assert_eq!(settled(db, &mut cursor, 9).await, []);
    })
    .await;
}

#[tokio::test]
async fn a_settled_cursor_beyond_all_transactions_is_lost() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        db.commit().await;
        settled_until(db, &mut cursor, 9, 1).await;
        let (start, _) = cursor.as_str().rsplit_once('/').expect("a minor");
        let (start, _) = start.rsplit_once('/').expect("a major");
        let reading = db.store.log().read_settled(&Cursor::new(format!("{start}/9000000000000/0")), 9).await;
        assert!(matches!(reading, Ok(Reading::Lost { .. })), "{reading:?}");
    })
    .await;
}

#[tokio::test]
async fn a_foreign_transaction_that_began_meanwhile_holds_back_no_settled_reading_that_gives_something_out() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        let early = db.commit().await.position.operation;
        let stranger = connect(&db.url).await;
        stranger.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("an id is held");
        let late = db.commit().await.position.operation;
        // The locks of other tests' transactions may not be seen yet, so not every first reading has all; one of these does.
        for _ in 0..50 {
            let mut reader = cursor.clone();
            let got = settled(db, &mut reader, 9).await;
            if got == [early, late] {
                stranger.batch_execute("COMMIT").await.expect("committed");
                return;
            }
        }
        settled_until(db, &mut cursor, 9, 2).await;
        panic!("never in one reading");
    })
    .await;
}

#[tokio::test]
async fn a_crash_of_the_database_is_found_out_by_every_reader_from_before() {
    on_database(async |db| {
        let (cursor, mut settles) = (db.head().await, db.head().await);
        db.commit().await;
        settled_until(db, &mut settles, 9, 1).await;
        // What crash recovery does to an unlogged table.
        db.other.batch_execute(&format!("DELETE FROM {}.boot", db.quoted())).await.expect("emptied");
        let read = db.store.log().read(&cursor, 9).await;
        assert!(matches!(read, Ok(Reading::Lost { .. })), "{read:?}");
        let settled = db.store.log().read_settled(&settles, 9).await;
        assert!(matches!(settled, Ok(Reading::Lost { .. })), "{settled:?}");
        let mut cursor = db.head().await;
        let next = db.commit().await.position.operation;
        assert_eq!(read_ids(&db.store, &mut cursor).await, [next]);
    })
    .await;
}

#[tokio::test]
async fn a_reading_uses_the_index_and_never_the_whole_table() {
    const ROWS: i64 = 20_000;
    const READINGS: i64 = 20;
    on_database(async |db| {
        // Of transactions that are over also where the cluster is new.
        let fill = format!(
            "INSERT INTO {s}.operations (xid, id, origin, body) SELECT (3 + n / 100)::text::xid8, gen_random_uuid(), gen_random_uuid(), '{{}}'
             FROM generate_series(1, {ROWS}) AS n; ANALYZE {s}.operations",
            s = db.quoted()
        );
        db.other.batch_execute(&fill).await.expect("filled");
        let table = format!("'{}.operations'::regclass", db.quoted().replace('\'', "''"));
        let numbers = format!("FROM pg_stat_all_tables WHERE relid = {table}");
        let query = format!("SELECT coalesce(idx_scan, 0), coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) {numbers}");
        let numbers_now = async || -> (i64, i64) {
            let row = db.other.query_one(&query, &[]).await.expect("asked");
            (row.get(0), row.get(1))
        };
        let (scans, rows) = numbers_now().await;
        let store = db.server().await;
        let mut cursor = store.log().head().await.expect("a head").cursor;
        let mut settles = cursor.clone();
        db.commit().await;
        for _ in 0..READINGS {
            read(&store, &mut cursor, 100).await;
            let reading = store.log().read_settled(&settles, 100).await.expect("read");
            let Reading::Entries { cursor, .. } = reading else { panic!("lost: {reading:?}") };
            settles = cursor;
        }
        // A session tells what it has done at its end: until then the numbers need not be there, and nothing follows from them.
        drop(store);
        db.until(&format!("SELECT idx_scan >= {scans} + 2 * {READINGS} {numbers}")).await;
        let looked_at = numbers_now().await.1 - rows;
        assert!(looked_at < ROWS / 10, "{looked_at} of {ROWS} rows");
    })
    .await;
}
