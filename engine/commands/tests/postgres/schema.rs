//! The tables: how they come to be, and whose they are.

use wellspring_commands::postgres::Postgres;
use wellspring_commands::{CommandId, NewJournalEntry, Reading, Store, StoreErrorKind};

use crate::database::{draft, on_database, read_ids};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_together_make_one_log() {
    on_database(async |db| {
        db.other.batch_execute(&format!("DROP SCHEMA {} CASCADE", db.quoted())).await.expect("dropped");
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let builder = Postgres::builder(&db.url).schema(&db.schema).pool(1);
                tokio::spawn(async move { builder.connect().await.expect("connected") })
            })
            .collect();
        let mut ids = Vec::new();
        for start in starts {
            ids.push(start.await.expect("ran").log().id());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
        assert_eq!(db.server().await.log().id(), ids[0]);
    })
    .await;
}

#[tokio::test]
async fn tables_of_another_version_are_refused() {
    on_database(async |db| {
        db.other.execute(&format!("UPDATE {}.meta SET version = 99", db.quoted()), &[]).await.expect("changed");
        let error = Postgres::builder(&db.url).schema(&db.schema).connect().await.expect_err("refused");
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("99"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn tables_from_before_the_boots_had_names_are_completed() {
    on_database(async |db| {
        db.other.batch_execute(&format!("DROP TABLE {}.boot", db.quoted())).await.expect("dropped");
        let store = db.server().await;
        assert_eq!(store.log().id(), db.store.log().id());
        let mut cursor = store.log().head().await.expect("a head").cursor;
        let next = db.commit().await.position.operation;
        assert_eq!(read_ids(&store, &mut cursor).await, [next]);
    })
    .await;
}

#[tokio::test]
async fn a_dump_that_is_restored_in_another_cluster_begins_a_new_log() {
    on_database(async |db| {
        let id = CommandId::random();
        let mut draft = draft();
        draft.journal = Some(NewJournalEntry { id: id.clone(), command: "c".into(), digest: 0, result: "1".into() });
        let cursor = db.head().await;
        let committed = db.commit_draft(draft).await;
        db.other.execute(&format!("UPDATE {}.meta SET system = system + 1", db.quoted()), &[]).await.expect("changed");
        let restored = db.server().await;
        assert_ne!(restored.log().id(), committed.position.log);
        let reading = restored.log().read(&cursor, 10).await;
        assert!(matches!(reading, Ok(Reading::Lost { .. })), "{reading:?}");
        assert_eq!(db.count("operations").await, 0);
        let entry = restored.journaled(&id).await.expect("asked").expect("still known");
        assert_eq!(entry.position, committed.position);
        let mut cursor = restored.log().head().await.expect("a head").cursor;
        assert_eq!(read_ids(&restored, &mut cursor).await, []);
    })
    .await;
}

#[tokio::test]
async fn a_dump_that_is_restored_over_the_tables_in_their_cluster_is_found_out_by_every_reader_from_before() {
    on_database(async |db| {
        let head = db.head().await;
        db.commit().await;
        // What `pg_dump` takes along, and `pg_restore --clean` puts into tables that it makes anew.
        let (s, tables) = (db.quoted(), ["meta", "boot", "operations"]);
        let saved = format!("saved_{}", uuid::Uuid::new_v4().simple());
        let save: Vec<_> = tables.iter().map(|table| format!("CREATE TABLE {saved}.{table} AS SELECT * FROM {s}.{table};")).collect();
        db.other.batch_execute(&format!("CREATE SCHEMA {saved}; {}", save.concat())).await.expect("saved");
        let (mut read, mut settled, mut within) = (head.clone(), head.clone(), head);
        // In no dump, and read.
        db.commit().await;
        assert_eq!(read_ids(&db.store, &mut read).await.len(), 2);
        let reading = db.store.log().read_settled(&settled, 1).await;
        if let Ok(Reading::Entries { cursor, .. }) = reading {
            settled = cursor;
        }
        assert!(crate::database::read(&db.store, &mut within, 1).await.1, "there is more");
        db.other.batch_execute(&format!("DROP SCHEMA {s} CASCADE")).await.expect("dropped");
        db.server().await;
        let restore = tables.iter().map(|table| format!("DELETE FROM {s}.{table}; INSERT INTO {s}.{table} SELECT * FROM {saved}.{table};"));
        let restore = format!("BEGIN; {} COMMIT; DROP SCHEMA {saved} CASCADE", restore.collect::<String>());
        db.other.batch_execute(&restore).await.expect("restored");
        let restored = db.server().await;
        assert_eq!(restored.log().id(), db.store.log().id());
        for store in [&db.store, &restored] {
            let log = store.log();
            for reading in [log.read(&read, 9).await, log.read(&within, 9).await, log.read_settled(&settled, 9).await] {
                let Ok(Reading::Lost { reason, .. }) = reading else { panic!("{reading:?}") };
                assert!(reason.contains("made anew"), "{reason}");
            }
        }
        let mut cursor = db.head().await;
        let next = db.commit().await.position.operation;
        assert_eq!(read_ids(&restored, &mut cursor).await, [next]);
    })
    .await;
}

#[tokio::test]
async fn a_role_that_may_create_nothing_can_use_tables_that_are_there() {
    on_database(async |db| {
        let role = format!("role_{}", uuid::Uuid::new_v4().simple());
        let (schema, url) = (db.quoted(), format!("{}?user={role}", db.url));
        let make = format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
        );
        db.other.batch_execute(&make).await.expect("made");
        let store = Postgres::builder(&url).schema(&db.schema).connect().await.expect("connected");
        let mut cursor = db.head().await;
        let tx = store.begin().await.expect("begun");
        let user: String = tx.query_one("SELECT current_user::text", &[]).await.expect("asked").get(0);
        assert_eq!(user, role);
        let committed = store.commit(tx, draft()).await.expect("committed");
        assert_eq!(read_ids(&store, &mut cursor).await, [committed.position.operation]);
        drop(store);
        db.until(&format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = '{role}')")).await;
        db.other.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.expect("dropped");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_the_password_is_in_no_text() {
    on_database(async |_| {
        let builder = Postgres::builder("postgres://somebody:secret@127.0.0.1:1/nothing");
        assert!(!format!("{builder:?}").contains("secret"));
        let error = builder.connect().await.expect_err("refused");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(!format!("{error} {error:?}").contains("secret"));
    })
    .await;
}
