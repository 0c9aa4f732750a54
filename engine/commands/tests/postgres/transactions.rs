//! Transactions that are let go of in the middle.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use wellspring_commands::{CommitError, Draft, NewEvent, Store, StoreErrorKind};

use crate::database::{Database, draft, on_database, on_database_with, read_ids};

/// Polls a future so many times at most, each time when it was woken, and then lets go of it. Whether it was done by then.
async fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    struct Woken(tokio::sync::Notify);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.notify_one();
        }
    }
    let woken = Arc::new(Woken(tokio::sync::Notify::new()));
    let waker = Waker::from(woken.clone());
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        woken.0.notified().await;
    }
    None
}

/// No session under this application name has a transaction open.
async fn until_none_is_open(db: &Database, application: &str) {
    let open =
        format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '{application}' AND xact_start IS NOT NULL)");
    db.until(&open).await;
}

fn full_draft() -> Draft {
    let mut draft = draft();
    draft.add_event(NewEvent { partition: Some("p".into()), key: Some(draft.operation.to_string()), ..NewEvent::new("e", "1") });
    draft
}

#[tokio::test]
async fn a_command_that_is_dropped_at_any_await_point_leaves_no_transaction_and_is_whole_or_absent() {
    on_database(async |db| {
        let application = format!("t{}", uuid::Uuid::new_v4().simple());
        let url = format!("{}?application_name={application}", db.url);
        let store = wellspring_commands::postgres::Postgres::builder(&url).schema(&db.schema).pool(2).connect().await.expect("connected");
        db.other.batch_execute(&format!("CREATE TABLE {}.rows (id uuid)", db.quoted())).await.expect("made");
        let insert = format!("INSERT INTO {}.rows VALUES ($1)", db.quoted());
        let mut finished = 0;
        for round in 0..60 {
            let draft = full_draft();
            let id = uuid::Uuid::from_u128(draft.operation.as_u128());
            let command = async {
                let tx = store.begin().await.expect("begun");
                tx.execute(&insert, &[&id]).await.expect("inserted");
                store.commit(tx, draft).await.expect("committed")
            };
            finished += usize::from(poll_times(command, round % 20 + 1).await.is_some());
        }
        assert!(finished > 0, "none was ever finished");
        until_none_is_open(db, &application).await;
        let whole = format!(
            "SELECT count(*) FROM {s}.rows r FULL JOIN {s}.operations o ON o.id = r.id FULL JOIN {s}.events e ON e.key = o.id::text
             WHERE r.id IS NULL OR o.id IS NULL OR e.id IS NULL",
            s = db.quoted()
        );
        assert_eq!(db.other.query_one(&whole, &[]).await.expect("counted").get::<_, i64>(0), 0);
        assert!(db.count("rows").await >= finished as i64);
        // Both connections of the pool can be had again.
        let (a, b) = (store.begin().await.expect("begun"), store.begin().await.expect("begun"));
        store.commit(a, self::draft()).await.expect("committed");
        store.commit(b, self::draft()).await.expect("committed");
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_is_dropped_in_a_long_query_does_not_go_on_in_the_database() {
    on_database(async |db| {
        let tx = db.store.begin().await.expect("begun");
        let pid = db.backend_of(&tx).await;
        tx.batch_execute("SELECT pg_current_xact_id()").await.expect("an id is held");
        {
            let mut query = pin!(tx.batch_execute("SELECT pg_sleep(600)"));
            let sleeping = format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep')");
            tokio::select! {
                _ = query.as_mut() => panic!("it ended"),
                () = db.until(&sleeping) => {}
            }
        }
        drop(tx);
        db.until_gone(pid).await;
        db.commit().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_looks_after_its_client() {
    on_database(async |db| {
        let tx = db.store.begin().await.expect("begun");
        let query =
            "SELECT current_setting('tcp_keepalives_idle'), coalesce(current_setting('client_connection_check_interval', true), '5s')";
        let row = tx.query_one(query, &[]).await.expect("asked");
        assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("15", "5s"));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_killed_under_a_handler_fails_the_command_and_the_next_one_works() {
    on_database(async |db| {
        let mut cursor = db.head().await;
        let tx = db.store.begin().await.expect("begun");
        let pid = db.backend_of(&tx).await;
        db.kill(pid).await;
        let result = db.store.commit(tx, draft()).await;
        let Err(CommitError::Failed(error)) = result else { panic!("{result:?}") };
        assert!(error.is_transient(), "{error}");
        let committed = db.commit().await;
        assert_eq!(read_ids(&db.store, &mut cursor).await, [committed.position.operation]);
    })
    .await;
}

#[tokio::test]
async fn idle_connections_that_were_killed_are_replaced_without_an_error() {
    on_database(async |db| {
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(db.store.begin().await.expect("begun"));
        }
        let mut pids = Vec::new();
        for tx in &open {
            pids.push(db.backend_of(tx).await);
        }
        for tx in open {
            db.store.commit(tx, draft()).await.expect("committed");
        }
        for pid in pids {
            db.kill(pid).await;
        }
        for _ in 0..8 {
            db.commit().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_handler_waits_its_turn_for_a_connection_and_not_for_ever() {
    on_database_with(
        |builder| builder.pool(1).pool_timeout(Duration::from_millis(200)),
        async |db| {
            let tx = db.store.begin().await.expect("begun");
            let error = db.store.begin().await.expect_err("none is free");
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            let (next, ()) = tokio::join!(db.store.begin(), async { drop(tx) });
            drop(next.expect("begun"));
        },
    )
    .await;
}
