//! Which connections are used for what, and for how long.

use std::time::Duration;

use tokio::time::timeout;
use wellspring_commands::{CommandId, Reading, Store, StoreError, StoreErrorKind};

use crate::database::{Database, connect, draft, on_database, on_database_with};

/// So many sessions wait for a lock on a table of this schema.
async fn until_waiting(db: &Database, table: &str, sessions: usize) {
    let relation = format!("{}.{table}", db.quoted()).replace('\'', "''");
    db.until(&format!("SELECT count(*) = {sessions} FROM pg_locks WHERE NOT granted AND relation = '{relation}'::regclass")).await;
}

#[tokio::test]
async fn a_reading_waits_for_no_step_of_the_journal_or_the_outbox() {
    on_database(async |db| {
        let (cursor, blocker) = (db.head().await, connect(&db.url).await);
        let committed = db.commit().await.position.operation;
        blocker.batch_execute(&format!("BEGIN; LOCK TABLE {}.journal", db.quoted())).await.expect("locked");
        let looks: Vec<_> = (0..3)
            .map(|_| {
                let store = db.store.clone();
                tokio::spawn(async move { store.journaled(&CommandId::random()).await })
            })
            .collect();
        until_waiting(db, "journal", 3).await;
        // These go on while all connections for the journal are taken; waiting for one would end in an error after ten seconds.
        let log = db.store.log();
        let Reading::Entries { entries, .. } = log.read(&cursor, 9).await.expect("read") else { panic!("lost") };
        assert_eq!(entries.iter().map(|entry| entry.operation).collect::<Vec<_>>(), [committed]);
        assert!(matches!(log.read_settled(&cursor, 9).await.expect("read"), Reading::Entries { .. }));
        log.head().await.expect("a head");
        blocker.batch_execute("COMMIT").await.expect("unlocked");
        for look in looks {
            assert_eq!(look.await.expect("ran").expect("asked"), None);
        }
    })
    .await;
}

#[tokio::test]
async fn a_step_that_hangs_is_given_up_and_leaves_its_connection_to_others() {
    on_database_with(
        |builder| builder.read_timeout(Duration::from_millis(500)),
        async |db| {
            let (blocker, log, queue) = (connect(&db.url).await, db.store.log(), db.store.events());
            let lock = format!("BEGIN; LOCK TABLE {s}.journal, {s}.events, {s}.operations, {s}.marks", s = db.quoted());
            blocker.batch_execute(&lock).await.expect("locked");
            let kinds = ["e".to_owned()];
            fn late<T: std::fmt::Debug>(result: Result<Result<T, StoreError>, tokio::time::error::Elapsed>) {
                let error = result.expect("given up").expect_err("locked");
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
            }
            const LONG: Duration = Duration::from_secs(20);
            // More than there are connections for them.
            for _ in 0..2 {
                late(timeout(LONG, db.store.journaled(&CommandId::random())).await);
                late(timeout(LONG, db.store.trim_journal(LONG)).await);
                late(timeout(LONG, queue.claim(&kinds, 1, LONG)).await);
                late(timeout(LONG, queue.dead(1)).await);
                late(timeout(LONG, queue.trim(LONG)).await);
                late(timeout(LONG, log.trim(LONG)).await);
            }
            blocker.batch_execute("COMMIT").await.expect("unlocked");
            let claim = async {
                loop {
                    match queue.claim(&kinds, 1, LONG).await {
                        // Half a second may be short for a new connection, too.
                        Err(error) if error.is_transient() => {}
                        claimed => return claimed,
                    }
                }
            };
            assert!(timeout(LONG, claim).await.expect("not for ever").expect("claimed").events.is_empty());
        },
    )
    .await;
}

#[tokio::test]
async fn a_trimming_of_many_steps_may_take_longer_than_one_of_them() {
    on_database_with(
        |builder| builder.read_timeout(Duration::from_secs(4)),
        async |db| {
            let fill = format!(
                "INSERT INTO {s}.operations (xid, id, origin, body) SELECT '3', gen_random_uuid(), gen_random_uuid(), '{{}}'
                 FROM generate_series(1, 9000);
                 CREATE FUNCTION {s}.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.4); RETURN NULL; END';
                 CREATE TRIGGER slow AFTER DELETE ON {s}.operations FOR EACH STATEMENT EXECUTE FUNCTION {s}.slow()",
                s = db.quoted()
            );
            db.other.batch_execute(&fill).await.expect("filled");
            let began = tokio::time::Instant::now();
            assert_eq!(db.store.log().trim(Duration::ZERO).await.expect("trimmed"), 9000);
            assert!(began.elapsed() > Duration::from_secs(4), "it was not slow");
        },
    )
    .await;
}

#[tokio::test]
async fn a_server_has_as_many_connections_as_are_documented() {
    on_database(async |db| {
        let name = format!("counted {}", uuid::Uuid::new_v4());
        let url = format!("{}?application_name={}", db.url, name.replace(' ', "%20"));
        let store = wellspring_commands::postgres::Postgres::builder(&url).schema(&db.schema).pool(2).connect().await.expect("connected");
        let wakeup = store.wakeup();
        let blocker = connect(&db.url).await;
        blocker.batch_execute(&format!("BEGIN; LOCK TABLE {s}.journal, {s}.operations", s = db.quoted())).await.expect("locked");
        let mut work = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (reader, looker, worker) = (store.clone(), store.clone(), store.clone());
            work.spawn(async move { reader.log().head().await.map(drop) });
            work.spawn(async move { looker.journaled(&CommandId::random()).await.map(drop) });
            work.spawn(async move {
                let tx = worker.begin().await?;
                worker.commit(tx, draft()).await.map(drop).map_err(|error| panic!("{error:?}"))
            });
        }
        until_waiting(db, "journal", 3).await;
        // Two that read, two that append.
        until_waiting(db, "operations", 4).await;
        let count = format!("SELECT count(*) = 8 FROM pg_stat_activity WHERE application_name = '{name}'");
        db.until(&count).await;
        blocker.batch_execute("COMMIT").await.expect("unlocked");
        while let Some(done) = work.join_next().await {
            done.expect("ran").expect("well");
        }
        db.until(&count).await;
        drop(wakeup);
    })
    .await;
}
