//! Hints between servers.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_postgres::Client;
use wellspring_commands::{Hints, NewEvent, Store, Wakeup};

use crate::database::{Database, draft, on_database};

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

/// Hears of each notification of this schema, as another server would.
async fn overhear(db: &Database) -> (Client, UnboundedReceiver<()>) {
    let (send, heard) = unbounded_channel();
    let (raw, mut messages) = tokio_postgres::connect(&db.url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| messages.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(_) = message {
                send.send(()).expect("heard");
            }
        }
    });
    raw.batch_execute(&format!("LISTEN {}", channel(db))).await.expect("listening");
    (raw, heard)
}

#[tokio::test]
async fn whoever_waits_behind_an_event_that_is_done_or_dead_hears_of_it() {
    const LONG: Duration = Duration::from_secs(10);
    on_database(async |db| {
        let (_raw, mut heard) = overhear(db).await;
        let (queue, wakeup) = (db.store.events(), db.store.wakeup());
        until_listening(db, 2).await;
        let mut draft = draft();
        for n in 1..=3 {
            draft.add_event(NewEvent { partition: Some("p".into()), ..NewEvent::new("e", n.to_string()) });
        }
        draft.add_event(NewEvent::new("e", "free"));
        db.commit_draft(draft).await;
        let next = async || queue.claim(&["e".to_owned()], 9, LONG * 6).await.expect("claimed").events;
        let (first, mut own) = (next().await, wakeup.hints());
        assert_eq!(first.iter().map(|event| event.payload.as_str()).collect::<Vec<_>>(), ["1", "free"]);
        assert!(queue.complete(&first[0]).await.expect("completed"));
        timeout(LONG, heard.recv()).await.expect("in time").expect("of the second");
        timeout(LONG, own.next()).await.expect("here too");
        let second = next().await;
        assert!(queue.fail(&second[0], "dead", None).await.expect("failed"));
        timeout(LONG, heard.recv()).await.expect("in time").expect("of the third");
        // Hints of this server itself are there when the call returns. Nobody waits behind these.
        let (third, mut own) = (next().await, wakeup.hints());
        assert!(queue.complete(&third[0]).await.expect("completed"));
        assert!(queue.complete(&first[1]).await.expect("completed"));
        assert!(!queue.complete(&first[0]).await.expect("completed"));
        assert!(own.next().now_or_never().is_none(), "nobody waits");
        assert!(queue.requeue(second[0].id).await.expect("requeued"));
        timeout(LONG, heard.recv()).await.expect("in time").expect("of the requeued");
    })
    .await;
}

#[tokio::test]
async fn many_commits_become_few_notifications_and_the_last_one_is_never_left_out() {
    on_database(async |db| {
        let (_raw, mut heard) = overhear(db).await;
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
