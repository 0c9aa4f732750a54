//! Hints between servers.

use std::time::Duration;

use tokio::time::timeout;
use wellspring_commands::{Hints, Store, Wakeup};

use crate::database::{Database, on_database};

/// The sessions that listen on behalf of this schema.
async fn listeners(db: &Database) -> Vec<i32> {
    let channel = channel(db).replace('\'', "''");
    let query = format!("SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN {channel}%' OR query LIKE 'NOTIFY {channel}%'");
    db.other.query(&query, &[]).await.expect("asked").iter().map(|row| row.get(0)).collect()
}

fn channel(db: &Database) -> String {
    format!("\"wellspring_{}\"", db.schema.replace('"', "\"\""))
}

async fn until_listening(db: &Database, servers: usize) {
    for _ in 0..2_000 {
        if listeners(db).await.len() == servers {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not {servers} listeners: {:?}", listeners(db).await);
}

/// Waits for a hint of the other server: it sends until one arrives, as hints may be lost.
async fn hear(from: &dyn Wakeup, hints: &mut Hints) {
    for _ in 0..200 {
        from.notify();
        if timeout(Duration::from_millis(50), hints.next()).await.is_ok() {
            return;
        }
    }
    panic!("no hint ever arrived");
}

#[tokio::test]
async fn a_hint_reaches_other_servers_and_the_own_one() {
    on_database(async |db| {
        let other = db.server().await;
        let (here, there) = (db.store.wakeup(), other.wakeup());
        until_listening(db, 2).await;
        let (mut own, mut others) = (here.hints(), there.hints());
        here.notify();
        timeout(Duration::from_secs(10), own.next()).await.expect("at once");
        timeout(Duration::from_secs(10), others.next()).await.expect("over the network");
    })
    .await;
}

#[tokio::test]
async fn many_commits_become_few_notifications_and_the_last_one_is_never_left_out() {
    on_database(async |db| {
        let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let (raw, mut messages) = tokio_postgres::connect(&db.url, tokio_postgres::NoTls).await.expect("connected");
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| messages.poll_message(cx)).await {
                if let tokio_postgres::AsyncMessage::Notification(_) = message {
                    send.send(()).expect("heard");
                }
            }
        });
        raw.batch_execute(&format!("LISTEN {}", channel(db))).await.expect("listening");
        let here = db.store.wakeup();
        until_listening(db, 2).await;
        for _ in 0..10_000 {
            here.notify();
        }
        timeout(Duration::from_secs(10), heard.recv()).await.expect("in time").expect("one");
        let mut count = 1;
        while timeout(Duration::from_millis(300), heard.recv()).await.is_ok() {
            count += 1;
        }
        // One was under way when the others came, one follows for all of those.
        assert!(count <= 3, "{count}");
        here.notify();
        timeout(Duration::from_secs(10), heard.recv()).await.expect("in time").expect("one");
    })
    .await;
}

#[tokio::test]
async fn hints_arrive_again_after_the_listening_connection_was_killed_and_the_gap_is_hinted() {
    on_database(async |db| {
        let other = db.server().await;
        let (here, there) = (db.store.wakeup(), other.wakeup());
        until_listening(db, 2).await;
        let mut hints = there.hints();
        for _ in 0..3 {
            for pid in listeners(db).await {
                db.kill(pid).await;
            }
            // Without any notification: what was sent meanwhile is lost, and this stands for it.
            timeout(Duration::from_secs(20), hints.next()).await.expect("hinted after the gap");
            until_listening(db, 2).await;
            hear(&*here, &mut hints).await;
        }
        db.commit().await;
    })
    .await;
}

#[tokio::test]
async fn no_connection_listens_after_the_last_clone_is_gone() {
    on_database(async |db| {
        let other = db.server().await;
        let wakeup = other.wakeup();
        until_listening(db, 1).await;
        drop(other);
        until_listening(db, 1).await;
        drop(wakeup);
        until_listening(db, 0).await;
    })
    .await;
}
