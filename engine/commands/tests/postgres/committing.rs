//! What one transaction takes along.

use wellspring_commands::{CommandId, CommitError, Duplicate, LoggedKey, NewEvent, NewJournalEntry, Store, StoreErrorKind, Verdict};

use crate::database::{draft, on_database, on_database_with, read_ids};

fn journal(id: &CommandId) -> NewJournalEntry {
    NewJournalEntry { id: id.clone(), command: "test".into(), digest: u128::MAX - 1, result: "[1]".into() }
}

#[tokio::test]
async fn an_operation_is_read_as_it_was_written() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        let mut draft = draft();
        draft.add_key(LoggedKey { function: "f".into(), key: Some("[\"\\u0000'\"]".into()) });
        let (operation, origin, body) = (draft.operation, draft.origin, draft.body());
        let committed = db.commit_draft(draft).await;
        let (entries, more) = crate::database::read(&db.store, &mut cursor, 10).await;
        assert!(!more);
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((entry.operation, entry.origin, entry.body.as_str()), (operation, origin, body.as_str()));
        assert_eq!((entry.place, committed.position.log), (committed.position.place, db.store.log().id()));
        assert_eq!(committed.keys.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn rows_of_a_rolled_back_handler_are_not_there_and_neither_is_its_operation() {
    on_database(async |db| {
        db.other.batch_execute(&format!("CREATE TABLE {}.rows (n int)", db.quoted())).await.expect("made");
        let insert = format!("INSERT INTO {}.rows VALUES (1)", db.quoted());
        let tx = db.store.begin().await.expect("begun");
        let pid = db.backend_of(&tx).await;
        tx.execute(&insert, &[]).await.expect("inserted");
        drop(tx);
        db.until(&format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND xact_start IS NOT NULL)")).await;
        assert_eq!((db.count("rows").await, db.count("operations").await), (0, 0));
        let tx = db.store.begin().await.expect("begun");
        tx.execute(&insert, &[]).await.expect("inserted");
        db.store.commit(tx, draft()).await.expect("committed");
        assert_eq!((db.count("rows").await, db.count("operations").await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_command_that_is_repeated_is_recognised_and_writes_nothing() {
    on_database(async |db| {
        let id = CommandId::random();
        let mut first = draft();
        first.journal = Some(journal(&id));
        let committed = db.commit_draft(first).await;
        let entry = db.store.journaled(&id).await.expect("asked").expect("journaled");
        assert_eq!((entry.command.as_str(), entry.digest, entry.result.as_str()), ("test", u128::MAX - 1, "[1]"));
        assert_eq!(entry.position, committed.position);
        let mut second = draft();
        second.journal = Some(journal(&id));
        let tx = db.store.begin().await.expect("begun");
        let repeated = db.store.commit(tx, second).await;
        assert!(matches!(repeated, Err(CommitError::Repeated)), "{repeated:?}");
        assert_eq!(db.count("operations").await, 1);
        assert!(db.store.journaled(&CommandId::random()).await.expect("asked").is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_eight_servers_with_one_command_one_commits_it() {
    on_database(async |db| {
        let id = CommandId::random();
        let tries = (0..8).map(|_| {
            let (store, id) = (db.store.clone(), id.clone());
            tokio::spawn(async move {
                let mut draft = draft();
                draft.journal = Some(journal(&id));
                let tx = store.begin().await.expect("begun");
                match store.commit(tx, draft).await {
                    Ok(_) => 1,
                    Err(CommitError::Repeated) => 0,
                    Err(error) => panic!("{error:?}"),
                }
            })
        });
        let mut committed = 0;
        for one in tries.collect::<Vec<_>>() {
            committed += one.await.expect("ran");
        }
        assert_eq!((committed, db.count("operations").await, db.count("journal").await), (1, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_commits_by_itself_is_told_and_its_operation_is_not_written() {
    on_database(async |db| {
        for end in ["COMMIT", "ROLLBACK", "COMMIT; BEGIN", "COMMIT AND CHAIN"] {
            let mut draft = draft();
            draft.journal = Some(journal(&CommandId::random()));
            draft.add_event(NewEvent { partition: Some("p".into()), ..NewEvent::new("e", "1") });
            for draft in [crate::database::draft(), draft] {
                let tx = db.store.begin().await.expect("begun");
                tx.batch_execute(end).await.expect("ended");
                let result = db.store.commit(tx, draft).await;
                let Err(CommitError::Failed(error)) = result else { panic!("after {end}: {result:?}") };
                assert!(error.to_string().contains("ended the transaction itself"), "{error}");
            }
        }
        assert_eq!((db.count("operations").await, db.count("events").await, db.count("journal").await), (0, 0, 0));
        let mut cursor = db.head().await;
        let committed = db.commit().await;
        assert_eq!(read_ids(&db.store, &mut cursor).await, [committed.position.operation]);
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_swallows_an_error_of_its_transaction_does_not_commit() {
    on_database(async |db| {
        let tx = db.store.begin().await.expect("begun");
        assert!(tx.batch_execute("SELECT 1 / 0").await.is_err());
        let result = db.store.commit(tx, draft()).await;
        assert!(matches!(result, Err(CommitError::Failed(_))), "{result:?}");
        assert_eq!(db.count("operations").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_deferred_rule_that_is_broken_at_the_commit_fails_it() {
    on_database(async |db| {
        let table = format!("{}.rows", db.quoted());
        let make = format!("CREATE TABLE {table} (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO {table} VALUES (1)");
        db.other.batch_execute(&make).await.expect("made");
        let tx = db.store.begin().await.expect("begun");
        tx.batch_execute(&format!("INSERT INTO {table} VALUES (1)")).await.expect("not looked at yet");
        let result = db.store.commit(tx, draft()).await;
        let Err(CommitError::Failed(error)) = result else { panic!("{result:?}") };
        assert_eq!(error.kind(), StoreErrorKind::Constraint);
        assert_eq!(db.count("operations").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_serialization_failure_is_transient() {
    on_database_with(
        |builder| builder.isolation(tokio_postgres::IsolationLevel::Serializable),
        async |db| {
            let table = format!("{}.rows", db.quoted());
            let make = format!("CREATE TABLE {table} (n int); INSERT INTO {table} VALUES (1), (2)");
            db.other.batch_execute(&make).await.expect("made");
            let (a, b) = (db.store.begin().await.expect("begun"), db.store.begin().await.expect("begun"));
            for tx in [&a, &b] {
                tx.batch_execute(&format!("SELECT sum(n) FROM {table}; INSERT INTO {table} VALUES (3)")).await.expect("written");
            }
            db.store.commit(a, draft()).await.expect("committed");
            let result = db.store.commit(b, draft()).await;
            let Err(CommitError::Failed(error)) = result else { panic!("{result:?}") };
            assert!(error.is_transient() && db.store.is_transient(&error), "{error}");
        },
    )
    .await;
}

#[tokio::test]
async fn an_error_of_the_handlers_own_query_is_known_to_be_transient_or_not() {
    on_database(async |db| {
        let transient = db.other.batch_execute("DO $$BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END$$").await.expect_err("raised");
        let final_ = db.other.batch_execute("SELECT 1 / 0").await.expect_err("raised");
        assert!(db.store.is_transient(&transient) && !db.store.is_transient(&final_));
        assert!(!db.store.is_transient(&std::fmt::Error));
    })
    .await;
}

#[tokio::test]
async fn a_read_only_database_is_named_as_such() {
    on_database(async |db| {
        let tx = db.store.begin().await.expect("begun");
        tx.batch_execute("SET LOCAL transaction_read_only = on").await.expect("set");
        let result = db.store.commit(tx, draft()).await;
        let Err(CommitError::Failed(error)) = result else { panic!("{result:?}") };
        assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
    })
    .await;
}

fn event(key: &str, payload: &str, duplicate: Duplicate) -> NewEvent {
    NewEvent { key: Some(key.into()), duplicate, ..NewEvent::new("e", payload) }
}

#[tokio::test]
async fn a_duplicate_event_fails_the_operation_or_is_skipped_or_replaces_what_waits() {
    on_database(async |db| {
        let commit = async |event: NewEvent| {
            let mut draft = draft();
            draft.add_event(event);
            let tx = db.store.begin().await.expect("begun");
            db.store.commit(tx, draft).await
        };
        let payload = async || {
            let rows = db.other.query(&format!("SELECT payload FROM {}.events", db.quoted()), &[]).await.expect("read");
            assert_eq!(rows.len(), 1);
            rows[0].get::<_, String>(0)
        };
        commit(event("k", "1", Duplicate::Fail)).await.expect("committed");
        let failed = commit(event("k", "2", Duplicate::Fail)).await;
        let Err(CommitError::Failed(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.kind(), StoreErrorKind::Constraint);
        assert!(error.to_string().contains("`e` with the key `k`"), "{error}");
        assert_eq!(db.count("operations").await, 1);
        commit(event("k", "3", Duplicate::Skip)).await.expect("committed");
        assert_eq!(payload().await, "1");
        let replacing = event("k", "4", Duplicate::Update);
        commit(replacing.clone()).await.expect("committed");
        assert_eq!(payload().await, "4");

        let queue = db.store.events();
        let claim = queue.claim(&["e".into()], 10, std::time::Duration::from_secs(60)).await.expect("claimed");
        assert_eq!(claim.events[0].id, replacing.id);
        let failed = commit(event("k", "5", Duplicate::Update)).await;
        let Err(CommitError::Failed(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.kind(), StoreErrorKind::Constraint);
        assert!(queue.complete(&claim.events[0]).await.expect("completed"));
        commit(event("k", "6", Duplicate::Skip)).await.expect("committed");
        assert!(commit(event("k", "7", Duplicate::Update)).await.is_err());
        assert_eq!((payload().await.as_str(), db.count("operations").await), ("4", 4));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_producers_with_the_same_events_in_any_order_never_lock_each_other_out() {
    on_database(async |db| {
        for duplicate in [Duplicate::Fail, Duplicate::Skip, Duplicate::Update] {
            let producers = (0..8).map(|producer| {
                let store = db.store.clone();
                tokio::spawn(async move {
                    let mut committed = 0;
                    for round in 0..20 {
                        let mut draft = draft();
                        for n in 0..6_u64 {
                            let key = format!("{duplicate:?}-{round}-{}", (n * 5 + producer) % 6);
                            let partition = Some(format!("p{}", (n + producer) % 3));
                            draft.add_event(NewEvent { partition, ..event(&key, "1", duplicate) });
                        }
                        let tx = store.begin().await.expect("begun");
                        match store.commit(tx, draft).await {
                            Ok(_) => committed += 1,
                            Err(CommitError::Failed(error)) if error.kind() == StoreErrorKind::Constraint => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    committed
                })
            });
            let mut committed = 0;
            for producer in producers.collect::<Vec<_>>() {
                committed += producer.await.expect("ran");
            }
            assert_eq!(committed, if duplicate == Duplicate::Fail { 20 } else { 160 });
        }
        assert_eq!(db.count("events").await, 3 * 20 * 6);
    })
    .await;
}

#[tokio::test]
async fn a_commit_is_verified_by_its_transaction() {
    on_database(async |db| {
        let committed = db.commit().await;
        let doubt = |position: wellspring_commands::LogPosition| wellspring_commands::Doubt {
            position,
            keys: Vec::new(),
            ticket: position.place.major,
        };
        assert_eq!(db.store.verify(&doubt(committed.position)).await.expect("asked"), Verdict::Committed);
        let foreign = wellspring_commands::LogPosition { operation: wellspring_commands::OperationId::new(), ..committed.position };
        assert_eq!(db.store.verify(&doubt(foreign)).await.expect("asked"), Verdict::RolledBack);
        let future = wellspring_commands::Place::new(u64::from(u32::MAX) * 9, 1);
        let future = wellspring_commands::LogPosition { place: future, ..foreign };
        assert_eq!(db.store.verify(&doubt(future)).await.expect("asked"), Verdict::RolledBack);
    })
    .await;
}

#[tokio::test]
async fn an_operation_that_is_in_the_log_already_is_not_committed_a_second_time() {
    on_database(async |db| {
        let first = draft();
        let operation = first.operation;
        db.commit_draft(first).await;
        let mut again = draft();
        again.operation = operation;
        let tx = db.store.begin().await.expect("begun");
        let repeated = db.store.commit(tx, again).await;
        assert!(matches!(repeated, Err(CommitError::Repeated)), "{repeated:?}");
        assert_eq!(db.count("operations").await, 1);
    })
    .await;
}
