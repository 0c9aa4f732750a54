//! What is removed, and who is told.

use std::time::Duration;

use wellspring_commands::{CommandId, Cursor, NewJournalEntry, Place, Reading, Store};

use crate::database::{Database, connect, draft, on_database, read_ids, read_until};

/// Trims until all is gone: strangers of other tests may hold the horizon back for a moment.
async fn trim_all(db: &Database) -> u64 {
    let mut removed = 0;
    for _ in 0..2_000 {
        removed += db.store.log().trim(Duration::ZERO).await.expect("trimmed");
        if db.count("operations").await == 0 {
            return removed;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never all gone");
}

/// Reads until so many were read and nothing below them was running: a cursor that has seen a stranger run must be taken for lost when
/// all is removed at once.
async fn read_all(db: &Database, cursor: &mut Cursor, count: usize) {
    let (mut seen, mut last) = (0, Place::default());
    for _ in 0..2_000 {
        let reading = db.store.log().read(cursor, 100).await.expect("read");
        let Reading::Entries { entries, cursor: next, horizon, .. } = reading else { panic!("lost: {reading:?}") };
        *cursor = next;
        seen += entries.len();
        last = entries.last().map_or(last, |entry| entry.place);
        if seen == count && horizon > last {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{seen} of {count}");
}

#[tokio::test]
async fn a_reader_that_slept_while_the_log_was_trimmed_is_told() {
    on_database(async |db| {
        let (start, mut awake) = (db.head().await, db.head().await);
        let mut settled = start.clone();
        for _ in 0..3 {
            db.commit().await;
        }
        read_all(db, &mut awake, 3).await;
        assert_eq!(trim_all(db).await, 3);
        for reading in [db.store.log().read(&start, 10).await, db.store.log().read_settled(&settled, 10).await] {
            assert!(matches!(reading, Ok(Reading::Lost { .. })), "{reading:?}");
        }
        settled = db.head().await;
        let committed = db.commit().await;
        assert_eq!(read_ids(&db.store, &mut awake).await, [committed.position.operation]);
        assert!(matches!(db.store.log().read_settled(&settled, 10).await, Ok(Reading::Entries { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_reader_in_the_middle_of_a_chunked_reading_is_told() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        for _ in 0..3 {
            db.commit().await;
        }
        crate::database::read(&db.store, &mut cursor, 1).await;
        trim_all(db).await;
        let reading = db.store.log().read(&cursor, 1).await;
        assert!(matches!(reading, Ok(Reading::Lost { .. })), "{reading:?}");
    })
    .await;
}

#[tokio::test]
async fn a_sleeping_reader_of_a_log_in_which_nothing_happened_has_lost_nothing() {
    on_database(async |db| {
        let cursor = db.head().await;
        for _ in 0..3 {
            // Transactions of others move the horizon.
            db.other.execute("SELECT pg_current_xact_id()", &[]).await.expect("an id");
            db.store.log().trim(Duration::ZERO).await.expect("trimmed");
        }
        let reading = db.store.log().read(&cursor, 1).await;
        assert!(matches!(reading, Ok(Reading::Entries { .. })), "{reading:?}");
    })
    .await;
}

#[tokio::test]
async fn a_long_stranger_makes_nobody_lose_anything_and_keeps_what_is_above_it() {
    on_database(async |db| {
        let stranger = connect(&db.url).await;
        stranger.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("an id is held");
        let mut cursor = db.head().await;
        for _ in 0..3 {
            let committed = db.commit().await;
            assert_eq!(db.store.log().trim(Duration::ZERO).await.expect("trimmed"), 0);
            assert_eq!(read_ids(&db.store, &mut cursor).await, [committed.position.operation]);
            assert_eq!(db.store.log().trim(Duration::ZERO).await.expect("trimmed"), 0);
        }
        stranger.batch_execute("COMMIT").await.expect("committed");
        assert_eq!(trim_all(db).await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_long_transaction_of_another_database_keeps_nothing_and_who_has_read_all_has_lost_nothing() {
    on_database(async |db| {
        let (asleep, mut awake, neighbour) = (db.head().await, db.head().await, db.neighbour().await);
        let mut settled = awake.clone();
        let mut last = Place::default();
        for _ in 0..3 {
            last = db.commit().await.position.place;
        }
        // Shows the neighbour running, and operations after it.
        let mut middle = db.head().await;
        read_until(db, &mut middle, last).await;
        read_all(db, &mut awake, 3).await;
        let mut count = 0;
        while count < 3 {
            let reading = db.store.log().read_settled(&settled, 10).await.expect("read");
            let Reading::Entries { entries, cursor, .. } = reading else { panic!("lost: {reading:?}") };
            (settled, count) = (cursor, count + entries.len());
        }
        assert_eq!(trim_all(db).await, 3);
        let reading = db.store.log().read(&asleep, 10).await;
        assert!(matches!(reading, Ok(Reading::Lost { .. })), "{reading:?}");
        let check = async |cursors: [&Cursor; 2]| {
            for cursor in cursors {
                let reading = db.store.log().read(cursor, 10).await;
                assert!(matches!(reading, Ok(Reading::Entries { .. })), "{reading:?}");
            }
            let reading = db.store.log().read_settled(&settled, 10).await;
            assert!(matches!(reading, Ok(Reading::Entries { .. })), "{reading:?}");
        };
        check([&awake, &middle]).await;
        // Who has seen it run, as before a reader has looked which database it is of.
        let (start, seen) = awake.as_str().rsplit_once('/').expect("a snapshot");
        let end = seen.split(':').nth(1).expect("an end");
        let early = Cursor::new(format!("{start}/{id}:{end}:{id}", id = neighbour.id));
        let log = db.store.log();
        for reading in [log.read(&early, 10).await, log.read_settled(&early, 10).await] {
            assert!(matches!(reading, Ok(Reading::Entries { .. })), "{reading:?}");
        }
        // Nobody can say any more which database it was of.
        neighbour.leave().await;
        check([&awake, &middle]).await;
        let last = db.commit().await.position.operation;
        assert_eq!(read_ids(&db.store, &mut awake).await, [last]);
    })
    .await;
}

#[tokio::test]
async fn what_was_not_visible_for_long_enough_is_kept_however_old_its_row_is() {
    on_database(async |db| {
        let keep = Duration::from_millis(1_500);
        let late = connect(&db.url).await;
        late.batch_execute("BEGIN").await.expect("begun");
        let insert =
            format!("INSERT INTO {}.operations (id, origin, body) VALUES (gen_random_uuid(), gen_random_uuid(), '{{}}')", db.quoted());
        late.execute(&insert, &[]).await.expect("written");
        assert_eq!(db.store.log().trim(keep).await.expect("trimmed"), 0);
        tokio::time::sleep(keep * 2).await;
        late.batch_execute("COMMIT").await.expect("committed");
        assert_eq!(db.store.log().trim(keep).await.expect("trimmed"), 0);
        assert_eq!(db.count("operations").await, 1);
        let mut removed = 0;
        for _ in 0..200 {
            removed += db.store.log().trim(keep).await.expect("trimmed");
            if removed == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never removed");
    })
    .await;
}

#[tokio::test]
async fn more_than_one_step_is_trimmed_and_counted() {
    on_database(async |db| {
        let fill = format!(
            "INSERT INTO {s}.operations (xid, id, origin, body) SELECT '3', gen_random_uuid(), gen_random_uuid(), '{{}}'
             FROM generate_series(1, 9000)",
            s = db.quoted()
        );
        db.other.batch_execute(&fill).await.expect("filled");
        assert_eq!(db.store.log().trim(Duration::from_secs(3600)).await.expect("trimmed"), 0);
        assert_eq!(trim_all(db).await, 9000);
    })
    .await;
}

#[tokio::test]
async fn the_journal_is_trimmed_by_age() {
    on_database(async |db| {
        let id = CommandId::random();
        let mut draft = draft();
        draft.journal = Some(NewJournalEntry { id: id.clone(), command: "c".into(), digest: 0, result: "1".into() });
        db.commit_draft(draft).await;
        assert_eq!(db.store.trim_journal(Duration::from_secs(3600)).await.expect("trimmed"), 0);
        assert!(db.store.journaled(&id).await.expect("asked").is_some());
        assert_eq!(db.store.trim_journal(Duration::ZERO).await.expect("trimmed"), 1);
        assert!(db.store.journaled(&id).await.expect("asked").is_none());
        assert_eq!(db.store.trim_journal(Duration::MAX).await.expect("trimmed"), 0);
    })
    .await;
}
