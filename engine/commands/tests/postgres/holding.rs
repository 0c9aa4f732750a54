//! Consumers with a name.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;
use wellspring_commands::{Cursor, Store, StoreErrorKind};

use crate::database::{Database, on_database};

/// The session that holds a consumer: the only one in this database with this schema's lock.
async fn holder(db: &Database) -> i32 {
    // One test, one schema, one lock held for longer than a moment: found by what the session last did.
    let query = format!(
        "SELECT a.pid FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
         WHERE a.query LIKE '%{}%'",
        db.quoted().replace('\'', "''")
    );
    db.other.query_one(&query, &[]).await.expect("one holder").get(0)
}

#[tokio::test]
async fn of_two_holders_of_one_name_the_second_is_refused_or_waits() {
    on_database(async |db| {
        let (here, there) = (db.store.consumers(), db.server().await.consumers());
        let first = here.try_hold("a").await.expect("asked").expect("free");
        assert!(there.try_hold("a").await.expect("asked").is_none());
        assert!(there.try_hold("b").await.expect("asked").is_some());
        let second = there.hold("a");
        let mut second = std::pin::pin!(second);
        assert!(timeout(Duration::from_millis(300), &mut second).await.is_err(), "both hold it");
        first.save(&Cursor::new("1")).await.expect("saved");
        drop(first);
        let second = timeout(Duration::from_secs(10), second).await.expect("in time").expect("held");
        assert_eq!(second.cursor().await.expect("read"), Some(Cursor::new("1")));
        assert!(here.try_hold("a").await.expect("asked").is_none());
    })
    .await;
}

#[tokio::test]
async fn who_stops_waiting_for_a_name_does_not_get_it() {
    on_database(async |db| {
        let consumers = db.store.consumers();
        let first = consumers.hold("a").await.expect("held");
        assert!(timeout(Duration::from_millis(300), consumers.hold("a")).await.is_err());
        let waiting = format!(
            "SELECT NOT EXISTS (SELECT FROM pg_locks w JOIN pg_locks h USING (locktype, classid, objid)
             WHERE NOT w.granted AND h.granted AND h.pid = {})",
            holder(db).await
        );
        db.until(&waiting).await;
        drop(first);
        let again = timeout(Duration::from_secs(10), consumers.hold("a")).await.expect("in time").expect("held");
        assert_eq!(again.cursor().await.expect("read"), None);
    })
    .await;
}

#[tokio::test]
async fn a_holder_whose_session_was_killed_learns_of_it_and_the_next_one_takes_over() {
    on_database(async |db| {
        let consumers = db.store.consumers();
        let first = consumers.hold("a").await.expect("held");
        first.save(&Cursor::new("1")).await.expect("saved");
        let mut lost = first.lost();
        assert!((&mut lost).now_or_never().is_none());
        let pid = holder(db).await;
        let second = consumers.hold("a");
        db.kill(pid).await;
        timeout(Duration::from_secs(10), lost).await.expect("it is told");
        let second = timeout(Duration::from_secs(10), second).await.expect("in time").expect("held");
        assert!(first.save(&Cursor::new("2")).await.is_err());
        assert_eq!(second.cursor().await.expect("read"), Some(Cursor::new("1")));
        second.save(&Cursor::new("3")).await.expect("saved");
    })
    .await;
}

#[tokio::test]
async fn a_holder_that_was_overtaken_without_noticing_saves_nothing() {
    on_database(async |db| {
        let consumers = db.store.consumers();
        let first = consumers.hold("a").await.expect("held");
        first.save(&Cursor::new("1")).await.expect("saved");
        // As if its lock had gone with a session that the server gave up and the client had not heard of it.
        db.other.execute(&format!("UPDATE {}.consumers SET epoch = epoch + 1", db.quoted()), &[]).await.expect("overtaken");
        let error = first.save(&Cursor::new("2")).await.expect_err("fenced");
        assert_eq!(error.kind(), StoreErrorKind::Fenced);
        assert_eq!(first.cursor().await.expect("read"), Some(Cursor::new("1")));
    })
    .await;
}
